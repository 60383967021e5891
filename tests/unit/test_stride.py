"""How much of the log a replay reads in one step, and what of it is told together."""

from __future__ import annotations

from busd.broker.stride import HANDFUL_BYTES, HURRIED_BYTES, PIECE_BYTES, SPARSE_BYTES, Handful, Stride
from busd.rules.record import Batch
from busd.rules.select import Selection, build


def batch(first: int, size: int) -> Batch:
    """Of one message."""
    return build([first], [b"t"], [b"x" * size], 1, "-")


def all_of(one: Batch) -> Selection:
    """All of it."""
    return Selection(one, 0, one.n, None, one.n)


def test_steps_grow_while_all_is_taken_and_most_where_little_is_wanted() -> None:
    stride = Stride(128 * 1024)
    assert stride.bytes == 64 * 1024
    for _ in range(5):
        stride.took(stride.bytes, easy=True, emptied=True, hurried=False)
    assert stride.bytes == PIECE_BYTES
    for _ in range(5):
        stride.took(stride.bytes // 100, easy=True, emptied=False, hurried=False)
    assert stride.bytes == SPARSE_BYTES
    stride.took(stride.bytes, easy=True, emptied=True, hurried=False)
    assert stride.bytes == PIECE_BYTES
    stride.took(stride.bytes, easy=True, emptied=False, hurried=False)
    assert stride.bytes == 64 * 1024


def test_a_step_beside_a_commit_or_for_a_full_reader_is_a_small_one() -> None:
    stride = Stride(128 * 1024)
    stride.took(0, easy=True, emptied=True, hurried=False)
    assert stride.bytes == 128 * 1024
    stride.took(0, easy=False, emptied=True, hurried=False)
    assert stride.bytes == 64 * 1024
    stride.took(stride.bytes, easy=True, emptied=True, hurried=True)
    assert stride.bytes == HURRIED_BYTES
    stride.took(stride.bytes, easy=True, emptied=True, hurried=False)
    assert stride.bytes == 2 * HURRIED_BYTES
    assert Stride(1 << 30).bytes == PIECE_BYTES


def test_who_has_a_limit_begins_with_a_batch() -> None:
    stride = Stride(1 << 20, limited=True)
    assert stride.bytes == HURRIED_BYTES
    stride.took(stride.bytes, easy=True, emptied=True, hurried=False)
    assert stride.bytes == 2 * HURRIED_BYTES
    assert Stride(1000, limited=True).bytes == 500


def test_a_handful_is_as_much_as_one_write() -> None:
    few = Handful()
    small, large = batch(1, 100), batch(9, HANDFUL_BYTES)
    assert few.take() == ([], -1)
    assert few.add(small, all_of(small))
    assert few.add(batch(5, 1), None)
    assert not few.add(large, all_of(large))
    selections, last = few.take()
    assert ([one.batch for one in selections], last) == ([small], 5)
    assert few.take() == ([], -1)


def test_many_small_ones_fill_it() -> None:
    few = Handful()
    one = batch(1, 1000)
    taken = 0
    while few.add(one, all_of(one)):
        taken += 1
    assert taken == HANDFUL_BYTES // len(one.record)
