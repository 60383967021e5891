"""The disk as the rest of busd sees it; `real_disk` is the one of this machine.

Everything that is kept goes through a `Disk`, so that a test can put one in that fails call N, tears a write or
forgets what was not synced.  It must not know what a record is.  Invariants:
1. Every error of a write or a sync is DiskFull or DiskFailed and names path:position; nothing is retried here.
2. A new or renamed name is durable only after `sync_dir`; contents only after `sync`.
3. A File stays readable as long as it is referenced, also when its name is gone: readers in a thread hold one.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Protocol


class DiskFull(Exception):
    """No room for the bytes; nothing is wrong with the disk.  The text has path:position."""


class DiskFailed(Exception):
    """The disk answered with an error and is not to be believed any more.  The text has path:position."""


class Locked(Exception):
    """Another process holds the lock; `pid` is its id, 0 when the file does not tell."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"held by process {pid}" if pid else "held by another process")
        self.pid = pid


class File(Protocol):
    """One open file.  Closed when nobody references it any more."""

    path: str

    def append(self, data: Sequence[bytes]) -> None:
        """Write all of it at the end.  After an error some of it may stand there: the caller truncates."""

    def sync(self) -> None:
        """Wait until contents and size are durable."""

    def size(self) -> int:
        """Size in bytes."""

    def truncate(self, size_bytes: int) -> None:
        """Cut the file back to this size."""

    def read(self, at: int, length: int) -> bytes:
        """Bytes from position `at`, fewer at the end of the file; may wait for the disk."""

    def read_now(self, at: int, length: int) -> bytes | memoryview | None:
        """The same without waiting, maybe fewer; None when it would have to wait, or nobody can know.

        What is read stands in a buffer that the next such call in this thread, of any file, writes over.
        """

    def overwrite(self, at: int, data: bytes) -> None:
        """Write over bytes that are there; only for a file opened to be patched.  May be found torn after a crash."""

    def punch(self, at: int, length: int) -> bool:
        """Give the space of these bytes back; from then on they are zeros.  False where that cannot be done."""

    def used_bytes(self) -> int:
        """What of its size takes room on the disk."""

    def close(self) -> None:
        """Give the descriptor back; harmless when repeated."""


class Lock(Protocol):
    """A lock held for life."""

    def release(self) -> None:
        """Let it go; the file stays."""


class Disk(Protocol):
    """A file system."""

    def create(self, path: str) -> File:
        """A new, empty file to append to and read.  Raises DiskFailed when the name exists."""

    def open(self, path: str, writable: bool = False, patch: bool = False) -> File:
        """An existing file, to append to or to be patched in the middle.

        Raises FileNotFoundError, PermissionError, DiskFailed.
        """

    def exists(self, path: str) -> bool:
        """Whether the name exists."""

    def listdir(self, path: str) -> list[str]:
        """Names in a directory, sorted.  Raises FileNotFoundError, NotADirectoryError, DiskFull, DiskFailed."""

    def makedirs(self, path: str) -> None:
        """Make a directory and those above it, durable; one that exists is fine, a file in its place is DiskFailed."""

    def remove(self, path: str) -> None:
        """Remove a file's name; one that is gone is fine."""

    def remove_dir(self, path: str) -> None:
        """Remove an empty directory; one that is gone, or holds anything, is fine."""

    def rename(self, source: str, target: str) -> None:
        """Give a file another name, replacing what had it."""

    def sync_dir(self, path: str) -> None:
        """Wait until the names in a directory are durable."""

    def write_file(self, path: str, data: bytes) -> None:
        """Replace a whole file, durably and at once: after a crash it holds the old bytes or the new ones."""

    def read_file(self, path: str) -> bytes:
        """A whole file.  Raises FileNotFoundError."""

    def usage(self, path: str) -> tuple[int, int]:
        """Bytes of the file system: all, free for us."""

    def lock(self, path: str) -> Lock:
        """Take the lock file for this process.  Raises Locked."""


def replace_file(disk: Disk, path: str, data: bytes) -> None:
    """`write_file` in terms of the other calls: temporary file, write, sync, rename, sync the directory.

    Raises:
        DiskFull, DiskFailed: the old file is unchanged and the temporary one removed, if the disk still lets us.
    """
    temporary = path + ".tmp"
    disk.remove(temporary)
    try:
        file = disk.create(temporary)
        try:
            file.append([data])
            file.sync()
        finally:
            file.close()
        disk.rename(temporary, path)
    except (DiskFull, DiskFailed):
        try_remove(disk, temporary)
        raise
    disk.sync_dir(posixpath.dirname(path) or ".")


def try_remove(disk: Disk, path: str) -> bool:
    """Remove a file whose loss or presence matters to nobody; False when the disk did not let us."""
    try:
        disk.remove(path)
    except (DiskFull, DiskFailed):
        return False
    return True
