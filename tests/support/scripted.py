"""A server that says what a test tells it to: one script for each connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from busd_client import wire
from busd_client.keepalive import leave_at_once

from busd.rules import record

HELLO_REPLY = b"%2\r\n$6\r\nserver\r\n$4\r\nbusd\r\n$4\r\nnext\r\n:9\r\n"


class Peer:
    """One connection, seen from the scripted server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._replies = wire.Replies()
        self._commands: list[list[bytes]] = []
        self.reads = 0

    async def command(self) -> list[bytes]:
        """The next command."""
        while not self._commands:
            data = await self._reader.read(1 << 20)
            if not data:
                raise ConnectionError("the client hung up")
            self.reads += 1
            self._commands += self._replies.feed(data)
        return self._commands.pop(0)

    async def expect(self, *words: bytes) -> list[bytes]:
        """The next command, which begins with these words."""
        got = await self.command()
        assert tuple(got[: len(words)]) == words
        return got

    async def hello(self) -> None:
        """Answer HELLO."""
        await self.expect(b"HELLO", b"3")
        self.send(HELLO_REPLY)

    async def subscribed(self, following: int = 1) -> list[bytes]:
        """Answer HELLO and SUB; returns the SUB."""
        await self.hello()
        words = await self.expect(b"SUB")
        self.send(b"+OK next=%d epoch=1\r\n" % following)
        return words

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)

    def reset(self) -> None:
        """End the connection as the kernel does for a process that was killed with bytes unread."""
        leave_at_once(self._writer.get_extra_info("socket"))
        self._writer.transport.abort()

    def messages(self, first: int, *payloads: bytes) -> None:
        """Send a batch of topic t."""
        made = record.frame(first, 7, first - 1, 0, "-", (b"t",), None, None, list(payloads))
        head = b">4\r\n$5\r\nBATCH\r\n:%d\r\n:%d\r\n$%d\r\n" % (first, made.last, len(made.record))
        self.send(head + made.record + b"\r\n")


Script = Callable[[Peer], Awaitable[None]]


class Scripted:
    """A server whose connections follow one script each, in the order in which they come; then it refuses."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self._failures: list[BaseException] = []
        self.connections = 0
        self.port = 0

    @contextlib.asynccontextmanager
    async def __call__(self) -> AsyncIterator[str]:
        """The address while it runs; fails the test when a script failed."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield f"127.0.0.1:{self.port}"
        finally:
            server.close()
            await server.wait_closed()
        assert self._failures == []
        assert self._scripts == []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            if self._scripts:
                await self._scripts.pop(0)(Peer(reader, writer))
                await writer.drain()
        except ConnectionError:
            return
        except BaseException as error:
            self._failures.append(error)
        finally:
            writer.close()


async def stay(peer: Peer) -> None:
    """Until the client hangs up."""
    with contextlib.suppress(ConnectionError):
        await peer.command()
        raise AssertionError("nothing more was expected")
