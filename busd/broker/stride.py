"""The steps of a replay: how much of the log is read in one, and what of it is small enough to be told together.

Pure.  Invariant: the messages of a Handful are of rising offsets, and together take about HANDFUL_BYTES at most.
"""

from __future__ import annotations

from busd.rules.record import Batch
from busd.rules.select import Selection

# A piece of the log read in one step by who takes all that it is given, and by others as much as half of the outbox:
# what begins inside is read whole, so that is two long batches, and one, as the system may take no more of it.
PIECE_BYTES = 256 * 1024
# Beside a commit, which must wait for the step, and at first for who has a LIMIT: one batch, as what begins inside is
# read whole.
HURRIED_BYTES = 48 * 1024
# Where little of it is for the reader.
SPARSE_BYTES = 512 * 1024
# As much as goes out in one write: more costs as much as it saves.
HANDFUL_BYTES = 64 * 1024
# A stored batch is about this long at most (busd.rules.seal), its text up to twice that: an outbox that is half empty
# takes one whole, because reading it again for a slice costs more than the bytes are worth.
BATCH_BYTES = 256 * 1024


class Stride:
    """How much is read next: `bytes`."""

    __slots__ = ("_least", "bytes")

    def __init__(self, outbox_bytes: int, limited: bool = False) -> None:
        """`limited`: the reader has a LIMIT, and one batch is often all that it takes."""
        self._least = min(PIECE_BYTES, outbox_bytes // 2)
        self.bytes = min(HURRIED_BYTES, self._least) if limited else self._least

    def took(self, written_bytes: int, easy: bool, emptied: bool, hurried: bool) -> None:
        """More next time where all was taken at once or little was for this reader; less when the reader did not take
        it (not `easy`), and least while a commit waits (`hurried`)."""
        sparse = 8 * written_bytes < self.bytes
        if hurried:
            self.bytes = min(HURRIED_BYTES, self._least)
        elif easy and (emptied or sparse):
            self.bytes = min(SPARSE_BYTES if sparse else PIECE_BYTES, 2 * self.bytes)
        else:
            self.bytes = self._least


class Handful:
    """Parts of batches that wait to be told in one piece: `selections`."""

    __slots__ = ("_bytes", "_last", "selections")

    def __init__(self) -> None:
        self.selections: list[Selection] = []
        self._bytes = 0
        self._last = -1

    def add(self, batch: Batch, selection: Selection | None) -> bool:
        """What of the next batch is to be told, None for nothing; False when it is not to wait with the others."""
        if selection is not None:
            size_bytes = self._bytes + batch.size_bytes * selection.count // batch.n
            if size_bytes > HANDFUL_BYTES:
                return False
            self._bytes = size_bytes
            self.selections.append(selection)
        self._last = batch.last
        return True

    def take(self) -> tuple[list[Selection], int]:
        """All of it, and the last offset that it tells of; nothing waits any more."""
        taken = self.selections, self._last
        self.selections, self._bytes, self._last = [], 0, -1
        return taken
