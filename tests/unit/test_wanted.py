"""Which messages are wanted: against what was written down group by group, and by ttl and RESET."""

from __future__ import annotations

import random

import pytest

from busd.rules.group_records import GroupState, States, apply, line_done, line_new, line_out, line_seek
from busd.rules.wanted import Claim, Claims, eighths, ends_of, has_ttl, wanted_of
from tests.support.store_kit import batch_of

pytestmark = pytest.mark.usefixtures("column_kind")

S = 10**9


def state(next_offset: int, *unsettled: int, patterns: tuple[bytes, ...] = (b">",)) -> GroupState:
    """A group at `next_offset` that has not settled these."""
    found = GroupState(patterns, 0, next_offset, 0)
    for offset in unsettled:
        found.unsettled.put(offset, offset, 1)
    return found


def no_floor(topic: bytes) -> int:
    """Nothing was RESET."""
    return 0


@pytest.mark.parametrize("seed", range(20))
def test_a_claim_is_what_any_of_its_groups_claims(seed: int) -> None:
    rng = random.Random(seed)
    states = []
    for _ in range(rng.randint(1, 3)):
        place = rng.randint(1, 40)
        states.append(state(place, *rng.sample(range(1, 40), rng.randint(0, 10))))
        for offset in range(place, 41):
            states[-1].unsettled.drop(offset, offset)
    claim = Claim(states)
    expected = [any(o >= s.next or s.unsettled.get(o) is not None for s in states) for o in range(1, 50)]
    offsets = range(1, 50)
    assert list(claim.marks(offsets)) == expected
    for _ in range(20):
        lo = rng.randint(1, 45)
        hi = rng.randint(lo, 48)
        assert claim.has(lo, hi) == any(expected[lo - 1 : hi])
        below = [o for o in range(lo, hi + 1) if o < claim.next and expected[o - 1]]
        assert claim.count(lo, hi) == len(below)
        assert [o for a, b in claim.spans(lo, hi) for o in range(a, b + 1)] == below


def test_only_covered_topics_can_be_settled() -> None:
    claims = Claims({b"g": state(100, patterns=(b"a.>",)), b"h": state(100, 5, patterns=(b"a.b", b"c"))})
    assert claims.claim(b"other") is None
    assert claims.covers.of(b"a.b") == (b"g", b"h")
    batch = batch_of([(b"a.x", b"1"), (b"a.b", b"2"), (b"other", b"3")], 4, 3, 3)
    assert wanted_of(batch, claims, no_floor, 0) == b"\0\1\1"
    assert wanted_of(batch, None, no_floor, 0) is True
    assert wanted_of(batch_of([(b"a.x", b"1"), (b"a.y", b"2")], 4, 3, 3), claims, no_floor, 0) is False
    assert wanted_of(batch_of([(b"a.x", b"1")] * 3, 99, 98, 98), claims, no_floor, 0) == b"\0\1\1"


def test_claims_are_of_one_moment_and_know_when_it_is_over() -> None:
    groups = {b"g": state(10, 3)}
    claims = Claims(groups)
    groups[b"g"].unsettled.drop(3, 3)
    assert claims.of((b"g",)) is not None
    assert Claims(groups, claims).claim(b"a") is not None
    held = claims.claim(b"a")
    assert held is not None
    assert held.has(3, 3)
    assert not claims.still(groups)
    later = Claims(groups, claims)
    assert later.still(groups)
    assert later.covers is claims.covers, "no group came or went"
    groups[b"h"] = state(1)
    assert not later.still(groups)
    assert Claims(groups, later).covers is not later.covers


def test_claims_know_of_a_group_that_was_moved_and_came_back_to_the_same_numbers() -> None:
    groups: States = {}
    for line in (line_new(b"g", [b">"], 0, 1, 7), line_out(b"g", 21, 1, [(11, 15)])):
        apply(groups, line)
    claims = Claims(groups)
    for line in (line_seek(b"g", 11), line_out(b"g", 21, 1, [(11, 20)]), line_done(b"g", [(11, 15)])):
        apply(groups, line)
    assert (groups[b"g"].next, groups[b"g"].unsettled.count) == (21, 5)
    assert not claims.still(groups)
    claim = Claims(groups, claims).claim(b"a")
    assert claim is not None
    assert claim.has(16, 20)
    assert not claim.has(11, 15)


def test_what_stands_below_a_reset_is_not_wanted() -> None:
    batch = batch_of([(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"b", b"4")], 10, 9, 9)
    assert wanted_of(batch, None, {b"a": 12, b"b": 20}.__getitem__, 0) == b"\0\0\1\0"
    assert wanted_of(batch, None, lambda topic: 50, 0) is False
    reset = batch_of([(b"a", b"0"), (b"b", b"0")], 20, 13, 13, flags="r")
    assert wanted_of(reset, None, {b"a": 20, b"b": 21}.__getitem__, 0) is True


def test_a_ttl_that_has_run_out() -> None:
    batch = batch_of([(b"a", [b"x", b"ttl", b"5s"]), (b"a", b"y"), (b"a", [b"z", b"k", b"ttl"])], 1, 0, 0, now_ns=S)
    assert has_ttl(batch.flags, batch.record)
    assert ends_of(batch) == [6 * S, None, None]
    assert wanted_of(batch, None, no_floor, 6 * S - 1) is True
    assert wanted_of(batch, None, no_floor, 6 * S) == b"\0\1\1"
    assert wanted_of(batch, Claims({b"g": state(1)}), no_floor, 6 * S) == b"\0\1\1"
    assert wanted_of(batch, None, no_floor, 6 * S, Claims({b"g": state(1)})) == b"\0\1\1", "it did not come to it"
    assert wanted_of(batch, None, no_floor, 6 * S, Claims({b"g": state(4)})) == b"\0\1\1", "it has settled it"
    assert wanted_of(batch, None, no_floor, 6 * S, Claims({b"g": state(4, 1)})) is True, "it has it out"
    assert wanted_of(batch, None, no_floor, 6 * S, Claims({b"g": state(4, 1, patterns=(b"b",))})) == b"\0\1\1"
    plain = batch_of([(b"a", b"\r\nttl\r\n5s")], 1, 0, 0)
    assert not has_ttl(plain.flags, plain.record)


def test_a_ttl_that_says_nothing() -> None:
    batch = batch_of([(b"a", [b"x", b"ttl", b"soon"])], 1, 0, 0)
    assert ends_of(batch) == [None]


def test_eighths() -> None:
    assert eighths([]) == []
    assert eighths([5]) == [5]
    assert eighths(range(16, 0, -1)) == [2, 4, 6, 8, 10, 12, 14, 16]
    assert eighths([1, 9])[-1] == 9
