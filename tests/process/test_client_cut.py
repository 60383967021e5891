"""Connections that end before the answer, time and again: what both clients send again, and when they give up."""

from __future__ import annotations

import asyncio
import time

import pytest
from busd_client import aio, sync
from busd_client.events import ConnectionLost

from tests.support.scripted import Peer, Script, Scripted, stay

LIMIT_S = 15.0
# Connections that would be cut; who sends again without a pause uses them up in that time.
MANY = 200
PATIENCE_S = 0.5


def cut(verb: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.hello()
        await peer.expect(verb)

    return script


async def stopping(peer: Peer) -> None:
    await peer.hello()
    await peer.expect(b"PING")
    peer.send(b"-STOPPING the server stops\r\n")


async def answering(peer: Peer) -> None:
    await peer.hello()
    await peer.expect(b"PING")
    peer.send(b"+PONG\r\n")
    await stay(peer)


async def test_asyncio_a_publish_is_sent_once_more_and_no_oftener() -> None:
    scripted = Scripted(cut(b"PUB"), cut(b"PUB"))
    async with scripted() as address, asyncio.timeout(LIMIT_S):
        client = await aio.connect(address, patience_s=PATIENCE_S)
        with pytest.raises(ConnectionLost) as told:
            await client.publish("t", b"1", retry=True)
        assert (told.value.sent, scripted.connections) == (True, 2)
        await client.close()


async def test_blocking_a_publish_is_sent_once_more_and_no_oftener() -> None:
    scripted = Scripted(cut(b"PUB"), cut(b"PUB"))

    def use(address: str) -> None:
        with sync.connect(address, patience_s=PATIENCE_S) as client:
            with pytest.raises(ConnectionLost) as told:
                client.publish("t", b"1", retry=True)
            assert told.value.sent

    async with scripted() as address:
        await asyncio.to_thread(use, address)
    assert scripted.connections == 2


def many() -> tuple[Scripted, list[Script]]:
    scripts: list[Script] = [cut(b"PING") for _ in range(MANY)]
    scripted = Scripted(*scripts)
    return scripted, scripted._scripts


async def test_asyncio_a_question_is_given_up() -> None:
    scripted, left = many()
    async with scripted() as address, asyncio.timeout(LIMIT_S):
        client = await aio.connect(address, patience_s=PATIENCE_S)
        began_s = time.monotonic()
        with pytest.raises(ConnectionLost, match="closed the connection"):
            await client.ping()
        assert time.monotonic() - began_s < LIMIT_S / 3
        assert 2 < scripted.connections < 15, "with pauses that grow"
        await client.close()
        left.clear()


async def test_blocking_a_question_is_given_up() -> None:
    scripted, left = many()

    def use(address: str) -> None:
        with sync.connect(address, patience_s=PATIENCE_S) as client:
            began_s = time.monotonic()
            with pytest.raises(ConnectionLost):
                client.ping()
            assert time.monotonic() - began_s < LIMIT_S / 3

    async with scripted() as address:
        await asyncio.to_thread(use, address)
        assert 2 < scripted.connections < 15, "with pauses that grow"
        left.clear()


async def test_asyncio_a_question_to_a_server_that_stops_is_for_the_next_one() -> None:
    async with Scripted(stopping, answering)() as address, await aio.connect(address) as client:
        await client.ping()


async def test_blocking_a_question_to_a_server_that_stops_is_for_the_next_one() -> None:
    def use(address: str) -> None:
        with sync.connect(address) as client:
            client.ping()

    async with Scripted(stopping, answering)() as address:
        await asyncio.to_thread(use, address)
