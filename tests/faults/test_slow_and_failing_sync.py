"""Faults 7 and 8: a server whose disk takes two seconds over a sync, or says that a sync failed.

In one process, so that the disk is in the test's hands; the sockets are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from busd.words.settings import settings_from
from busd.world.disk import DiskFailed, File
from busd.world.real_disk import RealDisk
from busd.world.server import Server

SLOW_S = 2.0
# Of the loop, while a disk is slow; other processes of the machine have their turns in it, too.
LATENCY_S = 0.05


class TroubledFile:
    """A file whose syncs are slow, or fail."""

    def __init__(self, file: File, disk: TroubledDisk) -> None:
        self._file = file
        self._disk = disk
        # What else is written (the reserve, meta) comes when it comes.
        self._ours = "/logs/" in file.path

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def append(self, data: Sequence[bytes]) -> None:
        """See File."""
        self._disk.appends += self._ours
        self._file.append(data)

    def sync(self) -> None:
        """See File."""
        disk = self._disk
        disk.syncs += self._ours
        disk.threads.add(threading.current_thread().name)
        time.sleep(disk.sync_s)
        if disk.fails:
            raise DiskFailed(f"{self._file.path}:0: fdatasync: Input/output error")
        self._file.sync()


class TroubledDisk(RealDisk):
    """Makes such files.  `sync_s`: how long a sync takes; `fails`: it fails."""

    def __init__(self) -> None:
        self.sync_s = 0.0
        self.fails = False
        self.syncs = 0
        self.appends = 0
        self.threads: set[str] = set()

    def create(self, path: str) -> File:
        """See Disk."""
        return TroubledFile(super().create(path), self)  # type: ignore[return-value]

    def open(self, path: str, writable: bool = False, patch: bool = False) -> File:
        """See Disk."""
        return TroubledFile(super().open(path, writable, patch), self)  # type: ignore[return-value]


class Peer:
    """A client on the same loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, line: str, answers: int = 1) -> list[bytes]:
        """Say something, and read so many lines."""
        self.writer.write(line.encode() + b"\n")
        return [(await self.reader.readline()).rstrip() for _ in range(answers)]


Connect = Callable[[], Awaitable[Peer]]


@asynccontextmanager
async def serving(disk: TroubledDisk, place: Path, sync: str = "always") -> AsyncIterator[Connect]:
    """A server on a free port: what is yielded makes connections to it."""
    data = {"tcp": "127.0.0.1:0", "data": str(place / "data"), "sync": sync, "main": {"groups": ["g"]}}
    server = Server(settings_from(data), disk)
    await server.start()
    peers: list[Peer] = []

    async def connect() -> Peer:
        host, port = server.tcp_address.rsplit(":", 1)
        peers.append(Peer(*await asyncio.open_connection(host, int(port))))
        return peers[-1]

    try:
        yield connect
    finally:
        disk.sync_s = 0.0
        for peer in peers:
            peer.writer.close()
            with contextlib.suppress(ConnectionError):
                await peer.writer.wait_closed()
        await server.stop()


class Pulse:
    """How late the loop's turns come."""

    def __init__(self) -> None:
        self.late_s: list[float] = []
        self._task = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            self.late_s.append(time.perf_counter() - began - 0.005)

    def stop(self) -> list[float]:
        """All of them, the largest last."""
        self._task.cancel()
        return sorted(self.late_s)


async def test_a_sync_that_takes_two_seconds(tmp_path: Path) -> None:
    """The loop does not notice, others are answered, and those who wait share the next sync."""
    disk = TroubledDisk()
    async with serving(disk, tmp_path) as connect:
        first, member, *publishers = [await connect() for _ in range(42)]
        assert await first.ask("PUB t old") == [b":1"]
        assert await member.ask("SUB > GROUP g WINDOW 9", 2) == [b"+OK next=1 epoch=1", b"MSG t 1 old"]
        disk.sync_s, before = SLOW_S, disk.syncs
        pulse = Pulse()
        slow = asyncio.create_task(first.ask("PUB t slow"))
        await asyncio.sleep(0.2)
        others = [asyncio.create_task(one.ask(f"PUB t {number}")) for number, one in enumerate(publishers)]
        await asyncio.sleep(0.2)
        assert not slow.done()
        reader = await connect()
        began = time.perf_counter()
        assert await reader.ask("PING") == [b"PONG"]
        assert await reader.ask("READ t", 2) == [b"MSG t 1 old", b"END end next=2"], "nothing unsynced is shown"
        assert time.perf_counter() - began < SLOW_S / 2
        assert await slow == [b":2"]
        answers = [await other for other in others]
        assert sorted(int(answer[1:]) for (answer,) in answers) == list(range(3, 43))
        late = pulse.stop()
        # One turn of a busy machine may be later: what waits for a disk would be late by two seconds.
        assert late[int(len(late) * 0.98)] < LATENCY_S
        assert late[-1] < SLOW_S / 4
        assert disk.syncs - before == 2, "forty publishers share one sync"
        assert threading.current_thread().name not in disk.threads
        disk.sync_s = 0.0


async def test_a_sync_that_fails_once(tmp_path: Path) -> None:
    """Everybody of that commit is told, nothing is synced or written there again, and a restart finds a prefix."""
    disk = TroubledDisk()
    async with serving(disk, tmp_path) as connect:
        peers = [await connect() for _ in range(5)]
        for number in range(1, 4):
            assert await peers[0].ask(f"PUB t {number}") == [b":%d" % number]
        disk.fails = True
        answers = await asyncio.gather(*(peer.ask("PUB t lost") for peer in peers))
        assert all(answer.startswith(b"-DISK") for (answer,) in answers), answers
        disk.fails = False
        synced, appended = disk.syncs, disk.appends
        for peer in peers:
            assert (await peer.ask("PUB t refused"))[0].startswith(b"-DISK")
        assert (disk.syncs, disk.appends) == (synced, appended), "the disk is not believed again"
        told = await peers[0].ask("READ t", 4)
        assert told[:3] == [b"MSG t 1 1", b"MSG t 2 2", b"MSG t 3 3"]
        assert told[3].startswith(b"END end")
        (count,) = await peers[0].ask("INFO server")
        found = [(await peers[0].reader.readline()) for _ in range(int(count[1:]))]
        assert any(line.startswith(b"health=disk") for line in found)
    async with serving(TroubledDisk(), tmp_path) as connect:
        peer = await connect()
        lines = await peer.ask("READ t", 4)
        assert lines[:3] == [b"MSG t 1 1", b"MSG t 2 2", b"MSG t 3 3"]
        assert lines[3].startswith(b"END end"), "what was answered with an error does not come back"
        assert (await peer.ask("PUB t again"))[0].startswith(b":")


async def test_a_sync_of_the_interval_that_fails(tmp_path: Path) -> None:
    """Nobody waits for it, so the health tells, and no further message is taken."""
    disk = TroubledDisk()
    async with serving(disk, tmp_path, "interval") as connect:
        peer = await connect()
        assert await peer.ask("PUB t shown") == [b":1"]
        disk.fails = True
        answer = b""
        for _ in range(300):
            await asyncio.sleep(0.02)
            (answer,) = await peer.ask("PUB t more")
            if answer.startswith(b"-DISK"):
                break
        assert answer.startswith(b"-DISK")
        synced = disk.syncs
        await asyncio.sleep(1.2)
        assert disk.syncs == synced
        assert (await peer.ask("READ t LIMIT 1", 2))[0] == b"MSG t 1 shown"
