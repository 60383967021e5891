"""Runs of integers as text, by the thousand: a prefix for the block and one of 1,000 ready tails for each number.

Formatting each number costs 130 ns, this 12, or 50 where there are gaps between them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

# A block of a thousand takes about 1 us: with fewer than 20 numbers in it, formatting them is as quick.
_FAR = 50
_TAILS = tuple(b"%03d" % number for number in range(1000))


@lru_cache(maxsize=16)
def _tails(suffix: bytes) -> tuple[bytes, ...]:
    return tuple(tail + suffix for tail in _TAILS)


def spell(numbers: Sequence[int], before: bytes, after: bytes) -> tuple[list[bytes], list[bytes]]:
    """Two columns that side by side spell `before`, the number and `after`, for each of some rising numbers."""
    count = len(numbers)
    # Below 1,000 the tails would have zeros in front; where the numbers lie far apart a block for each costs more.
    if not count or numbers[0] < 1000 or numbers[-1] - numbers[0] > _FAR * count:
        form = b"%d" + after.replace(b"%", b"%%")
        return [before] * count, list(map(form.__mod__, numbers))
    ready = _tails(after)
    heads: list[bytes] = []
    tails: list[bytes] = []
    at = 0
    while at < count:
        block = numbers[at] // 1000
        end = bisect_left(numbers, (block + 1) * 1000, at)
        heads += [before + b"%d" % block] * (end - at)
        if isinstance(numbers, range) and numbers.step == 1:
            tails += ready[numbers[at] - block * 1000 : numbers[end - 1] + 1 - block * 1000]
        else:
            tails += map(ready.__getitem__, map((-1000 * block).__add__, numbers[at:end]))
        at = end
    return heads, tails


def weave(*columns: Sequence[Any]) -> list[Any]:
    """Columns of one length, read row by row: what `chain.from_iterable(zip(…))` gives, in half the time.

    Raises:
        ValueError: they are not of one length.
    """
    width = len(columns)
    flat: list[Any] = [None] * (width * len(columns[0]))
    for at, column in enumerate(columns):
        flat[at::width] = column
    return flat


def lines(first: int, count: int, before: bytes, after: bytes) -> bytes:
    """`before`, number, `after` for each of `count` numbers from `first` on: the answers of a run."""
    if count == 1:
        return b"%b%d%b" % (before, first, after)
    if first < 1000:
        return b"".join([b"%b%d%b" % (before, number, after) for number in range(first, first + count)])
    tails = _tails(after)
    pieces = []
    at, stop = first, first + count
    while at < stop:
        block = at // 1000
        end = min(stop, (block + 1) * 1000)
        head = b"%b%d" % (before, block)
        pieces.append(head + head.join(tails[at - block * 1000 : end - block * 1000]))
        at = end
    return b"".join(pieces)
