"""What a group reads: new messages ahead of its members, and single ones again.

A Feed reads the log from the group's place on and joins the fan-out where it has caught up, like a subscription; it
stops when it has enough.  `fetch` reads given offsets again.

Invariants:
1. What it holds is bounded: about AHEAD_BYTES, and one batch or piece more.
2. Entries come in the order of offsets, losses, ends of stream and RESETs among them; everything below `position` is
   in `entries` or was taken from it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from busd.broker.opening import House
from busd.broker.ports import Piece
from busd.broker.stride import PIECE_BYTES
from busd.rules.record import Batch, Hole
from busd.rules.select import Selection, only, select, split
from busd.words.headers import Steering, steering
from busd.words.patterns import Wanted

# Two batches: one to give out of while the next is read.
AHEAD_BYTES = 512 * 1024


@dataclass(slots=True)
class Entry:
    """Messages to give out, so far given out `tries` times; a single one when it is steered by its headers.

    `share`: what a member gets of it in its turn, 0 until it is the first one's.
    """

    selection: Selection
    tries: int = 0
    steer: Steering | None = None
    share: int = 0


Item = Entry | Hole


def entries_of(selection: Selection, tries: int = 0) -> list[Entry]:
    """The selection, cut where messages are steered (`key`, `delay`, `ttl`)."""
    batch = selection.batch
    if "h" not in batch.flags or batch.control:
        return [Entry(selection, tries)]
    steers = [_steer(item) for item in selection.items()]
    if not any(steers):
        return [Entry(selection, tries)]
    found: list[Entry] = []
    rest: Selection | None = selection
    for plain, group in groupby(steers, lambda steer: steer is None):
        run = list(group)
        for steer in run[:1] if plain else run:
            assert rest is not None, "as many as there are steers"
            head, rest = split(rest, len(run) if plain else 1)
            found.append(Entry(head, tries, steer))
    return found


def _steer(item: bytes | list[bytes]) -> Steering | None:
    found = None if isinstance(item, bytes) else steering(item[1:])
    return found if found is not None and (found.key or found.delay_ns or found.ttl_ns is not None) else None


class Feed:
    """See the module.  `ready` is called when entries came in a later turn; `failed` when the log has a fault."""

    encoder = None

    def __init__(self, house: House, patterns: tuple[bytes, ...], position: int) -> None:
        self.entries: deque[Item] = deque()
        self.position = position
        self.ready: Callable[[], None] = lambda: None
        self.failed: Callable[[Exception], None] = lambda error: None
        self._house = house
        self._audience = house.fanout.enter(patterns)
        self._cursor = house.log.cursor(position)
        self._held_bytes = 0
        self._live = False
        self._reading = False
        self._generation = 0

    @property
    def wanted(self) -> Wanted:
        """The group's patterns."""
        return self._audience.wanted

    @property
    def taken_to(self) -> int:
        """Everything of the group below it was taken."""
        if not self.entries:
            return self.position
        item = self.entries[0]
        return item.first if isinstance(item, Hole) else item.selection.first

    def fill(self) -> bool:
        """Get more, unless there is enough or it is under way.

        True when nothing of what was read in this call is for the group: call again, in another turn.
        """
        if self._live or self._reading or self._held_bytes >= AHEAD_BYTES:
            return False
        if self.position >= self._house.log.horizon:
            self._live = True
            # The old one would keep the segment that it was in, for as long as the group is there.
            self._cursor = self._house.log.cursor(self.position)
            self._house.fanout.join(self._audience, self)
            return False
        self._reading = True
        generation, before = self._generation, self.position
        during = True

        def got(piece: Piece | Exception) -> None:
            if generation != self._generation:
                return
            self._reading = False
            if isinstance(piece, Exception):
                self.failed(piece)
                return
            self._take(piece)
            if not during:
                self.ready()

        try:
            self._house.log.read(self._cursor, self.wanted, PIECE_BYTES, got)
        except Exception as error:
            self._reading = False
            self.failed(error)
        during = False
        return self.position > before and not self.entries

    def _take(self, piece: Piece) -> None:
        for record in piece.records:
            if record.last < self.position:
                continue
            if isinstance(record, Hole):
                self.entries.append(record)
            else:
                self._add(record)
        self.position = max(self.position, piece.next)
        self._house.runtime.breathe()

    def _add(self, batch: Batch) -> None:
        selection = select(batch, self.wanted, self.position, floors=self._house.log.floors)
        if selection is not None:
            self.entries += entries_of(selection)
            self._held_bytes += len(batch.record)

    def offered(self, batch: Batch, selection: Selection | None, data: bytes) -> None:
        """See fanout.Reader."""
        if not self._live or batch.last < self.position:
            return
        if self._held_bytes >= AHEAD_BYTES:
            # The rest is read from the log when there is room for it.
            self._leave()
            return
        self._add(batch)
        self.position = batch.last + 1
        if self.entries:
            self.ready()

    def _leave(self) -> None:
        if self._live:
            self._live = False
            self._house.fanout.part(self._audience, self)
            self._cursor = self._house.log.cursor(self.position)

    def keep(self, left: Callable[[Entry], Selection | None]) -> None:
        """Of each entry with messages only what is left of it."""
        kept: deque[Item] = deque()
        for item in self.entries:
            if isinstance(item, Entry) and not item.selection.batch.control:
                found = left(item)
                if found is None:
                    continue
                item.selection = found
            kept.append(item)
        self.entries = kept
        self.taken()

    def taken(self) -> None:
        """Entries were taken: perhaps all."""
        if not self.entries:
            self._held_bytes = 0

    def rewind(self, position: int) -> None:
        """Drop what was read; go on from here when asked."""
        self._leave()
        self._generation += 1
        self._reading = False
        self.entries.clear()
        self._held_bytes = 0
        self.position = position
        self._cursor = self._house.log.cursor(position)

    def close(self) -> None:
        """No more of it."""
        self.rewind(self.position)
        self._house.fanout.leave(self._audience)


@dataclass(slots=True)
class Fetched:
    """Of the offsets asked for: what was found, and where it is gone; nothing is said of those from `upto` on."""

    found: list[Selection]
    missing: list[int]
    holes: list[Hole]
    upto: int


def fetch(house: House, wanted: Wanted, offsets: Sequence[int], done: Callable[[Fetched | Exception], None]) -> None:
    """Read messages again: a piece of the log from the first of the (rising) offsets on."""

    def read() -> None:
        try:
            house.log.read(cursor, wanted, budget_bytes, got)
        except Exception as error:
            done(error)

    def got(piece: Piece | Exception) -> None:
        if isinstance(piece, Exception):
            done(piece)
            return
        holes.extend(record for record in piece.records if isinstance(record, Hole))
        if piece.next <= offsets[0]:
            # Of several stores one may have been read to its end first, or no farther than below it, and that was all
            # the budget.
            house.runtime.step(read)
            return
        floors = house.log.floors
        batches = [record for record in piece.records if isinstance(record, Batch) and not record.control]
        found = [one for batch in batches if (one := only(batch, offsets, floors, wanted)) is not None]
        here = {offset for one in found for offset in one.offsets()}
        missing = [offset for offset in offsets if offset < piece.next and offset not in here]
        done(Fetched(found, missing, holes, piece.next))

    holes: list[Hole] = []
    # One message: the record that it is in is enough.
    budget_bytes = PIECE_BYTES if len(offsets) > 1 else 1
    cursor = house.log.cursor(offsets[0])
    read()
