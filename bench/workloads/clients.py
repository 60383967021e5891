"""The clients for Python, on asyncio: publish in pipelines of a thousand that are awaited, and read everything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from busd_client import aio
from busd_client.events import Message
from busd_client.runs import Run

from bench.context import Context, check_kept, check_tail, measured, payloads
from bench.load import BLOCK
from bench.peers import KINDS
from bench.peers.base import Peer
from bench.plan import Job, Row, Sample, System, Target, Workload, WrongAnswer
from bench.workloads.replay import fill

T = TypeVar("T")
TOPIC = "bench"
MESSAGES = 100_000
SIZE_BYTES = 100
Publish = Callable[[Peer, Sequence[bytes]], Awaitable[None]]
Consume = Callable[[Peer, int], Awaitable[list[bytes]]]


def _blocks(contents: Sequence[bytes]) -> list[Sequence[bytes]]:
    return [contents[at : at + BLOCK] for at in range(0, len(contents), BLOCK)]


async def busd_soon(server: Peer, contents: Sequence[bytes]) -> None:
    """A future for each message."""
    async with await aio.connect(f"127.0.0.1:{server.port}") as client:
        for block in _blocks(contents):
            futures = [client.publish_soon(TOPIC, payload) for payload in block]
            await client.flush()
            for future in futures:
                future.result()


async def busd_many(server: Peer, contents: Sequence[bytes]) -> None:
    """A command for each thousand."""
    async with await aio.connect(f"127.0.0.1:{server.port}") as client:
        for block in _blocks(contents):
            await client.publish_many(TOPIC, block)


async def busd_batches(server: Peer, count: int) -> list[bytes]:
    """An object for each message."""
    got: list[bytes] = []
    async with await aio.connect(f"127.0.0.1:{server.port}") as client:
        async for batch in client.subscribe(TOPIC, start="first", until="end").batches():
            got += [message.payload for message in batch if isinstance(message, Message)]
    return got


async def busd_runs(server: Peer, count: int) -> list[bytes]:
    """Columns."""
    got: list[bytes] = []
    async with await aio.connect(f"127.0.0.1:{server.port}") as client:
        async for parts in client.subscribe(TOPIC, start="first", until="end").parts():
            for part in parts:
                if isinstance(part, Run):
                    got += part.payloads()
    return got


async def redis_pipeline(server: Peer, contents: Sequence[bytes]) -> None:
    """A pipeline of XADD for each thousand."""
    import redis.asyncio

    async with redis.asyncio.Redis(port=server.port) as client:
        for block in _blocks(contents):
            pipeline = client.pipeline(transaction=False)
            for payload in block:
                pipeline.xadd(TOPIC, {"p": payload})
            await pipeline.execute()


async def redis_pages(server: Peer, count: int) -> list[bytes]:
    """XRANGE, a thousand at a time."""
    import redis.asyncio

    got: list[bytes] = []
    client: Any
    async with redis.asyncio.Redis(port=server.port) as client:
        after = "-"
        while entries := await client.xrange(TOPIC, after, "+", count=BLOCK):
            got += [fields[b"p"] for _, fields in entries]
            after = "(" + entries[-1][0].decode()
    return got


async def nats_publish(server: Peer, contents: Sequence[bytes]) -> None:
    """A future for each message."""
    import nats

    client = await nats.connect(f"nats://127.0.0.1:{server.port}")
    stream = client.jetstream()
    for block in _blocks(contents):
        await asyncio.gather(*[await stream.publish_async(TOPIC, payload) for payload in block])
    await client.close()


async def nats_ordered(server: Peer, count: int) -> list[bytes]:
    """An ordered consumer: pushed, not acknowledged."""
    import nats

    client = await nats.connect(f"nats://127.0.0.1:{server.port}")
    # Its limits would have it drop what came faster than this loop turns.
    subscription = await client.jetstream().subscribe(
        TOPIC, ordered_consumer=True, pending_msgs_limit=-1, pending_bytes_limit=-1
    )
    got: list[bytes] = []
    async for message in subscription.messages:
        got.append(message.data)
        if len(got) == count:
            break
    await client.close()
    return got


def publishing(context: Context, row: Row, publish: Publish) -> Mapping[Row, Sample]:
    """A new server, one client, connecting included."""
    contents = payloads(context.size.messages(MESSAGES), SIZE_BYTES)
    with context.running(KINDS[row.system], "interval", [TOPIC.encode()]) as server:
        context.settle()
        with measured(server) as meter:
            asyncio.run(_awaited(publish(server, contents)))
        check_kept(server, [TOPIC.encode()], len(contents))
        check_tail(server, TOPIC.encode(), contents)
        return {row: meter.rate(len(contents))}


def consuming(context: Context, row: Row, consume: Consume) -> Mapping[Row, Sample]:
    """The same, for what is there already; the payloads must be what was published."""
    contents = payloads(context.size.messages(MESSAGES), SIZE_BYTES)
    with context.running(KINDS[row.system], "interval", [TOPIC.encode()]) as server:
        fill(server, server.blocks([TOPIC.encode()], contents), server.answers(len(contents)))
        context.settle()
        with measured(server) as meter:
            got = asyncio.run(_awaited(consume(server, len(contents))))
        if got != contents:
            raise WrongAnswer(f"{row.who}: {len(got)} of {len(contents)} payloads, or others")
        return {row: meter.rate(len(contents))}


async def _awaited(what: Awaitable[T]) -> T:
    return await what


def _publish(system: System, variant: str, publish: Publish, *needs: str) -> Job:
    row = Row("publish, pipelines of 1,000", system, "msg/s", variant)
    return Job((row,), partial(publishing, row=row, publish=publish), needs)


def _consume(system: System, variant: str, consume: Consume, *needs: str) -> Job:
    row = Row("read everything", system, "msg/s", variant)
    return Job((row,), partial(consuming, row=row, consume=consume), needs)


JOBS = (
    _publish("busd", "publish_soon", busd_soon),
    _publish("busd", "publish_many", busd_many),
    _publish("redis", "redis-py pipeline", redis_pipeline, "redis.asyncio"),
    _publish("nats", "nats-py publish_async", nats_publish, "nats"),
    _consume("busd", "batches()", busd_batches),
    _consume("busd", "parts()", busd_runs),
    _consume("redis", "redis-py xrange", redis_pages, "redis.asyncio"),
    _consume("nats", "nats-py ordered consumer", nats_ordered, "nats"),
)

WORKLOAD = Workload(
    name="clients",
    title="Python clients on asyncio",
    about=(
        f"{MESSAGES:,} messages of {SIZE_BYTES} bytes, one client, asyncio's own loop. Publishing: {BLOCK:,} "
        "messages, all answers awaited, then the next. Reading: from the first to the last, an object for each "
        "message (`parts()`: columns); the payloads are compared. Here the client is the limit for everybody, so the "
        "column *loader* is near 100 %."
    ),
    jobs=JOBS,
    targets=(
        Target(JOBS[0].rows[0], 3, (JOBS[2].rows[0], JOBS[3].rows[0])),
        Target(JOBS[4].rows[0], 3, (JOBS[6].rows[0], JOBS[7].rows[0])),
    ),
)
