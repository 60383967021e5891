"""A disk in memory that fails when it is told to, and forgets what was not synced.

It is strict where real ones may be kind: contents are durable only after `sync`, names only after `sync_dir`, and each
mutating call has a number, so that a test can make every one of them fail in turn and crash behind every one of them.

Invariants:
1. `crash` never changes the disk it is asked of: it makes a new one, as it might be found after a power cut.
2. Deterministic: the same calls give the same numbers and the same crashes.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from busd.world.disk import DiskFailed, DiskFull, File, Lock, Locked, replace_file

# What becomes of bytes that were written and not synced.
Fate = Literal["kept", "lost", "torn", "zeroed"]


# Bytes appended; a size cut back to; bytes written to a position.
Change = bytes | int | tuple[int, bytes]


@dataclass(eq=False)
class Inode:
    """Contents as the kernel has them, and the changes since the last sync."""

    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    changes: list[Change] = field(default_factory=list)
    # Bytes that were given back, as far as they still are: (from, to).
    punched: list[tuple[int, int]] = field(default_factory=list)
    durable_punched: list[tuple[int, int]] = field(default_factory=list)

    def after(self, fate: Fate) -> bytes:
        """What is found after a crash.  `torn`: half of the last append; `zeroed`: the size, but not the bytes."""
        if fate == "kept":
            return bytes(self.data)
        if fate == "zeroed":
            return self.durable[: len(self.data)].ljust(len(self.data), b"\0")
        if fate == "torn" and self.changes:
            data = bytearray(self.durable)
            for change in self.changes[:-1]:
                apply_change(data, change)
            apply_change(data, half_of(self.changes[-1]))
            return bytes(data)
        return self.durable


def half_of(change: Change) -> Change:
    """What is there of a change that was torn."""
    if isinstance(change, tuple):
        return change[0], change[1][: len(change[1]) // 2]
    return change[: len(change) // 2] if isinstance(change, bytes) else change


def apply_change(data: bytearray, change: Change) -> None:
    """Carry out a change."""
    if isinstance(change, int):
        del data[change:]
    elif isinstance(change, tuple):
        at, new = change
        data[at : at + len(new)] = new
    else:
        data += change


class MemoryFile:
    """A file of a MemoryDisk."""

    def __init__(self, disk: MemoryDisk, path: str, inode: Inode, patch: bool = False) -> None:
        self.path = path
        self._patch = patch
        self._disk = disk
        self._inode = inode

    def append(self, data: Sequence[bytes]) -> None:
        """See File."""
        whole = b"".join(data)
        try:
            self._disk.step("append", self.path)
        except (DiskFull, DiskFailed):
            part = whole[: self._disk.short_bytes]
            if part:
                self._add(part)
            raise
        room = self._disk.room_bytes
        if room is not None:
            self._add(whole[:room])
            self._disk.room_bytes = max(0, room - len(whole))
            if room < len(whole):
                raise DiskFull(f"{self.path}:{self.size()}: No space left on device")
            return
        self._add(whole)

    def _add(self, data: bytes) -> None:
        self._inode.data += data
        self._inode.changes.append(data)

    def sync(self) -> None:
        """See File.  After a failure the unsynced changes count as clean, as on Linux: a second sync would not help."""
        try:
            self._disk.step("sync", self.path)
        except (DiskFull, DiskFailed):
            self._inode.changes.clear()
            raise
        self._inode.durable = bytes(self._inode.data)
        self._inode.durable_punched = self._inode.punched[:]
        self._inode.changes.clear()

    def size(self) -> int:
        """See File."""
        return len(self._inode.data)

    def truncate(self, size_bytes: int) -> None:
        """See File."""
        self._disk.step("truncate", self.path)
        self._disk.give_back(len(self._inode.data) - size_bytes)
        del self._inode.data[size_bytes:]
        self._inode.changes.append(size_bytes)

    def overwrite(self, at: int, data: bytes) -> None:
        """See File."""
        assert self._patch, "a file that is open for appending would take it at its end"
        try:
            self._disk.step("overwrite", self.path)
        except (DiskFull, DiskFailed):
            self._change((at, data[: self._disk.short_bytes]))
            raise
        self._change((at, data))

    def _change(self, change: tuple[int, bytes]) -> None:
        apply_change(self._inode.data, change)
        self._inode.changes.append(change)

    def punch(self, at: int, length: int) -> bool:
        """See File."""
        assert self._patch
        if not self._disk.can_punch:
            return False
        self._disk.step("punch", self.path)
        length = max(0, min(length, len(self._inode.data) - at))
        self._change((at, bytes(length)))
        self._inode.punched.append((at, at + length))
        return True

    def used_bytes(self) -> int:
        """See File.  Blocks of one byte."""
        used, at = len(self._inode.data), 0
        for lo, hi in sorted(self._inode.punched):
            lo, hi = max(lo, at), min(hi, len(self._inode.data))
            used, at = used - max(0, hi - lo), max(at, hi)
        return used

    def read(self, at: int, length: int) -> bytes:
        """See File."""
        for path, lo, hi in self._disk.unreadable:
            if path == self.path and at < hi and lo < at + length:
                raise DiskFailed(f"{path}:{at}: Input/output error")
        return bytes(self._inode.data[at : at + length])

    def read_now(self, at: int, length: int) -> bytes | memoryview | None:
        """See File."""
        if self._disk.cold:
            return None
        found = bytearray(self.read(at, length))
        # Whoever still looks at what was read before is to notice it.
        self._disk.lent[:] = b"\xff" * len(self._disk.lent)
        self._disk.lent = found
        return memoryview(found)

    def close(self) -> None:
        """See File."""


class MemoryLock:
    """A lock of a MemoryDisk."""

    def __init__(self, locks: set[str], path: str) -> None:
        self._locks = locks
        self._path = path

    def release(self) -> None:
        """See Lock."""
        self._locks.discard(self._path)


class MemoryDisk:
    """See the module.

    `calls`: every mutating call so far, "kind path"; `fail_at`: the number (from 0) of the call that raises `failure`,
    once; `fail_all`: kinds of calls that raise it always; `short_bytes`: what a failing append still writes; `cold`:
    nothing can be read without waiting; `can_punch`: holes can be made in files; `unreadable`: (path, from, to) that
    give an I/O error; `lent`: what the last `read_now` gave; `room_bytes`: how much more fits before appends are cut
    short, None for no limit.
    """

    def __init__(self) -> None:
        self.names: dict[str, Inode] = {}
        self.dirs: set[str] = set()
        self.calls: list[str] = []
        self.fail_at = -1
        self.fail_all: set[str] = set()
        self.failure: Exception = DiskFull("disk:0: No space left on device")
        self.short_bytes = 0
        self.cold = False
        self.can_punch = True
        self.lent = bytearray()
        self.unreadable: list[tuple[str, int, int]] = []
        self.room_bytes: int | None = None
        self._durable_names: dict[str, Inode] = {}
        # Changes of names since the last sync of their directory: (path, inode or None).
        self._renames: list[list[tuple[str, Inode | None]]] = []
        self._locks: set[str] = set()

    def step(self, kind: str, path: str) -> None:
        """Count a mutating call; fail if it is its turn."""
        number = len(self.calls)
        self.calls.append(f"{kind} {path}")
        if number == self.fail_at or kind in self.fail_all:
            raise self.failure

    def give_back(self, size_bytes: int) -> None:
        """So much fits again."""
        if self.room_bytes is not None:
            self.room_bytes += size_bytes

    def create(self, path: str) -> File:
        """See Disk."""
        self.step("create", path)
        if path in self.names:
            raise DiskFailed(f"{path}: File exists")
        if posixpath.dirname(path) not in self.dirs:
            raise FileNotFoundError(path)
        inode = Inode()
        self._link([(path, inode)])
        return MemoryFile(self, path, inode)

    def _link(self, changes: list[tuple[str, Inode | None]]) -> None:
        for path, inode in changes:
            if inode is None:
                del self.names[path]
            else:
                self.names[path] = inode
        self._renames.append(changes)

    def open(self, path: str, writable: bool = False, patch: bool = False) -> File:
        """See Disk."""
        if path not in self.names:
            raise FileNotFoundError(path)
        return MemoryFile(self, path, self.names[path], patch)

    def exists(self, path: str) -> bool:
        """See Disk."""
        return path in self.names or path in self.dirs

    def listdir(self, path: str) -> list[str]:
        """See Disk."""
        if path not in self.dirs:
            raise NotADirectoryError(path) if path in self.names else FileNotFoundError(path)
        every = [*self.names, *self.dirs]
        return sorted(posixpath.basename(name) for name in every if posixpath.dirname(name) == path)

    def makedirs(self, path: str) -> None:
        """See Disk.  Durable at once: what is under test are files."""
        while path not in self.dirs:
            if path in self.names:
                raise DiskFailed(f"{path}: File exists")
            self.dirs.add(path)
            path = posixpath.dirname(path)

    def remove(self, path: str) -> None:
        """See Disk."""
        self.step("remove", path)
        if path in self.names:
            self.give_back(len(self.names[path].data))
            self._link([(path, None)])

    def remove_dir(self, path: str) -> None:
        """See Disk.  Durable at once."""
        if path in self.dirs and not self.listdir(path):
            self.dirs.discard(path)

    def rename(self, source: str, target: str) -> None:
        """See Disk."""
        self.step("rename", target)
        if target in self.names:
            self.give_back(len(self.names[target].data))
        self._link([(target, self.names[source]), (source, None)])

    def sync_dir(self, path: str) -> None:
        """See Disk."""
        self.step("sync_dir", path)
        self._durable_names = self.named(len(self._renames))
        self._renames.clear()

    @property
    def unsynced_names(self) -> int:
        """How many changes of names are not durable."""
        return len(self._renames)

    def named(self, count: int, lost: int = -1) -> dict[str, Inode]:
        """The names that would be found when the first `count` changes since the last sync had become durable, but for
        number `lost`."""
        names = dict(self._durable_names)
        for number, changes in enumerate(self._renames[:count]):
            for path, inode in changes if number != lost else ():
                if inode is None:
                    names.pop(path, None)
                else:
                    names[path] = inode
        return names

    def write_file(self, path: str, data: bytes) -> None:
        """See Disk."""
        replace_file(self, path, data)

    def read_file(self, path: str) -> bytes:
        """See Disk."""
        file = self.open(path)
        return file.read(0, file.size())

    def usage(self, path: str) -> tuple[int, int]:
        """See Disk."""
        return 1 << 40, (1 << 40) - sum(len(inode.data) for inode in self.names.values())

    def lock(self, path: str) -> Lock:
        """See Disk."""
        if path in self._locks:
            raise Locked(1)
        self._locks.add(path)
        return MemoryLock(self._locks, path)

    # What the tests do to it.

    def release(self) -> None:
        """Nobody holds a lock any more: who did was killed."""
        self._locks.clear()

    def contents(self) -> dict[str, bytes]:
        """Every file as it is now."""
        return {path: bytes(inode.data) for path, inode in self.names.items()}

    def set_contents(self, path: str, data: bytes) -> None:
        """Put bytes into a file (made if need be), durable, behind everybody's back."""
        self.makedirs(posixpath.dirname(path))
        inode = Inode(bytearray(data), data)
        self.names[path] = self._durable_names[path] = inode

    def delete(self, path: str) -> None:
        """Remove a file behind everybody's back."""
        self.names.pop(path)
        self._durable_names.pop(path, None)

    def copy(self) -> MemoryDisk:
        """A disk with the same files, all of it durable."""
        return self._with(dict(self.names), "kept")

    def crash(self, names: int, fate: Fate) -> MemoryDisk:
        """The disk after a power cut: the first `names` unsynced changes of names survive, unsynced bytes by `fate`."""
        return self._with(self.named(names), fate)

    def crashes(self) -> Iterator[tuple[str, MemoryDisk]]:
        """Every power cut that this disk can tell apart, each with a name."""
        fates: tuple[Fate, ...] = ("kept", "lost", "torn", "zeroed")
        for names in range(len(self._renames) + 1):
            for fate in fates:
                yield f"{names} of {len(self._renames)} names, bytes {fate}", self.crash(names, fate)

    def left_with(self, names: dict[str, Inode], contents: dict[Inode, bytes]) -> MemoryDisk:
        """A disk with these names; files that `contents` does not name hold what they hold now."""
        disk = MemoryDisk()
        disk.dirs = set(self.dirs)
        for path, inode in names.items():
            data = contents.get(inode, bytes(inode.data))
            disk.set_contents(path, data)
            punched = inode.punched if data == inode.data else inode.durable_punched
            disk.names[path].punched, disk.names[path].durable_punched = punched[:], punched[:]
        return disk

    def _with(self, names: dict[str, Inode], fate: Fate) -> MemoryDisk:
        disk = MemoryDisk()
        disk.dirs = set(self.dirs)
        for path, inode in names.items():
            disk.set_contents(path, inode.after(fate))
            punched = inode.punched if fate == "kept" else inode.durable_punched
            disk.names[path].punched, disk.names[path].durable_punched = punched[:], punched[:]
        return disk
