"""Whether a write may happen on the loop: as long as the disk is quick, a hop to a thread costs more than the write.

Invariant: one slow write sends the next ones through the thread, however many there are; then the loop tries again.
"""

from __future__ import annotations

from collections.abc import Callable

# Longer than this the loop should not stand still: an appended page takes some microseconds unless the kernel makes
# writers wait for the disk.
_QUICK_NS = 2_000_000
# Enough to get over a moment in which it does; rare enough that the loop notices little of the attempts between.
_SLOW_WRITES = 100


class Pace:
    """See the module.  `clock`: nanoseconds that only rise; `slow`: the next write is one for the thread."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self.slow = False
        self._left = 0

    def handed_over(self) -> None:
        """One went to the thread."""
        self._left = max(0, self._left - 1)
        self.slow = self._left > 0

    def here(self, write: Callable[[], None]) -> None:
        """Write on the loop, and note how long it took; what it raises passes through."""
        began_ns = self._clock()
        write()
        self.took(self._clock() - began_ns)

    def took(self, passed_ns: int) -> None:
        """One on the loop took so long."""
        if passed_ns > _QUICK_NS:
            self._left = _SLOW_WRITES
            self.slow = True
