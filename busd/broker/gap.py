"""What a reader that was too slow is owed: one gap, and the ends of stream and RESETs that fell into it.

Knows selections and encoders, no outbox and no log.  Invariants:
1. Every message skipped is counted once; the count is exact.
2. No end of stream and no RESET is lost without a word: it is kept as it would have been sent, or lies in a gap.
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


class PendingMarks:
    """What a member of a group is owed that does not read: RESETs and losses, which no other member is told for it.

    The first ones, of at most `marks_bytes`, are kept as they would have been sent; the others lie in one gap for each
    reason, which counts as many messages as theirs do together.
    """

    def __init__(self, marks_bytes: int) -> None:
        self._marks_bytes = marks_bytes
        self._left_bytes = marks_bytes
        self._marks: list[bytes] = []
        self._gaps: dict[str, tuple[int, int, int | None]] = {}

    def __bool__(self) -> bool:
        return bool(self._marks or self._gaps)

    def keep(self, event: bytes, first: int, last: int, count: int | None, reason: str) -> None:
        """This could not be sent; where it has to lie in a gap, it is first … last and so many messages of it."""
        if not self._gaps and len(event) <= self._left_bytes:
            self._left_bytes -= len(event)
            self._marks.append(event)
            return
        if (known := self._gaps.get(reason)) is not None:
            first, last = min(first, known[0]), max(last, known[1])
            count = None if count is None or known[2] is None else count + known[2]
        self._gaps[reason] = (first, last, count)

    def take(self, pattern: bytes, encoder: Encoder) -> bytes:
        """What to send; nothing is owed after it."""
        told = [*self._marks, *(encoder.gap(pattern, *gap, reason) for reason, gap in self._gaps.items())]
        self._left_bytes = self._marks_bytes
        self._marks, self._gaps = [], {}
        return b"".join(told)
