"""Members of groups in both clients against a scripted server: what they send, lost connections, workers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from busd_client import aio, sync
from busd_client.address import parse_address
from busd_client.deliveries import Delivery
from busd_client.events import BusdError, ConnectionLost, End, EndOfStream, Retry, Stale

from tests.support.scripted import Peer, Script, Scripted, stay
from tests.unit.test_client_stream import push


async def joined(peer: Peer, *options: bytes) -> None:
    words = await peer.subscribed()
    assert words == [b"SUB", b"t", b"GROUP", b"g", *options, b"FORMAT", b"batch"]


def again(*tokens: bytes) -> bytes:
    return b"".join([push(b"MSG", b"t", token, 7, b"again") for token in tokens])


async def ended(peer: Peer) -> None:
    peer.send(push(b"END", b"limit", 9))
    await stay(peer)


async def in_both(
    script: Callable[[], list[Script]], use: Callable[[str], None], use_async: Callable[[str], Awaitable[None]]
) -> None:
    """The same scripts for the blocking client, in a thread, and for that of asyncio."""
    async with Scripted(*script())() as address:
        await asyncio.to_thread(use, address)
    async with Scripted(*script())() as address:
        await use_async(address)


async def test_the_one_before_is_acknowledged_when_the_next_is_asked_for() -> None:
    async def script(peer: Peer) -> None:
        await joined(peer, b"WINDOW", b"1")
        peer.messages(1, b"a")
        await peer.expect(b"ACK", b"..1")
        peer.send(b":1\r\n" + again(b"5.2"))
        await peer.expect(b"ACK", b"..5.2")
        peer.send(b":1\r\n")
        await ended(peer)

    def use(address: str) -> None:
        with sync.connect(address) as client, client.subscribe("t", group="g") as jobs:
            assert [(job.payload, job.token, job.tries) for job in jobs.acked()] == [
                (b"a", "1", 1),
                (b"again", "5.2", 2),
            ]
            assert (jobs.ended, jobs.settled) == (End("limit", 9), 2)

    async def use_async(address: str) -> None:
        async with await aio.connect(address) as client, client.subscribe("t", group="g") as jobs:
            assert [job.payload async for job in jobs.acked()] == [b"a", b"again"]
            assert (jobs.ended, jobs.settled) == (End("limit", 9), 2)

    await in_both(lambda: [hello, script], use, use_async)


async def hello(peer: Peer) -> None:
    """The connection for commands."""
    await peer.hello()
    await stay(peer)


async def test_the_one_at_which_a_loop_is_left_goes_back() -> None:
    async def script(peer: Peer) -> None:
        await joined(peer, b"WINDOW", b"9")
        peer.messages(1, b"a", b"b", b"c")
        await peer.expect(b"ACK", b"..1")
        peer.send(b":1\r\n")
        await stay(peer)

    def use(address: str) -> None:
        with sync.connect(address) as client, client.subscribe("t", group="g", window=9) as jobs:
            for job in jobs.acked():
                if job.payload == b"b":
                    break
        assert jobs.settled == 1

    async def use_async(address: str) -> None:
        async with await aio.connect(address) as client, client.subscribe("t", group="g", window=9) as jobs:
            async for job in jobs.acked():
                if job.payload == b"b":
                    break
        assert jobs.settled == 1

    await in_both(lambda: [hello, script], use, use_async)


async def test_batches_are_acknowledged_whole_and_what_is_stale_is_told() -> None:
    async def script(peer: Peer) -> None:
        await joined(peer, b"WINDOW", b"100", b"WAIT", b"5000ms", b"TRIES", b"3")
        peer.messages(1, b"a", b"b")
        await peer.expect(b"ACK", b"..2")
        peer.send(b"-STALE n=1 first=1\r\n")
        peer.messages(3, b"c")
        await peer.expect(b"NACK", b"3", b"DELAY", b"1000ms", b"why")
        peer.send(b"+OK\r\n")
        await ended(peer)

    def use(address: str) -> None:
        with sync.connect(address) as client, client.subscribe("t", group="g", window=100, wait=5, tries=3) as jobs:
            batches = jobs.acked_batches()
            assert [job.offset for job in next(batches)] == [1, 2]
            (last,) = next(batches)
            with pytest.raises(Stale) as late:
                jobs.flush(strict=True)
            assert (late.value.count, late.value.first, jobs.stale) == (1, "1", 1)
            last.nack(1, "why")
            assert list(batches) == []

    async def use_async(address: str) -> None:
        async with (
            await aio.connect(address) as client,
            client.subscribe("t", group="g", window=100, wait="5s", tries=3) as jobs,
        ):
            batches = jobs.acked_batches()
            assert [job.offset for job in await anext(batches)] == [1, 2]
            (last,) = await anext(batches)
            with pytest.raises(Stale) as late:
                await jobs.flush(strict=True)
            assert (late.value.count, late.value.first, jobs.stale) == (1, "1", 1)
            last.nack("1s", "why")
            assert [batch async for batch in batches] == []

    await in_both(lambda: [hello, script], use, use_async)


async def test_after_a_lost_connection_old_tokens_are_not_used() -> None:
    async def first(peer: Peer) -> None:
        await joined(peer, b"WINDOW", b"9")
        peer.messages(1, b"a", b"b")

    async def second(peer: Peer) -> None:
        await joined(peer, b"WINDOW", b"9")
        peer.send(again(b"1.2", b"2.2"))
        await peer.expect(b"ACK", b"..2.2")
        peer.send(b":2\r\n")
        await ended(peer)

    def use(address: str) -> None:
        lost: list[OSError] = []
        with sync.connect(address) as client, client.subscribe("t", group="g", window=9, on_lost=lost.append) as jobs:
            batches = jobs.batches()
            old = next(batches)
            for batch in batches:
                assert [job.token for job in batch] == ["1.2", "2.2"]
                assert all(job.lost for job in old)
                old.ack()
                batch.ack()
        assert (len(lost), jobs.settled) == (1, 2)

    async def use_async(address: str) -> None:
        lost: list[OSError] = []
        async with (
            await aio.connect(address) as client,
            client.subscribe("t", group="g", window=9, on_lost=lost.append) as jobs,
        ):
            batches = jobs.batches()
            old = await anext(batches)
            async for batch in batches:
                assert [job.token for job in batch] == ["1.2", "2.2"]
                assert all(job.lost for job in old)
                old.ack()
                batch.ack()
        assert (len(lost), jobs.settled) == (1, 2)

    await in_both(lambda: [hello, first, second], use, use_async)


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_lost_connection_can_be_an_error(reset: bool) -> None:
    async def script(peer: Peer) -> None:
        await joined(peer, b"WINDOW", b"1")
        peer.messages(1, b"a")
        await peer.expect(b"ACK")
        if reset:
            peer.reset()

    def use(address: str) -> None:
        with sync.connect(address) as client:
            jobs = client.subscribe("t", group="g", reconnect=False)
            iterator = iter(jobs)
            job = next(iterator)
            assert isinstance(job, Delivery)
            job.ack()
            with pytest.raises(ConnectionLost):
                jobs.flush()
            with pytest.raises(ConnectionLost):
                next(iterator)

    async def use_async(address: str) -> None:
        async with await aio.connect(address) as client:
            jobs = client.subscribe("t", group="g", reconnect=False)
            iterator = aiter(jobs)
            job = await anext(iterator)
            assert isinstance(job, Delivery)
            job.ack()
            with pytest.raises(ConnectionLost):
                await jobs.flush()
            with pytest.raises(ConnectionLost):
                await anext(iterator)

    await in_both(lambda: [hello, script], use, use_async)


@pytest.mark.parametrize("wish", [{}, {"group": "g"}], ids=["alone", "group"])
async def test_a_connection_that_is_reset_is_lost_as_well(wish: dict[str, Any]) -> None:
    """Not an error of the system's: who turned `reconnect` off looks for ConnectionLost."""
    taken = threading.Event()

    async def script(peer: Peer) -> None:
        await peer.subscribed()
        peer.messages(1, b"a")
        await asyncio.to_thread(taken.wait, 10)
        taken.clear()
        peer.reset()

    def use(address: str) -> None:
        with sync.connect(address) as client:
            parts = client.subscribe("t", reconnect=False, **wish).parts()
            assert next(parts)
            taken.set()
            with pytest.raises(ConnectionLost, match="reset by peer"):
                next(parts)

    async def use_async(address: str) -> None:
        async with await aio.connect(address) as client:
            parts = client.subscribe("t", reconnect=False, **wish).parts()
            assert await anext(parts)
            taken.set()
            with pytest.raises(ConnectionLost, match="reset by peer"):
                await anext(parts)

    await in_both(lambda: [hello, script], use, use_async)


