"""One membership of a group on a connection of its own: the loop around `group_stream.GroupStream`.

Invariants:
1. Acknowledgements of one turn of the loop leave in one write; nothing waits for their answers but `flush` and `close`.
2. What waits for the consumer is bounded: beyond it, or the window, nothing is read, unless for a `flush`.
3. After a lost connection it joins again, after growing pauses; what came by the old one comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Self, cast

from busd_client.address import Address
from busd_client.backoff import Backoff
from busd_client.deliveries import Batch, Deliveries, Delivery, GroupEvent, GroupPart
from busd_client.events import ConnectionLost, End, EndOfStream, Gap, Reset
from busd_client.group_stream import GroupStream, GroupWish, deliveries_of, taken_apart
from busd_client.keepalive import keep_alive
from busd_client.tls import tls_of

# Read ahead of the consumer; one read of a busy stream.
_AHEAD_BYTES = 262_144
# How long `close` waits for the answers to the last acknowledgements; a commit on a bad day takes one or two.
_CLOSE_S = 5.0
# Gaps that are remembered for who does not look at every event.
_GAPS = 100


class GroupSubscription:
    """Deliveries of a group, to be acknowledged; made by `Client.subscribe(…, group=…)`.

        async with busd.subscribe("jobs.>", group="g", window=100) as jobs:
            async for job in jobs.acked():        # each is acknowledged when the next is asked for
                ...

    Iterating over it gives every event, and what is done is told by `job.ack()`; `batches` and `acked_batches` give
    lists.  `gaps` holds the last losses, `stale` counts acknowledgements that came too late, `ended` is the END.
    Leaving a loop leaves it open, for what is in hand; closing it, by `async with`, gives back the rest at once.
    """

    def __init__(
        self,
        address: Address,
        wish: GroupWish,
        reconnect: bool = True,
        on_lost: Callable[[OSError], None] | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        self._address = address
        self._stream = GroupStream(wish, self._gather)
        self._reconnect = reconnect
        self._on_lost = on_lost
        # Called before every attempt to connect, in a thread.
        self._before = before
        self._backoff = Backoff(random.random)
        self._link: _Link | None = None
        self._sending = False
        self._joined = False
        self._closed = False
        self.gaps: deque[Gap] = deque(maxlen=_GAPS)

    @property
    def ended(self) -> End | None:
        """The END, once it came."""
        return self._stream.ended

    @property
    def epoch(self) -> int:
        """The server's epoch when it accepted the subscription."""
        return self._stream.epoch

    @property
    def settled(self) -> int:
        """Deliveries that the server said it settled."""
        return self._stream.settled

    @property
    def stale(self) -> int:
        """Deliveries that were acknowledged, given back or touched too late; others have them now."""
        return self._stream.stale

    @property
    def open(self) -> int:
        """Deliveries of the present connection that are neither done nor given back."""
        return self._stream.ledger.open

    async def start(self) -> int:
        """Join now; returns where the group stands: everything of it below is settled.  The iteration does it, too.

        Raises:
            OSError: nobody is there, or it was closed here.
            BusdError: it was refused.
        """
        while not self._stream.live and self._stream.ended is None:
            try:
                if self._link is None and not self._closed:
                    self._link = await self._connect()
                link = self._link
                if self._closed or link is None:
                    raise ConnectionLost("the subscription was closed here", sent=False)
                await link.progress()
                link.check()
            except BaseException:
                self._hang_up()
                raise
        self._joined = True
        return self._stream.accepted

    async def more(self) -> list[GroupPart]:
        """What comes next, as `parts` gives it; empty when the subscription is over.

        May be cancelled and called again.  Raises as `parts`.
        """
        try:
            if not self._joined:
                await self.start()
        except OSError:
            # `close` makes the waiting one fail, too; then the loop is not entered.
            if not self._closed:
                raise
        while not self._closed:
            link = self._link
            if link is not None and (parts := link.take()):
                return parts
            if self._stream.ended is not None:
                break
            try:
                if link is None:
                    raise ConnectionLost("there is no connection")
                link.check()
                self._stream.check()
                self._send()
                await link.progress()
            except OSError as error:
                await self._recover(error)
        return []

    async def parts(self) -> AsyncIterator[list[GroupPart]]:
        """What came, a read at a time, first deliveries in runs: for those who handle thousands at once.

        Raises:
            BusdError: it was refused, or the server broke the protocol.
            ConnectionLost: the connection ended and `reconnect` is off.
            OSError: the first attempt to connect failed.
        """
        # Not in a `finally`: what was given out may still be acknowledged after a loop was left.
        while parts := await self.more():
            yield parts
        await self.close()

    async def __aiter__(self) -> AsyncIterator[GroupEvent]:
        async for parts in self.parts():
            for event in taken_apart(parts):
                yield event

    async def acked(self) -> AsyncIterator[Delivery]:
        """Messages; each is acknowledged when the next is asked for.  The one at which a loop is left is not."""
        async for parts in self.parts():
            for part in parts:
                if isinstance(part, Deliveries):
                    for delivery in part.messages():
                        yield delivery
                        delivery.ack()
                elif isinstance(part, Delivery):
                    yield part
                    part.ack()
                else:
                    self._note(part)

    async def batches(self) -> AsyncIterator[Batch]:
        """Messages in lists, as they came; `ack` of a list is for all in it."""
        async for parts in self.parts():
            for part in parts:
                if not isinstance(part, Deliveries | Delivery):
                    self._note(part)
            if batch := Batch(deliveries_of(parts)):
                yield batch

    async def acked_batches(self) -> AsyncIterator[Batch]:
        """The same; each is acknowledged when the next is asked for."""
        async for batch in self.batches():
            yield batch
            batch.ack()

    def drain(self) -> None:
        """Take no more: what is in hand may be settled, then the iteration ends.  For workers that stop."""
        if self._stream.live:
            self._stream.drain()
        else:
            self._closed = True

    async def flush(self, *, strict: bool = False) -> None:
        """Wait until what was acknowledged, given back or touched so far is answered.

        Args:
            strict: raise Stale when some of it came too late, since the last `flush`.

        Raises:
            BusdError: it could not be kept; what is not settled comes again.
            ConnectionLost: the connection ended before the answers, now or since the last `flush`; what was not settled
                comes again.
        """
        link, ledger = self._link, self._stream.ledger
        self._send()
        try:
            while link is not None and ledger.unanswered:
                link.check()
                self._stream.check()
                await link.progress(ahead=True)
        except ConnectionLost:
            ledger.close(told=True)
            raise
        self._stream.ledger.check(strict)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Tell what is acknowledged, give back the rest, hang up; an iteration that waits ends.

        What an answer says is not raised here; `flush` does that.
        """
        self._closed = True
        try:
            if self._link is not None and self._stream.live:
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(self.flush(), _CLOSE_S)
        finally:
            self._hang_up()

    def hang_up(self) -> None:
        """Close, but tell nothing and wait for nothing: what is not settled comes again."""
        self._closed = True
        self._hang_up()

    def _note(self, event: Gap | EndOfStream | Reset) -> None:
        if isinstance(event, Gap):
            self.gaps.append(event)

    def _gather(self, now: bool) -> None:
        if now:
            self._send()
        elif not self._sending:
            self._sending = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._sending = False
        if self._link is not None and self._stream.live and (told := self._stream.ledger.commands()):
            self._link.send(told)

    async def _connect(self) -> _Link:
        if self._before is not None:
            await asyncio.to_thread(self._before)
        loop = asyncio.get_running_loop()
        if self._address.path:
            _, link = await loop.create_unix_connection(lambda: _Link(self._stream), self._address.path)
        else:
            _, link = await loop.create_connection(
                lambda: _Link(self._stream), self._address.host, self._address.port, ssl=tls_of(self._address)
            )
        link.send(self._stream.opening(time.monotonic_ns(), self._address.token))
        return link

    async def _recover(self, error: OSError) -> None:
        """Join again, or raise what made it necessary."""
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
                self._backoff.reset()
                return
            except OSError:
                self._hang_up()
                self._stream.lost(time.monotonic_ns())

    def _hang_up(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()
        self._stream.ledger.close()


class _Link(asyncio.Protocol):
    """The connection: bytes into the stream, parts kept until they are asked for."""

    def __init__(self, stream: GroupStream) -> None:
        self._stream = stream
        self._transport: asyncio.Transport | None = None
        self._parts: list[GroupPart] = []
        self._bytes = 0
        self._paused = False
        self._waiting: list[asyncio.Future[None]] = []
        self._failure: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # A cast and no assertion: uvloop's transports are no subclass.
        self._transport = cast(asyncio.Transport, transport)
        keep_alive(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._failure is not None:
            return
        try:
            parts = self._stream.feed(data)
        except Exception as error:
            # A fault of ours is the consumer's to see, not the loop's.
            self._end(error)
            return
        if parts:
            self._parts += parts
            self._bytes += len(data)
            if self._bytes > _AHEAD_BYTES and self._transport is not None and not self._paused:
                self._paused = True
                self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """See asyncio.Protocol."""
        self._end(ConnectionLost("the server closed the connection"))

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._end(ConnectionLost(f"the connection broke: {exc}" if exc else "the server closed the connection"))

    def send(self, data: bytes) -> None:
        """Send bytes."""
        if self._transport is not None and self._failure is None:
            self._transport.write(data)

    def take(self) -> list[GroupPart]:
        """What came since it was asked last; of a lost connection no deliveries, for they come again."""
        parts, self._parts, self._bytes = self._parts, [], 0
        if self._failure is not None:
            return [part for part in parts if not isinstance(part, Deliveries | Delivery)]
        return parts

    async def progress(self, ahead: bool = False) -> None:
        """Until something came, or it ended.  `ahead`: even if the consumer has not taken what is there."""
        if (self._parts and not ahead) or self._failure is not None:
            return
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def check(self) -> None:
        """Raise what ended it, once everything that came before was taken."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Hang up; who waits is woken."""
        self._end(ConnectionLost("the connection was closed here"))

    def _end(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
            if self._transport is not None:
                # Acknowledgements that were written last should leave, but not wait for a peer that takes nothing.
                if self._transport.get_write_buffer_size():
                    self._transport.abort()
                else:
                    self._transport.close()
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
