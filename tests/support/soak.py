"""A broker under more than its readers can take, watched from outside; and a picture of it.

Three topics of one cap: `jobs.*` in a store that blocks and then refuses (64 MB for it and the rest together), read by
a group at half the pace; `live.*` with a reader that is too slow and drops; and `log.*` whose oldest files go.
The server has a limit on its address space: beyond it, it would die.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.proc import descriptors, resident_bytes
from tests.support.server import ServerProcess, read_lines

_CAP = """
[main]
max_bytes = "16M"
[[store]]
name = "jobs"
match = "jobs.>"
max_bytes = "32M"
retain = "acked"
full = "block"
full_wait = "300ms"
[limits]
total_bytes = "64M"
"""
# Address space, not memory: threads and libraries take some hundred MB of it that are never touched.
_ADDRESS_SPACE_KIB = 1_200_000
_PAYLOAD = b"x" * 4000
_BATCH = 100


@dataclass(slots=True)
class Sample:
    """One look at the server."""

    at_s: float
    resident_bytes: int
    descriptors: int
    log_bytes: int
    kept: int
    refused: int
    delivered: int
    gaps: int


class Limited(ServerProcess):
    """A server with a limit on its memory."""

    def command(self) -> list[str]:
        """See ServerProcess."""
        return ["sh", "-c", f'ulimit -v {_ADDRESS_SPACE_KIB}; exec "$@"', "sh", *super().command()]


class _Lines:
    """Lines of a connection, in portions; what has come of the next one is kept while there is none."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""

    def take(self, count: int) -> list[bytes]:
        """So many lines, or none when they are not there within a second."""
        until_s = time.monotonic() + 1
        while self._rest.count(b"\n") < count:
            left_s = max(0.0, until_s - time.monotonic())
            if not select.select([self._connection], [], [], left_s)[0]:
                return []
            # Little at a time: who reads all that is there is not slow.
            piece = self._connection.recv(16 << 10)
            assert piece, "the server closed"
            self._rest += piece
        *lines, self._rest = self._rest.split(b"\n", count)
        return lines


