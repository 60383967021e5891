"""Giving back the space in the middle of a sealed segment: `+H` over the first record of a stretch, then a hole in the
file.

    <first>.thin    empty: there are, or may be, holes in the segment
    <first>.punch   a copy of the segment's opening and an index page (segment_index.py) with nothing but the holes

Writing over a record is not atomic, so what is to be written lies in that file first, durable.  A start that finds it
does all of it again, which changes nothing where it was done.  Where there is no room for that file, only those holes
are written that lie in one sector: a disk writes that wholly or not at all.

It must not know why a stretch is dead.  Invariants:
1. Whoever reads the segment meanwhile finds the old records, or is told by `Segment.punched` what stands there now.
2. Dead bytes are given back only when the `+H` that stands for them is synced.
3. The old index file, which names records that are gone, is durably gone before the punch file is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from busd.rules.envelope import BadRecord
from busd.rules.record import Batch, Hole, frame_hole
from busd.rules.scan import Read, Window
from busd.rules.segment_index import SegmentIndex
from busd.rules.weigh import SETTLED, Stretch, counts_of
from busd.world.disk import Disk, DiskFailed, DiskFull, File, try_remove
from busd.world.segment import Segment, Shelf, index_path, read_opening, reader_of, thin_path

# What every disk writes as one, and always has.
_SECTOR_BYTES = 512


@dataclass(slots=True)
class Puncher:
    """`able` becomes False when the file system cannot make holes, and stays it."""

    shelf: Shelf
    able: bool = True
    _asked: bool = False

    def punch(self, segments: Sequence[Segment], number: int, stretches: Sequence[Stretch]) -> Segment | None:
        """Make a hole of each stretch; what stands for the segment now, None when nothing was done.

        Raises:
            DiskFull, DiskFailed: what is done is done; readers are not disturbed.
        """
        segment, shelf = segments[number], self.shelf
        index = shelf.index(segments, number, True)
        assert index is not None
        shelf.pin(segment)
        file = shelf.disk.open(segment.path, patch=True)
        try:
            read_opening(reader_of(file))
        except BadRecord:
            # Its only good copy is in the index file, which would go.
            return None
        if not self._asked:
            # Behind the end there is nothing: only whether it can be done is learnt.
            self._asked, self.able = True, file.punch(segment.size, 1)
        plans = _planned(segment, index, file, stretches) if self.able else []
        if not plans:
            return None
        self._mark(segment)
        journal = punch_path(segment.path)
        written = True
        try:
            shelf.disk.write_file(journal, file.read(0, segment.data_at) + _page(index, plans))
        except DiskFull:
            written = False
            plans = [plan for plan in plans if plan[0].start % _SECTOR_BYTES + plan[2] <= _SECTOR_BYTES]
        if not plans:
            return None
        segment.punched = tuple((one.start, one.end, hole) for one, hole, _ in plans)
        shelf.disk.remove(segment.index_path)
        if not written:
            shelf.disk.sync_dir(shelf.path)
        dead = self._carry_out(file, plans)
        if written:
            shelf.disk.remove(journal)
            shelf.disk.sync_dir(shelf.path)
        return self._new(segment, index, plans, dead)

    def _mark(self, segment: Segment) -> None:
        if not segment.marked:
            # Without room its size has to tell.
            with contextlib.suppress(DiskFull):
                self.shelf.disk.write_file(thin_path(segment.path), b"")
            segment.marked = True

    def _carry_out(self, file: File, plans: Sequence[tuple[Stretch, Hole, int]]) -> int:
        for one, hole, _ in plans:
            file.overwrite(one.start, frame_hole(hole))
        file.sync()
        for one, _, size in plans:
            self.able = self.able and file.punch(one.start + size, one.end - one.start - size)
        # Behind the punch file there is nobody to do it again.
        file.sync()
        return sum([one.gain_bytes - size for one, _, size in plans]) if self.able else 0

    def _new(
        self, old: Segment, index: SegmentIndex, plans: Sequence[tuple[Stretch, Hole, int]], dead_bytes: int
    ) -> Segment:
        new = Segment(old.path, old.first, old.head, old.data_at, old.size)
        new.dead_bytes, new.marked = old.dead_bytes + dead_bytes, True
        new.file = self.shelf.disk.open(old.path)
        new.index = index.thinned([(one.lo, one.hi, hole) for one, hole, _ in plans])
        self.shelf.save_index(new, reader_of(new.file), new.index)
        self.shelf.cache.keep(new)
        return new


def punch_path(path: str) -> str:
    """`<first>.punch` for `<first>.log`."""
    return path.removesuffix(".log") + ".punch"


def _planned(
    segment: Segment, index: SegmentIndex, file: File, stretches: Sequence[Stretch]
) -> list[tuple[Stretch, Hole, int]]:
    """For each stretch the hole that will stand for it, and the size of its record."""
    window = Window(reader_of(file), segment.size)
    found = []
    for one in stretches:
        try:
            first = window.record_at(one.start).record
            last = window.record_at(index.positions[one.hi - 1]).record
            if one.hi < len(index):
                window.record_at(index.positions[one.hi])
        except BadRecord:
            # Damage at its edges: a reader shall hear of that, not of a hole.
            continue
        if not isinstance(first, Batch | Hole) or not isinstance(last, Batch | Hole):
            continue
        hole = Hole(first.first, last.last, first.prev, 0, SETTLED, counts_of(index, one.lo, one.hi))
        hole = _spanning(hole, one.end - one.start)
        if hole.hop > (one.end - one.start) // 2:
            found.append((one, hole, len(frame_hole(hole))))
    return found


def _spanning(hole: Hole, size_bytes: int) -> Hole:
    """The hole with so many dead bytes that it takes `size_bytes` with them; without any where no number does that."""
    for digits in range(1, 11):
        hop = size_bytes - len(frame_hole(hole)) + 1 - digits
        if len(str(hop)) == digits and hop > 0:
            return replace(hole, hop=hop)
    # One size in a million: a digit more in the number makes it too large, one less too small.
    return hole


def _page(index: SegmentIndex, plans: Sequence[tuple[Stretch, Hole, int]]) -> bytes:
    page = SegmentIndex(index.start, 0)
    for one, hole, _ in plans:
        page.add(one.start, one.end - one.start, hole)
    return page.all_pages()


def finish(disk: Disk, path: str, names: Sequence[str]) -> list[str]:
    """Do what the punch files of a store's directory say, and remove them.  A line for each.

    Raises:
        DiskFull, DiskFailed, OSError: the files are left for the next start.
    """
    report = []
    for name in [name for name in names if name.endswith(".punch")]:
        journal = f"{path}/{name}"
        target = journal.removesuffix(".punch") + ".log"
        data = disk.read_file(journal)
        if disk.exists(target) and _redo(disk, target, data):
            report.append(f"{target}: space that was being given back when busd was stopped is given back now")
        try_remove(disk, index_path(target))
        disk.remove(journal)
        disk.sync_dir(path)
    return report


def patched(disk: Disk, path: str, read: Read) -> Read:
    """A way to read the segment at `path` as it will be once what its punch file says is done; `read` without one."""
    try:
        holes = _said(disk.read_file(punch_path(path)), read)
    except (DiskFull, DiskFailed, OSError):
        return read
    records = [(position, frame_hole(hole)) for position, hole in holes]

    def read_patched(at: int, length: int) -> bytes:
        data = bytearray(read(at, length))
        for position, record in records:
            lo, hi = max(at, position), min(at + len(data), position + len(record))
            if lo < hi:
                data[lo - at : hi - at] = record[lo - position : hi - position]
        return bytes(data)

    return read_patched


def _said(data: bytes, read: Read) -> list[tuple[int, Hole]]:
    """Positions and holes of a punch file; none when it is not whole, or not of this segment."""
    try:
        copy, size = read_opening(lambda at, length: data[at : at + length])
        if read_opening(read)[0] != copy:
            return []
    except BadRecord:
        return []
    page = SegmentIndex(size, 0)
    page.load(data, size)
    return [(page.positions[number], hole) for number, hole in page.holes.items()]


def _redo(disk: Disk, target: str, data: bytes) -> bool:
    file = disk.open(target, patch=True)
    holes = _said(data, reader_of(file))
    if not holes:
        return False
    for position, hole in holes:
        file.overwrite(position, frame_hole(hole))
    file.sync()
    for position, hole in holes:
        if not file.punch(position + len(frame_hole(hole)), hole.hop):
            break
    file.sync()
    return True
