"""`busd …` as a process: run to its end, beside the test, or on a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Sequence

from tests.support.server import ServerProcess
from tests.support.tools import environment

BUSD = [sys.executable, "-m", "busd"]
# How long a process may take to do what it does at once when nothing is wrong.
PATIENCE_S = 20.0

Busd = Callable[..., subprocess.CompletedProcess[bytes]]


class Spawned:
    """A `busd …` that runs beside the test."""

    def __init__(self, server: ServerProcess, *words: str) -> None:
        self.process = subprocess.Popen(
            [*BUSD, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment({"BUSD_ADDRESS": server.address, "PYTHONUNBUFFERED": "1"}),
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.stdin, self.stdout, self.stderr = self.process.stdin, self.process.stdout, self.process.stderr

    def write(self, data: bytes) -> None:
        """Give it bytes now."""
        self.stdin.write(data)
        self.stdin.flush()

    def wait(self) -> int:
        """Its exit status."""
        return self.process.wait(PATIENCE_S)


def subscribers(busd: Busd) -> int:
    facts = json.loads(busd("info", "clients", "--json").stdout)
    return int(facts["subscriptions"])


def on_terminal(command: Sequence[str], env: dict[str, str], typed: bytes = b"") -> tuple[bytes, int]:
    """What a command shows on a terminal, and its exit status."""
    terminal, inside = pty.openpty()
    environ = environment({**env, "TERM": "xterm", "COLUMNS": "120"})
    child = subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside, env=environ)
    os.close(inside)
    shown = b""
    try:
        os.write(terminal, typed)
        while piece := os.read(terminal, 65_536):
            shown += piece
    except OSError:
        # Linux says EIO when the other side is closed.
        pass
    finally:
        os.close(terminal)
    return shown, child.wait(PATIENCE_S)
