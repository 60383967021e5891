"""Invariant: any bytes, cut into reads anywhere, give what the plain grammar gives for the whole; nothing raises.

The plain grammar is written a second time here, on whole input and with no thought of speed.
"""

from __future__ import annotations

import re
from itertools import pairwise
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from busd.rules import inline, inline_headers
from busd.rules.inline import InlineDecoder
from busd.rules.resp import RespDecoder
from busd.words.commands import build_line_request, build_request
from busd.words.errors import ERRORS
from busd.words.requests import Request
from busd.words.settings import Limits
from tests.support.flat import flat

SMALL = Limits(payload_bytes=64, line_bytes=210, headers=3, header_bytes=32, command_bytes=320)
# Too short for the shortcuts to be sure that a line with a topic fits.
TINY = Limits(payload_bytes=8, line_bytes=12, headers=1, header_bytes=8, command_bytes=40)
LIMITS = st.sampled_from([SMALL, TINY, Limits()])

NASTY = [
    b"",
    b" ",
    b"\r",
    b"\0",
    b"a\r",
    b"\r\r",
    b"PUB t x",
    b"\xff\xfe",
    b"$3",
    b"x" * 63,
    b"x" * 64,
    b"x" * 65,
    b"x" * 300,
    b"\\n\\0007",
    b"\\",
]
TOPICS = st.sampled_from([b"t", b"t", b"t", b"news.eu", b"a" * 200, b"a" * 201, b"", b"_s", b"a..b", b"\xff"])
PAYLOADS = st.one_of(st.sampled_from(NASTY), st.binary(max_size=12), st.just(b"hello"))
RESP_PAYLOADS = st.one_of(
    PAYLOADS,
    st.sampled_from(
        [
            b"\r\n*3\r\n$3\r\nPUB\r\n$1\r\nt\r\n$1\r\nx",
            b"\r\n$1\r\nx",
            b"\r\n",
            b"\nPUB t x\n",
            b"*0\r\n",
            b"\r\n*3\r\n",
        ]
    ),
)
OTHERS = st.sampled_from(
    [
        b"PING",
        b"ping x",
        b"QUIT",
        b"SUB a.>,b FROM 1 LIMIT 2",
        b"SUB",
        b"SUB a GROUP g WINDOW 3 TRIES 2",
        b"ACK ..3 17.2",
        b"ACK 3 x",
        b"NACK 3 DELAY 5s no disk",
        b"TOUCH 3",
        b"SEEK g 7",
        b"GROUPS",
        b"HPUB t id=a key=b ttl=5s :p",
        b"READ t",
        b"NOSUCH",
        b"\xc3\x28 x",
        b"EOF t",
        b"MPUB t x",
        b"HPUB t k=v :pay load ",
        b"HPUB t k=v l=w m=x n=y :p",
        b"HPUB t :",
        b"EPUB t a\\nb",
        b"EPUB t " + b"\\0101" * 64,
        b"EPUB t " + b"\\0101" * 65,
        b"EPUB t " + b"x" * 1000,
        b"PUB",
        b"\x0b",
        b"\x0bPUB t x",
        b"PUB\tt x",
        b"PUB  t x",
        b"",
        b"  ",
        b" \t ",
        b" " * 300,
        b"x" * 211,
        b"PING " + b"y" * 250,
        b"PUB t " + b"z" * 400,
    ]
)
Cuts = list[int] | None


def no_lf(raw: bytes) -> bytes:
    return raw.replace(b"\n", b"")


GOOD_HEADERS = [
    b"k=v",
    b"k=w",
    b"k=",
    b"l=1",
    b"m=a=b",
    b"id=7",
    b"key=x",
    b"sent=12",
    b"ttl=5s",
    b"u=\xc3\xbc",
    b"x=%d",
]
BAD_HEADERS = [b"id=", b"sent=x", b"ttl=0s", b"u=\xc3", b"=v", b"k", b"n.o=v", b"k=a\rb", b"k=\0", b"sent=" + b"1" * 20]
ODD_HEADERS = [b"", b":x", b"k=:x", b"k=\tl=v", b"k=" + b"v" * 31, b"key=" + b"x" * 201]
HEADERS = st.one_of(st.sampled_from(GOOD_HEADERS + BAD_HEADERS + ODD_HEADERS), st.binary(max_size=6).map(no_lf))


