"""Pieces of a segment for one reading call: where the reader is, how much is read there, and from what.

It must not know what is in them.  Invariant: a piece is never waited for unless `may_block` is set.
"""

from __future__ import annotations

from bisect import bisect_left

from busd.rules.envelope import PREFIX_BYTES, BadRecord, peek
from busd.words.patterns import Wanted
from busd.world.disk import DiskFailed, DiskFull, File
from busd.world.segment import Shelf
from busd.world.store_telling import Stuck, Telling

# Read in one call, at most: more gains nothing.
_SLAB_BYTES = 256 << 10
# A small record costs as much as reading this.
RECORD_BYTES = 8 << 10


class Pieces(Telling):
    """See the module.  `position`: in segment `number`; `budget`: how many bytes of the log the call may still take."""

    def __init__(
        self, shelf: Shelf, offset: int, wanted: Wanted, horizon: int, budget_bytes: int, may_block: bool
    ) -> None:
        super().__init__(shelf, offset, wanted, horizon, may_block)
        self.budget = max(budget_bytes, 1)
        self.position = 0
        # The next read must bring so much to be of use: the size of a record of which only the start was there.
        self.least_bytes = PREFIX_BYTES

    def size_here(self) -> int:
        """Where the segment that is read ends, as of the beginning of the call."""
        return self.end if self.number == len(self.segments) - 1 else self.segments[self.number].size

    def ahead(self, start: int) -> int:
        """How much to read from there: whole records where the index is at hand, so that no part is read again; also
        the one with which the budget is used up, so that it needs no read of its own."""
        length = min(max(min(self.budget, _SLAB_BYTES), self.least_bytes), self.size_here() - start)
        index = self.segments[self.number].index
        if index is not None:
            entry = bisect_left(index.positions, start)
            stop = min(bisect_left(index.positions, start + length), entry + (self.budget - 1) // RECORD_BYTES + 1)
            # More than two long batches and a bit: dead bytes, or damage.
            if entry < stop < len(index.positions) and index.positions[stop] - start <= 3 * _SLAB_BYTES:
                length = index.positions[stop] - start
        return length

    def measure(self, data: memoryview, at: int) -> int:
        """Size of a record; beyond the data when its prefix is cut, -1 when it is none."""
        try:
            return peek(data, at)[1]
        except BadRecord as error:
            if error.reason == "short" and self.position + PREFIX_BYTES <= self.size_here():
                return max(PREFIX_BYTES, len(data) - at + 1)
            return -1

    def fetch(self, at: int, length: int) -> memoryview:
        """Bytes of the segment that is read, until the next call; fewer, or none, where it ends or the disk cannot read
        them.

        Raises:
            Stuck: it takes a thread to read them.
        """
        segment = self.segments[self.number]
        file = self.shelf.file(segment, self.may_block)
        if file is None:
            raise Stuck
        if self.may_block:
            return memoryview(_read(file, at, length))
        try:
            data = file.read_now(at, length)
        except (DiskFailed, DiskFull):
            data = None
        if not data:
            raise Stuck
        return memoryview(data)


def _read(file: File, at: int, length: int) -> bytes:
    try:
        return file.read(at, length)
    except (DiskFailed, DiskFull):
        return b""
