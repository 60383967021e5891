"""What came back to a group, on its way out again: read from the log anew, held until a member has room.

Invariants:
1. At most one read of the log is under way; the feed has one of its own.
2. What was taken from the group is in `entries` or with that read, until it is given out or put back.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from busd.broker.feed import Entry, Fetched, entries_of, fetch
from busd.broker.opening import House
from busd.rules.flight import Chunk
from busd.rules.select import only

if TYPE_CHECKING:
    from busd.broker.desk import Desk


class Again:
    """See the module.  `entries`: in order; `fetching`: what is being read."""

    def __init__(self, house: House, desk: Desk) -> None:
        self.entries: deque[Entry] = deque()
        self.fetching: Chunk | None = None
        self._house = house
        self._desk = desk

    def fetch(self) -> bool:
        """Read what comes first; True when that was done in this call, whatever was left of it."""
        desk = self._desk
        if self.fetching is not None:
            return False
        chunk = self.fetching = desk.group.pop()
        if chunk is None:
            return False
        read = False

        def got(fetched: Fetched | Exception) -> None:
            if self.fetching is not chunk:
                return
            self.fetching = None
            if isinstance(fetched, Exception):
                desk.group.push(chunk)
                desk.fault(fetched)
                return
            nonlocal read
            read = True
            self._take(chunk, fetched)
            desk.pump()

        fetch(self._house, desk.feed.wanted, chunk.offsets, got)
        return read

    def _take(self, chunk: Chunk, fetched: Fetched) -> None:
        group = self._desk.group
        for selection in fetched.found:
            self.entries += entries_of(selection, chunk.tries)
        if fetched.missing:
            group.missing(fetched.missing)
            self._desk.marks.lost(fetched.missing, fetched.holes)
        rest = [offset for offset in chunk.offsets if offset >= fetched.upto]
        if rest:
            group.push(Chunk(rest, chunk.tries))

    def removed(self) -> None:
        """A RESET: what is held may not be in the log any more, and is settled then."""
        floors = self._house.log.floors
        for entry in list(self.entries):
            offsets = entry.selection.offsets()
            left = only(entry.selection.batch, offsets, floors)
            kept = set(left.offsets()) if left is not None else set()
            if len(kept) < len(offsets):
                self._desk.group.missing([offset for offset in offsets if offset not in kept])
            if left is None:
                self.entries.remove(entry)
            else:
                entry.selection = left

    def put_back(self) -> None:
        """Nobody is here to take it."""
        group = self._desk.group
        for entry in self.entries:
            group.push(Chunk(entry.selection.offsets(), entry.tries))
        if self.fetching is not None:
            group.push(self.fetching)
        self.clear()

    def clear(self) -> None:
        """The group moved: none of it comes again."""
        self.entries.clear()
        self.fetching = None
