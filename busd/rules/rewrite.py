"""A segment made smaller: its records and what survives in, new records out.

Survivors stay verbatim when they are whole batches that still fit the chain, and are framed again where only some
messages of a batch survive.  Everything else becomes `+H` records that stand over whole runs and count what they
stand for.  A removed message between survivors of one batch cuts the batch in two, so that a reader that begins
anywhere hears of every loss; offsets that were never in the batch cut nothing.

Pure: knows records, not files.  Invariants:
1. Every message of the input is in one output batch or counted in one output hole (None where the input had None).
2. Offsets, times, topics, payloads and headers of survivors are unchanged; `prev` chains the output.
3. Survivors of a batch that is damaged do not exist: the caller passes a corrupt hole in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, pairwise

from busd.rules.column import narrowed
from busd.rules.record import Batch, Hole, frame, frame_hole

# One byte a message, 1 for a survivor; or all of them, or none.
Survivors = bytes | bool


def rewrite(
    records: Iterable[Batch | Hole], survive: Callable[[Batch], Survivors], prev: int, reason: str
) -> Iterator[bytes]:
    """The records of the smaller segment, without its opening.

    `prev`: last offset before the segment; `reason`: what the new holes are called.

    Raises:
        BadRecord: a body that has to be framed again is not what its header says.
    """
    chain = _Chain(prev, reason)
    for record in records:
        if isinstance(record, Hole):
            yield from chain.hole(record)
            continue
        which = survive(record)
        if which is True or which is False:
            yield from chain.whole(record) if which else chain.removed(record, range(record.n))
            continue
        if len(which) != record.n:
            raise ValueError(f"{len(which)} marks for {record.n} messages")
        for alive, run in groupby(range(record.n), which.__getitem__):
            numbers = list(run)
            if len(numbers) == record.n:
                yield from chain.whole(record) if alive else chain.removed(record, numbers)
            else:
                yield from chain.part(record, numbers) if alive else chain.removed(record, numbers)
    yield from chain.flush()


class _Chain:
    """What was put out so far: the last offset, and a hole that may still grow."""

    def __init__(self, prev: int, reason: str) -> None:
        self._prev = prev
        self._reason = reason
        self._open: Hole | None = None

    def flush(self) -> Iterator[bytes]:
        if self._open is not None:
            yield frame_hole(self._open)
            self._prev, self._open = self._open.last, None

    def hole(self, hole: Hole) -> Iterator[bytes]:
        """Lengthen the open hole, or begin another when it is of a different kind."""
        old = self._open
        if old is not None and (old.reason != hole.reason or (old.counts is None) != (hole.counts is None)):
            yield from self.flush()
            old = None
        if old is None:
            counts = None if hole.counts is None else dict(hole.counts)
            self._open = Hole(hole.first, hole.last, self._prev, 0, hole.reason, counts)
            return
        counts = old.counts
        for topic, count in (hole.counts or {}).items():
            assert counts is not None
            counts[topic] = counts.get(topic, 0) + count
        self._open = Hole(old.first, hole.last, old.prev, 0, old.reason, counts)

    def removed(self, batch: Batch, numbers: Sequence[int]) -> Iterator[bytes]:
        offsets = batch.offsets()
        counts: dict[bytes, int] = {}
        if not batch.control and len(numbers) == batch.n:
            counts = dict(zip(batch.topics, batch.counts(), strict=True))
        elif not batch.control:
            for number in numbers:
                topic = batch.topic_of(number)
                counts[topic] = counts.get(topic, 0) + 1
        return self.hole(Hole(offsets[numbers[0]], offsets[numbers[-1]], 0, 0, self._reason, counts))

    def whole(self, batch: Batch) -> Iterator[bytes]:
        yield from self.flush()
        # The offset before it may have moved into a hole of another extent only by damage: then it is framed again.
        yield batch.record if batch.prev == self._prev else self._framed(batch, range(batch.n)).record
        self._prev = batch.last

    def part(self, batch: Batch, numbers: Sequence[int]) -> Iterator[bytes]:
        yield from self.flush()
        framed = self._framed(batch, numbers)
        yield framed.record
        self._prev = framed.last

    def _framed(self, batch: Batch, numbers: Sequence[int]) -> Batch:
        """The messages of these numbers, which follow each other, as a batch of their own."""
        lo, hi = numbers[0], numbers[-1] + 1
        offsets = batch.offsets()[lo:hi]
        steps: tuple[int, ...] | None = None
        if offsets[-1] - offsets[0] != len(offsets) - 1:
            steps = tuple(b - a for a, b in pairwise(offsets))
        topics, column = batch.topics, batch.column
        if column is not None:
            topics, column = narrowed(column[lo:hi], topics)
        items = batch.items()[lo:hi]
        return frame(offsets[0], batch.time_ns, self._prev, batch.synced, batch.flags, topics, column, steps, items)
