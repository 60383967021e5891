"""Whatever happens before the log, in any order: every message is answered once, in order, and truthfully."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from busd.broker.admission import Admission, Budget, size_of
from busd.broker.dedup import Dedup
from busd.broker.ports import Drop, Outcome
from busd.rules.record import Batch
from busd.words.errors import BusError
from busd.words.requests import Item, Publish
from busd.words.settings import Limits
from busd.words.units import NS_PER_S
from tests.support.fake_log import FakeLog
from tests.support.memory_server import FakeRuntime

STORES = ("a", "b", "c")


class Asked:
    """A run, and what was told of it."""

    def __init__(self, topics: list[bytes], items: list[Item]) -> None:
        self.topics = topics
        self.items = items
        self.results: list[int | str] = []
        self.over = False
        self.drop: Drop | None = None

    def sink(self, outcome: Outcome) -> None:
        """See Sink."""
        assert not self.over
        for at in range(outcome.count):
            offset = outcome.first + at if outcome.offsets is None else outcome.offsets[at]
            error = outcome.errors.get(at)
            self.results.append(offset if error is None else error.code)
        self.over = not outcome.more
        assert len(self.results) <= len(self.items)
        assert self.over == (len(self.results) == len(self.items))


class Storm:
    """Both stages before a log that decides when it is told to."""

    def __init__(self) -> None:
        self.runtime = FakeRuntime()
        self.log = FakeLog(self.runtime.now_ns, hold=True)
        self.log.caps = {"a": 3, "b": 2}
        self.log.reject = {"b"}
        self.budget = Budget(60)
        limits = Limits(held_bytes=60)
        self.admission = Admission(self.log, self.runtime, self.budget)
        self.dedup = Dedup(self.log, self.runtime, limits, self.budget, self.admission.publish)
        self.log.visible = lambda batches: self.admission.room()
        self.asked: list[Asked] = []
        self._number = 0

    def publish(self, messages: list[tuple[str, str]], hold: bool) -> None:
        """A run of (store, id or nothing); each payload is there once."""
        topics, items = [], list[Item]()
        for store, message_id in messages:
            self._number += 1
            payload = b"%d" % self._number
            topics.append(store.encode())
            items.append([payload, b"id", message_id.encode()] if message_id else payload)
        asked = Asked(topics, items)
        self.asked.append(asked)
        run = Publish(topics, items, size_of(items), headers=any(isinstance(item, list) for item in items))
        try:
            asked.drop = self.dedup.publish(run, asked.sink, hold)
        except BusError as error:
            assert asked.results == []
            asked.results = [error.code] * len(items)
            asked.over = True
        assert hold or asked.drop is None

    def drop(self, number: int) -> None:
        """A connection is lost, if it has something held."""
        held = [asked for asked in self.asked if asked.drop is not None and not asked.over]
        if held:
            asked = held[number % len(held)]
            assert asked.drop is not None
            asked.drop()

    def room(self, store: str) -> None:
        """For one more."""
        if store in self.log.caps:
            self.log.caps[store] += 1
        self.admission.room()

    def check(self) -> None:
        """At the end: all is answered, and what was answered is true."""
        kept = {
            offset: (record.topic_of(at), item if isinstance(item, bytes) else item[0])
            for record in self.log.records
            if isinstance(record, Batch)
            for at, (offset, item) in enumerate(zip(record.offsets(), record.items(), strict=True))
        }
        first: dict[tuple[bytes, bytes], int] = {}
        own: set[int] = set()
        for asked in self.asked:
            assert asked.over
            before = 0
            for topic, item, result in zip(asked.topics, asked.items, asked.results, strict=True):
                payload = item if isinstance(item, bytes) else item[0]
                mine = isinstance(result, int) and kept[result] == (topic, payload)
                if isinstance(result, str):
                    assert result in ("FULL", "DISK", "STOPPING")
                elif mine:
                    assert result > before, "a run's messages take rising offsets"
                    before = result
                    own.add(result)
                else:
                    assert isinstance(item, list)
                if isinstance(item, list) and isinstance(result, int):
                    assert first.setdefault((topic, item[2]), result) == result, "an id was kept twice"
        assert own == set(kept), "what was kept was told to who sent it"
        assert (self.budget.used_bytes, self.admission.held) == (0, 0)


MESSAGES = st.lists(st.tuples(st.sampled_from(STORES), st.sampled_from(["", "", "x", "y"])), min_size=1, max_size=5)
STEPS: st.SearchStrategy[Callable[[Storm], None]] = st.one_of(
    st.builds(lambda messages, hold: lambda storm: storm.publish(messages, hold), MESSAGES, st.booleans()),
    st.builds(lambda messages: lambda storm: storm.publish(messages, True), MESSAGES),
    st.builds(lambda number: lambda storm: storm.drop(number), st.integers(0, 5)),
    st.builds(lambda store: lambda storm: storm.room(store), st.sampled_from(STORES)),
    st.builds(lambda failed: lambda storm: storm.log.commit(BusError("DISK", "no") if failed else None), st.booleans()),
    st.builds(lambda seconds: lambda storm: storm.runtime.advance(seconds * NS_PER_S), st.sampled_from([1, 10, 29])),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=25), st.booleans())
def test_every_message_is_answered_once_in_order_and_truthfully(
    steps: list[Callable[[Storm], None]], stopped: bool
) -> None:
    storm = Storm()
    for step in steps:
        step(storm)
    if stopped:
        storm.dedup.stop()
        storm.admission.stop()
    # Time enough for every wait; less than the ids are remembered.
    for _ in range(4):
        storm.log.commit()
        storm.runtime.advance(31 * NS_PER_S)
    storm.log.commit()
    storm.check()
