"""`flush` of a member whose connection ends before the answers, in both clients: it says so, once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from busd_client import aio, sync
from busd_client.deliveries import Delivery
from busd_client.events import ConnectionLost, End

from tests.support.scripted import Peer, Script, Scripted, stay
from tests.unit.test_client_stream import push

LIMIT_S = 15.0


async def hello(peer: Peer) -> None:
    """The connection for commands."""
    await peer.hello()
    await stay(peer)


async def answers_one(peer: Peer) -> None:
    await peer.subscribed()
    peer.messages(1, b"a", b"b")
    await peer.expect(b"ACK", b"..1")
    peer.send(b":1\r\n")
    await peer.expect(b"ACK", b"..2")


async def answers_all(peer: Peer) -> None:
    await peer.subscribed()
    peer.messages(2, b"b")
    await peer.expect(b"ACK", b"..2")
    peer.send(b":1\r\n")
    await peer.expect(b"UNSUB", b"DRAIN")
    peer.send(b"+OK\r\n" + push(b"END", b"drained", 3))
    await stay(peer)


SCRIPTS: list[Script] = [hello, answers_one, answers_all]
WISH: dict[str, Any] = {"group": "g", "window": 9}


@pytest.mark.parametrize("told", [False, True], ids=["since", "now"])
async def test_asyncio_what_was_not_answered_is_told_once(told: bool) -> None:
    async def use(address: str) -> None:
        async with await aio.connect(address) as client, client.subscribe("t", **WISH) as jobs:
            events = aiter(jobs)
            first, second = await anext(events), await anext(events)
            assert isinstance(first, Delivery)
            assert isinstance(second, Delivery)
            first.ack()
            await jobs.flush()
            second.ack()
            if told:
                with pytest.raises(ConnectionLost):
                    await jobs.flush()
            again = await anext(events)
            assert isinstance(again, Delivery)
            assert (second.lost, again.offset) == (True, 2)
            again.ack()
            if not told:
                with pytest.raises(ConnectionLost):
                    await jobs.flush()
            await jobs.flush(strict=True)
            assert jobs.settled == 2
            jobs.drain()
            assert [event async for event in jobs] == []
            assert jobs.ended == End("drained", 3)

    async with Scripted(*SCRIPTS)() as address, asyncio.timeout(LIMIT_S):
        await use(address)


@pytest.mark.parametrize("told", [False, True], ids=["since", "now"])
async def test_blocking_what_was_not_answered_is_told_once(told: bool) -> None:
    def use(address: str) -> None:
        with sync.connect(address) as client, client.subscribe("t", **WISH) as jobs:
            events = iter(jobs)
            first, second = next(events), next(events)
            assert isinstance(first, Delivery)
            assert isinstance(second, Delivery)
            first.ack()
            jobs.flush()
            second.ack()
            if told:
                with pytest.raises(ConnectionLost):
                    jobs.flush()
            again = next(events)
            assert isinstance(again, Delivery)
            assert (second.lost, again.offset) == (True, 2)
            again.ack()
            if not told:
                with pytest.raises(ConnectionLost):
                    jobs.flush()
            jobs.flush(strict=True)
            assert jobs.settled == 2
            jobs.drain()
            assert list(jobs) == []
            assert jobs.ended == End("drained", 3)

    async with Scripted(*SCRIPTS)() as address:
        await asyncio.to_thread(use, address)


async def test_asyncio_all_who_wait_are_told() -> None:
    async def use(address: str) -> None:
        async with await aio.connect(address) as client, client.subscribe("t", **WISH) as jobs:
            taking = asyncio.ensure_future(jobs.more())
            (run,) = await taking
            job, other = list(run)
            job.ack()
            await jobs.flush()
            other.ack()
            taking = asyncio.ensure_future(jobs.more())
            told = await asyncio.gather(*[jobs.flush() for _ in range(3)], return_exceptions=True)
            assert [type(one) for one in told] == [ConnectionLost] * 3
            (again,) = await taking
            again.ack()
            await jobs.flush()
            jobs.drain()
            assert await jobs.more() == []

    async with Scripted(*SCRIPTS)() as address, asyncio.timeout(LIMIT_S):
        await use(address)
