"""Runs for which there is no room: refused, held in order, let go as room comes, given up in time."""

from __future__ import annotations

import pytest

from busd.broker.admission import Admission, Budget, size_of
from busd.broker.ports import Drop, Outcome
from busd.words.errors import BusError
from busd.words.requests import Item, Publish
from busd.words.units import NS_PER_S
from tests.support.fake_log import FakeLog
from tests.support.memory_server import FakeRuntime


class Kit:
    """An admission before a log.  `told`: by name of the publisher, what each of its messages got; `/` ends a run."""

    def __init__(self, held_bytes: int = 1 << 20, hold_log: bool = False) -> None:
        self.runtime = FakeRuntime()
        self.log = FakeLog(self.runtime.now_ns, hold=hold_log)
        self.budget = Budget(held_bytes)
        self.admission = Admission(self.log, self.runtime, self.budget)
        self.log.visible = lambda batches: self.admission.room()
        self.told: dict[str, list[int | str]] = {}

    def publish(
        self, who: str, topic: bytes | list[bytes], *items: Item, hold: bool = True, first: bool = False
    ) -> Drop | None:
        """A run of payloads."""
        told = self.told.setdefault(who, [])

        def sink(outcome: Outcome) -> None:
            assert told[-1:] != ["/"], "nothing comes after the end"
            for at in range(outcome.count):
                error = outcome.errors.get(at)
                told.append(outcome.first + at if error is None else error.code)
            if not outcome.more:
                told.append("/")

        run = Publish(topic, list(items), size_of(list(items)), answers="first" if first else "each")
        return self.admission.publish(run, sink, hold)

    def room(self, store: str, messages: int) -> None:
        """So much more room, and the news of it."""
        self.log.caps[store] += messages
        self.admission.room()

    @property
    def kept(self) -> list[bytes]:
        """Payloads in the order of the log."""
        return [payload for record in self.log.records for payload in record.payloads()]  # type: ignore[union-attr]


def test_without_caps_a_run_goes_in_whole() -> None:
    kit = Kit()
    assert kit.publish("p", b"t", b"1", b"2") is None
    assert kit.told["p"] == [1, 2, "/"]
    assert kit.admission.held == 0


def test_a_store_that_rejects_takes_what_fits_and_refuses_the_rest() -> None:
    kit = Kit()
    kit.log.caps["t"] = 2
    kit.log.reject = {"t"}
    assert kit.publish("p", b"t", b"1", b"2", b"3", b"4") is None
    assert kit.told["p"] == [1, 2, "FULL", "FULL", "/"]
    assert kit.kept == [b"1", b"2"]
    assert kit.log.poked == ["t"]


def test_only_messages_of_the_full_store_are_refused() -> None:
    kit = Kit()
    kit.log.caps["a"] = 1
    kit.log.reject = {"a"}
    kit.publish("p", [b"a", b"b", b"a", b"a", b"b"], b"1", b"2", b"3", b"4", b"5")
    assert kit.told["p"] == [1, 2, "FULL", "FULL", 3, "/"]
    assert kit.kept == [b"1", b"2", b"5"]


def test_the_head_goes_in_at_once_and_the_rest_as_room_comes() -> None:
    kit = Kit()
    kit.log.caps["t"] = 1
    drop = kit.publish("p", b"t", b"1", b"2", b"3", b"4")
    assert drop is not None
    assert kit.told["p"] == [1]
    kit.room("t", 2)
    assert kit.told["p"] == [1, 2, 3]
    kit.room("t", 5)
    assert kit.told["p"] == [1, 2, 3, 4, "/"]
    assert kit.budget.used_bytes == 0
    assert kit.admission.held == 0
    assert kit.runtime.timers == 0


def test_who_may_not_be_held_is_refused() -> None:
    kit = Kit()
    kit.log.caps["t"] = 1
    assert kit.publish("p", b"t", b"1", b"2", hold=False) is None
    assert kit.told["p"] == [1, "FULL", "/"]


