"""One member of a group takes and acknowledges everything, a thousand at a time at most."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from bench.context import Context, check_kept, measured, payloads
from bench.load import Exactly, Lane, Stream, ask, drive
from bench.peers.base import resp
from bench.peers.busd_server import Busd
from bench.peers.redis_server import Redis, entry, entry_id
from bench.plan import Job, Row, Sample, Target, Workload, WrongAnswer
from bench.workloads.replay import fill, fill_streams

TOPIC = b"bench"
MESSAGES = 300_000
SIZE_BYTES = 100
WINDOW = 1_000
# The window in two halves: while one is acknowledged the other is on its way.
HALF = WINDOW // 2
CASE = "a member, window 1,000"
LINE = Row(CASE, "busd", "msg/s", "SUB … GROUP, line")
WHOLE, HALVES = (Row(CASE, "redis", "msg/s", f"XREADGROUP COUNT {n} + XACK") for n in ("1000", "500, two ahead"))


def from_busd(context: Context) -> Mapping[Row, Sample]:
    """`ACK ..offset` for each half of a window; the clock stops at the answer to the last one."""
    contents = payloads(context.size.messages(MESSAGES), SIZE_BYTES)
    count = len(contents)
    with context.running(Busd, "interval", [TOPIC]) as server, ExitStack() as stack:
        fill(server, server.blocks([TOPIC], contents), server.answers(count))
        lane = join(server, b"g", *script(contents))
        stack.enter_context(lane.sock)
        context.settle()
        with measured(server) as meter:
            drive([lane])
        check_settled(server, b"g")
        check_kept(server, [TOPIC], count)
        return {LINE: meter.rate(count)}


def script(contents: Sequence[bytes]) -> tuple[Stream, list[bytes]]:
    """What a member gets, and its acknowledgements; the last one is answered, which ends the stream."""
    count = len(contents)
    lines = [b"MSG %b %d %b\n" % (TOPIC, at, one) for at, one in enumerate(contents, 1)]
    acks = [b"ACK ..%d\n" % at for at in range(HALF, count + 1, HALF)]
    acks[-1] = b"QUIET OFF\n" + acks[-1]
    return Stream.of(lines, per=HALF, tail=b"+OK\n:%d\n" % HALF), acks


def join(server: Busd, group: bytes, stream: Stream, acks: Sequence[bytes]) -> Lane:
    """A member's lane, quiet, so that nothing comes but messages; its first window is sent to it at once."""
    sock = server.subscriber(b"SUB %b GROUP %b WINDOW %d\nQUIET\n" % (TOPIC, group, WINDOW))
    return Lane(sock, Exactly(stream), acks, HALF, ahead=0)


def check_settled(server: Busd, group: bytes) -> None:
    """Nothing of the group is out or left.  Raises WrongAnswer."""
    with server.connect() as sock:
        told = ask(sock, b"GROUPS %b\nPING end\n" % group, b"\nend\n")
    if re.search(rb" in_flight=0 .* lag=0 ", told) is None:
        raise WrongAnswer(f"something is left: {told!r}")


def from_redis(context: Context) -> Mapping[Row, Sample]:
    """XREADGROUP and XACK, pipelined: an acknowledgement travels with the next request."""
    contents = payloads(context.size.messages(MESSAGES), SIZE_BYTES)
    count = len(contents)
    found = {}
    with context.running(Redis, "interval", [TOPIC]) as server:
        fill_streams(server, [(TOPIC, one) for one in contents])
        for row, page in ((WHOLE, WINDOW), (HALVES, HALF)):
            lane = redis_member(server, page, contents)
            with lane.sock:
                context.settle()
                with measured(server) as meter:
                    drive([lane])
            with server.connect() as sock:
                told = ask(sock, resp("XPENDING", TOPIC, f"g{page}"), b"\r\n")
                if not told.startswith(b"*4\r\n:0\r\n"):
                    raise WrongAnswer(f"something is left: {told!r}")
            found[row] = meter.rate(count)
    return found


def redis_member(server: Redis, page: int, contents: Sequence[bytes]) -> Lane:
    """A member whose window holds WINDOW // page pages: each is acknowledged, and the next asked for, when it came."""
    count, group = len(contents), f"g{page}"
    ask(server.connect(), resp("XGROUP", "CREATE", TOPIC, group, "0"), b"+OK\r\n")
    read = resp("XREADGROUP", "GROUP", group, "one", "COUNT", page, "STREAMS", TOPIC, ">")
    head = b"*1\r\n*2\r\n$%d\r\n%b\r\n*%d\r\n" % (len(TOPIC), TOPIC, page)
    pages = range(0, count, page)
    items = [entry(at, one) for at, one in enumerate(contents)]
    for at in pages:
        # The page before the ones under way is acknowledged before this one comes.
        before = b":%d\r\n" % page if at >= WINDOW else b""
        items[at] = before + head + items[at]
    acks = [resp("XACK", TOPIC, group, *[entry_id(one) for one in range(at, at + page)]) for at in pages]
    ahead = WINDOW // page
    blocks = [acks[at] + (read if at + ahead < len(acks) else b"") for at in range(len(acks))]
    sock = server.connect()
    sock.sendall(read * ahead)
    return Lane(sock, Exactly(Stream.of(items, per=page, tail=b":%d\r\n" % page * ahead)), blocks, page, ahead=0)


WORKLOAD = Workload(
    name="groups",
    title="A group: read and acknowledge",
    about=(
        f"{MESSAGES:,} messages of {SIZE_BYTES} bytes are in the log; one member takes them all, {WINDOW:,} "
        f"unacknowledged at most, and acknowledges them in runs of {HALF} (XACK names each). The requests are made "
        "beforehand, every byte that comes is compared, and the clock stops at the answer to the last "
        "acknowledgement; afterwards nothing may be pending. `sync = interval`, `appendfsync everysec`."
    ),
    jobs=(Job((LINE,), from_busd), Job((WHOLE, HALVES), from_redis)),
    targets=(Target(LINE, 3, (WHOLE, HALVES)),),
)
