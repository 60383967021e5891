"""What one reading call tells its reader: batches, and holes for what is lost, each exactly once.

It must not know how the log is walked.  Invariants:
1. `offset` is the lowest offset that is not decided yet; it only rises, and never above the horizon.
2. A hole is left out only when it is known to hold nothing wanted; two of a kind with nothing between become one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from busd.rules import losses
from busd.rules.record import Batch, Hole
from busd.rules.segment_index import SegmentIndex
from busd.words.patterns import Wanted
from busd.world.segment import Segment, Shelf

# What an index may have to do on the loop before it can be asked by topic: 2 ms of it.
TURN_PAIRS = 4096


@dataclass(slots=True)
class Cursor:
    """A reader's place in one store: the next offset wanted, and where that was.  One owner; new ones are Cursor(n).

    `topic`: the one that is wanted, when excerpts of its messages will do (busd.rules.excerpt), else empty.
    """

    offset: int
    topic: bytes = b""
    _at: int = field(default=-1, repr=False)
    _segment: Segment | None = field(default=None, repr=False)
    _position: int = field(default=0, repr=False)
    _last: int = field(default=0, repr=False)
    # Entries to visit in this segment, in falling order; None: read through.
    _hops: list[int] | None = field(default=None, repr=False)
    _hops_end: int = field(default=0, repr=False)


@dataclass(slots=True)
class Chunk:
    """One step of reading.  Everything below `next` is decided for this store; `done`: the horizon was reached."""

    records: list[Batch | Hole]
    next: int
    done: bool


class Stuck(Exception):
    """The next piece needs a thread."""


class Telling:
    """The answer in the making.  `segments`, `end` (of the last one) and `final` (last offset) are of one moment."""

    def __init__(self, shelf: Shelf, offset: int, wanted: Wanted, horizon: int, may_block: bool) -> None:
        self.shelf = shelf
        self.wanted = wanted
        self.horizon = horizon
        self.may_block = may_block
        self.segments, self.end, self.final = shelf.tip
        self.records: list[Batch | Hole] = []
        self.offset = offset
        self.number = 0
        self.last = 0

    def index_here(self) -> SegmentIndex:
        """The index of the segment that is read.

        Raises:
            Stuck: it must be loaded first.
        """
        index = self.shelf.index(self.segments, self.number, self.may_block)
        if index is None:
            raise Stuck
        if index.waiting_pairs > TURN_PAIRS:
            if not self.may_block:
                raise Stuck
            index.turn()
        return index

    def tell_trimmed(self, segment: Segment) -> None:
        """What is wanted from below the first segment that is kept."""
        topics = self.shelf.topics(segment, self.may_block)
        if topics is None:
            raise Stuck
        last = min(segment.prev, self.horizon - 1)
        counts = losses.before(segment.head, topics, self.offset, self._missed(segment.prev))
        reason = "corrupt" if any(first < segment.first for first in self.shelf.spoilt) else "trimmed"
        self.tell_hole(Hole(self.offset, last, 0, 0, reason, counts))

    def tell_missing(self, expected: int) -> None:
        """Offsets up to `expected` should be in this segment, and it ended before."""
        index = self.index_here()
        first = max(self.last + 1, self.offset)
        boundary = first == self.last + 1
        counts = losses.in_index(index, first, expected, self.wanted, boundary)
        later = self.number + 1
        # Openings tell exactly what is missing between them, if all of it is in this one range.
        alone = all(first <= lo and hi <= expected for lo, hi in index.unknown)
        alone = alone and index.number_at(expected) == index.number_at(first - 1)
        if counts is None and boundary and alone and later < len(self.segments):
            segment, successor = self.segments[self.number], self.segments[later]
            if successor.head.sure <= segment.first:
                lines = self.shelf.topics(segment, self.may_block)
                after = self.shelf.topics(successor, self.may_block)
                if lines is None or after is None:
                    raise Stuck
                counts = losses.between(lines, index, after, self.wanted)
        self.tell_hole(Hole(first, expected, 0, 0, "corrupt", counts))
        self.last = expected

    def tell_gap(self, prev: int) -> None:
        """The chain says that something up to `prev` is missing right here."""
        if prev >= self.offset:
            first = max(self.last + 1, self.offset)
            counts = losses.in_index(self.index_here(), first, prev, self.wanted, first == self.last + 1)
            self.tell_hole(Hole(first, prev, 0, 0, "corrupt", counts))
        self.last = prev

    def tell_pass(self, hole: Hole) -> None:
        """A hole record."""
        if hole.last < self.offset:
            return
        counts = losses.in_hole(hole, self.offset, self._missed(hole.last))
        self.tell_hole(Hole(max(hole.first, self.offset), hole.last, 0, 0, hole.reason, counts))

    def _missed(self, last: int) -> Wanted:
        """Topics of which what stood up to `last` is missed: not those that were RESET later, as that event says so."""
        return lambda topic: self.wanted(topic) and self.shelf.floor_of(topic) <= last

    def tell_hole(self, hole: Hole) -> None:
        """Tell of a loss, unless nothing wanted is in it; joined to the one before when nothing stands between."""
        last = min(hole.last, self.horizon - 1)
        if last < hole.first:
            return
        if hole.counts is None or hole.counts:
            hole = Hole(hole.first, last, hole.prev, 0, hole.reason, hole.counts)
            before = self.records[-1] if self.records else None
            if isinstance(before, Hole) and before.reason == hole.reason:
                self.records[-1] = losses.merged(before, hole)
            else:
                self.records.append(hole)
        self.offset = max(self.offset, last + 1)
