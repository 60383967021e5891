"""Reading one store for a subscriber: batches in offset order, losses as holes, a bounded step a call.

It must not know subscriptions, formats or other stores.  A call either answers from memory and the page cache or,
when `may_block` is set, waits for the disk: the caller then runs it in a thread, beside a loop that appends and trims.
Invariants:
1. Every record that is passed by was checked, or its index page was: damage never hides a wanted message.
2. What was kept from cursor.offset on and is wanted comes out as a batch or is covered by a hole, once.
3. A hole is left out only when it is known to hold nothing wanted; its counts are exact or None.
4. The cursor is changed only together with an answer.
"""

from __future__ import annotations

from bisect import bisect_left

from busd.rules.envelope import PREFIX_BYTES, BadRecord, check
from busd.rules.excerpt import Excerpter
from busd.rules.items import UNEVEN
from busd.rules.record import CleanStop, Facts, Hole, glance, parse, parse_batch
from busd.rules.scan import resume
from busd.rules.segment_index import SegmentIndex
from busd.words.patterns import Wanted
from busd.world.disk import DiskFailed
from busd.world.segment import Shelf, reader_of
from busd.world.store_pieces import RECORD_BYTES, Pieces
from busd.world.store_telling import Chunk, Cursor, Stuck

# Wanted batches that are this close to each other are read in one piece: a read call costs as much as 16 KiB of copy.
_NEAR_BYTES = 16 << 10
# With fewer entries left in a segment, seeking by index cannot gain what the choice costs.
_FEW_ENTRIES = 16


def read(
    shelf: Shelf, cursor: Cursor, wanted: Wanted, horizon: int, budget_bytes: int, may_block: bool
) -> Chunk | None:
    """What comes next for a reader: batches with a wanted topic and holes, below `horizon`; moves the cursor.

    Reads about `budget_bytes` of the log (at least a record).  The first batch may begin below the cursor.  RESET
    floors and the selection within a batch are the caller's.  With may_block=False: None when it would have to
    wait; then repeat the call in a thread with may_block=True.

    Raises:
        DiskFailed, OSError: the file cannot be opened; the cursor is unchanged.
    """
    if cursor.offset >= horizon:
        return Chunk([], cursor.offset, True)
    step = _Step(shelf, cursor, wanted, horizon, budget_bytes, may_block)
    if not step.seek():
        return None
    step.began = (step.number, step.position)
    done = step.run()
    if done is None:
        if step.idle():
            return None
        done = False
    return step.commit(done)


