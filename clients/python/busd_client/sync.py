"""busd for blocking code.

    with connect() as busd:
        offset = busd.publish("news.eu", b"hello")
        for event in busd.subscribe("news.>", start="first"):
            ...

Plain sockets, no thread, no event loop; one thread at a time.  The same pure core as `aio`.  Invariants:
1. A command that may have reached the server is never sent again, unless it only asks; once if the caller said `retry`.
2. A lost connection is made anew by the next command.
3. Whatever interrupts a command, be it Ctrl-C, ends the connection: its answer is not taken for that of the next one.
"""

from __future__ import annotations

import math
import os
import random
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self, overload

from busd_client import wire
from busd_client.address import Address, choose_address
from busd_client.backoff import Backoff
from busd_client.deliveries import Delivery
from busd_client.events import BusdError, ConnectionLost, ReadResult
from busd_client.group_stream import GroupWish, group_wish
from busd_client.pages import Pages
from busd_client.resending import Resending
from busd_client.stream import Wish
from busd_client.sync_group import GroupSubscription
from busd_client.sync_socket import Connection, greeted
from busd_client.sync_subscription import Subscription

# Sent before the answers are read: enough for a commit, little enough that neither side's buffers fill with answers.
_BURST_BYTES = 262_144
_BURST_MESSAGES = 2_000


def connect(
    address: str | None = None,
    *,
    patience_s: float = 30.0,
    timeout_s: float | None = None,
    token: str | None = None,
    tls: bool | ssl.SSLContext = False,
    cafile: str | None = None,
) -> Client:
    """Connect to a server.

    Args:
        address: `host:port`, `tls:host:port`, `unix:/path` or `/path`; else BUSD_ADDRESS, else 127.0.0.1:7379.
        patience_s: how long commands try to connect again once the connection is lost.
        timeout_s: the longest wait for an answer before the connection counts as lost; None waits for ever.
        token, tls, cafile: see choose_address.

    Raises:
        ValueError: it is no address.
        OSError: nobody is there.
        BusdError: the server refuses, or is no busd.
    """
    where = choose_address(address, os.environ, token=token, tls=tls, cafile=cafile)
    client = Client(where, patience_s, timeout_s)
    client.open()
    return client


