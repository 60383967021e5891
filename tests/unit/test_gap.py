"""The pending gap: exact, one at a time, and no end of stream lost in it without a word."""

from __future__ import annotations

from busd.broker.gap import PendingGap
from busd.rules.formats import Line
from busd.rules.select import Selection, build, select

LINE = Line(b"\n")


def messages(first: int, count: int, topics: list[bytes] | None = None) -> Selection:
    """A run of messages."""
    offsets = range(first, first + count)
    batch = build(offsets, topics or [b"a"] * count, [b""] * count, 0, "-")
    found = select(batch, lambda topic: topic == b"a")
    assert found is not None
    return found


def mark(offset: int, flags: str = "e") -> Selection:
    """An end of stream or a RESET."""
    return Selection(build([offset], [b"a"], [b"0"], 0, flags), 0, 1, None, 1)


def test_nothing_is_owed_at_first() -> None:
    gap = PendingGap(100)
    assert not gap.open
    assert gap.take(b"a", LINE) == []


def test_it_widens_and_counts_what_matches() -> None:
    gap = PendingGap(100)
    gap.skip(messages(3, 2), LINE)
    gap.skip(messages(8, 4, [b"a", b"b", b"a", b"b"]), LINE)
    assert gap.open
    assert gap.take(b"a,c", LINE) == [b"GAP a,c 3 10 4 slow\n"]
    assert not gap.open
    assert gap.take(b"a,c", LINE) == []


def test_the_next_gap_begins_anew() -> None:
    gap = PendingGap(100)
    gap.skip(messages(1, 5), LINE)
    gap.take(b"a", LINE)
    gap.skip(messages(9, 1), LINE)
    assert gap.take(b"a", LINE) == [b"GAP a 9 9 1 slow\n"]


def test_ends_and_resets_are_told_behind_it() -> None:
    gap = PendingGap(100)
    gap.skip(mark(2), LINE)
    gap.skip(messages(3, 1), LINE)
    gap.skip(mark(4, "r"), LINE)
    assert gap.take(b"a", LINE) == [b"GAP a 3 3 1 slow\n", b"EOF a 2\n", b"RESET a 4 0\n"]
    gap.skip(mark(5), LINE)
    assert not gap.open
    assert gap.take(b"a", LINE) == [b"EOF a 5\n"]


def test_marks_without_room_lie_in_the_gap() -> None:
    gap = PendingGap(len(b"EOF a 2\n"))
    gap.skip(mark(2), LINE)
    gap.skip(mark(3), LINE)
    assert gap.take(b"a", LINE) == [b"GAP a 3 3 0 slow\n", b"EOF a 2\n"]
    # What was told costs nothing any more.
    gap.skip(mark(4), LINE)
    assert gap.take(b"a", LINE) == [b"EOF a 4\n"]
