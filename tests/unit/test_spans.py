"""Spans: every operation against a dictionary, and what it costs when there are many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busd.rules import spans as module
from busd.rules.spans import Spans

Op = tuple[str, int, int, int]

OPS = st.lists(
    st.tuples(st.sampled_from(["put", "put", "drop"]), st.integers(1, 60), st.integers(0, 12), st.integers(0, 2)),
    max_size=60,
)


def expected(model: dict[int, int]) -> list[tuple[int, int, int]]:
    """The model as the fewest spans."""
    found: list[tuple[int, int, int]] = []
    for offset, value in sorted(model.items()):
        if found and found[-1][1] == offset - 1 and found[-1][2] == value:
            found[-1] = (found[-1][0], offset, value)
        else:
            found.append((offset, offset, value))
    return found


def run(ops: list[Op]) -> None:
    """Carry out the same on both and compare everything after each."""
    spans, model = Spans(), dict[int, int]()
    for verb, first, length, value in ops:
        last = first + length
        for offset in range(first, last + 1):
            if verb == "put":
                model[offset] = value
            else:
                model.pop(offset, None)
        if verb == "put":
            spans.put(first, last, value)
        else:
            spans.drop(first, last)
        want = expected(model)
        assert list(spans) == want
        assert (len(spans), spans.count, bool(spans)) == (len(want), len(model), bool(model))
        if model:
            assert spans.first == min(model)
    assert [spans.get(offset) for offset in range(80)] == [model.get(offset) for offset in range(80)]


@pytest.mark.parametrize("chunk", [2, 3, 512])
def test_as_a_dictionary_would(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)

    @given(OPS)
    def check(ops: list[Op]) -> None:
        run(ops)

    check()


def test_many_spans_in_any_order() -> None:
    spans = Spans()
    # 7919 and 20,011 are primes: every offset once, shuffled.
    order = [1 + number * 7919 % 20_011 for number in range(20_011)]
    for offset in order[:10_000]:
        spans.put(offset, offset, 1)
    left = set(order[:10_000])
    assert list(spans) == expected(dict.fromkeys(left, 1))
    for offset in sorted(left)[::3]:
        spans.drop(offset, offset)
        left.discard(offset)
    assert list(spans) == expected(dict.fromkeys(left, 1))
    assert (spans.count, spans.first) == (len(left), min(left))
    spans.drop(2_000, 18_000)
    assert list(spans) == expected({offset: 1 for offset in left if not 2_000 <= offset <= 18_000})


def test_one_span_is_one_however_many_offsets_it_has() -> None:
    spans = Spans()
    spans.put(1, 1 << 60, 1)
    spans.drop(1 << 50, 1 << 50)
    assert list(spans) == [(1, (1 << 50) - 1, 1), ((1 << 50) + 1, 1 << 60, 1)]
    assert spans.count == (1 << 60) - 1


def test_equal_when_they_hold_the_same() -> None:
    one, other = Spans(), Spans()
    one.put(1, 9, 1)
    other.put(1, 4, 1)
    assert one != other
    other.put(5, 9, 1)
    assert one == other
    other.clear()
    assert (list(other), other.count, len(other)) == ([], 0, 0)
    assert repr(one) == "Spans([(1, 9, 1)])"