@st.composite
def headed_lines(draw: st.DrawFn) -> list[bytes]:
    """HPUB lines, most of them with headers of the same names."""
    verb = draw(st.sampled_from([b"HPUB ", b"HPUB ", b"hpub ", b"HPUB", b"HPUB  "]))
    topics = draw(st.one_of(st.just([b"t"]), st.lists(TOPICS, min_size=1, max_size=3)))
    usual = draw(st.lists(HEADERS, max_size=3))
    lines = []
    for at, payload in enumerate(draw(st.lists(PAYLOADS, min_size=1, max_size=12))):
        words = usual if draw(st.integers(0, 5)) else draw(st.lists(HEADERS, max_size=4))
        words = [word + draw(st.sampled_from([b"", b"", b"1", b"2"])) for word in words]
        lines.append(b" ".join([verb + topics[at % len(topics)], *words, b":" + no_lf(payload)]))
    return lines


@st.composite
def line_blocks(draw: st.DrawFn) -> bytes:
    """Lines of one kind in a row, so that there is something for the shortcuts."""
    eol = draw(st.sampled_from([b"\n", b"\n", b"\r\n", b"\r\n", b"\r\r\n"]))
    kind = draw(st.sampled_from(["plain", "headed", "other"]))
    if kind == "headed":
        lines = draw(headed_lines())
    elif kind == "plain":
        verb = draw(st.sampled_from([b"PUB ", b"PUB ", b"pub ", b"Pub ", b" PUB ", b"EPUB "]))
        topics = draw(st.one_of(st.just([b"t"]), st.lists(TOPICS, min_size=1, max_size=3)))
        payloads = draw(st.lists(PAYLOADS, min_size=1, max_size=12))
        blank = draw(st.sampled_from([b" ", b" ", b" ", b""]))
        lines = [verb + topics[at % len(topics)] + blank + no_lf(payload) for at, payload in enumerate(payloads)]
    else:
        lines = draw(st.lists(st.one_of(OTHERS, st.binary(max_size=20).map(no_lf)), min_size=1, max_size=3))
    return eol.join(lines) + eol


def resp(*arguments: bytes) -> bytes:
    return b"*%d\r\n" % len(arguments) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in arguments])


WRONG = st.sampled_from(
    [
        b"*1\r\n$007\r\n",
        b"*-1\r\n",
        b"*1\r\n$-1\r\n",
        b"*1e9\r\n",
        b"*1\r\n$99999999999\r\n",
        b"*2\r\n$1073741825\r\n",
        b"*01\r\n",
        b"PING\r\n",
        b"*1\r\n+PING\r\n",
        b"*3\r\n+PUB\r\n$1\r\nt\r\n$1\r\nx\r\n",
        b"*3\r\n$3\r\nPUB\r\n$1\r\nt\r\n$1\r\nxyz",
        b"*3\r\n$3\r\nPUB\r\n$1\r\nt\r\n$01\r\nx\r\n",
        b"*3\r\n$3\r\nPUB\r\n$2\r\nt\r\n$1\r\nx\r\n",
        b"*3\r\n$3\r\nPUB\r\n*1\r\n$1\r\nt\r\n$1\r\nx\r\n",
        b"*3\r\n$3\r\nPUB\r\n:1\r\n$1\r\nx\r\n",
        b"*1\n$4\nPING\n",
        b"\n",
        b"\r\r",
    ]
)
IDLE = st.sampled_from([b"*0\r\n", b"\r\n"])


