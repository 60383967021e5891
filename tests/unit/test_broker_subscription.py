"""One subscription, driven by hand through every cell of its table that it can be in."""

from __future__ import annotations

import pytest

from busd.broker.ports import Outbox
from busd.broker.subscription import Subscription
from busd.broker.terms import Tally, Terms
from busd.rules import subscription as rules
from busd.rules.formats import encoder_for
from busd.rules.parts import Parts
from busd.rules.record import Batch
from busd.rules.select import select
from busd.rules.subscription import TABLE, Event, State
from busd.words.patterns import matcher
from busd.words.requests import Publish
from tests.support.fake_log import FakeLog
from tests.support.memory_server import FakeRuntime

OUTBOX_BYTES = 100
WANTED = matcher((b"a",))


class FakeOutbox:
    """An outbox that drains when the test says so, or at once."""

    def __init__(self) -> None:
        self.queued = b""
        self.sent = b""
        self.taken_at_once = False

    def write(self, data: bytes | Parts, events: int = 1) -> None:
        """See Outbox."""
        self.queued += bytes(data)
        if self.taken_at_once:
            self.drain()

    def buffered(self) -> int:
        """See Outbox."""
        return len(self.queued)

    def bound(self, low_bytes: int) -> None:
        """See Outbox."""

    def drain(self) -> None:
        """The peer took everything."""
        self.sent += self.queued
        self.queued = b""

    @property
    def all(self) -> list[bytes]:
        """Every line so far."""
        return (self.sent + self.queued).splitlines()


class Desk:
    """A subscription with all it needs, and the calls it made."""

    def __init__(self, *, position: int = 1, drop: bool = False, messages: int = 0, form: str = "line") -> None:
        self.runtime = FakeRuntime()
        self.log = FakeLog(self.runtime.now_ns, piece_batches=1)
        self.outbox = FakeOutbox()
        self.calls: list[str] = []
        for _ in range(messages):
            self.publish()
        terms = Terms((b"a",), position, drop=drop, outbox_bytes=OUTBOX_BYTES)
        encoder = encoder_for(form, b"\n")
        outbox: Outbox = self.outbox
        self.it = Subscription(terms, WANTED, encoder, outbox, self.log, self.runtime, Tally())
        self.it.live = lambda reader: self.calls.append("live")
        self.it.not_live = lambda reader: self.calls.append("not live")
        self.it.over = lambda: self.calls.append("over")

    def publish(self, size: int = 1) -> None:
        """A batch of one message lands in the log; the subscription is not told."""
        self.log.append(Publish(b"a", [b"x" * size], size), lambda outcome: None)

    def offer(self, size: int = 1) -> None:
        """A batch lands and becomes visible."""
        self.publish(size)
        (batch,) = self.log.records[-1:]
        assert isinstance(batch, Batch)
        selection = select(batch, WANTED)
        data = b"" if selection is None else self.it.encoder.messages(selection)
        self.it.offered(batch, selection, data)

    def in_state(self, state: State) -> Desk:
        """Bring it there."""
        if state is State.REPLAYING:
            self.log.slow_reads = []
            self.it.start()
        elif state is State.ENDED:
            self.it.start()
            self.it.end(None)
        else:
            self.it.start()
            self.runtime.run()
        if state in (State.HELD, State.SKIPPING):
            self.offer(90)
            self.offer(90)
        assert self.it.state is state
        self.calls.clear()
        return self


def desk(state: State, drop: bool = False) -> Desk:
    """A subscription in this state; with one message to read when it replays."""
    drop = drop or state is State.SKIPPING
    return Desk(drop=drop, messages=state is State.REPLAYING).in_state(state)


def lines(*texts: str) -> list[bytes]:
    """Lines as the outbox has them."""
    return [text.encode() for text in texts]


def test_replaying_read_delivers() -> None:
    one = Desk(messages=2)
    one.outbox.taken_at_once = True
    one.log.slow_reads = []
    one.it.start()
    one.log.slow_reads.pop()()
    assert one.outbox.all == lines("MSG a 1 x")
    assert (one.it.state, one.it.position, one.calls) == (State.REPLAYING, 2, [])


def test_replaying_horizon_joins_in_the_same_call() -> None:
    one = desk(State.REPLAYING)
    assert one.log.slow_reads
    one.log.slow_reads.pop()()
    assert (one.it.state, one.it.position, one.calls) == (State.LIVE, 2, ["live"])