@dataclass(slots=True)
class Soak:
    """See the module."""

    base: Path
    seconds: float
    samples: list[Sample] = field(default_factory=list)
    kept: int = 0
    refused: int = 0
    gaps: int = 0
    group_missing: int = 0
    slow_missing: int = 0
    exit_status: int = -1
    told: str = ""
    _over: threading.Event = field(default_factory=threading.Event)
    _answers: dict[str, list[int]] = field(default_factory=dict)
    _worked: int = 0
    _live: int = 0

    def run(self) -> None:
        """All of it; raises what went wrong in a thread."""
        (self.base / "busd.toml").write_text(_CAP)
        options = ["--config", str(self.base / "busd.toml"), "--sync", "interval"]
        with contextlib.closing(Limited(self.base, options)) as server:
            server.start()
            self._load(server)
            self._account(server)
            self.exit_status = server.stop()
            self.told = server.log()

    def published(self, topic: str) -> int:
        """How many messages of a topic were kept."""
        return sum(self._answers[topic])

    def _load(self, server: ServerProcess) -> None:
        """The publishers and readers, for as long as it is to last."""
        failures: list[BaseException] = []

        def guarded(work: object, *arguments: object) -> threading.Thread:
            def call() -> None:
                try:
                    assert callable(work)
                    work(*arguments)
                except BaseException as error:
                    failures.append(error)

            thread = threading.Thread(target=call, daemon=True)
            thread.start()
            return thread

        readers = [guarded(self._work, server), guarded(self._follow, server)]
        publishers = [guarded(self._publish, server, name) for name in ("jobs.a", "live.a", "log.a")]
        try:
            self._watch(server, failures)
        finally:
            self._over.set()
            for thread in (*publishers, *readers):
                thread.join(60)
        assert not failures, failures

    def _publish(self, server: ServerProcess, topic: str) -> None:
        """A batch in a tenth of a second, where it is let: twice what is read."""
        kept, refused = self._answers.setdefault(topic, []), 0
        lines = b"".join(b"PUB %b %b\n" % (topic.encode(), _PAYLOAD) for _ in range(_BATCH))
        with server.connect(60) as connection:
            while not self._over.is_set():
                began = time.monotonic()
                connection.sendall(lines)
                answers = read_lines(connection, _BATCH)
                good = [int(answer[1:]) for answer in answers if answer.startswith(b":")]
                bad = [answer for answer in answers if not answer.startswith((b":", b"-FULL"))]
                assert not bad, bad[:3]
                kept.append(len(good))
                refused += _BATCH - len(good)
                if topic == "jobs.a":
                    self.refused = refused
                self.kept += len(good)
                time.sleep(max(0.0, 0.1 - (time.monotonic() - began)))

    def _work(self, server: ServerProcess) -> None:
        """A member of a group that acknowledges half of what comes in."""
        with server.connect(60) as connection:
            connection.sendall(b"SUB jobs.> GROUP g WINDOW 50\n")
            read_lines(connection, 1)
            last_acked, lines = 0, _Lines(connection)
            while not self._over.is_set():
                if not (events := lines.take(50)):
                    continue
                offsets = [event.split(b" ", 3)[2] for event in events if event.startswith(b"MSG")]
                assert len(offsets) == 50
                assert all(b"." not in offset for offset in offsets), "given out twice"
                assert int(offsets[0]) > last_acked
                last_acked = int(offsets[-1])
                connection.sendall(b"QUIET\nACK ..%b\n" % offsets[-1])
                self._worked += 50
                time.sleep(0.1)

    def _follow(self, server: ServerProcess) -> None:
        """A live reader that takes half of what comes in and is told what it misses."""
        expected = 0
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
            connection.connect(("127.0.0.1", server.port))
            connection.settimeout(60)
            connection.sendall(b"SUB live.> SLOW drop\n")
            read_lines(connection, 1)
            lines = _Lines(connection)
            while not self._over.is_set():
                for event in lines.take(50):
                    words = event.split(b" ")
                    if words[0] == b"GAP":
                        self.gaps += 1
                        assert words[5] == b"slow"
                        self._live += int(words[4])
                        expected = int(words[3])
                    else:
                        offset = int(words[2])
                        self.slow_missing += offset <= expected
                        expected = offset
                        self._live += 1
                time.sleep(0.1)

    def _watch(self, server: ServerProcess, failures: list[BaseException]) -> None:
        began = time.monotonic()
        pause_s = min(5.0, max(0.5, self.seconds / 300))
        while (at_s := time.monotonic() - began) < self.seconds and not failures:
            facts = dict(line.split("=", 1) for line in server.ask(b"INFO\n").decode().splitlines()[1:] if "=" in line)
            files = (self.base / "data").rglob("*.log")
            sizes = [path.stat().st_blocks * 512 for path in files if path.exists()]
            sample = Sample(
                at_s, resident_bytes(server.pid), descriptors(server.pid), sum(sizes), self.kept, self.refused,
                int(facts["delivered"]), int(facts["gaps"]),
            )  # fmt: skip
            self.samples.append(sample)
            time.sleep(pause_s)

    def _account(self, server: ServerProcess) -> None:
        """Of what was answered for the group: so much was worked on; the rest must be there still."""
        published = self.published("jobs.a")
        rows = server.ask(b"GROUPS g\n").decode()
        lag = re.search(r" lag=(\d+) ", rows)
        assert lag is not None, rows
        self.group_missing = published - self._worked - int(lag[1])


def drawn(soak: Soak) -> str:
    """The samples as an SVG: memory, log, and what became of the messages."""
    panels = (
        ("resident memory, MiB", [one.resident_bytes / (1 << 20) for one in soak.samples]),
        ("log on disk, MiB (cap 64)", [one.log_bytes / (1 << 20) for one in soak.samples]),
        ("messages kept", [float(one.kept) for one in soak.samples]),
        ("messages refused", [float(one.refused) for one in soak.samples]),
        ("gaps told to the slow reader", [float(one.gaps) for one in soak.samples]),
    )
    width, height, left = 760, 110, 70
    end_s = soak.samples[-1].at_s or 1.0
    parts = []
    for number, (title, values) in enumerate(panels):
        top = 40 + number * (height + 40)
        highest = max(*values, 1.0)
        points = " ".join(
            f"{left + one.at_s / end_s * width:.1f},{top + height - value / highest * height:.1f}"
            for one, value in zip(soak.samples, values, strict=True)
        )
        parts.append(
            f'<text x="{left}" y="{top - 8}">{title}</text>'
            f'<text x="{left - 8}" y="{top + 10}" text-anchor="end">{highest:,.0f}</text>'
            f'<text x="{left - 8}" y="{top + height}" text-anchor="end">0</text>'
            f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#bbb"/>'
            f'<polyline points="{points}" fill="none" stroke="#06c" stroke-width="1.5"/>'
        )
    whole = 40 + len(panels) * (height + 40) + 10
    ends = f'<text x="{left + width}" y="{whole - 8}" text-anchor="end">{end_s / 60:.0f} minutes</text>'
    style = 'font-family="sans-serif" font-size="12" fill="#333"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 20} {whole}" {style}>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}{ends}</svg>\n'
    )