@st.composite
def command_blocks(draw: st.DrawFn) -> bytes:
    """Commands of one kind in a row."""
    kind = draw(st.sampled_from(["pub", "pub", "pub", "headed", "headed", "nearly", "mpub", "other", "random"]))
    payloads = draw(st.lists(RESP_PAYLOADS, min_size=1, max_size=12))
    topics = draw(st.one_of(st.just([b"t"]), st.lists(TOPICS, min_size=1, max_size=3)))
    if kind == "pub":
        verb = draw(st.sampled_from([b"PUB", b"PUB", b"pub", b"PUBS"]))
        return b"".join([resp(verb, topics[at % len(topics)], payload) for at, payload in enumerate(payloads)])
    pairs = [part for header in draw(st.lists(HEADERS, max_size=3)) for part in header.partition(b"=")[::2]]
    if kind == "headed":
        odd = draw(st.one_of(st.none(), st.integers(0, 6)))
        return b"".join(
            [
                resp(b"PUB", topics[at % len(topics)], payload, *pairs[at == odd :], *[b"%d" % at] * (at == odd))
                for at, payload in enumerate(payloads)
            ]
        )
    if kind == "nearly":
        command = resp(b"PUB", topics[0], payloads[0], *pairs)
        wrong = bytearray(command)
        wrong[draw(st.integers(0, len(command) - 1))] = draw(st.sampled_from(b"0123\r\n$*+PUBt"))
        other = resp(b"PUB", b"other", b"") * draw(st.integers(0, 1))
        return (command + other) * draw(st.integers(0, 3)) + (bytes(wrong) + other) * draw(st.integers(1, 3))
    if kind == "mpub":
        return resp(b"MPUB", topics[0], *payloads * draw(st.sampled_from([1, 5])))
    if kind == "other":
        arguments = draw(st.lists(PAYLOADS, max_size=4))
        headers = [b"k", b"v", draw(PAYLOADS), b"x"]
        return resp(b"PUB", b"t", payloads[0], *headers) + resp(draw(PAYLOADS), *arguments) + resp(b"HELLO", b"3")
    return draw(st.one_of(WRONG, WRONG, IDLE, st.binary(max_size=10)))


CUTS = st.one_of(st.none(), st.lists(st.integers(0, 1 << 16), max_size=6))


def reads(data: bytes, cuts: Cuts) -> list[bytes]:
    """The data in pieces: at the cuts (modulo its length), or byte by byte."""
    if cuts is None:
        return [data[at : at + 1] for at in range(len(data))]
    at = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(at)]


def feed(decoder: InlineDecoder | RespDecoder, pieces: list[bytes]) -> tuple[list[object], bool]:
    """What comes out, and whether something unfinished stays."""
    requests: list[Request] = []
    for piece in pieces:
        requests += decoder.feed(piece)
    unfinished = decoder.unfinished
    end = decoder.end()
    assert (end is not None) == unfinished
    assert end is None or (end.error.code == "CUT" and not decoder.unfinished)
    return flat(requests), unfinished


def code_of(entry: object) -> object:
    """An error without its text: the texts of errors in the form are written in one place only."""
    return entry[:2] if isinstance(entry, tuple) and entry[1] in ("TOOBIG", "SYNTAX") else entry


def inline_plainly(data: bytes, limits: Limits) -> tuple[list[object], bool]:
    entries: list[object] = []
    *lines, last = data.split(b"\n")
    for raw in lines:
        line = raw.removesuffix(b"\r")
        verb = re.match(rb"[ \t]*([^ \t]*)[ \t]", line[: limits.line_bytes])
        more = {
            b"PUB": limits.payload_bytes,
            b"EPUB": 5 * limits.payload_bytes,
            b"HPUB": limits.payload_bytes + limits.header_bytes + 2 * limits.headers,
        }.get(verb[1].upper() if verb else b"", 0)
        request = build_line_request(line, b"\r\n" if line != raw else b"\n", limits)
        if len(line) > limits.line_bytes + more:
            entries.append(("BAD", "TOOBIG"))
        elif request is not None:
            entries += flat([request])
    return [code_of(entry) for entry in entries], last.strip(b" \t\r") != b""


