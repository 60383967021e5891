"""The promises about readers, on a real server: one sequence for all, losses counted, nobody slowed by a neighbour."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from statistics import quantiles

import pytest

from tests.support.proc import resident_bytes
from tests.support.server import ServerProcess, read_lines

BLOCK = 500
Connect = Callable[[], socket.socket]


@pytest.fixture
def connect(server: ServerProcess) -> Iterator[Connect]:
    """Connections to the server that are closed behind the test."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(server.connect(timeout_s=60))


def publish(connection: socket.socket, topic: str, first: int, count: int, size: int = 100) -> None:
    """Numbered messages in one go; waits for all answers."""
    lines = (f"PUB {topic} {number:09d}{'x' * (size - 9)}\n" for number in range(first, first + count))
    connection.sendall("".join(lines).encode())
    answers = read_lines(connection, count)
    assert all(answer.startswith(b":") for answer in answers), answers[:3]


class Follower(threading.Thread):
    """A subscriber that keeps what it is sent, until a message that says `end`; parsed only afterwards, in C."""

    def __init__(self, server: ServerProcess, command: str) -> None:
        super().__init__(daemon=True)
        self._connection = server.connect(timeout_s=60)
        self._connection.sendall(command.encode() + b"\n")
        self._data = bytearray()

    def run(self) -> None:
        """Read."""
        with self._connection:
            while not self._data.endswith(b" end\n"):
                data = self._connection.recv(1 << 20)
                assert data, "closed before the end"
                self._data += data

    @property
    def offsets(self) -> list[int]:
        """Offsets of its messages, in the order received."""
        return [int(offset) for offset in re.findall(rb"^MSG \S+ (\d+) ", self._data, re.MULTILINE)]

    @property
    def others(self) -> list[bytes]:
        """Lines that are no messages, but for the answer to SUB."""
        return re.findall(rb"^(?!MSG|\+OK).+$", self._data, re.MULTILINE)


def test_live_and_late_readers_see_one_sequence(server: ServerProcess, connect: Connect) -> None:
    live = [Follower(server, "SUB s.>") for _ in range(2)]
    for follower in live:
        follower.start()
    connection = connect()
    publish(connection, "s.a", 0, 20_000)
    late = Follower(server, "SUB s.> FROM first")
    late.start()
    for number in range(40):
        publish(connection, "s.b", number * BLOCK, BLOCK)
    connection.sendall(b"PUB s.a end\n")
    last = int(read_lines(connection, 1)[0][1:])
    for follower in (*live, late):
        follower.join(30)
        assert follower.others == []
        assert follower.offsets == list(range(1, last + 1))


def test_a_stopped_reader_among_fifty(server: ServerProcess, connect: Connect) -> None:
    followers = [Follower(server, "SUB t") for _ in range(49)]
    for follower in followers:
        follower.start()
    stopped = connect()
    stopped.sendall(b"SUB t SLOW drop\n")
    connection = connect()
    publish(connection, "t", 0, BLOCK)
    before = resident_bytes(server.pid)
    total = BLOCK
    for number in range(100):
        publish(connection, "t", number * BLOCK, BLOCK)
        total += BLOCK
    connection.sendall(b"PUB t end\n")
    read_lines(connection, 1)
    for follower in followers:
        follower.join(30)
        assert follower.others == []
        assert follower.offsets == list(range(1, total + 2))
    # Its outbox of 1 MiB, and what the allocator keeps; 5 MB went past it.
    assert resident_bytes(server.pid) - before < 4 << 20
    _reads_exact_gaps(stopped, total + 1)


def _reads_exact_gaps(stopped: socket.socket, last: int) -> None:
    """Everything is either delivered or counted, in order, without overlap; what comes after waking arrives."""
    expected, gaps = 1, 0
    with stopped.makefile("rb") as lines:
        assert next(lines).startswith(b"+OK")
        while expected <= last:
            words = next(lines).split(b" ")
            if words[0] == b"MSG":
                assert int(words[2]) == expected
                expected += 1
                continue
            kind, pattern, first, end, count, reason = words
            assert (kind, pattern, reason) == (b"GAP", b"t", b"slow\n")
            assert int(first) == expected
            assert int(count) == int(end) - int(first) + 1
            expected = int(end) + 1
            gaps += 1
    assert gaps > 0


def test_a_publish_beside_a_replay_is_answered_soon(server: ServerProcess, connect: Connect) -> None:
    connection = connect()
    for number in range(60):
        publish(connection, "big", number * 2000, 2000, size=1000)
    replay = connect()
    replay.sendall(b"SUB big FROM first UNTIL end FORMAT raw\n")
    received = 0

    def take() -> None:
        nonlocal received
        while data := replay.recv(1 << 20):
            received += len(data)

    reader = threading.Thread(target=take, daemon=True)
    reader.start()
    waits_s = []
    while reader.is_alive():
        began = time.perf_counter()
        connection.sendall(b"PUB beside x\n")
        read_lines(connection, 1)
        waits_s.append(time.perf_counter() - began)
        time.sleep(0.002)
    assert received == 60 * 2000 * 1001
    assert len(waits_s) > 10
    # Milliseconds on a quiet machine; a shared one under test is given room, seconds would be the fault.
    assert quantiles(waits_s, n=10)[-1] < 0.1