def test_those_who_wait_go_on_in_their_order_and_nobody_overtakes() -> None:
    kit = Kit()
    kit.log.caps["t"] = 0
    kit.publish("p", b"t", b"1")
    kit.publish("q", b"t", b"2")
    kit.log.caps["t"] = 1
    # There is room, and two who were before it.
    kit.publish("r", b"t", b"3")
    assert "r" not in kit.told or kit.told["r"] == []
    kit.admission.room()
    assert kit.kept == [b"1"]
    kit.room("t", 1)
    assert kit.kept == [b"1", b"2"]
    assert kit.told == {"p": [1, "/"], "q": [2, "/"], "r": []}


def test_who_got_on_goes_behind_the_others() -> None:
    kit = Kit()
    kit.log.caps["t"] = 0
    kit.publish("p", b"t", *[b"p%d" % number for number in range(100)])
    kit.publish("q", b"t", b"q0", b"q1")
    kit.publish("r", b"t", b"r0")
    for _ in range(7):
        kit.room("t", 1)
    assert kit.kept == [b"p0", b"q0", b"r0", b"p1", b"q1", b"p2", b"p3"]
    kit.room("t", 96)
    assert kit.kept[7:] == [b"p%d" % number for number in range(4, 100)]
    assert (kit.admission.held, kit.budget.used_bytes, kit.runtime.timers) == (0, 0, 0)


def test_a_long_run_leaves_room_to_others_before_their_time_is_over() -> None:
    kit = Kit()
    kit.log.caps["t"] = 0
    kit.publish("long", b"t", *[b"x"] * 1000)
    for number in range(3):
        kit.publish(f"short {number}", b"t", b"y")
        for _ in range(2):
            kit.runtime.advance(14 * NS_PER_S)
            kit.room("t", 1)
        assert kit.told[f"short {number}"] == [2 * number + 2, "/"]


def test_who_needs_more_than_there_is_keeps_its_turn() -> None:
    kit = Kit()
    kit.log.caps["t"] = 0
    kit.publish("whole", b"t", b"1", b"2", first=True)
    kit.publish("q", b"t", b"3")
    kit.room("t", 1)
    assert kit.kept == []
    kit.room("t", 1)
    assert kit.kept == [b"1", b"2"]


def test_who_may_not_wait_does_not_overtake_either() -> None:
    kit = Kit()
    kit.log.caps["t"] = 0
    kit.publish("p", b"t", b"1", b"2")
    kit.log.caps["t"] = 1
    kit.publish("q", b"t", b"3", hold=False)
    assert kit.told["q"] == ["FULL", "/"]


def test_other_stores_go_on_while_one_is_full() -> None:
    kit = Kit()
    kit.log.caps["a"] = 0
    kit.publish("p", b"a", b"1")
    assert kit.publish("q", b"b", b"2", b"3") is None
    assert kit.told["q"] == [1, 2, "/"]


def test_a_run_over_two_stores_waits_for_one_then_for_the_other() -> None:
    kit = Kit()
    kit.log.caps = {"a": 0, "b": 0}
    kit.publish("q", b"b", b"before")
    kit.publish("p", [b"c", b"a", b"b", b"c"], b"1", b"2", b"3", b"4")
    assert kit.kept == [b"1"]
    kit.room("a", 1)
    assert kit.kept == [b"1", b"2"]
    kit.room("b", 1)
    # The one that came first.
    assert kit.kept == [b"1", b"2", b"before"]
    kit.room("b", 1)
    assert kit.kept == [b"1", b"2", b"before", b"3", b"4"]
    assert kit.told["p"] == [1, 2, 4, 5, "/"]


def test_what_has_one_answer_is_kept_whole_or_waits_whole() -> None:
    kit = Kit()
    kit.log.caps["t"] = 2
    kit.publish("p", b"t", b"1", b"2", b"3", first=True)
    kit.publish("q", b"t", b"4")
    assert kit.kept == []
    kit.room("t", 1)
    assert kit.told == {"p": [1, 2, 3, "/"], "q": []}


def test_what_can_never_fit_is_refused_at_once_and_nothing_else_with_it() -> None:
    kit = Kit()
    kit.log.max_item_bytes = 3
    kit.publish("p", b"t", b"1", b"large", b"3")
    assert kit.told["p"] == [1, "FULL", 2, "/"]
    kit.publish("q", b"t", b"12", b"34", first=True)
    assert kit.told["q"] == ["FULL", "FULL", "/"]
    assert kit.admission.held == 0


def test_a_wait_ends_in_time() -> None:
    kit = Kit()
    kit.log.caps["t"] = 1
    kit.publish("p", b"t", b"1", b"2", b"3")
    kit.runtime.advance(30 * NS_PER_S - 1)
    assert kit.told["p"] == [1]
    kit.runtime.advance(1)
    assert kit.told["p"] == [1, "FULL", "FULL", "/"]
    assert kit.budget.used_bytes == 0
    kit.room("t", 5)
    assert kit.kept == [b"1"]


def test_who_gets_on_waits_anew() -> None:
    kit = Kit()
    kit.log.caps["t"] = 0
    kit.publish("p", b"t", b"1", b"2")
    kit.runtime.advance(20 * NS_PER_S)
    kit.room("t", 1)
    kit.runtime.advance(20 * NS_PER_S)
    assert kit.told["p"] == [1]
    kit.runtime.advance(10 * NS_PER_S)
    assert kit.told["p"] == [1, "FULL", "/"]


def test_news_of_room_for_others_does_not_prolong_a_wait() -> None:
    kit = Kit()
    kit.log.caps["t"] = 0
    kit.publish("p", b"t", b"1")
    for _ in range(29):
        kit.runtime.advance(NS_PER_S)
        kit.admission.room()
    kit.runtime.advance(NS_PER_S)
    assert kit.told["p"] == ["FULL", "/"]


def test_when_a_large_one_gives_up_those_behind_it_go_on() -> None:
    kit = Kit()
    kit.log.caps["t"] = 1
    kit.publish("p", b"t", b"1", b"2", first=True)
    kit.runtime.advance(NS_PER_S)
    kit.publish("q", b"t", b"3")
    kit.runtime.advance(29 * NS_PER_S)
    assert kit.told == {"p": ["FULL", "FULL", "/"], "q": [1, "/"]}


def test_the_refusal_says_how_long_it_waited() -> None:
    kit = Kit()
    kit.log.caps["t"] = 0
    outcomes: list[Outcome] = []
    kit.admission.publish(Publish(b"t", [b"1"], 1), outcomes.append, True)
    kit.runtime.advance(30 * NS_PER_S)
    assert outcomes[0].errors[0].text == "t is full; waited 30s for room"


def test_what_is_dropped_is_not_published() -> None:
    kit = Kit()
    kit.log.caps["t"] = 1
    drop = kit.publish("p", b"t", b"1", b"2", b"3")
    kit.publish("q", b"t", b"4")
    assert drop is not None
    drop()
    assert kit.told["p"] == [1, "FULL", "FULL", "/"]
    kit.room("t", 9)
    assert kit.kept == [b"1", b"4"]
    assert kit.budget.used_bytes == 0
    drop()
    assert kit.told["p"][-1] == "/"


def test_what_is_held_is_bounded() -> None:
    kit = Kit(held_bytes=5)
    kit.log.caps["t"] = 1
    kit.publish("p", b"t", b"123", b"456")
    assert kit.publish("q", b"t", b"789") is None
    assert kit.told == {"p": [1], "q": ["FULL", "/"]}
    kit.publish("r", b"t", b"ab")
    assert kit.budget.used_bytes == 5
    kit.room("t", 1)
    assert kit.budget.used_bytes == 2


def test_what_got_in_is_not_held_any_more_when_it_is_told() -> None:
    kit = Kit()
    kit.log.caps["t"] = 0
    used: list[int] = []
    run = Publish(b"t", [b"123", b"45", b"6"], 6)
    kit.admission.publish(run, lambda outcome: used.append(kit.budget.used_bytes), True)
    kit.room("t", 1)
    kit.room("t", 2)
    assert used == [3, 0]


