"""A channel between processes for asyncio; the same as `sync_channel`, with the same promises.

sender, receiver = await channel("jobs", "/var/spool/app")
await sender.send(b"hello")
async for value in receiver: ...
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

from busd_client import wire
from busd_client.aio_group import GroupSubscription
from busd_client.aio_link import Link, open_link
from busd_client.channel_core import AGAIN_S, Full, Incoming, Outgoing, receiver_wish
from busd_client.channel_place import Place, Stay
from busd_client.events import BusdError, ConnectionLost
from busd_client.stream import COMING_BACK


async def channel(
    name: str, directory: str | Path, *, max_bytes: int | None = None, sync: str = "interval"
) -> tuple[Sender, Receiver]:
    """Both ends of a channel; see `busd_client.sync_channel.channel`."""
    place = Place(Path(directory), name, max_bytes, sync)
    await asyncio.to_thread(place.ensure)
    return Sender(place), Receiver(place)


class Sender:
    """The end to put values in, for any tasks; see `busd_client.sync_channel.Sender`."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._stay = Stay(place)
        self._outgoing = Outgoing()
        self._changed = asyncio.Condition()
        self._failure: Exception | None = None
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self._link: Link | None = None

    async def send(self, value: bytes) -> None:
        """Take a value, to be sent; waits only while 1 MiB or 10,000 of them are under way.

        Raises:
            Full: there is no room; it was not taken, and may be sent again later.
            ValueError: it is too large, or the sender is closed.
            BusdError: the channel has failed.
            OSError: the server does not start.
        """
        self._usable()
        if not self._outgoing.roomy and self._outgoing.full is None:
            async with self._changed:
                await self._changed.wait_for(self._settled)
            self._usable()
        self._outgoing.check()
        self._outgoing.take(value)
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._run())

    async def flush(self) -> None:
        """Wait until all values taken are kept.

        Raises:
            Full: there is no room for some; they stay here and are sent when there is.
            ValueError: the sender is closed.
            BusdError: the channel has failed.
            OSError: the server does not start.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: not self._outgoing or self._settled(False))
        self._usable()
        self._outgoing.check()

    async def close(self, *, end: bool = True, wait_s: float = 30.0) -> None:
        """Send what is left, and the end: the receiver stops behind the last value.

        Cancelled, it hangs up at once, and what is not kept is gone; for a limit of time there is `wait_s`.

        Args:
            end: False when other senders go on.
            wait_s: how long it may wait for room, and for answers.

        Raises:
            Full: there was none; its `values` are what could not be sent, and the end was not sent.
            BusdError: the channel has failed.
            OSError: the server does not start.
        """
        if self._closed:
            return
        try:
            async with asyncio.timeout(wait_s):
                async with self._changed:
                    await self._changed.wait_for(lambda: not self._outgoing or self._failure is not None)
                self._usable()
                if end:
                    await self._end()
        except TimeoutError:
            raise Full(f"no room, or no answer, for {wait_s} s", self._outgoing.values()) from None
        finally:
            self._closed = True
            async with self._changed:
                self._changed.notify_all()
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
            if self._link is not None:
                self._link.close()
            await asyncio.to_thread(self._stay.end)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        # A sender that fails half-way has not said all.
        await self.close(end=kind is None)

    def _settled(self, roomy: bool = True) -> bool:
        failed = self._failure is not None or self._outgoing.full is not None or self._closed
        return failed or (roomy and self._outgoing.roomy)

    def _usable(self) -> None:
        if self._closed:
            raise ValueError("the sender is closed")
        self._stay.begin()
        if self._failure is not None:
            raise self._failure

    async def _end(self) -> None:
        while isinstance(answer := await self._ask(wire.command("EOF", self._place.name)), BusdError):
            if answer.code != "FULL":
                raise answer
            await asyncio.sleep(AGAIN_S)

    async def _run(self) -> None:
        """One command after another, as long as there is something to send."""
        outgoing = self._outgoing
        try:
            while outgoing:
                again = outgoing.answered(await self._ask(outgoing.command(self._place.name)))
                async with self._changed:
                    self._changed.notify_all()
                if not again:
                    await asyncio.sleep(AGAIN_S)
        except Exception as error:
            self._failure = error
            async with self._changed:
                self._changed.notify_all()

    async def _ask(self, command: bytes) -> wire.Reply:
        """The answer, an error as a value; asked again when the connection is lost, kept or not."""
        while True:
            if self._link is None or self._link.lost is not None:
                await asyncio.to_thread(self._place.ensure)
            with contextlib.suppress(OSError):
                if self._link is None or self._link.lost is not None:
                    self._link = await open_link(self._place.address, lambda: None)
                try:
                    return await self._link.submit(command)
                except BusdError as error:
                    if error.code not in COMING_BACK:
                        return error
                    self._link.close()


class Receiver:
    """The end to take values from: iterate over it, or `receive`; see `busd_client.sync_channel.Receiver`."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._stay = Stay(place)
        self._incoming = Incoming()
        self._subscription: GroupSubscription | None = None
        self._closed = False

    async def receive(self) -> bytes:
        """The next value; the one before is done.  May be cancelled, for a time limit: nothing is lost by it.

        Raises:
            EOFError: the senders have said that it is the end.
            Busy: the channel has another receiver.
            OSError: the server does not start.
        """
        subscription = await self._joined()
        self._incoming.done()
        while not self._incoming.ready:
            if self._incoming.at_end():
                raise EOFError(f"the channel {self._place.name} has ended")
            self._incoming.add(await subscription.more())
            self._check()
        return self._incoming.next()

    async def done(self) -> None:
        """The value received last is dealt with, and leaves the disk; `receive` says so of the one before, too."""
        self._incoming.done()
        if self._subscription is not None:
            with contextlib.suppress(ConnectionLost):
                await self._subscription.flush()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with contextlib.suppress(EOFError):
            while True:
                yield await self.receive()

    async def close(self) -> None:
        """Leave; the value received last comes again unless it is done."""
        if self._closed:
            return
        self._closed = True
        if self._subscription is not None:
            await self._subscription.close()
        self._place.release()
        await asyncio.to_thread(self._stay.end)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _check(self) -> None:
        if self._closed:
            raise ValueError("the receiver is closed")
        self._stay.begin()

    async def _joined(self) -> GroupSubscription:
        self._check()
        if self._subscription is None:
            self._place.claim()
            try:
                await asyncio.to_thread(self._place.ensure)
            except OSError:
                self._check()
                raise
            self._check()
            wish, place = receiver_wish(self._place.name), self._place
            self._subscription = GroupSubscription(place.address, wish, before=lambda: place.ensure(0))
        return self._subscription
