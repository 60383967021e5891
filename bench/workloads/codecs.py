"""How long busd's decoders take for a message on each path, without a server: where the time of a publish goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

from bench.context import Context, payloads
from bench.peers.base import resp
from bench.peers.busd_server import inline, with_header, with_headers
from bench.plan import Job, Row, Sample, Workload, WrongAnswer
from busd.rules.inline import InlineDecoder
from busd.rules.resp import RespDecoder
from busd.words.requests import Publish, Request
from busd.words.settings import Limits

# A read of about 256 KiB, as the server makes them.
MESSAGES = 2_000
SIZE_BYTES = 100
REPEATS = 100
PAYLOADS = payloads(MESSAGES, SIZE_BYTES)
TOPICS = [b"topic.%d" % (number * 7919 % 20) for number in range(MESSAGES)]
Decoder = InlineDecoder | RespDecoder


@cache
def paths() -> dict[str, tuple[Callable[[Limits], Decoder], list[bytes]]]:
    """What is read, by name, and by what."""
    one = [inline(b"news.eu", payload) for payload in PAYLOADS]
    many = list(map(inline, TOPICS, PAYLOADS))
    whole, half = b"".join(one), MESSAGES // 2
    cut = len(whole) // 2 + 1
    in_resp = [resp("PUB", b"news.eu", payload) for payload in PAYLOADS]
    many_in_resp = [resp("PUB", topic, payload) for topic, payload in zip(TOPICS, PAYLOADS, strict=True)]
    tagged = [resp("PUB", b"news.eu", payload, "unit", "C") for payload in PAYLOADS]
    ping = resp("PING")
    return {
        "inline, one topic": (InlineDecoder, [whole]),
        "inline, one topic, CR LF": (InlineDecoder, [whole.replace(b"\n", b"\r\n")]),
        "inline, 20 topics": (InlineDecoder, [b"".join(many)]),
        "inline, a read ends within a line": (
            InlineDecoder,
            [whole[:cut], whole[cut:]],
        ),
        "inline, a PING in the middle": (InlineDecoder, [b"".join([*one[:half], b"PING\n", *one[half:]])]),
        "inline, a message a read": (InlineDecoder, one),
        "inline, HPUB": (InlineDecoder, [b"".join([with_header(b"news.eu", one) for one in PAYLOADS])]),
        "inline, HPUB, 20 topics, three headers": (InlineDecoder, [b"".join(map(with_headers, TOPICS, PAYLOADS))]),
        "RESP, one topic": (RespDecoder, [b"".join(in_resp)]),
        "RESP, 20 topics": (RespDecoder, [b"".join(many_in_resp)]),
        "RESP, a PING in the middle": (RespDecoder, [b"".join([*in_resp[:half], ping, *in_resp[half:]])]),
        "RESP, a message a read": (RespDecoder, in_resp),
        "RESP, headers": (RespDecoder, [b"".join(tagged)]),
        "RESP, MPUB": (RespDecoder, [resp("MPUB", b"news.eu", *PAYLOADS)]),
    }


def decode(context: Context, row: Row) -> Mapping[Row, Sample]:
    """The CPU time of a new decoder for all reads, many times; what it found is counted each time."""
    make, reads = paths()[row.case]
    limits, spent_ns, repeats = Limits(), 0, context.size.some(REPEATS, 3)
    for _ in range(repeats):
        decoder = make(limits)
        before_ns = time.process_time_ns()
        found = [decoder.feed(read) for read in reads]
        spent_ns += time.process_time_ns() - before_ns
        if (got := messages(found)) != MESSAGES:
            raise WrongAnswer(f"{row.case}: {got} of {MESSAGES} messages")
    return {row: Sample(spent_ns / repeats / MESSAGES)}


def messages(found: Sequence[list[Request]]) -> int:
    """How many were published."""
    return sum(len(one.items) for requests in found for one in requests if isinstance(one, Publish))


ROWS = tuple(Row(name, "busd", "ns/msg") for name in paths())
WORKLOAD = Workload(
    name="codecs",
    title="Decoding requests",
    about=(
        f"No server: CPU time of busd's decoders for a message of {SIZE_BYTES} bytes, {MESSAGES:,} of them in a read "
        "unless said."
    ),
    jobs=tuple(Job((row,), partial(decode, row=row)) for row in ROWS),
)
