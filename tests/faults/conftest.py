"""What the fault tests put a server on and under: a small disk, limits of its process, a disk that is slow or fails."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.server import ServerProcess
from tests.support.tools import need

MakeDisk = Callable[[str], Path]
MakeLimited = Callable[..., ServerProcess]


@pytest.fixture
def make_disk(short_dir: Path) -> Iterator[MakeDisk]:
    """A file system of its own, of a size like 4m.

    Where mounting is not allowed (most containers) the test is skipped, in CI too: the same promises are tried on a
    disk in memory by test_failing_calls.py.
    """
    need("mount", "umount")
    stack = contextlib.ExitStack()
    number = itertools.count()

    def make(size: str) -> Path:
        place = short_dir / f"disk{next(number)}"
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "tmpfs", str(place)], capture_output=True
        )
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
        stack.callback(subprocess.run, ["umount", "--lazy", str(place)], check=True)
        return place

    with stack:
        yield make


class Limited(ServerProcess):
    """A server behind a command that limits it."""

    prefix: tuple[str, ...] = ()

    def command(self) -> list[str]:
        """See ServerProcess."""
        return [*self.prefix, *super().command()]


@pytest.fixture
def make_limited(make_disk: MakeDisk, short_dir: Path) -> Iterator[MakeLimited]:
    """`make_limited(*options, disk=…, prefix=("prlimit", …))`: started, and stopped behind the test."""
    stack = contextlib.ExitStack()

    def make(*options: str, disk: Path | None = None, prefix: tuple[str, ...] = ()) -> ServerProcess:
        if prefix:
            need(prefix[0])
        server = Limited(short_dir, options)
        server.data = (disk or short_dir) / "data"
        server.prefix = prefix
        stack.callback(server.close)
        return server.start()

    with stack:
        yield make
