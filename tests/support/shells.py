"""Scripts of bash that run beside a test."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.tools import COMMAND_TIMEOUT_S, end_session, environment


class Shell:
    """A script of bash beside the test."""

    def __init__(self, script: str, told: Path) -> None:
        self._told = told
        with open(told, "wb") as file:
            self.process = subprocess.Popen(
                ["bash", "-c", script], stdin=subprocess.DEVNULL, stdout=file, env=environment(), start_new_session=True
            )

    @property
    def so_far(self) -> bytes:
        """What it has printed."""
        return self._told.read_bytes()

    def has_ended(self) -> bool:
        """Whether the last line that it printed is an EOF."""
        return self.so_far.rpartition(b"\n")[0].rpartition(b"\n")[2].startswith(b"EOF ")

    def output(self) -> bytes:
        """What it printed, once it ended well."""
        status = self.process.wait(COMMAND_TIMEOUT_S)
        assert status == 0, (status, self.so_far[-300:])
        return self.so_far

    def close(self) -> None:
        """The end of it and of what it started."""
        end_session(self.process.pid)
        self.process.wait()


MakeShell = Callable[[str], Shell]


def beside(directory: Path) -> Iterator[MakeShell]:
    """For a fixture: something that starts scripts, which are killed behind the test."""
    started: list[Shell] = []

    def start(script: str) -> Shell:
        started.append(Shell(script, directory / f"told-{len(started)}"))
        return started[-1]

    yield start
    for one in started:
        one.close()
