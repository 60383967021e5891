"""Outcomes of a connection's runs: in the order of the runs, whatever order they come in."""

from __future__ import annotations

from typing import cast

import pytest

from busd.broker.ports import Drop, Engine, Outcome, Sink
from busd.broker.turns import Turns
from busd.words.errors import BusError
from busd.words.requests import Publish


class Desk:
    """An engine that keeps the sinks, and what was told."""

    def __init__(self) -> None:
        self.sinks: list[Sink] = []
        self.told: list[tuple[bytes, int, bool]] = []
        self.drops = self.refused = 0
        self.held: list[bool] = []
        self.answer: Drop | BusError | None = None
        self.turns = Turns(cast(Engine, self), self._tell)

    def publish(self, run: Publish, sink: Sink, hold: bool = False) -> Drop | None:
        """See Engine."""
        if isinstance(self.answer, BusError):
            raise self.answer
        self.sinks.append(sink)
        self.held.append(hold)
        return self.answer

    def count_refused(self, messages: int) -> None:
        """See Engine."""
        self.refused += messages

    def give(self, *payloads: bytes) -> None:
        """Publish runs of one message."""
        for payload in payloads:
            self.turns.publish(Publish(b"t", [payload], 1, eol=payload), hold=True)

    def decide(self, number: int, more: bool = False) -> None:
        """The run with this number (from 0) hears something; the offset is its number."""
        self.sinks[number](Outcome(number, 1, {}, more=more))

    def drop(self) -> None:
        """What is held was taken back."""
        self.drops += 1

    def _tell(self, run: Publish, outcome: Outcome) -> None:
        # It stands for the run; what is told late has no payload any more.
        self.told.append((run.eol, outcome.first, outcome.more))


def test_outcomes_in_order_pass() -> None:
    desk = Desk()
    desk.give(b"a", b"b")
    desk.decide(0)
    assert desk.told == [(b"a", 0, False)]
    desk.decide(1)
    assert desk.told == [(b"a", 0, False), (b"b", 1, False)]


def test_what_is_early_waits_for_those_before_it() -> None:
    desk = Desk()
    desk.give(b"a", b"b", b"c")
    desk.decide(2)
    desk.decide(1, more=True)
    desk.decide(1)
    assert desk.told == []
    desk.decide(0, more=True)
    assert desk.told == [(b"a", 0, True)]
    desk.decide(0)
    assert [payload for payload, _, _ in desk.told] == [b"a", b"a", b"b", b"b", b"c"]


def test_a_part_that_is_early_is_told_before_the_rest_comes() -> None:
    desk = Desk()
    desk.give(b"a", b"b")
    desk.decide(1, more=True)
    desk.decide(0)
    assert desk.told == [(b"a", 0, False), (b"b", 1, True)]
    desk.decide(1)
    assert desk.told[-1] == (b"b", 1, False)


def test_a_refused_run_has_no_turn() -> None:
    desk = Desk()
    desk.give(b"a")
    desk.answer = BusError("FULL", "no")
    with pytest.raises(BusError):
        desk.give(b"b")
    desk.answer = None
    desk.give(b"c")
    desk.decide(1)
    desk.decide(0)
    assert [payload for payload, _, _ in desk.told] == [b"a", b"c"]


def test_the_last_run_is_held_until_its_end_is_told() -> None:
    desk = Desk()
    desk.give(b"a")
    desk.answer = desk.drop
    desk.give(b"b")
    assert desk.turns.held
    desk.decide(0)
    desk.decide(1, more=True)
    assert desk.turns.held
    desk.decide(1)
    assert not desk.turns.held
    desk.turns.drop()
    assert desk.drops == 0


def test_what_is_held_can_be_dropped_once() -> None:
    desk = Desk()
    desk.answer = desk.drop
    desk.give(b"a")
    desk.turns.drop()
    desk.turns.drop()
    assert desk.drops == 1
    assert not desk.turns.held


def test_no_more_may_come_while_many_that_are_decided_wait_for_one() -> None:
    desk = Desk()
    desk.give(*b"a b c d e f g h i".split())
    for number in range(1, 8):
        desk.decide(number)
    assert not desk.turns.held
    desk.decide(8)
    assert desk.turns.held
    desk.decide(0)
    assert not desk.turns.held
    assert [name for name, _, _ in desk.told] == b"a b c d e f g h i".split()
