"""The index file of the segment that grows: a copy of its opening, then pages.

Hints: whatever fails here is made good by a scan of the log, so nothing is raised and nothing is synced.  It must not
know when a page is due.  Invariants:
1. A page covers landed bytes only.
2. The file ends with a whole page, or is given up until it is written anew.
3. An index that does not know everything that was lost is not saved: pages could not tell.
"""

from __future__ import annotations

from dataclasses import dataclass

from busd.rules.record import Hole
from busd.rules.segment_index import SegmentIndex
from busd.rules.segment_opening import Opening
from busd.world.disk import Disk, DiskFailed, DiskFull, File, try_remove
from busd.world.segment import Segment


class Pages:
    """The index file of one segment; `file` None: there is none that fits.  `bytes`: its size, 0 without one."""

    def __init__(self, disk: Disk, file: File | None) -> None:
        self._disk = disk
        self._file = file
        self.bytes = 0 if file is None else file.size()

    def begin(self, segment: Segment, opening: bytes) -> None:
        """Start the file of a new segment with a copy of its opening."""
        self._file, self.bytes = None, 0
        try:
            try_remove(self._disk, segment.index_path)
            file = self._disk.create(segment.index_path)
            file.append([opening])
        except (DiskFull, DiskFailed):
            return
        self._file = file
        self.bytes = len(opening)

    def save(self, segment: Segment, index: SegmentIndex) -> None:
        """Add what came since the last page; the whole index when the file was given up."""
        if index.unknown:
            return
        try:
            if self._file is None:
                assert segment.file is not None
                self.begin(segment, segment.file.read(0, segment.data_at))
                page = index.all_pages()
            else:
                page = index.page()
            if self._file is not None and page:
                self._append(self._file, page)
        except (DiskFull, DiskFailed):
            self._file = None

    def _append(self, file: File, page: bytes) -> None:
        size = file.size()
        try:
            file.append([page])
        except (DiskFull, DiskFailed):
            file.truncate(size)
            raise
        self.bytes = size + len(page)


@dataclass(slots=True, eq=False)
class Roll:
    """A change of segments on its way: made by `begin`, carried out by `write`, taken in by `landed`.

    `head` has no topics yet: `write` adds them, off the loop.  `loss` is recorded as the new segment's first record.
    """

    head: Opening
    loss: Hole | None
    segment: Segment | None = None
    pages: Pages | None = None
