"""The time of receipt: follows the wall clock, never falls, and does not believe a sudden leap.

A wall clock more than MAX_LEAP_NS ahead of where the monotonic clock says it should be is followed only after it has
stayed so for as long by the monotonic clock; until then time goes on at the monotonic clock's pace and `ahead_ns`
tells.  One that falls back is waited for, and meanwhile time goes on a little slower than the monotonic clock, so that
what is measured in it (delays, ages) does not stand still; `behind_ns` tells.  Pure: both clocks are arguments.
"""

from __future__ import annotations

# An hour: larger than honest corrections (NTP steps, daylight saving mistakes), smaller than age caps in use.
MAX_LEAP_NS = 3600 * 1_000_000_000
# While it is waited for the wall clock gains one second in sixteen: no delay is wrong by more than that.
_SLOWER = 16


class ReceiveClock:
    """Stamps commits.  `last_ns`: the newest time that was ever given, 0 for none."""

    def __init__(self, wall_ns: int, monotonic_ns: int, last_ns: int = 0) -> None:
        self._anchor_wall_ns = wall_ns
        self._anchor_monotonic_ns = monotonic_ns
        self._ahead_since_ns: int | None = None
        self._last_ns = max(last_ns, wall_ns)
        self._last_monotonic_ns = monotonic_ns
        self.ahead_ns = 0
        self.behind_ns = 0

    def stamp(self, wall_ns: int, monotonic_ns: int) -> int:
        """The time of receipt now, Unix ns; at least what it was before."""
        passed_ns, self._last_monotonic_ns = monotonic_ns - self._last_monotonic_ns, monotonic_ns
        # What was given out before is believed too: a wall clock that fell back may return to it.
        leap_ns = wall_ns - self._last_ns - passed_ns
        if leap_ns > MAX_LEAP_NS:
            expected_ns = self._anchor_wall_ns + monotonic_ns - self._anchor_monotonic_ns
            leap_ns = min(leap_ns, wall_ns - expected_ns)
        if leap_ns > MAX_LEAP_NS:
            if self._ahead_since_ns is None:
                self._ahead_since_ns = monotonic_ns
            if monotonic_ns - self._ahead_since_ns < MAX_LEAP_NS:
                self.ahead_ns = leap_ns
                return self._move(expected_ns, passed_ns)
        self._ahead_since_ns = None
        self.ahead_ns = 0
        self._anchor_wall_ns, self._anchor_monotonic_ns = wall_ns, monotonic_ns
        return self._move(wall_ns, passed_ns)

    def _move(self, to_ns: int, passed_ns: int) -> int:
        least_ns = self._last_ns + passed_ns - passed_ns // _SLOWER
        self._last_ns = last_ns = to_ns if to_ns > least_ns else least_ns
        self.behind_ns = last_ns - to_ns
        return last_ns
