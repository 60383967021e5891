"""Closing, and patience, of the asyncio client while a server takes connections and says nothing."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest
from busd_client import ConnectionLost, aio
from busd_client.aio_group import GroupSubscription
from busd_client.aio_subscription import Subscription

from tests.support.scripted import Peer, Scripted

# What none of it may take; a close that waits takes 5 s.
LIMIT_S = 15.0


async def say_nothing(peer: Peer) -> None:
    """Until the client hangs up."""
    with contextlib.suppress(ConnectionError):
        while True:
            await peer.command()


@contextlib.asynccontextmanager
async def mute_from(asked: asyncio.Event, *told: int) -> AsyncIterator[tuple[str, Scripted]]:
    """For each of `told` a connection that answers so many commands, HELLO among them; `asked` when one is not."""

    def script(answers: int) -> object:
        async def serve(peer: Peer) -> None:
            if answers:
                await peer.hello()
            for offset in range(1, answers):
                await peer.command()
                peer.send(b":%d\r\n" % offset)
            await peer.command()
            asked.set()
            await say_nothing(peer)

        return serve

    scripted = Scripted(*map(script, told))  # type: ignore[arg-type]
    async with asyncio.timeout(LIMIT_S), scripted() as address:
        yield address, scripted


async def test_what_was_cancelled_is_not_waited_for() -> None:
    asked = asyncio.Event()
    async with mute_from(asked, 1) as (address, _):
        client = await aio.connect(address)
        publishing = asyncio.ensure_future(client.publish("t", b"1"))
        await asked.wait()
        publishing.cancel()
        async with asyncio.timeout(aio._CLOSE_S / 2):
            await client.close()
        await asyncio.wait([publishing])
        assert publishing.cancelled()


async def test_an_answer_that_does_not_come_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "_CLOSE_S", 0.2)
    asked = asyncio.Event()
    async with mute_from(asked, 2) as (address, _):
        client = await aio.connect(address)
        futures = [client.publish_soon("t", b"1"), client.publish_soon("t", b"2")]
        await client.close()
        assert await futures[0] == 1
        with pytest.raises(ConnectionLost, match="closed here"):
            await futures[1]


async def test_a_connection_on_which_nothing_is_said_uses_up_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "_ATTEMPT_S", 0.1)

    async def lost(peer: Peer) -> None:
        await peer.hello()

    async with Scripted(lost, say_nothing)() as address, asyncio.timeout(LIMIT_S):
        client = await aio.connect(address, patience_s=0.2)
        with pytest.raises(ConnectionLost, match="no answer") as told:
            await client.ping()
        assert not told.value.sent
        await client.close()


@pytest.mark.parametrize("group", [None, "g"])
@pytest.mark.parametrize("answers", [0, 1])
async def test_closing_ends_an_iteration_that_has_not_begun(group: str | None, answers: int) -> None:
    asked = asyncio.Event()
    async with mute_from(asked, 1, answers) as (address, scripted):
        client = await aio.connect(address)
        subscription: Subscription | GroupSubscription = (
            client.subscribe("t") if group is None else client.subscribe("t", group=group)
        )

        async def iterate() -> list[object]:
            return [event async for event in subscription]

        iterating = asyncio.ensure_future(iterate())
        await asked.wait()
        await subscription.close()
        assert await iterating == []
        with pytest.raises(ConnectionLost, match="closed here"):
            await subscription.start()
        assert scripted.connections == 2, "it does not connect again"
        await client.close()


async def test_who_goes_on_publishing_is_not_waited_for() -> None:
    asked = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.hello()
        with contextlib.suppress(ConnectionError):
            for offset in itertools.count(1):
                await peer.command()
                if offset == 3:
                    asked.set()
                    await asyncio.sleep(0.02)
                peer.send(b":%d\r\n" % offset)

    async with Scripted(serve)() as address, asyncio.timeout(LIMIT_S):
        client = await aio.connect(address)
        kept: list[int] = []

        async def publish() -> None:
            while True:
                kept.append(await client.publish("t", b"1"))

        publishing = asyncio.ensure_future(publish())
        await asked.wait()
        async with asyncio.timeout(aio._CLOSE_S / 2):
            await client.close()
        with pytest.raises(ConnectionLost, match="closed") as refused:
            await publishing
        assert not refused.value.sent
        assert kept == [1, 2, 3], "what was under way was answered, and nothing else"


@pytest.mark.parametrize("group", [None, "g"])
async def test_a_cancelled_close_leaves_nothing_open(group: str | None) -> None:
    asked = asyncio.Event()
    left = asyncio.Event()

    async def subscribed(peer: Peer) -> None:
        await peer.subscribed()
        await say_nothing(peer)
        left.set()

    async def mute(peer: Peer) -> None:
        await peer.hello()
        await peer.command()
        asked.set()
        await say_nothing(peer)

    async with Scripted(mute, subscribed)() as address, asyncio.timeout(LIMIT_S):
        client = await aio.connect(address)
        subscription: Subscription | GroupSubscription = (
            client.subscribe("t") if group is None else client.subscribe("t", group=group)
        )
        await subscription.start()
        owed = client.publish_soon("t", b"1")
        await asked.wait()
        closing = asyncio.ensure_future(client.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
        async with asyncio.timeout(aio._CLOSE_S / 2):
            with pytest.raises(ConnectionLost, match="closed here"):
                await owed
            await left.wait()
        with pytest.raises(ConnectionLost, match="closed"):
            await client.publish("t", b"2")
