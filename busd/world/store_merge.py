"""Neighbouring segments made into one: survivors as they are, holes for the rest, in the place of the first of them.

It must not know who decides what survives.  Invariants:
1. Until `merge` returns, nothing has changed for a start that comes after a crash; from then on what it returns is the
   truth, and `clear` only removes what that covers (`until`).
2. What is dead is not read: its counts stand in the index.  Where damage shows, everything is walked and checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from busd.rules import losses
from busd.rules.envelope import BadRecord
from busd.rules.record import Batch, Hole
from busd.rules.rewrite import Survivors, rewrite
from busd.rules.scan import Flaw, Window, walk
from busd.rules.segment_index import SegmentIndex
from busd.rules.segment_opening import frame_opening
from busd.rules.weigh import counts_of
from busd.words.patterns import any_topic
from busd.world.disk import DiskFailed, DiskFull, try_remove
from busd.world.segment import Segment, Shelf, read_opening, reader_of, thin_path

# Rewritten bytes go to the disk in pieces of this size.
_PIECE_BYTES = 1 << 20


@dataclass(slots=True, frozen=True)
class Choice:
    """What survives of one segment: `alive` are the entries that hold any of it, `survive` says which messages."""

    alive: frozenset[int]
    survive: Callable[[int, Batch], Survivors]


def merge(
    shelf: Shelf, segments: Sequence[Segment], numbers: Sequence[int], choices: Sequence[Choice], reason: str
) -> Segment:
    """Write what survives of some neighbours into one segment that takes the place of the first.

    Args:
        numbers: which of `segments`, without gaps; not the last one.
        choices: one for each of them.
        reason: what the new holes are called.

    Raises:
        DiskFull, DiskFailed, BadRecord: nothing has changed.
    """
    disk, target = shelf.disk, segments[numbers[0]]
    file = shelf.file(target, True)
    assert file is not None
    until = segments[numbers[-1] + 1].first - 1
    head = replace(target.head, until=until, lines=read_opening(reader_of(file))[0].lines)
    opening = frame_opening(head)
    try:
        parts = [opening, *_rewritten(shelf, segments, numbers, choices, reason, _known)]
    except BadRecord:
        parts = [opening, *_rewritten(shelf, segments, numbers, choices, reason, _walked)]
    temporary = target.path + ".tmp"
    disk.remove(temporary)
    new_file = disk.create(temporary)
    try:
        for piece in _pieces(parts):
            new_file.append(piece)
        new_file.sync()
        # The old hints must not outlive the file they describe: the new opening may be equal to the old one.
        disk.remove(target.index_path)
        disk.sync_dir(shelf.path)
        for number in numbers:
            shelf.pin(segments[number])
        disk.rename(temporary, target.path)
    except (DiskFull, DiskFailed):
        try_remove(disk, temporary)
        raise
    new = Segment(target.path, target.first, head, len(opening), sum(map(len, parts)))
    new.file = new_file
    return new


def clear(shelf: Shelf, segments: Sequence[Segment], numbers: Sequence[int]) -> None:
    """Remove what a merged segment covers.  Leftovers are removed at the next start.

    Raises:
        DiskFull, DiskFailed: some are left.
    """
    disk = shelf.disk
    disk.sync_dir(shelf.path)
    for number in numbers[1:]:
        try_remove(disk, segments[number].index_path)
        try_remove(disk, thin_path(segments[number].path))
        disk.remove(segments[number].path)
    if len(numbers) > 1:
        disk.sync_dir(shelf.path)


Records = Iterator[tuple[int, Batch | Hole]]
_Way = Callable[[Shelf, Sequence[Segment], int, Choice, str, int], Records]


def _rewritten(
    shelf: Shelf,
    segments: Sequence[Segment],
    numbers: Sequence[int],
    choices: Sequence[Choice],
    reason: str,
    way: _Way,
) -> Iterator[bytes]:
    # The rewriter asks about a batch right after it was given to it.
    current: list[tuple[int, Choice]] = [(0, choices[0])]

    def records() -> Iterator[Batch | Hole]:
        last = segments[numbers[0]].prev
        for number, choice in zip(numbers, choices, strict=True):
            for entry, record in way(shelf, segments, number, choice, reason, last):
                current[0] = entry, choice
                yield record
                last = record.last

    def survive(batch: Batch) -> Survivors:
        entry, choice = current[0]
        return choice.survive(entry, batch) if entry in choice.alive else False

    return rewrite(records(), survive, segments[numbers[0]].prev, reason)


def _known(shelf: Shelf, segments: Sequence[Segment], number: int, choice: Choice, reason: str, last: int) -> Records:
    """What the index knows; records only where something survives.

    Raises:
        BadRecord: something is not as the index says.
    """
    segment, index = segments[number], shelf.index(segments, number, True)
    file = shelf.file(segment, True)
    assert index is not None
    assert file is not None
    if index.unknown or index.last < shelf.last_of(segments, number) or last < segment.prev:
        raise BadRecord("form", "the index does not know everything")
    window = Window(reader_of(file), segment.size)

    def record_at(entry: int) -> Batch | Hole:
        record = window.record_at(index.positions[entry]).record
        if not isinstance(record, Batch | Hole) or record.first != index.firsts[entry]:
            raise BadRecord("form", "another record than the index says")
        return record

    entry = 0
    while entry < len(index):
        lo = entry
        if entry in index.holes or entry in choice.alive:
            yield entry, index.holes.get(entry) or record_at(entry)
            entry += 1
            continue
        while entry < len(index) and entry not in index.holes and entry not in choice.alive:
            entry += 1
        hole = Hole(index.firsts[lo], record_at(entry - 1).last, 0, 0, reason, counts_of(index, lo, entry))
        yield lo, hole


def _walked(shelf: Shelf, segments: Sequence[Segment], number: int, choice: Choice, reason: str, last: int) -> Records:
    """Every record, checked, with a hole for everything that is damaged."""
    segment, index = segments[number], shelf.index(segments, number, True)
    file = shelf.file(segment, True)
    assert index is not None
    assert file is not None
    expected = shelf.last_of(segments, number)
    if last < segment.prev:
        yield 0, _lost(None, last + 1, segment.prev)
        last = segment.prev
    for step in walk(reader_of(file), segment.data_at, segment.size, last, index):
        if isinstance(step, Flaw):
            upto = expected if step.last is None else step.last
            if step.kind != "doubled" and upto > last:
                yield 0, _lost(index, last + 1, upto)
                last = upto
        elif isinstance(step.record, Batch | Hole) and step.record.first > last:
            yield index.number_at(step.record.first), step.record
            last = step.record.last
    if last < expected:
        yield 0, _lost(index, last + 1, expected)


def _lost(index: SegmentIndex | None, first: int, last: int) -> Hole:
    counts = losses.in_index(index, first, last, any_topic, True) if index is not None else None
    return Hole(first, last, 0, 0, "corrupt", counts)


def _pieces(parts: Sequence[bytes]) -> Iterator[list[bytes]]:
    piece: list[bytes] = []
    size = 0
    for part in parts:
        piece.append(part)
        size += len(part)
        if size >= _PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece
