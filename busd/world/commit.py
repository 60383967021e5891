"""One commit: batches and group records to their files and, by policy, to the platter; and the thread for that.

Nothing here decides anything: it does what it is given and says what became of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

from busd.rules.record import Batch
from busd.world.disk import DiskFailed, DiskFull
from busd.world.group_log import GroupLog
from busd.world.store import Roll, Store

Failure = DiskFull | DiskFailed


@dataclass(slots=True)
class Work:
    """What one store takes in a commit: batches, and their records, of so many bytes."""

    store: Store
    roll: Roll | None
    batches: list[Batch]
    records: list[bytes]
    size_bytes: int
    failure: Failure | None = None

    def carry_out(self, sync: bool) -> None:
        """Write, and sync.  Errors are kept here."""
        try:
            self.store.write(self.roll, self.records)
            if sync:
                self._sync()
        except Exception as error:
            self.failure = _failure(error)

    def _sync(self) -> None:
        try:
            self.store.sync()
        except Exception:
            # Nobody was told of these messages; a restart should not find them, if the disk lets us.
            with contextlib.suppress(Exception):
                self.store.undo()
            raise


@dataclass(slots=True)
class GroupWork:
    """What groups.log takes in a commit.

    `before_bytes`: its size before; `frame`: what the thread has to write, empty when that is done; `settles`: an
    answer waits for it; `switch`: a snapshot takes the file's place; `trouble`: why it did not.
    """

    log: GroupLog
    before_bytes: int
    frame: bytes
    settles: bool = False
    switch: bool = False
    failure: Failure | None = None
    trouble: str = ""

    def carry_out(self, sync: bool) -> None:
        """Write what is not written, sync if an answer waits for it, then change files.  Errors are kept here."""
        if self.failure is None:
            try:
                if self.frame:
                    self.log.write(self.frame)
                if sync and self.settles:
                    self.log.sync()
            except Exception as error:
                self.failure = _failure(error)
        if self.failure is None and self.switch:
            try:
                self.log.switch()
            except Exception as error:
                self.trouble = str(_failure(error))


@dataclass(slots=True)
class Commit:
    """A commit on its way.  `before` is done first (raising the floor); its failure is that of all messages.

    `took_ns`: how long it took by `clock`, once it was carried out.
    """

    works: list[Work]
    sync: bool
    clock: Callable[[], int]
    before: Callable[[], None] | None = None
    groups: GroupWork | None = None
    took_ns: int = 0

    @property
    def refused(self) -> bool:
        """True when there was no room for anything, and nothing of it is left anywhere."""
        return bool(self.works) and all(
            isinstance(one.failure, DiskFull) and not one.store.failed for one in self.works
        )

    def carry_out(self) -> None:
        """Write, and sync when the policy says so.  Errors of the disk are kept, each with its work."""
        began_ns = self.clock()
        failure = None
        if self.before is not None:
            try:
                self.before()
            except Exception as error:
                failure = _failure(error)
        for work in self.works:
            work.failure = failure
            if failure is None:
                work.carry_out(self.sync)
        if self.groups is not None:
            self.groups.carry_out(self.sync)
        self.took_ns = self.clock() - began_ns


def _failure(error: Exception) -> Failure:
    """What became of a work.  Whatever it was (a directory that somebody removed), a commit that is not decided would
    let all publishers wait for ever."""
    return error if isinstance(error, DiskFull | DiskFailed) else DiskFailed(f"{type(error).__name__}: {error}")


# A thread that sleeps is there within 50 us; one that is not after this finds its turn by itself.
_HAND_OVER_S = 0.001


class Committer(Protocol):
    """Where commits are carried out, one at a time, in order."""

    def submit(self, work: Callable[[], None], done: Callable[[], None]) -> None:
        """`work` where waiting for a disk hurts nobody, then `done` on the loop; `work` raises nothing."""

    def hand_over(self) -> None:
        """Let what was submitted begin, as the caller has more to do: beginning takes the interpreter for a moment."""

    def close(self) -> None:
        """Finish what was submitted, then stop."""


class CommitThread:
    """A thread of its own, fed by a queue: 210 µs for a synced append where an executor takes 307."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, away: Callable[[int], None], answered: Callable[[], None]
    ) -> None:
        self._queue: SimpleQueue[tuple[Callable[[], None], Callable[[], None]] | None] = SimpleQueue()
        self._loop = loop
        self._away = away
        self._answered = answered
        # When the work began that is under way; 0 for none.
        self._since_ns = 0
        # Held from a submission until the thread has taken it up.
        self._begins = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="busd-commit", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], None], done: Callable[[], None]) -> None:
        """See Committer."""
        self._away(1)
        self._begins.acquire(blocking=False)
        self._queue.put((work, done))

    def hand_over(self) -> None:
        """See Committer."""
        self._begins.acquire(timeout=_HAND_OVER_S)

    def waited_ns(self) -> int:
        """For how long the disk has been at the commit that is under way."""
        since_ns = self._since_ns
        return time.monotonic_ns() - since_ns if since_ns else 0

    def close(self) -> None:
        """See Committer."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            work, done = job
            if self._begins.locked():
                self._begins.release()
            self._since_ns = time.monotonic_ns()
            try:
                work()
            finally:
                self._since_ns = 0
                self._away(0)
                self._loop.call_soon_threadsafe(self._back, done)

    def _back(self, done: Callable[[], None]) -> None:
        self._away(-1)
        done()
        self._answered()
