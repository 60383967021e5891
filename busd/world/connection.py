"""One socket: the asyncio side of a session.

Receive buffers are shared by all connections of a loop: what is in one is taken out before the callback returns.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import cast

from busd.broker.session import Session

_LOGGER = logging.getLogger("busd")

# As much as a socket gives in one read; larger ones only make the steps of the loop longer.
READ_BYTES = 256 * 1024
# A peer that does not take its last bytes for this long is cut off.
_LINGER_S = 30.0


class ReadBuffer:
    """The bytes that sockets of one loop read into."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ_BYTES))


class Connection(asyncio.BufferedProtocol):
    """A Wire (see busd.broker.session) over a transport."""

    def __init__(
        self,
        number: int,
        buffer: ReadBuffer,
        clock: Callable[[], int],
        entered: Callable[[Connection], Session | None],
        left: Callable[[Connection], None],
    ) -> None:
        self.number = number
        self.peer = ""
        self.session: Session | None = None
        self._buffer = buffer
        self._clock = clock
        self._entered = entered
        self._left = left
        self._transport: asyncio.Transport | None = None
        self._limit = 0

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        # Not a check by class: uvloop's transports do not derive from asyncio's.
        self._transport = transport = cast(asyncio.Transport, transport)
        sock: socket.socket = transport.get_extra_info("socket")
        address = transport.get_extra_info("peername")
        if sock.family == socket.AF_UNIX:
            self.peer = "unix"
        else:
            self.peer = f"{address[0]}:{address[1]}" if address else "?"
            keep_alive(sock)
        self.bound(64 * 1024)
        self.session = self._entered(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio."""
        return self._buffer.view

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio."""
        if self.session is not None:
            try:
                self.session.received(bytes(self._buffer.view[:nbytes]), self._clock())
            except Exception:
                _LOGGER.exception("a fault of busd in the connection of %s", self.peer)
                self.session.failed()

    def eof_received(self) -> bool:
        """The peer sends no more; the transport stays open for what is owed."""
        if self.session is not None:
            self.session.end_of_input()
        return True

    def resume_writing(self) -> None:
        """See asyncio: high and low water mark are the same, half of the outbox."""
        if self.session is not None:
            self.session.drained()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._transport = None
        if self.session is not None:
            self.session.lost()
        self._left(self)

    # Wire.

    def write(self, data: bytes, events: int = 1) -> None:
        """See Outbox."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def buffered(self) -> int:
        """See Outbox."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def bound(self, limit_bytes: int) -> None:
        """See Outbox."""
        if self._transport is not None and limit_bytes != self._limit:
            self._limit = limit_bytes
            self._transport.set_write_buffer_limits(high=limit_bytes // 2, low=limit_bytes // 2)

    def pause_reading(self) -> None:
        """See Wire."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """See Wire."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """See Wire."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()
            asyncio.get_running_loop().call_later(_LINGER_S, self.abort)

    def abort(self) -> None:
        """Cut it off, whatever is queued."""
        if self._transport is not None:
            self._transport.abort()

    def fileno(self) -> int:
        """The socket's descriptor, -1 when it is gone."""
        if self._transport is None:
            return -1
        sock: socket.socket = self._transport.get_extra_info("socket")
        return sock.fileno()


def keep_alive(sock: socket.socket) -> None:
    """A TCP peer that vanished is found within about a minute and a half."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", 60),
        ("TCP_KEEPINTVL", 10),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 90_000),
    ):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
