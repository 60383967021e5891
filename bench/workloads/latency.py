"""One client that waits for every answer: how long a publish takes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from bench.context import Context, check_kept, check_tail, measured, payloads
from bench.load import percentile, round_trips
from bench.peers import KINDS
from bench.plan import Job, Row, Sample, System, Target, Workload

TOPIC = b"bench"
MESSAGES = 10_000
WARM_UP = 500


def unpipelined(context: Context, row: Row, policy: str) -> Mapping[Row, Sample]:
    """The median of so many round trips, after some that are not counted."""
    count = context.size.some(MESSAGES, 200)
    warm_up = context.size.some(WARM_UP, 50)
    with context.running(KINDS[row.system], policy, [TOPIC]) as server, server.publisher() as sock:
        contents = payloads(count + warm_up, 100)
        requests = [server.publish(TOPIC, payload) for payload in contents]
        end = b"}\r\n" if row.system == "nats" else b"\n"
        # Redis answers an id as two lines; both come in one packet, and the second ends it as the first does.
        context.settle()
        round_trips(sock, requests[:warm_up], end)
        with measured(server) as meter:
            times_ns = round_trips(sock, requests[warm_up:], end)
        check_kept(server, [TOPIC], count + warm_up)
        check_tail(server, TOPIC, contents)
        p50, p99 = percentile(times_ns, 0.5), percentile(times_ns, 0.99)
        sample = meter.sample(p50, count, {"p99 µs": p99, "worst µs": max(times_ns) / 1e3})
        return {row: sample}


def _job(case: str, system: System, policy: str, variant: str) -> Job:
    row = Row(case, system, "µs", variant)
    return Job((row,), partial(unpipelined, row=row, policy=policy))


JOBS = (
    _job("written", "busd", "interval", "PUB"),
    _job("written", "redis", "interval", "XADD everysec"),
    _job("written", "nats", "interval", "JetStream file"),
    _job("synced", "busd", "always", "PUB"),
    _job("synced", "redis", "always", "XADD always"),
)

WORKLOAD = Workload(
    name="latency",
    title="One publish at a time",
    about=(
        "A client on a blocking socket publishes 100 bytes and waits for the answer before it sends the next; the "
        f"figure is the median of {MESSAGES:,} round trips. The ratio is busd's time to Redis's at the same "
        "durability, so less is better."
    ),
    jobs=JOBS,
    targets=(
        Target(JOBS[0].rows[0], 1.1, (JOBS[1].rows[0],), least=False),
        Target(JOBS[3].rows[0], 1.3, (JOBS[4].rows[0],), least=False),
    ),
    pinned=True,
)
