"""Reading a log that lies in several stores as one sequence.

A Place has a lane for each store that may hold what is wanted: its cursor, and records read but not yet passed.
A piece goes up to the lowest end of all lanes, so nothing that comes later can belong before it.  One lane, the
usual case, passes its records straight through.

Of what must wait for the disk no more than _AHEAD pieces are being read, or wait for the loop to take them; a Place of
several stores that waits for its turn holds what it had of those that are in the page cache.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from busd.broker.ports import Piece, Runtime
from busd.rules.record import Batch, Hole
from busd.rules.select import Selection, interleave, reframe, select
from busd.words.patterns import Wanted, any_topic
from busd.world.store import Chunk, Cursor, Store
from busd.world.stores import Stores

# With many lanes each still reads at least this much at a time.
_LANE_BYTES = 16 * 1024
# Two for each thread, so that none waits for the loop.  When 1,000 readers of cold data want more at once, the threads
# are quicker than the loop: without a bound hundreds of pieces of a quarter of a MB waited for it.
_AHEAD = 8


@dataclass(slots=True)
class _Lane:
    store: Store
    cursor: Cursor
    records: list[Batch | Hole] = field(default_factory=list)
    # Everything below it is in `records` or was passed.
    end: int = 0


@dataclass(slots=True)
class Place:
    """Where a reader is.  `topic`: see Log.cursor."""

    position: int
    topic: bytes = b""
    lanes: list[_Lane] = field(default_factory=list)
    version: int = -1


class Reader:
    """See the module."""

    def __init__(self, stores: Stores, runtime: Runtime) -> None:
        self._stores = stores
        self._runtime = runtime
        self._away = 0
        self._waiting: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()

    def read(
        self, place: Place, wanted: Wanted, horizon: int, budget_bytes: int, done: Callable[[Piece | Exception], None]
    ) -> None:
        """The next piece below `horizon`; `done` in this call unless a thread must wait for the disk."""
        if place.version != self._stores.version:
            self._look_again(place, wanted)
        lanes = place.lanes
        if not lanes:
            place.position = horizon
            done(Piece([], horizon))
            return
        budget = max(_LANE_BYTES, budget_bytes // len(lanes)) if len(lanes) > 1 else budget_bytes
        blocked = []
        for lane in lanes:
            if lane.end <= place.position and lane.end < horizon:
                chunk = lane.store.read(lane.cursor, wanted, horizon, budget, may_block=False)
                if chunk is None:
                    blocked.append(lane)
                else:
                    _fill(lane, chunk, horizon)
        if not blocked:
            done(self._pass(place, horizon))
            return

        def work() -> list[Chunk | None]:
            return [lane.store.read(lane.cursor, wanted, horizon, budget, may_block=True) for lane in blocked]

        def filled(chunks: list[Chunk | None] | Exception) -> None:
            if isinstance(chunks, Exception):
                done(chunks)
                return
            for lane, chunk in zip(blocked, chunks, strict=True):
                assert chunk is not None
                _fill(lane, chunk, horizon)
            done(self._pass(place, horizon))

        if self._away < _AHEAD:
            self._send(work, filled)
        else:
            self._waiting.append((work, filled))

    def _send(self, work: Callable[[], Any], filled: Callable[[Any], None]) -> None:
        def back(result: Any) -> None:
            # A step: one of them is half a millisecond of work, and many come at a time.  Taken where they came, eight
            # in a turn, they made a lone publish wait for 27 ms (p99) beside 1,000 readers, so for 6; as many bytes.
            self._runtime.step(partial(self._take, filled, result))

        self._runtime.in_thread(work, back)
        self._away += 1

    def _take(self, filled: Callable[[Any], None], result: Any) -> None:
        self._away -= 1
        self._send_next()
        filled(result)

    def _send_next(self) -> None:
        while self._waiting and self._away < _AHEAD:
            work, filled = self._waiting.popleft()
            try:
                self._send(work, filled)
            except Exception as error:
                self._runtime.soon(partial(filled, error))

    def _look_again(self, place: Place, wanted: Wanted) -> None:
        known = {lane.store.name: lane for lane in place.lanes}
        place.version = self._stores.version
        place.lanes = [
            known.get(store.name) or _Lane(store, Cursor(place.position), end=place.position)
            for store in self._stores.holding(wanted)
        ]
        for lane in place.lanes:
            # Records of several stores are put in order, and cut where they overlap: batches can be.
            lane.cursor.topic = place.topic if len(place.lanes) == 1 else b""

    @staticmethod
    def _pass(place: Place, horizon: int) -> Piece:
        lanes = place.lanes
        end = min(horizon, min(lane.end for lane in lanes))
        place.position = end
        if len(lanes) == 1:
            records, lanes[0].records = lanes[0].records, []
            return Piece(records, end)
        batches: list[Batch] = []
        holes: list[Hole] = []
        for lane in lanes:
            rest: list[Batch | Hole] = []
            for record in lane.records:
                if record.first >= end:
                    rest.append(record)
                elif isinstance(record, Hole):
                    holes.append(record)
                elif record.last < end:
                    batches.append(record)
                else:
                    batches.append(_part(record, 0, end))
                    rest.append(_part(record, end, record.last + 1))
            lane.records = rest
        ordered: list[Batch | Hole] = [*holes, *interleave(_cut(batches, sorted({hole.first for hole in holes})))]
        ordered.sort(key=lambda record: record.first)
        return Piece(ordered, end)


def _fill(lane: _Lane, chunk: Chunk, horizon: int) -> None:
    lane.records += chunk.records
    lane.end = horizon if chunk.done else chunk.next


def _cut(batches: Iterable[Batch], at: Iterable[int]) -> list[Batch]:
    """The batches, none of which reaches from below one of these rising offsets over it: who was told of what stands
    behind a hole is not told of the hole."""
    parts: list[Batch] = []
    for batch in batches:
        for offset in at:
            if batch.first < offset <= batch.last:
                parts.append(_part(batch, 0, offset))
                batch = _part(batch, offset, batch.last + 1)
        parts.append(batch)
    return parts


def _part(batch: Batch, lo: int, hi: int) -> Batch:
    selection: Selection | None = select(batch, any_topic, lo, hi)
    assert selection is not None, "a straddling batch has messages on both sides"
    return reframe(selection)
