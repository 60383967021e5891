"""When a segment is closed, which ones go, what survives."""

from __future__ import annotations

from dataclasses import replace

import pytest

from busd.rules.retention import (
    ActiveFacts,
    SealedFacts,
    drop_count,
    is_old,
    last_rotation_ns,
    merge_count,
    merge_groups,
    must_roll,
    plain_bytes,
    survivors,
)
from busd.rules.segment_index import MAX_SEGMENT_BYTES
from busd.words.settings import Full, StoreRule

S = 10**9
DAY = 86_400 * S
NOW = 100 * DAY


def active(size: int = 1000, messages: int = 10, oldest: int = NOW - S, newest: int = NOW) -> ActiveFacts:
    """An active segment."""
    return ActiveFacts(size, messages, oldest, newest)


@pytest.mark.parametrize(
    ("rule", "facts", "size", "expected"),
    [
        (StoreRule(segment_bytes=5000), active(), 4000, False),
        (StoreRule(segment_bytes=5000), active(), 4001, True),
        (StoreRule(segment_bytes=5000), active(oldest=0, newest=0), 9999, False),
        (StoreRule(segment_bytes=1 << 40), active(MAX_SEGMENT_BYTES), 1, True),
        (StoreRule(max_messages=44), active(messages=10), 1, False),
        (StoreRule(max_messages=40), active(messages=10), 1, True),
        (StoreRule(max_messages=2), active(messages=1), 1, True),
        (StoreRule(max_age_ns=8 * S), active(), 1, False),
        (StoreRule(max_age_ns=8 * S), active(oldest=NOW - 2 * S), 1, True),
        (StoreRule(max_age_ns=10), active(oldest=NOW - S + 1, newest=NOW), 1, False),
        (StoreRule(max_age_ns=10), active(oldest=NOW - 20, newest=NOW - 10), 1, True),
        (StoreRule(rotate_at_s=0), active(oldest=NOW - 1), 1, True),
        (StoreRule(rotate_at_s=0), active(oldest=NOW), 1, False),
        (StoreRule(rotate_at_s=60), active(oldest=NOW - 1), 1, False),
        (StoreRule(), active(oldest=1), 1, False),
    ],
)
def test_must_roll(rule: StoreRule, facts: ActiveFacts, size: int, expected: bool) -> None:
    assert not (expected and facts.size_bytes + size <= plain_bytes(rule))
    assert must_roll(rule, facts, size, NOW) is expected


def test_last_rotation() -> None:
    assert last_rotation_ns(0, NOW) == NOW
    assert last_rotation_ns(3600, NOW) == NOW - DAY + 3600 * S
    assert last_rotation_ns(3600, NOW + 3600 * S) == NOW + 3600 * S
    assert last_rotation_ns(3600, NOW + 3600 * S - 1) == NOW - DAY + 3600 * S


def test_is_old_needs_a_message_and_a_rule() -> None:
    rule = StoreRule(max_age_ns=10)
    assert is_old(rule, active(newest=NOW - 10), NOW)
    assert not is_old(rule, active(newest=NOW - 9), NOW)
    assert not is_old(rule, active(newest=0), NOW)
    assert not is_old(StoreRule(), active(newest=1), NOW)


def sealed(*newest: int) -> list[SealedFacts]:
    """Segments of 1000 bytes and 10 messages."""
    return [SealedFacts(1000, 10, time_ns) for time_ns in newest]


@pytest.mark.parametrize(
    ("rule", "kept", "expected"),
    [
        (StoreRule(), 0, 0),
        (StoreRule(max_bytes=5000), 0, 0),
        (StoreRule(max_bytes=4999), 0, 1),
        (StoreRule(max_bytes=5000), 1, 1),
        (StoreRule(max_bytes=1), 0, 4),
        (StoreRule(max_messages=50), 0, 0),
        (StoreRule(max_messages=41), 0, 0),
        (StoreRule(max_messages=40), 0, 1),
        (StoreRule(max_messages=10), 0, 4),
        (StoreRule(max_messages=1), 0, 4),
        (StoreRule(max_age_ns=7), 0, 2),
        (StoreRule(max_age_ns=1), 0, 2),
        (StoreRule(max_bytes=4999, max_age_ns=7), 0, 2),
    ],
)
def test_drop_count(rule: StoreRule, kept: int, expected: int) -> None:
    # The third is young, the fourth old by a clock that went wrong: only a prefix goes.
    times = (NOW - 9, NOW - 7, NOW, NOW - 9)
    assert drop_count(rule, sealed(*times), active(), kept, NOW) == expected


@pytest.mark.parametrize(
    ("counts", "later", "keep", "expected"),
    [
        ([3, 2, 1], 0, 1, [0, 0, 1]),
        ([3, 2, 1], 0, 2, [0, 1, 1]),
        ([3, 2, 1], 0, 4, [1, 2, 1]),
        ([3, 2, 1], 0, 99, [3, 2, 1]),
        ([3, 2, 1], 1, 2, [0, 0, 1]),
        ([3, 2, 1], 2, 2, [0, 0, 0]),
        ([3, 0, 1], 0, 2, [1, 0, 1]),
        ([], 0, 2, []),
        ([5], 0, 0, [0]),
    ],
)
def test_survivors(counts: list[int], later: int, keep: int, expected: list[int]) -> None:
    assert survivors(counts, later, keep) == expected


def test_merge_count() -> None:
    assert merge_count([4, 4, 4], 8) == 2
    assert merge_count([20, 1], 8) == 1
    assert merge_count([0, 0, 9], 0) == 2


@pytest.mark.parametrize("full", ["reject", "block"])
def test_where_publishers_are_held_back_only_age_drops(full: Full) -> None:
    rule = StoreRule(max_bytes=1000, max_messages=1, full=full)
    assert drop_count(rule, sealed(1, 2, 3), active(), 0, NOW) == 0
    assert drop_count(replace(rule, max_age_ns=10), sealed(1, 2, NOW), active(), 0, NOW) == 2
    assert not must_roll(replace(rule, max_bytes=0), active(messages=1000), 1, NOW)


def test_merge_groups() -> None:
    assert merge_groups([], 10) == []
    assert merge_groups([4, 4, 4, 4], 10) == [2, 2]
    assert merge_groups([0, 0, 0], 10) == [3]
    assert merge_groups([20, 1, 9, 1], 10) == [1, 2, 1]
    assert sum(merge_groups(list(range(30)), 40)) == 30
