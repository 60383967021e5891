"""A real server: a process of its own on free ports and a directory of its own.

Invariants:
1. It has a process group of its own, and nothing of the group outlives `close`.
2. What it wrote on stderr is kept, and a traceback there is a failure of whatever test ran it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.support.tools import LOOK_S, ROOT, environment

_READY = re.compile(r"busd \S+: ready, (.*)")
_TCP = re.compile(r"tcp ([0-9.]+):(\d+)")
# Recovery of a log of some hundred MB on a slow disk.
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0


class ServerFailed(AssertionError):
    """The server did not start, or did not stop, or crashed; the text holds its stderr."""


class ServerProcess:
    """`busd serve` on a free TCP port and a Unix socket.

    Args:
        base: a directory of the test's; the data goes to `base/data` and the socket to `base/s` (paths of sockets
            are short).
        options: more arguments of `busd serve`.
        env: more variables.
    """

    def __init__(self, base: Path, options: Sequence[str] = (), env: Mapping[str, str] | None = None) -> None:
        self.base = base
        self.data = base / "data"
        self.unix = base / "s"
        self.port = 0
        self._options = list(options)
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._log = base / "stderr"
        self._log_seen = 0

    def start(self) -> Self:
        """Start it and wait until it listens.

        Raises:
            ServerFailed: it ended, or is not ready in time.
        """
        self._log_seen = self._log.stat().st_size if self._log.exists() else 0
        # A file, not a pipe: nobody would read a pipe while a test waits for something else.
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(self._env),
                start_new_session=True, cwd=ROOT,
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while (ready := _READY.search(self.log_of_this_start())) is None:
            status = self._process.poll()
            if status is not None or time.monotonic() > deadline:
                self._end_group()
                told = f"ended with {status}" if status is not None else f"is not ready after {START_TIMEOUT_S} s"
                raise ServerFailed(f"the server {told}:\n{self.log()}")
            time.sleep(LOOK_S)
        if (tcp := _TCP.search(ready[1])) is not None:
            self.port = int(tcp[2])
        return self

    def command(self) -> list[str]:
        """The command line; the port once known is kept over restarts."""
        address = f"127.0.0.1:{self.port}"
        places = ["--tcp", address, "--unix", str(self.unix), "--data", str(self.data)]
        return [sys.executable, "-m", "busd", "serve", *places, *self._options]

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    def log(self) -> str:
        """All it wrote on stderr so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def log_of_this_start(self) -> str:
        """What it wrote since it was started last."""
        with open(self._log, "rb") as file:
            file.seek(self._log_seen)
            return file.read().decode("utf-8", "replace")

    def kill(self) -> None:
        """SIGKILL, as a crash would; the data stay for the next `start`."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; returns its exit status.

        Raises:
            ServerFailed: it does not.
        """
        assert self._process is not None
        self._process.send_signal(number)
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise ServerFailed(f"the server does not stop:\n{self.log()}") from None
        finally:
            self._end_group()

    def close(self) -> None:
        """End it, whatever it does.

        Raises:
            ServerFailed: it wrote a traceback.
        """
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                raise ServerFailed(f"the server does not stop:\n{self.log()}") from None
            finally:
                self._end_group()
        if "Traceback" in self.log():
            raise ServerFailed(f"the server wrote a traceback:\n{self.log()}")

    def connect(self, timeout_s: float = 20.0) -> socket.socket:
        """A TCP connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout_s)

    def has_room(self) -> bool:
        """Whether it takes one more connection; who is refused may be cut off before it has asked."""
        with contextlib.suppress(OSError):
            return self.ask(b"PING\n") == b"PONG\n"
        return False

    def ask(self, data: bytes, timeout_s: float = 20.0) -> bytes:
        """Send the bytes, half-close, return everything until the server closes."""
        with self.connect(timeout_s) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return read_all(connection)

    def _end_group(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None


def read_all(connection: socket.socket) -> bytes:
    """Everything until the peer closes."""
    pieces = []
    while piece := connection.recv(1 << 18):
        pieces.append(piece)
    return b"".join(pieces)


def read_lines(connection: socket.socket, count: int) -> list[bytes]:
    """So many lines without their LF; what comes behind them is left unread.

    Raises:
        EOFError: the peer closed before.
    """
    data = bytearray()
    left = count
    while left > 0:
        # Looked at before it is taken: reading byte by byte would be a call for each.
        ahead = connection.recv(1 << 18, socket.MSG_PEEK)
        if not ahead:
            raise EOFError(f"closed after {count - left} of {count} lines, behind {bytes(data[-80:])!r}")
        if ahead.count(b"\n") >= left:
            ahead = b"\n".join(ahead.split(b"\n", left)[:left]) + b"\n"
        data += connection.recv(len(ahead))
        left -= ahead.count(b"\n")
    lines = bytes(data).split(b"\n")
    # The last piece was cut behind its last line end.
    assert lines.pop() == b""
    return lines
