"""Who waits to publish goes on a few at a time, those that bring little first, and nobody is forgotten."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busd.broker.paused import Paused
from busd.rules.seal import COMMIT_BYTES
from tests.support.memory_server import FakeRuntime


class Door:
    """A Paused, the numbers of those that went on, and whether it is crowded."""

    def __init__(self) -> None:
        self.crowded = False
        self.runtime = FakeRuntime()
        self.paused = Paused(self.runtime, lambda: self.crowded)
        self.went: list[int] = []

    def wait(self, number: int, read_bytes: int) -> None:
        """This one waits."""
        self.paused.add(self.call(number), read_bytes)

    def call(self, number: int) -> Callable[[], None]:
        """What is called for this one."""
        return lambda: self.went.append(number)

    def turn(self) -> list[int]:
        """Who went on in the next turn of the loop alone."""
        before = len(self.went)
        self.runtime.turn()
        return self.went[before:]


def test_of_those_that_bring_much_as_many_as_fill_a_commit_go_on_in_a_turn() -> None:
    door = Door()
    for number in range(10):
        door.wait(number, COMMIT_BYTES // 4)
    door.paused.go_on()
    assert door.went == [0, 1, 2, 3]
    assert door.turn() == [4, 5, 6, 7]
    assert door.turn() == [8, 9]
    assert not door.paused


@pytest.mark.parametrize("read_bytes", [COMMIT_BYTES, 5 * COMMIT_BYTES])
def test_one_goes_on_however_much_it_brings(read_bytes: int) -> None:
    door = Door()
    door.wait(1, read_bytes)
    door.wait(2, read_bytes)
    door.paused.go_on()
    assert door.went == [1]
    assert door.turn() == [2]


def test_who_brings_little_passes_who_brings_much() -> None:
    door = Door()
    for number in range(5):
        door.wait(number, COMMIT_BYTES)
    for number in range(5, 105):
        door.wait(number, 1024)
    door.paused.go_on()
    assert door.went == [*range(5, 105), 0]


def test_many_that_bring_little_leave_room_for_one_that_brings_much() -> None:
    door = Door()
    door.wait(0, COMMIT_BYTES)
    for number in range(1, 1001):
        door.wait(number, 1024)
    door.paused.go_on()
    assert door.went == [*range(1, 257), 0]


def test_nobody_goes_on_while_it_is_crowded_and_no_turn_is_asked_for() -> None:
    door = Door()
    door.crowded = True
    for number in range(3):
        door.wait(number, COMMIT_BYTES)
    door.paused.go_on()
    assert door.turn() == []
    door.crowded = False
    door.paused.go_on()
    assert door.went == [0]
    # What the first brought is too much; whoever has made room says so.
    door.crowded = True
    assert door.turn() == []
    door.crowded = False
    assert door.turn() == []
    door.paused.go_on()
    assert door.went == [0, 1]


def test_two_that_say_there_is_room_ask_for_one_turn() -> None:
    door = Door()
    for number in range(6):
        door.wait(number, COMMIT_BYTES)
    door.paused.go_on()
    door.paused.go_on()
    assert door.went == [0, 1]
    assert door.turn() == [2]


def test_who_waits_again_within_its_call_is_called_in_another_turn() -> None:
    door = Door()
    calls: list[int] = []

    def again() -> None:
        calls.append(1)
        if len(calls) < 3:
            door.paused.add(again, 1)

    door.paused.add(again, 1)
    door.paused.go_on()
    assert len(calls) == 1
    door.runtime.run()
    assert len(calls) == 3


@given(st.lists(st.sampled_from([0, 1, 1024, 1025, 100_000, 10**7]), max_size=60), st.lists(st.booleans(), max_size=60))
def test_all_go_on_once_in_their_order(sizes: list[int], crowds: list[bool]) -> None:
    door = Door()
    for number, read_bytes in enumerate(sizes):
        door.wait(number, read_bytes)
    for crowded in crowds:
        door.crowded = crowded
        door.paused.go_on()
        door.turn()
    door.crowded = False
    door.paused.go_on()
    door.runtime.run()
    assert sorted(door.went) == list(range(len(sizes)))
    for little in (True, False):
        kind = [number for number in door.went if (sizes[number] <= 1024) is little]
        assert kind == sorted(kind)
