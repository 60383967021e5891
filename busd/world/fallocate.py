"""Holes in files: fallocate of the C library, which `os` does not offer.

Knows nothing of logs.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable

# Of linux/falloc.h.
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_CANNOT = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.ENODEV})


def _load() -> Callable[[int, int, int, int], int] | None:
    """fallocate of the C library, which `os` does not offer; None on systems without it."""
    try:
        function = ctypes.CDLL(None, use_errno=True).fallocate64
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    function.restype = ctypes.c_int

    def call(fd: int, mode: int, at: int, length: int) -> int:
        return int(function(fd, mode, at, length))

    return call


_fallocate = _load()


def punch_hole(fd: int, at: int, length: int) -> bool:
    """Give the space of these bytes back; they read as zeros then.  False where the file system cannot.

    Raises:
        OSError: it could, and failed.
    """
    if _fallocate is None:
        return False
    if _fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, at, length) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number))
