"""Replay of one topic that is one of twenty in the log: busd skips the others, Redis has a stream of its own for it."""

from __future__ import annotations

from collections.abc import Mapping

from bench.context import Context, payloads
from bench.load import Exactly, Lane, Stream
from bench.peers.base import resp
from bench.peers.busd_server import Busd
from bench.peers.redis_server import Redis, entry
from bench.plan import Job, Row, Sample, Target, Workload
from bench.workloads.replay import fill, fill_streams, read
from bench.workloads.topics import topics

MESSAGES = 1_000_000
TOPICS = 20
SIZE_BYTES = 100
CHOSEN = b"bench.7"
BUSD = Row("1 topic of 20", "busd", "msg/s", "SUB … line")
REDIS = Row("1 topic of 20", "redis", "msg/s", "XRANGE - +")


def from_busd(context: Context) -> Mapping[Row, Sample]:
    """`SUB bench.7 FROM first UNTIL end`."""
    contents = payloads(context.size.messages(MESSAGES), SIZE_BYTES)
    names = topics(TOPICS, len(contents))
    pairs = enumerate(zip(names, contents, strict=True), 1)
    lines = [b"MSG %b %d %b\n" % (name, at, one) for at, (name, one) in pairs if name == CHOSEN]
    with context.running(Busd, "interval", names) as server:
        fill(server, server.blocks(names, contents), server.answers(len(contents)))
        first = lines[0].split(b" ")[2]
        head = b"+OK next=%b epoch=1\n" % first
        stream = Stream.of(lines, head=head, tail=b"END end next=%d\n" % (len(contents) + 1))
        lane = Lane(server.connect(), Exactly(stream), [b"SUB %b FROM %b UNTIL end\n" % (CHOSEN, first)])
        return {BUSD: read(context, server, lane).rate(len(lines))}


def from_redis(context: Context) -> Mapping[Row, Sample]:
    """XRANGE of that stream."""
    contents = payloads(context.size.messages(MESSAGES), SIZE_BYTES)
    names = topics(TOPICS, len(contents))
    numbered = list(enumerate(zip(names, contents, strict=True)))
    with context.running(Redis, "interval", names) as server:
        fill_streams(server, zip(names, contents, strict=True))
        entries = [entry(at, one) for at, (name, one) in numbered if name == CHOSEN]
        stream = Stream.of(entries, head=b"*%d\r\n" % len(entries))
        lane = Lane(server.connect(), Exactly(stream), [resp("XRANGE", CHOSEN, "-", "+")])
        return {REDIS: read(context, server, lane).rate(len(entries))}


WORKLOAD = Workload(
    name="one-topic",
    title="Replay of one topic of twenty",
    about=(
        f"{MESSAGES:,} messages of {SIZE_BYTES} bytes to {TOPICS} topics at random share busd's log; one reader takes "
        "one topic. In Redis the topic is a stream of its own, so nothing has to be skipped."
    ),
    jobs=(Job((BUSD,), from_busd), Job((REDIS,), from_redis)),
    targets=(Target(BUSD, 0.5, (REDIS,)),),
)
