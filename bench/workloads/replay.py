"""Everything from the start, to one reader: a million messages that are in the log already."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from zlib import crc32

from bench.context import Context, Meter, measured, payloads
from bench.load import AHEAD_BLOCKS, BLOCK, Counting, Exactly, Filling, Lane, Sink, Stream, drive
from bench.peers.base import Peer, resp
from bench.peers.busd_server import Busd
from bench.peers.nats_server import Nats
from bench.peers.redis_server import Redis, entry, entry_id
from bench.plan import Job, Row, Sample, Target, Workload, WrongAnswer

TOPIC = b"bench"
MESSAGES = 1_000_000
SIZE_BYTES = 100
CASE = "from the start"
RAW, LINE, BATCH = (Row(CASE, "busd", "msg/s", f"SUB … {name}") for name in ("raw", "line", "batch"))
BYTES = Row("bytes", "busd", "GB/s", "SUB … batch")
XRANGE, PAGES = (Row(CASE, "redis", "msg/s", name) for name in ("XRANGE - +", "XRANGE in pages of 1,000"))
PUSH = Row(CASE, "nats", "msg/s", "JetStream push, no acks")
_BATCH_HEAD = re.compile(rb">4\r\n\$5\r\nBATCH\r\n:(\d+)\r\n:(\d+)\r\n\$(\d+)\r\n")


def fill(server: Peer, blocks: Sequence[bytes], answers: Sink) -> None:
    """Publish everything; not measured."""
    with server.publisher() as sock:
        drive([Lane(sock, answers, blocks)])


def fill_streams(server: Redis, entries: Iterable[tuple[bytes, bytes]]) -> None:
    """Topics and payloads into streams, with the ids 0, 1, … of `entry_id`; not measured."""
    made = [server.preload(topic, at, payload) for at, (topic, payload) in enumerate(entries)]
    fill(server, [b"".join(made[at : at + BLOCK]) for at in range(0, len(made), BLOCK)], Counting(len(made), b"$"))


def read(context: Context, server: Peer, lane: Lane) -> Meter:
    """Run the lane under the clock."""
    with lane.sock:
        context.settle()
        with measured(server) as meter:
            drive([lane])
    return meter


def from_busd(context: Context) -> Mapping[Row, Sample]:
    """The three formats, one after the other."""
    contents = payloads(context.size.messages(MESSAGES), SIZE_BYTES)
    count = len(contents)
    found = {}
    with context.running(Busd, "interval", [TOPIC]) as server:
        fill(server, server.blocks([TOPIC], contents), server.answers(count))
        raw = Stream.of([one + b"\n" for one in contents])
        lane = Lane(server.connect(), Exactly(raw), [b"SUB %b FROM first UNTIL end FORMAT raw\n" % TOPIC])
        found[RAW] = read(context, server, lane).rate(count)
        lines = [b"MSG %b %d %b\n" % (TOPIC, at, one) for at, one in enumerate(contents, 1)]
        line = Stream.of(lines, head=b"+OK next=1 epoch=1\n", tail=b"END end next=%d\n" % (count + 1))
        lane = Lane(server.connect(), Exactly(line), [b"SUB %b FROM first UNTIL end\n" % TOPIC])
        found[LINE] = read(context, server, lane).rate(count)
        end = b">3\r\n$3\r\nEND\r\n$3\r\nend\r\n:%d\r\n" % (count + 1)
        whole = Filling(end, count * (SIZE_BYTES + 12) + (1 << 20))
        request = resp("SUB", TOPIC, "FROM", "first", "UNTIL", "end", "FORMAT", "batch")
        meter = read(context, server, Lane(server.resp3(), whole, [request]))
        check_batches(bytes(whole.data), contents)
        found[BATCH] = meter.rate(count)
        found[BYTES] = meter.sample(len(whole.data) / meter.wall_s / 1e9, count)
    return found


def check_batches(data: bytes, contents: Sequence[bytes]) -> None:
    """Every frame holds what its CRC says, and together they hold all payloads, in order.  Raises WrongAnswer."""
    items = b"".join([b"$%d\r\n%b\r\n" % (len(one), one) for one in contents])
    item_bytes = len(items) // len(contents)
    at, done = data.index(b">"), 0
    while (head := _BATCH_HEAD.match(data, at)) is not None:
        # Of the frame's messages those from first to last are meant.
        first, last, size = map(int, head.groups())
        frame = data[head.end() : head.end() + size]
        line, _, body = frame.partition(b"\r\n")
        fields = line.split(b" ")
        begin, n = int(fields[3]), int(fields[4])
        if int(fields[1], 16) != (found := crc32(frame[12:])):
            raise WrongAnswer(f"a frame with another CRC, {found:08x}: {line!r}")
        if not begin <= first <= last < begin + n or body != b"*%d\r\n%b" % (
            n,
            items[(begin - 1) * item_bytes : (begin - 1 + n) * item_bytes],
        ):
            raise WrongAnswer(f"other messages than were published, {first} to {last} in {line!r}")
        if first != done + 1:
            raise WrongAnswer(f"{first} to {last} came behind {done}")
        at, done = head.end() + size + 2, last
    if done != len(contents):
        raise WrongAnswer(f"{done} of {len(contents)} messages in batches, then {data[at : at + 80]!r}")


def from_redis(context: Context) -> Mapping[Row, Sample]:
    """One request for everything, and pages, pipelined as every load here."""
    contents = payloads(context.size.messages(MESSAGES), SIZE_BYTES)
    count = len(contents)
    found = {}
    with context.running(Redis, "interval", [TOPIC]) as server:
        fill_streams(server, [(TOPIC, one) for one in contents])
        entries = [entry(at, one) for at, one in enumerate(contents)]
        lane = Lane(
            server.connect(), Exactly(Stream.of(entries, head=b"*%d\r\n" % count)), [resp("XRANGE", TOPIC, "-", "+")]
        )
        found[XRANGE] = read(context, server, lane).rate(count)
        asked = [resp("XRANGE", TOPIC, entry_id(at), "+", "COUNT", BLOCK) for at in range(0, count, BLOCK)]
        entries[::BLOCK] = [b"*%d\r\n" % BLOCK + one for one in entries[::BLOCK]]
        found[PAGES] = read(context, server, Lane(server.connect(), Exactly(Stream.of(entries)), asked)).rate(count)
    return found


def from_nats(context: Context) -> Mapping[Row, Sample]:
    """A consumer that is sent everything and acknowledges nothing."""
    contents = payloads(context.size.messages(MESSAGES), SIZE_BYTES)
    count = len(contents)
    with context.running(Nats, "interval", [TOPIC]) as server:
        fill(server, server.blocks([TOPIC], contents), server.answers(count))
        # 80 bytes a message: the subject for its acknowledgement has times and counts in it.
        whole = Filling(contents[-1] + b"\r\n", count * (SIZE_BYTES + 120) + (1 << 20))
        meter = read(context, server, Lane(server.subscriber(b"deliver"), whole, [server.consumer(b"deliver")]))
        got = re.findall(rb"MSG %b 1 \S+ %d\r\n(\S+)\r\n" % (TOPIC, SIZE_BYTES), whole.data)
        if got != contents:
            raise WrongAnswer(f"{len(got)} of {count} payloads, or others: {bytes(whole.data[:200])!r}")
        return {PUSH: meter.rate(count)}


WORKLOAD = Workload(
    name="replay",
    title="Replay",
    about=(
        f"{MESSAGES:,} messages of {SIZE_BYTES} bytes are in the log; one reader takes all of them from the start. "
        "Every byte is compared with what was published; of `batch` frames also the CRC, when the clock has stopped. "
        f"Redis answers one XRANGE for everything, or pages of {BLOCK:,}, {AHEAD_BLOCKS} of them asked for ahead; "
        "JetStream pushes to a consumer without acknowledgements. The bars are those of one request for everything, as "
        "busd's are; pages, which Redis answers quicker, have a row of their own. *bytes* counts what came through the "
        "socket."
    ),
    jobs=(
        Job((RAW, LINE, BATCH, BYTES), from_busd),
        Job((XRANGE, PAGES), from_redis),
        Job((PUSH,), from_nats),
    ),
    targets=(Target(RAW, 3, (XRANGE,)), Target(LINE, 1.5, (XRANGE,)), Target(BYTES, 1)),
)