class Client:
    """A connection for commands; made by `connect`.  Subscriptions have connections of their own."""

    def __init__(self, address: Address, patience_s: float = 30.0, timeout_s: float | None = None) -> None:
        self._address = address
        self._patience_s = patience_s
        self._timeout_s = timeout_s
        self._connection: Connection | None = None

    @property
    def address(self) -> str:
        """Where the server is, as it would be written."""
        return str(self._address)

    def open(self) -> None:
        """Connect now; raises as `connect` does."""
        self._connection = greeted(self._address, self._timeout_s)

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Publishing

    def publish(self, topic: str, payload: wire.Payload, headers: wire.Headers = None, *, retry: bool = False) -> int:
        """Append a message; returns its offset once it is kept as the server's policy says.

        Args:
            retry: send it once more when the connection was lost before the answer; then it may be kept twice.

        Raises:
            BusdError: it was refused; nothing was kept.
            ConnectionLost: the connection ended before the answer; nobody knows whether it was kept.
        """
        return wire.check_integer(self._ask(wire.publish(topic, payload, headers), retry))

    def publish_many(self, topic: str, payloads: Sequence[wire.Payload], *, retry: bool = False) -> int:
        """Append messages at consecutive offsets, all or none; returns the first offset.  Raises as `publish`."""
        return wire.check_integer(self._ask(wire.publish_many(topic, payloads), retry))

    def publish_all(self, messages: Iterable[tuple[str, wire.Payload]]) -> Iterator[int | BusdError]:
        """Publish pairs of topic and payload, pipelined; yields each one's offset, or the error that refused it.

        Raises:
            ConnectionLost: nobody knows whether those without an answer were kept.
        """
        burst: list[bytes] = []
        size = 0
        for topic, payload in messages:
            burst.append(wire.publish(topic, payload))
            size += len(burst[-1])
            if size >= _BURST_BYTES or len(burst) >= _BURST_MESSAGES:
                yield from self._burst(burst)
                burst, size = [], 0
        if burst:
            yield from self._burst(burst)

    def eof(self, topic: str, *, retry: bool = False) -> int:
        """Mark the end of a stream; returns the offset of the mark.  Raises as `publish`."""
        return wire.check_integer(self._ask(wire.command("EOF", topic), retry))

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
        """A subscription on a connection of its own, to be iterated over; see `busd_client.aio.Client.subscribe`."""
        if group is not None:
            member = group_wish(patterns, group, start, limit, within, window, wait, tries, until_eof)
            return self.join(member, reconnect=reconnect, on_lost=on_lost)
        within_ns = None if within is None else wire.duration_ns(within)
        wish = Wish(wire.patterns_text(patterns), start, last, until, limit, within_ns, slow)
        return Subscription(self._address, wish, reconnect, on_lost)

    def join(
        self, wish: GroupWish, *, reconnect: bool = True, on_lost: Callable[[OSError], None] | None = None
    ) -> GroupSubscription:
        """A membership of a group, with the options as a GroupWish."""
        return GroupSubscription(self._address, wish, reconnect, on_lost)

    def work(
        self, patterns: str | Sequence[str], handler: Callable[[Delivery], object], *, group: str, **options: Any
    ) -> None:
        """Call `handler` with each message of a group; see `busd_client.aio.Client.work`, which this runs.

        The handler is called in other threads, `concurrency` at a time.
        """
        import asyncio

        from busd_client import aio

        asyncio.run(aio.Client(self._address).work(patterns, handler, group=group, **options))

    def read(
        self,
        patterns: str | Sequence[str],
        start: wire.Position | None = None,
        last: int | None = None,
        limit: int | None = None,
        within: wire.Duration | None = None,
        group: str | None = None,
    ) -> ReadResult:
        """What is there now, from `first` unless told; waits up to `within` for a first message when there is none.

        With `group`, what that group has not settled; nothing is taken by it.

        Raises:
            BusdError: it was refused.
            ConnectionLost: the connection was lost, and no answer could be had within `patience_s` of that.
        """
        pages = Pages(wire.patterns_text(patterns), start, last, limit, within, group, time.monotonic_ns())
        return pages.join(self._pages(pages))

    def read_pages(
        self,
        patterns: str | Sequence[str],
        start: wire.Position | None = None,
        limit: int | None = None,
        within: wire.Duration | None = None,
        group: str | None = None,
    ) -> Iterator[ReadResult]:
        """The same in parts of about 1 MiB, for what does not fit into memory."""
        now_ns = time.monotonic_ns()
        return self._pages(Pages(wire.patterns_text(patterns), start, None, limit, within, group, now_ns))

    def _pages(self, pages: Pages) -> Iterator[ReadResult]:
        while pages.command is not None:
            if pages.needs_end:
                pages.end_at(self._ask(wire.HELLO))
            yield pages.page(self._ask(pages.command), time.monotonic_ns())

    # Managing

    def reset(self, patterns: str | Sequence[str]) -> int:
        """Remove all messages so far of these topics; returns how many.  Raises as `publish`."""
        return wire.check_integer(self._ask(wire.command("RESET", wire.patterns_text(patterns)), 0))

    def topics(self, patterns: str | Sequence[str] = ">") -> list[dict[str, str | int]]:
        """Topics with `topic`, `messages`, `last` and `state`, sorted."""
        return wire.table(self._ask(wire.command("TOPICS", wire.patterns_text(patterns))))

    def groups(self, patterns: str | Sequence[str] = ">") -> list[dict[str, str | int]]:
        """Groups whose names match, with what GROUPS tells of them; `lag` is `?` where nobody knows it."""
        return wire.table(self._ask(wire.command("GROUPS", wire.patterns_text(patterns))), "group")

    def seek(self, group: str, position: wire.Position) -> int:
        """Have a group go on at a position; returns its offset.  What members hold is stale.  Raises as `publish`."""
        return wire.sought(self._ask(wire.command("SEEK", group, position), 0))

    def forget(self, group: str) -> None:
        """Delete a group's place.  Raises BusdError GROUP while it has members."""
        self._ask(wire.command("FORGET", group), 0)

    def info(self, section: str = "") -> dict[str, str | int]:
        """How the server is: `server`, `log`, `stores` or `clients`, or all of it."""
        return wire.pairs(self._ask(wire.command("INFO", *([section] if section else []))))

    def ping(self) -> None:
        """Returns when the server answered."""
        self._ask(wire.command("PING"))

    def command(self, *words: bytes | str | int) -> wire.Reply:
        """Any other command; its reply as hiredis decodes it.  Raises as `publish`."""
        return self._ask(wire.command(*words), 0)

    # Inside

    def _ask(self, data: bytes, again: float = math.inf) -> wire.Reply:
        """The reply to one command.  `again`: how often to send it again after a lost connection; True is once."""
        # Made when it is needed: few commands need it.
        resending: Resending | None = None
        while True:
            failure: BusdError | ConnectionLost
            try:
                reply = self._connected(None if resending is None else resending.until_s).ask(data)
            except ConnectionLost as error:
                self.close()
                failure = error
            except BaseException:
                # After an interrupt an answer may be owed.
                self.close()
                raise
            else:
                if not isinstance(reply, BusdError):
                    return reply
                failure = reply
            resending = resending or Resending(again, self._patience_s, random.random)
            time.sleep(resending.after(failure, time.monotonic()))

    def _burst(self, burst: list[bytes]) -> Iterator[int | BusdError]:
        connection = self._connected()
        replies: deque[wire.Reply] = deque()
        try:
            connection.send(b"".join(burst))
            while len(replies) < len(burst):
                replies.extend(connection.receive())
        except ConnectionLost:
            self.close()
            # The answers that came belong to the caller before the news that no more will.
            yield from (reply if isinstance(reply, BusdError) else wire.check_integer(reply) for reply in replies)
            raise
        except BaseException:
            self.close()
            raise
        yield from (reply if isinstance(reply, BusdError) else wire.check_integer(reply) for reply in replies)

    def _connected(self, give_up_s: float | None = None) -> Connection:
        if self._connection is not None:
            return self._connection
        backoff = Backoff(random.random)
        if give_up_s is None:
            give_up_s = time.monotonic() + self._patience_s
        while self._connection is None:
            try:
                self.open()
            except OSError as error:
                delay_s = backoff.next_s()
                if time.monotonic() + delay_s > give_up_s:
                    raise ConnectionLost(f"{self._address}: {error}", sent=False) from None
                time.sleep(delay_s)
        return self._connection
