"""What waits for a commit: runs, whom to tell of each, and how much of it one commit takes.

It must not know what becomes of a run.  Invariants:
1. Runs are taken whole, and those of one source in the order of arrival.
2. The run that came first is in the next commit, and so are small ones whose source has nothing before them, as many
   as _SMALL_BYTES holds: beside a flood a lone publish does not wait for all that the flood has sent.
"""

from __future__ import annotations

from collections.abc import Sequence

from busd.broker.ports import Sink
from busd.rules.seal import COMMIT_BYTES
from busd.words.requests import Publish
from busd.world.answers import names_in

# A commit may take what a disk of 128 MB/s writes while it is at one: where each sync has the client wait for 10 ms, a
# quarter of a megabyte a time would be all that it ever gets.
_DISK_NS_PER_BYTE = 8
# But no more than the loop frames and answers in a few milliseconds.
_MOST_BYTES = 4 * COMMIT_BYTES
# What a commit takes of small runs behind those that fill it: the share of hundreds of clients that ask one by one.
_SMALL_BYTES = COMMIT_BYTES // 8


class Waiting:
    """See the module.

    `congested`: there is more than a commit takes.  `pending_bytes`, `pending_names`: of what waits and of the commit
    under way; a run of one topic has one name, another as many as messages.
    """

    def __init__(self) -> None:
        self.congested = False
        self.pending_bytes = self.pending_names = 0
        self._runs: list[Publish] = []
        self._sinks: list[Sink] = []
        # Of what no commit has taken yet; of the one under way.
        self._bytes = self._taken_bytes = self._taken_names = 0
        self._taken: list[Publish] = []
        self._commit_bytes = COMMIT_BYTES

    def __bool__(self) -> bool:
        return bool(self._runs)

    def add(self, run: Publish, sink: Sink) -> None:
        """At the end."""
        self._runs.append(run)
        self._sinks.append(sink)
        self._bytes += run.size_bytes
        self.pending_bytes += run.size_bytes
        self.pending_names += names_in(run)
        self.congested = self._bytes > self._commit_bytes

    def take(self) -> tuple[list[Publish], list[Sink]]:
        """What the next commit takes: all of it, or as much as it may, and one run at least."""
        runs, sinks = self._runs, self._sinks
        if not self.congested:
            # Nothing else is under way.
            self._taken, self._taken_bytes, self._taken_names = runs, self._bytes, self.pending_names
            self._runs, self._sinks, self._bytes = [], [], 0
            return runs, sinks
        size = count = 0
        for run in runs:
            if count and size + run.size_bytes > self._commit_bytes:
                break
            size += run.size_bytes
            count += 1
        small = self._small(runs, count)
        self._taken_bytes = size + sum([runs[at].size_bytes for at in small])
        self._bytes -= self._taken_bytes
        self.congested = self._bytes > self._commit_bytes
        taken = [*runs[:count], *map(runs.__getitem__, small)], [*sinks[:count], *map(sinks.__getitem__, small)]
        left = [at for at in range(count, len(runs)) if at not in small]
        self._runs, self._sinks = list(map(runs.__getitem__, left)), list(map(sinks.__getitem__, left))
        self._taken, self._taken_names = taken[0], sum(map(names_in, taken[0]))
        return taken

    @staticmethod
    def _small(runs: list[Publish], lo: int) -> dict[int, None]:
        """Of the runs from `lo` on the places of small ones whose source has none before them there."""
        found: dict[int, None] = {}
        passed: set[object] = set()
        left_bytes = _SMALL_BYTES
        for at in range(lo, len(runs)):
            run = runs[at]
            if run.size_bytes <= left_bytes and run.source not in passed:
                left_bytes -= run.size_bytes
                found[at] = None
            else:
                passed.add(run.source)
        return found

    def decided(self, disk_ns: int = 0) -> list[Publish]:
        """What was taken is pending no more, and is the answer; the disk was at it for so long."""
        taken = self._taken
        self.pending_bytes -= self._taken_bytes
        self.pending_names -= self._taken_names
        self._taken, self._taken_bytes, self._taken_names = [], 0, 0
        self._commit_bytes = COMMIT_BYTES
        if disk_ns > COMMIT_BYTES * _DISK_NS_PER_BYTE:
            self._commit_bytes = min(disk_ns // _DISK_NS_PER_BYTE, _MOST_BYTES)
        self.congested = self._bytes > self._commit_bytes
        return taken

    def undecided(self) -> Sequence[Publish]:
        """What waits and what the commit under way has taken."""
        return [*self._taken, *self._runs]
