"""`data/reserve`: bytes that are kept so that group records can still be written when the disk is full.

Given up piece by piece, so that publishers who try again and again cannot take all of it at once.  Invariants:
1. It holds real bytes, not a hole, and such that no file system can compress them.
2. It is made again only where that leaves others room.
"""

from __future__ import annotations

import posixpath
import random

from busd.world.disk import Disk, DiskFailed, DiskFull, File

# A thousand acknowledgements in full batches, or a million settled in order: enough until somebody makes room.
RESERVE_BYTES = 1 << 20
# One write of group records is some hundred bytes, and a file system gives back what it has by blocks.
PIECE_BYTES = 64 << 10
# Made again only when there is this much: it must not be what fills the disk.
_ROOM_BYTES = 16 << 20


class Reserve:
    """See the module.  `bytes`: what is left of it."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path
        self._file: File | None = None
        self.bytes = 0
        if disk.exists(path):
            self.take(disk.open(path, writable=True))

    @property
    def whole(self) -> bool:
        """True while nothing of it was given up."""
        return self.bytes == RESERVE_BYTES

    def take(self, file: File) -> None:
        """From now on it is this one."""
        self._file = file
        self.bytes = min(file.size(), RESERVE_BYTES)

    def give_up(self) -> bool:
        """Let a piece go; False when there is none, or the disk does not let us."""
        if self._file is None or not self.bytes:
            return False
        left = max(0, self.bytes - PIECE_BYTES)
        try:
            self._file.truncate(left)
        except (DiskFull, DiskFailed):
            return False
        self.bytes = left
        return True

    def made(self) -> File | None:
        """A whole one in its place, for `take`; None when there is no room for that.  Waits for the disk."""
        try:
            if self._disk.usage(posixpath.dirname(self._path) or ".")[1] < _ROOM_BYTES:
                return None
            self._disk.write_file(self._path, random.Random(self._path).randbytes(RESERVE_BYTES))
            return self._disk.open(self._path, writable=True)
        except (DiskFull, DiskFailed, OSError):
            # Whoever writes messages will hear of it; this is only the reserve.
            return None
