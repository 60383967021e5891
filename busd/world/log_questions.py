"""What can be asked of a log: of its topics, of times, of the last n, of how much is left.

Answers come from memory, or from a thread where they may wait for the disk.  It must not know how messages get there.
Invariants:
1. An answer is about one moment: what is in the thread works on the stores and the horizon as they were at the call.
2. A count is exact or None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import merge
from itertools import chain, islice
from typing import Any

from busd.broker.ports import Runtime, Topic
from busd.rules.record import Batch
from busd.rules.topic_state import TopicRow
from busd.words.patterns import Wanted
from busd.world.pins import pinned_bytes
from busd.world.store_lookup import Memo
from busd.world.stores import Stores, topic_rows


class LogQuestions:
    """See the module.  `horizon`: the first offset that is not visible yet; `floors`: topics that were RESET, and below
    which offset nothing of them is left."""

    def __init__(self, stores: Stores, runtime: Runtime, horizon: int) -> None:
        self.stores = stores
        self.horizon = horizon
        self.floors: dict[bytes, int] = {}
        self._runtime = runtime
        self._kept_before = self._total
        for store in stores.open.values():
            for name in store.topics.floors():
                self.floors[name] = max(self.floors.get(name, 0), store.topics.floor_of(name))
        self._tell_resets(self.floors)

    def note_resets(self, batches: Iterable[Batch]) -> None:
        """Take in those of the RESETs among what landed just now."""
        floors: dict[bytes, int] = {}
        for batch in batches:
            if batch.control and "r" in batch.flags:
                # No offset of them is higher than these.
                floors.update(zip(batch.topics, batch.lasts(), strict=True))
        if floors:
            self.floors.update(floors)
            self._tell_resets(floors)

    def _tell_resets(self, floors: Mapping[bytes, int]) -> None:
        if floors and len(self.stores.open) > 1:
            for store in self.stores.open.values():
                store.reset(floors)

    @property
    def kept(self) -> int:
        """See Log."""
        return self._total - self._kept_before

    @property
    def _total(self) -> int:
        return sum([store.total for store in self.stores.open.values()])

    def first(self, wanted: Wanted) -> int:
        """See Log."""
        return min((store.first for store in self.stores.holding(wanted)), default=self.horizon)

    def offset_at(self, time_ns: int, done: Callable[[Any], None]) -> None:
        """See Log."""
        stores, horizon = [(store, store.last) for store in self.stores.open.values()], self.horizon

        def work() -> int:
            # A store that has nothing so late says last + 1, which other stores may be beyond.
            found = [(store.offset_at(time_ns), last) for store, last in stores]
            return min([horizon, *(offset for offset, last in found if offset <= last)])

        self._runtime.in_thread(work, done)

    def last_floors(self, wanted: Wanted, count: int, done: Callable[[Any], None]) -> None:
        """See Log."""
        stores, horizon = self.stores.holding(wanted), self.horizon
        names = [(store, name) for store in stores for name in list(store.topics) if wanted(name)]

        def work() -> dict[bytes, int]:
            floors: dict[bytes, int] = {}
            # Neighbours in the log have their last messages in the same batches.
            names.sort(key=lambda pair: pair[0].topics[pair[1]].last)
            memo = Memo()
            several: set[bytes] = set()
            for store, name in names:
                if name in floors:
                    several.add(name)
                else:
                    floors[name] = store.nth_last(name, count, horizon, memo)
            for name in several:
                # A rule for it came or went: the last of them all may be in any.
                newest = [store.newest(name, horizon, memo) for store in stores if name in store.topics]
                falling = merge(*[chain.from_iterable(map(reversed, one)) for one in newest], reverse=True)
                floors[name] = min(islice(falling, count), default=horizon)
            return floors

        self._runtime.in_thread(work, done)

    def count(self, wanted: Wanted, position: int, done: Callable[[Any], None]) -> None:
        """See Log."""
        stores, horizon = self.stores.holding(wanted), self.horizon
        # Of topics that were RESET behind the position only what came later counts.
        floors = {name: floor for name, floor in self.floors.items() if floor > position and wanted(name)}

        def work() -> int | None:
            total = 0
            for store in stores:
                parts = [store.count(lambda topic: topic not in floors and wanted(topic), position, horizon)]
                for name, floor in floors.items():
                    if name in store.topics:
                        parts.append(store.count(name.__eq__, floor, horizon))
                for part in parts:
                    if part is None:
                        return None
                    total += part
            return total

        self._runtime.in_thread(work, done)

    def pinned_bytes(self, wanted: Wanted, position: int) -> int:
        """See Log."""
        return pinned_bytes(self.stores.open.values(), wanted, position)

    @property
    def newest_ns(self) -> int:
        """See Log."""
        return max((store.newest_ns for store in self.stores.open.values() if store.last), default=0)

    def store_of(self, topic: bytes) -> str:
        """See Log."""
        return self.stores.route(topic)

    def topic(self, name: bytes) -> Topic | None:
        """See Log."""
        states = [store.topics[name] for store in self.stores.of_topic(name)]
        if not states:
            return None
        newest = max(states, key=lambda state: state.last)
        return Topic(sum(s.live for s in states), newest.last, max(s.floor for s in states), newest.ended)

    def topics(self, wanted: Wanted) -> Iterator[list[TopicRow]]:
        """See Log."""
        return topic_rows([store.topics for store in self.stores.open.values()], wanted)

    def with_messages(self, wanted: Wanted) -> list[bytes]:
        """See Log."""
        found = chain.from_iterable(store.topics.with_messages() for store in self.stores.open.values())
        return [name for name in dict.fromkeys(found) if wanted(name)]

    def ended(self, wanted: Wanted) -> dict[bytes, int]:
        """See Log."""
        names = {name for store in self.stores.open.values() for name in store.topics.ended() if wanted(name)}
        found = [(name, self.topic(name)) for name in names]
        # A rule for it came or went: in the store that took it last it may have begun again.
        return {name: topic.last for name, topic in found if topic is not None and topic.ended}

    def _live(self, name: bytes) -> int:
        # A RESET asks for hundreds of thousands.
        return sum([store.topics.live_of(name) for store in self.stores.open.values()])
