"""What waits for a commit: taken whole, in order, and as much as one commit may hold."""

from __future__ import annotations

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
    assert _taken(waiting) == [10, COMMIT_BYTES - 10]
    assert waiting.congested
    assert _taken(waiting) == [1]
    assert waiting.congested
    assert _taken(waiting) == [3 * COMMIT_BYTES]
    assert not waiting.congested
    assert _taken(waiting) == [5]


def test_pending_is_what_waits_and_what_is_under_way() -> None:
    waiting = _filled(COMMIT_BYTES, 7, 8)
    seen = [waiting.pending_bytes]
    while waiting:
        waiting.take()
        seen.append(waiting.pending_bytes)
        waiting.decided()
        seen.append(waiting.pending_bytes)
    waiting.decided()
    assert seen == [COMMIT_BYTES + 15, COMMIT_BYTES + 15, 15, 15, 0]
    assert waiting.pending_bytes == 0, "nothing is taken away twice"
