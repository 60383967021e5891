"""The limit of topics: refused is what a set of all names would refuse, and names are looked at only near it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busd.broker.ports import Outcome
from busd.words.errors import BusError
from busd.words.requests import Publish
from busd.world.stores import Stores
from busd.world.topic_limit import TopicLimit
from busd.world.waiting import Waiting

LIMIT = 12


class Kit:
    """A log with nothing but names: `main` and `other` are its stores."""

    def __init__(self, *there: set[bytes]) -> None:
        self.tables = [set(names) for names in there]
        opened = {str(number): SimpleNamespace(topics=table) for number, table in enumerate(self.tables)}
        self.waiting = Waiting()
        self.limit = TopicLimit(cast(Stores, SimpleNamespace(open=opened)), self.waiting, LIMIT)
        self.looks = 0
        self.taken: list[Publish] = []

    def publish(self, topics: bytes | list[bytes]) -> bool:
        """As `DiskLog.append` does it; False when it was refused."""
        names = [topics] if isinstance(topics, bytes) else topics
        if self.waiting.pending_names + len(names) > self.limit.spare:
            self.looks += 1
            try:
                self.limit.admit(names)
            except BusError:
                return False
        self.waiting.add(Publish(topics, [b""] * len(names), 1), _untold)
        return True

    def begin(self) -> None:
        """A commit begins."""
        self.taken = [] if self.taken or not self.waiting else self.waiting.take()[0]

    def land(self) -> None:
        """It lands: names in both stores by turns."""
        self.waiting.decided()
        for number, run in enumerate(self.taken):
            table = self.tables[number % len(self.tables)]
            known = len(table)
            table.update([run.topics] if isinstance(run.topics, bytes) else run.topics)
            if len(table) != known:
                self.limit.grown(len(table) - known)
        self.taken = []


def _untold(outcome: Outcome) -> None:
    raise AssertionError("nobody is told here")


some_names = st.sampled_from([b"t%d" % number for number in range(2 * LIMIT)])
steps = st.lists(
    st.one_of(st.sampled_from(["begin", "land"]), some_names, st.lists(some_names, min_size=2, max_size=6))
)


@given(st.lists(st.sets(some_names, max_size=LIMIT - 2), min_size=1, max_size=2), steps)
def test_refused_is_what_would_be_one_too_many(there: list[set[bytes]], some: list[str | bytes | list[bytes]]) -> None:
    kit, names = Kit(*there), set[bytes]().union(*there)
    for step in some:
        if isinstance(step, str):
            # One at a time, as the log does it.
            (kit.begin if step == "begin" and not kit.taken else kit.land)()
            continue
        wanted = names.union([step] if isinstance(step, bytes) else step)
        fits = len(wanted) <= LIMIT or wanted == names
        assert kit.publish(step) is fits
        names = wanted if fits else names
    kit.land()
    kit.begin()
    kit.land()
    assert len(kit.limit) == len(names)


def test_names_are_not_looked_at_while_there_is_room_for_all_that_wait() -> None:
    kit = Kit({b"a%d" % number for number in range(8)})
    for _ in range(3):
        assert kit.publish([b"a0", b"a1", b"a2"])
        assert kit.publish(b"a3")
        kit.begin()
        kit.land()
    assert kit.looks == 0
    assert kit.publish([b"b0", b"b1", b"b2"])
    assert kit.publish(b"a0")
    assert kit.looks == 0
    assert kit.publish(b"b3"), "the fifth that waits, where there is room for four: those that wait are looked at"
    with pytest.raises(BusError, match="there are 12 topics"):
        kit.limit.admit([b"b4"])
    assert (kit.looks, len(kit.limit)) == (1, LIMIT)


@pytest.mark.parametrize("there", [[{b"a", b"b"}], [{b"a", b"b"}, {b"b"}]])
def test_topics_are_counted_once(there: list[set[bytes]]) -> None:
    assert len(Kit(*there).limit) == 2
