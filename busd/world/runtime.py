"""A Runtime on an event loop: its clocks, its turns, a few threads for reads that must wait for the disk.

Invariants:
1. A step begins only after a turn of the loop in which nothing was due: what a commit, or a thread that came back, has
   to say is said before; but no step is put off twice in a row.
2. Steps take about _STEPS_NS of a turn, and one step more, however many wait; while a thread is away, one of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

_LOGGER = logging.getLogger("busd")

# Readers of cold data wait for the disk, not for each other; more threads than this only queue at the disk.
_THREADS = 4
# A thread that wants to come back gets the interpreter at a call of the system that the loop makes, and the core at
# once, mostly; not always: then a busy loop keeps it from them for milliseconds, and a real sleep hands both over.
# Longer than this a commit seldom takes; to sleep in shorter ones costs half of the time that they save.
# Measured, a synced publish beside a replay of 1 GB, p50 and p99: never 1.1 and 5.3 ms, always 1.5 and 3.1, so 0.9 and
# 2.3.
_NAP_S = 50e-6
_PATIENCE_NS = 800_000
# Steps of long work in one turn: a step of a replay as lines takes half a millisecond beside a commit, and twice that
# without one.
_STEPS_NS = 500_000
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class LoopRuntime:
    """See busd.broker.ports.Runtime.  `clock`: of nanoseconds that only rise; `sleep`: for seconds."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._sleep = sleep
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="busd-read")
        # Threads at work, and since when there has been one.
        self._away = 0
        self._since_ns = 0
        self._napping = self._stopped = False
        self._steps: deque[Callable[[], None]] = deque()
        self._stepping = False
        # Something stands in the queue of the loop, or was done in this turn, that no step should hold up.
        self._due = False
        self._put_off = False
        # See Runtime; each commit asks for these, some more than once.
        self.now_ns = time.time_ns
        # Also while the machine sleeps: then the wall clock did not leap.
        self.monotonic_ns = partial(time.clock_gettime_ns, _CLOCK)
        self.soon: Callable[[Callable[[], None]], object] = loop.call_soon

    def first(self, call: Callable[[], None]) -> None:
        """See Runtime."""
        self._due = True
        self._loop.call_soon(call)

    def step(self, call: Callable[[], None]) -> None:
        """See Runtime."""
        self._steps.append(call)
        if not self._stepping:
            self._stepping = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Some of the steps that wait, each once at most."""
        self._put_off = self._due and not self._put_off
        self._due = False
        if self._put_off:
            # What is due stands behind us in this turn, or stood before us: its answers go out when the turn ends.
            self._loop.call_soon(self._turn)
            return
        steps = self._steps
        end_ns = self._clock() + _STEPS_NS
        for _ in range(len(steps)):
            try:
                steps.popleft()()
            except Exception as error:
                self.fault(error)
            if self._away or self._due or self._clock() > end_ns:
                break
        self._stepping = bool(steps)
        if steps:
            self._loop.call_soon(self._turn)

    def later(self, delay_ns: int, call: Callable[[], None]) -> Callable[[], None]:
        """See Runtime."""
        return self._loop.call_later(delay_ns / 1e9, call).cancel

    def in_thread(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """See Runtime; nothing is begun after `stop`, and `done` not called."""
        if self._stopped:
            return
        called_off = False

        def begin() -> Any:
            return None if called_off else work()

        def back(result: Any) -> None:
            self.away(-1)
            done(result)

        def finished(future: Future[Any]) -> None:
            error = future.exception()
            result = error if error is not None else future.result()
            # The loop may be gone when the process stops while a read is under way.
            if not self._loop.is_closed():
                self.away(0)
                self._loop.call_soon_threadsafe(back, result)

        try:
            future = self._pool.submit(begin)
        except RuntimeError:
            # A pool that could not start a thread has taken it all the same, and does it when another is free.
            called_off = True
            raise
        # Not before: where no thread could be had, none is away.
        self.away(1)
        future.add_done_callback(finished)

    def away(self, count: int) -> None:
        """So many more (or fewer) threads are at work that the loop should let in; 0, in any thread: one has done its
        work and is about to tell the loop."""
        if count > 0:
            if not self._away:
                self._since_ns = self._clock()
        else:
            self._due = True
        if count:
            self._away += count

    def fault(self, error: Exception) -> None:
        """See Runtime."""
        _LOGGER.error("a fault of busd", exc_info=error)

    @property
    def hurried(self) -> bool:
        """See Runtime."""
        return self._away > 0

    def breathe(self) -> None:
        """See Runtime: one nap a turn, and only while a thread has been at work for long."""
        if self._away and not self._napping and self._clock() - self._since_ns > _PATIENCE_NS:
            self._napping = True
            self._loop.call_soon(self._nap)

    def stop(self) -> None:
        """The threads begin nothing more."""
        self._stopped = True

    def close(self) -> None:
        """Finish what the threads were given.  Blocking; to be called after `stop`."""
        self._pool.shutdown()

    def _nap(self) -> None:
        self._napping = False
        if self._away:
            self._sleep(_NAP_S)
