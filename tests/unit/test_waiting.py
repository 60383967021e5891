"""What waits for a commit: taken whole, as much as one commit may hold, in the order of each source."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busd.broker.ports import Outcome
from busd.rules.seal import COMMIT_BYTES
from busd.words.requests import Publish
from busd.world.waiting import Waiting


def _tell(outcome: Outcome) -> None:
    raise AssertionError("nobody is told here")


def _filled(*sizes: int) -> Waiting:
    waiting = Waiting()
    for number, size in enumerate(sizes):
        waiting.add(Publish(b"t%d" % number, [b""], size), _tell)
    return waiting


def _taken(waiting: Waiting) -> list[int]:
    runs, sinks = waiting.take()
    assert len(sinks) == len(runs)
    return [run.size_bytes for run in runs]


def test_what_a_commit_may_hold_is_taken_at_once() -> None:
    waiting = _filled(1, 2, COMMIT_BYTES - 3)
    assert (bool(waiting), waiting.congested) == (True, False)
    assert _taken(waiting) == [1, 2, COMMIT_BYTES - 3]
    assert not waiting


def test_what_is_more_stays_for_the_next_ones_and_one_run_is_taken_however_large() -> None:
    waiting = _filled(10, COMMIT_BYTES - 10, 1, 3 * COMMIT_BYTES, 5)
    assert waiting.congested
    assert _taken(waiting) == [10, COMMIT_BYTES - 10, 1]
    assert waiting.congested
    assert _taken(waiting) == [3 * COMMIT_BYTES, 5]
    assert not waiting.congested
    assert not waiting


def test_pending_is_what_waits_and_what_is_under_way() -> None:
    waiting = _filled(COMMIT_BYTES, COMMIT_BYTES - 7)
    seen = [waiting.pending_bytes]
    while waiting:
        waiting.take()
        seen.append(waiting.pending_bytes)
        waiting.decided()
        seen.append(waiting.pending_bytes)
    assert (waiting.pending_names, list(waiting.undecided())) == (0, [])
    waiting.decided()
    both, second = 2 * COMMIT_BYTES - 7, COMMIT_BYTES - 7
    assert seen == [both, both, second, second, 0]
    assert waiting.pending_bytes == waiting.pending_names == 0, "nothing is taken away twice"


def test_pending_names_are_one_a_run_of_one_topic_and_else_one_a_message() -> None:
    waiting = _filled(COMMIT_BYTES - 10, COMMIT_BYTES - 30)
    waiting.add(Publish([b"a", b"b", b"a"], [b"", b"", b""], 10), _tell)
    waiting.add(Publish(b"a", [b"", b"", b""], 10), _tell)
    seen = [(waiting.pending_names, len(waiting.undecided()))]
    while waiting:
        waiting.take()
        seen.append((waiting.pending_names, len(waiting.undecided())))
        waiting.decided()
        seen.append((waiting.pending_names, len(waiting.undecided())))
    assert seen == [(6, 4), (6, 4), (5, 3), (5, 3), (0, 0)]


@pytest.mark.parametrize(
    ("disk_ns", "most_bytes"),
    [(0, 256 << 10), (2_000_000, 256 << 10), (5_000_000, 625_000), (8_388_608, 1 << 20), (3_600 * 10**9, 1 << 20)],
)
def test_a_slow_disk_is_given_more_at_a_time(disk_ns: int, most_bytes: int) -> None:
    waiting = _filled(*[40_000] * 75)
    waiting.decided(disk_ns)
    assert waiting.congested
    assert sum(_taken(waiting)) == most_bytes // 40_000 * 40_000
    # A quick one is given little again, and who publishes waits as long as there is more than that.
    waiting.decided(1)
    assert sum(_taken(waiting)) == COMMIT_BYTES // 40_000 * 40_000


def test_what_was_more_than_a_commit_may_be_one_when_the_disk_gets_slow() -> None:
    waiting = _filled(COMMIT_BYTES, COMMIT_BYTES)
    waiting.take()
    waiting.add(Publish(b"t", [b""], 1), _tell)
    assert waiting.congested
    waiting.decided(1 << 40)
    assert not waiting.congested
    assert _taken(waiting) == [COMMIT_BYTES, 1]


def test_beside_a_flood_a_small_run_of_somebody_else_is_in_the_next_commit() -> None:
    waiting = Waiting()
    for number in range(8):
        waiting.add(Publish(b"flood", [b""], COMMIT_BYTES - number, source="flood"), _tell)
    waiting.add(Publish(b"lone", [b""], 100, source="lone"), _tell)
    waiting.add(Publish(b"lone", [b""], COMMIT_BYTES, source="lone"), _tell)
    waiting.add(Publish(b"lone", [b""], 101, source="lone"), _tell)
    waiting.add(Publish(b"flood", [b""], 1, source="flood"), _tell)
    assert _taken(waiting) == [COMMIT_BYTES, 100]
    assert _taken(waiting) == [COMMIT_BYTES - 1], "nobody passes what its own source has sent before"


def test_small_runs_share_what_is_set_aside_for_them_and_the_flood_goes_on() -> None:
    waiting = Waiting()
    for number in range(1000):
        waiting.add(Publish(b"flood", [b""], COMMIT_BYTES, source="flood"), _tell)
        waiting.add(Publish(b"lone", [b""], 1000, source=number), _tell)
    taken = _taken(waiting)
    assert taken[0] == COMMIT_BYTES
    assert taken[1:] == [1000] * (COMMIT_BYTES // 8 // 1000)


_RUNS = st.lists(
    st.tuples(
        st.integers(0, 4), st.sampled_from([0, 1, 100, 20_000, COMMIT_BYTES // 2, COMMIT_BYTES, 3 * COMMIT_BYTES])
    ),
    max_size=40,
)


@given(_RUNS, st.lists(st.integers(0, 6), max_size=40))
def test_all_is_taken_once_in_the_order_of_each_source_and_the_first_at_once(
    sent: list[tuple[int, int]], pauses: list[int]
) -> None:
    waiting = Waiting()
    expected: list[int] = []
    taken: list[int] = []
    seen: dict[object, list[int]] = {}
    numbers: dict[int, int] = {}
    arrivals, steps = iter(enumerate(sent)), iter(pauses)
    more = True
    while more or waiting:
        for _ in range(next(steps, 41)):
            number, (source, size) = next(arrivals, (-1, (0, 0)))
            more = number >= 0
            if not more:
                break
            run = Publish(b"t", [b""], size, source=source)
            numbers[id(run)] = number
            expected.append(number)
            waiting.add(run, _tell)
        if not waiting:
            continue
        runs, _ = waiting.take()
        now = [numbers[id(run)] for run in runs]
        assert now[0] == min(set(expected) - set(taken)), "who came first is in the next commit"
        small = [run.size_bytes for run in runs]
        assert sum(small) <= max(COMMIT_BYTES, small[0]) + COMMIT_BYTES // 8
        for run, number in zip(runs, now, strict=True):
            seen.setdefault(run.source, []).append(number)
        taken += now
        waiting.decided()
    assert sorted(taken) == expected
    assert all(order == sorted(order) for order in seen.values())
    assert (waiting.pending_bytes, waiting.congested) == (0, False)
