"""Replay, then live: whatever is committed while a reader catches up, it sees each matching message once, in order.

The model is a list of what was kept.  The log is read in pieces of 1 to 4 records, and commits land between reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busd.broker import fanout
from busd.broker.ports import Piece
from busd.broker.stride import HURRIED_BYTES
from busd.words.errors import BusError
from busd.words.patterns import Wanted
from busd.words.settings import Limits
from tests.support.events import End, Event, Gap, Ok, Seen, parse, seen, wanted
from tests.support.memory_server import MemoryConnection, MemoryServer

TOPICS = (b"a", b"b.x", b"b.y", b"c.d.e")
PATTERNS = (b"a", b"b.*", b">", b"b.x,c.>", b"a,b.x", b"*", b"none")
Action = tuple[Any, ...]
# Its patterns, where it begins, and its connection.
Reader = tuple[bytes, int, MemoryConnection]
LOST = BusError("DISK", "the disk failed")


@dataclass
class Bus:
    """A server whose log is read when the test says so, and what should be in it."""

    piece_batches: int = 1
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self.server = MemoryServer(self.limits, hold=True, piece_batches=self.piece_batches)
        self.server.log.slow_reads = []
        self.publisher = self.server.connect()
        self.kept: list[Seen] = []
        self.next = 1

    def commit(self, topics: Sequence[bytes], error: BusError | None = None, kind: str = "MSG") -> None:
        """One commit of a message, or an end of stream, for each of the topics."""
        for topic in topics:
            payload = b"p%d" % self.next if kind == "MSG" else b""
            if error is None:
                self.kept.append(Seen(kind, topic, self.next, payload))
            self.next += 1
            self.publisher.send(b"PUB %b %b\n" % (topic, payload) if kind == "MSG" else b"EOF %b\n" % topic)
        self.server.log.commit(error)
        self.server.runtime.run()

    def reads(self, count: int) -> None:
        """Let so many reads come back."""
        waiting = self.server.log.slow_reads
        assert waiting is not None
        while waiting and count:
            count -= 1
            waiting.pop(0)()
            self.server.runtime.run()

    def look_up_later(self) -> list[Callable[[], None]]:
        """From now on LAST is looked up at once and answered when the calls in this list are made."""
        log, waiting = self.server.log, list[Callable[[], None]]()
        look_up = log.last_floors

        def later(wanted: Wanted, count: int, done: Callable[[dict[bytes, int]], None]) -> None:
            look_up(wanted, count, lambda floors: waiting.append(lambda: done(floors)))

        log.last_floors = later  # type: ignore[method-assign]
        return waiting

    def subscribe(self, words: bytes) -> MemoryConnection:
        """A new reader."""
        reader = self.server.connect()
        reader.send(b"SUB " + words + b"\n")
        return reader


commits = st.tuples(
    st.just("commit"), st.lists(st.sampled_from(TOPICS), min_size=1, max_size=4), st.sampled_from(["MSG", "MSG", "EOF"])
)
losses = st.tuples(st.just("lose"), st.lists(st.sampled_from(TOPICS), min_size=1, max_size=3), st.just("MSG"))
steps = st.one_of(commits, commits, losses, st.tuples(st.just("read"), st.integers(1, 3)), st.just(("join",)))


def play(bus: Bus, actions: Sequence[Action], join: Callable[[Bus], Reader | None]) -> list[Reader]:
    """Carry the actions out; a reader joins at every `join`."""
    readers: list[Reader] = []
    for action in actions:
        if action[0] == "join":
            if (reader := join(bus)) is not None:
                readers.append(reader)
        elif action[0] == "read":
            bus.reads(action[1])
        else:
            bus.commit(action[1], LOST if action[0] == "lose" else None, action[2])
    bus.reads(-1)
    return readers


def announced(bus: Bus, patterns: bytes, start: int, end: int) -> set[Seen]:
    """Ends of stream a reader that begins at `start` is told of at once, when `end` is the horizon."""
    ended = set()
    for topic in patterns.split(b","):
        records = [one for one in bus.kept if one.topic == topic and one.offset < end]
        if records and records[-1].kind == "EOF" and records[-1].offset < start:
            ended.add(records[-1])
    return ended


@settings(max_examples=80, deadline=None)
@given(data=st.data(), piece_batches=st.integers(1, 4), actions=st.lists(steps, max_size=14))
def test_nothing_is_missing_and_nothing_twice(data: st.DataObject, piece_batches: int, actions: list[Action]) -> None:
    bus = Bus(piece_batches)
    told: list[set[Seen]] = []

    def join(bus: Bus) -> Reader:
        patterns = data.draw(st.sampled_from(PATTERNS))
        start = data.draw(st.integers(1, bus.next))
        told.append(announced(bus, patterns, start, bus.next))
        return patterns, start, bus.subscribe(b"%b FROM %d" % (patterns, start))

    readers = play(bus, [("join",), *actions, ("join",)], join)
    for (patterns, start, reader), before in zip(readers, told, strict=True):
        first, *events = parse(reader.received())
        assert first == Ok(start)
        assert set(seen(events[: len(before)])) == before
        assert events[len(before) :] == wanted(bus.kept, patterns, start)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), piece_batches=st.integers(1, 4), actions=st.lists(commits, min_size=1, max_size=8))
def test_ranges_laid_end_to_end_give_everything_once(
    data: st.DataObject, piece_batches: int, actions: list[Action]
) -> None:
    """Each goes on where the END of the one before said, with whatever LIMIT and UNTIL."""
    bus = Bus(piece_batches)
    play(bus, actions, lambda bus: None)
    patterns = data.draw(st.sampled_from(PATTERNS))
    got: list[Seen] = []
    position = 1
    while position < bus.next:
        until = data.draw(st.integers(position + 1, bus.next))
        limit = data.draw(st.none() | st.integers(1, 3))
        words = b"%b FROM %d UNTIL %d" % (patterns, position, until)
        reader = bus.subscribe(words + (b" LIMIT %d" % limit if limit else b""))
        bus.reads(-1)
        first, *events, end = parse(reader.received())
        assert first == Ok(position)
        assert isinstance(end, End)
        assert (end.reason, end.next) == ("end", until) or end.reason == "limit"
        assert position < end.next <= until
        # Ends of stream from before the range are told as a state.
        inside = [one for one in seen(events) if one.offset >= position]
        assert all(one.offset < end.next for one in inside)
        assert limit is None or sum(one.kind == "MSG" for one in inside) <= limit
        got += inside
        position = end.next
    assert got == wanted(bus.kept, patterns)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), actions=st.lists(steps, max_size=12), count=st.integers(1, 3))
def test_the_last_of_each_topic_then_live(data: st.DataObject, actions: list[Action], count: int) -> None:
    bus = Bus(2)
    starts: list[set[Seen]] = []

    def join(bus: Bus) -> Reader:
        patterns = data.draw(st.sampled_from(PATTERNS))
        chosen: set[Seen] = set()
        for topic in TOPICS:
            messages = [one for one in bus.kept if one.topic == topic and one.kind == "MSG"]
            chosen.update(wanted(messages[-count:], patterns))
        starts.append(chosen)
        return patterns, bus.next, bus.subscribe(b"%b LAST %d" % (patterns, count))

    for (patterns, start, reader), chosen in zip(play(bus, [*actions, ("join",)], join), starts, strict=True):
        _, *events = parse(reader.received())
        messages = [one for one in seen(events) if one.kind == "MSG"]
        assert messages == [
            one for one in wanted(bus.kept, patterns) if one.kind == "MSG" and (one in chosen or one.offset >= start)
        ]


@settings(max_examples=80, deadline=None)
@given(
    data=st.data(),
    actions=st.lists(st.one_of(steps, st.tuples(st.just("reset"), st.sampled_from(PATTERNS))), max_size=14),
)
def test_nothing_from_before_a_reset_comes_after_it(data: st.DataObject, actions: list[Action]) -> None:
    bus = Bus(1)
    bus.server.log.hold = False
    readers: list[Reader] = []
    floors: dict[bytes, int] = {}
    for action in [("join",), *actions, ("join",)]:
        if action[0] == "reset":
            topics = {one.topic for one in bus.kept if one.kind == "MSG" and one.offset > floors.get(one.topic, 0)}
            names = [one.topic for one in wanted([Seen("", topic, 1) for topic in sorted(topics)], action[1])]
            for name in names:
                floors[name] = bus.next
                bus.kept.append(Seen("RESET", name, bus.next))
                bus.next += 1
            bus.publisher.send(b"RESET %b\n" % action[1])
        elif action[0] == "join":
            patterns, start = data.draw(st.sampled_from(PATTERNS)), data.draw(st.integers(1, bus.next))
            readers.append((patterns, start, bus.subscribe(b"%b FROM %d" % (patterns, start))))
        elif action[0] == "read":
            bus.reads(action[1])
        else:
            for topic in action[1]:
                bus.commit([topic], None, action[2])
    bus.reads(-1)
    for patterns, start, reader in readers:
        events = [one for one in seen(parse(reader.received())) if one.kind != "EOF"]
        got = [(one.kind, one.topic, one.offset) for one in events]
        all_of_it = [
            (one.kind, one.topic, one.offset) for one in wanted(bus.kept, patterns, start) if one.kind != "EOF"
        ]
        assert [one for one in all_of_it if one in got] == got, "out of order, twice, or never published"
        after = [one for one in all_of_it if one[2] >= floors.get(one[1], 0)]
        assert [one for one in got if one in after] == after, "something that was not removed is missing"
        for at, (kind, topic, offset) in enumerate(got):
            if kind == "RESET":
                assert not [one for one in got[at:] if one[1] == topic and one[2] < offset]


def test_a_reset_hides_what_a_replaying_reader_has_not_had() -> None:
    bus = Bus(1)
    for _ in range(3):
        bus.commit([b"a"])
    reader = bus.subscribe(b"a FROM 1")
    bus.reads(1)
    bus.publisher.send(b"RESET a\n")
    bus.server.log.commit()
    bus.reads(-1)
    assert parse(reader.received()) == [Ok(1), Seen("MSG", b"a", 1, b"p1"), Seen("RESET", b"a", 4, b"3")]


def test_an_end_of_stream_hidden_by_LAST_is_still_told() -> None:
    bus = Bus(4)
    bus.commit([b"a"])
    bus.commit([b"b.x"], kind="EOF")
    bus.commit([b"a"])
    reader = bus.subscribe(b"a,b.x LAST 2")
    bus.reads(-1)
    assert parse(reader.received()) == [
        Ok(1),
        Seen("MSG", b"a", 1, b"p1"),
        Seen("EOF", b"b.x", 2),
        Seen("MSG", b"a", 3, b"p3"),
    ]


@pytest.mark.parametrize("known", ["at once", "later"])
def test_no_end_of_stream_is_told_to_who_left_with_the_answer(known: str) -> None:
    bus = Bus(4)
    bus.commit([b"a"], kind="EOF")
    waiting = bus.look_up_later()
    reader = bus.server.connect()
    reader.send(b"SUB a %s\nUNSUB\nSUB b FORMAT raw\n" % (b"LAST 1" if known == "later" else b"FROM 1"))
    for answer in waiting:
        answer()
    bus.reads(-1)
    bus.commit([b"b"])
    assert reader.received() == b"+OK next=1 epoch=1\n+OK\np2\n"


def test_ends_of_stream_are_told_in_the_order_of_offsets() -> None:
    bus = Bus(1)
    bus.commit([b"a"], kind="EOF")
    bus.commit([b"b.x"], kind="EOF")
    reader = bus.subscribe(b"b.x,a")
    assert parse(reader.received()) == [Ok(3), Seen("EOF", b"a", 1), Seen("EOF", b"b.x", 2)]


def test_only_literal_topics_have_an_end_as_a_state() -> None:
    bus = Bus(1)
    bus.commit([b"a"], kind="EOF")
    assert parse(bus.subscribe(b"*").received()) == [Ok(2)]
    reopened = bus.subscribe(b"a")
    bus.commit([b"a"])
    assert parse(bus.subscribe(b"a").received()) == [Ok(3)]
    assert parse(reopened.received()) == [Ok(2), Seen("EOF", b"a", 1), Seen("MSG", b"a", 2, b"p2")]


def test_a_topic_that_begins_while_LAST_is_looked_up_is_not_missed() -> None:
    """Looking up takes a turn in a thread; what lands meanwhile lies behind the question."""
    bus = Bus(1)
    waiting = bus.look_up_later()
    reader = bus.subscribe(b"a LAST 1")
    bus.commit([b"a"])
    waiting.pop()()
    bus.reads(-1)
    assert parse(reader.received()) == [Ok(1), Seen("MSG", b"a", 1, b"p1")]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (b"a FROM first UNTIL 3", [Ok(1), Seen("MSG", b"a", 1, b"p1"), Seen("MSG", b"a", 2, b"p2"), End("end", 3)]),
        (b"a FROM 2 LIMIT 2", [Ok(2), Seen("MSG", b"a", 2, b"p2"), Seen("MSG", b"a", 3, b"p3"), End("limit", 4)]),
        (b"a FROM 2 LIMIT 1 UNTIL 3", [Ok(2), Seen("MSG", b"a", 2, b"p2"), End("limit", 3)]),
        (b"a FROM 2 LIMIT 2 UNTIL 3", [Ok(2), Seen("MSG", b"a", 2, b"p2"), End("end", 3)]),
        (b"a LAST 1 UNTIL end", [Ok(5), Seen("MSG", b"a", 5, b"p5"), End("end", 6)]),
        (b"a UNTIL 1", [Ok(1), End("end", 1)]),
        (b"a FROM 5 UNTIL 2", [Ok(5), End("end", 5)]),
        (b"none FROM 2 UNTIL 4", [Ok(2), End("end", 4)]),
        (b"none UNTIL end", [Ok(1), End("end", 6)]),
        (b"a FROM end UNTIL end", [Ok(6), End("end", 6)]),
    ],
)
def test_bounds_inside_a_batch(words: bytes, expected: list[Event]) -> None:
    bus = Bus(1)
    bus.commit([b"a"] * 5)
    reader = bus.subscribe(words)
    bus.reads(-1)
    assert parse(reader.received()) == expected


@pytest.mark.parametrize("words", [b"a FROM 4", b"a UNTIL 4", b"a FROM 1 UNTIL 4"])
def test_a_position_beyond_the_end_is_refused(words: bytes) -> None:
    bus = Bus(1)
    bus.commit([b"a", b"a"])
    reader = bus.subscribe(words)
    assert reader.received() == b"-POS 4 is beyond the end; the next offset is 3\n"
    reader.send(b"SUB a FROM 3\n")
    assert parse(reader.received()) == [Ok(3)]
    assert bus.server.broker.fanout.enter((b"a",)).users == 2


def test_a_limit_live_ends_inside_a_batch() -> None:
    bus = Bus(1)
    reader = bus.subscribe(b"a LIMIT 3")
    bus.commit([b"a", b"b.x"])
    bus.commit([b"a"] * 4, kind="MSG")
    assert parse(reader.received()) == [
        Ok(1),
        *(Seen("MSG", b"a", at, b"p%d" % at) for at in (1, 3, 4)),
        End("limit", 5),
    ]


def test_ends_of_stream_do_not_count_against_the_limit() -> None:
    bus = Bus(2)
    bus.commit([b"a"], kind="EOF")
    bus.commit([b"a", b"a"])
    reader = bus.subscribe(b"a FROM 1 LIMIT 1")
    bus.reads(-1)
    assert parse(reader.received()) == [Ok(1), Seen("EOF", b"a", 1), Seen("MSG", b"a", 2, b"p2"), End("limit", 3)]


def test_positions_by_time() -> None:
    bus = Bus(1)
    bus.commit([b"a"])
    bus.server.advance(60_000_000_000)
    bus.commit([b"a"])
    for words in (b"a FROM -30s", b"a FROM @%d" % bus.server.runtime.now_ns(), b"a FROM @2026-11-21T08:00:01Z"):
        reader = bus.subscribe(words)
        bus.reads(-1)
        assert parse(reader.received()) == [Ok(2), Seen("MSG", b"a", 2, b"p2")]
    reader = bus.subscribe(b"a UNTIL -30s")
    bus.reads(-1)
    assert parse(reader.received()) == [Ok(1), Seen("MSG", b"a", 1, b"p1"), End("end", 2)]


def test_an_until_in_the_future_ends_when_the_clock_says_so() -> None:
    bus = Bus(1)
    until = bus.server.runtime.now_ns() + 1_000_000_000
    reader = bus.subscribe(b"a UNTIL @%d" % until)
    bus.commit([b"a"])
    bus.server.advance(999_999_999)
    assert parse(reader.received()) == [Ok(1), Seen("MSG", b"a", 1, b"p1")]
    bus.server.advance(1)
    assert parse(reader.received()) == [End("end", 2)]


def test_an_until_that_comes_while_others_are_served_cuts_off_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was received before the time, and waits behind hundreds of readers, is still delivered."""
    monkeypatch.setattr(fanout, "READERS_PER_TURN", 1)
    bus = Bus(1)
    for _ in range(3):
        bus.subscribe(b"a")
    reader = bus.subscribe(b"a UNTIL @%d" % (bus.server.runtime.now_ns() + 1_000))
    for number in (1, 2):
        bus.publisher.send(b"PUB a p%d\n" % number)
        bus.server.log.commit()
    bus.server.advance(1_000)
    bus.commit([b"a"])
    expected = [Ok(1), *(Seen("MSG", b"a", at, b"p%d" % at) for at in (1, 2)), End("end", 3)]
    assert parse(reader.received()) == expected


