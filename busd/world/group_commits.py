"""Group records on their way to groups.log: some at once, some with the next commit, all of a kind in order.

A note (a delivery) is written on the loop, which costs as much as a look at the page cache.  What an answer waits for
joins the group commit: written on the loop too when the commit begins, and synced by the thread together with the
messages.  After a write that was slow the next ones go through the thread.  It must not know members or deliveries.
Invariants:
1. Notes keep their order; a settlement is written behind all notes before it, and settlements keep theirs.
2. A note never passes a settlement that makes, moves or forgets a group (it may pass one that only says `done`: they
   speak of different messages).
3. While the thread holds the file the loop writes nothing to it.
4. A state is changed by a settlement only when that is decided kept, in the step that answers it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from busd.broker.ports import Runtime
from busd.words.errors import BusError, stopping
from busd.words.settings import Sync
from busd.words.units import NS_PER_S
from busd.world.answers import FAULT
from busd.world.commit import Failure, GroupWork
from busd.world.disk import DiskFailed, DiskFull, File
from busd.world.group_log import GroupLog
from busd.world.pace import Pace
from busd.world.upkeep import Health, error_of

_TICK_NS = NS_PER_S
# Under what the health names the file; no store can have this name.
_NAME = "group records"

Sink = Callable[[BusError | None], None]


@dataclass(slots=True)
class _Entry:
    """A call of `note` (`done`) or of `settle` (`sink`).  `barrier`: no note may pass it; `error`: refused already."""

    lines: Sequence[bytes]
    done: Callable[[], None] | None = None
    sink: Sink | None = None
    barrier: bool = False
    error: BusError | None = None


def _nothing() -> None:
    """Nobody waits for it."""


class GroupCommits:
    """See the module.  `wake`: something waits for a commit; `waiting`: the next one has something to do here."""

    def __init__(self, log: GroupLog, runtime: Runtime, sync: Sync, health: Health, wake: Callable[[], None]) -> None:
        self.log = log
        self.waiting = log.saved is not None
        self._runtime = runtime
        self._sync = sync
        self._health = health
        self._begun = False
        self._wake = wake
        self._queue: list[_Entry] = []
        # What the commit in flight took.
        self._taken: list[_Entry] = []
        # Of the queue and of the commit in flight: notes not written, and settlements that no note may pass.
        self._notes = 0
        self._barriers = 0
        self._held = False
        self._in_flight = False
        self._pace = Pace(runtime.monotonic_ns)
        self._stopping = False
        self._syncing = False
        self._cancel: Callable[[], None] | None = None

    # Taking.

    def note(self, lines: Sequence[bytes], done: Callable[[], None]) -> None:
        """See Log."""
        # What is owed is told as it stands, without what a commit in flight has settled: behind that it would undo it.
        owes = self._in_flight and self.log.owed
        if self._held or self._notes or self._barriers or self._pace.slow or owes:
            self._notes += 1
            self._wait(_Entry(lines, done))
            return
        failure = self._write(self.log.frame(lines)) if lines else None
        self._noted(lines, failure, done)
        if self.log.due:
            self._look()

    def settle(self, lines: Sequence[bytes], sink: Sink) -> None:
        """See Log.  Deliveries at the beginning are a note of their own: they need not wait, and must not be passed."""
        notes = next((at for at, line in enumerate(lines) if not line.startswith(b"out ")), len(lines))
        if notes:
            self.note(lines[:notes], _nothing)
            lines = lines[notes:]
        entry = _Entry(lines, None, sink)
        if lines and self._stopping:
            entry = _Entry((), None, sink, False, stopping())
        elif not all(line.startswith(b"done ") for line in lines):
            entry.barrier = True
            self._barriers += 1
        self._wait(entry)

    def _wait(self, entry: _Entry) -> None:
        self._queue.append(entry)
        self.waiting = True
        self._wake()

    # Writing.

    def _write(self, frame: bytes) -> Failure | None:
        """On the loop."""
        try:
            self._pace.here(lambda: self.log.write(frame))
        except (DiskFull, DiskFailed) as error:
            return error
        return None

    def begin(self) -> GroupWork:
        """What waits, when something does, for a commit; `decided` must follow.

        A fault is told, and answered by `decided`: nothing is written then.
        """
        entries, self._queue, self.waiting = self._queue, [], False
        self._taken = entries
        self._in_flight = True
        try:
            lines = [line for entry in entries for line in entry.lines]
            work = GroupWork(self.log, self.log.bytes, self.log.frame(lines) if lines else b"")
            work.settles = any(entry.sink is not None and entry.lines for entry in entries)
            work.switch = self.log.saved is not None and not self.log.failed
        except Exception as error:
            self._runtime.fault(error)
            self._give_up(entries)
            return GroupWork(self.log, self.log.bytes, b"")
        if self._pace.slow or work.switch:
            self._pace.handed_over()
            self._held = True
        elif work.frame:
            work.failure = self._write(work.frame)
            work.frame = b""
            self._note_now(work.failure)
        return work

    def _give_up(self, entries: list[_Entry]) -> None:
        """None of these could be written: settlements are refused, deliveries are owed."""
        for entry in entries:
            if entry.done is not None:
                self._owe(entry.lines)
            elif entry.lines:
                entry.error = FAULT
            entry.lines = ()

    def needs_thread(self, work: GroupWork) -> bool:
        """Whether something of it must not be done on the loop."""
        return self._held or (self._sync == "always" and work.settles and work.failure is None)

    def _note_now(self, failure: Failure | None) -> None:
        """It is on the file: notes before the first barrier have nothing more to wait for."""
        left = []
        barrier = False
        for entry in self._taken:
            barrier = barrier or entry.barrier
            if entry.done is None or barrier:
                left.append(entry)
            else:
                self._notes -= 1
                self._noted(entry.lines, failure, entry.done)
        self._taken = left

    def _noted(self, lines: Sequence[bytes], failure: Failure | None, done: Callable[[], None]) -> None:
        if failure is not None:
            self._tell_health(failure)
        if failure is None:
            self._take(lines)
        elif isinstance(failure, DiskFull):
            # Without room it is true all the same; the next write that succeeds begins with it.
            self._owe(lines)
        try:
            done()
        except Exception as error:
            self._runtime.fault(error)

    def _take(self, lines: Sequence[bytes]) -> None:
        try:
            self.log.take(lines)
        except Exception as error:
            # Others wait for their answers.
            self._runtime.fault(error)

    def _owe(self, lines: Sequence[bytes]) -> None:
        for line in lines:
            name = line.split(b" ", 2)[1]
            # A group that could not even be begun has nothing out.
            if name in self.log.states:
                self._take([line])
                self.log.owed.add(name)

    def _tell_health(self, failure: Failure) -> None:
        text = error_of(failure).text
        if isinstance(failure, DiskFailed):
            self._health.failed[_NAME] = text
        else:
            self._health.refuse(text, self._runtime.monotonic_ns())

    def decided(self, work: GroupWork) -> bool:
        """It was carried out: take in what is kept, answer in order.  True when a group was made, moved or forgotten;
        by then it may stand further on again, for who is answered may give out at once."""
        self._held = False
        failure = work.failure
        error = None
        if failure is not None:
            error = error_of(failure)
            self._tell_health(failure)
            if isinstance(failure, DiskFailed):
                # Nobody was told of these; a restart should not find them, if the disk lets us.
                self.log.undo(work.before_bytes, str(failure))
        if work.trouble:
            self._no_snapshot(work.trouble)
        moved = False
        taken, self._taken = self._taken, []
        for entry in taken:
            if entry.done is not None:
                self._notes -= 1
                self._noted(entry.lines, failure, entry.done)
                continue
            self._barriers -= entry.barrier
            moved = moved or (entry.barrier and error is None)
            self._answer(entry, error if entry.lines else entry.error)
        # Not before: who is answered may note something, and a snapshot made then would lack what is not taken yet.
        self._in_flight = False
        # A switch that was put off is tried with the next commit.
        self.waiting = self.waiting or (self.log.saved is not None and not self.log.failed)
        self._look()
        return moved

    def _answer(self, entry: _Entry, error: BusError | None) -> None:
        assert entry.sink is not None
        if error is None:
            self._take(entry.lines)
        try:
            entry.sink(error)
        except Exception as fault:
            self._runtime.fault(fault)

    # A smaller file.

    def _look(self) -> None:
        """Begin a snapshot when one is due and nothing is on its way that is written and not taken."""
        if self._in_flight or self._stopping or not self.log.due:
            return

        def done(result: object) -> None:
            if isinstance(result, Exception):
                self._no_snapshot(str(result))
            elif self._stopping:
                self.log.give_up_snapshot()
            elif not self.log.failed:
                self.waiting = True
                self._wake()

        try:
            self._runtime.in_thread(self.log.begin_snapshot(), done)
        except Exception as error:
            # It saves space; what waits behind it must not wait for that.
            self._runtime.fault(error)
            self.log.give_up_snapshot()

    def _no_snapshot(self, text: str) -> None:
        if self.log.failed:
            self._health.failed[_NAME] = error_of(DiskFailed(text)).text
        self.log.give_up_snapshot()

    # Once a second.

    def start(self) -> None:
        """Begin the upkeep: what `interval` owes, and the reserve."""
        self._cancel = self._runtime.later(_TICK_NS, self.start)
        owes = self._sync == "interval" and self.log.dirty
        refills = not self.log.reserve.whole
        # The first is made in the second after the start.
        self._health.reserve_whole = not refills or not self._begun
        self._begun = True
        if self._syncing or not (owes or refills):
            return

        def work() -> File | None:
            if owes:
                self.log.sync()
            return self.log.reserve.made() if refills else None

        def done(result: File | Exception | None) -> None:
            self._syncing = False
            if isinstance(result, DiskFailed):
                self._tell_health(result)
            elif isinstance(result, Exception):
                raise result
            elif result is not None:
                self.log.reserve.take(result)

        self._runtime.in_thread(work, done)
        self._syncing = True

    def secure(self) -> None:
        """What groups have settled, as far as it is known here, outlives a power cut.  For a thread.

        Raises:
            DiskFailed: it may not.
        """
        # Under `always` nothing is known here before it is durable.
        if self._sync != "always":
            self.log.secure()

    def stop(self) -> None:
        """No more of that, and from now on settlements are refused; what was taken is decided as ever."""
        self._stopping = True
        if self._cancel is not None:
            self._cancel()

    def close(self) -> None:
        """A clean stop: what waits is written, everything is durable.  Blocking; to be called when idle.

        Raises:
            DiskFull, DiskFailed: it may not be.
        """
        lines = [line for entry in self._queue for line in entry.lines]
        if lines:
            self.log.write(self.log.frame(lines))
        self.log.close()
