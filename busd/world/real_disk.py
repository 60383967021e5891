"""The disk of this machine: the only file that touches `os` for data.

See `disk` for what is promised.  Invariant: every call that the system refuses is DiskFull or DiskFailed, but for names
that are not there or not ours to open (FileNotFoundError, PermissionError of `create` and `open`), or no directory
(FileNotFoundError, NotADirectoryError of `listdir`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Sequence

from busd.world.disk import DiskFailed, DiskFull, File, Lock, Locked, replace_file
from busd.world.fallocate import punch_hole
from busd.world.reaper import STEP_BYTES, Reaper

# What means "no room": the file system, the user's quota, the process's RLIMIT_FSIZE.
# The last two: connections may have taken all descriptors for a moment; the file itself is sound, and tried again.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE})
# Linux takes at most 1024 buffers in one writev.
_IOV_MAX = 1024
# Absent on other systems: then every read that must not block is one for a thread.
_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)
# What st_blocks counts, whatever the file system's own blocks are.
_STAT_BLOCK_BYTES = 512
_BUFFER_BYTES = 1 << 18
# The largest record of the usual limits has room; what one of 64 MiB needed once is not kept for ever.
_KEPT_BYTES = 1 << 21
_NO_BUFFER = bytearray()
_buffers = threading.local()
_reaper = Reaper()


def _trouble(error: OSError, path: str, at: int | None = None) -> DiskFull | DiskFailed:
    kind = DiskFull if error.errno in _FULL else DiskFailed
    return kind(f"{_place(path, at)}: {error.strerror or error}")


def _place(path: str, at: int | None) -> str:
    return path if at is None else f"{path}:{at}"


def _end_of(fd: int) -> int | None:
    """Where a file ends, for a text; a descriptor that fails may not even tell that."""
    with contextlib.suppress(OSError):
        return os.fstat(fd).st_size
    return None


class RealFile:
    """A descriptor of the operating system."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd

    def append(self, data: Sequence[bytes]) -> None:
        """See File."""
        rest: list[bytes | memoryview] = list(filter(None, data))
        while rest:
            try:
                written = os.writev(self._fd, rest[:_IOV_MAX])
            except OSError as error:
                raise _trouble(error, self.path, _end_of(self._fd)) from error
            done = 0
            while done < len(rest) and written >= len(rest[done]):
                written -= len(rest[done])
                done += 1
            del rest[:done]
            if written:
                rest[0] = memoryview(rest[0])[written:]

    def sync(self) -> None:
        """See File."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            # A full disk may show only now (delayed allocation); what is lost then is not known: that is a failure.
            where = _place(self.path, _end_of(self._fd))
            raise DiskFailed(f"{where}: fdatasync: {error.strerror or error}") from error

    def size(self) -> int:
        """See File."""
        return self._stat().st_size

    def _stat(self) -> os.stat_result:
        try:
            return os.fstat(self._fd)
        except OSError as error:
            raise _trouble(error, self.path) from error

    def truncate(self, size_bytes: int) -> None:
        """See File."""
        try:
            os.ftruncate(self._fd, size_bytes)
        except OSError as error:
            raise _trouble(error, self.path, size_bytes) from error

    def read(self, at: int, length: int) -> bytes:
        """See File."""
        parts: list[bytes] = []
        try:
            while length > 0:
                part = os.pread(self._fd, length, at)
                if not part:
                    break
                parts.append(part)
                at += len(part)
                length -= len(part)
        except OSError as error:
            raise _trouble(error, self.path, at) from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_now(self, at: int, length: int) -> bytes | memoryview | None:
        """See File."""
        if not _NOWAIT:
            return None
        # One buffer a thread: a new one each time would be cleared first, which costs as much as to copy it.
        buffer: bytearray = getattr(_buffers, "buffer", _NO_BUFFER)
        if len(buffer) < length:
            buffer = bytearray(max(length, _BUFFER_BYTES))
            if length <= _KEPT_BYTES:
                _buffers.buffer = buffer
        view = memoryview(buffer)
        try:
            count = os.preadv(self._fd, [view[:length]], at, _NOWAIT)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL):
                return None
            raise _trouble(error, self.path, at) from error
        return view[:count]

    def overwrite(self, at: int, data: bytes) -> None:
        """See File."""
        rest = memoryview(data)
        try:
            while rest:
                written = os.pwrite(self._fd, rest, at)
                at, rest = at + written, rest[written:]
        except OSError as error:
            raise _trouble(error, self.path, at) from error

    def punch(self, at: int, length: int) -> bool:
        """See File."""
        end = at + length
        try:
            # At whole multiples, so that no block lies in two pieces: of such a one neither gives anything back.
            while (stop := (at // STEP_BYTES + 1) * STEP_BYTES) < end:
                if not punch_hole(self._fd, at, stop - at):
                    return False
                # A commit of the file system for each, as in `reaper`: syncs of others come between them.
                self.sync()
                at = stop
            return punch_hole(self._fd, at, end - at)
        except OSError as error:
            raise _trouble(error, self.path, at) from error

    def used_bytes(self) -> int:
        """See File."""
        found = self._stat()
        return min(found.st_size, found.st_blocks * _STAT_BLOCK_BYTES)

    def close(self) -> None:
        """See File."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            _reaper.close(fd)

    def __del__(self) -> None:
        self.close()


