"""One connection publishes to many topics at random, synced; the last table is that load from 50 connections."""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial

from bench.context import Context, check_kept, measured, payloads
from bench.load import AHEAD_BLOCKS, BLOCK, Lane, drive
from bench.peers import KINDS
from bench.plan import Job, Row, Sample, Target, Workload

MESSAGES = 300_000
SIZE_BYTES = 100
CONNECTIONS = 50


def topics(number: int, count: int) -> list[bytes]:
    """One a message, at random, the same in every run."""
    draw = random.Random(number)
    return [b"bench.%d" % draw.randrange(number) for _ in range(count)]


def many_topics(context: Context, row: Row, number: int) -> Mapping[Row, Sample]:
    """One connection, `number` topics."""
    count = context.size.messages(MESSAGES)
    chosen = topics(number, count)
    with context.running(KINDS[row.system], "always", chosen) as server:
        lane = Lane(server.publisher(), server.answers(count), server.blocks(chosen, payloads(count, SIZE_BYTES)))
        with lane.sock:
            context.settle()
            with measured(server) as meter:
                drive([lane])
            check_kept(server, chosen, count)
            return {row: meter.rate(count)}


def many_connections(context: Context, row: Row, per_block: int) -> Mapping[Row, Sample]:
    """CONNECTIONS of them, 20 topics, each with one block under way."""
    # A message a round trip is slow work for everybody; the load is cut so that each row takes about as long.
    share = context.size.some(MESSAGES * min(per_block, 100) // 100, CONNECTIONS * per_block) // CONNECTIONS
    share = max(share // per_block, 1) * per_block
    count = share * CONNECTIONS
    chosen, contents = topics(20, count), payloads(count, SIZE_BYTES)
    with context.running(KINDS[row.system], "always", chosen) as server, ExitStack() as stack:
        lanes = []
        for at in range(0, count, share):
            blocks = server.blocks(chosen[at : at + share], contents[at : at + share], per_block)
            sock = stack.enter_context(server.publisher())
            lanes.append(Lane(sock, server.answers(share, alone=False), blocks, per_block, per_block))
        context.settle()
        with measured(server) as meter:
            drive(lanes)
        check_kept(server, chosen, count)
        return {row: meter.rate(count)}


def _jobs() -> list[Job]:
    jobs = []
    for number in (20, 10_000):
        for row in _rows(f"{number:,} topics"):
            jobs.append(Job((row,), partial(many_topics, row=row, number=number)))
    for per_block in (1, 20, BLOCK):
        for row in _rows(f"50 connections, {per_block:,} under way on each"):
            jobs.append(Job((row,), partial(many_connections, row=row, per_block=per_block)))
    return jobs


def _rows(case: str) -> tuple[Row, Row]:
    return Row(case, "busd", "msg/s", "PUB"), Row(case, "redis", "msg/s", "XADD always")


JOBS = _jobs()


def _target(case: str, bound: float) -> Target:
    mine, theirs = (job.rows[0] for job in JOBS if job.rows[0].case == case)
    return Target(mine, bound, (theirs,))


WORKLOAD = Workload(
    name="topics",
    title="Publishing to many topics, from many connections, synced",
    about=(
        f"Messages of {SIZE_BYTES} bytes to topics at random (streams, for Redis), each synced before its answer. "
        f"First one connection, up to {AHEAD_BLOCKS} blocks of {BLOCK:,} under way; then {CONNECTIONS} connections to "
        "20 topics, with one block under way on each: of one message (clients that wait for every answer), of 20, of "
        "1,000."
    ),
    jobs=tuple(JOBS),
    targets=(
        _target("20 topics", 3),
        _target("10,000 topics", 3),
        _target(f"50 connections, {BLOCK:,} under way on each", 2),
    ),
)
