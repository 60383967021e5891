"""The limit of topics: refused is what a set of all names would refuse, and names are looked at only near it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busd.broker.ports import Outcome
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
        stores = SimpleNamespace(open=opened, of_topic=lambda name: [1 for table in self.tables if name in table])
        self.limit = TopicLimit(cast(Stores, stores), self.waiting, LIMIT)
        self.looks = 0
        self.taken: list[Publish] = []

    def publish(self, topics: bytes | list[bytes]) -> set[bytes]:
        """As `DiskLog.append` does it; the topics that were refused."""
        names = [topics] if isinstance(topics, bytes) else topics
        refused: set[bytes] = set()
        if self.waiting.pending_names + len(names) > self.limit.spare:
            self.looks += 1
            refused = set(self.limit.admit(names))
            names = [name for name in names if name not in refused]
        if names:
            self.waiting.add(Publish(names if len(names) > 1 else names[0], [b""] * len(names), 1), _untold)
        return refused

    def begin(self) -> None:
        """A commit begins, unless one is under way."""
        if self.waiting and not self.taken:
            self.taken = self.waiting.take()[0]

    def land(self, lost: bool = False) -> None:
        """It lands: names in both stores by turns; or nothing of it is kept."""
        taken = self.waiting.decided()
        for number, run in enumerate(() if lost else self.taken):
            table = self.tables[number % len(self.tables)]
            known = len(table)
            table.update([run.topics] if isinstance(run.topics, bytes) else run.topics)
            if len(table) != known:
                self.limit.grown(len(table) - known)
        self.limit.settle(taken)
        self.taken = []


def _untold(outcome: Outcome) -> None:
    raise AssertionError("nobody is told here")


some_names = st.sampled_from([b"t%d" % number for number in range(2 * LIMIT)])
steps = st.lists(
    st.one_of(st.sampled_from(["begin", "land", "lose"]), some_names, st.lists(some_names, min_size=2, max_size=6))
)


@given(st.lists(st.sets(some_names, max_size=LIMIT - 2), min_size=1, max_size=2), steps)
def test_refused_is_what_would_be_one_too_many(there: list[set[bytes]], some: list[str | bytes | list[bytes]]) -> None:
    kit, kept = Kit(*there), set[bytes]().union(*there)
    # What is under way: of the commit, and behind it.
    begun: list[bytes] = []
    behind: list[bytes] = []
    for step in [*some, "land", "begin", "land"]:
        if step == "begin":
            kit.begin()
            if not begun:
                begun, behind = behind, []
        elif step in ("land", "lose"):
            kit.land(lost=step == "lose")
            kept.update(begun if step == "land" else ())
            begun = []
        else:
            assert not isinstance(step, str)
            asked = [step] if isinstance(step, bytes) else step
            refused = set()
            for name in asked:
                there_are = {*kept, *begun, *behind}
                if name not in there_are and len(there_are) >= LIMIT:
                    refused.add(name)
                else:
                    behind.append(name)
            assert kit.publish(step) == refused, "as if each had come alone"
    assert len(kit.limit) == len(kept)


def test_names_are_not_looked_at_while_there_is_room_for_all_that_wait() -> None:
    kit = Kit({b"a%d" % number for number in range(8)})
    for _ in range(3):
        assert not kit.publish([b"a0", b"a1", b"a2"])
        assert not kit.publish(b"a3")
        kit.begin()
        kit.land()
    assert kit.looks == 0
    assert not kit.publish([b"b0", b"b1", b"b2"])
    assert not kit.publish(b"a0")
    assert kit.looks == 0
    assert not kit.publish(b"b3"), "the fifth that waits, where there is room for four: those that wait are looked at"
    assert len(kit.limit) == 8, "those under way are not there yet"
    (error,) = kit.limit.admit([b"b4"]).values()
    assert (error.code, error.text[:25]) == ("LIMIT", "there may be 12 topics, a")
    kit.begin()
    kit.land()
    assert (kit.looks, len(kit.limit)) == (1, LIMIT)


def test_what_has_one_answer_is_refused_as_a_whole_and_counts_for_nothing() -> None:
    kit = Kit({b"a%d" % number for number in range(10)})
    assert kit.limit.admit([b"a0", b"b0", b"b1", b"b2"], whole=True).keys() == {b"b0", b"b1", b"b2"}
    assert not kit.limit.admit([b"c0", b"c1"], whole=True)


@pytest.mark.parametrize("there", [[{b"a", b"b"}], [{b"a", b"b"}, {b"b"}]])
def test_topics_are_counted_once(there: list[set[bytes]]) -> None:
    assert len(Kit(*there).limit) == 2
