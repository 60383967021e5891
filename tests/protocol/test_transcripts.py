"""Every transcript of protocol.md: with the broker in memory, and by TCP, Unix socket and TLS on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import uvloop

from busd.words.settings import Settings
from busd.world.real_disk import RealDisk
from busd.world.server import Server
from tests.support.certificates import certificates
from tests.support.memory_server import MemoryConnection, MemoryServer
from tests.support.transcript import Mismatch, Runner, Transcript, of_protocol, transcripts

TRANSCRIPTS = {one.name: one for one in of_protocol()}
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}
# What an answer over a socket may take on a busy machine; waited for in full only when none comes, which is a failure.
ANSWER_TIMEOUT_S = 10.0
# Longer than any WITHIN of the document.
ADVANCE_NS = 1_000_000_000


class MemoryDriver:
    """Connections to a broker in memory; when nothing came, time passes once."""

    def __init__(self, users: str = "") -> None:
        self.server = MemoryServer(users=users)
        self._connections: dict[int, MemoryConnection] = {}

    def _connection(self, number: int) -> MemoryConnection:
        if number not in self._connections:
            self._connections[number] = self.server.connect()
        return self._connections[number]

    async def send(self, connection: int, data: bytes) -> None:
        """See Driver."""
        self._connection(connection).send(data)

    async def half_close(self, connection: int) -> None:
        """See Driver."""
        self._connection(connection).end_of_input()

    async def receive(self, connection: int) -> bytes | None:
        """See Driver."""
        peer = self._connection(connection)
        data = peer.received()
        if not data and not peer.closed:
            self.server.advance(ADVANCE_NS)
            data = peer.received()
        return data or (None if peer.closed else b"")


class SocketDriver:
    """Connections over real sockets, made by `dial`."""

    def __init__(self, dial: Callable[[], Any]) -> None:
        self._dial = dial
        self._connections: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def _connection(self, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if number not in self._connections:
            self._connections[number] = await self._dial()
        return self._connections[number]

    async def send(self, connection: int, data: bytes) -> None:
        """See Driver."""
        _, writer = await self._connection(connection)
        writer.write(data)
        await writer.drain()

    async def half_close(self, connection: int) -> None:
        """See Driver."""
        _, writer = await self._connection(connection)
        writer.write_eof()

    async def receive(self, connection: int) -> bytes | None:
        """See Driver."""
        reader, _ = await self._connection(connection)
        try:
            return await asyncio.wait_for(reader.read(1 << 16), ANSWER_TIMEOUT_S) or None
        except TimeoutError:
            return b""

    async def close(self) -> None:
        """Close all."""
        for _, writer in self._connections.values():
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def served(base: Path, transport: str, users: str = "") -> AsyncIterator[SocketDriver]:
    """A server in this loop, and a driver for it."""
    path = str(base / "s")
    tcp = "127.0.0.1:0" if transport == "tcp" else ""
    unix = path if transport == "unix" else ""
    known = base / "users.toml" if users else None
    if known is not None:
        known.touch(0o600)
        known.write_text(users)
    files = certificates(base / "tls")
    settings = files.settings(base, users=str(known or "")) if transport == "tls" else Settings()
    settings = replace(settings, data=str(base / "data"), tcp=tcp, unix=unix, sync="never", users=str(known or ""))
    server = Server(settings, RealDisk())
    await server.start()
    port = int((server.tls_address or server.tcp_address or ":0").rpartition(":")[2])
    trusting = files.trusting() if transport == "tls" else None

    def dial() -> Any:
        return asyncio.open_unix_connection(path) if unix else asyncio.open_connection("127.0.0.1", port, ssl=trusting)

    driver = SocketDriver(dial)
    try:
        yield driver
    finally:
        await driver.close()
        await server.stop()


@pytest.mark.parametrize("name", TRANSCRIPTS)
async def test_in_memory(name: str) -> None:
    await Runner(MemoryDriver(TRANSCRIPTS[name].users), TRANSCRIPTS[name]).run()


# TLS has no half-close (protocol.md, Users).
WHOLE = [name for name, one in TRANSCRIPTS.items() if all(step.action != "half-close" for step in one.steps)]
PLACES = [*product(("tcp", "unix"), TRANSCRIPTS), *product(("tls",), WHOLE)]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("transport", "name"), PLACES)
def test_over_a_socket(name: str, transport: str, loop: str, short_dir: Path) -> None:
    problems: list[dict[str, Any]] = []

    async def speak() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async with asyncio.timeout(30), served(short_dir, transport, TRANSCRIPTS[name].users) as driver:
            await Runner(driver, TRANSCRIPTS[name]).run()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(speak())
    assert not problems


def one(text: str) -> Transcript:
    """A transcript of its own."""
    (transcript,) = transcripts(f"```\n{text}\n```")
    return transcript


@pytest.mark.parametrize(
    ("text", "story"),
    [
        ("> PING\n< PANG", "received 'PONG"),
        ("> PING\n> PING\n< PONG", "received 'PONG"),
        ("> PING\n< PONG\n(closed)", "the connection is open"),
        ("> PUB t x\n< :1\n< :2", "received nothing"),
        ("> SUB t\n< +OK next=1 epoch=1\n2> PUB t x\n2< :1", "received 'MSG t 1 x"),
        ("> QUIT\n< +OK\n< PONG", "and the connection was closed"),
    ],
)
async def test_a_difference_is_told(text: str, story: str) -> None:
    with pytest.raises(Mismatch) as told:
        await Runner(MemoryDriver(), one(text)).run()
    assert story in str(told.value)
