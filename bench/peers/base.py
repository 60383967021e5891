"""A server under the load: its process, its directory, and what every kind of server must be able to say.

Invariants:
1. It runs in a session of its own, and nothing of it outlives `close`.
2. What it prints is kept, and shown when it does not start; a traceback there spoils the run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from bench import machine
from bench.load import BLOCK, Sink
from bench.machine import Cores
from bench.plan import System, WrongAnswer

START_S = 60.0
STOP_S = 60.0
LOOK_S = 0.002
CONNECT_S = 60.0


class Peer(ABC):
    """One server.

    Args:
        base: its data and what it prints go there.
        cores: where it may run.
        policy: `interval` (synced within a second), `always` (before the answer), or `none` for what keeps nothing.
        settings: more of its own options.
    """

    system: ClassVar[System]

    def __init__(self, base: Path, cores: Cores, policy: str, settings: Sequence[str] = ()) -> None:
        self.base, self.cores, self.policy, self.settings = base, cores, policy, list(settings)
        self.port = _free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._printed = base / f"{self.system}.log"

    # What a kind of server is

    @abstractmethod
    def command(self) -> list[str]:
        """The command line."""

    @abstractmethod
    def ready(self, sock: socket.socket) -> bool:
        """It answers on this new connection."""

    @abstractmethod
    def check_policy(self) -> None:
        """Ask it what it promises.  Raises WrongAnswer when that is not `policy`."""

    @abstractmethod
    def prepare(self, topics: Sequence[bytes]) -> None:
        """Make what publishing to these topics needs, if anything."""

    @abstractmethod
    def publisher(self) -> socket.socket:
        """A connection that publishes, all greetings done."""

    @abstractmethod
    def publish(self, topic: bytes, payload: bytes) -> bytes:
        """The request that publishes one message and is answered when it is kept."""

    @abstractmethod
    def answers(self, count: int, alone: bool = True) -> Sink:
        """For the answers to so many of them; `alone`: nobody else publishes, so that they may be known exactly."""

    @abstractmethod
    def kept(self, topics: Sequence[bytes]) -> int:
        """How many messages of these topics the server says it has."""

    @abstractmethod
    def tail(self, topic: bytes, count: int, number: int) -> bytes:
        """The last `number` of the `count` messages of this topic, each payload somewhere in what is given."""

    # What all have

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            RuntimeError: it does not.
        """
        self.base.mkdir(parents=True, exist_ok=True)
        with open(self._printed, "ab") as printed, self.cores.starting_server():
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=printed, stderr=printed,
                start_new_session=True, env=self.environment(),
            )  # fmt: skip
        deadline = time.monotonic() + START_S
        while not self._answers():
            status = self.process.poll()
            if status is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"{self.system} does not start ({status}):\n{self._printed.read_text()[-2000:]}")
            time.sleep(LOOK_S)

    def environment(self) -> dict[str, str]:
        """Of the process."""
        return {name: value for name, value in os.environ.items() if not name.startswith("BUSD_")}

    def connect(self, window_bytes: int = 0) -> socket.socket:
        """A new connection, which is closed by a reset: thousands of them would wait a minute each otherwise.

        Args:
            window_bytes: how much the kernel may hold for us; 0: as much as it likes.
        """
        sock = socket.socket()
        sock.settimeout(CONNECT_S)
        if window_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window_bytes)
        try:
            sock.connect(("127.0.0.1", self.port))
        except OSError:
            sock.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return sock

    def blocks(self, topics: Sequence[bytes], payloads: Sequence[bytes], per_block: int = BLOCK) -> list[bytes]:
        """Requests for all payloads, so many in a block; the topic of each, or one for all."""
        one = topics[0] if len(topics) == 1 else None
        made = (
            [self.publish(one, payload) for payload in payloads]
            if one is not None
            else [self.publish(topic, payload) for topic, payload in zip(topics, payloads, strict=True)]
        )
        return [b"".join(made[at : at + per_block]) for at in range(0, len(made), per_block)]

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self.process is not None
        return self.process.pid

    def cpu_ns(self) -> int:
        """CPU time so far."""
        return machine.cpu_ns(self.pid)

    def peak_mb(self) -> float:
        """Highest resident memory so far."""
        return machine.memory_mb(self.pid, "VmHWM")

    def resident_mb(self) -> float:
        """Resident memory now."""
        return machine.memory_mb(self.pid, "VmRSS")

    def stop(self) -> None:
        """Ask it to end, and wait."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(STOP_S)

    def kill(self) -> None:
        """As a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it, whatever it does.

        Raises:
            WrongAnswer: it printed a traceback.
        """
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
        if self._printed.exists() and "Traceback" in (printed := self._printed.read_text(errors="replace")):
            raise WrongAnswer(f"{self.system} printed a traceback:\n{printed[-4000:]}")

    def _answers(self) -> bool:
        try:
            with self.connect() as sock:
                return self.ready(sock)
        except (ConnectionError, WrongAnswer):
            return False


def resp(*words: bytes | str | int) -> bytes:
    """A command as RESP, for Redis and for busd."""
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])