@pytest.mark.parametrize("drop", [False, True])
def test_replaying_full_waits(drop: bool) -> None:
    one = Desk(drop=drop)
    one.publish(90)
    one.publish(90)
    one.it.start()
    one.runtime.run()
    assert (one.it.state, one.it.position) == (State.HELD, 2)
    assert len(one.outbox.all) == 1
    one.outbox.drain()
    one.it.drained()
    one.runtime.run()
    assert (one.it.state, len(one.outbox.all)) == (State.LIVE, 2)


def test_replaying_waits_where_not_all_was_taken() -> None:
    """At once, and not when the next piece has no room: of many that begin together each would have read two."""
    one = Desk(messages=3)
    one.it.start()
    one.runtime.run()
    assert (one.it.state, one.it.position, one.runtime.breaths) == (State.HELD, 2, 1)
    one.outbox.drain()
    one.it.drained()
    one.runtime.run()
    assert (one.it.state, one.outbox.all) == (State.HELD, lines("MSG a 1 x", "MSG a 2 x"))


def test_who_may_lose_goes_on_while_there_is_room() -> None:
    one = Desk(messages=3, drop=True)
    one.it.start()
    one.runtime.run()
    assert (one.it.state, one.outbox.all) == (State.LIVE, lines("MSG a 1 x", "MSG a 2 x", "MSG a 3 x"))


def test_replaying_batch_is_left_to_the_log() -> None:
    one = desk(State.REPLAYING)
    one.outbox.taken_at_once = True
    one.offer()
    assert (one.it.state, one.outbox.all) == (State.REPLAYING, [])
    while one.log.slow_reads:
        one.log.slow_reads.pop()()
        one.runtime.run()
    assert one.outbox.all == lines("MSG a 1 x", "MSG a 2 x")


def test_replaying_drained_changes_nothing() -> None:
    one = desk(State.REPLAYING)
    one.it.drained()
    one.runtime.run()
    assert one.it.state is State.REPLAYING
    assert one.log.slow_reads is not None
    assert len(one.log.slow_reads) == 1


def test_held_read_is_left_to_the_log() -> None:
    """No read is under way when it is held; should one come back, it changes nothing."""
    one = desk(State.HELD)
    before = one.outbox.all
    one.log.read([1], WANTED, 1, one.it._got)
    assert (one.it.state, one.outbox.all) == (State.HELD, before)


def test_held_batch_is_left_to_the_log() -> None:
    one = desk(State.HELD)
    before = one.outbox.all
    one.offer()
    assert (one.it.state, one.outbox.all) == (State.HELD, before)


def test_held_drained_reads_on_from_its_position() -> None:
    one = desk(State.HELD)
    one.offer(3)
    one.outbox.drain()
    one.it.drained()
    assert one.it.state is State.REPLAYING
    one.runtime.run()
    one.outbox.drain()
    one.it.drained()
    one.runtime.run()
    assert one.outbox.all == lines("MSG a 1 " + "x" * 90, "MSG a 2 " + "x" * 90, "MSG a 3 xxx")
    assert one.calls == ["live"]


def test_live_batch_delivers() -> None:
    one = desk(State.LIVE)
    one.offer()
    assert (one.it.state, one.outbox.all, one.it.position) == (State.LIVE, lines("MSG a 1 x"), 2)


def test_live_batch_of_which_a_part_was_read_already() -> None:
    one = Desk(messages=1)
    one.log.append(Publish(b"a", [b"1", b"2", b"3"], 3), lambda outcome: None)
    batch = one.log.records[-1]
    one.it.terms = Terms((b"a",), 3)
    one.it.position = 3
    one.it.state = State.LIVE
    one.it.offered(batch, select(batch, WANTED), b"all of it")  # type: ignore[arg-type]
    assert one.outbox.all == lines("MSG a 3 2", "MSG a 4 3")
    one.it.offered(batch, select(batch, WANTED), b"all of it")  # type: ignore[arg-type]
    assert len(one.outbox.all) == 2


def test_live_full_spills() -> None:
    one = desk(State.LIVE)
    one.offer(90)
    one.offer(90)
    assert (one.it.state, one.it.position, one.calls) == (State.HELD, 2, ["not live"])


def test_live_full_drops() -> None:
    one = desk(State.LIVE, drop=True)
    one.offer(90)
    one.offer(90)
    assert (one.it.state, one.it.position, one.calls) == (State.SKIPPING, 3, [])