async def test_a_refusal_is_raised() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello()
        await peer.expect(b"SUB")
        peer.send(b"-GROUP g reads u\r\n")
        await stay(peer)

    def use(address: str) -> None:
        with sync.connect(address) as client, pytest.raises(BusdError, match="GROUP g reads u"):
            client.subscribe("t", group="g").start()

    async def use_async(address: str) -> None:
        async with await aio.connect(address) as client:
            with pytest.raises(BusdError, match="GROUP g reads u"):
                await client.subscribe("t", group="g").start()

    await in_both(lambda: [hello, script], use, use_async)


async def test_it_ends_with_its_topics() -> None:
    async def script(peer: Peer) -> None:
        await joined(peer, b"WINDOW", b"1")
        peer.send(push(b"EOF", b"t", 4))
        await stay(peer)

    def use(address: str) -> None:
        with sync.connect(address) as client, client.subscribe("t", group="g", until_eof=True) as jobs:
            assert list(jobs) == [EndOfStream("t", 4)]

    async def use_async(address: str) -> None:
        async with await aio.connect(address) as client, client.subscribe("t", group="g", until_eof=True) as jobs:
            assert [event async for event in jobs] == [EndOfStream("t", 4)]

    await in_both(lambda: [hello, script], use, use_async)


async def test_a_blocking_consumer_that_is_slow_acknowledges_meanwhile() -> None:
    async def script(peer: Peer) -> None:
        await joined(peer, b"WINDOW", b"100")
        peer.messages(1, b"a", b"b", b"c")
        # Not all at once at the end: one by one, as they are done.
        for offset in (b"..1", b"..2", b"..3"):
            await peer.expect(b"ACK", offset)
            peer.send(b":1\r\n")
        await ended(peer)

    def use(address: str) -> None:
        with sync.connect(address) as client, client.subscribe("t", group="g", window=100) as jobs:
            for _ in jobs.acked():
                time.sleep(0.06)

    async with Scripted(hello, script)() as address:
        await asyncio.to_thread(use, address)


