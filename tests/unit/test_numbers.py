"""Runs of integers as text: the same as `%d` a number, over every border of a thousand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busd.rules.numbers import columns, lines

BORDERS = [1, 9, 998, 999, 1000, 1001, 1999, 2000, 9_999, 10_000, 999_999, 1_000_000, 10**18 - 1, (1 << 63) - 2000]
SUFFIXES = [b"", b" ", b"\r\n", b"%", b"%d %%", b"\r\n:1795248000000000000"]


def spelled(numbers: Sequence[int], suffix: bytes) -> list[bytes]:
    """What two columns spell, row by row."""
    return [head + tail for head, tail in zip(*columns(numbers, suffix), strict=False)][: len(numbers)]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("first", BORDERS)
def test_ranges(first: int, suffix: bytes) -> None:
    for count in (0, 1, 2, 999, 1000, 1001, 1500):
        numbers = range(first, first + count)
        assert spelled(numbers, suffix) == [b"%d" % number + suffix for number in numbers]


@given(numbers=st.lists(st.integers(1, (1 << 63) - 1), unique=True).map(sorted), suffix=st.sampled_from(SUFFIXES))
def test_any_numbers(numbers: list[int], suffix: bytes) -> None:
    assert spelled(numbers, suffix) == [b"%d" % number + suffix for number in numbers]


def test_the_columns_of_a_range_are_as_long_as_it() -> None:
    for first in (5, 1000, 123_456):
        heads, tails = columns(range(first, first + 7), b" ")
        assert len(list(tails)) == 7
        assert first < 1000 or len(list(heads)) == 7


@pytest.mark.parametrize("first", BORDERS)
def test_lines(first: int) -> None:
    for count in (1, 2, 999, 1000, 1001, 2500):
        expected = b"".join(b":%d\r\n" % number for number in range(first, first + count))
        assert lines(first, count, b":", b"\r\n") == expected


def test_lines_of_nothing() -> None:
    assert lines(1, 0, b":", b"\n") == lines(5000, 0, b":", b"\n") == b""
