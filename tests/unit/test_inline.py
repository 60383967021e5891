"""busd.rules.inline: one table of bytes and requests, fed whole, byte by byte, with more behind; the edges."""

from __future__ import annotations

from itertools import product

import pytest

from busd.rules import inline
from busd.rules.inline import InlineDecoder, line_bytes_allowed
from busd.words.commands import build_line_request
from busd.words.requests import Bad, Hello, Info, Item, Ping, Publish, Quit, Request, Subscribe
from busd.words.settings import Limits
from tests.support.flat import flat

LIMITS = Limits(payload_bytes=40, line_bytes=300, headers=2, header_bytes=20)
UNKNOWN = "no command '{}'; HELP lists them"
Expected = Request | tuple[str, str, bytes]


def pub(topic: bytes, *payloads: Item, eol: bytes = b"\n") -> Publish:
    """A run of messages."""
    return Publish(topic, list(payloads), 1 << 20, eol=eol, headers=isinstance(payloads[0], list))


CASES: list[tuple[str, bytes, list[Expected]]] = [
    ("nothing", b"", []),
    ("one message", b"PUB t hello world\n", [pub(b"t", b"hello world")]),
    ("CR LF", b"PUB t hello\r\n", [pub(b"t", b"hello", eol=b"\r\n")]),
    ("one CR belongs to the line end", b"PUB t hello\r\r\n", [pub(b"t", b"hello\r", eol=b"\r\n")]),
    ("CR within a payload", b"PUB t a\rb\n", [pub(b"t", b"a\rb")]),
    ("any bytes", b"PUB t \0\xff\xfe\x0b\n", [pub(b"t", b"\0\xff\xfe\x0b")]),
    ("one space ends the topic", b"PUB t  a \t\n", [pub(b"t", b" a \t")]),
    ("empty payloads", b"PUB t\nPUB t \nPUB t\r\n", [pub(b"t", b"", b""), pub(b"t", b"", eol=b"\r\n")]),
    ("blanks before and behind the verb", b" \t PUB \t t x\n\tPUB\tt y\n", [pub(b"t", b"x", b"y")]),
    ("empty lines", b"\n\r\n \t\n  \r\nPING\n\n", [Ping()]),
    ("verbs in any case", b"pInG\npub t x\nQuit\r\n", [Ping(), pub(b"t", b"x"), Quit(eol=b"\r\n")]),
    ("five of one topic", b"PUB t x\n" * 5, [pub(b"t", *[b"x"] * 5)]),
    ("five in lower case with CR LF", b"pub t x\r\n" * 5, [pub(b"t", *[b"x"] * 5, eol=b"\r\n")]),
    (
        "another in the middle",
        b"PUB t x\n" * 4 + b"PING\n" + b"PUB t y\n" * 4,
        [pub(b"t", *[b"x"] * 4), Ping(), pub(b"t", *[b"y"] * 4)],
    ),
    ("another first and last", b"HELLO\n" + b"PUB t x\n" * 5 + b"INFO\n", [Hello(), pub(b"t", *[b"x"] * 5), Info()]),
    (
        "one of the lines ends otherwise",
        b"PUB t x\n" * 4 + b"PUB t y\r\n" + b"PUB t x\n",
        [pub(b"t", *[b"x"] * 4), pub(b"t", b"y", eol=b"\r\n"), pub(b"t", b"x")],
    ),
    (
        "the last of the lines ends otherwise",
        b"PUB t x\n" * 4 + b"PUB t y\r\n",
        [pub(b"t", *[b"x"] * 4), pub(b"t", b"y", eol=b"\r\n")],
    ),
    (
        "payloads that look like commands",
        b"PUB t PUB t x\nPUB t \rPUB t x\nPUB t\nPUB t\n",
        [pub(b"t", b"PUB t x", b"\rPUB t x", b"", b"")],
    ),
    (
        "a bad topic among good ones",
        b"PUB t x\n" * 6 + b"PUB a..b x\n" + b"PUB t x\n",
        [
            pub(b"t", *[b"x"] * 6),
            ("TOPIC", "'a..b' is not a topic: tokens of A-Z a-z 0-9 _ - joined by dots, 200 bytes at most", b"\n"),
            pub(b"t", b"x"),
        ],
    ),
    (
        "a topic of the system",
        b"PUB _dead x\n",
        [("TOPIC", "'_dead' begins with _, which is for the system's own topics", b"\n")],
    ),
    (
        "a payload that is too long among others",
        b"PUB t x\n" * 4 + b"PUB t " + b"y" * 41 + b"\nPUB t " + b"z" * 40 + b"\n",
        [pub(b"t", *[b"x"] * 4), ("TOOBIG", "a payload of 41 bytes; the limit is 40", b"\n"), pub(b"t", b"z" * 40)],
    ),
    ("escapes", b"EPUB t a\\nb\\0000\n", [pub(b"t", b"a\nb\0")]),
    ("escapes as long as they may be", b"EPUB t " + b"\\0101" * 40 + b"\n", [pub(b"t", b"A" * 40)]),
    (
        "escapes that are too long",
        b"EPUB t " + b"\\0101" * 41 + b"\n",
        [("TOOBIG", "a payload of 41 bytes; the limit is 40", b"\n")],
    ),
    ("headers", b"HPUB t k=v :a b \n", [pub(b"t", [b"a b ", b"k", b"v"])]),
    ("no such command", b"GET / HTTP/1.1\r\n", [("UNKNOWN", UNKNOWN.format("GET"), b"\r\n")]),
    ("a verb that is not UTF-8", b"\xc3\x28\x07 x\n", [("UNKNOWN", UNKNOWN.format("\\xc3(\\x07"), b"\n")]),
    (
        "blanks are space and tab only",
        b"\x0b\nPING\x0cx\n",
        [("UNKNOWN", UNKNOWN.format("\\x0b"), b"\n"), ("UNKNOWN", UNKNOWN.format("PING\\x0cx"), b"\n")],
    ),
    ("a CR by itself is a verb", b"\r\r\n", [("UNKNOWN", UNKNOWN.format("\\r"), b"\r\n")]),
    ("arguments apart by many blanks", b"SUB  a.>\t FORMAT \t json \n", [Subscribe((b"a.>",), format="json")]),
    (
        "a line without payload that is too long",
        b"PING " + b"x" * 296 + b"\r\n",
        [("TOOBIG", "a line of 301 bytes; the limit for it is 300", b"\r\n")],
    ),
    ("blanks count", b" " * 301 + b"\n", [("TOOBIG", "a line of 301 bytes; the limit for it is 300", b"\n")]),
    (
        "a line with a payload that is far too long",
        b"PUB t " + b"x" * 1000 + b"\nPING\n",
        [("TOOBIG", "a line of 1006 bytes; the limit for it is 340", b"\n"), Ping()],
    ),
    (
        "too long by the CR that is not a line end",
        b"PUB t " + b"x" * 334 + b"\r\r\n",
        [("TOOBIG", "a line of 341 bytes; the limit for it is 340", b"\r\n")],
    ),
]