async def test_questions_about_groups() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello()
        await peer.expect(b"GROUPS", b">")
        peer.send(b"*1\r\n*5\r\n$1\r\ng\r\n$3\r\nlag\r\n:3\r\n$5\r\ntries\r\n:0\r\n")
        await peer.expect(b"SEEK", b"g", b"first")
        peer.send(b"+OK next=7\r\n")
        await peer.expect(b"FORGET", b"g")
        peer.send(b"+OK\r\n")
        assert await peer.expect(b"READ") == [b"READ", b"t", b"GROUP", b"g"]
        peer.send(b"*1\r\n*3\r\n$3\r\nEND\r\n$3\r\nend\r\n:1\r\n")
        await stay(peer)

    rows = [{"group": "g", "lag": 3, "tries": 0}]

    def use(address: str) -> None:
        with sync.connect(address) as client:
            assert client.groups() == rows
            assert client.seek("g", "first") == 7
            client.forget("g")
            assert client.read("t", group="g") == []

    async def use_async(address: str) -> None:
        async with await aio.connect(address) as client:
            assert await client.groups() == rows
            assert await client.seek("g", "first") == 7
            await client.forget("g")
            assert await client.read("t", group="g") == []

    await in_both(lambda: [script], use, use_async)


# Workers


async def test_a_worker_tells_what_became_of_each() -> None:
    async def script(peer: Peer) -> None:
        await joined(peer, b"WINDOW", b"1", b"TRIES", b"3")
        for payload, answer in (
            (b"done", [b"ACK", b"..1"]),
            (b"later", [b"NACK", b"2", b"DELAY", b"2000ms", b"busy"]),
            (b"bad", [b"NACK", b"3", b"ValueError: bad"]),
        ):
            peer.messages(int(answer[1].strip(b".")), payload)
            assert await peer.command() == answer
            peer.send(b":1\r\n" if answer[0] == b"ACK" else b"+OK\r\n")
        await ended(peer)

    def handle(job: Delivery) -> None:
        if job.payload == b"later":
            raise Retry("2s", "busy")
        if job.payload == b"bad":
            raise ValueError("bad")

    def use(address: str) -> None:
        sync.Client(parse_address(address)).work("t", handle, group="g", tries=3)

    async def use_async(address: str) -> None:
        async def handle_async(job: Delivery) -> None:
            handle(job)

        client = aio.Client(parse_address(address))
        await client.work("t", handle_async, group="g", tries=3)

    await in_both(lambda: [script], use, use_async)


