"""After a start: the ids that the log holds and that are young enough to matter, read in steps.

Ages are counted back from the newest message of the log, not from the clock: a wall clock that jumped while the server
was down cannot empty the window, and the time that it was down counts for nothing.  Invariants:
1. One step a turn of the loop, each of bounded size; batches without headers are not looked into.
2. `done` is called once, also when the log cannot be read (then the ids read so far have to do), unless stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import Any

from busd.broker.ports import Log, Piece, Runtime
from busd.rules.dedup import Window, ids_of
from busd.rules.record import Batch
from busd.words.patterns import any_topic

# As much as a reader gets at a time: a step takes well under a millisecond unless the disk has to be waited for.
_STEP_BYTES = 256 * 1024


class Load:
    """See the module."""

    def __init__(self, log: Log, runtime: Runtime, window: Window, span_ns: int, done: Callable[[], None]) -> None:
        self._log = log
        self._runtime = runtime
        self._window = window
        self._span_ns = span_ns
        self._done = done
        self._horizon = log.horizon
        self._newest_ns = log.newest_ns
        self._now_ns = runtime.monotonic_ns()
        self._cursor: Any = None
        self._stopped = False

    def begin(self) -> None:
        """Find where to begin, then go on by itself."""
        self._log.offset_at(max(0, self._newest_ns - self._span_ns), self._found)

    def stop(self) -> None:
        """No more of it."""
        self._stopped = True

    def _found(self, offset: Any) -> None:
        if isinstance(offset, Exception):
            self._failed(offset)
        elif offset >= self._horizon:
            self._end()
        else:
            self._cursor = self._log.cursor(offset)
            self._runtime.step(self._step)

    def _step(self) -> None:
        if self._stopped:
            return
        try:
            self._log.read(self._cursor, any_topic, _STEP_BYTES, self._took)
        except Exception as error:
            self._failed(error)

    def _took(self, piece: Piece | Exception) -> None:
        if isinstance(piece, Exception):
            self._failed(piece)
            return
        for record in piece.records:
            if isinstance(record, Batch) and "h" in record.flags and record.first < self._horizon:
                self._take(record)
        if piece.next >= self._horizon:
            self._end()
        else:
            self._runtime.step(self._step)
            self._runtime.breathe()

    def _take(self, batch: Batch) -> None:
        ids = ids_of(batch.items())
        if ids is None:
            return
        topics = repeat(batch.topics[0]) if batch.column is None else map(batch.topic_of, range(batch.n))
        when_ns = self._now_ns - max(0, self._newest_ns - batch.time_ns)
        for offset, topic, message_id in zip(batch.offsets(), topics, ids, strict=False):
            if message_id:
                self._window.put(topic, message_id, offset, when_ns)

    def _failed(self, error: Exception) -> None:
        self._runtime.fault(error)
        self._end()

    def _end(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._done()
