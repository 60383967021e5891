"""busd.rules.inline_headers: the columns give what the grammar gives line by line, and most lines go through them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from busd.rules import inline, inline_headers
from busd.rules.inline import InlineDecoder
from busd.words import headers
from busd.words.commands import build_line_request
from busd.words.requests import Item, Publish, Request
from busd.words.settings import Limits
from tests.support.flat import flat

SMALL = Limits(payload_bytes=40, line_bytes=300, headers=3, header_bytes=60)
NUMBER = 200


def decode(data: bytes, limits: Limits = SMALL) -> list[object]:
    """Through the shortcuts; checked against the grammar."""
    plain: list[Request] = []
    inline.decode_plainly(data, limits, plain)
    found = flat(InlineDecoder(limits).feed(data))
    assert found == flat(plain)
    return found


def one_run(data: bytes, monkeypatch: pytest.MonkeyPatch, limits: Limits = SMALL) -> Publish:
    """The run that whole lines are, none of which goes through the grammar."""
    monkeypatch.delattr(inline, "build_line_request")
    (run,) = InlineDecoder(limits).feed(data)
    assert isinstance(run, Publish)
    return run


def counted(data: bytes, monkeypatch: pytest.MonkeyPatch, limits: Limits = SMALL) -> list[bytes]:
    """The lines that go through the grammar; all is as it says."""
    expected = decode(data, limits)
    plainly: list[bytes] = []

    def build(line: bytes, eol: bytes, limits: Limits) -> Request | None:
        plainly.append(line)
        return build_line_request(line, eol, limits)

    monkeypatch.setattr(inline, "build_line_request", build)
    assert flat(InlineDecoder(limits).feed(data)) == expected
    return plainly


@pytest.mark.parametrize("eol", [b"\n", b"\r\n"])
@pytest.mark.parametrize("verb", [b"HPUB", b"hpub", b"HPub"])
@pytest.mark.parametrize(
    "heads",
    [
        [b"unit=C"],
        [b"host=a level=info", b"host=b level=warn"],
        [b"sent=%d event=7" % (1795248000000000000 + n) for n in range(NUMBER)],
        [b"id=order-%d" % n for n in range(NUMBER)],
        [b"key=k%d ttl=5s delay=250ms" % n for n in range(NUMBER)],
        ["town=Köln%d".encode() % n for n in range(NUMBER)],
        [b"a=%b" % (b"=" * (n % 5)) for n in range(NUMBER)],
        # Different names: the headers of each line as one text.
        [b"host=a", b"host=a trace=1", b"trace=1 host=a"],
        [b"host=a", b"sent=17"],
        [b"sent=%d" % n if n % 3 else b"sent=%d k=v" % n for n in range(NUMBER)],
        ["k=grün".encode(), b"l=1"],
        [b"  a=1   b=2 ", b"a=1"],
        [b"h%d=1" % n for n in range(NUMBER)],
    ],
)
def test_lines_with_headers_do_not_go_line_by_line(
    heads: list[bytes], verb: bytes, eol: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = [heads[n % len(heads)] for n in range(NUMBER)]
    data = b"".join([b"%b t.%d %b :a :%d%b" % (verb, n % 3, head, n, eol) for n, head in enumerate(mine)])
    decode(data)
    run = one_run(data, monkeypatch)
    words = [[part for word in head.split() for part in word.split(b"=", 1)] for head in mine]
    assert run.items == [[b"a :%d" % n, *row] for n, row in enumerate(words)]
    assert list(run.topics) == [b"t.%d" % (n % 3) for n in range(NUMBER)]
    assert run.headers
    assert run.eol == eol
    assert run.ids == (b"id=" in b"".join(heads))


@pytest.mark.parametrize("eol", [b"\n", b"\r\n"])
@pytest.mark.parametrize("words", [[b"k=v"], [b"k=:", b"l=a=b", "town=Köln".encode()], [b"id=7", b"ttl=5s"]])
def test_lines_that_begin_alike(words: list[bytes], eol: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"HPUB t %b :" % b" ".join(words)
    payloads = [(b"", b"x", head, b" :", b"\rx")[n % 5] for n in range(NUMBER)]
    data = b"".join([head + payload + eol for payload in payloads])
    decode(data)
    run = one_run(data, monkeypatch)
    row = [part for word in words for part in word.split(b"=", 1)]
    assert run.items == [[payload, *row] for payload in payloads]
    assert run.ids == (b"id=7" in words)


@pytest.mark.parametrize("payload", [b"", b":", b" :", b"x", b"a=b :c"])
def test_lines_without_headers_are_plain_messages(payload: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"HPUB t :%b\n" % payload * NUMBER
    decode(data)
    run = one_run(data, monkeypatch)
    assert run.items == [payload] * NUMBER
    assert not run.headers


def test_with_and_without_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"HPUB t :x\nHPUB t k=v :y\n" * NUMBER
    decode(data)
    run = one_run(data, monkeypatch)
    assert run.items == [b"x", [b"y", b"k", b"v"]] * NUMBER
    assert run.headers


@pytest.mark.parametrize("lines", [4, 5, 31, 32, 33, 100])
def test_few_lines(lines: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"HPUB t k=%d :x\n" * lines % tuple(range(lines))
    decode(data)
    items: list[Item] = [[b"x", b"k", b"%d" % n] for n in range(lines)]
    assert one_run(data, monkeypatch).items == items


# Errors, and what only the grammar takes.  A line among the others.
ODD = [
    b"HPUB t",
    b"HPUB t ",
    b"HPUB t k=v",
    b"HPUB t k=v x",
    b"HPUB t k=v:x",
    b"HPUB t k=\t :x",
    b"HPUB\tt k=v :x",
    b"HPUB  t k=v :x",
    b"HPUB t\tk=v :x",
    b"HPUB t  k=v :x",
    b"HPUB t k=v  :x",
    b" HPUB t k=v :x",
    b"hpub t k=v :x",
    b"HPUB a..b k=v :x",
    b"HPUB _s k=v :x",
    b"HPUB " + b"t" * 200 + b" k=v :x",
    b"HPUB " + b"t" * 201 + b" k=v :x",
    b"HPUB t k=v :" + b"x" * 40,
    b"HPUB t k=v :" + b"x" * 41,
    b"HPUB t k=" + b"v" * 59 + b" :x",
    b"HPUB t k=" + b"v" * 60 + b" :x",
    b"HPUB t k=" + b"v" * 400 + b" :x",
    b"HPUB t k=v" + b" " * 500 + b":x",
    b"HPUB t k=1 l=2 m=3 :x",
    b"HPUB t k=1 l=2 m=3 n=4 :x",
    b"HPUB t k=1 k=2 :x",
    b"HPUB t k=\xff :x",
    b"HPUB t k=\0 :x",
    b"HPUB t k=a\rb :x",
    b"HPUB t k.l=v :x",
    b"HPUB t =v :x",
    b"HPUB t " + b"k" * 64 + b"= :x",
    b"HPUB t " + b"k" * 65 + b"= :x",
    b"HPUB t sent= :x",
    b"HPUB t sent=now :x",
    b"HPUB t sent=" + b"1" * 20 + b" :x",
    b"HPUB t event=\xd9\xa1 :x",
    b"HPUB t id= :x",
    b"HPUB t key=" + b"k" * 57 + b" :x",
    b"HPUB t ttl=0s :x",
    b"HPUB t ttl=5 :x",
    b"HPUB t delay=5x :x",
    b"PUB t HPUB t k=v :x",
    b"PING",
    b"",
    b"\t",
    b"HPUB",
    b"HPUB t k=v :x\r",
]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("head", [b"k=v", b"k=%d l=w", b"sent=%d", b""])
@pytest.mark.parametrize("eol", [b"\n", b"\r\n"])
def test_a_line_among_others_means_what_it_means_alone(odd: bytes, head: bytes, eol: bytes) -> None:
    lines = [b"HPUB t %b :pay%b" % (head % n if b"%" in head else head, eol) for n in range(40)]
    for place in (0, 20, 40):
        assert len(decode(b"".join([*lines[:place], odd + eol, *lines[place:]]))) >= 40
    decode((odd + eol) * 40)
    decode((odd + eol + lines[0]) * 40)


@pytest.mark.parametrize(
    "value",
    [
        b"id=",
        b"id=" + b"i" * 201,
        b"sent=x",
        b"sent=" + b"9" * 20,
        b"ttl=0ms",
        b"ttl=1y",
        b"k=\xc3",
        b"k=" + b"v" * 4096,
    ],
)
def test_a_bad_value_in_a_column_is_the_error_of_its_line(value: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    name = value.partition(b"=")[0]
    good = {b"id": b"%d", b"sent": b"%d", b"ttl": b"%ds", b"k": b"%d"}[name]
    lines = [b"HPUB t %b=%b :x\n" % (name, good % (n + 1)) for n in range(1000)]
    lines[400] = b"HPUB t %b :x\n" % value
    plainly = counted(b"".join(lines), monkeypatch, Limits())
    assert lines[400][:-1] in plainly
    assert len(plainly) < 10


def test_one_with_other_headers_leaves_the_others_to_the_shortcut(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [b"HPUB t sent=%d :x\n" % n for n in range(1000)]
    # The first as well: whose names the others do not have.
    for place in (0, 300, 700):
        lines[place] = b"HPUB t sent=1 trace=2 :y\n"
    lines[500] = b"PING\n"
    assert len(counted(b"".join(lines), monkeypatch)) < 15


@pytest.mark.parametrize("first", [b"PING\n", b"PUB t x\n", b"PUB t x\nPUB u y\n" * 50, b"\n", b"HPUB t k=\tv :x\n"])
@pytest.mark.parametrize("last", [b"PING\n", b"PUB t x\nPUB u y\n" * 50, b"QUIT\n"])
def test_blocks_of_other_lines_before_and_behind(first: bytes, last: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    headed = b"".join([b"HPUB t k=%d :x\n" % n for n in range(NUMBER)])
    assert len(counted(first + headed + last + headed, monkeypatch)) < 10


def test_spellings_of_the_verb_do_not_nest() -> None:
    """Each piece that is left over is looked at a few times at most, however it begins."""
    verbs = [
        bytes(map(ord, "".join(c.upper() if bits >> at & 1 else c for at, c in enumerate("hpub"))))
        for bits in range(16)
    ]
    data = b"".join([b"%b t k=v :x\n" % verb * 5 for verb in verbs]) * 20
    assert len(decode(data)) == 16 * 5 * 20


def test_lines_are_as_long_as_they_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest there are with the least limit that the shortcut takes: no shorter line is too long either."""
    line = b"HPUB " + b"t" * 200 + b" k=" + b"v" * 7 + b" :" + b"x" * 8 + b"\n"
    limits = Limits(payload_bytes=8, line_bytes=inline_headers.LINE_BYTES, headers=1, header_bytes=8)
    assert len(line) - 1 == inline.line_bytes_allowed(line, limits)
    too_long = decode(line * 40, replace(limits, line_bytes=limits.line_bytes - 1))
    assert str(too_long).count("TOOBIG") == 40
    assert len(decode(line * 40, limits)) == 40
    assert len(one_run(line * 40, monkeypatch, limits).items) == 40


