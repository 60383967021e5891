"""Looking again for a moment before the loop sleeps, as long as that pays.

A client that waits for each answer asks again some ten microseconds after it.  A loop that went to sleep meanwhile is
woken by an interrupt and finds its code out of the caches, which is half of such a round trip.

It must not know what a request is, nor who sent it.  Invariants:
1. The loop looks again only behind an answer whose request had come within the limit of the answer before it, and for
   the limit at most: who pauses costs that once, an idle server costs nothing.
2. Each look lets whoever else is ready to run have the core first.
3. While a thread is at work (a commit, a read) the loop does not look again: it would keep the interpreter from it.
4. Nor behind a commit during which others asked: taking them one by one as they come would make commits small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Turns(Protocol):
    """As much of a Runtime as this needs."""

    def soon(self, call: Callable[[], None]) -> object:
        """In the next turn of the loop; a loop with one to come does not sleep."""

    @property
    def hurried(self) -> bool:
        """True while a thread is at work."""


def limit_ns(busy_poll_us: int, cores: int | None) -> int:
    """How long to look for a setting of so many µs on so many cores (None: not known).

    Not at all on a single one: whoever would ask again needs it.
    """
    return 0 if cores == 1 else busy_poll_us * 1_000


class BusyPoll:
    """See the module.

    `limit_ns`: how long to look, 0 for not at all; `clock`: ns that only rise, the one that `served` is told by;
    `give_way`: lets others have the core.
    """

    def __init__(self, limit_ns: int, turns: Turns, clock: Callable[[], int], give_way: Callable[[], object]) -> None:
        self._limit_ns = limit_ns
        self._turns = turns
        self._clock = clock
        self._give_way = give_way
        # When the last answer had gone, and whether the last request came soon after one.
        self._answered_ns = clock() - limit_ns - 1
        self._pays = False
        # Requests since a thread was back.
        self._asked = 0
        self._looking = False

    def served(self, came_ns: int) -> None:
        """A request that came at `came_ns` has been looked at: it is answered, or a thread is at work for it."""
        # On the way of every request: no call more than this takes.
        if self._limit_ns:
            self._pays = came_ns - self._answered_ns <= self._limit_ns
            self._asked += 1
            self._answered_ns = self._clock()
            if self._pays and not self._looking and not self._turns.hurried:
                self._looking = True
                self._turns.soon(self._look)

    def answered(self) -> None:
        """A thread is back, and what waited for it has its answer."""
        if self._limit_ns:
            self._pays = self._pays and self._asked == 1
            self._asked = 0
            self._answered_ns = self._clock()
            if self._pays and not self._looking and not self._turns.hurried:
                self._looking = True
                self._turns.soon(self._look)

    def _look(self) -> None:
        if self._turns.hurried:
            self._looking = False
        elif self._clock() - self._answered_ns > self._limit_ns:
            self._looking = self._pays = False
        else:
            self._give_way()
            self._turns.soon(self._look)