class Short(Exception):
    """The input ends within what is read."""


class Wrong(Exception):
    """This is not RESP."""


def number_at(data: bytes, at: int, kind: bytes) -> tuple[int, int]:
    form = re.compile(re.escape(kind) + rb"(0|[1-9][0-9]{0,9})\r\n")
    match = form.match(data, at)
    if match is None:
        begun = data[at:]
        could_be = any(form.fullmatch(begun + rest) for rest in (kind + b"0\r\n", b"0\r\n", b"\r\n", b"\n"))
        raise Short if could_be else Wrong
    if int(match[1]) > 1 << 30:
        raise Wrong
    return int(match[1]), match.end()


def resp_plainly(data: bytes, limits: Limits) -> tuple[list[object], bool]:
    entries: list[object] = []
    one_bytes = limits.payload_bytes + limits.line_bytes
    all_bytes = max(limits.command_bytes, one_bytes + limits.header_bytes)
    at = 0
    try:
        while at < len(data):
            if data[at:] == b"\r":
                raise Short
            if data.startswith(b"\r\n", at):
                at += 2
                continue
            count, at = number_at(data, at, b"*")
            arguments = []
            for _ in range(count):
                size, start = number_at(data, at, b"$")
                at = start + size + 2
                if len(data) < at:
                    raise Short
                if data[at - 2 : at] != b"\r\n":
                    raise Wrong
                arguments.append(data[start : at - 2])
            sizes = [*map(len, arguments), 0]
            if sum(sizes) > all_bytes or max(sizes) > one_bytes:
                entries.append(("BAD", "TOOBIG"))
            elif arguments:
                entries += flat([build_request(arguments[0], arguments[1:], limits)])
    except Short:
        return [code_of(entry) for entry in entries], True
    except Wrong:
        return [*(code_of(entry) for entry in entries), ("BAD", "SYNTAX")], False
    return [code_of(entry) for entry in entries], False


@settings(max_examples=400, deadline=None)
@given(
    st.lists(line_blocks(), max_size=5),
    st.binary(max_size=8),
    CUTS,
    LIMITS,
    st.sampled_from([16_384, 40, 300]),
    st.sampled_from([1, 5, 32]),
)
def test_inline(blocks: list[bytes], tail: bytes, cuts: Cuts, limits: Limits, look: int, worth: int) -> None:
    """`look`: fewer than four lines in so many bytes are taken for long ones; `worth`: from so many lines on those with
    headers get a pattern of their own."""
    data = b"".join(blocks) + tail
    with mock.patch.object(inline, "_LOOK_BYTES", look), mock.patch.object(inline_headers, "_WORTH_LINES", worth):
        whole, unfinished = feed(InlineDecoder(limits), [data])
        assert ([code_of(entry) for entry in whole], unfinished) == inline_plainly(data, limits)
        assert feed(InlineDecoder(limits), reads(data, cuts)) == (whole, unfinished)


@settings(max_examples=400, deadline=None)
@given(st.lists(command_blocks(), max_size=5), st.binary(max_size=4), st.integers(0, 40), CUTS, LIMITS)
def test_resp(blocks: list[bytes], tail: bytes, short: int, cuts: Cuts, limits: Limits) -> None:
    data = b"".join(blocks) + tail
    data = data[: max(0, len(data) - short)]
    whole, unfinished = feed(RespDecoder(limits), [data])
    assert ([code_of(entry) for entry in whole], unfinished) == resp_plainly(data, limits)
    assert feed(RespDecoder(limits), reads(data, cuts)) == (whole, unfinished)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), CUTS, st.booleans())
def test_any_bytes(data: bytes, cuts: Cuts, inline: bool) -> None:
    decoder = InlineDecoder(SMALL) if inline else RespDecoder(SMALL)
    entries, _ = feed(decoder, reads(data, cuts))
    assert all(not isinstance(entry, tuple) or entry[0] != "BAD" or entry[1] in ERRORS for entry in entries)
