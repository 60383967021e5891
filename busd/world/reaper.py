"""Taking back the space of large files whose names are gone: a piece at a time, in a thread of its own.

The last close of such a file frees all of it at once.  Where the file system tells the disk what it frees (`discard`),
every sync waits for that: 64 MiB hold up a publisher for 95 ms, pieces of 4 MiB for 12 (of 1 MiB for 7, but so many
times that it is slower for longer).  Whoever lets go of a file, perhaps the loop, waits for nothing.

It must not know segments.  Invariants:
1. A file that anybody else has open, also another process, keeps its contents, as far as the file system knows of it:
   overlayfs does not know who opened the file in one of its layers.
2. A descriptor that was taken is closed, whatever fails.
3. What waits is bounded: of more than a few files each is closed as it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

STEP_BYTES = 4 << 20
# Freed by whoever closes it: that takes less than handing it on.
_LITTLE_BYTES = 64 << 10
# Between two pieces, for commits: 64 MiB take half a second.  Not while another file waits.
_PAUSE_S = 0.02
# Each keeps a descriptor, and space that no cap counts any more: half a gigabyte of segments of the usual size.
_MOST_WAITING = 8


class Reaper:
    """See the module.  `pause` is called between two pieces."""

    def __init__(self, pause: Callable[[], None] = lambda: time.sleep(_PAUSE_S)) -> None:
        self._pause = pause
        self._doomed: SimpleQueue[int] = SimpleQueue()
        self._starting = threading.Lock()
        self._started = False

    def close(self, fd: int) -> None:
        """Close a descriptor: here, or in the thread where that frees more than a little.  From any thread, and while
        objects are thrown away."""
        try:
            found = os.fstat(fd)
            if found.st_nlink == 0 and found.st_size > _LITTLE_BYTES and self._start():
                self._doomed.put(fd)
                return
        except OSError:
            # As it always was: a descriptor that tells nothing can be closed.
            pass
        os.close(fd)

    def _start(self) -> bool:
        if sys.is_finalizing():
            # Where Python throws everything away, its 3.11 would wait for ever for a thread to begin.
            return False
        # Not waited for: objects may be thrown away in this very call.
        if self._started or not self._starting.acquire(blocking=False):
            return self._started
        try:
            threading.Thread(target=self._run, name="busd-reaper", daemon=True).start()
            self._started = True
        except RuntimeError:
            # None is to be had.
            return False
        finally:
            self._starting.release()
        return True

    def _run(self) -> None:
        while True:
            fd = self._doomed.get()
            # Whatever it is (a disk that fails, no memory): the next ones are to be closed all the same.
            with contextlib.suppress(Exception):
                if self._doomed.qsize() >= _MOST_WAITING:
                    os.close(fd)
                else:
                    shrink(fd, self._pause_unless_more)

    def _pause_unless_more(self) -> None:
        if self._doomed.empty():
            self._pause()


def shrink(fd: int, pause: Callable[[], None]) -> None:
    """Close this descriptor of a file without a name; where nobody else has one, the file is cut off piece by piece
    before, with a pause behind each."""
    try:
        writable = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        fd, old = writable, fd
        os.close(old)
        _check_alone(fd)
        size = os.fstat(fd).st_size
        while size > STEP_BYTES:
            size -= STEP_BYTES
            os.ftruncate(fd, size)
            # Else a quiet log would leave all pieces to one commit of the file system.  What was not synced yet of
            # the rest is written for that: of a segment nothing, it was synced when it was closed.
            os.fdatasync(fd)
            pause()
    except OSError:
        # Not possible here: the close does it all.
        pass
    finally:
        os.close(fd)


def _check_alone(fd: int) -> None:
    """Raises OSError unless nobody else has its file open, in any process: a lease is granted to no other."""
    # Who opened it in this moment, through /proc, would make the system send a signal: one that does nothing.
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