def test_an_until_in_the_future_does_not_cut_off_the_replay() -> None:
    """The time comes while messages from before it are still being read."""
    bus = Bus(1)
    for _ in range(3):
        bus.commit([b"a"])
    reader = bus.subscribe(b"a UNTIL @%d" % (bus.server.runtime.now_ns() + 1_000))
    bus.reads(1)
    bus.server.advance(2_000)
    bus.commit([b"a"])
    bus.reads(-1)
    assert parse(reader.received()) == [Ok(1), *(Seen("MSG", b"a", at, b"p%d" % at) for at in (1, 2, 3)), End("end", 4)]


def test_an_until_that_comes_before_the_start_is_known() -> None:
    bus = Bus(1)
    bus.commit([b"a"])
    waiting = bus.look_up_later()
    reader = bus.subscribe(b"a LAST 1 UNTIL @%d" % (bus.server.runtime.now_ns() + 1_000))
    bus.server.advance(2_000)
    bus.commit([b"a"])
    waiting.pop()()
    bus.reads(-1)
    assert parse(reader.received()) == [Ok(1), Seen("MSG", b"a", 1, b"p1"), End("end", 2)]


def test_a_reset_is_not_the_first_message_that_a_read_waits_for() -> None:
    bus = Bus(4)
    bus.commit([b"a"])
    bus.publisher.send(b"RESET a\n")
    bus.server.log.commit()
    reader = bus.server.connect()
    reader.send(b"READ a WITHIN 5s\n")
    bus.reads(-1)
    assert parse(reader.received()) == [Seen("RESET", b"a", 2, b"1")]
    bus.next = 3
    bus.commit([b"a"])
    assert parse(reader.received()) == [Seen("MSG", b"a", 3, b"p3"), End("end", 4)]


