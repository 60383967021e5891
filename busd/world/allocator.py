"""How the C library hands out memory, which it does not know to be Python's.

Knows nothing of what is kept there.
"""

from __future__ import annotations

import ctypes
import os

# Of malloc.h of glibc.
_M_ARENA_MAX = -8


def share_one_arena() -> None:
    """Let all threads that start from now on take memory from one place; changes nothing where the C library has no
    such choice, or was told another one by MALLOC_ARENA_MAX or GLIBC_TUNABLES.

    glibc gives each thread a place of its own, which keeps what the thread gave back: with 1,000 slow readers of a
    log of 20 GB that is 11 MB of 67.  It does so that threads need not wait for each other; ours take turns in the
    interpreter anyway, and publishing is no slower so.
    """
    if os.environ.get("MALLOC_ARENA_MAX") or "arena_max" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    mallopt(_M_ARENA_MAX, 1)
