"""A stop under load: what was answered is kept, what was kept is answered, readers are told, and all in time.

Servers are stopped at random moments; BUSD_STOP_ROUNDS says how often (3).
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.machine import forget_pages
from tests.conftest import MakeServer
from tests.support.server import ServerProcess, read_all, read_lines
from tests.support.tools import until

ROUNDS = int(os.environ.get("BUSD_STOP_ROUNDS", "3"))
PIPELINE = 2000


class Publisher(threading.Thread):
    """Publishes in a deep pipeline until the connection ends, and keeps every answer."""

    def __init__(self, server: ServerProcess, name: str) -> None:
        super().__init__(daemon=True)
        self.topic = name
        self.answers = b""
        self._connection = server.connect()

    def run(self) -> None:
        """Write from another thread: the answers have to be taken all the while."""
        writer = threading.Thread(target=self._write, daemon=True)
        writer.start()
        with self._connection:
            # What the kernel has still is read before a reset is told.
            with contextlib.suppress(OSError):
                while data := self._connection.recv(1 << 16):
                    self.answers += data
            writer.join(5)

    def _write(self) -> None:
        number = 0
        try:
            while True:
                lines = (f"PUB {self.topic} {one}\n" for one in range(number, number + PIPELINE))
                self._connection.sendall("".join(lines).encode())
                number += PIPELINE
        except OSError:
            return

    @property
    def acknowledged(self) -> list[int]:
        """The offsets it was told."""
        return [int(line[1:]) for line in self.answers.split(b"\n") if line.startswith(b":")]


class Reader(threading.Thread):
    """Reads until the connection ends."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(daemon=True)
        self.data = bytearray()
        self._connection = connection

    def run(self) -> None:
        """Read."""
        with self._connection, contextlib.suppress(OSError):
            while piece := self._connection.recv(1 << 18):
                self.data += piece


def kept(server: ServerProcess) -> dict[str, list[tuple[int, int]]]:
    """What a later start has: by topic, offset and number of each message, in order."""
    found: dict[str, list[tuple[int, int]]] = {}
    for line in server.ask(b"READ >\n").split(b"\n"):
        if line.startswith(b"MSG "):
            _, topic, offset, number = line.split(b" ")
            found.setdefault(topic.decode(), []).append((int(offset), int(number)))
    return found


@pytest.mark.parametrize("sync", ["always", "interval", "never"])
def test_under_load_no_answer_and_no_message_is_lost(make_server: MakeServer, sync: str) -> None:
    server = make_server("--sync", sync)
    for turn in range(ROUNDS):
        publishers = [Publisher(server, f"t{turn}.{number}") for number in range(4)]
        reader = server.connect()
        reader.sendall(f"SUB t{turn}.> SLOW spill\n".encode())
        read_lines(reader, 1)
        for one in publishers:
            one.start()
        follower = Reader(reader)
        follower.start()
        time.sleep(random.uniform(0.05, 0.4))
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10
        for one in publishers:
            one.join(10)
        follower.join(10)
        server.start()
        there = kept(server)
        for one in publishers:
            offsets = [offset for offset, _ in there.get(one.topic, [])]
            assert one.acknowledged == offsets, f"{one.topic}: answered and kept differ"
            assert [number for _, number in there.get(one.topic, [])] == list(range(len(offsets)))
        assert re.fullmatch(rb"END closed next=\d+", follower.data.splitlines()[-1]), follower.data[-200:]


def test_answers_that_are_still_on_their_way_are_not_thrown_away(make_server: MakeServer) -> None:
    """A close over bytes that nobody read is a reset, and that takes what the peer's kernel has no room for yet."""
    server = make_server()
    with socket.socket() as publisher:
        publisher.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        publisher.connect(("127.0.0.1", server.port))
        publisher.settimeout(1)
        with pytest.raises(TimeoutError):
            # Until neither side takes any more: there are answers in the server's kernel, and commands behind them.
            publisher.sendall(b"PUB t x\n" * 2_000_000)
        publisher.settimeout(10)
        answers = b""
        with ThreadPoolExecutor(1) as pool:
            stopped = pool.submit(server.stop)
            time.sleep(1)
            try:
                while data := publisher.recv(1 << 16):
                    answers += data
            except ConnectionResetError:
                pass
            assert stopped.result() == 0
    server.start()
    found = len(server.ask(b"READ t\n").splitlines()) - 1
    assert answers.count(b":") == found > 10_000


def test_a_command_that_comes_late_is_told(make_server: MakeServer) -> None:
    server = make_server()
    with server.connect() as one, server.connect() as slow:
        # A reader that takes nothing keeps the server from being over at once.
        slow.sendall(b"SUB t FROM first SLOW spill\n")
        read_lines(slow, 1)
        one.sendall(b"PUB t x\n" * 2000)
        read_lines(one, 2000)
        assert server.stop() == 0
        assert read_all(one) == b""
        told = read_all(slow).splitlines()
        assert told[-1] == b"END closed next=2001"