@pytest.mark.parametrize("every", [1, 2, 4, 9])
@pytest.mark.parametrize(
    "odd",
    [
        b"HPUB t id= :x\n",
        b"HPUB t, id=1 :x\n",
        b"HPUB t  id=1 :x\n",
        b"HPUB t a=1 a=2 :x\n",
        b"HPUB t a=1 :" + b"x" * 41 + b"\n",
    ],
)
def test_errors_everywhere_are_not_looked_at_again_and_again(
    odd: bytes, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = []
    run, run_alike = inline_headers._run, inline_headers._run_alike

    def counted_run(work: inline_headers._Work, columns: list[list[bytes]]) -> Publish | None:
        looked_at.append(len(columns[0]))
        return run(work, columns)

    def counted_alike(
        work: inline_headers._Work, columns: list[list[bytes]], names: tuple[bytes, ...]
    ) -> Publish | None:
        looked_at.append(len(columns[0]))
        return run_alike(work, columns, names)

    monkeypatch.setattr(inline_headers, "_run", counted_run)
    monkeypatch.setattr(inline_headers, "_run_alike", counted_alike)
    lines = [b"HPUB t id=%d :x\n" % n for n in range(4096)]
    lines[every - 1 :: every] = [odd] * (4096 // every)
    assert len(decode(b"".join(lines))) == 4096
    assert sum(looked_at) <= 6 * len(lines)


@pytest.mark.parametrize("form", [b"h%d=%d", b"%dh=%d"])
def test_what_is_remembered_of_lines_is_short(form: bytes) -> None:
    """Lines may be as long as a payload; each with headers of its own, they would stay for ever."""
    for known in (headers._known_words, headers.check_names):
        known.cache_clear()
    short = b"".join([b"HPUB t a=%d :x\n" % n for n in range(8)])
    long = [b" ".join([form % (at, n) for at in range(5000)]) for n in range(40)]
    assert len(decode(short + b"".join([b"HPUB t %b :x\n" % head for head in long]), Limits())) == 48
    # As long as headers may be, and longer than those that are remembered.
    allowed = [b" ".join([form % (at, n) for at in range(60)]) for n in range(40)]
    assert len(decode(short + b"".join([b"HPUB t %b :x\n" % head for head in allowed]), Limits())) == 48
    # Of each short one two: the grammar has it without the blank in front.
    assert headers._known_words.cache_info().currsize <= 16
    assert headers.check_names.cache_info().currsize <= 2


def test_what_a_run_weighs() -> None:
    for head in (b"k=%d", b"k=%d l=1", b""):
        lines = [b"HPUB %b %b :\n" % (b"t" * 150, head % n if head else b"") for n in range(NUMBER)]
        (run,) = InlineDecoder(Limits()).feed(b"".join(lines))
        assert isinstance(run, Publish)
        assert run.size_bytes >= sum(len(b"".join(item)) for item in run.items if isinstance(item, list)) + 150 * NUMBER
