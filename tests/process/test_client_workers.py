"""Members of groups in both clients against a real server: who gets what, what comes again, what dies."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import random
import time
from collections import Counter

import pytest
from busd_client import aio, sync
from busd_client.deliveries import Delivery
from busd_client.events import BusdError, Retry, Stale

from tests.support.server import ServerProcess
from tests.support.tools import until


async def test_two_members_share_and_two_groups_each_get_all(server: ServerProcess) -> None:
    got: dict[str, list[int]] = {"a1": [], "a2": [], "b": []}

    async def member(name: str) -> None:
        async with await aio.connect(server.address) as busd:
            group = name[0]
            async with busd.subscribe("t", group=group, window=10, until_eof=True) as jobs:
                async for job in jobs.acked():
                    got[name].append(int(job.payload))
                    await asyncio.sleep(0)

    async with await aio.connect(server.address) as busd:
        await busd.publish_many("t", [b"%d" % number for number in range(2000)])
        await busd.eof("t")
        await asyncio.gather(*map(member, got))
        rows = await busd.groups()
    assert got["b"] == list(range(2000))
    assert sorted(got["a1"] + got["a2"]) == list(range(2000))
    assert min(len(got["a1"]), len(got["a2"])) > 100
    assert [(row["group"], row["lag"], row["settled"]) for row in rows] == [("a", 0, 2002), ("b", 0, 2002)]


def test_what_was_not_acknowledged_comes_again_in_order(server: ServerProcess) -> None:
    with sync.connect(server.address) as busd:
        busd.publish_many("t", [b"1", b"2", b"3"])
        with busd.subscribe("t", group="g", window=3) as jobs:
            batch = next(jobs.batches())
            batch[1].ack()
        with busd.subscribe("t", group="g", window=3, limit=2) as jobs:
            assert [(job.token, job.tries) for job in jobs.acked()] == [("1.2", 2), ("3.2", 2)]
        assert busd.groups("g")[0]["lag"] == 0


def test_too_late_is_told(server: ServerProcess) -> None:
    with sync.connect(server.address) as busd:
        busd.publish("t", "x")
        with busd.subscribe("t", group="g", wait="100ms") as jobs:
            events = iter(jobs)
            first, second = next(events), next(events)
            assert isinstance(first, Delivery)
            assert isinstance(second, Delivery)
            first.ack()
            with pytest.raises(Stale) as late:
                jobs.flush(strict=True)
            assert (late.value.count, late.value.first, second.token) == (1, "1", "1.2")


def test_touched_it_stays(server: ServerProcess) -> None:
    with sync.connect(server.address) as busd:
        busd.publish("t", "x")
        with busd.subscribe("t", group="g", wait="300ms") as jobs:
            (job,) = next(jobs.batches())
            for _ in range(6):
                time.sleep(0.1)
                job.touch()
            job.ack()
            jobs.flush(strict=True)
            assert (jobs.settled, busd.groups()[0]["expired"]) == (1, 0)


def test_seek_forget_and_peek(server: ServerProcess) -> None:
    with sync.connect(server.address) as busd:
        busd.publish_many("t", [b"1", b"2"])
        with busd.subscribe("t", group="g", limit=2) as jobs:
            assert len(list(jobs.acked())) == 2
        assert busd.read("t", group="g") == []
        assert busd.seek("g", 2) == 2
        assert [message.payload for message in busd.read("t", group="g")] == [b"2"]
        busd.forget("g")
        with pytest.raises(BusdError, match="GROUP"):
            busd.read("t", group="g")
        assert busd.groups() == []


@pytest.mark.parametrize("threads", [False, True])
async def test_workers_and_what_they_cannot_do(server: ServerProcess, threads: bool) -> None:
    tried: Counter[bytes] = Counter()

    def handle(job: Delivery) -> None:
        tried[job.payload] += 1
        if job.payload == b"bad":
            raise ValueError("no\nway")
        if job.payload == b"later" and job.tries < 3:
            raise Retry(0.01, "wait")

    async def handle_async(job: Delivery) -> None:
        handle(job)

    async with await aio.connect(server.address) as busd:
        await busd.publish_many("t", [b"good", b"bad", b"later"])
        await busd.eof("t")
        handler = handle if threads else handle_async
        await busd.work("t", handler, group="g", concurrency=3, tries=3, until_eof=True)
        assert tried == {b"good": 1, b"bad": 3, b"later": 3}
        (dead,) = await busd.read("_dead.>")
    assert dead.topic == "_dead.g.t"
    assert (dead.headers["reason"], dead.headers["tries"], dead.headers["offset"]) == ("ValueError: no way", "3", "2")


async def test_whatever_a_handler_raises_the_message_is_given_back_at_once(server: ServerProcess) -> None:
    async def cancelled() -> None:
        gone = asyncio.ensure_future(asyncio.sleep(60))
        gone.cancel()
        await gone

    async def handle(job: Delivery) -> None:
        if job.payload == b"no duration":
            raise Retry("1 min")
        if job.payload == b"negative":
            raise Retry(-1)
        if job.payload == b"cancelled":
            await cancelled()
        raise Retry(None, job.payload.decode())

    payloads = [b"no duration", b"negative", b"cancelled", b"delay", b"DELAY 5s"]
    async with await aio.connect(server.address) as busd:
        await busd.publish_many("t", payloads)
        await busd.eof("t")
        async with asyncio.timeout(20):
            await busd.work("t", handle, group="g", tries=1, until_eof=True)
        dead = await busd.read("_dead.>")
    assert {letter.payload: letter.headers["reason"] for letter in dead} == {
        b"no duration": "ValueError: '1 min' is not a duration like 250ms 5s 10m 2h 7d",
        b"negative": "ValueError: -1 s is not a duration",
        b"cancelled": "CancelledError:",
        b"delay": "delay ",
        b"DELAY 5s": "DELAY 5s",
    }


def test_a_retry_goes_through_a_pool_of_processes() -> None:
    again = pickle.loads(pickle.dumps(Retry("5s", "busy")))
    assert (again.delay, again.reason, str(again)) == ("5s", "busy", "busy")


def lag(server: ServerProcess) -> str | int:
    """How much is left of the only group."""
    with sync.connect(server.address) as busd:
        return busd.groups()[0]["lag"]


async def test_nothing_is_lost_when_the_server_dies_again_and_again(server: ServerProcess) -> None:
    done: set[int] = set()
    count = 3000

    async def handle(job: Delivery) -> None:
        await asyncio.sleep(random.random() / 500)
        if random.random() < 0.02:
            raise Retry(0.01)
        done.add(int(job.payload))

    async with await aio.connect(server.address) as busd:
        await busd.publish_many("t", [b"%d" % number for number in range(count)])
        workers = [
            asyncio.ensure_future(busd.work("t", handle, group="g", concurrency=20, window=40)) for _ in range(2)
        ]
        for _ in range(3):
            await asyncio.sleep(0.3)
            server.kill()
            await asyncio.to_thread(server.start)
        await asyncio.to_thread(until, lambda: lag(server) == 0, "all is settled")
        for worker in workers:
            worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await worker
    assert done == set(range(count))
