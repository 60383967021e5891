"""What a reader that was too slow is owed: one gap, and the ends of stream and RESETs that fell into it.

Knows selections and encoders, no outbox and no log.  Invariants:
1. Every message skipped is counted once; the count is exact.
2. No end of stream and no RESET is lost without a word: it is kept as it would have been sent, or lies in the gap.
3. It costs a few numbers and at most `marks_bytes`.
"""

from __future__ import annotations

from busd.rules.formats import Encoder
from busd.rules.select import Selection


class PendingGap:
    """See the module.  `open`: there is a gap to be told."""

    def __init__(self, marks_bytes: int) -> None:
        self.open = False
        self._marks_bytes = marks_bytes
        self._marks: list[bytes] = []
        self._first = 0
        self._last = 0
        self._count = 0

    def skip(self, selection: Selection, encoder: Encoder) -> None:
        """These will not be delivered."""
        count = selection.count
        if selection.batch.control:
            mark = encoder.messages(selection)
            self._marks_bytes -= len(mark)
            if self._marks_bytes >= 0:
                self._marks.append(mark)
                return
            self._marks_bytes += len(mark)
            # No room for it.  The gap reaches over it, and holds no message the more for that.
            count = 0
        if not self.open:
            self.open = True
            self._first = selection.first
            self._count = 0
        self._last = selection.last
        self._count += count

    def take(self, pattern: bytes, encoder: Encoder) -> list[bytes]:
        """What to send; nothing is owed after it."""
        told, self._marks = self._marks, []
        self._marks_bytes += sum(map(len, told))
        if self.open:
            self.open = False
            told.insert(0, encoder.gap(pattern, self._first, self._last, self._count, "slow"))
        return told
