"""A change of segments on its way, and the topics that a store forgets with it.

An opening names every topic that a store knows, and so does memory.  Where topics are used once and never again both
would only grow, until no new one is let in.  So, once there are many, those of which nothing is left are not named
any more; one that comes again is a new one, and counted from 0.  It must not know files.  Invariants:
1. Of what is forgotten nothing stands in a segment that is kept, nor a RESET that other stores still need.
2. `sure` rises with each opening that forgets: below it nobody knows what was lost, and the counts of two openings may
   be subtracted where no opening between them has raised it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from busd.rules.record import Hole
from busd.rules.segment_opening import Opening
from busd.rules.topic_state import TopicTable
from busd.world.pages import Pages
from busd.world.segment import Segment

# Of this part of all topics nothing must be left before any are forgotten: it is work for those that stay, too.
_PART = 8


@dataclass(slots=True, eq=False)
class Roll:
    """A change of segments: made by `begin`, carried out by `write`, taken in by `landed`.

    `head` has no topics yet: `write` adds them, off the loop.  `loss` is recorded as the new segment's first record.
    `left`: when topics are forgotten, the numbers of those that stay, and `topics` the table that they come to.
    """

    head: Opening
    loss: Hole | None
    segment: Segment | None = None
    pages: Pages | None = None
    left: Sequence[int] = ()
    topics: TopicTable | None = None

    def opening(self, topics: TopicTable, memory: Memory, first: int) -> Opening:
        """The new segment's, complete; `first` is the lowest offset that is kept."""
        if not memory.faded(topics, first):
            return replace(self.head, lines=topics.lines())
        self.left = left = topics.left(first, memory.elsewhere)
        self.topics = topics.names_of(left)
        sure = max(self.head.sure, topics.last_below(first)) + 1
        return replace(self.head, lines=topics.lines(left), sure=sure)


@dataclass(slots=True)
class Memory:
    """When a store forgets.  `crowded`: whether topics are many; `elsewhere`: the lowest offset that others keep."""

    crowded: Callable[[], bool] = lambda: False
    elsewhere: Callable[[], int] = lambda: 0

    def faded(self, topics: TopicTable, first: int) -> int:
        """How many topics are to be forgotten; 0 while they may stay."""
        if not self.crowded():
            return 0
        count = topics.faded(first, self.elsewhere)
        return count if _PART * count >= len(topics) else 0
