"""How many messages a reader lost: counts for holes, exact or None, never a guess.

Pure.  Invariants:
1. A count is given only where an opening, a page or a hole record states it; offsets are never subtracted.
2. None means that nobody knows; an empty dictionary that nothing the reader wants was lost.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

from busd.rules.record import Hole
from busd.rules.segment_index import SegmentIndex
from busd.rules.segment_opening import Opening, TopicLine
from busd.words.patterns import Wanted

Counts = dict[bytes, int]


def select(counts: Mapping[bytes, int] | None, wanted: Wanted) -> Counts | None:
    """The part of `counts` that a reader wants; a zero stands for a lost control record."""
    if counts is None:
        return None
    return {topic: count for topic, count in counts.items() if wanted(topic)}


def in_hole(hole: Hole, offset: int, wanted: Wanted) -> Counts | None:
    """What a reader that wants everything from `offset` on loses by a hole record."""
    counts = select(hole.counts, wanted)
    # One that starts in the middle cannot know which part of the count is before it, unless there is nothing.
    return counts if not counts or offset <= hole.first else None


def told(hole: Hole, first: int, last: int, wanted: Wanted) -> tuple[int | None, str]:
    """What the GAP for the part first … last of a hole says: how many messages (0: there is nothing to tell), and why.

    What others had settled is gone for this reader, too.
    """
    count = None if hole.counts is None else sum([count for topic, count in hole.counts.items() if wanted(topic)])
    if count and (first, last) != (hole.first, hole.last):
        count = None
    return count, "trimmed" if hole.reason == "settled" else hole.reason


def before(head: Opening, topics: Mapping[bytes, TopicLine], offset: int, wanted: Wanted) -> Counts | None:
    """What is gone before the first segment that is kept, for a reader that wants everything from `offset` on."""
    if head.sure > head.born and offset < head.sure:
        return None
    lines = [(topic, line) for topic, line in topics.items() if line.count and line.last >= offset and wanted(topic)]
    if lines and offset > head.born:
        return None
    return {topic: line.count for topic, line in lines}


def in_index(index: SegmentIndex, first: int, last: int, wanted: Wanted, boundary: bool) -> Counts | None:
    """What the index says stood at first … last; `boundary`: no entry reaches over `first` from below."""
    if not index.knows(first, last):
        return None
    hi = index.number_at(last) + 1
    lo = bisect_left(index.firsts, first, 0, hi)
    if not boundary and lo > 0 and (lo == hi or index.firsts[lo] > first) and index.counts(wanted, lo - 1, lo):
        # The reader begins within this entry's offsets: which part of it is lost to him, nobody knows.
        return None
    counts = index.counts(wanted, lo, hi)
    for hole in [index.holes[number] for number in list(index.holes) if lo <= number < hi]:
        if hole.counts is None:
            return None
        for topic, count in (select(hole.counts, wanted) or {}).items():
            counts[topic] = counts.get(topic, 0) + count
    return counts


def between(
    lines: Mapping[bytes, TopicLine], index: SegmentIndex, later: Mapping[bytes, TopicLine], wanted: Wanted
) -> Counts:
    """What is missing between a segment (its opening's lines and its whole index) and a later one."""
    totals = index.totals()
    counts = {}
    for topic, line in later.items():
        if wanted(topic):
            seen = totals.get(topic, 0) + (lines[topic].count if topic in lines else 0)
            if line.count > seen:
                counts[topic] = line.count - seen
    return counts


def merged(old: Hole, new: Hole) -> Hole:
    """One hole for two that follow each other with nothing between."""
    counts: Counts | None = None
    if old.counts is not None and new.counts is not None:
        counts = dict(old.counts)
        for topic, count in new.counts.items():
            counts[topic] = counts.get(topic, 0) + count
    return Hole(old.first, max(old.last, new.last), old.prev, 0, old.reason, counts)
