"""Groups as programs use them: the Python clients of busd and redis-py, and the same by hand with a socket."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from functools import partial

from bench import group_members
from bench.context import Context, measured, payloads
from bench.group_members import WINDOW, Run
from bench.peers import KINDS
from bench.peers.base import Peer
from bench.plan import Job, Row, Sample, System, Target, Workload, WrongAnswer
from bench.workloads.replay import fill

TOPIC = b"bench"
MESSAGES = 200_000
SIZE_BYTES = 100
GROUP = "g"
Member = Callable[[int, int], Run]


def member(context: Context, row: Row, make: Member) -> Mapping[Row, Sample]:
    """A new server, a new group, one member that takes and acknowledges everything; connecting included."""
    contents = payloads(context.size.messages(MESSAGES), SIZE_BYTES)
    count = len(contents)
    with context.running(KINDS[row.system], "interval", [TOPIC]) as server:
        fill(server, server.blocks([TOPIC], contents), server.answers(count))
        run = make(server.port, count)
        context.settle()
        gc.collect()
        with measured(server) as meter:
            got = run(GROUP)
        if got != contents:
            raise WrongAnswer(f"{row.who}: {len(got)} of {count} payloads, or others")
        _settled(server)(GROUP)
        return {row: meter.rate(count)}


def _settled(server: Peer) -> Callable[[str], None]:
    """Checks that nothing is left."""
    check = group_members.busd_settled if server.system == "busd" else group_members.redis_settled
    return check(server.port)


def _job(case: str, system: System, variant: str, make: Member) -> Job:
    row = Row(case, system, "msg/s", variant)
    return Job((row,), partial(member, row=row, make=make), ("redis.asyncio",))


def _redis(make: Callable[[int, int, bool], Run], pipelined: bool) -> Member:
    return lambda port, messages: make(port, messages, pipelined)


JOBS = (
    _job("clients", "busd", "asyncio, batches", group_members.busd_aio),
    _job("clients", "busd", "blocking, batches", group_members.busd_sync),
    _job("clients", "busd", "blocking, runs", group_members.busd_runs),
    _job("clients", "redis", "redis-py asyncio", _redis(group_members.redis_aio, False)),
    _job("clients", "redis", "redis-py asyncio, pipelined", _redis(group_members.redis_aio, True)),
    _job("clients", "redis", "redis-py", _redis(group_members.redis_sync, False)),
    _job("clients", "redis", "redis-py, pipelined", _redis(group_members.redis_sync, True)),
    _job("socket and hiredis", "busd", "batch", group_members.busd_raw),
    _job("socket and hiredis", "redis", "one request", lambda port, n: group_members.redis_raw(port, n, 1)),
    _job("socket and hiredis", "redis", "two of 500", lambda port, n: group_members.redis_raw(port, n, 2)),
)


def _target(case: str, variant: str, bound: float) -> Target:
    rows = [job.rows[0] for job in JOBS if job.rows[0].case == case]
    mine = next(row for row in rows if row.variant == variant)
    return Target(mine, bound, tuple(row for row in rows if row.system == "redis"))


WORKLOAD = Workload(
    name="group-clients",
    title="A group, through clients",
    about=(
        f"{MESSAGES:,} messages of {SIZE_BYTES} bytes; one member of a new group takes and acknowledges all of them, "
        f"{WINDOW:,} at a time at most, and every payload becomes an object in Python and is compared. *pipelined*: "
        "the acknowledgement travels with the next request."
    ),
    jobs=JOBS,
    targets=(_target("clients", "asyncio, batches", 3), _target("socket and hiredis", "batch", 3)),
)
