"""busd for asyncio.

    async with await connect() as busd:
        offset = await busd.publish("news.eu", b"hello")
        async for event in busd.subscribe("news.>", start="first"):
            ...

A shell around the pure core: it owns sockets, futures and waiting.  Invariants:
1. A command that may have reached the server is never sent again, unless it only asks; once if the caller said `retry`.
2. A command that did not leave yet waits for a new connection, up to `patience_s`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import ssl
import weakref
from collections.abc import Callable, Sequence
from typing import Self, overload

from busd_client import wire
from busd_client.address import Address, choose_address
from busd_client.aio_group import GroupSubscription
from busd_client.aio_link import Link, open_link
from busd_client.aio_reading import Reading
from busd_client.aio_subscription import Subscription
from busd_client.aio_worker import Handler, Worker
from busd_client.backoff import Backoff
from busd_client.events import BusdError, ConnectionLost
from busd_client.group_stream import GroupWish, group_wish
from busd_client.resending import Resending
from busd_client.stream import Wish

# Unanswered publishes at which drain() begins to wait: a few commits' worth (256 KiB each), so the server never idles.
WINDOW_BYTES = 1 << 20
WINDOW_MESSAGES = 20_000
# How long `close` waits for the next answer; a commit on a bad day takes one or two.
_CLOSE_S = 5.0
# Time for an attempt to connect, however little patience is left.
_ATTEMPT_S = 1.0


async def connect(
    address: str | None = None,
    *,
    patience_s: float = 30.0,
    token: str | None = None,
    tls: bool | ssl.SSLContext = False,
    cafile: str | None = None,
) -> Client:
    """Connect to a server.

    Args:
        address: `host:port`, `tls:host:port`, `unix:/path` or `/path`; else BUSD_ADDRESS, else 127.0.0.1:7379.
        patience_s: how long commands wait for a new connection once this one is lost.
        token, tls, cafile: see choose_address.

    Raises:
        ValueError: it is no address.
        OSError: nobody is there.
        BusdError: the server refuses, or is no busd.
    """
    client = Client(choose_address(address, os.environ, token=token, tls=tls, cafile=cafile), patience_s)
    await client.open()
    return client


class Client(Reading):
    """A connection for commands; made by `connect`.  Subscriptions have connections of their own."""

    def __init__(self, address: Address, patience_s: float = 30.0) -> None:
        self._address = address
        self._patience_s = patience_s
        self._link: Link | None = None
        self._queued: list[tuple[bytes, asyncio.Future[wire.Reply]]] = []
        self._queued_bytes = 0
        self._connecting: asyncio.Task[None] | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._subscriptions: weakref.WeakSet[Subscription | GroupSubscription] = weakref.WeakSet()
        self._closed = False

    @property
    def address(self) -> str:
        """Where the server is, as it would be written."""
        return str(self._address)

    async def open(self) -> None:
        """Connect now; raises as `connect` does."""
        self._link = await open_link(self._address, self._progress)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Wait for the answers still owed, but 5 s at most for the next one; then hang up, also the subscriptions.

        What was cancelled is not waited for.  What is not answered, or asked from now on, raises ConnectionLost.
        Cancelled, it hangs up at once.
        """
        # First, or who goes on publishing is waited for without end.
        self._closed = True
        try:
            with contextlib.suppress(TimeoutError):
                while self._link is not None and self._link.awaited:
                    await asyncio.wait_for(self._progressed(), _CLOSE_S)
            if self._connecting is not None:
                self._connecting.cancel()
                await asyncio.gather(self._connecting, return_exceptions=True)
            for subscription in list(self._subscriptions):
                await subscription.close()
        finally:
            if self._connecting is not None:
                self._connecting.cancel()
            for subscription in list(self._subscriptions):
                subscription.hang_up()
            if self._link is not None:
                self._link.close()

    # Publishing

    async def publish(
        self, topic: str, payload: wire.Payload, headers: wire.Headers = None, *, retry: bool = False
    ) -> int:
        """Append a message; returns its offset once it is kept as the server's policy says.

        Args:
            retry: send it once more when the connection was lost before the answer; then it may be kept twice.

        Raises:
            BusdError: it was refused; nothing was kept.
            ConnectionLost: the connection ended before the answer; nobody knows whether it was kept.
        """
        return wire.check_integer(await self._ask(wire.publish(topic, payload, headers), retry))

    def publish_soon(self, topic: str, payload: wire.Payload, headers: wire.Headers = None) -> asyncio.Future[int]:
        """Publish without waiting: the future is the offset.  `await drain()` now and then bounds what waits."""
        return self.submit(wire.publish(topic, payload, headers))

    async def publish_many(self, topic: str, payloads: Sequence[wire.Payload], *, retry: bool = False) -> int:
        """Append messages at consecutive offsets, all or none; returns the first offset.  Raises as `publish`."""
        return wire.check_integer(await self._ask(wire.publish_many(topic, payloads), retry))

    def publish_many_soon(self, topic: str, payloads: Sequence[wire.Payload]) -> asyncio.Future[int]:
        """The same without waiting."""
        return self.submit(wire.publish_many(topic, payloads))

    async def drain(self, window_bytes: int = WINDOW_BYTES, window_messages: int = WINDOW_MESSAGES) -> None:
        """Wait while more than this is unanswered.  Errors are in the futures, not raised here."""
        while self._over(window_bytes, window_messages):
            await self._progressed()

    async def flush(self) -> None:
        """Wait until everything is answered.  Errors are in the futures, not raised here."""
        await self.drain(0, 0)

    async def eof(self, topic: str, *, retry: bool = False) -> int:
        """Mark the end of a stream; returns the offset of the mark.  Raises as `publish`."""
        return wire.check_integer(await self._ask(wire.command("EOF", topic), retry))

    # Reading

    @overload
    def subscribe(
        self,
        patterns: str | Sequence[str],
        start: wire.Position | None = None,
        last: int | None = None,
        until: wire.Position | None = None,
        limit: int | None = None,
        within: wire.Duration | None = None,
        slow: str | None = None,
        *,
        reconnect: bool = True,
        on_lost: Callable[[OSError], None] | None = None,
    ) -> Subscription:
        """Every message of the patterns."""

    @overload
    def subscribe(
        self,
        patterns: str | Sequence[str],
        start: wire.Position | None = None,
        *,
        limit: int | None = None,
        within: wire.Duration | None = None,
        group: str,
        window: int = 1,
        wait: wire.Duration | None = None,
        tries: int | None = None,
        until_eof: bool = False,
        reconnect: bool = True,
        on_lost: Callable[[OSError], None] | None = None,
    ) -> GroupSubscription:
        """A share of the messages of a group."""

    def subscribe(
        self,
        patterns: str | Sequence[str],
        start: wire.Position | None = None,
        last: int | None = None,
        until: wire.Position | None = None,
        limit: int | None = None,
        within: wire.Duration | None = None,
        slow: str | None = None,
        *,
        group: str | None = None,
        window: int = 1,
        wait: wire.Duration | None = None,
        tries: int | None = None,
        until_eof: bool = False,
        reconnect: bool = True,
        on_lost: Callable[[OSError], None] | None = None,
    ) -> Subscription | GroupSubscription:
        """A subscription on a connection of its own, to be iterated over; it connects when that begins, or by `start`.

        With `group` its messages are this member's share of the group's, to be acknowledged: see GroupSubscription.

        Args:
            patterns: `a.>,b` or a sequence.
            start: FROM; an offset, or text: `first`, `next`, `end`, `-5m`, `@2026-11-21T08:00:00Z`, `@<unix ns>`.
            within: seconds, or text like `250ms`.
            window: messages that may be unacknowledged at a time; in the hundreds where throughput counts.
            wait: seconds, or text, after which an unacknowledged message goes to another member.
            tries: after so many deliveries that came back it becomes a dead letter; fixed when the group is made.
            until_eof: it is over when all topics, which must be literal, have ended.
            reconnect: go on behind the last message after a lost connection, for ever; else raise ConnectionLost.
            on_lost: called each time before it connects again.

        The other arguments are the options of SUB, see protocol.md.
        """
        if group is not None:
            member = group_wish(patterns, group, start, limit, within, window, wait, tries, until_eof)
            return self.join(member, reconnect=reconnect, on_lost=on_lost)
        within_ns = None if within is None else wire.duration_ns(within)
        wish = Wish(wire.patterns_text(patterns), start, last, until, limit, within_ns, slow)
        return self.subscribe_to(wish, reconnect=reconnect, on_lost=on_lost)

    def subscribe_to(
        self, wish: Wish, *, reconnect: bool = True, on_lost: Callable[[OSError], None] | None = None
    ) -> Subscription:
        """The same with the options as a Wish."""
        subscription = Subscription(self._address, wish, reconnect, on_lost)
        self._subscriptions.add(subscription)
        return subscription

    def join(
        self, wish: GroupWish, *, reconnect: bool = True, on_lost: Callable[[OSError], None] | None = None
    ) -> GroupSubscription:
        """A membership of a group, with the options as a GroupWish."""
        subscription = GroupSubscription(self._address, wish, reconnect, on_lost)
        self._subscriptions.add(subscription)
        return subscription

    async def work(
        self,
        patterns: str | Sequence[str],
        handler: Handler,
        *,
        group: str,
        concurrency: int = 1,
        window: int | None = None,
        wait: wire.Duration | None = None,
        tries: int | None = None,
        touch: bool = True,
        until_eof: bool = False,
    ) -> None:
        """Call `handler` with each message of a group, `concurrency` at a time, until cancelled or `until_eof`.

        It returns: acknowledged.  It raises Retry: given back as that says.  It raises anything else: given back with
        that as the reason.  A handler that is not async runs in a thread.  While it runs, and with `touch`, nobody else
        gets the message however long it takes.  Cancelled, it cancels the handlers and gives back what they had.

        Args:
            window: messages taken ahead, `concurrency` unless told.

        The others as in `subscribe`; raises as a subscription does.
        """
        wish = group_wish(patterns, group, None, None, None, window or concurrency, wait, tries, until_eof)
        await Worker(self.join(wish), handler, concurrency, wish.wait_ns, touch).run()

    # Reading what is there, managing: see Reading, Managing

    async def command(self, *words: bytes | str | int) -> wire.Reply:
        """Any other command; its reply as hiredis decodes it.  Raises as `publish`."""
        return await self._ask(wire.command(*words), 0)

    # Inside

    async def _ask(self, data: bytes, again: float = math.inf) -> wire.Reply:
        # Made when it is needed: few commands need it.
        resending: Resending | None = None
        while True:
            try:
                return await self.submit(data)
            except (BusdError, ConnectionLost) as error:
                if self._closed:
                    raise
                resending = resending or Resending(again, self._patience_s, random.random)
                pause_s = resending.after(error, asyncio.get_running_loop().time())
            await asyncio.sleep(pause_s)

    def submit(self, data: bytes) -> asyncio.Future[wire.Reply]:
        """Send one encoded command, or keep it until there is a connection again; the future is its reply."""
        if self._link is not None and self._link.lost is None and not self._closed:
            return self._link.submit(data)
        future: asyncio.Future[wire.Reply] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_exception(ConnectionLost("the client is closed", sent=False))
            return future
        self._queued.append((data, future))
        self._queued_bytes += len(data)
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.ensure_future(self._reconnect())
        return future

    async def _reconnect(self) -> None:
        failure: BusdError | ConnectionLost | None = ConnectionLost("the client was closed", sent=False)
        try:
            failure = await self._attempts()
        finally:
            queued, self._queued, self._queued_bytes = self._queued, [], 0
            for data, future in queued:
                if future.done():
                    continue
                if failure is None and self._link is not None:
                    self._link.submit(data, future)
                else:
                    future.set_exception(failure or ConnectionLost("no connection", sent=False))
            self._progress()

    async def _attempts(self) -> BusdError | ConnectionLost | None:
        loop = asyncio.get_running_loop()
        backoff = Backoff(random.random)
        give_up_s = loop.time() + self._patience_s
        while True:
            try:
                async with asyncio.timeout_at(max(give_up_s, loop.time() + _ATTEMPT_S)):
                    await self.open()
                return None
            except OSError as error:
                delay_s = backoff.next_s()
                if loop.time() + delay_s > give_up_s:
                    return ConnectionLost(f"{self._address}: {str(error) or 'no answer'}", sent=False)
            except BusdError as error:
                return error
            await asyncio.sleep(delay_s)

    def _over(self, window_bytes: int, window_messages: int) -> bool:
        messages, size = len(self._queued), self._queued_bytes
        if self._link is not None:
            messages += self._link.pending
            size += self._link.pending_bytes
        return messages > window_messages or size > window_bytes

    async def _progressed(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _progress(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


__all__ = ["Client", "GroupSubscription", "Subscription", "Worker", "connect"]
