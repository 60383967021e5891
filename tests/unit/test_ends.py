"""Topics at their end, before and behind a reader."""

from __future__ import annotations

from busd.broker.ends import Ends
from busd.broker.ports import Topic

TOPICS = {
    b"early": Topic(1, 5, 0, True),
    b"late": Topic(1, 9, 0, True),
    b"open": Topic(1, 7, 0, False),
}


def test_ended_are_those_before_the_reader_in_order() -> None:
    ends = Ends(TOPICS.get, (b"late", b"open", b"none", b"early", b"*"), None)
    assert ends.before(10) == [(5, b"early"), (9, b"late")]
    assert ends.before(9) == [(5, b"early")]
    assert ends.before(1) == []
    own = Ends(TOPICS.get, (b"late", b"early"), {b"late": 10})
    assert own.before(1) == [(9, b"late")]


def test_all_ended_when_each_is_literal_has_ended_and_was_passed() -> None:
    both = (b"early", b"late")
    assert Ends(TOPICS.get, both, None).all(9, 1)
    assert not Ends(TOPICS.get, both, None).all(8, 1)
    # Where a topic begins behind its end there is nothing of it to come.
    assert Ends(TOPICS.get, both, {b"late": 10}).all(8, 1)
    for other in (b"open", b"none", b"*"):
        assert not Ends(TOPICS.get, (*both, other), None).all(9, 1)
