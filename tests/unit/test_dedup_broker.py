"""Deduplication before the log: duplicates that are known, that are under way, that were not kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busd.broker.admission import Admission, Budget
from busd.broker.dedup import Dedup
from busd.broker.ports import Drop, Outcome, Sink
from busd.words.errors import BusError
from busd.words.requests import Item, Publish
from busd.words.settings import Limits
from busd.words.units import NS_PER_S
from tests.support.fake_log import FakeLog
from tests.support.memory_server import START_NS, FakeRuntime, MemoryServer

TEN_MINUTES = 600 * NS_PER_S


def with_id(message_id: str, payload: bytes = b"p") -> Item:
    """A message."""
    return [payload, b"id", message_id.encode()]


class Kit:
    """A deduplication before an admission before a log.  `told`: what each message got; `/` ends a run."""

    def __init__(self, hold_log: bool = False, limits: Limits | None = None, log: FakeLog | None = None) -> None:
        self.runtime = FakeRuntime()
        self.log = log or FakeLog(self.runtime.now_ns, hold=hold_log)
        self.log.hold = hold_log
        self.limits = limits or Limits()
        self.budget = Budget(self.limits.held_bytes)
        self.admission = Admission(self.log, self.runtime, self.budget)
        self.log.visible = lambda batches: self.admission.room()
        self.dedup = Dedup(self.log, self.runtime, self.limits, self.budget, self.admission.publish)
        self.told: dict[str, list[int | str]] = {}

    def publish(self, who: str, *items: Item, topic: bytes | list[bytes] = b"t", hold: bool = True) -> Drop | None:
        """A run."""
        told = self.told.setdefault(who, [])

        def sink(outcome: Outcome) -> None:
            assert told[-1:] != ["/"], "nothing comes after the end"
            for at in range(outcome.count):
                error = outcome.errors.get(at)
                offset = outcome.first + at if outcome.offsets is None else outcome.offsets[at]
                told.append(offset if error is None else error.code)
            if not outcome.more:
                told.append("/")

        headers = any(isinstance(item, list) for item in items)
        return self.dedup.publish(Publish(topic, list(items), 10, headers=headers), sink, hold)

    @property
    def kept(self) -> list[bytes]:
        """Payloads in the order of the log."""
        return [payload for record in self.log.records for payload in record.payloads()]  # type: ignore[union-attr]


def test_a_duplicate_gets_the_offset_of_the_first_and_is_not_kept() -> None:
    kit = Kit()
    kit.publish("p", b"x", with_id("a", b"first"))
    kit.publish("q", with_id("a", b"second"))
    assert kit.told == {"p": [1, 2, "/"], "q": [2, "/"]}
    assert kit.kept == [b"x", b"first"]
    assert kit.dedup.duplicates == 1


def test_runs_without_an_id_pass_as_they_are() -> None:
    kit = Kit()
    kit.publish("p", b"id", [b"x", b"k", b"v"])
    kit.publish("p2", b"id", [b"x", b"k", b"v"])
    assert kit.told["p2"] == [3, 4, "/"]
    assert kit.runtime.timers == 0


def test_the_same_id_in_another_topic_is_another_message() -> None:
    kit = Kit()
    kit.publish("p", with_id("a"), with_id("a"), topic=[b"t", b"u"])
    assert kit.told["p"] == [1, 2, "/"]


def test_duplicates_within_one_run() -> None:
    kit = Kit()
    kit.publish("p", with_id("a"), b"x", with_id("a"), with_id("b"), with_id("b"), b"y")
    assert kit.told["p"] == [1, 2, 1, 3, 3, 4, "/"]
    assert kit.kept == [b"p", b"x", b"p", b"y"]


def test_many_new_ones_are_remembered_each() -> None:
    kit = Kit()
    kit.publish("p", *[with_id(f"{number}") for number in range(50)])
    kit.publish("q", with_id("49"), with_id("0"), with_id("new"))
    kit.publish("r", *[with_id(f"{number}") for number in range(49, 52)], topic=[b"t", b"u", b"t"])
    kit.publish("s", *[with_id(f"{number}") for number in range(49, 52)], topic=[b"u", b"u", b"t"])
    assert kit.told == {
        "p": [*range(1, 51), "/"],
        "q": [50, 1, 51, "/"],
        "r": [50, 52, 53, "/"],
        "s": [54, 52, 53, "/"],
    }
    assert not kit.dedup._pending


def test_duplicates_of_many_that_are_under_way_wait_for_theirs() -> None:
    kit = Kit(hold_log=True)
    kit.publish("p", *[with_id(f"{number}") for number in range(5)])
    kit.publish("q", with_id("3"), with_id("9"))
    kit.publish("r", with_id("7"), with_id("8"))
    assert kit.told == {"p": [], "q": [], "r": []}
    kit.log.commit()
    assert kit.told == {"p": [1, 2, 3, 4, 5, "/"], "q": [4, 6, "/"], "r": [7, 8, "/"]}
    assert not kit.dedup._pending


@pytest.mark.parametrize("room", [0, 1, 2, 3])
def test_of_many_only_those_that_were_kept_are_remembered(room: int) -> None:
    kit = Kit()
    kit.log.caps["t"] = room
    kit.log.reject.add("t")
    kit.publish("p", *[with_id(f"{number}") for number in range(3)], hold=False)
    assert [one for one in kit.told["p"] if isinstance(one, int)] == list(range(1, room + 1))
    kit.log.caps.clear()
    kit.publish("q", *[with_id(f"{number}") for number in range(3)])
    assert kit.told["q"] == [1, 2, 3, "/"]
    assert not kit.dedup._pending


@given(
    st.lists(
        st.tuples(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=6), st.booleans()),
        max_size=12,
    )
)
def test_runs_are_told_what_each_message_is_told_alone(steps: list[tuple[list[tuple[int, bool]], bool]]) -> None:
    whole, alone = Kit(hold_log=True), Kit(hold_log=True)
    for number, (messages, commit) in enumerate(steps):
        topics = [b"u" if other else b"t" for _, other in messages]
        topic = topics[0] if len(set(topics)) == 1 else topics
        items = [with_id(f"{name}") if name else b"p" for name, _ in messages]
        whole.publish(f"{number}", *items, topic=topic)
        for at, (item, mine) in enumerate(zip(items, topics, strict=True)):
            alone.publish(f"{number} {at}", item, topic=mine)
        for kit in (whole, alone) if commit or number == len(steps) - 1 else ():
            kit.log.commit()
    for number, (messages, _) in enumerate(steps):
        each = [alone.told[f"{number} {at}"] for at in range(len(messages))]
        assert whole.told[f"{number}"] == [*[told for told, _ in each], "/"]
    for kit in (whole, alone):
        # What is remembered by now is the same, too.
        kit.log.hold = False
        for topic in (b"t", b"u"):
            kit.publish(f"after {topic!r}", *[with_id(f"{name}") for name in range(1, 10)], topic=topic)
    assert [whole.told[who] for who in alone.told if "after" in who] == [
        told for who, told in alone.told.items() if "after" in who
    ]
    assert not whole.dedup._pending


def test_a_run_of_duplicates_only_is_answered_at_once() -> None:
    kit = Kit()
    kit.publish("p", with_id("a"), with_id("b"))
    kit.log.hold = True
    kit.publish("q", with_id("b"), with_id("a"))
    assert kit.told["q"] == [2, 1, "/"]


def test_a_duplicate_waits_for_the_first_while_that_is_under_way() -> None:
    kit = Kit(hold_log=True)
    kit.publish("p", b"x", with_id("a"))
    kit.publish("q", with_id("a"))
    kit.publish("r", with_id("b"), with_id("a"))
    assert kit.told == {"p": [], "q": [], "r": []}
    kit.log.commit()
    assert kit.told == {"p": [1, 2, "/"], "q": [2, "/"], "r": [3, 2, "/"]}
    assert len(kit.kept) == 3


def test_what_is_known_before_the_log_answers_is_told_in_order() -> None:
    kit = Kit()
    kit.publish("p", with_id("a"))
    kit.log.hold = True
    kit.publish("q", with_id("a"), b"x", with_id("a"))
    assert kit.told["q"] == [1]
    kit.log.commit()
    assert kit.told["q"] == [1, 2, 1, "/"]


def test_when_the_first_was_not_kept_the_duplicate_gets_the_same_error_and_can_be_sent_again() -> None:
    kit = Kit(hold_log=True)
    kit.publish("p", with_id("a"))
    kit.publish("q", with_id("a"))
    kit.log.commit(BusError("DISK", "gone"))
    assert kit.told == {"p": ["DISK", "/"], "q": ["DISK", "/"]}
    kit.publish("r", with_id("a"))
    kit.log.commit()
    assert kit.told["r"] == [2, "/"]


def test_a_log_that_keeps_some_of_a_run_tells_of_each() -> None:
    """As where a topic would be one too many: offsets are those of the messages that were kept."""
    given: list[tuple[Publish, Sink]] = []
    log = FakeLog(FakeRuntime().now_ns)

    def into(run: Publish, sink: Sink, hold: bool) -> None:
        given.append((run, sink))

    dedup = Dedup(log, FakeRuntime(), Limits(), Budget(1000), into)
    told: list[Outcome] = []
    items: list[Item] = [with_id("a"), with_id("b"), with_id("c")]
    run = Publish([b"new", b"t", b"t"], items, 10, headers=True)
    full = BusError("LIMIT", "too many")
    for _ in range(2):
        dedup.publish(run, told.append)
    given[0][1](Outcome(7, 3, {0: full}, offsets=[0, 7, 8]))
    assert [(outcome.errors, outcome.offsets) for outcome in told] == [({0: full}, [0, 7, 8])] * 2
    dedup.publish(run, told.append)
    assert [part.items for part, _ in given[1:]] == [[items[0]]], "what was refused can be sent again"


def test_a_log_that_refuses_at_once_leaves_nothing_behind() -> None:
    kit = Kit()
    kit.log.refuse = BusError("FULL", "no")
    kit.publish("p", with_id("a"), with_id("a"))
    assert kit.told["p"] == ["FULL", "FULL", "/"]
    kit.log.refuse = None
    kit.publish("q", with_id("a"))
    assert kit.told["q"] == [1, "/"]


def test_ids_are_forgotten_in_time() -> None:
    kit = Kit()
    kit.publish("p", with_id("a"))
    kit.runtime.advance(TEN_MINUTES - 1)
    kit.publish("q", with_id("a"))
    assert kit.told["q"] == [1, "/"]
    kit.runtime.advance(1)
    kit.publish("r", with_id("a"))
    assert kit.told["r"] == [2, "/"]


def test_a_wall_clock_that_jumps_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = Kit()
    kit.publish("p", with_id("a"))
    for who, jump_ns in (("ahead", 10 * TEN_MINUTES), ("back", -10 * TEN_MINUTES)):
        monkeypatch.setattr(kit.runtime, "now_ns", lambda jump_ns=jump_ns: START_NS + jump_ns)
        kit.publish(who, with_id("a"))
    assert kit.told == {"p": [1, "/"], "ahead": [1, "/"], "back": [1, "/"]}


def test_topics_that_are_idle_cost_nothing_and_no_timer_is_left() -> None:
    kit = Kit()
    kit.publish("p", with_id("a"))
    assert kit.runtime.timers == 1
    kit.runtime.advance(2 * TEN_MINUTES)
    assert kit.runtime.timers == 0


def test_the_window_is_bounded_by_number() -> None:
    kit = Kit(limits=Limits(dedup_ids=2))
    kit.publish("p", with_id("a"), with_id("b"), with_id("c"))
    kit.publish("q", with_id("c"), with_id("b"), with_id("a"))
    assert kit.told["q"] == [3, 2, 4, "/"]


def test_without_a_window_there_is_no_deduplication() -> None:
    kit = Kit(limits=Limits(dedup_ids=0))
    kit.publish("p", with_id("a"), with_id("a"))
    assert kit.told["p"] == [1, 2, "/"]


def test_a_reset_forgets_no_id() -> None:
    kit = Kit()
    kit.publish("p", with_id("a"))
    kit.admission.publish(Publish([b"t"], [b""], 0, kind="reset", answers="first"), lambda outcome: None, False)
    kit.publish("q", with_id("a"))
    assert kit.told["q"] == [1, "/"]


def test_a_duplicate_of_what_is_held_waits_with_it() -> None:
    kit = Kit()
    kit.log.caps["t"] = 0
    assert kit.publish("p", with_id("a")) is not None
    # Nothing of it is held itself: only its answer waits.
    assert kit.publish("q", with_id("a")) is None
    kit.log.caps["t"] = 1
    kit.admission.room()
    assert kit.told == {"p": [1, "/"], "q": [1, "/"]}


def test_who_acknowledges_does_not_wait_for_what_is_held() -> None:
    kit = Kit()
    kit.log.caps["t"] = 0
    kit.publish("p", with_id("a"))
    kit.publish("q", with_id("a"), hold=False)
    assert kit.told == {"p": [], "q": ["FULL", "/"]}
    # It was refused, not answered as the first.
    assert kit.dedup.duplicates == 0


def test_the_duplicates_of_what_was_dropped_are_not_kept_either() -> None:
    kit = Kit()
    kit.log.caps["t"] = 0
    drop = kit.publish("p", with_id("a"))
    kit.publish("q", with_id("a"))
    assert drop is not None
    drop()
    assert kit.told == {"p": ["FULL", "/"], "q": ["FULL", "/"]}
    kit.log.caps["t"] = 1
    kit.publish("r", with_id("a"))
    assert kit.told["r"] == [1, "/"]


def test_a_run_with_duplicates_goes_in_as_room_comes() -> None:
    kit = Kit()
    kit.log.caps["t"] = 1
    kit.publish("p", with_id("a"), with_id("a"), with_id("b"), b"x")
    assert kit.told["p"] == [1, 1]
    kit.log.caps["t"] = 1
    kit.admission.room()
    assert kit.told["p"] == [1, 1, 2]
    kit.log.caps["t"] = 1
    kit.admission.room()
    assert kit.told["p"] == [1, 1, 2, 3, "/"]


def test_answers_of_a_connection_keep_its_order_when_a_duplicate_is_known_at_once() -> None:
    server = MemoryServer(hold=True)
    producer = server.connect()
    producer.send(b"HPUB t id=a :1\n")
    server.log.commit()
    assert producer.received() == b":1\n"
    producer.send(b"PUB t 2\nHPUB t id=a :1\nPUB t 3\n")
    assert producer.received() == b""
    server.log.commit()
    assert producer.received() == b":2\n:1\n:3\n"


def test_mpub_is_never_looked_into() -> None:
    kit = Kit()
    outcomes: list[Outcome] = []
    run = Publish(b"t", [b"id", b"id"], 4, answers="first")
    kit.dedup.publish(run, outcomes.append, True)
    assert outcomes == [Outcome(1, 2, {})]


# After a restart.


def restarted(kit: Kit, **options: bool) -> Kit:
    """A server on the same log."""
    return Kit(log=kit.log, limits=kit.limits, **options)


def test_after_a_restart_the_ids_of_the_log_are_known() -> None:
    before = Kit()
    before.publish("p", b"x", with_id("a"), with_id("b"), b"y", topic=[b"t", b"t", b"u", b"u"])
    after = restarted(before)
    assert after.publish("q", with_id("b"), with_id("a"), with_id("b"), topic=[b"u", b"t", b"t"]) is not None
    assert after.told["q"] == []
    after.runtime.run()
    assert after.told["q"] == [3, 2, 5, "/"]


def test_only_publishes_with_an_id_wait_for_the_reading() -> None:
    before = Kit()
    before.publish("p", with_id("a"))
    after = restarted(before)
    after.publish("q", with_id("a"))
    after.publish("r", b"x", [b"y", b"k", b"v"])
    assert after.told == {"q": [], "r": [2, 3, "/"]}
    assert after.budget.used_bytes > 0
    after.runtime.run()
    assert after.told["q"] == [1, "/"]
    assert after.budget.used_bytes == 0


def test_those_that_wait_for_the_reading_keep_their_order() -> None:
    before = Kit()
    before.publish("p", with_id("a"))
    after = restarted(before)
    after.publish("q", with_id("b", b"1"))
    after.publish("r", with_id("c", b"2"))
    after.publish("s", with_id("b", b"3"))
    after.runtime.run()
    assert after.told == {"q": [2, "/"], "r": [3, "/"], "s": [2, "/"]}


def test_what_waits_for_the_reading_is_bounded() -> None:
    before = Kit(limits=Limits(held_bytes=10))
    before.publish("p", with_id("a"))
    after = restarted(before)
    after.publish("q", with_id("b", b"12345"))
    with pytest.raises(BusError, match="FULL"):
        after.publish("r", with_id("c", b"12345"))
    after.runtime.run()
    after.publish("r", with_id("c", b"12345"))
    assert after.told == {"q": [2, "/"], "r": [3, "/"]}


def test_who_is_lost_while_it_waits_for_the_reading_publishes_nothing() -> None:
    before = Kit()
    before.publish("p", with_id("a"))
    after = restarted(before)
    drop = after.publish("q", with_id("b"))
    assert drop is not None
    drop()
    after.runtime.run()
    assert after.told["q"] == ["FULL", "/"]
    assert len(after.kept) == 1


def test_what_was_held_behind_the_reading_can_be_taken_back() -> None:
    before = Kit()
    before.publish("p", with_id("a"))
    after = restarted(before)
    after.log.caps["t"] = 0
    drop = after.publish("q", with_id("b"))
    after.runtime.run()
    assert after.told["q"] == []
    assert drop is not None
    drop()
    assert after.told["q"] == ["FULL", "/"]
    assert after.budget.used_bytes == 0


def test_a_stop_refuses_what_waits_for_the_reading() -> None:
    before = Kit()
    before.publish("p", with_id("a"))
    after = restarted(before)
    after.publish("q", with_id("b"))
    after.dedup.stop()
    after.runtime.run()
    assert after.told["q"] == ["STOPPING", "/"]
    assert (after.budget.used_bytes, after.runtime.timers) == (0, 0)


def test_a_stop_also_refuses_what_a_connection_publishes_once_it_is_told() -> None:
    before = MemoryServer()
    before.connect().send(b"HPUB t id=a :1\n")
    before.log.slow_reads = []
    after = MemoryServer(log=before.log)
    producer = after.connect()
    producer.send(b"HPUB t id=b :1\n")
    producer.send(b"HPUB t id=c :1\n")
    after.broker.stop()
    producer.session.stop()
    after.runtime.run()
    assert [line.split()[0] for line in producer.received().splitlines()] == [b"-STOPPING"] * 2
    assert producer.closed
    assert len(after.log.records) == 1
