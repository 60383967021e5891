"""busd.rules.resp: one table of bytes and requests, fed whole, byte by byte, with more behind; the edges."""

from __future__ import annotations

import pytest

from busd.rules import resp as module
from busd.rules.resp import MAX_ARGUMENTS, RespDecoder
from busd.words.commands import build_request
from busd.words.requests import Bad, Hello, Housekeeping, Item, Ping, Publish, Quit, Read, Request
from busd.words.settings import Limits
from tests.support.flat import flat

LIMITS = Limits(payload_bytes=40, line_bytes=210, headers=2, header_bytes=20, command_bytes=300)
TOO_MUCH = "; the limits are 100000 arguments, 250 bytes for one, 300 for all"
BEGIN = "*, the number of arguments in decimal, CR LF"
LENGTH = "$, the length of an argument in decimal, CR LF"
END = "CR LF behind an argument"
Expected = Request | tuple[str, str]


def resp(*arguments: bytes) -> bytes:
    """One command as it is sent."""
    return b"*%d\r\n" % len(arguments) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in arguments])


def pub(topic: bytes, *payloads: Item) -> Publish:
    """A run of messages."""
    return Publish(topic, list(payloads), 1 << 24, eol=b"\r\n", headers=isinstance(payloads[0], list))


def mpub(topic: bytes, *payloads: bytes) -> Publish:
    """Messages that are answered together."""
    return Publish(topic, list(payloads), 1 << 24, eol=b"\r\n", answers="first")


PUB = resp(b"PUB", b"t", b"x")
PING = resp(b"PING")
PONG = Ping(eol=b"\r\n")
SNEAKY = b"\r\n*3\r\n$3\r\nPUB\r\n$1\r\nt\r\n$1\r\nx"
BAD_TOPIC = "'a..b' is not a topic: tokens of A-Z a-z 0-9 _ - joined by dots, 200 bytes at most"

