"""Segment openings: golden bytes, other formats, topics that make no sense."""

from __future__ import annotations

import pytest

from busd.rules.envelope import BadRecord, envelope
from busd.rules.record import parse
from busd.rules.segment_opening import Opening, TopicLine, frame_opening, topic_lines

# Written by hand.  Each value of a field is one that occurs nowhere else in it.
OPENING = (
    b"+S 4e373774 0000000085 2 main 3 500 499 620 2 7 310 1700000000000000009\r\n"
    b"a 300 499 120 90 e\r\nb 10 44 0 0 o\r\n"
)


def test_golden_opening() -> None:
    opening = parse(OPENING)
    assert isinstance(opening, Opening)
    assert opening.store == "main"
    assert opening.epoch == 3
    assert opening.first == 500
    assert opening.prev == 499
    assert opening.until == 620
    assert opening.born == 2
    assert opening.sure == 7
    assert opening.total == 310
    assert opening.time_ns == 1700000000000000009
    topics = {b"a": TopicLine(300, 499, 120, 90, True), b"b": TopicLine(10, 44, 0, 0, False)}
    assert opening.topics() == topics
    rows = [(name, t.count, t.last, t.floor, t.dead, t.ended) for name, t in topics.items()]
    assert topic_lines(rows) == opening.lines
    assert frame_opening(opening) == OPENING


def test_a_newer_format_is_told_apart() -> None:
    with pytest.raises(BadRecord) as caught:
        parse(envelope("S", b"3 main 1 1 0 0 1 1 0 5 and more"))
    assert caught.value.reason == "format"
    assert "format 3; this busd reads formats 1 to 2" in str(caught.value)


def test_topics_of_an_opening_that_make_no_sense() -> None:
    opening = parse(envelope("S", b"1 main 1 1 0 0 1 1 0 5", b"a 1 2\r\n"))
    assert isinstance(opening, Opening)
    with pytest.raises(BadRecord):
        opening.topics()
