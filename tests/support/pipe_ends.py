"""Both ends of a persistent pipe, over kills of the broker, and an eye on what the disk holds meanwhile."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from pathlib import Path

from tests.support.group_journal import token_of
from tests.support.server import ServerProcess

# Sent and not answered: a pipelined producer.
AHEAD = 256
# How often the disk is looked at.
LOOK_S = 0.002


def on_disk_bytes(directory: Path) -> int:
    """What `du` counts: blocks in use by the files below."""
    used = 0
    for path in directory.rglob("*"):
        # One that was removed since it was listed uses none.
        with contextlib.suppress(OSError):
            used += path.lstat().st_blocks * 512
    return used


class Gauge(threading.Thread):
    """The most that a directory ever used, as far as can be seen by looking all the time."""

    def __init__(self, directory: Path) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self.looks = 0
        self._directory = directory
        self._over = threading.Event()

    def run(self) -> None:
        """Look."""
        while not self._over.wait(LOOK_S):
            self.peak_bytes = max(self.peak_bytes, on_disk_bytes(self._directory))
            self.looks += 1

    def close(self) -> None:
        """Stop looking."""
        self._over.set()
        self.join()


class Producer(threading.Thread):
    """Numbered messages of one size, many at a time on their way, each with an id so that a second time is none."""

    def __init__(self, server: ServerProcess, topic: str, count: int, size: int) -> None:
        super().__init__(daemon=True)
        self.answered = 0
        self.problem = b""
        self._server, self._topic, self._count = server, topic.encode(), count
        self._rest = b"x" * (size - 11)
        self._answered_s = time.monotonic()

    @property
    def quiet_s(self) -> float:
        """Since when nothing was answered."""
        return time.monotonic() - self._answered_s

    def run(self) -> None:
        """All of them, over as many connections as it takes."""
        while self.answered < self._count and not self.problem:
            with contextlib.suppress(OSError), self._server.connect(120) as connection:
                self._pipeline(connection)
            time.sleep(0.05)

    def _pipeline(self, connection: socket.socket) -> None:
        answers = connection.makefile("rb")
        sent = self.answered
        while self.answered < self._count:
            if sent < self._count and sent - self.answered <= AHEAD // 2:
                end = min(self._count, self.answered + AHEAD)
                connection.sendall(b"".join(map(self._line, range(sent, end))))
                sent = end
            line = answers.readline()
            if not line.endswith(b"\n"):
                return
            if not line.startswith(b":"):
                self.problem = line
                return
            self.answered += 1
            self._answered_s = time.monotonic()

    def _line(self, number: int) -> bytes:
        return b"HPUB %b id=%d :%010d.%b\n" % (self._topic, number, number, self._rest)


class Consumer(threading.Thread):
    """Takes numbered messages off, `runs` at a time, with a pause behind each; keeps one back and never settles it.

    `told` were acknowledged; `done` are those of them for which that was answered, with how often.
    """

    def __init__(self, server: ServerProcess, command: str, count: int, keep: int, runs: int, pause_s: float) -> None:
        super().__init__(daemon=True)
        self.told: set[int] = set()
        self.done: Counter[int] = Counter()
        self.kept_tokens: list[bytes] = []
        self.problem = b""
        self.again = 0
        self._server, self._command, self._count = server, command.encode() + b"\n", count
        self._keep, self._runs, self._pause_s = keep, runs, pause_s

    def run(self) -> None:
        """Until all but the one are settled."""
        while len(self.told) < self._count - 1 and not self.problem:
            with contextlib.suppress(OSError), self._server.connect(120) as connection:
                connection.sendall(self._command)
                self._take(connection)
            time.sleep(0.05)

    def _take(self, connection: socket.socket) -> None:
        taken: list[tuple[int, bytes]] = []
        waiting: list[list[int]] = []
        for line in connection.makefile("rb"):
            words = line.split(b" ", 3)
            if not line.endswith(b"\n") or self.problem:
                return
            if words[0] == b"MSG":
                number = int(words[3][:10])
                self.again += token_of(words[2])[1] > 1
                if number == self._keep:
                    self.kept_tokens.append(words[2])
                else:
                    taken.append((number, words[2]))
            elif line.startswith(b":"):
                # Only what was answered is done.
                self.done.update(waiting.pop(0))
            elif not line.startswith(b"+OK next="):
                self.problem = line
            if len(taken) >= self._runs or (taken and len(self.told) + len(taken) >= self._count - 1):
                connection.sendall(b"ACK " + b" ".join(token for _, token in taken) + b"\n")
                waiting.append([number for number, _ in taken])
                self.told.update(waiting[-1])
                taken = []
                time.sleep(self._pause_s)
            if len(self.told) >= self._count - 1 and not waiting:
                return