def expected(requests: list[Expected]) -> list[object]:
    """The table's short form of errors, spelled out."""
    out: list[object] = []
    for one in requests:
        if isinstance(one, tuple):
            out.append(("BAD", one[0], one[1], one[0] == "UNKNOWN", one[2]))
        else:
            out += flat([one])
    return out


@pytest.mark.parametrize(("data", "requests"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_table(data: bytes, requests: list[Expected]) -> None:
    whole = InlineDecoder(LIMITS)
    assert flat(whole.feed(data)) == expected(requests)
    assert not whole.unfinished
    assert whole.end() is None
    bytewise = InlineDecoder(LIMITS)
    fed = [request for at in range(len(data)) for request in bytewise.feed(data[at : at + 1])]
    assert flat(fed) == expected(requests)
    assert not bytewise.unfinished
    trailing = InlineDecoder(LIMITS)
    assert flat(trailing.feed(data + b"PUB t begun")) == expected(requests)
    assert trailing.unfinished
    assert flat(trailing.feed(b" and ended\r\n")) == flat([pub(b"t", b"begun and ended", eol=b"\r\n")])


def test_a_read_of_one_kind_is_one_run() -> None:
    one_topic = InlineDecoder(Limits()).feed(b"".join([b"PUB news.eu %d\r\n" % n for n in range(600)]))
    many_topics = InlineDecoder(Limits()).feed(b"".join([b"PUB t.%d %d\n" % (n % 7, n) for n in range(600)]))
    (first,), (second,) = one_topic, many_topics
    assert isinstance(first, Publish)
    assert isinstance(second, Publish)
    assert first.topics == b"news.eu"
    assert list(second.topics) == [b"t.%d" % (n % 7) for n in range(600)]
    assert first.items == second.items == [b"%d" % n for n in range(600)]


@pytest.mark.parametrize(
    "data",
    [
        b"PUB t x\n" * 8,
        b"pub t x\r\n" * 8,
        b"PUB t x\nPUB u y\n" * 4,
        b"PUB t x\r\nPUB u\r\n" * 4,
    ],
)
def test_reads_of_one_kind_do_not_go_line_by_line(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(inline, "build_line_request")
    (run,) = InlineDecoder(LIMITS).feed(data)
    assert isinstance(run, Publish)
    assert len(run.items) == 8


WORDS = [
    b"PUB",
    b"pub",
    b"EPUB",
    b"PING",
    b"t",
    b"a.b",
    b"a..b",
    b"_x",
    b"x" * 41,
    b"x" * 300,
    b"",
    b"\t",
    b"\r",
    b"p\t",
]


@pytest.mark.parametrize("eol", [b"\n", b"\r\n", b"\r\r\n"])
def test_a_line_that_comes_alone_means_what_the_grammar_says(eol: bytes) -> None:
    for words in product(WORDS, repeat=3):
        for line in (b" ".join(words[:2]) + eol, b" ".join(words) + eol):
            expected: list[Request] = []
            inline.decode_plainly(line, LIMITS, expected)
            assert flat(InlineDecoder(LIMITS).feed(line)) == flat(expected), line


@pytest.mark.parametrize("line", [b"PUB t x\n", b"pub a.b x y\r\n", b"PUB t \n"])
def test_a_publish_that_comes_alone_does_not_go_through_the_grammar(
    line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(inline, "build_line_request")
    decoder = InlineDecoder(LIMITS)
    assert [len(decoder.feed(line)) for _ in range(2)] == [1, 1]


@pytest.mark.parametrize(
    ("reads", "clean"),
    [
        ([b"PUB t x\n"], True),
        ([b"PUB t x\nPING\n"], True),
        ([b"PUB t"], False),
        ([b"PUB t x\nP"], False),
        ([b"PUB t", b" x\n"], True),
        ([b"x" * 1000, b"x"], False),
        ([b"x" * 1000, b"\nPING\n"], True),
    ],
)
def test_clean_is_a_decoder_that_holds_nothing(reads: list[bytes], clean: bool) -> None:
    decoder = InlineDecoder(LIMITS)
    for read in reads:
        decoder.feed(read)
    assert decoder.clean == clean
    assert decoder.clean == (not decoder.unfinished and not decoder.held_bytes)


@pytest.mark.parametrize("read", [b"PUB a \nPUB b \n" * 100, b"PUB a\nPUB b\n" * 100, b"PUB a \n" * 200])
def test_empty_payloads_weigh_something(read: bytes) -> None:
    # All bounds on what waits for the disk, and on a batch, are in bytes.
    (run,) = InlineDecoder(Limits()).feed(read)
    assert isinstance(run, Publish)
    assert len(run.items) == 200
    assert run.size_bytes >= 200


def test_the_names_of_topics_weigh_something() -> None:
    topics = [b"%03d" % number + b"t" * 190 for number in range(200)]
    (run,) = InlineDecoder(Limits()).feed(b"".join([b"PUB %b x\n" % topic for topic in topics]))
    assert isinstance(run, Publish)
    assert run.size_bytes >= sum(map(len, topics))


def test_one_error_among_many_leaves_the_others_to_the_shortcut(monkeypatch: pytest.MonkeyPatch) -> None:
    plainly: list[bytes] = []

    def build(line: bytes, eol: bytes, limits: Limits) -> Request | None:
        plainly.append(line)
        return build_line_request(line, eol, limits)

    monkeypatch.setattr(inline, "build_line_request", build)
    lines = [b"PUB t.%d x\n" % (number % 3) for number in range(1000)]
    lines[500] = b"PUB not/a/topic x\n"
    lines[700] = b"PING\n"
    assert len(flat(InlineDecoder(LIMITS).feed(b"".join(lines)))) == 1000
    assert {b"PUB not/a/topic x", b"PING"} <= set(plainly)
    assert len(plainly) < 10


@pytest.mark.parametrize("begun", [b"P", b" PING", b"PUB t x\r", b"\0", b"x" * 5000])
def test_end_of_input_within_a_line(begun: bytes) -> None:
    decoder = InlineDecoder(LIMITS)
    assert flat(decoder.feed(b"PING\n" + begun)) == flat([Ping()])
    assert decoder.unfinished
    end = decoder.end()
    assert isinstance(end, Bad)
    assert (end.error.code, end.error.text, end.eol) == (
        "CUT",
        "the input ended within a line; it was not carried out",
        b"\n",
    )
    assert not decoder.unfinished
    assert decoder.end() is None


@pytest.mark.parametrize("blank", [b"", b" ", b"\t\r", b"\r"])
def test_blanks_begin_nothing(blank: bytes) -> None:
    decoder = InlineDecoder(LIMITS)
    assert decoder.feed(b"PING\n" + blank) == [Ping()]
    assert not decoder.unfinished
    assert decoder.end() is None


def test_an_endless_line_is_not_held() -> None:
    decoder = InlineDecoder(LIMITS)
    for _ in range(1000):
        assert decoder.feed(b"PUB t x " * 128) == []
        assert len(decoder._held) < 2048
    assert decoder.unfinished
    assert flat(decoder.feed(b"\r")) == []
    assert flat(decoder.feed(b"\nPING\n")) == expected(
        [("TOOBIG", "a line of 1024000 bytes; the limit for it is 340", b"\r\n"), Ping()]
    )


def test_a_payload_of_the_largest_size_in_small_reads() -> None:
    payload = bytes(range(11, 256)) * 4000
    limits = Limits(payload_bytes=len(payload))
    data = b"PUB t " + payload + b"\nPUB t " + payload + b"!\n"
    decoder = InlineDecoder(limits)
    requests = [request for at in range(0, len(data), 100) for request in decoder.feed(data[at : at + 100])]
    assert flat(requests) == expected(
        [pub(b"t", payload), ("TOOBIG", f"a payload of {len(payload) + 1} bytes; the limit is {len(payload)}", b"\n")]
    )


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        (b"PING x", 300),
        (b"PUB", 300),
        (b"PUBLISH t", 300),
        (b"PUB t", 340),
        (b" \tpub\tt", 340),
        (b"EPUB t", 500),
        (b"HPUB t", 364),
        (b" " * 299 + b"PUB t", 300),
        (b"", 300),
    ],
)
def test_line_bytes_allowed(line: bytes, allowed: int) -> None:
    assert line_bytes_allowed(line, LIMITS) == allowed
    assert line_bytes_allowed(bytearray(line), LIMITS) == allowed


def test_where_a_topic_may_not_fit_into_a_line_each_line_is_measured() -> None:
    limits = Limits(payload_bytes=8, line_bytes=12)
    bad = ("BAD", "TOOBIG", "a line of 26 bytes; the limit for it is 20", False, b"\n")
    assert flat(InlineDecoder(limits).feed(b"PUB abcdefghijklmnopqrst x\n" * 9)) == [bad] * 9


def test_every_header_that_is_allowed_fits_into_a_line() -> None:
    limits = Limits(payload_bytes=3, line_bytes=10, headers=2, header_bytes=20)
    line = b"HPUB t a=" + b"v" * 9 + b" b=" + b"w" * 9 + b" :xyz\n"
    (run,) = InlineDecoder(limits).feed(line)
    assert isinstance(run, Publish)
    assert run.items == [[b"xyz", b"a", b"v" * 9, b"b", b"w" * 9]]
