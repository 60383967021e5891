"""One connection for commands: requests go out pipelined, answers come back in order as futures.

It must not know what a command means.  Invariants:
1. Every future given out is resolved: by its reply, or by ConnectionLost when the connection ends first.
2. All requests of one turn of the loop leave in one write (a socket write each costs 15 times as much as encoding).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

from busd_client import wire
from busd_client.address import Address
from busd_client.events import BusdError, ConnectionLost
from busd_client.keepalive import keep_alive
from busd_client.tls import tls_of

# Beyond this a turn's requests are written at once: larger writes are not faster and hold memory twice.
_WRITE_BYTES = 262_144


class Link(asyncio.Protocol):
    """A connection; `submit` sends, the future is the answer.  `on_progress`: answers came, or it ended."""

    def __init__(self, on_progress: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_progress = on_progress
        self._transport: asyncio.Transport | None = None
        self._replies = wire.Replies()
        self._waiting: deque[tuple[asyncio.Future[wire.Reply], int]] = deque()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self.pending_bytes = 0
        self.lost: ConnectionLost | None = None

    @property
    def pending(self) -> int:
        """Requests that are not answered yet."""
        return len(self._waiting)

    @property
    def awaited(self) -> bool:
        """True while somebody waits for an answer: some who asked were not cancelled."""
        return any(not future.done() for future, _ in self._waiting)

    def submit(self, data: bytes, future: asyncio.Future[wire.Reply] | None = None) -> asyncio.Future[wire.Reply]:
        """Send one command; the future (the given one, if any) gets its reply, errors as exceptions."""
        if future is None:
            future = self._loop.create_future()
        if self.lost is not None:
            future.set_exception(self.lost)
            return future
        size = len(data)
        self._waiting.append((future, size))
        self.pending_bytes += size
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)
        self._out_bytes += size
        if self._out_bytes >= _WRITE_BYTES:
            self._flush()
        return future

    def close(self) -> None:
        """Hang up; what is not answered fails."""
        self._end(ConnectionLost("the connection was closed here"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # A cast and no assertion: uvloop's transports are no subclass.
        self._transport = cast(asyncio.Transport, transport)
        keep_alive(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        waiting = self._waiting
        try:
            for reply in self._replies.feed(data):
                if not waiting:
                    # Nobody asked: the server says why it will close (too many connections, stopping).
                    self._end(ConnectionLost(f"the server said {wire.text(reply)}"))
                    return
                future, size = waiting.popleft()
                self.pending_bytes -= size
                if future.done():
                    continue
                if isinstance(reply, BusdError):
                    future.set_exception(reply)
                else:
                    future.set_result(reply)
        except ConnectionLost as error:
            self._end(error)
        self._on_progress()

    def eof_received(self) -> None:
        """See asyncio.Protocol."""
        self._end(ConnectionLost("the server closed the connection"))

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._end(ConnectionLost(f"the connection broke: {exc}" if exc else "the server closed the connection"))

    def _flush(self) -> None:
        if self._out and self._transport is not None and self.lost is None:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out.clear()
            self._out_bytes = 0
            self._transport.write(data)

    def _end(self, error: ConnectionLost) -> None:
        if self.lost is not None:
            return
        self.lost = error
        self._out.clear()
        waiting, self._waiting = self._waiting, deque()
        self.pending_bytes = 0
        for future, _ in waiting:
            if not future.done():
                future.set_exception(error)
        if self._transport is not None:
            self._transport.abort()
        self._on_progress()


async def open_link(address: Address, on_progress: Callable[[], None]) -> Link:
    """Connect and say hello.

    Raises:
        OSError: there is no connection.
        BusdError: the server refuses, or is no busd.
    """
    loop = asyncio.get_running_loop()
    if address.path:
        _, link = await loop.create_unix_connection(lambda: Link(on_progress), address.path)
    else:
        _, link = await loop.create_connection(
            lambda: Link(on_progress), address.host, address.port, ssl=tls_of(address)
        )
    try:
        wire.check_hello(await link.submit(wire.hello(address.token)))
    except BaseException:
        link.close()
        raise
    return link
