"""Topics at their end, before and behind a reader."""

from __future__ import annotations

from busd.broker.ends import all_ended, ended
from busd.broker.ports import Topic

TOPICS = {
    b"early": Topic(1, 5, 0, True),
    b"late": Topic(1, 9, 0, True),
    b"open": Topic(1, 7, 0, False),
}


def test_ended_are_those_before_the_reader_in_order() -> None:
    patterns = (b"late", b"open", b"none", b"early", b"*")
    assert ended(TOPICS.get, patterns, lambda topic: 10) == [(5, b"early"), (9, b"late")]
    assert ended(TOPICS.get, patterns, lambda topic: 9) == [(5, b"early")]
    assert ended(TOPICS.get, patterns, lambda topic: 1) == []


def test_all_ended_when_each_is_literal_has_ended_and_was_passed() -> None:
    both = (b"early", b"late")
    assert all_ended(TOPICS.get, both, lambda topic: 1, 9)
    assert not all_ended(TOPICS.get, both, lambda topic: 1, 8)
    # Where a topic begins behind its end there is nothing of it to come.
    assert all_ended(TOPICS.get, both, lambda topic: 10 if topic == b"late" else 1, 8)
    for other in (b"open", b"none", b"*"):
        assert not all_ended(TOPICS.get, (*both, other), lambda topic: 1, 9)
