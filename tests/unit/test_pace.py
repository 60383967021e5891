"""A slow write sends the next ones through the thread."""

from __future__ import annotations

import pytest

from busd.world.pace import Pace


class Disk:
    """Writes that take as long as they are told to."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.takes_ns = 0

    def write(self) -> None:
        """One write."""
        self.now_ns += self.takes_ns


@pytest.mark.parametrize(("takes_ns", "slow"), [(0, False), (2_000_000, False), (2_000_001, True)])
def test_only_a_slow_write_slows_the_next(takes_ns: int, slow: bool) -> None:
    disk = Disk()
    pace = Pace(lambda: disk.now_ns)
    assert not pace.slow
    disk.takes_ns = takes_ns
    pace.here(disk.write)
    assert pace.slow == slow


def test_after_a_hundred_the_loop_tries_again() -> None:
    disk = Disk()
    pace = Pace(lambda: disk.now_ns)
    disk.takes_ns = 10**9
    pace.here(disk.write)
    handed = 0
    while pace.slow:
        pace.handed_over()
        handed += 1
    assert handed == 100
    disk.takes_ns = 1
    pace.here(disk.write)
    assert not pace.slow
    # What goes to the thread for another reason takes nothing off.
    pace.handed_over()
    disk.takes_ns = 10**9
    pace.here(disk.write)
    assert pace.slow
