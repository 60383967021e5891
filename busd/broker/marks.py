"""What members of a group are told that is no message: losses, ends of stream, RESETs.

An end of stream is a state: it is told when everything of the group before it is settled, to each member once, and to
members that come later, until the topic goes on.  A hole is told once, however often it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from busd.broker.feed import Item
from busd.broker.opening import House
from busd.rules.group_records import ranges_of
from busd.rules.losses import told
from busd.rules.record import Hole
from busd.rules.select import Selection, build

if TYPE_CHECKING:
    from busd.broker.desk import Desk
    from busd.broker.seat import Seat


class Marks:
    """See the module."""

    def __init__(self, house: House, desk: Desk) -> None:
        self._house = house
        self._desk = desk
        # Topics that are at their end, and the offset of that; and those of which a member is to be told.
        self._ends: dict[bytes, int] | None = None
        self._owed: dict[bytes, int] = {}
        # Holes already told that reach beyond the group's place: they are read again when that is read again.
        self._told: set[tuple[int, int, str]] = set()

    def clear(self) -> None:
        """The group moved: look again."""
        self._ends = None
        self._told.clear()
        for seat in self._desk.seats:
            seat.told.clear()
        if self._desk.seats:
            self.look()

    def look(self) -> None:
        """A member came; the first one has the topics looked through that ended before the group's place."""
        if self._ends is None:
            ends, place = self._house.log.ended(self._desk.feed.wanted), self._desk.group.next
            self._ends = {name: last for name, last in ends.items() if last < place}
        self._owed = dict(self._ends)

    def take(self, item: Item) -> None:
        """A hole, or a control record, is next in line."""
        group = self._desk.group
        if isinstance(item, Hole):
            first = max(item.first, group.next)
            # With several stores a hole may reach over messages of another, which stand behind it in the feed.
            self._told = {hole for hole in self._told if hole[0] >= group.next}
            group.pass_over(min(item.last + 1, self._desk.feed.taken_to))
            name = (item.last, item.prev, item.reason)
            if first <= item.last and name not in self._told:
                self._told.add(name)
                count, reason = told(item, first, item.last, self._desk.feed.wanted)
                if count != 0:
                    self._gap(first, item.last, count, reason)
            return
        selection = item.selection
        group.pass_over(selection.last + 1)
        if "e" in selection.batch.flags:
            ends = dict(zip(selection.topics(), selection.offsets(), strict=True))
            self._owed.update(ends)
            if self._ends is not None:
                self._ends.update(ends)
            return
        for seat in self._desk.seats:
            seat.reset(selection)

    def lost(self, offsets: Sequence[int], holes: Sequence[Hole]) -> None:
        """Messages that were to be given out again are not in the log; where no hole is that counts some, a RESET has
        removed them."""
        untold = list(offsets)
        for hole in holes:
            inside = [offset for offset in untold if hole.first <= offset <= hole.last]
            if not inside:
                continue
            count, reason = told(hole, hole.first, hole.last, self._desk.feed.wanted)
            if count != 0:
                # Holes of several stores may reach over it.
                untold = [offset for offset in untold if not hole.first <= offset <= hole.last]
                for first, last in ranges_of(inside):
                    self._gap(first, last, last - first + 1, reason)

    def _gap(self, first: int, last: int, count: int | None, reason: str) -> None:
        pattern = b",".join(self._desk.group.patterns)
        self._house.tally.gaps += 1
        for seat in self._desk.seats:
            seat.lost(pattern, first, last, count, reason)

    def tell_ends(self) -> None:
        """Ends of stream before which everything is settled, to who was not told."""
        place = self._house.log.groups.get(self._desk.group.name)
        if not self._owed or place is None:
            return
        # What is kept as settled, not what is on its way there: after a crash nothing before the end comes again.
        settled = place.settled
        if min(self._owed.values()) >= settled:
            return
        for topic, offset in sorted(self._owed.items(), key=lambda end: end[1]):
            if offset >= settled:
                return
            del self._owed[topic]
            if not self._stands(topic, offset):
                # It went on.
                if self._ends is not None:
                    self._ends.pop(topic, None)
                continue
            mark = _mark(topic, offset)
            for seat in self._desk.seats:
                if seat.told.get(topic) != offset:
                    seat.ended(mark)

    def catch_up(self, seat: Seat) -> None:
        """It has room again for ends of stream that it was not told of: those that still are the end."""
        seat.missed_ends = False
        place = self._house.log.groups.get(self._desk.group.name)
        if place is None or self._ends is None:
            return
        for topic, offset in sorted(self._ends.items(), key=lambda end: end[1]):
            if offset >= place.settled:
                return
            if seat.told.get(topic) != offset and self._stands(topic, offset):
                seat.ended(_mark(topic, offset))
                if seat.missed_ends:
                    return

    def _stands(self, topic: bytes, offset: int) -> bool:
        """Whether the topic's end is still there."""
        state = self._house.log.topic(topic)
        return state is not None and state.ended and state.last == offset


def _mark(topic: bytes, offset: int) -> Selection:
    return Selection(build([offset], [topic], [b""], 0, "e"), 0, 1, None, 1)
