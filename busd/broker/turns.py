"""One connection's runs on their way: outcomes told in the order of the runs, and the last run, when it is held.

Outcomes come in that order by themselves unless a message is a duplicate: then they are known at once, or only when
somebody else's run is decided.  Invariants:
1. All outcomes of a run are told before any of the next.
2. Only the last run can be held: who publishes must not go on while it is, nor while many outcomes wait for one.
3. What waits to be told holds no payloads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from busd.broker.ports import Drop, Engine, Outcome
from busd.words.requests import Publish

Tell = Callable[[Publish, Outcome], None]
# Runs decided before one that waits for the first of its id: each holds its answers, of up to one read from a socket.
_EARLY = 8


class Turns:
    """See the module.  `held`: the last run waits, or so many before it do that no more should come."""

    def __init__(self, engine: Engine, tell: Tell) -> None:
        self.held = False
        self._engine = engine
        self._tell = tell
        # Numbers of runs: the last that was published, and the first whose last outcome was not told.
        self._newest = 0
        self._first = 1
        self._early: dict[int, deque[tuple[Publish, Outcome]]] = {}
        self._drop: Drop | None = None

    def publish(self, run: Publish, hold: bool) -> None:
        """Publish; `hold`: whether it may wait for room.  Raises BusError when it is refused at once."""
        run.source = self
        self._newest = number = self._newest + 1
        try:
            self._drop = self._engine.publish(run, partial(self._came, number, run), hold)
        except BaseException:
            self._newest -= 1
            self._engine.count_refused(len(run.items))
            raise
        if self._drop is not None:
            self.held = True

    def drop(self) -> None:
        """Nobody waits for answers any more: what is held is not published."""
        if self._drop is not None:
            drop, self._drop = self._drop, None
            self._look()
            drop()

    def _look(self) -> None:
        self.held = self._drop is not None or len(self._early) >= _EARLY

    def _came(self, number: int, run: Publish, outcome: Outcome) -> None:
        if outcome.errors:
            self._engine.count_refused(len(outcome.errors))
        if number != self._first:
            told = replace(run, topics=b"", items=[])
            self._early.setdefault(number, deque()).append((told, outcome))
            self._look()
            return
        while True:
            if not outcome.more:
                self._first += 1
                if self._first > self._newest:
                    self._drop = None
                if self.held:
                    self._look()
            self._tell(run, outcome)
            # Telling may bring more; each turn of this loop looks again.
            if not (self._early and (waiting := self._early.get(self._first))):
                return
            run, outcome = waiting.popleft()
            if not outcome.more:
                del self._early[self._first]
