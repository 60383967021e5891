"""How long the codecs take: median ns a message on each path.  Run by hand: `python bench/codecs.py [seconds]`.

One read of about 256 KiB, 100-byte payloads, a fresh decoder each time; the requests are counted, so that a path
that loses messages is noticed.  Compare figures of one run with each other, not with those of another machine.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

from busd.rules.inline import InlineDecoder
from busd.rules.resp import RespDecoder
from busd.words.requests import Publish, Request
from busd.words.settings import Limits

LIMITS = Limits()
N = 2000
PAYLOADS = [b"%0*d" % (90 + number % 20, number) for number in range(N)]
TOPICS = [b"topic.%d" % (number * 7919 % 20) for number in range(N)]
Decoder = InlineDecoder | RespDecoder


def resp(*arguments: bytes) -> bytes:
    """One command as a RESP array."""
    return b"*%d\r\n" % len(arguments) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in arguments])


def count(requests: list[Request]) -> int:
    """Messages, and what else there is."""
    return sum(len(one.items) if isinstance(one, Publish) else 1 for one in requests)


def measure(name: str, make: Callable[[Limits], Decoder], reads: list[bytes], n: int, seconds: float) -> None:
    """Print the median of ns a message over as many rounds as fit into `seconds`."""
    times_ns: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(times_ns) < 5:
        decoder = make(LIMITS)
        before = time.perf_counter_ns()
        got = [decoder.feed(read) for read in reads]
        times_ns.append((time.perf_counter_ns() - before) / n)
        assert sum(map(count, got)) == n, name
    print(f"{statistics.median(times_ns):8.0f} ns  {name}")


def main() -> None:
    """All paths."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 0.5
    one = [b"PUB news.eu %b\n" % payload for payload in PAYLOADS]
    many = [b"PUB %b %b\n" % pair for pair in zip(TOPICS, PAYLOADS, strict=True)]
    crlf = [line[:-1] + b"\r\n" for line in one]
    resp_one = [resp(b"PUB", b"news.eu", payload) for payload in PAYLOADS]
    resp_many = [resp(b"PUB", topic, payload) for topic, payload in zip(TOPICS, PAYLOADS, strict=True)]
    headers = [resp(b"PUB", b"news.eu", payload, b"unit", b"C") for payload in PAYLOADS]
    whole = b"".join(one)
    ping = resp(b"PING")
    paths: list[tuple[str, Callable[[Limits], Decoder], list[bytes], int]] = [
        ("inline, one topic", InlineDecoder, [whole], N),
        ("inline, one topic, CR LF", InlineDecoder, [b"".join(crlf)], N),
        ("inline, 20 topics", InlineDecoder, [b"".join(many)], N),
        ("inline, one topic, reads that end within a line", InlineDecoder, [whole[:100_001], whole[100_001:]], N),
        ("inline, one topic, a PING in the middle", InlineDecoder, [b"".join([*one[:999], b"PING\n", *one[1000:]])], N),
        ("inline, half of the lines PING", InlineDecoder, [b"".join(one[:1000]).replace(b"\n", b"\nPING\n")], N),
        ("inline, a message a read", InlineDecoder, one, N),
        ("inline, HPUB", InlineDecoder, [b"".join([b"HPUB t unit=C :" + p + b"\n" for p in PAYLOADS])], N),
        ("RESP, one topic", RespDecoder, [b"".join(resp_one)], N),
        ("RESP, 20 topics", RespDecoder, [b"".join(resp_many)], N),
        (
            "RESP, 20 topics, a PING in the middle",
            RespDecoder,
            [b"".join([*resp_many[:999], ping, *resp_many[1000:]])],
            N,
        ),
        ("RESP, half of the commands PING", RespDecoder, [b"".join([x + ping for x in resp_one[:1000]])], N),
        ("RESP, a message a read", RespDecoder, resp_one, N),
        ("RESP, headers", RespDecoder, [b"".join(headers)], N),
        ("RESP, MPUB", RespDecoder, [resp(b"MPUB", b"news.eu", *PAYLOADS)], N),
    ]
    for path in paths:
        measure(*path, seconds)


if __name__ == "__main__":
    main()
