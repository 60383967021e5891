"""Whether a command that got no answer is sent again, and after which pause.

Pure: the time (monotonic) and chance are arguments.  Invariants:
1. All tries together end `patience_s` after the first lost connection; one more try there is even without patience.
2. A publish that may have been sent is never said not to have been; of what only asks, the last try counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from busd_client.backoff import Backoff
from busd_client.events import BusdError, ConnectionLost
from busd_client.stream import COMING_BACK


class Resending:
    """The tries of one command.

    Args:
        times: how often it may be sent again when it may have been sent already; infinite for what only asks.
    """

    def __init__(self, times: float, patience_s: float, chance: Callable[[], float]) -> None:
        self._times = times
        self._patience_s = patience_s
        self._backoff = Backoff(chance)
        self._sent = False
        # When it gives up, once the first try has failed.
        self.until_s: float | None = None

    def after(self, error: ConnectionLost | BusdError, now_s: float) -> float:
        """The pause before the next try, in seconds.

        Raises:
            BusdError: it was refused.
            ConnectionLost: it is not sent again.
        """
        wanted = self._times > 0
        if isinstance(error, BusdError):
            again = wanted and error.code in COMING_BACK
        else:
            again = wanted and error.sent
            self._sent = self._sent or (error.sent and math.isfinite(self._times))
            self._times -= error.sent
        pause_s = self._backoff.next_s()
        if self.until_s is None:
            self.until_s = now_s + self._patience_s
            pause_s = min(pause_s, self._patience_s)
        if again and now_s + pause_s <= self.until_s:
            return pause_s
        if self._sent and isinstance(error, ConnectionLost) and not error.sent:
            raise ConnectionLost(str(error)) from error
        raise error
