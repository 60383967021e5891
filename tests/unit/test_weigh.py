"""How much of a segment is wanted: never less than what is, and stretches that hold nothing."""

from __future__ import annotations

import random

import pytest

from busd.rules.group_records import GroupState
from busd.rules.record import Batch, Hole
from busd.rules.segment_index import SegmentIndex
from busd.rules.wanted import Claims, wanted_of
from busd.rules.weigh import Stretch, counts_of, sizes, stretches, weigh, weight_bytes
from tests.support.store_kit import batch_of


def indexed(records: list[Batch | Hole]) -> SegmentIndex:
    """The index of a segment of these, each 100 bytes (a hole: 10, and its dead bytes)."""
    index, position = SegmentIndex(50, 0), 50
    for record in records:
        size = 10 + record.hop if isinstance(record, Hole) else 100
        index.add(position, size, record)
        position += size
    return index


@pytest.mark.parametrize("seed", range(20))
def test_weights_against_the_messages(seed: int) -> None:
    rng = random.Random(seed)
    batches: list[Batch | Hole] = []
    offset = 1
    for _ in range(20):
        step = rng.choice([1, 1, 2])
        messages = [(rng.choice([b"a", b"b", b"c"]), b"x") for _ in range(rng.randint(1, 6))]
        batches.append(batch_of(messages, offset, offset - 1, 0, step=step))
        offset = batches[-1].last + 1
    groups = {b"g": GroupState((b"a", b"b"), 0, rng.randint(1, offset + 5), 0)}
    groups[b"h"] = GroupState((b"b",), 0, rng.randint(1, offset + 5), 0)
    for state in groups.values():
        # A group has only messages of its own among what it has not settled.
        for batch in batches:
            assert isinstance(batch, Batch)
            for number, one in enumerate(batch.offsets()):
                if one < state.next and batch.topic_of(number) in state.patterns and rng.random() < 0.1:
                    state.unsettled.put(one, one, 1)
    floors = {b"a": rng.choice([0, offset // 2]), b"b": 0, b"c": 0}
    claims = Claims(groups)
    index = indexed(batches)
    weights = weigh(index, len(index), offset - 1, claims, floors.__getitem__)
    for weight, batch, size in zip(weights, batches, sizes(index, len(index)), strict=True):
        assert isinstance(batch, Batch)
        marks = wanted_of(batch, claims, floors.__getitem__, 0)
        exact = batch.n if marks is True else sum(marks or b"")
        assert exact <= weight <= size == batch.n
    assert all(0 <= room <= 100 for room in weight_bytes(index, weights))


def test_everything_settled_weighs_nothing() -> None:
    index = indexed([batch_of([(b"a", b"x")] * 3, 1, 0, 0), batch_of([(b"a", b"")], 4, 3, 3, flags="e")])
    assert weigh(index, len(index), 4, Claims({b"g": GroupState((b">",), 0, 5, 0)}), lambda topic: 0) == [0, 0]
    assert weigh(index, len(index), 4, Claims({b"g": GroupState((b">",), 0, 4, 0)}), lambda topic: 0) == [0, 1]
    assert weigh(index, len(index), 4, None, lambda topic: 0) == [3, 1]
    assert weigh(index, len(index), 4, None, lambda topic: 9) == [0, 0]
    assert weigh(SegmentIndex(50, 0), 0, 0, None, lambda topic: 0) == []


def test_stretches() -> None:
    settled = Hole(3, 6, 2, 500, "settled", {b"a": 4})
    records: list[Batch | Hole] = [
        batch_of([(b"a", b"x")], 1, 0, 0),
        batch_of([(b"b", b"x")], 2, 1, 1),
        settled,
        batch_of([(b"a", b"x")], 7, 6, 6),
        batch_of([(b"a", b"x")], 8, 7, 7),
        Hole(9, 9, 8, 0, "corrupt", {b"a": 1}),
        batch_of([(b"a", b"x")], 10, 9, 9),
    ]
    index = indexed(records)
    found = stretches(index, [1, 0, 0, 0, 1, 0, 0], 50)
    assert found == [Stretch(1, 4, 150, 860, 500), Stretch(6, 7, 970, 1070, 0)]
    assert [one.gain_bytes for one in found] == [210, 100]
    assert stretches(index, [1, 0, 0, 0, 1, 0, 0], 101) == found[:1]
    assert counts_of(index, 1, 4) == {b"a": 5, b"b": 1}
    assert stretches(index, [1] * 7, 1) == [], "holes alone give nothing back"


@pytest.mark.parametrize("wanted", [range(1, 1), range(1, 4)])
def test_an_index_may_grow_while_it_is_weighed(wanted: range) -> None:
    """The loop appends to the active segment that a thread looks at."""
    index = indexed([batch_of([(b"a", b"x")] * 2, 1, 0, 0), batch_of([(b"b", b"x")], 3, 2, 2)])
    group = GroupState((b"a", b"b"), 0, 2, 0)
    for offset in wanted:
        group.unsettled.put(offset, offset, 1)

    def grow(topic: bytes) -> int:
        first = index.last + 1
        index.add(index.end, 100, batch_of([(b"a", b"x"), (b"b", b"x"), (b"%d" % first, b"x")], first, first - 1, 0))
        index.turn()
        return 0

    count = len(index)
    for claims in (None, Claims({b"g": group})):
        weights = weigh(index, count, index.last, claims, grow)
        assert weights == [2, 1]
        index.add(index.end, 100, batch_of([(b"a", b"x")], index.last + 1, index.last, 0))
        assert weight_bytes(index, weights) == [100, 100]
        assert sizes(index, count) == [2, 1]
    assert len(index) > count
    assert stretches(index, [0, 0], 1) == [Stretch(0, 2, 50, 250, 0)]
