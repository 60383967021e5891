"""Answers in both dialects: every RESP answer parses, every inline one is lines."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest

from busd.rules.replies import AnswerArray, InlineReplies, Pairs, Replies, RespReplies, Row
from busd.words.errors import BusError

PAIRS: Pairs = [("next", 5), ("data", "/a b"), ("health", "full: ä")]
ROWS: list[Row] = [("a", [("messages", 1)]), ("b", []), ("", [("x", "y")])]


def resp(version: int = 2) -> RespReplies:
    """The encoder of a version."""
    replies = RespReplies()
    replies.version = version
    return replies


def parsed(data: bytes) -> Any:
    """One RESP value, and nothing behind it."""
    reader = hiredis.Reader()
    reader.feed(data)
    value = reader.gets()
    assert not reader.has_data()
    return value


EVERY: list[Replies] = [InlineReplies(), resp(2), resp(3)]


@pytest.mark.parametrize("eol", [b"\n", b"\r\n"])
def test_inline(eol: bytes) -> None:
    inline = InlineReplies()
    assert inline.ok(eol) == b"+OK" + eol
    assert inline.ok(eol, "next=1") == b"+OK next=1" + eol
    assert inline.error(eol, BusError("ARG", "no…")) == "-ARG no…".encode() + eol
    assert inline.numbers(eol, 998, 4) == b"".join(b":%d" % number + eol for number in range(998, 1002))
    assert inline.text(eol, b"PONG", status=True) == inline.text(eol, b"PONG") == b"PONG" + eol
    assert inline.mapping(eol, PAIRS) == eol.join([b"*3", b"next=5", b"data=/a b", "health=full: ä".encode(), b""])
    assert inline.listing(eol, 3) + inline.rows(eol, ROWS) == eol.join([b"*3", b"a messages=1", b"b", b"x=y", b""])
    assert (inline.listing(eol, 0), inline.rows(eol, [])) == (b"*0" + eol, b"")


@pytest.mark.parametrize("version", [2, 3])
def test_resp_ends_lines_its_own_way(version: int) -> None:
    replies = resp(version)
    assert replies.ok(b"\n") == b"+OK\r\n"
    assert replies.ok(b"\n", "next=1 epoch=2") == b"+OK next=1 epoch=2\r\n"
    assert replies.error(b"\n", BusError("POS", "beyond")) == b"-POS beyond\r\n"
    assert replies.numbers(b"\n", 1, 3) == b":1\r\n:2\r\n:3\r\n"
    assert replies.text(b"\n", b"PONG", status=True) == b"+PONG\r\n"
    assert replies.text(b"\n", b"a\r\nb") == b"$4\r\na\r\nb\r\n"


def test_names_and_values() -> None:
    assert parsed(resp(2).mapping(b"", PAIRS)) == [b"next", 5, b"data", b"/a b", b"health", "full: ä".encode()]
    assert parsed(resp(3).mapping(b"", PAIRS)) == {b"next": 5, b"data": b"/a b", b"health": "full: ä".encode()}
    assert parsed(resp(2).mapping(b"", [])) == []
    assert parsed(resp(3).mapping(b"", [])) == {}


def listed(replies: RespReplies) -> bytes:
    """A list of all rows."""
    return replies.listing(b"", len(ROWS)) + replies.rows(b"", ROWS)


def test_rows() -> None:
    assert parsed(listed(resp(2))) == [
        [b"name", b"a", b"messages", 1],
        [b"name", b"b"],
        [b"x", b"y"],
    ]
    assert parsed(listed(resp(3))) == [
        {b"name": b"a", b"messages": 1},
        {b"name": b"b"},
        {b"x": b"y"},
    ]
    assert parsed(resp(2).listing(b"", 0)) == []


@pytest.mark.parametrize("replies", EVERY, ids=["inline", "resp2", "resp3"])
def test_an_error_is_one_line_whatever_its_text(replies: Replies) -> None:
    data = replies.error(b"\r\n", BusError("ARG", "bad \udcff surrogate"))
    assert data.startswith(b"-ARG bad ")
    assert data.count(b"\r\n") == 1


def test_an_answer_array_counts_and_measures() -> None:
    answer = AnswerArray()
    answer.bound(10)
    assert answer.buffered() == 0
    assert answer.bytes() == b"*0\r\n"
    answer.write(b":1\r\n:2\r\n", 2)
    answer.write(b":3\r\n")
    assert answer.buffered() == 12
    assert parsed(answer.bytes()) == [1, 2, 3]


def test_of_an_answer_that_was_told_nothing_is_kept() -> None:
    array = AnswerArray()
    array.write(b":1\r\n")
    array.write(b":2\r\n:3\r\n", 2)
    assert array.bytes() == b"*3\r\n:1\r\n:2\r\n:3\r\n"
    assert array._pieces == []
