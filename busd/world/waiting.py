"""What waits for a commit: runs, whom to tell of each, and how much of it one commit takes.

It must not know what becomes of a run.  Invariant: runs are taken whole, in the order of arrival.
"""

from __future__ import annotations

from busd.broker.ports import Sink
from busd.rules.seal import COMMIT_BYTES
from busd.words.requests import Publish


class Waiting:
    """See the module.

    `congested`: there is more than a commit takes.  `pending_bytes`: of what waits and of the commit under way.
    """

    def __init__(self) -> None:
        self.congested = False
        self.pending_bytes = 0
        self._runs: list[Publish] = []
        self._sinks: list[Sink] = []
        # Of what no commit has taken yet; of the one under way.
        self._bytes = self._taken_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._runs)

    def add(self, run: Publish, sink: Sink) -> None:
        """At the end."""
        self._runs.append(run)
        self._sinks.append(sink)
        self._bytes += run.size_bytes
        self.pending_bytes += run.size_bytes
        self.congested = self._bytes > COMMIT_BYTES

    def take(self) -> tuple[list[Publish], list[Sink]]:
        """What the next commit takes: all of it, or as much as it may, and one run at least."""
        runs, sinks = self._runs, self._sinks
        if not self.congested:
            self._taken_bytes = self._bytes
            self._runs, self._sinks, self._bytes = [], [], 0
            return runs, sinks
        size = count = 0
        for run in runs:
            if count and size + run.size_bytes > COMMIT_BYTES:
                break
            size += run.size_bytes
            count += 1
        self._runs, self._sinks = runs[count:], sinks[count:]
        self._bytes -= size
        self._taken_bytes = size
        self.congested = self._bytes > COMMIT_BYTES
        return runs[:count], sinks[:count]

    def decided(self) -> None:
        """What was taken is pending no more."""
        self.pending_bytes -= self._taken_bytes
        self._taken_bytes = 0
