"""A whole log on a disk in memory, with turns, time and commits in the test's hands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from busd.broker.ports import Outcome, Piece
from busd.rules.record import Batch, Hole
from busd.words.errors import BusError
from busd.words.requests import Publish
from busd.words.settings import Settings
from busd.world.log import DiskLog
from busd.world.start import Opened, open_log
from tests.support.memory_disk import MemoryDisk
from tests.support.memory_server import FakeRuntime


class HeldCommitter:
    """Carries commits out when told to; at once unless `hold`."""

    def __init__(self) -> None:
        self.hold = False
        self.submitted = 0
        self.handed_over = 0
        self._busy = False
        self._jobs: list[tuple[Callable[[], None], Callable[[], None]]] = []

    def submit(self, work: Callable[[], None], done: Callable[[], None]) -> None:
        """See Committer."""
        self.submitted += 1
        self._jobs.append((work, done))
        # What is submitted while one is decided comes behind it, as on a loop.
        if not (self.hold or self._busy):
            self.release()

    def hand_over(self) -> None:
        """See Committer."""
        self.handed_over += 1

    def release(self, most: int = 1 << 30) -> None:
        """Carry out what was submitted."""
        self._busy = True
        while self._jobs and most:
            most -= 1
            work, done = self._jobs.pop(0)
            work()
            done()
        self._busy = False

    def close(self) -> None:
        """See Committer."""
        self.release()


@dataclass
class LogKit:
    """An open log.  `answers`: an offset or an error for each message published, in the order decided."""

    settings: Settings = field(default_factory=Settings)
    disk: MemoryDisk = field(default_factory=MemoryDisk)
    boot: str = "boot-1"
    runtime: FakeRuntime = field(default_factory=FakeRuntime)
    committer: HeldCommitter = field(default_factory=HeldCommitter)
    answers: list[int | str] = field(default_factory=list)
    seen: list[tuple[int, bytes, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.opened: Opened = open_log(self.disk, self.settings, self.runtime, self.committer, self.boot)
        self.log: DiskLog = self.opened.log
        self.log.visible = self._visible

    def publish(self, topic: bytes, *payloads: bytes, kind: str = "message") -> None:
        """A run; its answers are in `answers` once it is decided."""
        run = Publish(topic, list(payloads), sum(map(len, payloads)), kind=kind)  # type: ignore[arg-type]
        try:
            self.log.append(run, self._decided)
        except BusError as error:
            self.answers += [error.code] * len(payloads)
        self.runtime.run()

    def publish_all(self, *topics: bytes) -> list[int | str]:
        """A run of a message for each topic: what became of them, in their order; the rest is as in `publish`."""
        known = len(self.answers)
        run = Publish(list(topics), list(topics), sum(map(len, topics)))
        try:
            self.log.append(run, self._decided)
        except BusError as error:
            self.answers += [error.code] * len(topics)
        self.runtime.run()
        return self.answers[known:]

    def reset(self, *topics: bytes) -> list[Outcome]:
        """RESET these topics; the outcome is in the list once it is decided."""
        outcomes: list[Outcome] = []
        self.log.append(Publish(list(topics), [b""] * len(topics), 0, kind="reset"), outcomes.append)
        self.runtime.run()
        return outcomes

    def read(self, *wanted: bytes, start: int = 1, budget: int = 1 << 16) -> list[Batch | Hole]:
        """Records of these topics (of all, without any) from an offset to the horizon."""
        place = self.log.cursor(start)
        pieces: list[Piece] = []

        def take(piece: Piece | Exception) -> None:
            assert isinstance(piece, Piece), piece
            pieces.append(piece)

        while not pieces or pieces[-1].next < self.log.horizon:
            known = len(pieces)
            self.log.read(place, lambda topic: not wanted or topic in wanted, budget, take)
            self.runtime.run()
            assert len(pieces) == known + 1, "a read is answered once"
        return [record for piece in pieces for record in piece.records]

    def messages(self, *wanted: bytes, start: int = 1, budget: int = 1 << 16) -> list[tuple[int, bytes, bytes]]:
        """offset, topic, payload of what `read` gives; holes and control records left out."""
        return flat(self.read(*wanted, start=start, budget=budget))

    def settle(self) -> None:
        """Carry out commits until nothing waits, with the turns between them."""
        while not self.log.idle:
            self.committer.release()
            self.runtime.run()

    def crash(self, boot: str = "boot-1") -> LogKit:
        """The same disk, everything written kept, after a kill."""
        return LogKit(self.settings, self.disk.copy(), boot)

    def stop(self) -> None:
        """A clean stop."""
        self.log.refuse()
        self.runtime.run()
        self.log.close()
        self.opened.lock.release()

    def _decided(self, outcome: Outcome) -> None:
        for at in range(outcome.count):
            error = outcome.errors.get(at)
            offset = outcome.first + at if outcome.offsets is None else outcome.offsets[at]
            self.answers.append(offset if error is None else error.code)

    def _visible(self, batches: list[Batch]) -> None:
        self.seen += flat(batches)


def flat(records: Sequence[Batch | Hole]) -> list[tuple[int, bytes, bytes]]:
    """offset, topic, payload of every message."""
    return [
        (offset, batch.topic_of(at), batch.payloads()[at])
        for batch in records
        if isinstance(batch, Batch) and not batch.control
        for at, offset in enumerate(batch.offsets())
    ]
