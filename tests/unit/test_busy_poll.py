"""busd.world.busy_poll: whom the loop looks again for, how long, and when it does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from busd.world.busy_poll import BusyPoll, limit_ns

LIMIT_NS = 200_000
TURN_NS = 1_000


class Loop:
    """Turns that come when `turn` says so; `time_ns` is its clock, and each turn takes 1 µs."""

    def __init__(self) -> None:
        self.time_ns = 0
        self.hurried = False
        self.calls: list[Callable[[], None]] = []
        self.clocks = 0
        self.gave_way = 0

    def soon(self, call: Callable[[], None]) -> None:
        """See Turns."""
        self.calls.append(call)

    def clock(self) -> int:
        """ns."""
        self.clocks += 1
        return self.time_ns

    def give_way(self) -> None:
        """Counts."""
        self.gave_way += 1

    def turn(self) -> None:
        """What was asked for before."""
        self.time_ns += TURN_NS
        calls, self.calls = self.calls, []
        for call in calls:
            call()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def poll(loop: Loop) -> BusyPoll:
    return BusyPoll(LIMIT_NS, loop, loop.clock, loop.give_way)


def ask(loop: Loop, poll: BusyPoll, after_ns: int) -> None:
    """A request so long after now, answered within 1 µs."""
    loop.time_ns += after_ns
    came_ns = loop.time_ns
    loop.time_ns += TURN_NS
    poll.served(came_ns)


def looked(loop: Loop) -> int:
    """How many turns it takes until the loop sleeps."""
    turns = 0
    while loop.calls:
        assert len(loop.calls) == 1, "one look at a time"
        loop.turn()
        turns += 1
        assert turns <= 10 * LIMIT_NS // TURN_NS, "it never sleeps"
    return turns


def commit(loop: Loop, poll: BusyPoll, others: int = 0) -> None:
    """What was asked goes to a thread and comes back 200 µs later; so many others ask meanwhile."""
    loop.hurried = True
    loop.turn()
    assert loop.calls == [], "a look beside a thread at work"
    for _ in range(others):
        ask(loop, poll, TURN_NS)
        assert loop.calls == [], "a look beside a thread at work"
    loop.time_ns += 200_000
    loop.hurried = False
    poll.answered()


def test_the_first_request_is_no_reason(loop: Loop, poll: BusyPoll) -> None:
    """Also where the clock has just begun."""
    ask(loop, poll, 0)
    assert loop.calls == []


def test_nor_are_requests_that_come_late(loop: Loop, poll: BusyPoll) -> None:
    for _ in range(5):
        ask(loop, poll, LIMIT_NS + 1)
        assert loop.calls == []


def test_who_comes_within_the_limit_is_looked_out_for_until_the_limit(loop: Loop, poll: BusyPoll) -> None:
    ask(loop, poll, LIMIT_NS + 1)
    ask(loop, poll, LIMIT_NS)
    answered_ns = loop.time_ns
    # One turn finds that the limit is over; all others gave way.
    assert looked(loop) == LIMIT_NS // TURN_NS + 1 == loop.gave_way + 1
    assert loop.time_ns - answered_ns == LIMIT_NS + TURN_NS


def test_each_request_found_begins_the_limit_anew_and_no_second_look(loop: Loop, poll: BusyPoll) -> None:
    ask(loop, poll, LIMIT_NS + 1)
    for _ in range(20):
        ask(loop, poll, LIMIT_NS // 2)
        assert len(loop.calls) == 1
        loop.turn()
    assert looked(loop) == LIMIT_NS // TURN_NS


def test_behind_the_limit_it_takes_two_requests_to_begin_again(loop: Loop, poll: BusyPoll) -> None:
    ask(loop, poll, 0)
    ask(loop, poll, TURN_NS)
    assert looked(loop) > 0
    ask(loop, poll, TURN_NS)
    assert loop.calls == [], "it came later than the limit after the answer"
    ask(loop, poll, TURN_NS)
    assert len(loop.calls) == 1


def test_a_thread_that_is_back_alone_is_no_reason(loop: Loop, poll: BusyPoll) -> None:
    """Commits of timers."""
    for _ in range(3):
        loop.time_ns += TURN_NS
        poll.answered()
        assert loop.calls == []
    ask(loop, poll, LIMIT_NS + 1)
    commit(loop, poll)
    assert loop.calls == [], "the request came late"


def test_nor_is_one_for_who_had_its_time(loop: Loop, poll: BusyPoll) -> None:
    """A commit of a timer, long behind the only request since the last one."""
    ask(loop, poll, 0)
    poll.answered()
    ask(loop, poll, TURN_NS)
    assert looked(loop) > 0
    loop.time_ns += LIMIT_NS
    poll.answered()
    assert loop.calls == []


def test_it_stops_while_a_thread_is_at_work_and_goes_on_behind_it(loop: Loop, poll: BusyPoll) -> None:
    ask(loop, poll, LIMIT_NS + 1)
    commit(loop, poll)
    for _ in range(3):
        ask(loop, poll, 20_000)
        assert len(loop.calls) == 1
        commit(loop, poll)
        assert len(loop.calls) == 1, "within the limit of its answer another may come"
    answered_ns = loop.time_ns
    looked(loop)
    assert loop.time_ns - answered_ns == LIMIT_NS + TURN_NS
    commit(loop, poll)
    assert loop.calls == [], "who asked had its time"


def test_a_commit_during_which_others_asked_is_no_reason(loop: Loop, poll: BusyPoll) -> None:
    ask(loop, poll, LIMIT_NS + 1)
    commit(loop, poll)
    ask(loop, poll, 20_000)
    commit(loop, poll, others=1)
    assert loop.calls == []
    ask(loop, poll, 20_000)
    commit(loop, poll)
    assert len(loop.calls) == 1, "alone again"


def test_a_thread_at_work_while_another_is_back_keeps_it_asleep(loop: Loop, poll: BusyPoll) -> None:
    ask(loop, poll, 0)
    loop.hurried = True
    ask(loop, poll, TURN_NS)
    assert loop.calls == []
    poll.answered()
    assert loop.calls == []


def test_a_limit_of_0_does_nothing(loop: Loop) -> None:
    poll = BusyPoll(0, loop, loop.clock, loop.give_way)
    clocks = loop.clocks
    for _ in range(5):
        ask(loop, poll, 0)
        poll.answered()
    assert (loop.calls, loop.clocks, loop.gave_way) == ([], clocks, 0)


def test_a_request_costs_one_look_at_the_clock(loop: Loop, poll: BusyPoll) -> None:
    clocks = loop.clocks
    for _ in range(5):
        ask(loop, poll, TURN_NS)
    assert loop.clocks == clocks + 5


@pytest.mark.parametrize(
    ("busy_poll_us", "cores", "ns"), [(200, 2, 200_000), (200, None, 200_000), (200, 1, 0), (0, 2, 0)]
)
def test_how_long_it_looks(busy_poll_us: int, cores: int | None, ns: int) -> None:
    assert limit_ns(busy_poll_us, cores) == ns