async def test_a_worker_works_on_some_at_a_time_and_touches_them() -> None:
    async def script(peer: Peer) -> None:
        await joined(peer, b"WINDOW", b"2", b"WAIT", b"300ms")
        peer.messages(1, b"a", b"b")
        await peer.expect(b"TOUCH", b"1", b"2")
        peer.send(b"+OK\r\n")
        go.set()
        assert await peer.command() == [b"ACK", b"..2"]
        peer.send(b":2\r\n")
        await ended(peer)

    go = asyncio.Event()

    async def handle(job: Delivery) -> None:
        await go.wait()

    async with Scripted(script)() as address:
        client = aio.Client(parse_address(address))
        await client.work("t", handle, group="g", concurrency=2, wait="300ms")


async def test_a_cancelled_worker_gives_back_what_it_had() -> None:
    async def script(peer: Peer) -> None:
        await joined(peer, b"WINDOW", b"2")
        peer.messages(1, b"quick", b"slow")
        await peer.expect(b"ACK", b"..1")
        peer.send(b":1\r\n")
        await stay(peer)

    seen: list[bytes] = []
    begun = asyncio.Event()

    async def handle(job: Delivery) -> None:
        if job.payload == b"slow":
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                seen.append(b"cancelled")

    async with Scripted(script)() as address:
        client = aio.Client(parse_address(address))
        working = asyncio.ensure_future(client.work("t", handle, group="g", concurrency=2))
        await begun.wait()
        await asyncio.sleep(0.05)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
    assert seen == [b"cancelled"]


async def test_a_stopped_worker_finishes_what_runs_and_begins_no_more() -> None:
    async def script(peer: Peer) -> None:
        await joined(peer, b"WINDOW", b"1")
        peer.messages(1, b"a")
        await peer.expect(b"UNSUB", b"DRAIN")
        peer.send(b"+OK\r\n")
        await peer.expect(b"ACK", b"..1")
        peer.send(b":1\r\n>3\r\n$3\r\nEND\r\n$7\r\ndrained\r\n:2\r\n")
        await stay(peer)

    begun: list[bytes] = []
    go = asyncio.Event()

    async def handle(job: Delivery) -> None:
        begun.append(job.payload)
        worker.stop()
        await go.wait()

    async with Scripted(script)() as address:
        client = aio.Client(parse_address(address))
        worker = aio.Worker(client.subscribe("t", group="g"), handle)
        working = asyncio.ensure_future(worker.run())
        await asyncio.sleep(0.05)
        assert not working.done()
        go.set()
        await working
    assert begun == [b"a"]
