"""What a job is given: a directory, cores, the size of the load, servers, and the meter every figure comes from."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.load import BLOCK
from bench.machine import Cores, descriptors
from bench.peers.base import Peer
from bench.plan import CannotRun, Job, Sample, Workload, WrongAnswer

# Messages that are read back after they were counted, at most so many bytes of them.
TAIL = 100
TAIL_BYTES = 4_000_000
# Descriptors that are not connections: segments, logs, what the interpreters have open.
OTHER_FILES = 300
# As much as a job writes, most of them; little beside the memory of a machine.
_TOUCHED_MIB = 400
P = TypeVar("P", bound=Peer)


@dataclass(frozen=True, slots=True)
class Size:
    """How much load: `factor` of the full one, never below what a figure needs to mean anything.

    Args:
        name: `full`, `quick`, or `tiny` for a test of the benchmark itself.
        backlog_gb: how large the workload about large logs may make one.
        log_factor: of the sizes it names, in a test of the benchmark itself.
    """

    name: str
    factor: float
    backlog_gb: float
    log_factor: float = 1.0

    def messages(self, full: int, least: int = BLOCK) -> int:
        """So many, in whole blocks."""
        wanted = max(int(full * self.factor), min(least, full))
        return max(wanted // BLOCK, 1) * BLOCK

    def some(self, full: int, least: int = 1) -> int:
        """The same for what does not come in blocks."""
        return max(int(full * self.factor), min(least, full))

    def number(self, full: int) -> int:
        """Of connections and other things whose number is the point: the same in quick runs."""
        return full if self.name != "tiny" else max(full // 50, 2)

    def jobs(self, workload: Workload) -> Sequence[Job]:
        """Of a curve with a job for each point: all of them, or fewer when there is no time; everything else whole."""
        if self.name == "full" or workload.chart != "curve":
            return workload.jobs
        return workload.jobs[::2] if self.name == "quick" else workload.jobs[:2]


FULL = Size("full", 1.0, 20.0)
QUICK = Size("quick", 0.1, 0.2)
TINY = Size("tiny", 0.005, 0.2, 0.1)


@dataclass(slots=True)
class Meter:
    """Times and CPU of a stretch of the load; valid once its `with` block has ended."""

    server: Peer
    wall_s: float = 0.0
    server_s: float = 0.0
    loader_s: float = 0.0

    def sample(self, value: float, messages: int, more: Mapping[str, float] | None = None) -> Sample:
        """A sample with the costs of that stretch, by message."""
        return Sample(
            value,
            server_ns=self.server_s * 1e9 / messages,
            loader=min(1.0, self.loader_s / self.wall_s),
            peak_mb=self.server.peak_mb(),
            more=more or {},
        )

    def rate(self, messages: int) -> Sample:
        """Messages a second."""
        return self.sample(messages / self.wall_s, messages)


@contextlib.contextmanager
def measured(server: Peer) -> Iterator[Meter]:
    """The clock runs inside."""
    meter = Meter(server)
    server_ns, loader_ns, began_ns = server.cpu_ns(), time.process_time_ns(), time.perf_counter_ns()
    yield meter
    ended_ns = time.perf_counter_ns()
    meter.wall_s = (ended_ns - began_ns) / 1e9
    meter.loader_s = (time.process_time_ns() - loader_ns) / 1e9
    meter.server_s = (server.cpu_ns() - server_ns) / 1e9


@dataclass(slots=True)
class Context:
    """One job's surroundings.

    Args:
        base: a directory for its servers, on the disk that is measured.
    """

    base: Path
    cores: Cores
    size: Size
    _made: int = field(default=0)

    @contextlib.contextmanager
    def running(self, make: Callable[[Path, Cores, str], P], policy: str, topics: Sequence[bytes]) -> Iterator[P]:
        """A new server on an empty directory, which is removed afterwards.

        Raises:
            WrongAnswer: it does not promise what it is measured for, or fell over.
        """
        self._made += 1
        place = self.base / str(self._made)
        server = make(place, self.cores, policy)
        try:
            server.start()
            server.prepare(topics)
            server.check_policy()
            yield server
        finally:
            server.close()
            shutil.rmtree(place, ignore_errors=True)
            # What one server left to be written is not the next one's to wait for.
            os.sync()

    def need_connections(self, number: int) -> None:
        """Raises CannotRun when neither loader nor server may have so many."""
        if (may := descriptors()) < number + OTHER_FILES:
            raise CannotRun(f"{number:,} connections need ulimit -n {number + OTHER_FILES}; it is {may}")

    def settle(self) -> None:
        """Between preparing and measuring: nothing waits to be written, the server is idle, memory is there."""
        os.sync()
        time.sleep(0.05 if self.size.name == "full" else 0.0)
        self._touch_memory()

    def _touch_memory(self) -> None:
        """Fill as many free pages as a job's files will take, and free them again.

        A virtual machine's host takes free memory back, and the first to use it again waits for it: appends were seen
        to run at 0.44 GB/s then, and at 4.5 otherwise.  Which server that hit would be chance.
        """
        path = self.base / "touched"
        piece = bytes(1 << 20)
        try:
            with path.open("wb", buffering=0) as file:
                for _ in range(int(_TOUCHED_MIB * self.size.factor)):
                    file.write(piece)
        finally:
            path.unlink(missing_ok=True)


def check_kept(server: Peer, topics: Sequence[bytes], expected: int) -> None:
    """The server has what it answered for.  Raises WrongAnswer."""
    if (kept := server.kept(topics)) != expected:
        raise WrongAnswer(f"{server.system} answered {expected} messages and has {kept}")


def check_tail(server: Peer, topic: bytes, contents: Sequence[bytes]) -> None:
    """The last messages are what was published.  Raises WrongAnswer."""
    number = min(TAIL, max(TAIL_BYTES // len(contents[0]), 1), len(contents))
    found = server.tail(topic, len(contents), number)
    for one in contents[-number:]:
        if one not in found:
            raise WrongAnswer(f"{server.system} answered for {one[:80]!r} and does not have it")


def payloads(count: int, size_bytes: int, first: int = 0) -> list[bytes]:
    """Different ones: a number, and letters that no protocol here gives a meaning to."""
    tail = (b"abcdefghijklmnopqrstuvwxyz" * (size_bytes // 26 + 1))[: size_bytes - 9]
    return [b"%09d" % number + tail for number in range(first, first + count)]
