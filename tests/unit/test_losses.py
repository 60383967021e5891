"""How many messages a reader lost: exact where a record or a page says it, None everywhere else."""

from __future__ import annotations

import pytest

from busd.rules import losses
from busd.rules.record import Hole
from busd.rules.segment_index import SegmentIndex
from busd.rules.segment_opening import Opening, TopicLine
from tests.support.store_kit import batch_of, every, only


def line(count: int, last: int) -> TopicLine:
    """What an opening says of a topic."""
    return TopicLine(count, last, 0, 0, False)


def head(born: int = 1, sure: int = 1) -> Opening:
    """The opening of the first segment that is kept."""
    return Opening("main", 1, 101, 100, 0, born, sure, 8, 0)


LINES = {b"a": line(5, 90), b"b": line(3, 40), b"ended": line(0, 95)}


@pytest.mark.parametrize(
    ("opening", "offset", "topics", "expected"),
    [
        (head(), 1, (b"a", b"b", b"ended"), {b"a": 5, b"b": 3}),
        (head(), 1, (b"b",), {b"b": 3}),
        (head(), 1, (b"never",), {}),
        (head(born=10), 10, (b"a",), {b"a": 5}),
        (head(born=10), 11, (b"a",), None),
        (head(), 50, (b"a", b"b"), None),
        (head(), 50, (b"b",), {}),  # its last message is below
        (head(), 96, (b"a", b"b", b"ended"), {}),
        (head(sure=60), 1, (b"b",), None),
        (head(sure=60), 59, (b"never",), None),
        (head(sure=60), 60, (b"b",), {}),
        (head(sure=60), 60, (b"a",), None),
    ],
)
def test_before(opening: Opening, offset: int, topics: tuple[bytes, ...], expected: dict[bytes, int] | None) -> None:
    assert losses.before(opening, LINES, offset, only(*topics)) == expected


def test_in_hole() -> None:
    hole = Hole(10, 20, 9, 0, "trimmed", {b"a": 4, b"b": 1})
    assert losses.in_hole(hole, 5, every) == {b"a": 4, b"b": 1}
    assert losses.in_hole(hole, 10, only(b"b")) == {b"b": 1}
    assert losses.in_hole(hole, 11, only(b"b")) is None
    assert losses.in_hole(hole, 11, only(b"c")) == {}
    assert losses.in_hole(Hole(10, 20, 9, 0, "corrupt", None), 5, only(b"c")) is None


def test_in_index() -> None:
    index = SegmentIndex(0, 0)
    for first in (1, 4, 7):
        batch = batch_of([(b"a", b""), (b"b", b""), (b"a", b"")], first, first - 1, 0)
        index.add(index.end, 50, batch)
    index.add(index.end, 50, Hole(10, 12, 9, 0, "trimmed", {b"a": 2}))
    index.add(index.end, 50, batch_of([(b"c", b"")], 13, 12, 0, flags="e"))
    assert losses.in_index(index, 4, 9, every, True) == {b"a": 4, b"b": 2}
    assert losses.in_index(index, 4, 12, only(b"a"), True) == {b"a": 6}
    assert losses.in_index(index, 13, 13, every, True) == {b"c": 0}, "a lost end of stream is a loss"
    # A reader that begins within a lost batch.
    assert losses.in_index(index, 5, 9, every, False) is None
    assert losses.in_index(index, 5, 9, only(b"c"), False) == {}
    assert losses.in_index(index, 7, 9, every, False) == {b"a": 2, b"b": 1}
    assert losses.in_index(index, 4, 14, every, True) is None, "beyond what it knows"
    index.unknown.append((8, 8))
    assert losses.in_index(index, 4, 9, every, True) is None
    index.unknown.clear()
    index.holes[3] = Hole(10, 12, 9, 0, "unsynced", None)
    assert losses.in_index(index, 4, 12, every, True) is None


def test_between_openings() -> None:
    index = SegmentIndex(0, 0)
    index.add(0, 50, batch_of([(b"a", b""), (b"b", b"")], 1, 0, 0))
    later = {b"a": line(9, 50), b"b": line(4, 2), b"new": line(2, 60)}
    assert losses.between({b"a": line(5, 0), b"b": line(3, 0)}, index, later, every) == {b"a": 3, b"new": 2}
    assert losses.between({b"a": line(5, 0)}, index, later, only(b"b")) == {b"b": 3}


def test_merged() -> None:
    one, two = Hole(1, 5, 0, 0, "trimmed", {b"a": 1}), Hole(6, 9, 5, 0, "trimmed", {b"a": 2, b"b": 1})
    assert losses.merged(one, two) == Hole(1, 9, 0, 0, "trimmed", {b"a": 3, b"b": 1})
    assert losses.merged(one, Hole(6, 9, 5, 0, "trimmed", None)).counts is None
    assert one.counts == {b"a": 1}


def test_select() -> None:
    assert losses.select(None, every) is None
    assert losses.select({b"a": 1, b"b": 2}, only(b"b")) == {b"b": 2}


@pytest.mark.parametrize(
    ("first", "last", "topics", "expected"),
    [
        (1, 9, (b"a", b"b"), (5, "trimmed")),
        (1, 9, (b"a",), (3, "trimmed")),
        (2, 9, (b"a",), (None, "trimmed")),
        (1, 8, (b"a",), (None, "trimmed")),
        (2, 8, (b"other",), (0, "trimmed")),
    ],
)
def test_what_a_gap_says_of_a_hole(first: int, last: int, topics: tuple[bytes, ...], expected: object) -> None:
    counts = {b"a": 3, b"b": 2}
    assert losses.told(Hole(1, 9, 0, 0, "settled", counts), first, last, only(*topics)) == expected
    assert losses.told(Hole(1, 9, 0, 0, "corrupt", counts), 1, 9, only(b"b")) == (2, "corrupt")
    assert losses.told(Hole(1, 9, 0, 0, "unsynced", None), first, last, only(*topics)) == (None, "unsynced")
