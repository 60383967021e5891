"""Dead letters: what was given back at its last try is published to `_dead.<group>.<topic>`, then settled.

Invariants:
1. The dead letter is kept before the original is settled, and there is one, also when the server is killed between:
   after a restart the dead letters are searched for those that are there already.
2. A few at a time; those that cannot be kept are tried again in a second, behind the others that wait, and the house is
   told why for as long.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING

from busd.broker.admission import size_of
from busd.broker.feed import Fetched, fetch
from busd.broker.opening import House
from busd.broker.ports import Outcome, Piece
from busd.broker.stride import PIECE_BYTES
from busd.rules.group import Dying
from busd.rules.group_records import line_done, ranges_of
from busd.rules.record import Batch
from busd.rules.select import Selection, select
from busd.words.errors import BusError
from busd.words.headers import steering
from busd.words.patterns import matcher
from busd.words.requests import Item, Publish
from busd.words.units import NS_PER_S

if TYPE_CHECKING:
    from busd.broker.desk import Desk

_AT_ONCE = 100
_AGAIN_NS = NS_PER_S
# Headers of the original that would act on the dead letter.
_ACTING = (b"id", b"delay", b"ttl", b"group", b"tries", b"reason", b"offset")


class Burial:
    """See the module."""

    def __init__(self, house: House, desk: Desk) -> None:
        self._house = house
        self._desk = desk
        self._under_way = False
        # The last of those that could not be kept: next are those behind it, if there are any.
        self._refused = 0
        # Offsets whose dead letters were found after a restart; None until it was looked.
        self._found: set[int] | None = None

    def clear(self) -> None:
        """The group moved: what dies from now on is another death."""
        self._found = None
        self._tell(None)

    def begin(self) -> None:
        """Begin, when there is something to bury and nothing under way."""
        dying = self._desk.group.dying
        if self._under_way:
            return
        if not dying:
            self._tell(None)
            return
        self._under_way = True
        rising = sorted(dying)
        offsets = (rising[bisect_right(rising, self._refused) :] or rising)[:_AT_ONCE]
        if self._found is None and any(one.recovered for one in dying.values()):
            first = min(offset for offset, one in dying.items() if one.recovered)
            _Search(self._house, self._desk.group.name, first, lambda found: self._searched(found, offsets))
        else:
            self._read(offsets)

    def _searched(self, found: set[int] | Exception, offsets: list[int]) -> None:
        if isinstance(found, Exception):
            self._later(found)
            return
        self._found = found
        self._read(offsets)

    def _read(self, offsets: list[int]) -> None:
        here = [offset for offset in offsets if self._found and offset in self._found]
        if here:
            self._settle(here, len(here))
            return
        fetch(self._house, self._desk.feed.wanted, offsets, self._got)

    def _got(self, fetched: Fetched | Exception) -> None:
        if isinstance(fetched, Exception):
            self._later(fetched)
            return
        dying = self._desk.group.dying
        topics: list[bytes] = []
        items: list[Item] = []
        offsets: list[int] = []
        for selection in fetched.found:
            for topic, offset, item in zip(selection.topics(), selection.offsets(), selection.items(), strict=True):
                if offset in dying:
                    topics.append(b"_dead.%b.%b" % (self._desk.group.name, topic))
                    items.append(self._letter(offset, item, dying[offset]))
                    offsets.append(offset)
        missing = [offset for offset in fetched.missing if offset in dying]
        if missing:
            self._desk.marks.lost(missing, fetched.holes)
        if not offsets:
            self._settle(missing, 0)
            return
        run = Publish(topics, items, size_of(items), headers=True)
        try:
            self._house.log.append(run, lambda outcome: self._kept(outcome, offsets, missing))
        except BusError as error:
            self._tell(error)
            self._refused = offsets[-1]
            self._later(None)

    def _tell(self, error: BusError | None) -> None:
        """Why dead letters of this group are not kept; nothing when they are."""
        unburied, name = self._house.unburied, self._desk.group.name
        if error is not None:
            unburied[name] = str(error)
        elif unburied:
            unburied.pop(name, None)

    def _letter(self, offset: int, item: Item, one: Dying) -> Item:
        payload, headers = (item, []) if isinstance(item, bytes) else (item[0], item[1:])
        group = self._desk.group.name
        told = [b"id", b"%b:%d" % (group, offset), b"group", group, b"tries", b"%d" % one.tries]
        told += [b"reason", one.reason, b"offset", b"%d" % offset]
        for name, value in zip(headers[::2], headers[1::2], strict=True):
            if name not in _ACTING:
                told += [name, value]
        return [payload, *told]

    def _kept(self, outcome: Outcome, offsets: list[int], missing: list[int]) -> None:
        error = next(iter(outcome.errors.values()), None)
        dying = self._desk.group.dying
        if error is not None or not any(one <= self._refused and one not in offsets for one in dying):
            # Else those still wait that were refused before these.
            self._tell(error)
        kept = [offset for at, offset in enumerate(offsets) if at not in outcome.errors]
        if kept or missing:
            self._settle(sorted(kept + missing), len(kept))
        else:
            self._refused = offsets[-1]
            self._later(None)

    def _settle(self, offsets: list[int], letters: int) -> None:
        desk = self._desk
        offsets = [offset for offset in offsets if offset in desk.group.dying]
        if not offsets:
            self._under_way = False
            desk.pump()
            return
        moves = desk.moves

        def decided(error: BusError | None) -> None:
            if moves != desk.moves:
                # None of them dies any more, unless for another time.
                self._under_way = False
            elif error is None:
                self._under_way = False
                desk.group.buried(offsets, letters)
            else:
                # What was published is not published again.
                self._found = {*(self._found or ()), *offsets}
                self._later(None)
                return
            desk.pump()

        self._house.log.settle([line_done(desk.group.name, ranges_of(offsets))], decided)

    def _later(self, error: Exception | None) -> None:
        if error is not None:
            self._house.runtime.fault(error)

        def again() -> None:
            self._under_way = False
            self._desk.pump()

        self._house.runtime.later(_AGAIN_NS, again)


class _Search:
    """Which messages of a group have their dead letter already, from an offset on."""

    def __init__(self, house: House, group: bytes, first: int, done: Callable[[set[int] | Exception], None]) -> None:
        self._house = house
        self._prefix = b"%b:" % group
        self._wanted = matcher((b"_dead.%b.>" % group,))
        self._cursor = house.log.cursor(first)
        self._done = done
        self._found: set[int] = set()
        self._next()

    def _next(self) -> None:
        try:
            self._house.log.read(self._cursor, self._wanted, PIECE_BYTES, self._got)
        except Exception as error:
            self._done(error)

    def _got(self, piece: Piece | Exception) -> None:
        if isinstance(piece, Exception):
            self._done(piece)
            return
        # One that was removed since is not kept any more.
        floors = self._house.log.floors
        for record in piece.records:
            if isinstance(record, Batch) and (selection := select(record, self._wanted, floors=floors)) is not None:
                self._note(selection)
        if piece.next >= self._house.log.horizon:
            self._done(self._found)
        else:
            self._house.runtime.step(self._next)

    def _note(self, selection: Selection) -> None:
        for item in selection.items():
            told = None if isinstance(item, bytes) else steering(item[1:])
            if told is not None and told.id.startswith(self._prefix):
                self._found.add(int(told.id[len(self._prefix) :]))
