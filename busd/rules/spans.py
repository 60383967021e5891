"""Offsets as disjoint spans, each with a small number; memory in proportion to the spans, not to the offsets.

Pure.  Invariants:
1. Spans are disjoint and rising; neighbours that touch and have the same value are one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Spans:
    """See the module.  True when it holds anything; `len` counts spans, `count` offsets."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._values: list[int] = []
        self.count = 0

    def __len__(self) -> int:
        return len(self._firsts)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """(first, last, value) of each, rising."""
        return zip(self._firsts, self._lasts, self._values, strict=True)

    @property
    def first(self) -> int:
        """The lowest offset; there must be one."""
        return self._firsts[0]

    def get(self, offset: int) -> int | None:
        """The value of an offset, None when it is not in any span."""
        at = bisect_right(self._firsts, offset) - 1
        return self._values[at] if at >= 0 and offset <= self._lasts[at] else None

    def put(self, first: int, last: int, value: int) -> None:
        """These offsets are in, with this value, whatever they had before."""
        if not self._lasts or first > self._lasts[-1]:
            # The usual case: new deliveries go to the end.
            self.count += last - first + 1
            if self._lasts and self._lasts[-1] == first - 1 and self._values[-1] == value:
                self._lasts[-1] = last
            else:
                self._firsts.append(first)
                self._lasts.append(last)
                self._values.append(value)
            return
        self.drop(first, last)
        at = bisect_left(self._firsts, first)
        self.count += last - first + 1
        if at < len(self._firsts) and self._firsts[at] == last + 1 and self._values[at] == value:
            last = self._lasts[at]
            del self._firsts[at], self._lasts[at], self._values[at]
        if at and self._lasts[at - 1] == first - 1 and self._values[at - 1] == value:
            self._lasts[at - 1] = last
            return
        self._firsts.insert(at, first)
        self._lasts.insert(at, last)
        self._values.insert(at, value)

    def drop(self, first: int, last: int) -> None:
        """These offsets are not in any more, those of them that were."""
        lo = bisect_left(self._lasts, first)
        hi = bisect_right(self._firsts, last)
        if lo >= hi:
            return
        kept = []
        if self._firsts[lo] < first:
            kept.append((self._firsts[lo], first - 1, self._values[lo]))
        if self._lasts[hi - 1] > last:
            kept.append((last + 1, self._lasts[hi - 1], self._values[hi - 1]))
        self.count -= sum(self._lasts[lo:hi]) - sum(self._firsts[lo:hi]) + hi - lo
        self.count += sum(b - a + 1 for a, b, _ in kept)
        self._firsts[lo:hi] = [one[0] for one in kept]
        self._lasts[lo:hi] = [one[1] for one in kept]
        self._values[lo:hi] = [one[2] for one in kept]

    def clear(self) -> None:
        """Nothing is in."""
        self._firsts, self._lasts, self._values, self.count = [], [], [], 0
