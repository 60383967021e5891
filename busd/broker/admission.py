"""Whether there is room for a run, and what becomes of it when there is none: refused, or held until there is.

It must not know how room is counted (the log does) nor who publishes.  Invariants:
1. What becomes of a run is told message by message in its order; only the last part says that no more comes.
2. Runs that wait for the same store take turns in the order in which they came: one that got on goes behind the others,
   one that did not stays where it is.  Nothing that comes overtakes any of them.
3. What is held is bounded in bytes, and each waits no longer than its store's rule says since it last got on.
4. A run of which everything fits, while nothing is held, costs one question.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

from busd.broker.ports import Drop, Log, Outcome, Runtime, Sink
from busd.words.errors import BusError, stopping
from busd.words.requests import Publish
from busd.words.units import NS_PER_S


class Budget:
    """Bytes that may be held over all."""

    def __init__(self, limit_bytes: int) -> None:
        self.used_bytes = 0
        self._limit_bytes = limit_bytes

    def take(self, size_bytes: int) -> bool:
        """False, and nothing taken, when it is too much."""
        if self.used_bytes + size_bytes > self._limit_bytes:
            return False
        self.used_bytes += size_bytes
        return True

    def give(self, size_bytes: int) -> None:
        """They are free again."""
        self.used_bytes -= size_bytes


@dataclass(slots=True, eq=False)
class _Part:
    """Messages of a run that were given to the log, or refused, together."""

    outcome: Outcome | None = None


class _Course:
    """A run on its way into the log, part by part.  `at`: the first message of which nothing is decided yet."""

    __slots__ = ("_parts", "_sink", "at", "bytes", "cancel", "run", "store", "waited")

    def __init__(self, run: Publish, sink: Sink) -> None:
        self.run = run
        self.at = 0
        # While it is held: by whose cap, bytes of the budget, and its time limit.
        self.store = ""
        self.bytes = 0
        self.cancel: Callable[[], None] | None = None
        # Stores that it has waited for long enough, and what its other messages for them are told.
        self.waited: dict[str, BusError] = {}
        self._sink = sink
        self._parts: deque[_Part] = deque()

    @property
    def over(self) -> bool:
        """True when every message of it was given to the log or refused."""
        return self.at >= len(self.run.items)

    def take(self, count: int) -> tuple[Publish, Sink]:
        """The next so many messages as a run of their own, and where to say what became of them."""
        run, lo, hi = self.run, self.at, self.at + count
        part = _Part()
        self._parts.append(part)
        self.at = hi
        if count < len(run.items):
            topics = run.topics if isinstance(run.topics, bytes) else run.topics[lo:hi]
            items = run.items[lo:hi]
            run = replace(run, topics=topics, items=items, size_bytes=size_of(items))

        def decided(outcome: Outcome) -> None:
            part.outcome = outcome
            self._tell()

        return run, decided

    def refuse(self, count: int, error: BusError) -> None:
        """The next so many messages are not kept."""
        _, decided = self.take(count)
        decided(Outcome(0, count, dict.fromkeys(range(count), error)))

    def _tell(self) -> None:
        parts = self._parts
        while parts and (outcome := parts[0].outcome) is not None:
            parts.popleft()
            outcome.more = bool(parts) or not self.over
            self._sink(outcome)


class Admission:
    """See the module.  `queues`: runs that wait, by store."""

    def __init__(self, log: Log, runtime: Runtime, budget: Budget) -> None:
        self._log = log
        self._runtime = runtime
        self._budget = budget
        self.queues: dict[str, deque[_Course]] = {}
        self._trying = False
        self._stopped = False

    @property
    def held(self) -> int:
        """Runs that wait."""
        return sum(map(len, self.queues.values()))

    def publish(self, run: Publish, sink: Sink, hold: bool) -> Drop | None:
        """Give a run to the log as far as there is room.

        Args:
            sink: told what became of it, perhaps in this call, perhaps in parts.
            hold: whether it may wait for room.

        Returns:
            None unless a part of it waits: then what takes that part back.  (The sink is told of that, too.)

        Raises:
            BusError: all of it is refused at once; the sink is not called.
        """
        # A RESET is no message, and frees what it removes.
        log = self._log
        if run.kind == "reset" or not (self.queues or (log.capped and log.admits(run, 0) < len(run.items))):
            log.append(run, sink)
            return None
        course = _Course(run, sink)
        store = self._go_on(course, hold and not self._stopped)
        if not store:
            return None
        self._queue(course, store)
        return lambda: self._give_up(course, _LOST)

    def room(self) -> None:
        """There may be room now: those that wait go on as far as it goes."""
        if self._trying:
            return
        self._trying = True
        try:
            for store in list(self.queues):
                self._room_in(store)
        finally:
            self._trying = False

    def stop(self) -> None:
        """What waits is refused, and nothing waits any more."""
        self._stopped = True
        for queue in list(self.queues.values()):
            for course in list(queue):
                self._give_up(course, stopping())

    def _go_on(self, course: _Course, hold: bool) -> str:
        """Publish what there is room for, refuse what may not wait.  The store that the rest waits for, or nothing."""
        run, log = course.run, self._log
        while not course.over:
            count = self._fits(course)
            if count:
                self._repay(course, count)
                part, sink = course.take(count)
                try:
                    log.append(part, sink)
                except BusError as error:
                    sink(Outcome(0, count, dict.fromkeys(range(count), error)))
                continue
            full = log.fullness(run, course.at)
            log.make_room(full.store)
            if full.block and hold and not full.never and full.store not in course.waited:
                if course.store or self._budget.take(size := size_of(run.items[course.at :])):
                    course.bytes = course.bytes if course.store else size
                    return full.store
                course.refuse(len(run.items) - course.at, _TOO_MUCH)
                continue
            told = course.waited.get(full.store, full.error)
            count = self._stretch(course, full.store, full.never)
            self._repay(course, count)
            course.refuse(count, told)
        return ""

    def _fits(self, course: _Course) -> int:
        run, at = course.run, course.at
        count = self._free(run, at, course.store)
        if count:
            count = min(count, self._log.admits(run, at))
        # What has one answer is kept as a whole.
        return 0 if run.answers == "first" and count < len(run.items) else count

    def _free(self, run: Publish, at: int, own: str) -> int:
        """How many messages go to stores where nobody was before it."""
        rest = len(run.items) - at
        taken = self.queues.keys() - {own}
        if not taken:
            return rest
        if isinstance(run.topics, bytes):
            return 0 if self._log.store_of(run.topics) in taken else rest
        stores = map(self._log.store_of, islice(run.topics, at, None))
        return next((count for count, store in enumerate(stores) if store in taken), rest)

    def _stretch(self, course: _Course, store: str, never: bool) -> int:
        """How many messages are refused together: those that go to the same store, or the one that can never fit."""
        run, at = course.run, course.at
        rest = len(run.items) - at
        if run.answers == "first":
            return rest
        if never:
            return 1
        if isinstance(run.topics, bytes):
            return rest
        stores = map(self._log.store_of, islice(run.topics, at, None))
        return next((count for count, one in enumerate(stores) if one != store), rest)

    # Those that wait.

    def _queue(self, course: _Course, store: str) -> None:
        course.store = store
        self.queues.setdefault(store, deque()).append(course)
        self._limit(course)

    def _limit(self, course: _Course) -> None:
        """From now on it waits for so long."""
        if course.cancel is not None:
            course.cancel()
        full = self._log.fullness(course.run, course.at)
        error = BusError(full.error.code, f"{full.error.text}; waited {full.wait_ns / NS_PER_S:g}s for room")
        course.cancel = self._runtime.later(full.wait_ns, lambda: self._expire(course, error))

    def _room_in(self, store: str) -> None:
        while queue := self.queues.get(store):
            course = queue[0]
            before = course.at
            waits_for = self._go_on(course, True)
            if course.over:
                self._leave(course)
            elif waits_for != store:
                self._dequeue(course)
                self._queue(course, waits_for)
            else:
                if course.at > before:
                    # Else a long one would take all room that comes until the time of the others is over.
                    queue.rotate(-1)
                    self._limit(course)
                if queue[0] is course:
                    return

    def _expire(self, course: _Course, error: BusError) -> None:
        """It waits no more for this store; what it has for others goes on."""
        course.waited[course.store] = error
        self._dequeue(course)
        store = self._go_on(course, True)
        if store:
            self._queue(course, store)
        else:
            self._leave(course)
        # It may have stood before others that need less.
        self.room()

    def _give_up(self, course: _Course, error: BusError) -> None:
        """The rest of it is refused."""
        if course.over:
            return
        self._leave(course)
        course.refuse(len(course.run.items) - course.at, error)
        self.room()

    def _leave(self, course: _Course) -> None:
        """It waits no more."""
        self._dequeue(course)
        self._repay(course, len(course.run.items) - course.at)
        if course.cancel is not None:
            course.cancel()
            course.cancel = None

    def _dequeue(self, course: _Course) -> None:
        queue = self.queues.get(course.store)
        if queue is not None and course in queue:
            queue.remove(course)
            if not queue:
                del self.queues[course.store]

    def _repay(self, course: _Course, count: int) -> None:
        """The next so many messages are not held any more; before that is told, as who hears it may publish more."""
        if course.bytes:
            size = size_of(course.run.items[course.at : course.at + count])
            course.bytes -= size
            self._budget.give(size)


def size_of(items: list[bytes | list[bytes]]) -> int:
    """Bytes of payloads and headers."""
    return sum([len(item) if isinstance(item, bytes) else sum(map(len, item)) for item in items])


_LOST = BusError("FULL", "nothing was kept: the connection that waited for room was lost")
_TOO_MUCH = BusError("FULL", "nothing was kept: there is no room, and as much as may waits for it already")
