"""Long inline lines: the shortcuts mean what the grammar says."""

from __future__ import annotations

import pytest

from busd.rules import inline
from busd.rules.inline import InlineDecoder
from busd.words.requests import Publish, Request
from busd.words.settings import Limits
from tests.support.flat import flat

ODD = [
    b"",
    b"PUB t \n",
    b"PUB t\n",
    b"PUB \n",
    b"PUB t x\r\n",
    b"PING\n",
    b"pub t x\n",
    b"PUB t  x\n",
    b"\n",
    b"PUB no/topic x\n",
]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("eol", [b"\n", b"\r\n"])
@pytest.mark.parametrize("topics", [1, 7])
@pytest.mark.parametrize("size", [500, 900, 3000, 5000])
def test_long_lines_mean_what_they_mean_one_by_one(size: int, topics: int, eol: bytes, odd: bytes) -> None:
    lines = [b"PUB t.%d %b%b" % (number % topics, b"%d" % number * (size // 2), eol) for number in range(10, 60)]
    for place in (0, 25, 50):
        data = b"".join([*lines[:place], odd, *lines[place:]])
        plain: list[Request] = []
        inline.decode_plainly(data, Limits(), plain)
        assert flat(InlineDecoder(Limits()).feed(data)) == flat(plain)


@pytest.mark.parametrize("eol", [b"\n", b"\r\n"])
@pytest.mark.parametrize("begins", [b"PUB t ", b"PUB u ", b"pub t ", b"PUB t\t", b"HPUB ", b"PUB  ", b"PUB t x"])
@pytest.mark.parametrize("inner", [b"", b"\n", b"\r\n", b"\nPUB t y", b"\r", b"\r\r\n"])
def test_lines_as_wide_as_the_others(inner: bytes, begins: bytes, eol: bytes) -> None:
    lines = [b"PUB t %b%b" % (b"%d" % number * 450, eol) for number in range(10, 40)]
    odd = begins + b"x" * 450 + inner
    odd = odd + b"z" * (len(lines[0]) - len(odd) - len(eol)) + eol
    assert len(odd) == len(lines[0])
    for place in (0, 15, 30):
        data = b"".join([*lines[:place], odd, *lines[place:]])
        plain: list[Request] = []
        inline.decode_plainly(data, Limits(), plain)
        assert flat(InlineDecoder(Limits()).feed(data)) == flat(plain)


@pytest.mark.parametrize("topics", [1, 7])
@pytest.mark.parametrize("size", [900, 3000, 5000])
def test_long_lines_do_not_go_line_by_line(size: int, topics: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(inline, "build_line_request")
    (run,) = InlineDecoder(Limits()).feed(b"".join([b"PUB t.%d %b\n" % (n % topics, b"x" * size) for n in range(50)]))
    assert isinstance(run, Publish)
    assert run.items == [b"x" * size] * 50