def test_an_answer_to_what_is_refused_waits_for_what_went_before_it() -> None:
    kit = Kit(hold_log=True)
    kit.log.caps["t"] = 1
    kit.log.reject = {"t"}
    kit.publish("p", b"t", b"1", b"2")
    assert kit.told["p"] == []
    kit.log.commit()
    assert kit.told["p"] == [1, "FULL", "/"]


def test_parts_that_the_log_loses_are_told_as_such() -> None:
    kit = Kit(hold_log=True)
    kit.log.caps["t"] = 1
    kit.publish("p", b"t", b"1", b"2")
    kit.log.caps["t"] = 1
    kit.log.commit(BusError("DISK", "gone"))
    assert kit.told["p"] == ["DISK"]
    kit.log.commit()
    assert kit.told["p"] == ["DISK", 2, "/"]


def test_a_log_that_refuses_a_whole_run_is_passed_on() -> None:
    kit = Kit()
    kit.log.refuse = BusError("STOPPING", "no")
    with pytest.raises(BusError, match="STOPPING"):
        kit.publish("p", b"t", b"1")
    assert kit.told["p"] == []


def test_a_log_that_refuses_what_waited_ends_the_wait() -> None:
    kit = Kit()
    kit.log.caps["t"] = 0
    kit.publish("p", b"t", b"1", b"2")
    kit.log.refuse = BusError("DISK", "no")
    kit.room("t", 1)
    assert kit.told["p"] == ["DISK", "DISK", "/"]
    assert (kit.admission.held, kit.budget.used_bytes, kit.runtime.timers) == (0, 0, 0)


def test_a_stop_refuses_what_waits_and_lets_nothing_wait() -> None:
    kit = Kit()
    kit.log.caps["t"] = 0
    kit.publish("p", b"t", b"1")
    kit.admission.stop()
    assert kit.told["p"] == ["STOPPING", "/"]
    assert kit.publish("q", b"t", b"2") is None
    assert kit.told["q"] == ["FULL", "/"]
    assert kit.runtime.timers == 0


def test_a_reset_goes_through_a_full_store() -> None:
    kit = Kit()
    kit.publish("p", b"t", b"1")
    kit.log.caps["t"] = 0
    kit.publish("p2", b"t", b"2")
    outcomes: list[Outcome] = []
    reset = Publish([b"t"], [b""], 0, kind="reset", answers="first")
    assert kit.admission.publish(reset, outcomes.append, True) is None
    assert outcomes[0].removed == 1


def test_who_publishes_again_from_within_an_answer_comes_behind_the_others() -> None:
    kit = Kit()
    kit.log.caps["t"] = 0
    again: list[Outcome] = []

    def sink(outcome: Outcome) -> None:
        kit.admission.publish(Publish(b"t", [b"again"], 5), again.append, True)

    kit.admission.publish(Publish(b"t", [b"1"], 1), sink, True)
    kit.publish("q", b"t", b"2")
    kit.room("t", 2)
    assert kit.kept == [b"1", b"2"]
    kit.room("t", 1)
    assert kit.kept == [b"1", b"2", b"again"]
    assert again[0].first == 3


def test_who_gave_up_one_store_goes_on_with_the_others() -> None:
    kit = Kit()
    kit.log.caps = {"a": 0, "b": 0}
    kit.publish("p", [b"a", b"c", b"a", b"b", b"a"], b"1", b"2", b"3", b"45", b"6")
    kit.runtime.advance(30 * NS_PER_S)
    assert kit.told["p"] == ["FULL", 1, "FULL"]
    assert kit.budget.used_bytes == 3
    kit.room("b", 1)
    assert kit.told["p"] == ["FULL", 1, "FULL", 2, "FULL", "/"]
    assert (kit.budget.used_bytes, kit.admission.held, kit.runtime.timers) == (0, 0, 0)
