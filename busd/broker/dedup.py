"""Deduplication: a message whose id its topic has had of late is not kept again, but answered as the first was.

It must not know how the log keeps messages, nor who publishes.  Invariants:
1. A run without an id passes untouched, also while ids are still read from the log.
2. A duplicate's answer is that of the first: its offset, or the error when it was not kept (then it can be sent again).
3. What becomes of a run is told in the order of its messages.
4. Time is monotonic, so a wall clock that jumps neither empties nor freezes a window.
5. A RESET, and what retention removes, take no id out of a window in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import repeat

from busd.broker.admission import Budget, size_of
from busd.broker.dedup_load import Load
from busd.broker.ports import Drop, Log, Outcome, Runtime, Sink
from busd.rules.dedup import Window, ids_of
from busd.words.errors import BusError, stopping
from busd.words.requests import Publish
from busd.words.settings import Limits

# The next stage: see Admission.publish.
Into = Callable[[Publish, Sink, bool], Drop | None]
Key = tuple[bytes, bytes]


class _Flight:
    """A run with ids: what is known of each of its messages, an offset or an error.

    `fresh`: messages given on, by index; `decided`: how many of those were answered; `keys`: of those that are
    under way; `followers`: by index, the duplicates that wait for its result; `all_new`: every message has an id,
    and none of these was known.
    """

    __slots__ = ("_sink", "_told", "all_new", "decided", "followers", "fresh", "held", "keys", "results")

    def __init__(self, count: int, sink: Sink) -> None:
        self.all_new = False
        self.fresh: list[int] = []
        self.decided = 0
        self.keys: dict[int, Key] = {}
        self.followers: dict[int, list[tuple[_Flight, int]]] = {}
        self.held = False
        self.results: list[int | BusError | None] = [None] * count
        self._sink = sink
        self._told = 0

    def all_kept(self, outcome: Outcome) -> None:
        """Answer: all of it was kept at once."""
        self._told = self.decided = outcome.count
        self._sink(Outcome(outcome.first, outcome.count, {}))

    def tell(self) -> None:
        """Answer as far as everything is known."""
        results, lo = self.results, self._told
        hi, total = lo, len(results)
        while hi < total and results[hi] is not None:
            hi += 1
        if hi == lo:
            return
        self._told = hi
        if total == 1 and isinstance(result := results[0], int):
            # The usual run with headers; a third of the time of what follows.
            self._sink(Outcome(result, 1, {}))
            return
        errors: dict[int, BusError] = {}
        offsets: list[int] = []
        for result in results[lo:hi]:
            if isinstance(result, BusError):
                errors[len(offsets)] = result
                offsets.append(0)
            elif result is not None:
                offsets.append(result)
        dense = not errors and offsets == list(range(offsets[0], offsets[0] + hi - lo))
        self._sink(Outcome(offsets[0], hi - lo, errors, offsets=None if dense else offsets, more=hi < total))


class _Late:
    """A run with ids that came while the ids were still being read."""

    __slots__ = ("drop", "hold", "ids", "run", "sink", "size_bytes")

    def __init__(self, run: Publish, ids: list[bytes], sink: Sink, hold: bool) -> None:
        self.run = run
        self.ids = ids
        self.sink = sink
        self.hold = hold
        self.size_bytes = size_of(run.items)
        # Once it was let go: how to take back what is held of it.
        self.drop: Drop | None = None

    def refuse(self, error: BusError) -> None:
        """It is not kept."""
        count = len(self.run.items)
        self.sink(Outcome(0, count, dict.fromkeys(range(count), error)))


class Dedup:
    """See the module.  `duplicates` counts the messages that were not kept again."""

    def __init__(self, log: Log, runtime: Runtime, limits: Limits, budget: Budget, into: Into) -> None:
        self.duplicates = 0
        self._runtime = runtime
        self._budget = budget
        self._into = into
        self._on = bool(limits.dedup_ids and limits.dedup_ns)
        self._span_ns = limits.dedup_ns
        self._window = Window(limits.dedup_ids, limits.dedup_ns)
        self._pending: dict[Key, tuple[_Flight, int]] = {}
        self._late: dict[_Late, None] = {}
        self._cancel_sweep: Callable[[], None] | None = None
        self._load: Load | None = None
        self._stopped = False
        if self._on and log.horizon > 1:
            self._load = Load(log, runtime, self._window, self._span_ns, self._loaded)
            self._load.begin()

    def publish(self, run: Publish, sink: Sink, hold: bool = False) -> Drop | None:
        """Give a run on, less its duplicates.  See Admission.publish."""
        ids = ids_of(run.items) if run.headers and run.ids and self._on and run.answers == "each" else None
        if ids is None:
            return self._into(run, sink, hold)
        if self._load is None:
            return self._start(run, ids, sink, hold)
        if self._stopped:
            # Nobody would look at it any more: who hears of the stop may publish at once what it has next.
            raise stopping()
        late = _Late(run, ids, sink, hold)
        if not self._budget.take(late.size_bytes):
            raise _BUSY
        self._late[late] = None
        return lambda: self._take_back(late)

    def stop(self) -> None:
        """Runs that wait for the ids are refused, and those that would."""
        self._stopped = True
        if self._load is not None:
            self._load.stop()
        for late in list(self._late):
            self._forget(late)
            late.refuse(stopping())
        if self._cancel_sweep is not None:
            self._cancel_sweep()

    def _start(self, run: Publish, ids: list[bytes], sink: Sink, hold: bool) -> Drop | None:
        now_ns = self._runtime.monotonic_ns()
        flight = _Flight(len(ids), sink)
        topics = repeat(run.topics) if isinstance(run.topics, bytes) else run.topics
        keys = list(zip(topics, ids, strict=False))
        if self._are_new(run, ids, keys):
            # As nearly all are; in columns a fifth of the time.
            count = len(ids)
            flight.fresh = list(range(count))
            flight.keys = dict(enumerate(keys))
            flight.all_new = True
            self._pending.update(zip(keys, zip(repeat(flight), range(count), strict=False), strict=True))
            return self._give_on(run, flight, hold)
        for index, key in enumerate(keys):
            if not key[1] or not self._is_duplicate(flight, index, key, hold, now_ns):
                flight.fresh.append(index)
        drop = self._give_on(run, flight, hold) if flight.fresh else None
        if len(flight.fresh) < len(ids):
            # What was known before it began; the log may not have answered yet, or all of it.
            flight.tell()
        return drop

    def _are_new(self, run: Publish, ids: list[bytes], keys: list[Key]) -> bool:
        """Whether all have ids, and none of these is known.  One alone is as quick without that question."""
        return (
            len(keys) > 1
            and all(ids)
            and len(set(keys)) == len(keys)
            and self._pending.keys().isdisjoint(keys)
            and not self._window.has_any(run.topics, ids)
        )

    def _is_duplicate(self, flight: _Flight, index: int, key: Key, hold: bool, now_ns: int) -> bool:
        """True when it is not to be kept: what it needs is the answer to another one, or it is refused for that one."""
        offset = self._window.find(*key, now_ns)
        if offset is not None:
            flight.results[index] = offset
        elif key in self._pending:
            first, at = self._pending[key]
            if first.held and not hold:
                # It would have to wait for room, too, and who acknowledges must not.
                flight.results[index] = _HELD
                return True
            first.followers.setdefault(at, []).append((flight, index))
        else:
            self._pending[key] = flight, index
            flight.keys[index] = key
            return False
        self.duplicates += 1
        return True

    def _give_on(self, run: Publish, flight: _Flight, hold: bool) -> Drop | None:
        fresh = flight.fresh
        if len(fresh) < len(run.items):
            run = _part(run, fresh)
        try:
            drop = self._into(run, partial(self._decided, flight), hold)
        except BusError as error:
            count = len(fresh)
            self._decided(flight, Outcome(0, count, dict.fromkeys(range(count), error)))
            return None
        flight.held = drop is not None
        return drop

    def _decided(self, flight: _Flight, outcome: Outcome) -> None:
        """The next so many of the messages given on are kept, or not."""
        now_ns = self._runtime.monotonic_ns()
        if flight.all_new and outcome.count == len(flight.results) and not (outcome.errors or flight.followers):
            self._all_kept(flight, outcome, now_ns)
            return
        lo = flight.decided
        flight.decided = hi = lo + outcome.count
        errors = {flight.fresh[lo + at]: error for at, error in outcome.errors.items()}
        followers: dict[_Flight, None] = {}
        offsets = range(outcome.first, outcome.first + outcome.count) if outcome.offsets is None else outcome.offsets
        for offset, index in zip(offsets, flight.fresh[lo:hi], strict=True):
            result = errors.get(index, offset) if errors else offset
            flight.results[index] = result
            key = flight.keys.pop(index, None)
            if key is None:
                continue
            del self._pending[key]
            if result is offset:
                self._window.put(key[0], key[1], offset, now_ns)
            if flight.followers:
                for follower, place in flight.followers.pop(index, ()):
                    follower.results[place] = result
                    followers[follower] = None
        flight.held = flight.held and outcome.more
        if self._cancel_sweep is None:
            self._sweep_later()
        flight.tell()
        for one in followers:
            one.tell()

    def _all_kept(self, flight: _Flight, outcome: Outcome, now_ns: int) -> None:
        """The same where all of a run were new and were kept, and nobody waits for them."""
        keys = flight.keys.values()
        for key in keys:
            del self._pending[key]
        topics, ids = zip(*keys, strict=True)
        same = topics.count(topics[0]) == len(topics)
        self._window.put_all(topics[0] if same else topics, ids, outcome.first, now_ns)
        flight.held = False
        if self._cancel_sweep is None:
            self._sweep_later()
        flight.all_kept(outcome)

    # While the ids are read.

    def _loaded(self) -> None:
        self._load = None
        self._sweep_later()
        for late in list(self._late):
            if late not in self._late:
                continue
            self._forget(late)
            late.drop = self._start(late.run, late.ids, late.sink, late.hold)

    def _take_back(self, late: _Late) -> None:
        if late in self._late:
            self._forget(late)
            late.refuse(_LOST)
        elif late.drop is not None:
            late.drop()

    def _forget(self, late: _Late) -> None:
        del self._late[late]
        self._budget.give(late.size_bytes)

    # Time.

    def _sweep_later(self) -> None:
        if self._cancel_sweep is None and len(self._window):
            self._cancel_sweep = self._runtime.later(self._span_ns, self._sweep)

    def _sweep(self) -> None:
        self._cancel_sweep = None
        self._window.sweep(self._runtime.monotonic_ns())
        self._sweep_later()


def _part(run: Publish, indexes: list[int]) -> Publish:
    """Some messages of a run."""
    topics = run.topics if isinstance(run.topics, bytes) else [run.topics[at] for at in indexes]
    items = [run.items[at] for at in indexes]
    return replace(run, topics=topics, items=items, size_bytes=size_of(items))


_HELD = BusError("FULL", "nothing was kept: the first with this id waits for room, and a member of a group may not")
_LOST = BusError("FULL", "nothing was kept: the connection was lost before the ids were read from the log")
_BUSY = BusError("FULL", "nothing was kept: ids are being read from the log, and as much as may waits for that already")