def test_live_drained_changes_nothing() -> None:
    one = desk(State.LIVE)
    one.it.drained()
    one.runtime.run()
    assert (one.it.state, one.outbox.all, one.calls) == (State.LIVE, [], [])


def test_skipping_batch_widens_the_gap() -> None:
    one = desk(State.SKIPPING)
    one.offer()
    assert one.it.state is State.SKIPPING
    assert len(one.outbox.all) == 1
    one.it.end("closed")
    assert one.outbox.all[1:] == lines("GAP a 2 3 2 slow", "END closed next=4")


def test_skipping_drained_names_the_gap() -> None:
    one = desk(State.SKIPPING)
    one.outbox.drain()
    one.it.drained()
    assert one.it.state is State.LIVE
    one.offer()
    assert one.outbox.all[1:] == lines("GAP a 2 2 1 slow", "MSG a 3 x")


@pytest.mark.parametrize("state", [State.REPLAYING, State.HELD, State.LIVE, State.SKIPPING])
def test_done_ends_it(state: State) -> None:
    one = desk(state)
    one.it.end("time")
    assert one.it.state is State.ENDED
    assert one.calls == [*(["not live"] if state in (State.LIVE, State.SKIPPING) else []), "over"]
    assert one.outbox.all[-1] == b"END time next=%d" % one.it.position
    assert (b"GAP a 2 2 1 slow" in one.outbox.all) == (state is State.SKIPPING)


@pytest.mark.parametrize("state", [State.REPLAYING, State.HELD, State.LIVE, State.SKIPPING])
def test_left_by_its_reader_it_ends_without_a_word_but_for_a_gap(state: State) -> None:
    one = desk(state)
    before = one.outbox.all
    one.it.leave()
    assert one.it.state is State.ENDED
    assert one.outbox.all == before + (lines("GAP a 2 2 1 slow") if state is State.SKIPPING else [])
    assert "over" not in one.calls


def test_ended_nothing_happens() -> None:
    one = desk(State.ENDED)
    one.offer()
    one.it.drained()
    one.log.read([1], WANTED, 1, one.it._got)
    one.it.end("time")
    one.it.leave()
    one.runtime.run()
    assert (one.it.state, one.outbox.all, one.calls) == (State.ENDED, [], [])


def test_ended_while_a_read_is_under_way() -> None:
    one = desk(State.REPLAYING)
    one.it.end(None)
    assert one.log.slow_reads
    one.log.slow_reads.pop()()
    assert (one.outbox.all, one.calls) == ([], [])


def test_a_read_under_way_is_not_doubled() -> None:
    one = desk(State.REPLAYING)
    one.it._read_now()
    assert one.log.slow_reads is not None
    assert len(one.log.slow_reads) == 1


def test_a_step_gives_waiting_threads_their_turn() -> None:
    one = Desk(messages=5)
    one.outbox.taken_at_once = True
    one.it.start()
    one.runtime.run()
    assert one.runtime.breaths == 5
    assert one.runtime.steps == 4, "all but the first, which answers SUB"


def test_every_cell_is_driven(monkeypatch: pytest.MonkeyPatch) -> None:
    """All the tests above together visit the whole table."""
    visited: set[tuple[State, Event]] = set()

    def watch(state: State, event: Event) -> object:
        visited.add((state, event))
        return rules.step(state, event)

    monkeypatch.setattr("busd.broker.subscription.step", watch)
    for test in (
        test_replaying_read_delivers,
        test_replaying_horizon_joins_in_the_same_call,
        test_replaying_batch_is_left_to_the_log,
        test_replaying_drained_changes_nothing,
        test_held_read_is_left_to_the_log,
        test_held_batch_is_left_to_the_log,
        test_held_drained_reads_on_from_its_position,
        test_live_batch_delivers,
        test_live_full_spills,
        test_live_full_drops,
        test_live_drained_changes_nothing,
        test_skipping_batch_widens_the_gap,
        test_skipping_drained_names_the_gap,
        test_ended_nothing_happens,
        test_ended_while_a_read_is_under_way,
    ):
        test()
    for drop in (False, True):
        test_replaying_full_waits(drop)
    for state in (State.REPLAYING, State.HELD, State.LIVE, State.SKIPPING):
        test_done_ends_it(state)
    assert set(TABLE) - visited == set()
