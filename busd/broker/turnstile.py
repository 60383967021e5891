"""Costly questions, a piece of one a turn of the loop: what looks at every topic may take half a second in all.

Without it a connection that sends INFO by the thousand would hold up everybody for as long as its read lasts.
Invariants:
1. Between two pieces everybody else has had a turn, however many ask, on however many connections.
2. Those of one piece are answered in the order in which they were asked, and wait for none of many pieces.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from busd.broker.ports import Runtime
from busd.words import requests as rq

# What a connection may ask in one turn of the loop: a thousand cheap commands are 10 ms.
TURN = 1000
# What these weigh, as they look for a place in the log or through all topics; the others weigh 1.
WEIGHTS: dict[type[rq.Request], int] = {rq.Read: 60, rq.Subscribe: 60, rq.Reset: 300}


class Turnstile:
    """See the module.  What waits is bounded by the connections: each is in it once, and waits for its turn."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._waiting: deque[Iterator[None]] = deque()

    def ask(self, call: Callable[[], Iterator[None] | None]) -> None:
        """Call it when its turn has come, never within this call; what it returns is gone through in later turns."""
        self._waiting.append(_pieces(call))
        if len(self._waiting) == 1:
            self._runtime.soon(self._one)

    def _one(self) -> None:
        work, done = self._waiting[0], True
        try:
            next(work)
            done = False
        except StopIteration:
            pass
        except Exception as error:
            self._runtime.fault(error)
        finally:
            self._waiting.popleft()
            if not done:
                self._waiting.append(work)
            if self._waiting:
                (self._runtime.soon if done else self._runtime.step)(self._one)


def _pieces(call: Callable[[], Iterator[None] | None]) -> Iterator[None]:
    more = call()
    if more is not None:
        yield from more
