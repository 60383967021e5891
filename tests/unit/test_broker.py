"""The bus as an Engine: counting, congestion, RESET, TOPICS, defaults of SUB and READ, stopping."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest

from busd.broker.broker import Broker
from busd.broker.ports import Outcome
from busd.rules.parts import Parts
from busd.words.errors import BusError
from busd.words.options import parse_read, parse_subscribe
from busd.words.requests import Publish, Read, Subscribe
from busd.words.settings import Limits
from tests.support.memory_server import MemoryServer

FULL = BusError("FULL", "no room")


class FakeSubscriber:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.outbox: Any = self
        self.told: list[Any] = []
        self.sent = b""
        self.low_bytes = -1
        self.stuck = False

    def opened(self, next_offset: int, epoch: int) -> None:
        """See Subscriber."""
        assert self.sent == b""
        self.told.append(("opened", next_offset, epoch))

    def refused(self, error: BusError) -> None:
        """See Subscriber."""
        self.told.append(("refused", error.code))

    def ended(self) -> None:
        """See Subscriber."""
        self.told.append("ended")

    def failed(self) -> None:
        """See Subscriber."""
        self.told.append("failed")

    def write(self, data: bytes | Parts, events: int = 1) -> None:
        """See Outbox."""
        self.sent += bytes(data)

    def buffered(self) -> int:
        """See Outbox."""
        return len(self.sent) if self.stuck else 0

    def bound(self, low_bytes: int) -> None:
        """See Outbox."""
        self.low_bytes = low_bytes


def publish(broker: Broker, topic: bytes, *payloads: bytes, kind: Any = "message") -> list[Outcome]:
    """One run; its outcome when it is decided."""
    outcomes: list[Outcome] = []
    broker.publish(Publish(topic, list(payloads), sum(map(len, payloads)), kind=kind), outcomes.append)
    return outcomes


def sub(words: str, resp: bool = False) -> Subscribe:
    """A SUB as a line asks for it."""
    return parse_subscribe(words.encode().split(), resp, Limits())


def read(words: str, resp: bool = False) -> Read:
    """A READ as a line asks for it."""
    return parse_read(words.encode().split(), resp)


def test_published_messages_become_visible_and_are_counted() -> None:
    broker = MemoryServer().broker
    reader = FakeSubscriber()
    handle = broker.subscribe(sub("a"), reader, 0)
    (outcome,) = publish(broker, b"a", b"1", b"2")
    assert (outcome.first, outcome.count, outcome.errors) == (1, 2, {})
    assert (broker.horizon, broker.epoch) == (3, 1)
    assert reader.told == [("opened", 1, 1)]
    assert reader.sent == b"MSG a 1 1\nMSG a 2 2\n"
    assert dict(broker.info()["clients"]) == {
        "subscriptions": 1,
        "published": 2,
        "delivered": 2,
        "gaps": 0,
        "stalled": 0,
        "refused": 0,
        "held": 0,
        "duplicates": 0,
    }
    handle.end(None)
    assert dict(broker.info()["clients"])["subscriptions"] == 0
    assert reader.told == [("opened", 1, 1)]


def test_what_was_refused_changes_nothing_but_a_count() -> None:
    server = MemoryServer()
    server.log.refuse = FULL
    with pytest.raises(BusError, match="no room"):
        publish(server.broker, b"a", b"1", b"2")
    server.connect().send(b"PUB a 1\nPUB a 2\n")
    clients = dict(server.broker.info()["clients"])
    assert (clients["published"], clients["refused"]) == (0, 2)
    assert server.broker.horizon == 1
    assert [*chain(*server.broker.topics((b">",)))] == []


def test_congestion_ends_once_for_each_that_waits() -> None:
    server = MemoryServer(hold=True)
    broker, calls = server.broker, list[int]()
    server.log.congested = True
    assert broker.congested
    broker.when_roomy(lambda: calls.append(1), 1)
    broker.when_roomy(lambda: calls.append(2), 1)
    broker.visible([])
    assert calls == []
    server.log.congested = False
    broker.visible([])
    broker.visible([])
    assert calls == [1, 2]


def test_one_that_waits_again_is_called_again() -> None:
    server = MemoryServer()
    broker, calls = server.broker, list[int]()

    def again() -> None:
        calls.append(1)
        if len(calls) < 3:
            broker.when_roomy(again, 1)

    broker.when_roomy(again, 1)
    for expected in (1, 2, 3, 3):
        broker.visible([])
        assert len(calls) == expected


def test_reset_removes_counts_and_leaves_out_what_is_empty() -> None:
    broker = MemoryServer().broker
    publish(broker, b"a.x", b"1", b"2")
    publish(broker, b"a.y", b"3")
    publish(broker, b"a.z", b"", kind="eof")
    publish(broker, b"b", b"4")
    outcomes: list[Outcome] = []
    broker.reset((b"a.>",), outcomes.append)
    assert (outcomes[0].first, outcomes[0].count, outcomes[0].removed) == (6, 2, 3)
    broker.reset((b"a.>", b"none"), outcomes.append)
    assert (outcomes[1].first, outcomes[1].count, outcomes[1].removed) == (8, 0, 0)
    assert broker.horizon == 8
    broker.reset((b"b",), outcomes.append)
    assert outcomes[2].removed == 1


def test_topics_are_sorted_and_say_their_state() -> None:
    broker = MemoryServer().broker
    publish(broker, b"b", b"1")
    publish(broker, b"a", b"1", b"2")
    publish(broker, b"a", b"", kind="eof")
    broker.reset((b"b",), lambda outcome: None)
    assert [*chain(*broker.topics((b">",)))] == [
        ("a", [("messages", 2), ("last", 4), ("state", "ended")]),
        ("b", [("messages", 0), ("last", 5), ("state", "open")]),
    ]
    assert [name for name, _ in chain(*broker.topics((b"a", b"c")))] == ["a"]
    assert [*chain(*broker.topics((b"c",)))] == []


@pytest.mark.parametrize(
    ("words", "first"),
    [("a", 3), ("a UNTIL end", 1), ("a FROM first", 1), ("a FROM next", 3), ("a FROM end", 3), ("a LAST 1", 2)],
)
def test_where_a_subscription_begins(words: str, first: int) -> None:
    broker = MemoryServer().broker
    publish(broker, b"a", b"1", b"2")
    reader = FakeSubscriber()
    broker.subscribe(sub(words), reader, 0)
    assert reader.told[0] == ("opened", first, 1)
    assert reader.sent.count(b"MSG") == 3 - first


def test_READ_begins_at_first() -> None:
    broker = MemoryServer().broker
    publish(broker, b"a", b"1", b"2")
    reader = FakeSubscriber()
    broker.read(read("a"), reader, 0)
    assert reader.told == [("opened", 1, 1), "ended"]
    assert reader.sent == b"MSG a 1 1\nMSG a 2 2\nEND end next=3\n"


@pytest.mark.parametrize(
    ("request_", "drops"),
    [
        (sub("a"), True),
        (sub("a WITHIN 1s LIMIT 3"), True),
        (sub("a SLOW spill"), False),
        (sub("a FROM next"), False),
        (sub("a FROM next SLOW drop"), True),
        (sub("a LAST 1"), False),
        (sub("a UNTIL @2030-01-01"), False),
        (sub("a FORMAT raw"), False),
        (sub("a FORMAT bytes"), False),
        (sub("a FORMAT json"), True),
        (read("a"), False),
    ],
)
def test_who_drops_and_what_that_costs(request_: Subscribe | Read, drops: bool) -> None:
    limits = Limits(outbox_bytes=5_000, spill_outbox_bytes=700)
    broker = MemoryServer(limits).broker
    reader = FakeSubscriber()
    if isinstance(request_, Read):
        broker.read(request_, reader, 0)
    else:
        broker.subscribe(request_, reader, 0)
    assert reader.low_bytes == (2_500 if drops else 0)


@pytest.mark.parametrize(
    ("request_", "spill_outbox_bytes", "allowed"),
    [
        (sub("a"), 700, 5_000),
        (sub("a SLOW spill"), 700, 700),
        (sub("a FROM 1"), 700, 700),
        # Spilling never takes more than dropping.
        (sub("a FROM 1"), 9_000, 5_000),
        (read("a"), 700, 700),
        # One answer has the larger bound.
        (read("a", resp=True), 700, 5_000),
    ],
)
def test_what_a_reader_that_takes_nothing_is_given(
    request_: Subscribe | Read, spill_outbox_bytes: int, allowed: int
) -> None:
    # All that the outbox takes is in one piece: what spills reads no second one before the first was taken.
    limits = Limits(outbox_bytes=5_000, spill_outbox_bytes=spill_outbox_bytes)
    server = MemoryServer(limits, piece_batches=500)
    broker, reader = server.broker, FakeSubscriber()
    reader.stuck = True
    for _ in range(500):
        publish(broker, b"a", b"12345")
    if isinstance(request_, Read):
        broker.read(request_, reader, 2 if allowed == 5_000 else 0)
    else:
        broker.subscribe(request_, reader, 0)
    server.runtime.run()
    for _ in range(500):
        publish(broker, b"a", b"12345")
    server.runtime.run()
    # The END of an answer is not counted.
    assert allowed - 50 < len(reader.sent.partition(b"*3\r\n$3\r\nEND")[0]) <= allowed


@pytest.mark.parametrize("words", ["a WITHIN 1h", "a UNTIL @2100-01-01", "a WITHIN 1h UNTIL @2100-01-01"])
def test_a_subscription_that_is_over_leaves_no_timer(words: str) -> None:
    server = MemoryServer()
    reader = FakeSubscriber()
    server.broker.subscribe(sub(words), reader, 0).end("closed")
    assert server.runtime.timers == 0


def test_stopping_ends_all_and_once() -> None:
    server = MemoryServer()
    readers = [FakeSubscriber() for _ in range(3)]
    server.broker.subscribe(sub("a"), readers[0], 0)
    server.broker.subscribe(sub("a FROM 1"), readers[1], 0)
    server.broker.read(read("a WITHIN 1h"), readers[2], 0)
    server.broker.stop()
    server.broker.stop()
    for reader in readers:
        assert reader.told == [("opened", 1, 1), "ended"]
        assert reader.sent == b"END closed next=1\n"
    assert not server.broker.opened


def test_a_fault_in_a_replay_ends_that_reader_alone() -> None:
    server = MemoryServer()
    publish(server.broker, b"a", b"1")
    faults: list[Exception] = []
    server.runtime.fault = faults.append  # type: ignore[method-assign, assignment]
    broken, sound = FakeSubscriber(), FakeSubscriber()

    def fail(data: bytes | Parts, events: int = 1) -> None:
        raise RuntimeError("broken")

    broken.write = fail  # type: ignore[method-assign]
    server.broker.subscribe(sub("a FROM 1"), broken, 0)
    server.broker.subscribe(sub("a FROM 1"), sound, 0)
    assert [str(fault) for fault in faults] == ["broken"]
    assert broken.told == [("opened", 1, 1), "failed"]
    assert sound.sent == b"MSG a 1 1\n"
    assert len(server.broker.opened) == 1


@pytest.mark.parametrize("words", ["a FROM -5m", "a UNTIL @1", "a LAST 2", "a FROM 1"])
def test_a_log_that_fails_to_answer_ends_that_reader_alone(words: str) -> None:
    server = MemoryServer()
    publish(server.broker, b"a", b"1")
    faults: list[Exception] = []
    server.runtime.fault = faults.append  # type: ignore[method-assign, assignment]
    log, fault = server.log, RuntimeError("broken")
    log.offset_at = lambda time_ns, done: done(fault)  # type: ignore[method-assign, arg-type]
    log.last_floors = lambda wanted, count, done: done(fault)  # type: ignore[method-assign, arg-type]
    log.read = lambda cursor, wanted, budget_bytes, done: done(fault)  # type: ignore[method-assign]
    reader = FakeSubscriber()
    server.broker.subscribe(sub(words), reader, 0)
    assert faults == [fault]
    assert reader.told[-1] == "failed"
    assert not server.broker.opened
    assert not server.broker.fanout.audiences


def test_readers_of_one_kind_share_an_encoder() -> None:
    server = MemoryServer()
    one, two, three = (FakeSubscriber() for _ in range(3))
    handles = [
        server.broker.subscribe(request, reader, 0)
        for request, reader in ((sub("a"), one), (sub("b FROM 1"), two), (sub("a FORMAT json"), three))
    ]
    encoders = [handle._encoder() for handle in handles]
    assert encoders[0] is encoders[1]
    assert encoders[0] is not encoders[2]


@pytest.mark.parametrize("words", ["a LAST 3", "a FROM -5m", "a FROM 1 UNTIL @1"])
def test_a_question_to_the_disk_that_fails_ends_the_subscription(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server, reader, faults = MemoryServer(), FakeSubscriber(), list[Exception]()
    error = FileNotFoundError("a segment")
    monkeypatch.setattr(server.runtime, "fault", faults.append)
    monkeypatch.setattr(server.log, "offset_at", lambda time_ns, done: done(error))
    monkeypatch.setattr(server.log, "last_floors", lambda wanted, count, done: done(error))
    server.broker.subscribe(sub(words), reader, 0)
    assert reader.told == ["failed"]
    assert faults == [error]
    assert server.broker.opened == {}
