"""Slow readers: bounded memory, exact gaps, nothing silent, nobody else disturbed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busd.broker.stride import Stride
from busd.broker.terms import CROWD_BYTES, LEAST_SLICE_BYTES, Tally, Terms
from busd.rules.record import Hole
from busd.words.settings import Limits
from tests.support.events import End, Gap, Ok, Seen, check_lossy, gaps, parse, seen, wanted
from tests.support.memory_server import MemoryConnection, MemoryServer

OUTBOX_BYTES = 400
LIMITS = Limits(outbox_bytes=OUTBOX_BYTES, spill_outbox_bytes=OUTBOX_BYTES)
# What a line has besides its payload, with offsets of two digits.
LINE_BYTES = len(b"MSG bb 99 \n")

Action = tuple[Any, ...]


class Bus:
    """A server, a publisher and what was kept."""

    def __init__(self, limits: Limits = LIMITS, piece_batches: int = 2) -> None:
        self.server = MemoryServer(limits, piece_batches=piece_batches)
        self.publisher = self.server.connect()
        self.kept: list[Seen] = []

    def publish(self, *sizes: int, topic: bytes = b"a") -> None:
        """One batch of messages of these sizes."""
        offset = self.server.log.horizon
        payloads = [(b"%d." % (offset + at) * size)[:size] for at, size in enumerate(sizes)]
        self.kept += [Seen("MSG", topic, offset + at, payload) for at, payload in enumerate(payloads)]
        self.publisher.send(b"".join(b"PUB %b %b\n" % (topic, payload) for payload in payloads))

    def mark(self, verb: bytes, topic: bytes = b"a") -> None:
        """EOF or RESET."""
        if verb == b"EOF":
            self.kept.append(Seen("EOF", topic, self.server.log.horizon))
        self.publisher.send(b"%b %b\n" % (verb, topic))

    def stuck(self, words: bytes) -> MemoryConnection:
        """A reader that takes nothing, but for the answer to its SUB."""
        reader = self.server.connect()
        reader.stuck = True
        reader.send(b"SUB " + words + b"\n")
        return reader

    def stalled(self) -> int:
        """Readers that stand still, as INFO has it."""
        return int(str(dict(self.server.broker.info()["clients"])["stalled"]))


def take_all(reader: MemoryConnection) -> None:
    """The peer takes all there is, and all that comes because of it."""
    while reader.buffered():
        reader.take(reader.buffered())


sizes = st.lists(st.sampled_from([0, 1, 20, 60, 150, 380, 900]), min_size=1, max_size=5)
publishing = st.tuples(st.just("publish"), sizes, st.sampled_from([b"a", b"a", b"bb"]))
slow_steps = st.one_of(
    publishing,
    publishing,
    st.tuples(st.just("take"), st.integers(1, 600)),
    st.tuples(st.just("mark"), st.sampled_from([b"a", b"bb"])),
)


def play(bus: Bus, reader: MemoryConnection, actions: Sequence[Action]) -> None:
    """Carry them out; the outbox is within its bound at every step."""
    largest = 0
    for action in actions:
        if action[0] == "publish":
            largest = max(largest, LINE_BYTES + max(action[1]))
            bus.publish(*action[1], topic=action[2])
        elif action[0] == "take":
            reader.take(action[1])
        else:
            bus.mark(b"EOF", action[1])
        # A pending GAP and an END are told whatever the outbox holds.
        end_bytes = 0 if bus.server.broker.opened else len(b"GAP a 99 99 99 slow\nEND limit next=99\n")
        assert reader.buffered() <= max(OUTBOX_BYTES, OUTBOX_BYTES // 2 + largest) + end_bytes


@settings(max_examples=120, deadline=None)
@given(actions=st.lists(slow_steps, max_size=25), patterns=st.sampled_from([b"a", b"bb", b"a,bb", b">"]))
def test_what_a_dropping_reader_misses_is_named_exactly(actions: list[Action], patterns: bytes) -> None:
    bus = Bus()
    reader = bus.stuck(patterns)
    play(bus, reader, actions)
    take_all(reader)
    bus.publish(1, topic=b"a")
    bus.publish(1, topic=b"bb")
    take_all(reader)
    first, *events = parse(reader.received())
    assert first == Ok(1)
    check_lossy(events, wanted(bus.kept, patterns))
    assert seen(events)[-1] == wanted(bus.kept, patterns)[-1], "it did not come back to life"
    info = dict(bus.server.broker.info()["clients"])
    assert info["gaps"] == len(gaps(events))
    assert info["delivered"] == sum(one.kind == "MSG" for one in seen(events))


@settings(max_examples=80, deadline=None)
@given(actions=st.lists(slow_steps, max_size=20), limit=st.integers(1, 12))
def test_a_limited_reader_is_told_of_every_loss_before_its_end(actions: list[Action], limit: int) -> None:
    bus = Bus()
    reader = bus.stuck(b"a LIMIT %d SLOW drop" % limit)
    play(bus, reader, actions)
    take_all(reader)
    while bus.server.broker.opened:
        bus.publish(1)
        take_all(reader)
    _, *events, end = parse(reader.received())
    assert isinstance(end, End)
    assert end.reason == "limit"
    assert sum(one.kind == "MSG" for one in seen(events)) == limit
    check_lossy(events, [one for one in wanted(bus.kept, b"a") if one.offset < end.next])


@settings(max_examples=80, deadline=None)
@given(
    actions=st.lists(slow_steps, max_size=25),
    patterns=st.sampled_from([b"a", b"bb", b"a,bb", b">"]),
    piece_batches=st.integers(1, 4),
    words=st.sampled_from([b" FROM 1", b" SLOW spill", b" LAST 100"]),
)
def test_a_spilling_reader_gets_everything_in_the_end(
    actions: list[Action], patterns: bytes, piece_batches: int, words: bytes
) -> None:
    bus = Bus(piece_batches=piece_batches)
    reader = bus.stuck(patterns + words)
    play(bus, reader, actions)
    take_all(reader)
    first, *events = parse(reader.received())
    assert first == Ok(1)
    assert events == wanted(bus.kept, patterns)


@settings(max_examples=100, deadline=None)
@given(actions=st.lists(publishing, max_size=12), form=st.sampled_from([b"raw", b"bytes"]), take=st.integers(1, 500))
def test_bare_formats_spill_too(actions: list[Action], form: bytes, take: int) -> None:
    bus = Bus()
    reader = bus.stuck(b"a FORMAT " + form)
    play(bus, reader, actions)
    bus.mark(b"EOF")
    got = b""
    while reader.buffered():
        reader.take(take)
        got += reader.received()
    tail = b"\n" if form == b"raw" else b""
    assert got == b"".join(one.payload + tail for one in wanted(bus.kept, b"a") if one.kind == "MSG")
    assert reader.closed


@pytest.mark.parametrize("form", [b"raw", b"bytes"])
def test_the_end_of_a_stream_behind_a_message_larger_than_the_outbox(form: bytes) -> None:
    for replayed in (True, False):
        bus = Bus()
        if replayed:
            bus.publish(900)
            bus.mark(b"EOF")
        reader = bus.stuck(b"a FROM 1 FORMAT " + form)
        if not replayed:
            bus.publish(900)
            bus.mark(b"EOF")
        take_all(reader)
        assert reader.received().strip() == bus.kept[0].payload
        assert reader.closed


def test_payloads_of_no_bytes_behind_a_message_larger_than_the_outbox() -> None:
    bus = Bus()
    reader = bus.stuck(b"a FORMAT bytes")
    bus.publish(900)
    bus.publish(0, 0, 0)
    bus.publish(3)
    take_all(reader)
    assert reader.received() == b"".join(one.payload for one in bus.kept)


def test_a_gap_is_told_at_half_and_not_before() -> None:
    bus = Bus()
    reader = bus.stuck(b"a")
    reader.take(100)
    bus.publish(190)
    bus.publish(180)
    bus.publish(10, 10)
    half = OUTBOX_BYTES // 2
    reader.take(reader.buffered() - half - 1)
    bus.publish(10)
    assert reader.buffered() == half + 1
    reader.take(1)
    assert reader.buffered() == half + len(b"GAP a 3 5 3 slow\n")
    bus.publish(5)
    take_all(reader)
    _, *events = parse(reader.received())
    assert events == [*bus.kept[:2], Gap(3, 5, 3, "slow"), bus.kept[5]]


def test_messages_of_a_batch_larger_than_the_outbox_go_out_as_far_as_they_fit() -> None:
    bus = Bus()
    reader = bus.stuck(b"a")
    reader.take(100)
    bus.publish(*[30] * 20)
    fitting = OUTBOX_BYTES // (30 + len(b"MSG a 1 \n") + 1)
    take_all(reader)
    _, *events = parse(reader.received())
    assert fitting <= len(seen(events)) <= fitting + 1
    assert gaps(events) == [Gap(len(seen(events)) + 1, 20, 20 - len(seen(events)), "slow")]


@pytest.mark.parametrize("sizes", [(10, 900), (900, 900), (10, 10, 900, 10), (380, 10), (1, 390, 390)])
def test_a_quick_reader_loses_nothing_however_large_the_batch(sizes: tuple[int, ...]) -> None:
    """Its outbox is empty after each write, so there is always room for the next message."""
    bus = Bus()
    reader = bus.server.connect()
    reader.send(b"SUB a\n")
    bus.publish(*sizes)
    bus.publish(1)
    _, *events = parse(reader.received())
    assert events == bus.kept


def test_what_was_missed_is_told_before_the_answer_to_unsub() -> None:
    bus = Bus()
    reader = bus.stuck(b"a")
    bus.publish(300)
    bus.publish(300, 300)
    reader.send(b"UNSUB\n")
    bus.publish(1)
    take_all(reader)
    assert reader.received().splitlines()[-2:] == [b"GAP a 2 3 2 slow", b"+OK"]


def test_a_lost_connection_is_not_written_to() -> None:
    bus = Bus()
    reader = bus.stuck(b"a")
    bus.publish(300)
    bus.publish(300, 300)
    before = reader.buffered()
    reader.drop()
    bus.publish(1)
    assert reader.buffered() == before
    assert not bus.server.broker.opened


@pytest.mark.parametrize("reason", ["time", "closed"])
def test_what_was_missed_is_told_before_the_end(reason: str) -> None:
    bus = Bus()
    reader = bus.stuck(b"a WITHIN 1s")
    bus.publish(300)
    bus.publish(300, 300)
    if reason == "time":
        bus.server.advance(1_000_000_000)
    else:
        bus.server.broker.stop()
    take_all(reader)
    assert parse(reader.received())[-2:] == [Gap(2, 3, 2, "slow"), End(reason, 4)]


def test_ends_of_stream_and_resets_that_fell_into_a_gap_are_still_told() -> None:
    bus = Bus()
    reader = bus.stuck(b">")
    bus.publish(350)
    bus.publish(100)
    bus.mark(b"EOF")
    bus.mark(b"RESET")
    bus.publish(100, topic=b"bb")
    take_all(reader)
    assert parse(reader.received())[2:] == [
        Gap(2, 5, 2, "slow"),
        Seen("EOF", b"a", 3),
        Seen("RESET", b"a", 4, b"2"),
    ]


def test_a_control_batch_that_fits_in_part_is_not_told_twice() -> None:
    """A RESET of many topics is one batch; some of its events had room."""
    bus = Bus()
    topics = [b"t.%d" % number for number in range(40)]
    for topic in topics:
        bus.publish(1, topic=topic)
    reader = bus.stuck(b">")
    reader.take(100)
    reader.received()
    bus.publisher.send(b"RESET >\n")
    take_all(reader)
    bus.publish(1)
    take_all(reader)
    events = parse(reader.received())
    told = [one.topic for one in seen(events) if one.kind == "RESET"]
    assert len(told) == len(set(told))
    missing = sorted(set(topics) - set(told))
    assert gaps(events) == [Gap(81 - len(missing), 80, 0, "slow")]


def test_a_flood_of_marks_costs_no_more_than_a_quarter_of_the_outbox() -> None:
    bus = Bus()
    reader = bus.stuck(b"a")
    bus.publish(390)
    for _ in range(100):
        bus.mark(b"EOF")
    reader.take(reader.buffered())
    assert reader.buffered() <= OUTBOX_BYTES // 4 + 50
    take_all(reader)
    _, *events = parse(reader.received())
    check_lossy(events, bus.kept)


def test_a_stuck_reader_disturbs_nobody() -> None:
    bus = Bus()
    stuck = [bus.stuck(b"a"), bus.stuck(b"a FROM 1")]
    quick = bus.server.connect()
    quick.send(b"SUB a\n")
    for _ in range(30):
        bus.publish(40, 40)
    assert parse(quick.received())[1:] == bus.kept
    for reader in stuck:
        assert reader.buffered() <= OUTBOX_BYTES
    assert bus.server.broker.fanout.backlog_bytes == 0
    assert bus.publisher.reading


def test_many_losses_of_the_log_do_not_fill_the_memory() -> None:
    """A gap a record: a reader that takes nothing is not told them all at once."""
    bus = Bus(piece_batches=1)
    for _ in range(60):
        bus.publish(1)
    log = bus.server.log
    log.records = [Hole(one.first, one.last, one.first - 1, 0, "corrupt", None) for one in log.records]
    reader = bus.stuck(b"a FROM 1")
    assert reader.buffered() <= OUTBOX_BYTES + 50
    take_all(reader)
    assert parse(reader.received())[1:] == [Gap(at, at, None, "corrupt") for at in range(1, 61)]


def test_a_bare_format_ends_at_a_loss_without_a_word() -> None:
    bus = Bus(piece_batches=4)
    for _ in range(4):
        bus.publish(100)
    reader = bus.stuck(b"a FROM 1 FORMAT raw")
    bus.publish(100)
    reader.take(1)
    bus.server.log.trim(5)
    take_all(reader)
    assert reader.received() == b"".join(one.payload + b"\n" for one in bus.kept[:3])
    assert reader.closed
    assert not bus.server.broker.opened


def test_a_bare_format_passes_a_loss_of_others_messages() -> None:
    bus = Bus(piece_batches=1)
    bus.publish(5, 5, topic=b"bb")
    bus.publish(5)
    bus.server.log.trim(3)
    for start in (1, 2):
        reader = bus.server.connect()
        reader.send(b"SUB a FROM %d FORMAT raw\n" % start)
        assert reader.received() == bus.kept[2].payload + b"\n"
        assert not reader.closed


def test_while_many_stand_still_a_replay_goes_in_smaller_slices() -> None:
    bus = Bus(Limits())
    for _ in range(2):
        bus.publish(*[1_000] * 200)
    few = CROWD_BYTES // bus.server.limits.spill_outbox_bytes
    crowd = [bus.stuck(b"a FROM 1") for _ in range(few)]
    assert {reader.buffered() // 1_000 for reader in crowd} == {202}, "a whole batch each"
    crowd += [bus.stuck(b"a FROM 1") for _ in range(few)]
    late, drops = bus.stuck(b"a FROM 1"), bus.stuck(b"a FROM 1 SLOW drop")
    assert drops.buffered() > 200_000, "what a reader that drops has is its own to choose"
    # The answer goes first: while nobody has taken it the outbox is not empty.
    late.take(late.buffered())
    slice_bytes = CROWD_BYTES // (2 * few)
    assert slice_bytes - 1_100 < late.buffered() <= slice_bytes

    take_all(late)
    assert seen(parse(late.received())[1:]) == bus.kept
    before = bus.stalled()
    crowd.pop(0).drop()
    take_all(crowd.pop(0))
    crowd.pop(0).send(b"UNSUB\n")
    assert bus.stalled() == before - 3


def test_a_slice_is_never_too_small_to_be_worth_reading_for() -> None:
    tally = Tally(stalled=1_000_000)
    assert tally.outbox_bytes(Terms((b"a",), 1, outbox_bytes=1 << 17)) == LEAST_SLICE_BYTES
    assert tally.outbox_bytes(Terms((b"a",), 1, outbox_bytes=700)) == 700
    stride = Stride(1 << 17)
    stride.took(10, True, True, False)
    assert stride.bytes > 1 << 16, "so little looks sparse"
    assert tally.piece_bytes(Terms((b"a",), 1, outbox_bytes=1 << 17), stride) == 1 << 16
    assert Tally().piece_bytes(Terms((b"a",), 1, outbox_bytes=1 << 17), stride) == stride.bytes
    assert tally.outbox_bytes(Terms((b"a",), 1, drop=True, outbox_bytes=1 << 20)) == 1 << 20


@pytest.mark.parametrize("patterns", [b"a FROM 1", b"a SLOW spill"])
def test_who_leaves_while_standing_still_is_not_counted_any_more(patterns: bytes) -> None:
    bus = Bus()
    if b"FROM" in patterns:
        bus.publish(*[100] * 10)
    readers = [bus.stuck(patterns) for _ in range(4)]
    bus.publish(*[100] * 10)
    assert bus.stalled() == 4
    readers[0].drop()
    assert bus.stalled() == 3
    bus.server.broker.stop()
    assert bus.stalled() == 0
