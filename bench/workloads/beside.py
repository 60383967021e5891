"""How long a synced publish takes while the server is busy with something else."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import get_args

from bench import load
from bench.aside import beside
from bench.context import Context, payloads
from bench.load import BLOCK, Counting, Lane, Sink, ask, percentile, round_trips
from bench.peers import KINDS
from bench.peers.base import Peer, resp
from bench.peers.busd_server import Busd
from bench.peers.redis_server import Redis, entry_id
from bench.plan import Job, Row, Sample, System, Target, Workload
from bench.workloads.fanout import AHEAD_BLOCKS
from bench.workloads.replay import fill, fill_streams

TOPIC, LONE = b"bench", b"lone"
SIZE_BYTES = 100
REPLAY_BYTES = 1_000_000_000
SUBSCRIBERS = 1_000
FANNED = 40_000
FLOOD = 4_000_000
# Contents repeat after so many messages: 10 million different ones would be a GB in the loader, too.
DIFFERENT = 100_000
IDLE_ROUNDS = 500
Prepare = Callable[[ExitStack], list[Lane]]


def replay(context: Context, server: Peer) -> Prepare:
    """One reader takes a GB from the start; of Redis a tenth of it ten times, which lies in memory anyway."""
    contents = payloads(context.size.messages(DIFFERENT), SIZE_BYTES)
    repeats = max(context.size.some(REPLAY_BYTES // SIZE_BYTES) // len(contents), 1)
    count = len(contents) * repeats
    if isinstance(server, Busd):
        fill(server, server.blocks([TOPIC], contents) * repeats, server.answers(count))
        # Each line has its LF, and so have +OK and END.  That they are right is what `replay` looks at.
        expected, marker, requests = count + 2, b"\n", [b"SUB %b FROM first UNTIL end\n" % TOPIC]
    else:
        assert isinstance(server, Redis)
        fill_streams(server, [(TOPIC, one) for one in contents])
        pages = range(0, len(contents), BLOCK)
        # Nothing has a dash but the id of an entry.
        expected, marker = count, b"-"
        requests = [resp("XRANGE", TOPIC, entry_id(at), "+", "COUNT", BLOCK) for at in pages] * repeats
    return lambda stack: [Lane(stack.enter_context(server.connect()), Counting(expected, marker), requests)]


def fan_out(context: Context, server: Peer) -> Prepare:
    """A publisher and a thousand subscribers."""
    number = context.size.number(SUBSCRIBERS)
    context.need_connections(number)
    contents = payloads(context.size.messages(FANNED), SIZE_BYTES)
    count = len(contents)
    acks: Sink
    if isinstance(server, Busd):
        blocks, expected, marker = server.blocks([TOPIC], contents), count, b"\n"
        acks = server.answers(count, alone=False)
    else:
        assert isinstance(server, Redis)
        made = [resp("PUBLISH", TOPIC, one) for one in contents]
        blocks = [b"".join(made[at : at + BLOCK]) for at in range(0, count, BLOCK)]
        # A message is an array of three strings.
        expected, marker = count, b"*"
        acks = Counting(count, b":")

    def prepare(stack: ExitStack) -> list[Lane]:
        sinks = [Counting(expected, marker, bad=b"GAP") for _ in range(number)]
        lanes = [Lane(stack.enter_context(_subscribed(server)), sink) for sink in sinks]
        publisher = stack.enter_context(server.publisher())
        lanes.append(
            Lane(publisher, acks, blocks, BLOCK, AHEAD_BLOCKS * BLOCK, lambda: min([sink.got for sink in sinks]))
        )
        return lanes

    return prepare


def flood(context: Context, server: Peer, connections: int = 1, ahead_blocks: int = load.AHEAD_BLOCKS) -> Prepare:
    """Others publish as fast as they are answered: one far ahead, or many with one block under way on each."""
    contents = payloads(context.size.messages(DIFFERENT), SIZE_BYTES)
    total = context.size.some(FLOOD if server.system == "busd" else FLOOD // 5)
    repeats = max(total // (len(contents) * connections), 1)
    count = len(contents) * repeats
    blocks = server.blocks([TOPIC], contents) * repeats

    def prepare(stack: ExitStack) -> list[Lane]:
        publishers = [stack.enter_context(server.publisher()) for _ in range(connections)]
        ahead = ahead_blocks * BLOCK
        return [Lane(sock, server.answers(count, alone=False), blocks, ahead=ahead) for sock in publishers]

    return prepare


def idle(context: Context, server: Peer) -> Prepare:
    """Nothing: what the others are to be seen against."""
    return lambda stack: []


LOADS: dict[str, Callable[[Context, Peer], Prepare]] = {
    "nothing": idle,
    "a replay of 1 GB": replay,
    "1,000 subscribers": fan_out,
    "a publish flood": flood,
    "a flood of 50 connections": partial(flood, connections=50, ahead_blocks=1),
}


def delays(context: Context, row: Row) -> Mapping[Row, Sample]:
    """The lone publisher's round trips, as long as the other load lasts; with no other load, for a while."""
    with context.running(KINDS[row.system], "always", [TOPIC, LONE]) as server:
        other = LOADS[row.case.removeprefix("beside ")]
        prepare = other(context, server)
        context.settle()
        times_ns: list[int] = []
        request = [server.publish(LONE, b"x" * SIZE_BYTES)] * 10
        with server.publisher() as sock, beside(prepare) as busy:
            round_trips(sock, request)
            for _ in range(context.size.some(IDLE_ROUNDS, 5) if other is idle else 0):
                times_ns += round_trips(sock, request)
            while True:
                times_ns += round_trips(sock, request)
                if not busy():
                    break
        more = {"p50 ms": percentile(times_ns, 0.5) / 1e3, "worst ms": max(times_ns) / 1e6, "publishes": len(times_ns)}
        return {row: Sample(percentile(times_ns, 0.99) / 1e3, peak_mb=server.peak_mb(), more=more)}


def _subscribed(server: Peer) -> socket.socket:
    """A subscriber of TOPIC, its subscription in force."""
    if isinstance(server, Busd):
        return server.subscriber(b"SUB %b\n" % TOPIC)
    sock = server.connect()
    ask(sock, resp("SUBSCRIBE", TOPIC), b":1\r\n")
    return sock


ROWS = tuple(
    Row(f"beside {name}", system, "ms", "p99") for name in LOADS for system in get_args(System) if system != "nats"
)


WORKLOAD = Workload(
    name="beside",
    title="A synced publish beside other work",
    about=(
        "One client publishes 100 bytes at a time, `always`, while another process loads the same server: not at "
        "all; with a replay of 1 GB from the start; with a flood to 1,000 subscribers; with a publish flood of one "
        "connection far ahead of the answers; with one of 50, a block of 1,000 under way on each. The "
        "figure is the 99th percentile of the round trip. The other process has the lower priority on the loader's "
        "core, so that the delay is the server's. For Redis the replay is XRANGE in pages, the fan-out PUBLISH, the "
        "flood XADD."
    ),
    jobs=tuple(Job((row,), partial(delays, row=row)) for row in ROWS),
    targets=tuple(Target(row, 5, least=False) for row in ROWS if row.system == "busd" and "replay" in row.case),
    rounds=3,
    pinned=True,
    disk_gb=3.0,
)
