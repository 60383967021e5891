"""One connection publishes as fast as it is answered: written or synced, small and large messages, other dialects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from bench.context import Context, check_kept, check_tail, measured, payloads
from bench.load import AHEAD_BLOCKS, BLOCK, Lane, drive
from bench.peers import KINDS
from bench.peers.busd_server import Busd, as_resp, as_resp_with_header, with_header, with_headers
from bench.peers.redis_server import Redis, with_field, with_fields
from bench.plan import Job, Row, Sample, System, Target, Workload

TOPIC = b"bench"
MESSAGES = 300_000
# A block is at most so much: 1,000 messages of 64 kB would be beyond what may wait on a connection.
BLOCK_BYTES = 1_000_000
# In all, so that large messages take no longer than small ones.
MOST_BYTES = 150_000_000
Request = Callable[[bytes, bytes], bytes]


def pipelined(
    context: Context, row: Row, policy: str, size_bytes: int, request: Request | None
) -> Mapping[Row, Sample]:
    """A new server, MESSAGES of them (MOST_BYTES at most), all answered and counted."""
    per_block = min(BLOCK, BLOCK_BYTES // size_bytes)
    blocks = min(context.size.messages(MESSAGES) // BLOCK, MOST_BYTES // (size_bytes * per_block))
    count = blocks * per_block
    contents = payloads(count, size_bytes)
    form: type[Busd] | type[Redis] = Busd if row.system == "busd" else Redis
    make = KINDS[row.system] if request is None else partial(form, request=request)
    with context.running(make, policy, [TOPIC]) as server:
        lane = Lane(
            server.publisher(),
            server.answers(count),
            server.blocks([TOPIC], contents, per_block),
            per_block,
            AHEAD_BLOCKS * per_block,
        )
        with lane.sock:
            context.settle()
            with measured(server) as meter:
                drive([lane])
            check_kept(server, [TOPIC], count)
            check_tail(server, TOPIC, contents)
            return {row: meter.rate(count)}


def _jobs() -> list[Job]:
    jobs = []

    def add(
        case: str, system: System, variant: str, policy: str, size_bytes: int, request: Request | None = None
    ) -> None:
        row = Row(case, system, "msg/s", variant)
        jobs.append(Job((row,), partial(pipelined, row=row, policy=policy, size_bytes=size_bytes, request=request)))

    for size_bytes, size in ((100, "100 B"), (1000, "1,000 B"), (64_000, "64 kB")):
        for case, policy, fsync in (
            (f"{size}, written", "interval", "everysec"),
            (f"{size}, synced", "always", "always"),
        ):
            add(case, "busd", "PUB", policy, size_bytes)
            if size_bytes == 100:
                add(case, "busd", "PUB in RESP", policy, size_bytes, as_resp)
                add(case, "busd", "HPUB, one header", policy, size_bytes, with_header)
                add(case, "busd", "HPUB, three headers", policy, size_bytes, with_headers)
                add(case, "busd", "PUB in RESP, one header", policy, size_bytes, as_resp_with_header)
            add(case, "redis", f"XADD {fsync}", policy, size_bytes)
            if size_bytes == 100:
                add(case, "redis", f"XADD {fsync}, two fields", policy, size_bytes, with_field)
                add(case, "redis", f"XADD {fsync}, four fields", policy, size_bytes, with_fields)
            if policy == "interval":
                add(case, "nats", "JetStream file", policy, size_bytes)
    return jobs


def _targets(jobs: list[Job]) -> list[Target]:
    # Each in its usual form: a row with headers is beside the one with as many fields.
    usual = ("PUB", "XADD everysec", "XADD always", "JetStream file")
    rows = [job.rows[0] for job in jobs if job.rows[0].variant in usual]

    def target(case: str, bound: float, *systems: str) -> Target:
        mine = next(row for row in rows if row.case == case and row.system == "busd")
        return Target(mine, bound, tuple(row for row in rows if row.case == case and row.system in systems))

    return [
        target("100 B, written", 4, "redis"),
        target("100 B, written", 4, "nats"),
        target("100 B, synced", 6, "redis"),
        target("1,000 B, written", 2.5, "redis", "nats"),
        target("1,000 B, synced", 2.5, "redis"),
    ]


JOBS = _jobs()
WORKLOAD = Workload(
    name="publish",
    title="Publishing, one connection",
    about=(
        f"One connection sends requests in blocks of {BLOCK:,} (at most 1 MB), up to {AHEAD_BLOCKS} blocks ahead of "
        "the answers, and every answer is looked at: busd's offsets must be 1, 2, 3 …; ids and acknowledgements are "
        "counted; afterwards the server is asked how many messages it has, and the last hundred are read back. "
        "*written*: busd `sync = interval`, Redis `appendfsync everysec`, JetStream with file storage. *synced* "
        "before the answer: `always` with both; nats-server does not offer it. With headers: `unit=C`, or `host=a "
        "level=info sent=…` with another time in each message; Redis has the payload and these as fields."
    ),
    jobs=tuple(JOBS),
    targets=tuple(_targets(JOBS)),
)