class _Step(Pieces):
    """The state of one call: a copy of the cursor's, committed at the end."""

    def __init__(
        self, shelf: Shelf, cursor: Cursor, wanted: Wanted, horizon: int, budget_bytes: int, may_block: bool
    ) -> None:
        super().__init__(shelf, cursor.offset, wanted, horizon, budget_bytes, may_block)
        self.cursor = cursor
        self.topics: dict[bytes, bool] = {}
        self.excerpter = Excerpter(cursor.topic) if cursor.topic else None
        self.began = (0, 0)
        self.hops: list[int] | None = None
        self.hops_end = 0
        self.retried = -1

    # Where to begin, and the end of a step.

    def seek(self) -> bool:
        """Find the cursor's place; False when that needs a thread."""
        cursor, segments = self.cursor, self.segments
        self.number = number = self.shelf.find(segments, cursor.offset)
        if cursor._at == cursor.offset and cursor._segment is not None:
            # The hints may be one segment ahead of or behind the offset: at the end of a segment both are right.
            for near in (number, number + 1, number - 1):
                if 0 <= near < len(segments) and segments[near] is cursor._segment:
                    self.number, self.position, self.last = near, cursor._position, cursor._last
                    self.hops = None if cursor._hops is None else cursor._hops.copy()
                    self.hops_end = cursor._hops_end
                    return True
        try:
            segment = segments[number]
            if number == 0 and self.offset <= segment.prev:
                self.tell_trimmed(segment)
            self._enter(number)
        except Stuck:
            return False
        return True

    def _enter(self, number: int) -> None:
        """Begin segment `number` at the offset wanted: by its index, and choose between reading through and seeking."""
        segment = self.segments[number]
        here, self.number = self.number, number
        try:
            index = self.index_here()
        except Stuck:
            # Still at the end of the one before: its position means nothing in this one.
            self.number = here
            raise
        entry = index.number_at(self.offset)
        self.position, self.last = segment.data_at, segment.prev
        if entry >= 0:
            self.position, self.last = index.positions[entry], index.firsts[entry] - 1
        self._choose(index, max(entry, 0))

    def _choose(self, index: SegmentIndex, entry: int) -> None:
        # Of the active segment only what had landed when this call began.
        self.hops, self.hops_end = None, bisect_left(index.positions, self.size_here())
        if self.hops_end - entry < _FEW_ENTRIES or index.unknown:
            return
        hops = index.wanted(self.wanted, entry, self.hops_end)
        if hops is not None:
            hops.reverse()
            self.hops = hops

    def idle(self) -> bool:
        """True when this call has come no further than where it began."""
        moved = self.offset > self.cursor.offset or (self.number, self.position) != self.began
        return not self.records and not moved

    def commit(self, done: bool) -> Chunk:
        """Move the cursor."""
        cursor = self.cursor
        if done:
            self.offset = max(self.offset, self.horizon)
        cursor.offset = cursor._at = self.offset
        cursor._segment = self.segments[self.number]
        cursor._position, cursor._last = self.position, self.last
        cursor._hops, cursor._hops_end = self.hops, self.hops_end
        return Chunk(self.records, self.offset, done)

    # The steps.

    def run(self) -> bool | None:
        """Read until the horizon (True), the budget (False) or something that needs a thread (None)."""
        try:
            while self.budget > 0:
                if self.hops is not None:
                    done = self._hop()
                elif self.position >= self.size_here():
                    done = self._next_segment()
                else:
                    done = self._slab()
                if done:
                    return True
        except Stuck:
            return None
        return False

    def _next_segment(self) -> bool:
        """At the end of a segment: name what is missing there, go to the next one; True at the end of the log."""
        final = self.number + 1 == len(self.segments)
        expected = self.final if final else self.segments[self.number + 1].prev
        if self.last < expected:
            self.tell_missing(expected)
        if final:
            pending = self.shelf.pending
            if pending is not None and pending.last >= self.offset:
                self.tell_pass(pending)
            return True
        if expected + 1 >= self.horizon:
            return True
        self.offset = max(self.offset, expected + 1)
        self._enter(self.number + 1)
        return False

    def _slab(self) -> bool:
        """Read one piece and walk through it; True when the horizon is met."""
        start = self.position
        data = self.fetch(start, self.ahead(start))
        self.least_bytes, records = PREFIX_BYTES, 0
        while True:
            at = self.position - start
            size = self.measure(data, at)
            if size < 0:
                self._damaged()
                break
            if at + size > len(data):
                if at > 0:
                    self.least_bytes = size
                    break
                if self.position + size > self.size_here():
                    self._damaged()
                    break
                more = self.fetch(start, size)
                if len(more) <= len(data):
                    self._damaged()
                    break
                data = more
                continue
            done = self._record(bytes(data[at : at + size]))
            if done is not None:
                if not done:
                    self._damaged()
                self.budget -= self.position - start
                return done
            records += 1
            if self.position - start >= len(data):
                break
        self.budget -= max(self.position - start, records * RECORD_BYTES, 1)
        return False

    def _record(self, raw: bytes) -> bool | None:
        """Take or pass one record: None, True when it is at the horizon, False when it is damaged."""
        facts = glance(raw)
        return self._other(raw) if facts is None else self._batch(raw, facts)

    def _batch(self, raw: bytes, facts: Facts) -> bool | None:
        """The same of a batch."""
        size, first, last, prev, _, fields = facts
        index = self.segments[self.number].index
        even = UNEVEN if index is None else index.even_at(self.position)
        if self.excerpter is not None and self._excerpt(raw, facts, even):
            return None
        topics = fields[9]
        wanted = self.topics.get(topics)
        if wanted is None:
            wanted = self.topics[topics] = any(map(self.wanted, topics.split(b",")))
        batch = None
        try:
            if wanted and last >= self.offset and first < self.horizon:
                batch = parse_batch(raw, facts)
                batch.even = even
            else:
                check(raw)
        except BadRecord:
            return False
        if first >= self.horizon:
            return True
        if first > self.last:
            if prev > self.last:
                self.tell_gap(prev)
            if batch is not None:
                self.records.append(batch)
            self.last = last
            self.offset = max(self.offset, last + 1)
        self.position += size
        return None

    def _excerpt(self, raw: bytes, facts: Facts, even: int) -> bool:
        """Take what is wanted of a batch of many topics; False when that is left to `_batch`."""
        excerpter = self.excerpter
        assert excerpter is not None
        if not excerpter.take(raw, facts, self.offset, self.horizon, self.last, self.records, even):
            return False
        if excerpter.even != even:
            index = self.segments[self.number].index
            if index is not None:
                index.note_even(self.position, excerpter.even)
        self.last = facts[2]
        self.offset = self.last + 1
        self.position += facts[0]
        return True

    def _other(self, raw: bytes) -> bool | None:
        """The same of a record that is not an ordinary batch."""
        try:
            record = parse(raw)
        except BadRecord:
            return False
        size = len(raw)
        if isinstance(record, Hole):
            if record.first >= self.horizon:
                return True
            if record.first > self.last:
                if record.prev > self.last:
                    self.tell_gap(record.prev)
                self.tell_pass(record)
                self.last = record.last
            size += record.hop
        elif not isinstance(record, CleanStop):
            return False
        self.position += size
        return None

    def _hop(self) -> bool:
        """Visit the next wanted entries of this segment, those close to each other in one read."""
        index = self.index_here()
        assert self.hops is not None
        if not self.hops:
            self._hopped(index)
            return False
        start = index.positions[self.hops[-1]]
        end, count = start, 0
        for number in reversed(self.hops):
            at = index.positions[number]
            far = at - end > _NEAR_BYTES or max(at - start, count * RECORD_BYTES) >= self.budget
            if count and far:
                break
            end, count = index.end_of(number), count + 1
            if number in index.holes:
                # The dead bytes are hopped over, not read.
                end -= index.holes[number].hop
        data = self.fetch(start, end - start)
        self.budget -= max(end - start, count * RECORD_BYTES)
        for _ in range(count):
            number = self.hops[-1]
            self.position, self.last = index.positions[number], index.firsts[number] - 1
            if index.firsts[number] >= self.horizon:
                return True
            at = self.position - start
            size = self.measure(data, at)
            whole = 0 < size <= len(data) - at
            if not whole and len(data) < end - start and not self.may_block:
                raise Stuck
            done = self._record(bytes(data[at : at + size])) if whole else False
            if done is False:
                # What the index knows and the log does not have is found by reading on from here.
                self.hops = None
                self._damaged()
                return False
            self.hops.pop()
        return False

    def _hopped(self, index: SegmentIndex) -> None:
        """All wanted entries that were known are visited: go on behind them."""
        if self.hops_end < bisect_left(index.positions, self.size_here()):
            self.position, self.last = index.positions[self.hops_end], index.firsts[self.hops_end] - 1
            self._choose(index, self.hops_end)
        else:
            final = self.number == len(self.segments) - 1
            self.position, self.last, self.hops = self.size_here(), self.final if final else index.last, None
        self.offset = max(self.offset, min(self.last + 1, self.horizon))

    def _damaged(self) -> None:
        """What stands at the position cannot be read: go on where that is known to be safe, or at the segment's end."""
        segment = self.segments[self.number]
        for start, end, hole in segment.punched:
            if start <= self.position < end:
                # Its space is being given back under our eyes.
                self.tell_pass(hole)
                self.position, self.last, self.hops = end, max(self.last, hole.last), None
                return
        if not self.may_block:
            raise Stuck
        self.hops = None
        flaw = segment.damages.get(self.position)
        if flaw is None:
            index = self.shelf.index(self.segments, self.number, True)
            file = self.shelf.file(segment, True)
            assert file is not None
            flaw = resume(reader_of(file), self.position, self.size_here(), self.last, index)
            if flaw is None and self.retried != self.position:
                # It was only the piece that was read: once more.
                self.retried = self.position
                return
            if flaw is None:
                raise DiskFailed(f"{segment.path}:{self.position}: reads differ from each other")
            segment.damages[self.position] = flaw
        if flaw.resume is None:
            self.position = self.size_here()
            return
        self.position = flaw.resume
        if flaw.last is not None and flaw.last > self.last:
            self.tell_gap(flaw.last)
