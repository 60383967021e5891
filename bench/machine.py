"""The machine: cores, clocks of other processes, memory, and the facts that belong beside every figure."""

from __future__ import annotations

import contextlib
import datetime
import mmap
import multiprocessing
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Of the free memory; the rest is for whoever wants some meanwhile.
_USED_PERCENT = 80
_AT_ONCE_PAGES = 1 << 18


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the server and where the loader may run; None: wherever the kernel likes."""

    server: frozenset[int] | None
    loader: frozenset[int] | None

    @contextlib.contextmanager
    def starting_server(self) -> Iterator[None]:
        """What is started in here runs on the server's cores: children inherit the affinity, with all their threads."""
        before = os.sched_getaffinity(0)
        if self.server is not None:
            os.sched_setaffinity(0, self.server)
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)

    def text(self) -> str:
        """For the results."""
        if self.server is None or self.loader is None:
            return "not pinned"
        return f"server on core {_listed(self.server)}, loader on core {_listed(self.loader)}"


def choose_cores(pinned: bool, available: frozenset[int]) -> Cores:
    """One for the server and another for the loader, where there are two; moves this process to its own.

    Args:
        pinned: False: both may run on all of them.
        available: what this process had when it began.
    """
    os.sched_setaffinity(0, available)
    if not pinned or len(available) < 2:
        return Cores(None, None)
    first, second, *_ = sorted(available)
    os.sched_setaffinity(0, {second})
    return Cores(frozenset({first}), frozenset({second}))


def cpu_ns(pid: int) -> int:
    """CPU time of a process, all threads, also those that ended.

    The figure of /proc/<pid>/stat, which has it in steps of 10 ms, from the clock behind it, which has nanoseconds
    (the id of a process's clock is made as clock_getcpuclockid(3) does).

    Raises:
        OSError: no such process.
    """
    return time.clock_gettime_ns((~pid << 3) | 2)


def memory_mb(pid: int, name: str) -> float:
    """A line of /proc/<pid>/status in 10^6 bytes: `VmHWM`, the highest resident memory, or `VmRSS`, that of now."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.M)
    assert found is not None, f"{name} of {pid}"
    return int(found[1]) * 1024 / 1e6


def raise_descriptors() -> None:
    """As many open files as this process and its children may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def descriptors() -> int:
    """How many open files this process and its children may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def forget_pages(directory: Path) -> None:
    """Write the files out and drop them from the page cache, so that the next reader finds them cold."""
    for path in directory.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def use_memory() -> float:
    """Write to most of the free memory once, and give it back.  Returns how much it was, in 10^9 bytes; 0 when there is
    a limit that forbids it.

    The host of a virtual machine finds memory only when it is written to, at 2 µs and more a kilobyte: otherwise who
    writes most bytes, or is measured first, pays for it.
    """
    pages = os.sysconf("SC_AVPHYS_PAGES") * _USED_PERCENT // 100
    # A process of its own: of two the kernel ends the one that has taken so much.
    child = multiprocessing.get_context("spawn").Process(target=_write_to, args=(pages,))
    child.start()
    child.join()
    return 0.0 if child.exitcode else pages * mmap.PAGESIZE / 1e9


def _write_to(pages: int) -> None:
    try:
        room = mmap.mmap(-1, pages * mmap.PAGESIZE)
    except (OSError, OverflowError):
        sys.exit(1)
    with room as memory:
        for at in range(0, pages, _AT_ONCE_PAGES):
            number = min(_AT_ONCE_PAGES, pages - at)
            memory[at * mmap.PAGESIZE : (at + number) * mmap.PAGESIZE : mmap.PAGESIZE] = bytes(number)


def facts(directory: Path) -> dict[str, str]:
    """What somebody has to know to compare figures, by name."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.0f} GB",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": f"{file_system(directory)} at {directory}",
        # Which one: two builds of a version differ by some per cent.
        "Python": f"{platform.python_implementation()} {platform.python_version()}, {os.path.realpath(sys.executable)}",
    }


def version_of(command: str, *words: str) -> str | None:
    """The first thing that looks like a version in what a program says of itself; None when it is not installed."""
    if (path := shutil.which(command)) is None:
        return None
    told = subprocess.run([path, *words], capture_output=True, text=True, timeout=20)
    found = re.search(r"\d+\.\d+(\.\d+)*", told.stdout + told.stderr)
    return found[0] if found else "unknown"


def commit_of(root: Path) -> str:
    """The commit that is checked out, `+` when files of the server differ from it; empty outside a checkout."""
    git = ["git", "-C", str(root)]
    told = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    if told.returncode:
        return ""
    changed = subprocess.run([*git, "status", "--porcelain", "busd", "clients"], capture_output=True, text=True)
    return told.stdout.strip() + ("+" if changed.stdout.strip() else "")


def load_average() -> float:
    """Of the last minute: what else ran here."""
    return os.getloadavg()[0]


def processor_ticks() -> tuple[int, int]:
    """Of all processors since the machine began: the time that its host gave to others while something wanted to run
    here, and all time."""
    # user nice system idle iowait irq softirq steal
    times = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
    return times[7], sum(times)


def taken_percent(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Of the time between two answers of `processor_ticks` what the host took."""
    return 100 * (after[0] - before[0]) / max(1, after[1] - before[1])


def _listed(cores: frozenset[int]) -> str:
    return ",".join(map(str, sorted(cores)))


def _processor() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
        if found:
            return found[1].strip()
    return platform.machine()


def file_system(directory: Path) -> str:
    """The type of the one it is on: that of the longest mount point the directory lies under."""
    best, kind = "", "unknown"
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text().splitlines():
            _, point, found, *_ = line.split()
            if str(directory.resolve()).startswith(point) and len(point) >= len(best):
                best, kind = point, found
    return kind


def only_linux() -> None:
    """Everything here reads /proc and pins processes."""
    if sys.platform != "linux":
        raise SystemExit("the benchmark needs Linux: it pins processes to cores and reads /proc")
