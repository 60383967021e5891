"""Both clients against a scripted server: lost connections, refusals, back-pressure."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from busd_client import aio, sync
from busd_client.address import parse_address
from busd_client.events import BusdError, ConnectionLost, End, EndOfStream, Event, Gap, Message

from tests.support.scripted import Peer, Scripted, stay

# asyncio


async def test_publishes_of_one_turn_arrive_in_one_piece_and_are_answered_in_order() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello()
        seen = [await peer.command() for _ in range(100)]
        assert peer.reads == 2
        assert seen == [[b"PUB", b"t", b"%d" % number] for number in range(100)]
        peer.send(b"".join([b":%d\r\n" % offset for offset in range(1, 101)]))
        await stay(peer)

    async with Scripted(script)() as address, await aio.connect(address) as client:
        futures = [client.publish_soon("t", b"%d" % number) for number in range(100)]
        assert await asyncio.gather(*futures) == list(range(1, 101))


async def test_a_refusal_is_of_one_message_only() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello()
        await peer.expect(b"PUB", b"a")
        await peer.expect(b"PUB", b"..")
        await peer.expect(b"MPUB", b"b", b"x", b"y")
        peer.send(b":1\r\n-TOPIC not a topic\r\n:2\r\n")
        await stay(peer)

    async with Scripted(script)() as address, await aio.connect(address) as client:
        first, second = client.publish_soon("a", b"1"), client.publish_soon("..", b"2")
        third = client.publish_many_soon("b", [b"x", b"y"])
        assert await first == 1
        with pytest.raises(BusdError) as refused:
            await second
        assert refused.value.code == "TOPIC"
        assert await third == 2


async def test_a_publish_without_an_answer_is_not_sent_again() -> None:
    async def first(peer: Peer) -> None:
        await peer.hello()
        await peer.expect(b"PUB", b"t", b"1")

    async def second(peer: Peer) -> None:
        await peer.hello()
        await peer.expect(b"PUB", b"t", b"2")
        peer.send(b":5\r\n")
        await stay(peer)

    async with Scripted(first, second)() as address, await aio.connect(address) as client:
        with pytest.raises(ConnectionLost) as lost:
            await client.publish("t", b"1")
        assert lost.value.sent
        assert await client.publish("t", b"2") == 5


async def test_with_retry_it_is() -> None:
    async def first(peer: Peer) -> None:
        await peer.hello()
        await peer.expect(b"PUB", b"t", b"1")

    async def second(peer: Peer) -> None:
        await peer.hello()
        await peer.expect(b"PUB", b"t", b"1")
        peer.send(b":5\r\n")
        await stay(peer)

    async with Scripted(first, second)() as address, await aio.connect(address) as client:
        assert await client.publish("t", b"1", retry=True) == 5


async def test_what_never_left_is_told_apart() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello()

    scripted = Scripted(script)
    async with scripted() as address:
        client = await aio.connect(address, patience_s=0)
        with pytest.raises(ConnectionLost):
            await client.command("PING")
    with pytest.raises(ConnectionLost) as lost:
        await client.publish("t", b"1")
    assert not lost.value.sent
    await client.close()
    with pytest.raises(ConnectionLost, match="closed") as closed:
        await client.publish("t", b"1")
    assert not closed.value.sent


async def test_commands_wait_for_a_new_connection() -> None:
    async def first(peer: Peer) -> None:
        await peer.hello()

    async def busy(peer: Peer) -> None:
        await peer.expect(b"HELLO")

    async def second(peer: Peer) -> None:
        await peer.hello()
        await peer.expect(b"PING")
        peer.send(b"+PONG\r\n")
        await peer.expect(b"PUB")
        peer.send(b":1\r\n")
        await stay(peer)

    async with Scripted(first, busy, second)() as address, await aio.connect(address) as client:
        await asyncio.sleep(0.05)
        pinging = asyncio.ensure_future(client.ping())
        await asyncio.sleep(0)
        assert await client.publish("t", b"1") == 1
        await pinging


async def test_a_server_that_refuses_says_why() -> None:
    async def full(peer: Peer) -> None:
        peer.send(b"-LIMIT 10000 connections; that is all\r\n")
        await peer.expect(b"HELLO")

    async def redis(peer: Peer) -> None:
        await peer.expect(b"HELLO")
        peer.send(b"%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n")

    async with Scripted(full, redis)() as address:
        with pytest.raises((BusdError, ConnectionLost), match="LIMIT"):
            await aio.connect(address)
        with pytest.raises(BusdError, match="no busd"):
            await aio.connect(address)
    with pytest.raises(ConnectionRefusedError):
        await aio.connect(address)
    with pytest.raises(FileNotFoundError):
        await aio.connect("unix:/nowhere/busd.sock")


async def test_drain_waits_for_answers_once_the_window_is_full() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.hello()
        for _ in range(10):
            await peer.expect(b"PUB")
        await go.wait()
        peer.send(b"".join([b":%d\r\n" % number for number in range(1, 6)]))
        await stay(peer)

    async with Scripted(script)() as address:
        client = await aio.connect(address)
        futures = [client.publish_soon("t", b"x") for _ in range(10)]
        await client.drain(window_messages=10)
        waiting = asyncio.ensure_future(client.drain(window_messages=5))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        go.set()
        await waiting
        assert [future.done() for future in futures] == [True] * 5 + [False] * 5
        closing = asyncio.ensure_future(client.close())
        await asyncio.sleep(0.02)
        assert not closing.done()
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        client._closed = True
        await client.close()
        assert all(isinstance(future.exception(), ConnectionLost) for future in futures[5:])


async def collect(events: Any, count: int) -> list[Event]:
    got: list[Event] = []
    async for event in events:
        got.append(event)
        if len(got) == count:
            break
    return got


async def test_a_subscription_goes_on_where_it_was() -> None:
    async def first(peer: Peer) -> None:
        assert (await peer.subscribed(3))[2:] == [b"FROM", b"3", b"FORMAT", b"batch"]
        peer.messages(3, b"a", b"b")
        peer.send(b">6\r\n$3\r\nGAP\r\n$1\r\nt\r\n:5\r\n:6\r\n:2\r\n$7\r\ntrimmed\r\n")

    async def stopping(peer: Peer) -> None:
        await peer.hello()
        await peer.expect(b"SUB")
        peer.send(b"-STOPPING the server is going down\r\n")

    async def second(peer: Peer) -> None:
        # At the beginning of the GAP: with several stores messages of others may lie within it.
        assert (await peer.subscribed(7))[2:4] == [b"FROM", b"5"]
        peer.messages(7, b"c")
        peer.send(b">3\r\n$3\r\nEOF\r\n$1\r\nt\r\n:8\r\n>3\r\n$3\r\nEND\r\n$3\r\nend\r\n:9\r\n")
        await stay(peer)

    lost: list[OSError] = []
    async with Scripted(first, stopping, second)() as address:
        client = aio.Client(parse_address(address))
        subscription = client.subscribe("t", start=3, on_lost=lost.append)
        assert await subscription.start() == 3
        events = [event async for event in subscription]
        assert events == [
            Message("t", 3, 7, b"a"),
            Message("t", 4, 7, b"b"),
            Gap("t", 5, 6, 2, "trimmed"),
            Message("t", 7, 7, b"c"),
            EndOfStream("t", 8),
        ]
        assert (subscription.ended, subscription.next, subscription.epoch) == (End("end", 9), 9, 1)
        assert len(lost) == 1
        await client.close()


async def test_without_reconnect_a_lost_connection_is_an_error() -> None:
    async def script(peer: Peer) -> None:
        await peer.subscribed()
        peer.messages(1, b"a")

    async with Scripted(script)() as address:
        client = aio.Client(parse_address(address))
        batches = client.subscribe("t", reconnect=False).batches()
        assert await anext(batches) == [Message("t", 1, 7, b"a")]
        with pytest.raises(ConnectionLost):
            await anext(batches)


async def test_closing_ends_an_iteration_that_waits() -> None:
    async def script(peer: Peer) -> None:
        await peer.subscribed()
        await stay(peer)

    async with Scripted(script)() as address:
        client = aio.Client(parse_address(address))
        subscription = client.subscribe("t")
        await subscription.start()
        waiting = asyncio.ensure_future(collect(subscription, 1))
        await asyncio.sleep(0.02)
        await client.close()
        assert await waiting == []


async def test_a_slow_consumer_leaves_the_rest_in_the_socket() -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.subscribed()
        block = b"x" * 65_536
        with contextlib.suppress(ConnectionError):
            for number in range(1, 1_000):
                peer.messages(number, block)
                await peer._writer.drain()
                sent += len(block)

    async with (
        Scripted(script)() as address,
        aio.Client(parse_address(address)).subscribe("t") as subscription,
    ):
        await asyncio.sleep(0.3)
        assert 0 < sent < 16 << 20
        assert len(await collect(subscription, 3)) == 3


async def test_a_read_of_several_answers() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello()
        await peer.expect(b"READ", b"t", b"FROM", b"1")
        message = b"*5\r\n$3\r\nMSG\r\n$1\r\nt\r\n:%d\r\n:7\r\n$1\r\nx\r\n"
        end = b"*3\r\n$3\r\nEND\r\n$%d\r\n%b\r\n:%d\r\n"
        peer.send(b"*2\r\n" + message % 1 + end % (5, b"limit", 2))
        await peer.hello()
        await peer.expect(b"READ", b"t", b"FROM", b"2")
        peer.send(b"*2\r\n" + message % 2 + end % (3, b"end", 9))
        await stay(peer)

    async with Scripted(script)() as address, await aio.connect(address) as client:
        result = await client.read("t", start=1)
        assert ([message.offset for message in result], result.next, result.reason) == ([1, 2], 9, "end")


# blocking


async def test_blocking_commands() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello()
        await peer.expect(b"PUB", b"t", b"x", b"k", b"v")
        peer.send(b":4\r\n")
        await peer.expect(b"EOF", b"t")
        peer.send(b"-FULL no room\r\n")
        await peer.expect(b"TOPICS", b"a,b")
        peer.send(b"*0\r\n")
        await peer.expect(b"INFO", b"log")
        peer.send(b"%1\r\n$4\r\nnext\r\n:5\r\n")
        await peer.expect(b"RESET", b">")
        peer.send(b":3\r\n")
        await stay(peer)

    def work(address: str) -> None:
        with sync.connect(address, timeout_s=5) as client:
            assert client.publish("t", b"x", {"k": "v"}) == 4
            with pytest.raises(BusdError, match="FULL no room"):
                client.eof("t")
            assert client.topics(["a", "b"]) == []
            assert client.info("log") == {"next": 5}
            assert client.reset(">") == 3

    async with Scripted(script)() as address:
        await asyncio.to_thread(work, address)


async def test_blocking_publish_all_is_pipelined_and_names_each_fate() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello()
        for number in range(3):
            await peer.expect(b"PUB", b"t", b"%d" % number)
        peer.send(b":1\r\n-TOOBIG it is\r\n:2\r\n")
        await stay(peer)

    def work(address: str) -> list[int | BusdError]:
        with sync.connect(address) as client:
            return list(client.publish_all(("t", b"%d" % number) for number in range(3)))

    async with Scripted(script)() as address:
        first, second, third = await asyncio.to_thread(work, address)
        assert (first, str(second), third) == (1, "TOOBIG it is", 2)


async def test_a_blocking_publish_without_an_answer_is_not_sent_again() -> None:
    async def first(peer: Peer) -> None:
        await peer.hello()
        await peer.expect(b"PUB", b"t", b"1")

    async def second(peer: Peer) -> None:
        await peer.hello()
        await peer.expect(b"PUB", b"t", b"2")

    async def third(peer: Peer) -> None:
        await peer.hello()
        await peer.expect(b"PUB", b"t", b"2")
        peer.send(b":5\r\n")
        await stay(peer)

    def work(address: str) -> None:
        with sync.connect(address) as client:
            with pytest.raises(ConnectionLost):
                client.publish("t", b"1")
            assert client.publish("t", b"2", retry=True) == 5

    async with Scripted(first, second, third)() as address:
        await asyncio.to_thread(work, address)


async def test_a_blocking_subscription_goes_on_where_it_was() -> None:
    async def first(peer: Peer) -> None:
        await peer.subscribed(3)
        peer.messages(3, b"a")

    async def second(peer: Peer) -> None:
        assert (await peer.subscribed(4))[2:4] == [b"FROM", b"4"]
        peer.messages(4, b"b")
        peer.send(b">3\r\n$3\r\nEND\r\n$3\r\nend\r\n:5\r\n")

    lost: list[OSError] = []

    def work(address: str) -> list[Event]:
        client = sync.Client(parse_address(address))
        with client.subscribe("t", on_lost=lost.append) as subscription:
            return list(subscription)

    async with Scripted(first, second)() as address:
        assert [event.offset for event in await asyncio.to_thread(work, address) if isinstance(event, Message)] == [
            3,
            4,
        ]
        assert len(lost) == 1


async def test_a_blocking_client_that_finds_nobody() -> None:
    def work() -> None:
        client = sync.Client(parse_address("127.0.0.1:1"), patience_s=0)
        with pytest.raises(ConnectionLost) as lost:
            client.ping()
        assert not lost.value.sent
        with pytest.raises(ConnectionRefusedError):
            sync.connect("127.0.0.1:1")

    await asyncio.to_thread(work)
