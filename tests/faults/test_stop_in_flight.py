"""A stop while the disk takes longer over a commit than peers are waited for: the log closes behind it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path

import pytest

from busd.words.settings import settings_from
from busd.world.disk import DiskFailed, File
from busd.world.real_disk import RealDisk
from busd.world.server import Server


class HeldFile:
    """A file whose syncs wait, and then may fail."""

    def __init__(self, file: File, disk: HoldingDisk) -> None:
        self._file = file
        self._disk = disk

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def sync(self) -> None:
        """See File."""
        if "/logs/" in self._file.path and not self._disk.gate.is_set():
            self._disk.held.set()
            self._disk.gate.wait(30)
            if self._disk.fails:
                raise DiskFailed(f"{self._file.path}:0: fdatasync: Input/output error")
        self._file.sync()


class HoldingDisk(RealDisk):
    """`gate`: open, unless a test holds what is synced; `held`: it does; `fails`: what was held fails."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.held = threading.Event()
        self.fails = False

    def create(self, path: str) -> File:
        """See Disk."""
        return HeldFile(super().create(path), self)  # type: ignore[return-value]

    def open(self, path: str, writable: bool = False, patch: bool = False) -> File:
        """See Disk."""
        return HeldFile(super().open(path, writable, patch), self)  # type: ignore[return-value]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_commit_in_flight_is_decided_before_the_log_closes(fails: bool, tmp_path: Path) -> None:
    disk = HoldingDisk()
    settings = settings_from({"tcp": "127.0.0.1:0", "data": str(tmp_path / "data"), "stop": "2s"})
    server = Server(settings, disk)
    await server.start()
    host, port = server.tcp_address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"PUB t 1\n")
    assert await reader.readline() == b":1\n"
    disk.gate.clear()
    disk.fails = fails
    writer.write(b"PUB t 2\n")
    assert await asyncio.to_thread(disk.held.wait, 10)
    writer.write(b"PUB t 3\n")
    loop = asyncio.get_running_loop()
    close_files, close = server._close_files, server._log.close
    idle: list[bool] = []

    async def closing_files(loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(0.1, disk.gate.set)
        await close_files(loop)

    def closing() -> None:
        idle.append(server._log.idle)
        close()

    server._close_files = closing_files  # type: ignore[method-assign]
    server._log.close = closing  # type: ignore[method-assign]
    began_s = loop.time()
    with contextlib.closing(writer):
        assert await server.stop()
    assert loop.time() - began_s >= 1, "the commit was still under way when peers were waited for no longer"
    assert idle == [True]
    clean = b"clean yes" if not fails else b"clean no"
    assert clean in (tmp_path / "data" / "meta").read_bytes()