@pytest.mark.parametrize("limit", [b"", b" LIMIT 3"])
def test_within_is_for_a_first_message_and_cuts_off_nothing_that_is_there(limit: bytes) -> None:
    bus = Bus(1)
    for _ in range(4):
        bus.commit([b"a"])
    reader = bus.server.connect()
    reader.send(b"READ a WITHIN 5s" + limit + b"\n")
    bus.reads(1)
    bus.server.advance(9_000_000_000)
    bus.commit([b"a"])
    bus.reads(-1)
    count = 3 if limit else 4
    told = [Seen("MSG", b"a", offset, b"p%d" % offset) for offset in range(1, count + 1)]
    assert parse(reader.received()) == [*told, End("limit" if limit else "end", count + 1)]


def test_within_that_is_over_before_it_is_known_that_there_is_nothing() -> None:
    bus = Bus(1)
    bus.commit([b"b"])
    reader = bus.server.connect()
    reader.send(b"READ a WITHIN 5s\n")
    bus.server.advance(9_000_000_000)
    bus.reads(-1)
    assert parse(reader.received()) == [End("time", 2)]


def test_within_ends_a_subscription() -> None:
    bus = Bus(1)
    reader = bus.subscribe(b"a WITHIN 5s")
    bus.commit([b"a"])
    bus.server.advance(4_999_999_999)
    assert parse(reader.received()) == [Ok(1), Seen("MSG", b"a", 1, b"p1")]
    bus.server.advance(1)
    assert parse(reader.received()) == [End("time", 2)]
    bus.commit([b"a"])
    bus.server.advance(5_000_000_000)
    assert reader.received() == b""


