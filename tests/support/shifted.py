"""`busd` with a wall clock that a test shifts: seconds in the file that $SHIFT_FILE names, read at every look.

Only the wall clock: the monotonic one cannot be set on a real machine either.
"""

from __future__ import annotations

import os
import time

_real_ns = time.time_ns
_FILE = os.environ["SHIFT_FILE"]


def _shifted_ns() -> int:
    with open(_FILE, encoding="ascii") as file:
        return _real_ns() + int(file.read() or "0") * 1_000_000_000


if __name__ == "__main__":
    time.time_ns = _shifted_ns
    from busd.wiring.cli import main

    main()
