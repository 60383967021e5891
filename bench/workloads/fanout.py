"""Every message goes to many live subscribers; busd also writes it to its log, the others keep nothing."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from bench.context import Context, Meter, check_kept, measured, payloads
from bench.load import BLOCK, Exactly, Lane, Sink, Stream, ask, drive
from bench.peers import KINDS
from bench.peers.base import Peer, resp
from bench.peers.busd_server import Busd
from bench.peers.nats_server import Nats
from bench.peers.redis_server import Redis
from bench.plan import Job, Row, Sample, Target, Workload

TOPIC = b"bench"
DELIVERIES = 10_000_000
# Messages, for the fewest subscribers.
MOST = 1_000_000
SIZE_BYTES = 100
# Blocks that the slowest subscriber may be behind: below what any of the servers would begin to drop or to buffer in
# earnest (busd's outbox holds about 8,000 of these messages).
AHEAD_BLOCKS = 4


@dataclass(slots=True)
class Fan:
    """What a fan-out takes of a server: who listens, what each must get, who publishes what, and what that is told."""

    subscribers: list[socket.socket]
    stream: Stream
    publisher: socket.socket
    blocks: list[bytes]
    acks: Sink
    per_block: int = BLOCK


def busd_fan(server: Busd, stack: ExitStack, contents: Sequence[bytes], number: int, per_block: int = BLOCK) -> Fan:
    """`SUB`, lines."""
    return Fan(
        [stack.enter_context(server.subscriber(b"SUB %b\n" % TOPIC)) for _ in range(number)],
        Stream.of([b"MSG %b %d %b\n" % (TOPIC, at, one) for at, one in enumerate(contents, 1)]),
        stack.enter_context(server.publisher()),
        server.blocks([TOPIC], contents, per_block),
        server.answers(len(contents)),
        per_block,
    )


def redis_fan(server: Redis, stack: ExitStack, contents: Sequence[bytes], number: int) -> Fan:
    """`SUBSCRIBE`, `PUBLISH`, which is answered with the number of subscribers."""
    subscribers = [stack.enter_context(server.connect()) for _ in range(number)]
    for sock in subscribers:
        ask(sock, resp("SUBSCRIBE", TOPIC), b":1\r\n")
    publishes = [resp("PUBLISH", TOPIC, one) for one in contents]
    return Fan(
        subscribers,
        Stream.of([resp("message", TOPIC, one) for one in contents]),
        stack.enter_context(server.connect()),
        [b"".join(publishes[at : at + BLOCK]) for at in range(0, len(publishes), BLOCK)],
        Exactly(Stream.of([b":%d\r\n" % number] * len(contents))),
    )


def nats_fan(server: Nats, stack: ExitStack, contents: Sequence[bytes], number: int) -> Fan:
    """`SUB`, `PUB`, which is not answered."""
    return Fan(
        [stack.enter_context(server.subscriber(TOPIC)) for _ in range(number)],
        Stream.of([server.message(TOPIC, one) for one in contents]),
        stack.enter_context(server.publisher()),
        server.blocks([TOPIC], contents),
        server.answers(len(contents)),
    )


def spread(fan: Fan, server: Peer, context: Context) -> Meter:
    """Publish all blocks and let every subscriber get exactly the stream; the slowest of them sets the pace."""
    sinks = [Exactly(fan.stream) for _ in fan.subscribers]
    lanes = [Lane(sock, sink) for sock, sink in zip(fan.subscribers, sinks, strict=True)]
    ahead = AHEAD_BLOCKS * fan.per_block
    lanes.append(Lane(fan.publisher, fan.acks, fan.blocks, fan.per_block, ahead, lambda: min([s.got for s in sinks])))
    context.settle()
    with measured(server) as meter:
        drive(lanes)
    return meter


def fan_out(context: Context, row: Row, number: int) -> Mapping[Row, Sample]:
    """A new server, `number` subscribers."""
    deliveries = context.size.messages(min(DELIVERIES, MOST * number))
    contents = payloads(max(deliveries // number // BLOCK, 2) * BLOCK, SIZE_BYTES)
    policy = "interval" if row.system == "busd" else "none"
    with context.running(KINDS[row.system], policy, [TOPIC]) as server, ExitStack() as stack:
        if isinstance(server, Busd):
            fan = busd_fan(server, stack, contents, number)
        elif isinstance(server, Redis):
            fan = redis_fan(server, stack, contents, number)
        else:
            assert isinstance(server, Nats)
            fan = nats_fan(server, stack, contents, number)
        meter = spread(fan, server, context)
        if row.system == "busd":
            check_kept(server, [TOPIC], len(contents))
        return {row: meter.rate(len(contents) * number)}


def _jobs() -> list[Job]:
    jobs = []
    for number in (1, 10, 100):
        case = f"{number} subscriber{'s' * (number > 1)}"
        for row in (
            Row(case, "busd", "deliveries/s", "SUB, logged"),
            Row(case, "redis", "deliveries/s", "SUBSCRIBE"),
            Row(case, "nats", "deliveries/s", "core"),
        ):
            jobs.append(Job((row,), partial(fan_out, row=row, number=number)))
    return jobs


JOBS = _jobs()


def _target(case: str, bound: float) -> Target:
    mine, *theirs = (job.rows[0] for job in JOBS if job.rows[0].case == case)
    return Target(mine, bound, tuple(theirs))


WORKLOAD = Workload(
    name="fanout",
    title="Fan-out to live subscribers",
    about=(
        f"One connection publishes messages of {SIZE_BYTES} bytes in blocks of {BLOCK:,}, never more than "
        f"{AHEAD_BLOCKS} blocks ahead of the slowest subscriber, so that nobody drops anything; every byte of every "
        "subscriber is compared with what it must be. busd writes each message to its log, too (`sync = interval`); "
        "Redis pub/sub and core NATS keep nothing. CPU is for each delivery."
    ),
    jobs=tuple(JOBS),
    targets=(_target("10 subscribers", 1.5), _target("100 subscribers", 3)),
)
