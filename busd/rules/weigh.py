"""How much of a segment is still wanted, told from its index; and which stretches of it are dead.

Pure: no files.  Invariants:
1. An entry without weight holds nothing that is wanted; one with weight may hold less than it seems, as offsets
   between two entries may belong to other logs.
2. A stretch is made of whole entries, and of holes only where they say `settled` and their counts are known.
3. One look is at the first `count` entries: the index may grow meanwhile.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from busd.rules.segment_index import SegmentIndex
from busd.rules.topic_pairs import Entries
from busd.rules.wanted import Claim, Claims, FloorOf
from busd.words.patterns import any_topic

SETTLED = "settled"


@dataclass(slots=True, frozen=True)
class Stretch:
    """Entries lo … hi-1 from byte `start` to `end`, of which `dead_bytes` were given back already."""

    lo: int
    hi: int
    start: int
    end: int
    dead_bytes: int

    @property
    def gain_bytes(self) -> int:
        """What it would give back."""
        return self.end - self.start - self.dead_bytes


def sizes(index: SegmentIndex, count: int) -> list[int]:
    """Messages in each of the first `count` entries, control records counted as such."""
    found = [0] * count
    for entries in list(index.topics.values()):
        _add(found, entries, 0)
    return found


def _add(found: list[int], entries: Entries, start: int) -> None:
    """A topic's messages in its entries from its `start`-th on, as far as `found` goes."""
    stop = bisect_left(entries.numbers, len(found))
    for number, messages in zip(entries.numbers[start:stop], entries.counts[start:stop], strict=True):
        found[number] += messages or 1


def weigh(index: SegmentIndex, count: int, last: int, claims: Claims | None, floor_of: FloorOf) -> list[int]:
    """How many messages of each of the first `count` entries are wanted (holes: 0).

    `last`: the last offset of the segment; of one that grows, as it was after `count` was asked.
    """
    weights = [0] * count
    spanned: dict[int, Claim] = {}
    for topic, entries in list(index.topics.items()):
        from_offset = floor_of(topic)
        claim = claims.claim(topic) if claims is not None else None
        if claim is not None:
            spanned[id(claim)] = claim
            from_offset = max(from_offset, claim.next)
        if from_offset <= last:
            _add(weights, entries, bisect_left(entries.numbers, max(0, index.number_at(from_offset))))
    for claim in spanned.values():
        if weights:
            _add_spans(index, last, claim, weights)
    return list(map(min, weights, sizes(index, count)))


def _add_spans(index: SegmentIndex, last: int, claim: Claim, weights: list[int]) -> None:
    firsts = index.firsts
    for first, end in claim.spans(firsts[0], last):
        number = index.number_at(first)
        while number < len(weights) and firsts[number] <= end:
            behind = firsts[number + 1] - 1 if number + 1 < len(firsts) else last
            weights[number] += min(end, behind) - max(first, firsts[number]) + 1
            number += 1


def weight_bytes(index: SegmentIndex, weights: Sequence[int]) -> list[int]:
    """About how many bytes each entry would take if only what is wanted were left."""
    found = []
    for number, (weight, size) in enumerate(zip(weights, sizes(index, len(weights)), strict=True)):
        room = index.end_of(number) - index.positions[number]
        found.append(room * weight // size if weight else 0)
    return found


def stretches(index: SegmentIndex, weights: Sequence[int], least_bytes: int) -> list[Stretch]:
    """Dead stretches that would give back at least so much, as long as they can be."""
    found: list[Stretch] = []
    number, count = 0, len(weights)
    while number < count:
        lo = number
        while number < count and not weights[number] and _may_go(index, number):
            number += 1
        if number > lo:
            dead = sum([index.holes[at].hop for at in range(lo, number) if at in index.holes])
            one = Stretch(lo, number, index.positions[lo], index.end_of(number - 1), dead)
            if one.gain_bytes >= least_bytes:
                found.append(one)
        number = max(number, lo + 1)
    return found


def _may_go(index: SegmentIndex, number: int) -> bool:
    hole = index.holes.get(number)
    return hole is None or (hole.reason == SETTLED and hole.counts is not None)


def counts_of(index: SegmentIndex, lo: int, hi: int) -> dict[bytes, int]:
    """Messages that stood in entries lo … hi-1, those of holes included."""
    counts = {topic: count for topic, count in index.counts(any_topic, lo, hi).items() if count}
    for number in range(lo, hi):
        if number in index.holes:
            for topic, count in (index.holes[number].counts or {}).items():
                counts[topic] = counts.get(topic, 0) + count
    return counts
