"""What a large log costs busd: memory under a thousand slow readers, and the time until a restarted server answers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from contextlib import ExitStack

from bench.context import Context, check_kept, payloads
from bench.load import BLOCK, READ_BYTES, Counting, Exactly, Lane, Stream, answer, drive
from bench.machine import forget_pages
from bench.peers.busd_server import Busd
from bench.plan import Job, Row, Sample, Target, Workload

TOPIC = b"bench"
SIZE_BYTES = 1_000
# Contents repeat after so many messages: the loader should not hold the backlog, too.
DIFFERENT = 20_000
READERS = 1_000
# Each reader takes so many sips, in turn with the others.
SIPS = 200
# A slow reader's own buffer: with the kernel's default each would hold megabytes there, and be slow no more.
WINDOW_BYTES = 32 * 1024
# What it takes at once.
SIP_BYTES = 16 * 1024
RESTARTS = 3
AFTER_STOP, AFTER_KILL = "after a stop", "after kill -9"

MEMORY = Row("1,000 slow readers of a large backlog", "busd", "MB", "highest resident memory")
RESTART = {how: Row(f"restart on a large log, {how}", "busd", "s", "cold") for how in (AFTER_STOP, AFTER_KILL)}


def fill_backlog(context: Context, server: Busd) -> tuple[list[bytes], int]:
    """As many GB as the size of the run says; gives the contents, which repeat, and how many messages there are."""
    contents = payloads(context.size.messages(DIFFERENT), SIZE_BYTES)
    repeats = max(int(context.size.backlog_gb * 1e9 / SIZE_BYTES / len(contents)), 1)
    blocks, count = server.blocks([TOPIC], contents), len(contents) * repeats
    with server.publisher() as sock:
        drive([Lane(sock, Counting(count, b":", bad=b"-"), blocks * repeats)])
    check_kept(server, [TOPIC], count)
    return contents, count


def slow_readers(context: Context) -> Mapping[Row, Sample]:
    """They replay from the start, a few kB at a time, while a publisher goes on."""
    with context.running(Busd, "interval", [TOPIC]) as server, ExitStack() as stack:
        contents, _ = fill_backlog(context, server)
        # No slow reader gets beyond what is different.
        stream = Stream.of([b"MSG %b %d %b\n" % (TOPIC, at, one) for at, one in enumerate(contents, 1)], per=1)
        lanes = []
        for _ in range(context.size.number(READERS)):
            sock = stack.enter_context(server.subscriber(b"SUB %b FROM first\n" % TOPIC, WINDOW_BYTES))
            lanes.append(Lane(sock, Exactly(stream)))
        publisher = stack.enter_context(server.publisher())
        block = b"".join([server.publish(TOPIC, one) for one in contents[:BLOCK]])
        sip, published = bytearray(SIP_BYTES), 0
        for _ in range(context.size.some(SIPS, 10)):
            for lane in lanes:
                lane.receive(sip)
            publisher.sendall(block)
            answers = 0
            while answers < BLOCK:
                answers += publisher.recv(READ_BYTES).count(b":")
            published += BLOCK
        read = sum(lane.sink.got for lane in lanes)
        more = {"resident at the end MB": server.resident_mb(), "messages read": read, "published meanwhile": published}
        return {MEMORY: Sample(server.peak_mb(), peak_mb=server.peak_mb(), more=more)}


def restarts(context: Context) -> Mapping[Row, Sample]:
    """From the start of the process to its first answer, the log not in the page cache; nothing may be missing."""
    with context.running(Busd, "interval", [TOPIC]) as server:
        contents, count = fill_backlog(context, server)
        found = {}
        for how, row in RESTART.items():
            times_s = []
            for _ in range(RESTARTS):
                # Something is under way when it ends, so that there is a tail to look at.
                with server.publisher() as sock:
                    drive([Lane(sock, Counting(BLOCK, b":", bad=b"-"), server.blocks([TOPIC], contents[:BLOCK]))])
                    count += BLOCK
                if how == AFTER_STOP:
                    server.stop()
                else:
                    server.kill()
                forget_pages(server.base)
                began_ns = time.perf_counter_ns()
                server.start()
                times_s.append((time.perf_counter_ns() - began_ns) / 1e9)
                check_kept(server, [TOPIC], count)
            log_mb = sum(path.stat().st_size for path in server.base.rglob("*") if path.is_file()) / 1e6
            more = {"worst s": max(times_s), "log MB": log_mb}
            found[row] = Sample(statistics.median(times_s), peak_mb=server.peak_mb(), more=more)
        with server.connect() as sock:
            sock.sendall(b"READ %b FROM %d LIMIT 1\n" % (TOPIC, count - BLOCK + 1))
            expected = b"MSG %b %d %b\n" % (TOPIC, count - BLOCK + 1, contents[0])
            assert answer(sock, b"\nEND limit next=%d\n" % (count - BLOCK + 2)).startswith(expected)
        return found


WORKLOAD = Workload(
    name="memory",
    title="Large logs: memory and restart",
    about=(
        f"busd alone. The log has 2 GB (20 GB with `--big`) of messages of {SIZE_BYTES:,} bytes. *Memory*: "
        f"{READERS:,} connections replay it from the start, {SIP_BYTES // 1024} KiB at a time, while a publisher goes "
        "on; VmHWM at the end. *Restart*: from the start of the process, Python's own included, to its first answer; "
        f"the median of {RESTARTS}, the files dropped from the page cache before each, and every message counted "
        "after each."
    ),
    jobs=(Job((MEMORY,), slow_readers), Job(tuple(RESTART.values()), restarts)),
    targets=(
        Target(MEMORY, 150, least=False),
        Target(RESTART[AFTER_STOP], 1, least=False),
        Target(RESTART[AFTER_KILL], 3, least=False),
    ),
    rounds=3,
)
