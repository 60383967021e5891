"""The messages of one store that some group may not have settled, by topic: how many there are.

Exact offsets, 8 bytes each, so a cap on messages bounds it.  Pure: no files, no clock.  Invariants:
1. Everything below what is kept here of a topic is settled by all groups that cover it, RESET or trimmed.
2. Where that is no longer so (a group went back, or is new), `stale` says that the log must be read again.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable

from busd.rules.column import BASE, codes
from busd.rules.record import Batch
from busd.rules.wanted import Claim

# Below this it costs less to ask for each message than for each span of what is not settled.
_FEW = 32


class Ledger:
    """See the module.  `stale`: it knows too little."""

    def __init__(self, start: int = 0) -> None:
        """`start`: nothing is known of what stands below."""
        self.stale = False
        self._start = start
        self._offsets: dict[bytes, array[int]] = {}
        # By topic: below this offset nothing is known any more.
        self._lows: dict[bytes, int] = {}

    def __len__(self) -> int:
        """Offsets kept."""
        return sum(map(len, self._offsets.values()))

    def add(self, batch: Batch) -> None:
        """A batch of the store, each after those with lower offsets."""
        if batch.control:
            return
        offsets = batch.offsets()
        if batch.column is None:
            self._of(batch.topics[0]).extend(offsets)
            return
        adders = [self._of(topic).append for topic in batch.topics]
        for offset, code in zip(offsets, codes(batch.column), strict=True):
            adders[code - BASE](offset)

    def _of(self, topic: bytes) -> array[int]:
        found = self._offsets.get(topic)
        if found is None:
            found = self._offsets[topic] = array("Q")
        return found

    def unsettled(self, claim_of: Callable[[bytes], Claim | None], floor_of: Callable[[bytes], int]) -> int:
        """How many messages are not settled by all groups that cover them; those that no group covers are none of
        the settled.  Forgets what is.

        Args:
            claim_of: what the groups that cover a topic claim, None where none does.
            floor_of: below this offset nothing of the topic is left.
        """
        total = 0
        # A claim is that of many topics.
        lows: dict[Claim, int] = {}
        for topic, offsets in self._offsets.items():
            claim, low = claim_of(topic), floor_of(topic)
            if claim is not None:
                if claim not in lows:
                    lows[claim] = lowest(claim)
                low = max(low, lows[claim])
            known = self._lows.get(topic, self._start)
            self.stale = self.stale or low < known
            if low > known:
                self._lows[topic] = low
                del offsets[: bisect_left(offsets, low)]
            total += len(offsets) if claim is None else _unsettled(offsets, claim)
        return total


def lowest(claim: Claim) -> int:
    """Everything below this offset is settled."""
    return next(claim.spans(0, claim.next), (claim.next, 0))[0]


def _unsettled(offsets: array[int], claim: Claim) -> int:
    """How many of these a claim holds."""
    below = bisect_left(offsets, claim.next)
    above = len(offsets) - below
    if not below:
        return above
    if below <= _FEW:
        return above + sum([claim.has(offset, offset) for offset in offsets[:below]])
    spans = claim.spans(offsets[0], offsets[below - 1])
    return above + sum([bisect_right(offsets, last) - bisect_left(offsets, first) for first, last in spans])