def test_a_member_is_told_and_its_messages_come_again(make_server: MakeServer) -> None:
    server = make_server()
    with server.connect() as worker:
        worker.sendall(b"PUB job a\nPUB job b\nSUB job GROUP g\n")
        assert read_lines(worker, 4)[-1] == b"MSG job 1 a"
        assert server.stop() == 0
        assert read_all(worker).startswith(b"END closed")
    server.start()
    with server.connect() as worker:
        worker.sendall(b"SUB job GROUP g\n")
        assert read_lines(worker, 2)[1] == b"MSG job 1.2 a"


@contextmanager
def deaf(server: ServerProcess) -> Iterator[socket.socket]:
    """A peer that asks for more than fits anywhere, and takes nothing of it."""
    with server.connect() as writer:
        writer.sendall(b"".join(b"PUB big %b\n" % (b"x" * 1000) for _ in range(20_000)))
        read_lines(writer, 20_000)
    with server.connect() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.sendall(b"READ big\n")
        time.sleep(0.5)
        yield one


def test_a_peer_that_takes_nothing_is_waited_for_half_of_the_time(make_server: MakeServer, short_dir: Path) -> None:
    server = make_server(env={"BUSD_STOP": "3s"})
    with deaf(server):
        began = time.monotonic()
        assert server.stop() == 0
        assert 1 < time.monotonic() - began < 3.5
    assert server.start()
    assert "recovered" not in server.log_of_this_start()


def test_who_waits_for_the_disk_is_told_and_reads_that_nobody_needs_leave_no_fault(make_server: MakeServer) -> None:
    server = make_server()
    with server.connect() as writer:
        writer.sendall(b"".join(b"PUB big %04d%b\n" % (number, b"x" * 10_000) for number in range(1000)))
        read_lines(writer, 1000)
    assert server.stop() == 0
    forget_pages(server.data)
    server.start()
    connections = [server.connect() for _ in range(60)]
    for number, connection in enumerate(connections):
        # Each at another place: more reads than there are threads.
        connection.sendall(b"SUB big FROM %d SLOW spill\n" % (1 + 10 * number))
    followers = list(map(Reader, connections))
    for one in followers:
        one.start()
    until(lambda: any(one.data for one in followers), "one was heard")
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 10
    log = server.log_of_this_start()
    assert "fault" not in log
    assert "Traceback" not in log
    for number, one in enumerate(followers):
        one.join(10)
        opened, *told = one.data.splitlines()
        if not told:
            assert opened.startswith(b"-STOPPING ")
            continue
        offsets = [int(message.split(b" ", 3)[2]) for message in told[:-1]]
        assert offsets == list(range(1 + 10 * number, 1 + 10 * number + len(offsets)))
        assert told[-1] == b"END closed next=%d" % (1 + 10 * number + len(offsets))


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(make_server: MakeServer, second: signal.Signals) -> None:
    server = make_server(env={"BUSD_STOP": "60s"})
    with deaf(server):
        os.kill(server.pid, signal.SIGTERM)
        until(lambda: "stopping" in server.log(), "it heard the first")
        began = time.monotonic()
        assert server.stop(second) == -second
        assert time.monotonic() - began < 2
    server.start()
    assert server.ask(b"INFO log\n").split(b"messages=")[1].startswith(b"20000\n")


def test_hanging_up_ends_no_server_that_has_nothing_to_read_again(make_server: MakeServer) -> None:
    server = make_server(env={"WATCHDOG_USEC": "soon"})
    os.kill(server.pid, signal.SIGHUP)
    until(lambda: "nothing to read again" in server.log(), "it heard")
    assert server.ask(b"PING\n") == b"PONG\n"
    assert server.stop() == 0


def test_no_new_connection_is_taken(make_server: MakeServer) -> None:
    server = make_server(env={"BUSD_STOP": "60s"})
    with deaf(server):
        os.kill(server.pid, signal.SIGTERM)
        until(lambda: "stopping" in server.log(), "it heard")
        until(lambda: not server.unix.exists(), "the name of the socket is gone")
        with pytest.raises(ConnectionRefusedError):
            server.connect()
        server.stop()


def test_systemd_is_told(make_server: MakeServer, short_dir: Path) -> None:
    path = short_dir / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(20)
        server = make_server(env={"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "300000"})
        assert manager.recv(4096).startswith(b"READY=1\nSTATUS=busd ")
        assert manager.recv(4096) == b"WATCHDOG=1"
        assert manager.recv(4096) == b"WATCHDOG=1"
        assert server.stop() == 0
        manager.settimeout(1)
        heard: list[bytes] = []
        while not heard or not heard[-1].startswith(b"STOPPING=1"):
            heard.append(manager.recv(4096))
        assert set(heard[:-1]) <= {b"WATCHDOG=1"}
