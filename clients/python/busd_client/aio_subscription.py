"""One subscription on a connection of its own: the loop around `stream.Stream`.

Invariants:
1. What the server sends is read only when the consumer asks: a slow consumer is a slow reader, for the server to judge.
2. After a lost connection it goes on behind the last event, after growing pauses.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Self

from busd_client.address import Address
from busd_client.backoff import Backoff
from busd_client.events import ConnectionLost, End, Event
from busd_client.keepalive import keep_alive, leave_at_once
from busd_client.stream import Part, Stream, Wish, events_of
from busd_client.tls import tls_of

# One read: large enough that a busy stream is handled in some hundred messages at once.
_READ_BYTES = 262_144


class Subscription:
    """Iterate over it for events, over `batches()` for lists of them; made by `Client.subscribe`.

    `ended` tells the END (reason and next offset) once the iteration is over.
    """

    def __init__(
        self, address: Address, wish: Wish, reconnect: bool, on_lost: Callable[[OSError], None] | None
    ) -> None:
        self._address = address
        self._stream = Stream(wish)
        self._reconnect = reconnect
        self._on_lost = on_lost
        self._backoff = Backoff(random.random)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._early: list[Part] = []
        self._closed = False

    @property
    def ended(self) -> End | None:
        """The END, once it came."""
        return self._stream.ended

    @property
    def next(self) -> int | None:
        """Where it goes on after a lost connection: behind everything that was read; None before `start`.

        That is behind the list that `batches` gave last, but may be far behind the last event of a loop over events:
        who left such a loop goes on at that one's `offset` + 1.
        """
        return self._stream.next

    @property
    def epoch(self) -> int:
        """The server's epoch when it accepted the subscription; higher after a power cut that took messages."""
        return self._stream.epoch

    async def start(self) -> int:
        """Subscribe now; returns the first offset that will be considered.  The iteration does it, too.

        Raises:
            OSError: nobody is there, or it was closed here.
            BusdError: it was refused.
        """
        while not self._stream.live and self._stream.ended is None:
            try:
                if self._reader is None and not self._closed:
                    await self._connect()
                if self._closed:
                    raise ConnectionLost("the subscription was closed here", sent=False)
                self._early += await self._receive()
            except BaseException:
                self._hang_up()
                raise
        return self._stream.accepted

    async def parts(self) -> AsyncIterator[list[Part]]:
        """What came, a read at a time, with messages in runs: for those who handle thousands at once.

        Raises:
            BusdError: it was refused, or the server broke the protocol.
            ConnectionLost: the connection ended and `reconnect` is off.
            OSError: the first attempt to connect failed.
        """
        try:
            await self.start()
        except OSError:
            if not self._closed:
                raise
            return
        try:
            while True:
                parts, self._early = self._early, []
                if parts:
                    yield parts
                if self._closed or self._stream.ended is not None:
                    return
                try:
                    self._early = await self._receive()
                except OSError as error:
                    await self._recover(error)
        finally:
            await self.close()

    async def batches(self) -> AsyncIterator[list[Event]]:
        """Events in lists, as they came: faster than one by one.  Raises as `parts`."""
        async for parts in self.parts():
            yield events_of(parts)

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for parts in self.parts():
            for event in events_of(parts):
                yield event

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up; an iteration that waits ends."""
        self.hang_up()

    def hang_up(self) -> None:
        """The same for who cannot wait."""
        self._closed = True
        self._hang_up()

    async def _connect(self) -> None:
        if self._address.path:
            reader, writer = await asyncio.open_unix_connection(self._address.path, limit=_READ_BYTES)
        else:
            reader, writer = await asyncio.open_connection(
                self._address.host, self._address.port, limit=_READ_BYTES, ssl=tls_of(self._address)
            )
        sock = writer.get_extra_info("socket")
        keep_alive(sock)
        leave_at_once(sock)
        self._reader, self._writer = reader, writer
        writer.write(self._stream.opening(time.monotonic_ns(), self._address.token))

    async def _receive(self) -> list[Part]:
        if self._reader is None:
            raise ConnectionLost("there is no connection")
        self._stream.check()
        try:
            data = await self._reader.read(_READ_BYTES)
        except OSError as error:
            raise ConnectionLost.by(error) from None
        if not data and not self._closed:
            raise ConnectionLost("the server closed the connection")
        parts = self._stream.feed(data)
        if self._stream.live:
            self._backoff.reset()
        return parts

    async def _recover(self, error: OSError) -> None:
        """Connect again, or raise what made it necessary."""
        self._hang_up()
        self._stream.lost(time.monotonic_ns())
        if self._closed or self._stream.ended is not None:
            return
        if not self._reconnect:
            raise error
        if self._on_lost is not None:
            self._on_lost(error)
        while not self._closed and self._stream.ended is None:
            await asyncio.sleep(self._backoff.next_s())
            try:
                await self.start()
                return
            except OSError:
                self._hang_up()
                self._stream.lost(time.monotonic_ns())

    def _hang_up(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None