class RealLock:
    """flock on a file that holds our process id; the kernel lets it go when the process dies."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        """See Lock."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class RealDisk:
    """The file system of this machine."""

    def create(self, path: str) -> File:
        """See Disk."""
        return RealFile(path, self._open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL))

    def open(self, path: str, writable: bool = False, patch: bool = False) -> File:
        """See Disk."""
        # With O_APPEND, Linux would put at the end also what is written to a position.
        flags = os.O_RDWR if patch else os.O_RDWR | os.O_APPEND if writable else os.O_RDONLY
        return RealFile(path, self._open(path, flags))

    def _open(self, path: str, flags: int) -> int:
        try:
            return os.open(path, flags | os.O_CLOEXEC, 0o644)
        except (FileNotFoundError, PermissionError):
            raise
        except OSError as error:
            raise _trouble(error, path) from error

    def exists(self, path: str) -> bool:
        """See Disk."""
        return os.path.lexists(path)

    def listdir(self, path: str) -> list[str]:
        """See Disk."""
        try:
            return sorted(os.listdir(path))
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            raise _trouble(error, path) from error

    def makedirs(self, path: str) -> None:
        """See Disk."""
        if os.path.isdir(path):
            return
        parent = os.path.dirname(os.path.abspath(path))
        self.makedirs(parent)
        try:
            os.mkdir(path)
        except OSError as error:
            if os.path.isdir(path):
                return
            raise _trouble(error, path) from error
        self.sync_dir(parent)

    def remove(self, path: str) -> None:
        """See Disk."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _trouble(error, path) from error

    def remove_dir(self, path: str) -> None:
        """See Disk."""
        try:
            os.rmdir(path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                raise _trouble(error, path) from error

    def rename(self, source: str, target: str) -> None:
        """See Disk."""
        try:
            os.replace(source, target)
        except OSError as error:
            raise _trouble(error, target) from error

    def sync_dir(self, path: str) -> None:
        """See Disk."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            # Also that it is gone: then what was done in it is not durable.
            raise _trouble(error, path) from error
        try:
            os.fsync(fd)
        except OSError as error:
            raise DiskFailed(f"{path}: fsync of the directory: {error.strerror or error}") from error
        finally:
            os.close(fd)

    def write_file(self, path: str, data: bytes) -> None:
        """See Disk."""
        replace_file(self, path, data)

    def read_file(self, path: str) -> bytes:
        """See Disk."""
        file = self.open(path)
        try:
            return file.read(0, file.size())
        finally:
            file.close()

    def usage(self, path: str) -> tuple[int, int]:
        """See Disk."""
        try:
            answer = os.statvfs(path)
        except OSError as error:
            raise _trouble(error, path) from error
        return answer.f_blocks * answer.f_frsize, answer.f_bavail * answer.f_frsize

    def lock(self, path: str) -> Lock:
        """See Disk."""
        fd = self._open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whose it is, is for people to read; a full disk must not keep the server from starting.
            with contextlib.suppress(OSError):
                os.ftruncate(fd, 0)
                os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        except BlockingIOError:
            text = os.pread(fd, 32, 0).strip()
            os.close(fd)
            raise Locked(int(text) if text.isdigit() else 0) from None
        except OSError as error:
            os.close(fd)
            raise _trouble(error, path) from error
        return RealLock(fd)