CASES: list[tuple[str, bytes, list[Expected]]] = [
    ("nothing", b"", []),
    ("a command", resp(b"PING", b"hi"), [Ping(b"hi", eol=b"\r\n")]),
    ("verbs in any case", resp(b"pInG") + resp(b"pub", b"t", b"x") * 3, [PONG, pub(b"t", *[b"x"] * 3)]),
    ("empty commands and lines", b"\r\n*0\r\n" + PING + b"\r\n\r\n" + PING + b"*0\r\n", [PONG, PONG]),
    ("one message", PUB, [pub(b"t", b"x")]),
    ("five messages", PUB * 5, [pub(b"t", *[b"x"] * 5)]),
    ("an empty payload", resp(b"PUB", b"t", b"") * 2, [pub(b"t", b"", b"")]),
    ("any bytes", resp(b"PUB", b"t", b"\0\r\n\xff\n") * 2, [pub(b"t", *[b"\0\r\n\xff\n"] * 2)]),
    ("another in the middle", PUB * 3 + PING + PUB * 2, [pub(b"t", *[b"x"] * 3), PONG, pub(b"t", *[b"x"] * 2)]),
    ("another first and last", PING + PUB * 3 + resp(b"QUIT"), [PONG, pub(b"t", *[b"x"] * 3), Quit(eol=b"\r\n")]),
    ("payloads that look like commands", resp(b"PUB", b"t", SNEAKY) * 3, [pub(b"t", *[SNEAKY] * 3)]),
    (
        "one that does, among others with other topics",
        PUB + resp(b"PUB", b"u", b"y") + resp(b"PUB", b"t", SNEAKY) + PUB,
        [pub(b"t", b"x"), pub(b"u", b"y"), pub(b"t", SNEAKY, b"x")],
    ),
    ("headers", PUB + resp(b"PUB", b"t", b"y", b"k", b"v"), [pub(b"t", b"x"), pub(b"t", [b"y", b"k", b"v"])]),
    ("many at once", resp(b"MPUB", b"t", b"a", b"b") * 2, [mpub(b"t", b"a", b"b")] * 2),
    (
        "very many at once",
        resp(b"MPUB", b"t", *[b"%d" % n for n in range(50)]) + PUB,
        [mpub(b"t", *[b"%d" % n for n in range(50)]), pub(b"t", b"x")],
    ),
    (
        "very many, some with what stands between",
        resp(b"MPUB", b"t", *[b"a\r\n$1\r\nb", b"c", b"\r\n", b"\r\n$", b""] * 8),
        [mpub(b"t", *[b"a\r\n$1\r\nb", b"c", b"\r\n", b"\r\n$", b""] * 8)],
    ),
    ("what Redis clients ask", resp(b"CLIENT", b"SETINFO", b"LIB-NAME", b"x"), [Housekeeping(eol=b"\r\n")]),
    ("HELLO 3", resp(b"HELLO", b"3"), [Hello(3, eol=b"\r\n")]),
    ("READ", resp(b"READ", b"t"), [Read((b"t",), format="msg", eol=b"\r\n")]),
    ("no such command", resp(b"XADD", b"t"), [("UNKNOWN", "no command 'XADD'; HELP lists them")]),
    ("an empty verb", resp(b""), [("UNKNOWN", "no command ''; HELP lists them")]),
    (
        "a bad topic among others",
        PUB + resp(b"PUB", b"a..b", b"x") + PUB,
        [pub(b"t", b"x"), ("TOPIC", BAD_TOPIC), pub(b"t", b"x")],
    ),
    ("a bad topic by itself", resp(b"PUB", b"a..b", b"x"), [("TOPIC", BAD_TOPIC)]),
    (
        "a payload that is too long",
        resp(b"PUB", b"t", b"x" * 41),
        [("TOOBIG", "a payload of 41 bytes; the limit is 40")],
    ),
    (
        "one that is too long among others",
        PUB * 2 + resp(b"PUB", b"t", b"x" * 41) + PUB + resp(b"PUB", b"t", b"x" * 41),
        [
            pub(b"t", b"x", b"x"),
            ("TOOBIG", "a payload of 41 bytes; the limit is 40"),
            pub(b"t", b"x"),
            ("TOOBIG", "a payload of 41 bytes; the limit is 40"),
        ],
    ),
    (
        "an argument that is far too long",
        PUB + resp(b"PUB", b"t", b"x" * 251) + PUB,
        [pub(b"t", b"x"), ("TOOBIG", "a command of 3 arguments and 255 bytes" + TOO_MUCH), pub(b"t", b"x")],
    ),
    (
        "an argument that is far too long among very many",
        resp(b"MPUB", b"t", *[b""] * 20, b"x" * 251, *[b""] * 20) + PING,
        [("TOOBIG", "a command of 43 arguments and 256 bytes" + TOO_MUCH), PONG],
    ),
    (
        "arguments that are too much together",
        resp(b"MPUB", b"t", *[b"x" * 40] * 8) + PING,
        [("TOOBIG", "a command of 10 arguments and 325 bytes" + TOO_MUCH), PONG],
    ),
    (
        "very many that are",
        resp(b"MPUB", b"t", *[b"x" * 10] * 40) + PING,
        [("TOOBIG", "a command of 42 arguments and 405 bytes" + TOO_MUCH), PONG],
    ),
]
WRONG: list[tuple[str, bytes, str]] = [
    ("a line", b"PING\r\n", f"'P' stands where there should be {BEGIN}"),
    ("a line among commands", PUB * 2 + b"PING\r\n", f"'P' stands where there should be {BEGIN}"),
    ("a lone LF", b"\n", f"'\\n' stands where there should be {BEGIN}"),
    ("a lone CR", b"\rX", f"'\\r' stands where there should be {BEGIN}"),
    ("a count with a sign", b"*-1\r\n", f"'*-' stands where there should be {BEGIN}"),
    ("a count with an exponent", b"*1e9\r\n", f"'*1e' stands where there should be {BEGIN}"),
    ("a count with a leading zero", b"*01\r\n", f"'*01' stands where there should be {BEGIN}"),
    ("no count", b"*\r\n", f"'*\\r' stands where there should be {BEGIN}"),
    ("LF without CR", b"*1\n$4\nPING\n", f"'*1\\n' stands where there should be {BEGIN}"),
    (
        "a count beyond reason",
        b"*1073741825\r\n",
        "'*1073741825\\r\\n' stands where there should be the number of arguments, 1073741824 at most",
    ),
    ("no bulk string", b"*1\r\n+PING\r\n", f"'+' stands where there should be {LENGTH}"),
    ("a null", b"*1\r\n$-1\r\n", f"'$-' stands where there should be {LENGTH}"),
    ("a nested array", b"*2\r\n$4\r\nPING\r\n*0\r\n", f"'*' stands where there should be {LENGTH}"),
    ("a length with leading zeros", b"*1\r\n$004\r\nPING\r\n", f"'$00' stands where there should be {LENGTH}"),
    (
        "a length beyond reason",
        b"*1\r\n$1073741825\r\n",
        "'$1073741825\\r\\n' stands where there should be the length of an argument, 1073741824 at most",
    ),
    ("a length beyond all reason", b"*1\r\n$99999999999\r\n", f"'$99999999999' stands where there should be {LENGTH}"),
    ("a length that is too small", b"*1\r\n$3\r\nPING\r\n", f"'G\\r' stands where there should be {END}"),
    ("a length that is too large", b"*1\r\n$5\r\nPING\r\n*", f"'\\n*' stands where there should be {END}"),
    (
        "a simple string as the verb",
        PUB * 3 + PUB.replace(b"$3\r\nPUB", b"+PUB"),
        f"'+' stands where there should be {LENGTH}",
    ),
    (
        "a simple string as the topic",
        PUB * 3 + PUB.replace(b"$1\r\nt", b"+t"),
        f"'+' stands where there should be {LENGTH}",
    ),
    (
        "a wrong length of the one topic",
        PUB.replace(b"$1\r\nt", b"$2\r\nt") * 4,
        f"'\\n$' stands where there should be {END}",
    ),
    (
        "a wrong length of one of many topics",
        PUB + (resp(b"PUB", b"u", b"x") + PUB).replace(b"$1\r\nt", b"$2\r\nt"),
        f"'\\n$' stands where there should be {END}",
    ),
    ("a payload that does not end", PUB * 4 + PUB[:-2] + b"yz", f"'yz' stands where there should be {END}"),
    ("a payload that does not end, by itself", PUB[:-2] + b"yz", f"'yz' stands where there should be {END}"),
    (
        "one that is too big and does not end",
        b"*2\r\n$251\r\n" + b"x" * 251 + b"yz",
        f"'yz' stands where there should be {END}",
    ),
    (
        "one that is too big and then no bulk string",
        b"*2\r\n$251\r\n" + b"x" * 251 + b"\r\n:1\r\n",
        f"':' stands where there should be {LENGTH}",
    ),
    (
        "one that is too big and then beyond reason",
        b"*2\r\n$251\r\n" + b"x" * 251 + b"\r\n$2000000000\r\n",
        "'$2000000000\\r\\n' stands where there should be the length of an argument, 1073741824 at most",
    ),
    (
        "very many and one of them wrong",
        resp(b"MPUB", b"t", *[b"x"] * 30).replace(b"$1\r\nx\r\n" * 9, b"$1\r\nx\r\n" * 8 + b"$2\r\nx\r\n"),
        f"'\\n$' stands where there should be {END}",
    ),
]


