"""The time of receipt: never falls, follows the wall clock, and does not believe a leap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from busd.rules.clock import MAX_LEAP_NS, ReceiveClock

S = 1_000_000_000
H = 3600 * S
NOW = 1_795_248_000 * S


def test_it_follows_the_wall_clock() -> None:
    clock = ReceiveClock(NOW, 50)
    assert clock.stamp(NOW, 50) == NOW
    assert clock.stamp(NOW + 7, 52) == NOW + 7
    # Drift and honest steps, also of almost an hour.
    assert clock.stamp(NOW + MAX_LEAP_NS, 53) == NOW + MAX_LEAP_NS
    assert clock.ahead_ns == 0


def test_one_that_falls_back_is_waited_for_and_time_goes_on_a_little_slower() -> None:
    clock = ReceiveClock(NOW, 0)
    clock.stamp(NOW + 10 * S, 10 * S)
    assert clock.stamp(NOW - H + 10 * S, 10 * S) == NOW + 10 * S
    assert clock.behind_ns == H
    assert clock.stamp(NOW - H + 26 * S, 26 * S) == NOW + 25 * S
    assert clock.ahead_ns == 0
    # An hour is made good in sixteen.
    passed = 10 * S
    for _ in range(16 * 60):
        passed += H // 60
        given_ns = clock.stamp(NOW - H + passed, passed)
    assert given_ns == NOW - H + passed
    assert clock.behind_ns == 0


def test_time_goes_on_when_a_clock_that_fell_back_leaps() -> None:
    clock = ReceiveClock(NOW, 0)
    clock.stamp(NOW - 5 * H, 0)
    assert clock.stamp(NOW + 100 * H, 16 * S) == NOW + 15 * S
    assert clock.ahead_ns > 0


def test_a_leap_is_not_followed_and_time_goes_on() -> None:
    clock = ReceiveClock(NOW, 0)
    leap = 10 * 365 * 24 * H
    assert clock.stamp(NOW + leap, 0) == NOW
    assert clock.ahead_ns == leap
    assert clock.stamp(NOW + leap + 5 * S, 5 * S) == NOW + 5 * S
    assert clock.stamp(NOW + leap + H - 1, H - 1) == NOW + H - 1
    assert clock.ahead_ns == leap


def test_a_leap_that_stays_is_followed_after_as_long() -> None:
    clock = ReceiveClock(NOW, 0)
    clock.stamp(NOW + 48 * H, 0)
    assert clock.stamp(NOW + 49 * H, H) == NOW + 49 * H
    assert clock.ahead_ns == 0
    assert clock.stamp(NOW + 50 * H, 2 * H) == NOW + 50 * H


def test_a_leap_that_is_taken_back_leaves_no_trace() -> None:
    clock = ReceiveClock(NOW, 0)
    clock.stamp(NOW + 48 * H, S)
    assert clock.stamp(NOW + 2 * S, 2 * S) == NOW + 2 * S
    assert clock.ahead_ns == 0
    # The next leap is waited for anew.
    clock.stamp(NOW + 48 * H, H)
    assert clock.stamp(NOW + 48 * H + H, 2 * H - 1) == NOW + 2 * H - 1
    assert clock.ahead_ns > 0


def test_it_goes_on_from_the_newest_time_that_was_given() -> None:
    clock = ReceiveClock(NOW, 0, last_ns=NOW + 5 * H)
    assert clock.stamp(NOW, 0) == NOW + 5 * H
    assert clock.stamp(NOW + 16 * S, 16 * S) == NOW + 5 * H + 15 * S
    assert clock.stamp(NOW + 90 * H, 90 * H) == NOW + 90 * H


# How far the wall clock is off, and how much time passed.
moments = st.lists(st.tuples(st.integers(-20 * H, 20 * H), st.integers(0, 3 * H)), max_size=30)


@given(moments=moments)
def test_it_never_falls_stands_still_or_runs_away(moments: list[tuple[int, int]]) -> None:
    clock = ReceiveClock(NOW, 0)
    monotonic = highest_offset = 0
    previous = NOW
    for offset, passed in moments:
        monotonic += passed
        highest_offset = max(highest_offset, offset)
        given_ns = clock.stamp(NOW + monotonic + offset, monotonic)
        assert given_ns >= previous + passed - passed // 16 - 1
        assert given_ns <= NOW + monotonic + highest_offset
        previous = given_ns


def test_a_clock_that_fell_far_back_may_return_at_once() -> None:
    clock = ReceiveClock(NOW, 0)
    clock.stamp(NOW - 1000 * H, S)
    assert clock.stamp(NOW + 10 * S, 10 * S) == NOW + 10 * S
    assert (clock.ahead_ns, clock.behind_ns) == (0, 0)
