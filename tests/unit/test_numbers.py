"""Runs of integers as text: the same as `%d` a number, over every border of a thousand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busd.rules.numbers import lines, spell, weave

BORDERS = [1, 9, 998, 999, 1000, 1001, 1999, 2000, 9_999, 10_000, 999_999, 1_000_000, 10**18 - 1, (1 << 63) - 2000]
SUFFIXES = [b"", b" ", b"\r\n", b"%", b"%d %%", b"\r\n:1795248000000000000"]


def spelled(numbers: Sequence[int], before: bytes, after: bytes) -> list[bytes]:
    """What two columns spell, row by row."""
    return [head + tail for head, tail in zip(*spell(numbers, before, after), strict=True)]


@pytest.mark.parametrize("after", SUFFIXES)
@pytest.mark.parametrize("first", BORDERS)
@pytest.mark.parametrize("step", [1, 3, 40, 5000])
def test_ranges(first: int, after: bytes, step: int) -> None:
    for count in (0, 1, 2, 1001):
        numbers = range(first, first + step * count, step)
        expected = [b"MSG %d" % number + after for number in numbers]
        assert spelled(numbers, b"MSG ", after) == expected
        assert spelled(list(numbers), b"MSG ", after) == expected


@given(numbers=st.lists(st.integers(1, (1 << 63) - 1), unique=True).map(sorted), after=st.sampled_from(SUFFIXES))
def test_any_numbers(numbers: list[int], after: bytes) -> None:
    assert spelled(numbers, b"%d ", after) == [b"%%d %d" % number + after for number in numbers]


@given(gaps=st.lists(st.integers(1, 90)), after=st.sampled_from(SUFFIXES))
def test_numbers_with_gaps(gaps: list[int], after: bytes) -> None:
    numbers = list(accumulate(gaps, initial=1990))
    assert spelled(numbers, b"", after) == [b"%d" % number + after for number in numbers]


def test_columns_are_read_row_by_row_and_must_be_of_one_length() -> None:
    assert weave([b"a", b"b"], (b"1", b"2"), [b"x", b"y"]) == [b"a", b"1", b"x", b"b", b"2", b"y"]
    assert weave([]) == []
    with pytest.raises(ValueError, match="size"):
        weave([b"a", b"b"], [b"1"])


@pytest.mark.parametrize("first", BORDERS)
def test_lines(first: int) -> None:
    for count in (1, 2, 999, 1000, 1001, 2500):
        expected = b"".join(b":%d\r\n" % number for number in range(first, first + count))
        assert lines(first, count, b":", b"\r\n") == expected


def test_lines_of_nothing() -> None:
    assert lines(1, 0, b":", b"\n") == lines(5000, 0, b":", b"\n") == b""
