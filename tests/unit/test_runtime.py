"""Turns of the loop: commits and answers come before the steps of long work, and all steps come in the end."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from busd.world.runtime import LoopRuntime

MS = 1_000_000


class FakeLoop:
    """Calls wait for a turn; those that come within one are for the next, as uvloop does it."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.turns = 0

    def call_soon(self, call: Callable[..., None], *args: Any) -> None:
        """See asyncio."""
        self.waiting.append(lambda: call(*args))

    def call_soon_threadsafe(self, call: Callable[..., None], *args: Any) -> None:
        """See asyncio."""
        self.call_soon(call, *args)

    def is_closed(self) -> bool:
        """See asyncio."""
        return False

    def turn(self) -> None:
        """One turn."""
        self.turns += 1
        calls, self.waiting = self.waiting, []
        for call in calls:
            call()


class Kit:
    """A runtime on such a loop.  `said`: which call came in which turn; `slept`: in seconds."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.slept: list[float] = []
        self.said: list[tuple[str, int]] = []
        self.loop = FakeLoop()
        loop = cast(asyncio.AbstractEventLoop, self.loop)
        self.it = LoopRuntime(loop, lambda: self.now_ns, self.slept.append)

    def say(self, name: str, takes_ns: int = 0, again: bool = False) -> Callable[[], None]:
        """A call that notes itself and takes so long."""

        def call() -> None:
            self.said.append((name, self.loop.turns))
            self.now_ns += takes_ns
            if again:
                self.it.step(call)

        return call

    def run(self, turns: int) -> list[tuple[str, int]]:
        """So many turns; what was said in them."""
        self.said = []
        for _ in range(turns):
            self.loop.turn()
        return self.said


@pytest.fixture
def kit() -> Kit:
    return Kit()


def test_what_is_due_comes_before_a_step_that_waited_longer(kit: Kit) -> None:
    kit.it.step(kit.say("step"))
    kit.it.first(kit.say("commit"))
    assert kit.run(3) == [("commit", 1), ("step", 2)]


def test_what_was_done_in_a_turn_goes_out_before_the_next_step(kit: Kit) -> None:
    """Bytes that are written in a turn are sent at its end."""
    kit.it.away(1)

    def back() -> None:
        kit.it.away(-1)
        kit.say("answer")()

    kit.loop.call_soon(back)
    kit.it.step(kit.say("step"))
    assert kit.run(2) == [("answer", 1), ("step", 2)]


def test_a_thread_that_is_about_to_come_back_is_waited_for(kit: Kit) -> None:
    kit.it.away(1)
    kit.it.step(kit.say("step"))
    kit.it.away(0)
    assert kit.it.hurried
    kit.loop.call_soon(kit.say("answer"))
    assert kit.run(2) == [("answer", 1), ("step", 2)]


def test_a_step_is_not_put_off_for_ever(kit: Kit) -> None:
    """Somebody publishes in each turn."""
    kit.it.step(kit.say("step", again=True))
    steps = []
    for _ in range(20):
        kit.it.first(kit.say("commit"))
        steps += [one for one in kit.run(1) if one[0] == "step"]
    assert len(steps) == 10


def test_many_steps_take_turns_of_bounded_length(kit: Kit) -> None:
    for number in range(10):
        kit.it.step(kit.say(f"{number}", takes_ns=MS // 5, again=True))
    said = kit.run(20)
    assert [name for name, _ in said] == [f"{number % 10}" for number in range(len(said))]
    in_turn = [sum(turn == one for _, turn in said) for one in range(1, 21)]
    assert set(in_turn) == {3}, "so many are just over half a millisecond"


def test_quick_steps_each_come_once_in_a_turn(kit: Kit) -> None:
    for name in "ab":
        kit.it.step(kit.say(name, again=True))
    assert kit.run(2) == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def test_beside_a_thread_a_turn_has_one_step(kit: Kit) -> None:
    kit.it.away(1)
    for name in "ab":
        kit.it.step(kit.say(name))
    assert kit.run(2) == [("a", 1), ("b", 2)]


def test_a_step_that_fails_is_told_and_the_others_go_on(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    def failing() -> None:
        raise ValueError("ours")

    kit.it.step(failing)
    kit.it.step(kit.say("other"))
    with caplog.at_level(logging.ERROR, "busd"):
        assert kit.run(1) == [("other", 1)]
    assert [record.message for record in caplog.records] == ["a fault of busd"]
    kit.it.step(kit.say("later"))
    assert kit.run(1) == [("later", 2)]


def test_a_nap_is_for_a_thread_that_is_away_for_long(kit: Kit) -> None:
    kit.it.breathe()
    kit.run(1)
    assert kit.slept == [], "nobody is away"
    kit.it.away(1)
    kit.now_ns += MS // 2
    kit.it.breathe()
    kit.run(1)
    assert kit.slept == [], "not for long"
    kit.now_ns += MS // 2
    kit.it.away(1)
    for _ in range(3):
        kit.it.breathe()
    kit.run(2)
    assert len(kit.slept) == 1, "one in a turn; the second thread does not make the first a new one"
    kit.it.breathe()
    kit.it.away(-1)
    kit.it.away(-1)
    kit.run(1)
    assert len(kit.slept) == 1, "both are back"
    kit.it.away(1)
    kit.it.breathe()
    kit.run(1)
    assert len(kit.slept) == 1, "this one has just left"


def test_nothing_is_begun_in_a_thread_after_the_stop(kit: Kit) -> None:
    """Who comes back while the threads are closed may want to read on: nobody waits for that any more."""
    got: list[object] = []
    kit.it.stop()
    kit.it.in_thread(lambda: got.append("done"), got.append)
    kit.it.close()
    kit.loop.turn()
    assert got == []
    assert not kit.it.hurried


def test_what_no_thread_could_be_had_for_is_not_done_later(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool has it in its queue by then."""
    done: list[str] = []

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            kit.it.in_thread(lambda: done.append("first"), lambda _: done.append("told"))
    assert not kit.it.hurried
    kit.it.in_thread(lambda: done.append("second"), lambda _: done.append("told"))
    kit.it.close()
    kit.loop.turn()
    assert done == ["second", "told"]
    assert not kit.it.hurried
