"""A log that grows to 20 GB: publishing behind it, one look into it, restarts, and a thousand slow readers of it.

All of it is one job with one log, because making the log is what takes long.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

from bench.context import Context, Meter, check_kept, measured, payloads
from bench.load import BLOCK, READ_BYTES, Counting, Lane, answer, drive, percentile, round_trips
from bench.machine import forget_pages
from bench.peers.busd_server import Busd
from bench.plan import CannotRun, Job, Row, Sample, Target, Workload, WrongAnswer

TOPIC = b"bench"
SIZE_BYTES = 1_000
# Contents repeat after so many messages: the loader should not hold the log, too.
DIFFERENT = 20_000
# The messages of a round, of which each log has as many: all contents so many times.
REPEATS, ROUNDS = 2, 7
# Where the figures of the curves are taken.
POINTS_GB = (0.2, 1.0, 5.0, 20.0)
# Room on the disk that must be left beside the log.
SPARE_GB = 2.0
LOOKS = 1_000
RESTARTS = 3
READERS = 1_000
# Each reader takes so many sips, in turn with the others.
SIPS = 100
# A slow reader's own buffer: with the kernel's default each would hold megabytes there, and be slow no more.
WINDOW_BYTES = 32 * 1024
# What it takes at once.
SIP_BYTES = 16 * 1024
# As many messages are made at once of what a reader is to get.
PAGE = 20


def _curve(case: str, unit: str) -> dict[float, Row]:
    return {at: Row(f"{case}: {at:g} GB", "busd", unit, at=at) for at in POINTS_GB}


PUBLISH = _curve("publish behind", "msg/s")
SMALL = _curve("publish in turn with it, a small log", "msg/s")
LOOK = _curve("one READ anywhere in", "µs")
STOPPED = _curve("restart after a stop", "s")
KILLED = _curve("restart after kill -9", "s")
MEMORY = Row(f"{READERS:,} slow readers", "busd", "MB", "highest resident memory")


def points_gb(context: Context) -> list[float]:
    """As many of POINTS_GB as the run is to have and the disk has room for.

    Raises:
        CannotRun: there is no room for the least.
    """
    free_gb = shutil.disk_usage(context.base).free / 1e9 - SPARE_GB
    found = [at for at in POINTS_GB if at <= context.size.backlog_gb and at * 1.1 < free_gb]
    if not found:
        raise CannotRun(f"needs {POINTS_GB[0] + SPARE_GB:.1f} GB of disk, {free_gb + SPARE_GB:.1f} are free")
    return found


def large_log(context: Context) -> Mapping[Row, Sample]:
    """Grow, measure, grow on."""
    found: dict[Row, Sample] = {}
    context.need_connections(READERS)
    contents = payloads(DIFFERENT, SIZE_BYTES)
    with context.running(Busd, "interval", [TOPIC]) as server:
        blocks, count = server.blocks([TOPIC], contents), 0
        stages = points_gb(context)
        for at in stages:
            while count * SIZE_BYTES < at * 1e9 * context.size.log_factor:
                publish(server, blocks)
                count += DIFFERENT
            # What was written on the way here is the disk's to write, not the next messages' to wait for.
            context.settle()
            repeats, rounds = context.size.some(REPEATS), context.size.some(ROUNDS)
            with context.running(Busd, "interval", [TOPIC]) as small:
                found[PUBLISH[at]], found[SMALL[at]] = in_turn((server, small), blocks * repeats, rounds)
                added = DIFFERENT * repeats * (rounds + 1)
                check_kept(small, [TOPIC], added)
            count += added
            check_kept(server, [TOPIC], count)
            found[LOOK[at]] = look(context, server, contents, count)
            times = context.size.some(RESTARTS) if at == stages[-1] else 1
            for row, kill in ((STOPPED[at], False), (KILLED[at], True)):
                found[row] = restarted(server, blocks, count, times, kill)
                count += times * DIFFERENT
        found[MEMORY] = slow_readers(context, server, contents, count)
    return found


def in_turn(servers: Sequence[Busd], blocks: Sequence[bytes], rounds: int) -> list[Sample]:
    """The round in the middle of each server's, which alternate; a first one of each is not measured."""
    count = len(blocks) * BLOCK
    samples: list[list[Sample]] = [[] for _ in servers]
    for number in range(rounds + 1):
        pairs = list(zip(servers, samples, strict=True))
        for server, found in pairs if number % 2 else reversed(pairs):
            sample = publish(server, blocks).rate(count)
            if number:
                found.append(sample)
    return [sorted(found, key=lambda one: one.value)[len(found) // 2] for found in samples]


def publish(server: Busd, blocks: Sequence[bytes]) -> Meter:
    """All blocks once, answered and counted."""
    count = len(blocks) * BLOCK
    with server.publisher() as sock:
        lane = Lane(sock, Counting(count, b":", bad=b"-"), blocks)
        with measured(server) as meter:
            drive([lane])
    return meter


def look(context: Context, server: Busd, contents: Sequence[bytes], count: int) -> Sample:
    """Read one message, everywhere in the log, in an order that no memory of the last place helps."""
    number = context.size.some(LOOKS, 50)
    places = [1 + at * 7919 * (count // number + 1) % count for at in range(number)]
    asked = [b"READ %b FROM %d LIMIT 1\nPING end\n" % (TOPIC, place) for place in places]
    with server.connect() as sock:
        for place, request in list(zip(places, asked, strict=True))[:: max(number // 20, 1)]:
            sock.sendall(request)
            expected = b"MSG %b %d %b\n" % (TOPIC, place, contents[(place - 1) % len(contents)])
            if not (told := answer(sock, b"\nend\n")).startswith(expected):
                raise WrongAnswer(f"{request!r}: {told[:200]!r}")
        times_ns = round_trips(sock, asked, b"\nend\n")
    return Sample(percentile(times_ns, 0.5), more={"p99 µs": percentile(times_ns, 0.99)})


def restarted(server: Busd, blocks: Sequence[bytes], count: int, times: int, kill: bool) -> Sample:
    """From the start of the process to its first answer, the log not in the page cache; nothing may be missing."""
    times_s = []
    for _ in range(times):
        # Something was written a moment ago, so that there is a tail to look at.
        publish(server, blocks)
        count += len(blocks) * BLOCK
        if kill:
            server.kill()
        else:
            server.stop()
        forget_pages(server.base)
        began_ns = time.perf_counter_ns()
        server.start()
        times_s.append((time.perf_counter_ns() - began_ns) / 1e9)
        check_kept(server, [TOPIC], count)
    log_gb = sum(path.stat().st_size for path in server.base.rglob("*") if path.is_file()) / 1e9
    return Sample(
        statistics.median(times_s), peak_mb=server.peak_mb(), more={"worst s": max(times_s), "log GB": log_gb}
    )


class Onwards:
    """All messages from an offset on, compared byte by byte; made as they come, because every reader is elsewhere."""

    def __init__(self, contents: Sequence[bytes], first: int) -> None:
        self.left = 1
        self.got = 0
        self._contents, self._next = contents, first
        self._due = b""

    def feed(self, data: bytearray, size: int) -> None:
        """See Sink."""
        while len(self._due) < size:
            offsets = range(self._next, self._next + PAGE)
            lines = [b"MSG %b %d %b\n" % (TOPIC, at, self._contents[(at - 1) % len(self._contents)]) for at in offsets]
            self._due += b"".join(lines)
            self._next += PAGE
        came = data[:size]
        if not self._due.startswith(came):
            raise WrongAnswer(f"before offset {self._next}: {bytes(came[:80])!r} came, {self._due[:80]!r} was due")
        self._due = self._due[size:]
        self.got += came.count(b"\n")


def slow_readers(context: Context, server: Busd, contents: Sequence[bytes], count: int) -> Sample:
    """They replay, each from a place of its own, a few kB at a time, while a publisher goes on."""
    readers = context.size.number(READERS)
    # Nobody comes to what is published meanwhile.
    span = max(1, count - DIFFERENT)
    with ExitStack() as stack:
        lanes = []
        for at in range(readers):
            first = 1 + at * span // readers
            sock = stack.enter_context(server.subscriber(b"SUB %b FROM %d\n" % (TOPIC, first), WINDOW_BYTES))
            lanes.append(Lane(sock, Onwards(contents, first)))
        publisher = stack.enter_context(server.publisher())
        block = b"".join([server.publish(TOPIC, one) for one in contents[:BLOCK]])
        sip, published, times_ns = bytearray(SIP_BYTES), 0, list[int]()
        for _ in range(context.size.some(SIPS, 10)):
            for lane in lanes:
                lane.receive(sip)
            times_ns += round_trips(publisher, [server.publish(TOPIC, contents[0])], b"\n")
            publisher.sendall(block)
            answers = 0
            while answers < BLOCK:
                answers += publisher.recv(READ_BYTES).count(b":")
            published += 1 + BLOCK
        read = sum(lane.sink.got for lane in lanes)
        more = {"at the end MB": server.resident_mb(), "read msgs": read, "published meanwhile": published}
        lone = (("p50", 0.5), ("worst", 1.0))
        more |= {f"lone publish {name} ms": percentile(times_ns, part) / 1e3 for name, part in lone}
        return Sample(server.peak_mb(), peak_mb=server.peak_mb(), more=more)


def _rows() -> Iterator[Row]:
    for curve in (PUBLISH, SMALL, LOOK, STOPPED, KILLED):
        yield from curve.values()
    yield MEMORY


MOST = POINTS_GB[-1]
WORKLOAD = Workload(
    name="large-log",
    title="A large log",
    about=(
        f"busd alone, one log that grows to {MOST:g} GB (or to what fits on the disk), of messages of {SIZE_BYTES:,} "
        f"bytes. *publish*: {REPEATS * DIFFERENT:,} messages, pipelined, when the log has that size, in turn with a "
        f"server whose log was begun for that; the middle one of {ROUNDS} rounds. *READ*: one message, anywhere; of "
        "what was there before a restart little is in the page cache. *restart*: from the start of the process, "
        "Python's own included, to its first answer; the files are dropped from the page cache before, and every "
        f"message is counted after; at the largest size the median of {RESTARTS}. *slow readers*: so many connections "
        f"replay the largest log, each from a place of its own, {SIP_BYTES // 1024} KiB at a time, while a publisher "
        "goes on, after each round of sips with one message that is timed; every byte is compared, the figure is "
        "VmHWM of a server that was restarted before."
    ),
    jobs=(Job(tuple(_rows()), large_log),),
    targets=(
        Target(MEMORY, 150, least=False),
        Target(STOPPED[MOST], 1, least=False),
        Target(KILLED[MOST], 3, least=False),
        Target(PUBLISH[MOST], 0.8, (SMALL[MOST],)),
    ),
    chart="curve",
    axis="GB in the log",
    rounds=1,
)