def test_trimmed_messages_are_named_with_their_count() -> None:
    bus = Bus(1)
    bus.commit([b"a", b"b.x", b"a"])
    bus.commit([b"a"])
    bus.server.log.trim(4)
    for words, expected in (
        (b"a FROM 1", [Ok(1), Gap(1, 3, 2, "trimmed"), Seen("MSG", b"a", 4, b"p4")]),
        (b"a FROM 2", [Ok(2), Gap(2, 3, None, "trimmed"), Seen("MSG", b"a", 4, b"p4")]),
        (b"c.d.e FROM 1", [Ok(1)]),
        # Of a hole that holds none of its messages a reader need not hear, wherever it starts.
        (b"c.d.e FROM 2", [Ok(2)]),
        (b"b.x FROM 1 UNTIL 3", [Ok(1), Gap(1, 2, None, "trimmed"), End("end", 3)]),
        (b"a FROM first UNTIL end", [Ok(4), Seen("MSG", b"a", 4, b"p4"), End("end", 5)]),
    ):
        reader = bus.subscribe(words)
        bus.reads(-1)
        assert parse(reader.received()) == expected


def test_an_unknown_loss_is_named_without_a_count() -> None:
    bus = Bus(1)
    bus.commit([b"a"])
    bus.server.log.trim(2, "corrupt", known=False)
    reader = bus.subscribe(b"c.d.e FROM 1")
    bus.reads(-1)
    assert parse(reader.received()) == [Ok(1), Gap(1, 1, None, "corrupt")]


