"""Fan-out over many readers and many turns: order kept, each batch encoded once, the backlog counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busd.broker import fanout
from busd.broker.fanout import READERS_PER_TURN, Fanout
from busd.rules.formats import Line
from busd.rules.record import Batch
from busd.rules.select import Selection, build, of_topics
from tests.support.events import Seen as Event
from tests.support.events import parse, seen, wanted
from tests.support.memory_server import FakeRuntime, MemoryConnection, MemoryServer


class FakeReader:
    """Notes what it is offered."""

    def __init__(self) -> None:
        self.encoder = Line(b"\n")
        self.offers: list[tuple[int, int, bytes]] = []
        self.faults: list[Exception] = []
        self.then: Any = lambda: None

    def offered(self, batch: Batch, selection: Selection | None, data: bytes) -> None:
        """See Subscription."""
        self.offers.append((batch.first, 0 if selection is None else selection.count, data))
        self.then()

    def failed(self, error: Exception) -> None:
        """See Subscription."""
        self.faults.append(error)


def batch(first: int, *topics: bytes) -> Batch:
    """One message a topic."""
    return build(range(first, first + len(topics)), topics, [b"x"] * len(topics), 0, "-")


@pytest.fixture
def fan() -> tuple[Fanout, FakeRuntime]:
    """A fan-out and its turns."""
    runtime = FakeRuntime()
    return Fanout(runtime), runtime


def join(it: Fanout, *patterns: bytes) -> FakeReader:
    """A live reader."""
    reader: Any = FakeReader()
    it.join(it.enter(patterns), reader)
    found: FakeReader = reader
    return found


def test_readers_get_what_their_patterns_name(fan: tuple[Fanout, FakeRuntime]) -> None:
    it, _ = fan
    one, two, none = join(it, b"a"), join(it, b"a", b"b.*"), join(it, b"c")
    it.offer(batch(1, b"a", b"b.x"))
    it.offer(batch(3, b"b.x"))
    assert one.offers == [(1, 1, b"MSG a 1 x\n")]
    assert two.offers == [(1, 2, b"MSG a 1 x\nMSG b.x 2 x\n"), (3, 1, b"MSG b.x 3 x\n")]
    assert none.offers == []


def test_those_that_see_the_same_are_given_the_same_bytes(fan: tuple[Fanout, FakeRuntime]) -> None:
    it, _ = fan
    one, two, three = join(it, b"a"), join(it, b"a"), join(it, b"a", b"z")
    one.encoder = two.encoder
    three.encoder = two.encoder
    it.offer(batch(1, b"a", b"b"))
    assert one.offers[0][2] is two.offers[0][2] is three.offers[0][2]


def test_those_that_see_something_else_are_not(fan: tuple[Fanout, FakeRuntime]) -> None:
    it, _ = fan
    one, two = join(it, b"a"), join(it, b"b")
    one.encoder = two.encoder
    it.offer(batch(1, b"a", b"b"))
    assert (one.offers[0][2], two.offers[0][2]) == (b"MSG a 1 x\n", b"MSG b 2 x\n")


def test_a_turn_is_bounded_and_the_backlog_counted(fan: tuple[Fanout, FakeRuntime]) -> None:
    it, runtime = fan
    idle: list[int] = []
    it.on_idle = lambda: idle.append(it.backlog_bytes)
    readers = [join(it, b"a") for _ in range(2 * READERS_PER_TURN + 1)]
    first, second = batch(1, b"a"), batch(2, b"a")
    it.offer(first)
    it.offer(second)
    assert sum(len(reader.offers) for reader in readers) == READERS_PER_TURN
    assert it.backlog_bytes == len(first.record) + len(second.record)
    turns = 1
    while runtime.turn():
        turns += 1
        assert sum(len(reader.offers) for reader in readers) <= turns * READERS_PER_TURN
    assert all([offer[0] for offer in reader.offers] == [1, 2] for reader in readers)
    assert it.backlog_bytes == 0
    assert idle == [0]
    assert runtime.breaths == runtime.steps == 4


def test_a_call_behind_what_is_visible_by_now(fan: tuple[Fanout, FakeRuntime]) -> None:
    it, runtime = fan
    order: list[str] = []
    readers = [join(it, b"a") for _ in range(READERS_PER_TURN + 1)]
    readers[-1].then = lambda: order.append("offered")
    it.then(lambda: order.append("nothing to wait for"))
    it.offer(batch(1, b"a"))
    it.then(lambda: order.append("behind it"))
    it.offer(batch(2, b"a"))
    assert order == ["nothing to wait for"]
    while runtime.turn():
        pass
    assert order == ["nothing to wait for", "offered", "behind it", "offered"]
    assert it.backlog_bytes == 0


@pytest.mark.parametrize("alike", [True, False])
def test_a_turn_is_shorter_where_each_has_much_of_its_own(fan: tuple[Fanout, FakeRuntime], alike: bool) -> None:
    """200 readers of 100 topics each took 40 ms of a turn; where all are given the same, nothing changes."""
    it, runtime = fan
    names = [b"t%d" % number for number in range(2000)]
    readers = [join(it, *names[:1000], b"none") if alike else join(it, *names[at : at + 1000]) for at in range(50)]
    for reader in readers:
        reader.encoder = readers[0].encoder
    it.offer(batch(1, *names))
    served = [sum(len(reader.offers) for reader in readers)]
    while runtime.turn():
        served.append(sum(len(reader.offers) for reader in readers))
    assert [len(reader.offers) for reader in readers] == [1] * 50
    assert [reader.offers[0][1] for reader in readers] == [1000] * 50
    assert max(map(int.__sub__, served, [0, *served])) == (50 if alike else 7)


def test_a_turn_has_fewer_of_long_writes(fan: tuple[Fanout, FakeRuntime]) -> None:
    """200 writes of 58 kB are 7 ms, which everybody else waits for."""
    it, runtime = fan
    readers = [join(it, b"a") for _ in range(READERS_PER_TURN)]
    for reader in readers:
        reader.encoder = readers[0].encoder
    it.offer(build([1], [b"a"], [b"x" * 60_000], 0, "-"))
    assert sum(len(reader.offers) for reader in readers) == READERS_PER_TURN // 5
    while runtime.turn():
        pass
    assert [len(reader.offers) for reader in readers] == [1] * READERS_PER_TURN


def test_what_nobody_wants_costs_nothing(fan: tuple[Fanout, FakeRuntime]) -> None:
    it, runtime = fan
    it.offer(batch(1, b"a"))
    join(it, b"b")
    it.offer(batch(2, b"a"))
    assert it.backlog_bytes == 0
    assert not runtime.turn()


def test_leaving_and_joining(fan: tuple[Fanout, FakeRuntime]) -> None:
    it, _ = fan
    audience = it.enter((b"a",))
    assert it.enter((b"a",)) is audience
    reader: Any = FakeReader()
    it.join(audience, reader)
    it.part(audience, reader)
    it.part(audience, reader)
    it.offer(batch(1, b"a"))
    assert reader.offers == []
    it.join(audience, reader)
    it.offer(batch(2, b"a"))
    assert [offer[0] for offer in reader.offers] == [2]
    it.part(audience, reader)
    it.leave(audience)
    assert it.enter((b"a",)) is audience
    it.leave(audience)
    it.leave(audience)
    assert it.enter((b"a",)) is not audience


def test_a_batch_that_comes_while_one_is_under_way_waits_for_its_turn(fan: tuple[Fanout, FakeRuntime]) -> None:
    it, _ = fan
    one, two = join(it, b"a"), join(it, b"a")
    made: list[int] = []

    def publish_once() -> None:
        if not made:
            made.append(2)
            it.offer(batch(2, b"a"))

    one.then = publish_once
    it.offer(batch(1, b"a"))
    assert [offer[0] for offer in one.offers] == [1, 2]
    assert [offer[0] for offer in two.offers] == [1, 2]
    assert it.backlog_bytes == 0


def test_a_fault_stays_with_its_reader(fan: tuple[Fanout, FakeRuntime]) -> None:
    it, _ = fan
    one, two = join(it, b"a"), join(it, b"a")

    def fail() -> None:
        raise RuntimeError("once")

    one.then = fail
    it.offer(batch(1, b"a"))
    assert [str(fault) for fault in one.faults] == ["once"]
    assert len(two.offers) == 1
    one.then = lambda: None
    it.offer(batch(2, b"a"))
    assert len(one.offers) == len(two.offers) == 2


def test_a_fault_in_choosing_is_told_to_those_it_concerns(
    fan: tuple[Fanout, FakeRuntime], monkeypatch: pytest.MonkeyPatch
) -> None:
    it, _ = fan
    one, other = join(it, b"a"), join(it, b">")

    def fail(batch: Batch, numbers: Sequence[int]) -> Selection | None:
        if len(numbers) == 1:
            raise RuntimeError("broken")
        return of_topics(batch, numbers)

    monkeypatch.setattr(fanout, "of_topics", fail)
    it.offer(batch(1, b"a", b"b"))
    assert [str(fault) for fault in one.faults] == ["broken"]
    assert (other.faults, len(other.offers)) == ([], 1)


# With real subscriptions.

actions = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.lists(st.sampled_from([b"a", b"b"]), min_size=1, max_size=3)),
        st.tuples(st.just("join"), st.sampled_from([b"a", b"b", b">", b"a FROM 1", b"> FROM 1"])),
        st.tuples(st.just("leave"), st.integers(0, 30)),
        st.tuples(st.just("turn"), st.integers(1, 3)),
    ),
    max_size=30,
)


@settings(max_examples=80, deadline=None)
@given(script=actions, per_turn=st.integers(1, 4))
def test_order_is_kept_over_turns_while_readers_come_and_go(script: list[tuple[str, Any]], per_turn: int) -> None:
    server = MemoryServer()
    runtime = server.runtime
    writer = server.connect()
    kept: list[Event] = []
    readers: list[tuple[bytes, int, MemoryConnection]] = []
    gone: list[tuple[bytes, int, MemoryConnection, int]] = []

    def send(connection: MemoryConnection, data: bytes) -> None:
        # Without the turns that `send` would run.
        connection.session.received(data, 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fanout, "READERS_PER_TURN", per_turn)
        for verb, what in script:
            if verb == "publish":
                kept += [Event("MSG", topic, server.broker.horizon + at, b"x") for at, topic in enumerate(what)]
                send(writer, b"".join(b"PUB %b x\n" % topic for topic in what))
            elif verb == "join":
                reader = server.connect()
                pattern = what.split()[0]
                readers.append((pattern, 1 if b"FROM" in what else server.broker.horizon, reader))
                send(reader, b"SUB " + what + b"\n")
            elif verb == "leave" and readers:
                pattern, start, reader = readers.pop(what % len(readers))
                send(reader, b"UNSUB\n")
                gone.append((pattern, start, reader, server.broker.horizon))
            elif verb == "turn":
                for _ in range(what):
                    runtime.turn()
        runtime.run()
    for pattern, start, reader in readers:
        assert seen(parse(reader.received())) == wanted(kept, pattern, start)
    for pattern, start, reader, end in gone:
        *events, last = reader.received().splitlines(keepends=True)
        assert last == b"+OK\n"
        got = seen(parse(b"".join(events)))
        everything = [one for one in wanted(kept, pattern, start) if one.offset < end]
        assert got == everything[: len(got)]
    assert server.broker.fanout.backlog_bytes == 0


def test_publishers_wait_while_fan_out_is_behind() -> None:
    server = MemoryServer()
    writer = server.connect()
    for _ in range(READERS_PER_TURN + 10):
        server.connect().session.received(b"SUB a\n", 0)
    payload = b"x" * 200_000
    for number in range(6):
        assert server.broker.congested is (number * 200_000 > 1 << 20)
        writer.session.received(b"PUB a %b\n" % payload, 0)
    assert server.broker.congested
    assert not writer.reading
    server.runtime.run()
    assert not server.broker.congested
    assert writer.reading


def test_a_reader_whose_events_cannot_be_written_does_not_keep_others_from_theirs(
    fan: tuple[Fanout, FakeRuntime], monkeypatch: pytest.MonkeyPatch
) -> None:
    it, _ = fan
    one, two = join(it, b"a"), join(it, b"a")
    encoder = Line(b"\n")
    monkeypatch.setattr(encoder, "messages", lambda selection: 1 // 0)
    one.encoder = encoder
    it.offer(batch(1, b"a"))
    assert list(map(type, one.faults)) == [ZeroDivisionError]
    assert (one.offers, two.offers) == ([], [(1, 1, b"MSG a 1 x\n")])
    assert it.backlog_bytes == 0
