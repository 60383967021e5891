"""busd alone: how publishing changes with topics, patterns and connections that do nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from bench.context import Context, check_kept, measured, payloads
from bench.load import Counting, Lane, ask, drive
from bench.peers.busd_server import Busd
from bench.plan import Job, Row, Sample, Workload
from bench.workloads.topics import topics

MESSAGES = 300_000
SIZE_BYTES = 100
SPREAD = 20
# The most that a SUB takes.
PATTERNS_A_SUB = 64


def publish(context: Context, server: Busd, names: Sequence[bytes]) -> Sample:
    """One connection, pipelined."""
    count = context.size.messages(MESSAGES)
    blocks = server.blocks(names, payloads(count, SIZE_BYTES))
    with server.publisher() as sock:
        lane = Lane(sock, Counting(count, b":", bad=b"-"), blocks)
        context.settle()
        with measured(server) as meter:
            drive([lane])
    check_kept(server, names, count)
    return meter.rate(count)


def by_topics(context: Context, row: Row, number: int) -> Mapping[Row, Sample]:
    """So many topics, at random."""
    names = topics(number, context.size.messages(MESSAGES)) if number > 1 else [b"bench.0"]
    with context.running(Busd, "interval", names) as server:
        return {row: publish(context, server, names)}


@contextmanager
def patterns(server: Busd, number: int) -> Iterator[None]:
    """So many patterns are subscribed to; none matches what is published."""
    with ExitStack() as stack:
        for first in range(0, number, PATTERNS_A_SUB):
            some = b",".join([b"other.%d.*" % at for at in range(first, min(first + PATTERNS_A_SUB, number))])
            stack.enter_context(server.subscriber(b"SUB %b\n" % some))
        yield


def by_patterns(context: Context, row: Row, number: int) -> Mapping[Row, Sample]:
    """SPREAD topics."""
    names = topics(SPREAD, context.size.messages(MESSAGES))
    with context.running(Busd, "interval", names) as server, patterns(server, number):
        return {row: publish(context, server, names)}


def by_idle_connections(context: Context, rows: Sequence[Row], number: int) -> Mapping[Row, Sample]:
    """So many connections that have said one thing and nothing since; what each takes, and what publishing does."""
    rate, each = rows
    context.need_connections(number)
    with context.running(Busd, "interval", [b"bench"]) as server, ExitStack() as stack:
        before_mb = server.resident_mb()
        for _ in range(number):
            sock = stack.enter_context(server.connect())
            ask(sock, b"PING\n")
        kb = (server.resident_mb() - before_mb) * 1e3 / number
        return {each: Sample(kb, peak_mb=server.peak_mb()), rate: publish(context, server, [b"bench"])}


def _rows(case: str, points: Sequence[int], unit: str = "msg/s") -> dict[int, Row]:
    return {at: Row(f"{case}: {at:,}", "busd", unit, at=at) for at in points}


TOPICS = _rows("topics", (1, 10, 100, 1_000, 10_000))
PATTERNS = _rows("patterns", (1, 100, 10_000, 100_000))
IDLE = _rows("idle connections", (1, 100, 1_000, 10_000))
IDLE_KB = _rows("memory with idle connections", (1, 100, 1_000, 10_000), "kB each")
ABOUT = (
    f"busd alone, `sync = interval`, {MESSAGES:,} messages of {SIZE_BYTES} bytes from one connection, pipelined. "
    f"*Topics* are taken at random; *patterns* are subscribed to, {PATTERNS_A_SUB} a connection, and match none of "
    f"the {SPREAD} topics; *idle connections* were greeted once."
)

WORKLOADS = (
    Workload(
        "scale-topics",
        "Scale: topics",
        ABOUT,
        tuple(Job((row,), partial(by_topics, row=row, number=at)) for at, row in TOPICS.items()),
        chart="curve",
        axis="topics",
        rounds=2,
    ),
    Workload(
        "scale-patterns",
        "Scale: patterns",
        ABOUT,
        tuple(Job((row,), partial(by_patterns, row=row, number=at)) for at, row in PATTERNS.items()),
        chart="curve",
        axis="patterns subscribed to",
        rounds=2,
    ),
    Workload(
        "scale-idle",
        "Scale: idle connections",
        ABOUT,
        tuple(
            Job((IDLE[at], IDLE_KB[at]), partial(by_idle_connections, rows=(IDLE[at], IDLE_KB[at]), number=at))
            for at in IDLE
        ),
        chart="curve",
        axis="idle connections",
        rounds=2,
    ),
)