def test_what_is_trimmed_below_a_replaying_reader_is_named() -> None:
    bus = Bus(1)
    for _ in range(4):
        bus.commit([b"a"])
    reader = bus.subscribe(b"a FROM 1")
    bus.reads(1)
    bus.server.log.trim(4)
    bus.reads(-1)
    assert parse(reader.received()) == [
        Ok(1),
        Seen("MSG", b"a", 1, b"p1"),
        Gap(2, 3, None, "trimmed"),
        Seen("MSG", b"a", 4, b"p4"),
    ]


@pytest.mark.parametrize(
    ("request_", "budget_bytes"),
    [(b"READ a LIMIT 1\n", HURRIED_BYTES), (b"READ a\n", Limits().spill_outbox_bytes // 2)],
)
def test_who_has_a_limit_reads_a_batch_at_first(
    request_: bytes, budget_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = MemoryServer()
    client = server.connect()
    client.send(b"PUB a x\n")
    read, budgets = server.log.read, list[int]()

    def noted(cursor: list[int], wanted: Wanted, budget_bytes: int, done: Callable[[Piece | Exception], None]) -> None:
        budgets.append(budget_bytes)
        read(cursor, wanted, budget_bytes, done)

    monkeypatch.setattr(server.log, "read", noted)
    client.send(request_)
    assert budgets == [budget_bytes]