def expected(requests: list[Expected]) -> list[object]:
    """The table's short form of errors, spelled out."""
    out: list[object] = []
    for one in requests:
        if isinstance(one, tuple):
            out.append(("BAD", one[0], one[1], one[0] == "UNKNOWN", b"\r\n"))
        else:
            out += flat([one])
    return out


def bytewise(decoder: RespDecoder, data: bytes) -> list[object]:
    """What comes of the data fed a byte at a time."""
    return flat([request for at in range(len(data)) for request in decoder.feed(data[at : at + 1])])


@pytest.mark.parametrize(("data", "requests"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_table(data: bytes, requests: list[Expected]) -> None:
    whole = RespDecoder(LIMITS)
    assert flat(whole.feed(data)) == expected(requests)
    assert not whole.unfinished
    assert whole.end() is None
    slow = RespDecoder(LIMITS)
    assert bytewise(slow, data) == expected(requests)
    assert not slow.unfinished
    assert whole.clean == slow.clean == (not whole.held_bytes)
    more = resp(b"PUB", b"t", b"begun and ended")
    for cut in range(1, len(more)):
        trailing = RespDecoder(LIMITS)
        assert flat(trailing.feed(data + more[:cut])) == expected(requests)
        assert trailing.unfinished
        assert not trailing.clean
        assert flat(trailing.feed(more[cut:])) == flat([pub(b"t", b"begun and ended")])
        assert not trailing.unfinished
        assert trailing.clean


@pytest.mark.parametrize(("data", "text"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_what_is_not_resp_ends_it(data: bytes, text: str) -> None:
    whole = RespDecoder(LIMITS)
    *good, bad = whole.feed(PING + data + PING)
    assert isinstance(bad, Bad)
    assert bad.error.fatal
    assert flat([bad]) == [("BAD", "SYNTAX", text, False, b"\r\n")]
    assert flat(good[:1]) == flat([PONG])
    assert not any(isinstance(request, Bad) for request in good)
    assert whole.feed(PING) == []
    assert not whole.unfinished
    assert whole.end() is None
    assert bytewise(RespDecoder(LIMITS), PING + data + PING) == flat([*good, bad])


@pytest.mark.parametrize("cut", range(1, len(PUB)))
def test_end_of_input_within_a_command(cut: int) -> None:
    decoder = RespDecoder(LIMITS)
    decoder.feed(PUB + PUB[:cut])
    end = decoder.end()
    assert end is not None
    assert flat([end]) == [("BAD", "CUT", "the input ended within a command; it was not carried out", False, b"\r\n")]
    assert not decoder.unfinished
    assert decoder.end() is None
    assert decoder.feed(PUB[cut:]) == []


def test_a_read_of_one_kind_is_one_run() -> None:
    one_topic = RespDecoder(Limits()).feed(b"".join([resp(b"PUB", b"t", b"%d" % n) for n in range(600)]))
    many_topics = RespDecoder(Limits()).feed(b"".join([resp(b"PUB", b"t.%d" % (n % 7), b"%d" % n) for n in range(600)]))
    (first,), (second,) = one_topic, many_topics
    assert isinstance(first, Publish)
    assert isinstance(second, Publish)
    assert first.topics == b"t"
    assert list(second.topics) == [b"t.%d" % (n % 7) for n in range(600)]
    assert first.items == second.items == [b"%d" % n for n in range(600)]


def test_one_odd_command_among_many_leaves_the_others_to_the_shortcut(monkeypatch: pytest.MonkeyPatch) -> None:
    plainly: list[bytes] = []

    def build(verb: bytes, args: list[bytes], limits: Limits) -> Request:
        plainly.append(verb)
        return build_request(verb, args, limits)

    monkeypatch.setattr(module, "build_request", build)
    commands = [resp(b"PUB", b"t.%d" % (number % 3), b"x") for number in range(1000)]
    commands[300] = resp(b"PUB", b"not/a/topic", b"x")
    commands[500] = PING
    commands[700] = resp(b"PUB", b"t", SNEAKY)
    assert len(flat(RespDecoder(LIMITS).feed(b"".join(commands)))) == 1000
    assert b"PING" in plainly
    assert len(plainly) < 10


def test_an_endless_argument_is_not_held() -> None:
    decoder = RespDecoder(LIMITS)
    assert decoder.feed(b"*2\r\n$3\r\nPUB\r\n$1024000\r\n") == []
    for _ in range(1000):
        assert decoder.feed(b"x" * 1024) == []
        assert len(decoder._held) + sum(map(len, decoder._arguments)) < 2048
    assert decoder.unfinished
    assert flat(decoder.feed(b"\r\n" + PING)) == expected(
        [("TOOBIG", "a command of 2 arguments and 1024003 bytes" + TOO_MUCH), PONG]
    )


def test_too_many_arguments_are_not_held() -> None:
    decoder = RespDecoder(Limits())
    assert decoder.feed(b"*%d\r\n" % (MAX_ARGUMENTS + 1)) == []
    for _ in range(100):
        assert decoder.feed(b"$0\r\n\r\n" * (MAX_ARGUMENTS // 100)) == []
        assert decoder._arguments == []
    (bad, pong) = decoder.feed(b"$0\r\n\r\n" + PING)
    assert isinstance(bad, Bad)
    assert bad.error.code == "TOOBIG"
    assert bad.error.text.startswith("a command of 100001 arguments and 0 bytes")
    assert pong == PONG


def test_a_payload_that_is_allowed_fits_whatever_a_command_may_have() -> None:
    data = resp(b"PUB", b"t", b"x" * 1000)
    decoder = RespDecoder(Limits(payload_bytes=1000, command_bytes=10))
    assert flat(decoder.feed(data[:500]) + decoder.feed(data[500:])) == flat([pub(b"t", b"x" * 1000)])


@pytest.mark.parametrize("step", [1000, 50_000, 1 << 20])
def test_many_arguments_are_counted_over_all_reads(step: int) -> None:
    limits = Limits(payload_bytes=5000, command_bytes=100_000)
    good, bad = resp(b"MPUB", b"t", *[b"x" * 5000] * 19), resp(b"MPUB", b"t", *[b"x" * 5000] * 20)
    data = good + bad + good
    decoder = RespDecoder(limits)
    requests = [request for at in range(0, len(data), step) for request in decoder.feed(data[at : at + step])]
    run = mpub(b"t", *[b"x" * 5000] * 19)
    limit = "the limits are 100000 arguments, 9096 bytes for one, 100000 for all"
    text = f"a command of 22 arguments and 100005 bytes; {limit}"
    assert flat(requests) == expected([run, ("TOOBIG", text), run])


def test_large_payloads_in_small_reads() -> None:
    payload = bytes(range(256)) * 4000
    limits = Limits(payload_bytes=len(payload), command_bytes=4 * len(payload))
    data = resp(b"MPUB", b"t", payload, b"", payload) + resp(b"PUB", b"t", payload) * 2
    decoder = RespDecoder(limits)
    requests = [request for at in range(0, len(data), 1000) for request in decoder.feed(data[at : at + 1000])]
    assert flat(requests) == flat([mpub(b"t", payload, b"", payload), pub(b"t", payload, payload)])


def test_a_header_of_more_than_a_payload_may_have_fits_where_its_own_limits_hold() -> None:
    limits = Limits(payload_bytes=1024, header_bytes=65_536)
    data = b"*5\r\n$3\r\nPUB\r\n$1\r\nt\r\n$1\r\nx\r\n$1\r\nk\r\n$60000\r\n%b\r\n" % (b"v" * 60_000)
    decoder = RespDecoder(limits)
    (request,) = [*decoder.feed(data[:9000]), *decoder.feed(data[9000:])]
    assert isinstance(request, Publish)
