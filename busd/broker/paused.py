"""Who waits to publish until there is room, and who of them goes on first.

All at once, fifty that send without pause are read in one turn of the loop: for tens of milliseconds nobody is
answered, not even by the disk, and then there is enough for twenty commits.  So each turn lets go on who will bring
about as much as one commit takes; those that read little the last time, because they wait for answers, before the
others.

Pure.  Invariants:
1. Who waits is called once, in a turn in which there is room, in the order of arrival among those who bring as little
   or as much.
2. While somebody waits and there is room another turn is asked for: it need not be known whether anything comes of
   those who went on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from busd.broker.ports import Runtime
from busd.rules.seal import COMMIT_BYTES

# Some requests: hundreds of those are no more than a commit.
_LITTLE_BYTES = 1024


class Paused:
    """See the module.  `congested`: there is no room."""

    def __init__(self, runtime: Runtime, congested: Callable[[], bool]) -> None:
        self._runtime = runtime
        self._congested = congested
        self._little: deque[tuple[Callable[[], None], int]] = deque()
        self._much: deque[tuple[Callable[[], None], int]] = deque()
        self._soon = False

    def __bool__(self) -> bool:
        return bool(self._little or self._much)

    def add(self, call: Callable[[], None], read_bytes: int) -> None:
        """Call once there is room; who waits brought so much the last time."""
        (self._little if read_bytes <= _LITTLE_BYTES else self._much).append((call, read_bytes))

    def go_on(self) -> None:
        """There may be room."""
        # Of each kind one at least, and none twice: it may wait again within its call.
        for queue, left_bytes in ((self._little, COMMIT_BYTES), (self._much, COMMIT_BYTES)):
            for _ in range(len(queue)):
                if left_bytes <= 0 or self._congested():
                    break
                call, read_bytes = queue.popleft()
                left_bytes -= read_bytes
                call()
        if self and not self._soon and not self._congested():
            self._soon = True
            self._runtime.soon(self._again)

    def _again(self) -> None:
        self._soon = False
        self.go_on()
