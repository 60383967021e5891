"""What a server says right behind messages, in one piece with them, and then nothing more: both clients learn of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from busd_client import aio, sync
from busd_client.events import BusdError

from tests.support.scripted import Peer, Scripted, stay
from tests.unit.test_client_stream import batch, push

# Within it the client must have hung up.
LIMIT_S = 5.0
DENIED = push(b"END", b"denied", 2)
# What is no record.
DAMAGED = push(b"BATCH", 2, 2, b"damaged")

KINDS = pytest.mark.parametrize("wish", [{}, {"group": "g"}], ids=["subscription", "member"])


async def hello(peer: Peer) -> None:
    """The connection for commands."""
    await peer.hello()
    await stay(peer)


async def hang_on(peer: Peer) -> None:
    """Until the client hangs up, whatever it says; a failure when it does not."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            await peer.command()


async def denied(peer: Peer) -> None:
    await peer.subscribed()
    peer.send(batch(1, [b"a"]) + DENIED)
    await hang_on(peer)


async def damaged(peer: Peer) -> None:
    await peer.subscribed()
    peer.send(batch(1, [b"a"]) + DAMAGED)
    await hang_on(peer)


async def mended(peer: Peer) -> None:
    await peer.subscribed()
    peer.messages(2, b"b")
    peer.send(push(b"END", b"limit", 3))
    await hang_on(peer)


async def taken_async(address: str, wish: dict[str, Any], got: list[bytes]) -> None:
    async with await aio.connect(address) as client, client.subscribe("t", **wish) as events:
        async for event in events:
            got.append(event.payload)


def taken(address: str, wish: dict[str, Any], got: list[bytes]) -> None:
    with sync.connect(address) as client, client.subscribe("t", **wish) as events:
        got.extend(event.payload for event in events)


@KINDS
async def test_asyncio_a_right_that_is_taken_away_is_told(wish: dict[str, Any]) -> None:
    got: list[bytes] = []
    async with Scripted(hello, denied)() as address:
        with pytest.raises(BusdError, match="DENIED"):
            await taken_async(address, wish, got)
    assert got == [b"a"]


@KINDS
async def test_blocking_a_right_that_is_taken_away_is_told(wish: dict[str, Any]) -> None:
    got: list[bytes] = []
    async with Scripted(hello, denied)() as address:
        with pytest.raises(BusdError, match="DENIED"):
            await asyncio.to_thread(taken, address, wish, got)
    assert got == [b"a"]


@KINDS
async def test_asyncio_a_damaged_batch_is_asked_for_again(wish: dict[str, Any]) -> None:
    got: list[bytes] = []
    async with Scripted(hello, damaged, mended)() as address:
        await taken_async(address, wish, got)
    assert got == [b"a", b"b"]


@KINDS
async def test_blocking_a_damaged_batch_is_asked_for_again(wish: dict[str, Any]) -> None:
    got: list[bytes] = []
    async with Scripted(hello, damaged, mended)() as address:
        await asyncio.to_thread(taken, address, wish, got)
    assert got == [b"a", b"b"]


async def test_asyncio_answers_behind_it_are_not_waited_for() -> None:
    async def use(address: str) -> None:
        async with await aio.connect(address) as client, client.subscribe("t", group="g") as jobs:
            async for job in jobs:
                job.ack()  # type: ignore[union-attr]
                with pytest.raises(BusdError, match="DENIED"):
                    await jobs.flush()
                break

    async with Scripted(hello, denied)() as address:
        await use(address)


async def test_blocking_answers_behind_it_are_not_waited_for() -> None:
    def use(address: str) -> None:
        with sync.connect(address) as client, client.subscribe("t", group="g") as jobs:
            for job in jobs:
                job.ack()  # type: ignore[union-attr]
                with pytest.raises(BusdError, match="DENIED"):
                    jobs.flush()
                break

    async with Scripted(hello, denied)() as address:
        await asyncio.to_thread(use, address)
