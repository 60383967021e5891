"""How long to wait before the next attempt to connect.  Pure: chance is an argument."""

from __future__ import annotations

from collections.abc import Callable

# A restart of busd takes some 100 ms, so the first attempts are quick; 5 s keeps a dead server from being hammered.
FIRST_S = 0.05
HIGHEST_S = 5.0


class Backoff:
    """Doubling delays up to HIGHEST_S, each between half and all of it, so that many clients do not come in step."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._delay_s = FIRST_S

    def next_s(self) -> float:
        """The delay before the next attempt, in seconds."""
        delay_s = self._delay_s * (0.5 + 0.5 * self._chance())
        self._delay_s = min(2 * self._delay_s, HIGHEST_S)
        return delay_s

    def reset(self) -> None:
        """An attempt succeeded: begin again with the shortest delay."""
        self._delay_s = FIRST_S
