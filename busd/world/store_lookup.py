"""Questions about one store's past: by time, by "the last n", by count.  All of them may wait for the disk.

It must not know who asks.  Runs in a thread beside the loop that appends: works on the segments of one moment.
Invariants:
1. A count is exact or None.
2. Offsets are never subtracted to count messages.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from busd.rules import column as columns
from busd.rules.envelope import BadRecord, peek
from busd.rules.record import Batch, parse
from busd.rules.segment_index import SegmentIndex
from busd.rules.topic_state import TopicState
from busd.words.patterns import Wanted
from busd.world.segment import Segment, Shelf, reader_of

Segments = Sequence[Segment]
# Some 60 batches: what thousands of topics have published last.
_MEMO_BYTES = 4 << 20


class Memo:
    """Batches that were read, for questions that follow each other: thousands of topics have their last messages in
    the same ones.  Of one thread."""

    def __init__(self) -> None:
        self._found: dict[tuple[Segment, int], Batch | None] = {}
        self._bytes = 0

    def batch(self, shelf: Shelf, segment: Segment, index: SegmentIndex, entry: int) -> Batch | None:
        """The batch of an entry; None when it is damaged."""
        place = segment, index.positions[entry]
        if place not in self._found:
            found = self._found[place] = _batch(shelf, segment, index, entry)
            self._bytes += 0 if found is None else len(found.record)
            while self._bytes > _MEMO_BYTES and len(self._found) > 1:
                oldest = self._found.pop(next(iter(self._found)))
                self._bytes -= 0 if oldest is None else len(oldest.record)
        return self._found[place]


def offset_at(shelf: Shelf, time_ns: int) -> int:
    """See Store.offset_at."""
    segments, _, last = shelf.tip
    start = max(0, bisect_left(segments, time_ns, key=lambda segment: segment.head.time_ns) - 1)
    for number in range(start, len(segments)):
        index = _index(shelf, segments, number)
        entry = index.number_at_time(time_ns)
        while entry < len(index):
            if entry not in index.holes:
                return index.firsts[entry]
            entry += 1
    return last + 1


def nth_last(shelf: Shelf, topic: bytes, state: TopicState, n: int, below: int, memo: Memo | None) -> int:
    """See Store.nth_last."""
    left, best = n, below
    for offsets in newest(shelf, topic, state, below, memo):
        if len(offsets) >= left:
            return offsets[-left]
        left -= len(offsets)
        best = offsets[0]
    return best


def newest(
    shelf: Shelf, topic: bytes, state: TopicState, below: int, memo: Memo | None = None
) -> Iterator[Sequence[int]]:
    """See Store.newest."""
    memo = memo or Memo()
    segments, floor = shelf.segments, state.floor
    place = min(state.last, below - 1)
    number = shelf.find(segments, place)
    while True:
        index = _index(shelf, segments, number)
        entries = index.topics.get(topic)
        at = 0 if entries is None else bisect_left(entries.numbers, index.number_at(below - 1) + 1)
        while entries is not None and at > 0:
            at -= 1
            entry = entries.numbers[at]
            if not entries.counts[at]:
                continue
            if index.firsts[entry] <= floor:
                return
            offsets = _offsets(memo.batch(shelf, segments[number], index, entry), topic, below)
            if offsets:
                yield offsets
        lines = shelf.topics(segments[number], True) or {}
        if number == 0 or topic not in lines or lines[topic].last <= max(floor, segments[0].prev):
            return
        number = min(number - 1, shelf.find(segments, lines[topic].last))


def _index(shelf: Shelf, segments: Segments, number: int) -> SegmentIndex:
    index = shelf.index(segments, number, True)
    assert index is not None
    return index


def _batch(shelf: Shelf, segment: Segment, index: SegmentIndex, entry: int) -> Batch | None:
    """The batch of an entry; None when it is damaged."""
    file = shelf.file(segment, True)
    assert file is not None
    at = index.positions[entry]
    try:
        # Up to the next entry: a clean stop may stand between.
        data = reader_of(file)(at, index.end_of(entry) - at)
        record = parse(data[: peek(data)[1]])
    except BadRecord:
        return None
    return record if isinstance(record, Batch) else None


def _offsets(batch: Batch | None, topic: bytes, below: int) -> Sequence[int]:
    """Offsets of a topic in a batch, below a limit."""
    if batch is None or topic not in batch.topics:
        return []
    offsets = batch.offsets()
    stop = bisect_left(offsets, below)
    if batch.column is None:
        return offsets[:stop]
    return [offsets[at] for at in columns.places(batch.column, batch.topics.index(topic), 0, stop)]


def count(shelf: Shelf, wanted: Wanted, lo: int, hi: int) -> int | None:
    """See Store.count: none that a hole stands for, or that was before the first segment."""
    segments = shelf.segments
    pending = shelf.pending
    lo = max(lo, segments[0].prev + 1)
    hi = hi if pending is None else min(hi, pending.first)
    if lo >= hi:
        return 0
    total = 0
    number = shelf.find(segments, lo)
    stop = max(0, bisect_left(segments, hi - 1, key=lambda segment: segment.prev) - 1)
    while number <= stop:
        last = shelf.last_of(segments, number)
        whole = number
        while (
            whole < stop
            and lo <= segments[number].prev + 1
            and segments[whole + 1].prev < hi
            and not segments[whole].thinned
        ):
            whole += 1
        if whole > number and segments[whole].head.sure <= segments[number].first:
            before = shelf.topics(segments[number], True) or {}
            after = shelf.topics(segments[whole], True) or {}
            total += sum(line.count - (before[t].count if t in before else 0) for t, line in after.items() if wanted(t))
            number = whole
            continue
        part = _count_part(shelf, segments, number, wanted, lo, min(hi, last + 1))
        if part is None:
            return None
        total += part
        number += 1
    return total


def _count_part(shelf: Shelf, segments: Segments, number: int, wanted: Wanted, lo: int, hi: int) -> int | None:
    """The same for one segment; lo and hi may lie within an entry."""
    index = _index(shelf, segments, number)
    lo = max(lo, segments[number].prev + 1)
    if lo >= hi:
        return 0
    if not index.knows(lo, hi - 1):
        return None
    start, stop = max(0, index.number_at(lo)), index.number_at(hi - 1) + 1
    total = sum(index.counts(wanted, start + 1, stop - 1).values())
    for entry in {start, stop - 1} & set(range(start, stop)):
        if entry not in index.holes:
            part = _count_entry(shelf, segments[number], index, entry, wanted, lo, hi)
            if part is None:
                return None
            total += part
    return total


def _count_entry(
    shelf: Shelf, segment: Segment, index: SegmentIndex, entry: int, wanted: Wanted, lo: int, hi: int
) -> int | None:
    if not sum(index.counts(wanted, entry, entry + 1).values()):
        return 0
    batch = _batch(shelf, segment, index, entry)
    if batch is None:
        return None
    offsets = batch.offsets()
    a, b = bisect_left(offsets, lo), bisect_left(offsets, hi)
    if batch.column is None:
        return b - a
    numbers = [number for number, topic in enumerate(batch.topics) if wanted(topic)]
    return columns.selector(batch.column, numbers, a, b)[0].count(1)
