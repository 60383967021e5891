"""busd alone: how delivering changes with live subscribers and with groups."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial

from bench.context import Context, check_kept, measured, payloads
from bench.load import BLOCK, drive
from bench.peers.busd_server import Busd
from bench.plan import Job, Row, Sample, Workload
from bench.workloads import groups
from bench.workloads.fanout import MOST, TOPIC, busd_fan, spread
from bench.workloads.replay import fill

DELIVERIES = 10_000_000
SIZE_BYTES = 100
# With many subscribers a block is smaller: what is under way to all of them together must fit into the kernel's memory.
UNDER_WAY = 1_000_000
SETTLED = 1_000_000


def by_subscribers(context: Context, row: Row, number: int) -> Mapping[Row, Sample]:
    """Everything to everybody."""
    context.need_connections(number)
    per_block = min(BLOCK, UNDER_WAY // number)
    blocks = max(context.size.messages(min(DELIVERIES, MOST * number)) // number // per_block, 4)
    contents = payloads(blocks * per_block, SIZE_BYTES)
    with context.running(Busd, "interval", [TOPIC]) as server, ExitStack() as stack:
        meter = spread(busd_fan(server, stack, contents, number, per_block), server, context)
        check_kept(server, [TOPIC], len(contents))
        return {row: meter.rate(len(contents) * number)}


def by_groups(context: Context, row: Row, number: int) -> Mapping[Row, Sample]:
    """So many groups with a member each; every one takes and acknowledges all there is."""
    contents = payloads(max(context.size.messages(SETTLED) // number // BLOCK, 2) * BLOCK, SIZE_BYTES)
    with context.running(Busd, "interval", [groups.TOPIC]) as server, ExitStack() as stack:
        fill(server, server.blocks([groups.TOPIC], contents), server.answers(len(contents)))
        stream, acks = groups.script(contents)
        names = [b"g%d" % at for at in range(number)]
        lanes = [groups.join(server, name, stream, acks) for name in names]
        for lane in lanes:
            stack.enter_context(lane.sock)
        context.settle()
        with measured(server) as meter:
            drive(lanes)
        for name in names:
            groups.check_settled(server, name)
        return {row: meter.rate(len(contents) * number)}


def _rows(case: str, points: tuple[int, ...], unit: str) -> dict[int, Row]:
    return {at: Row(f"{case}: {at:,}", "busd", unit, at=at) for at in points}


SUBSCRIBERS = _rows("subscribers", (1, 10, 100, 1_000, 10_000), "deliveries/s")
GROUPS = _rows("groups", (1, 10, 100), "deliveries/s")

WORKLOADS = (
    Workload(
        "scale-subscribers",
        "Scale: live subscribers",
        f"busd alone, `sync = interval`, messages of {SIZE_BYTES} bytes; every byte of every subscriber is compared. "
        "CPU is for each delivery.",
        tuple(Job((row,), partial(by_subscribers, row=row, number=at)) for at, row in SUBSCRIBERS.items()),
        chart="curve",
        axis="subscribers",
        rounds=2,
    ),
    Workload(
        "scale-groups",
        "Scale: groups",
        "busd alone, `sync = interval`; each group has one member, which takes and acknowledges the whole log, "
        f"{groups.WINDOW:,} at a time at most.",
        tuple(Job((row,), partial(by_groups, row=row, number=at)) for at, row in GROUPS.items()),
        chart="curve",
        axis="groups",
        rounds=2,
    ),
)
