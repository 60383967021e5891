"""What a store knows of each topic, and how a batch changes it.

Pure.  Invariants:
1. `count` counts every message ever kept, and no control record; it never falls.
2. `dead` of them stand below `floor`, the offset of the last RESET.
3. When `ended`, `last` is the offset of the end of stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from busd.rules.record import COLUMN_BASE, Batch, TopicLine


@dataclass(slots=True)
class TopicState:
    """A topic in one store.  `live`: messages that can still be read; `last`: last offset, control records included."""

    count: int = 0
    live: int = 0
    last: int = 0
    floor: int = 0
    ended: bool = False
    dead: int = 0

    def line(self) -> TopicLine:
        """What a segment opening says of it."""
        return TopicLine(self.count, self.last, self.floor, self.dead, self.ended)


def state_of(line: TopicLine) -> TopicState:
    """The state that a segment opening describes, as if nothing had been trimmed."""
    return TopicState(line.count, line.count - line.dead, line.last, line.floor, line.ended, line.dead)


def note(topics: dict[bytes, TopicState], batch: Batch) -> int:
    """Take in a batch that landed; returns how many messages it added (none for control records)."""
    column, flags, steps = batch.column, batch.flags, batch.steps
    offsets = None if steps is None else batch.offsets()
    for index, topic in enumerate(batch.topics):
        state = topics.get(topic)
        if state is None:
            state = topics[topic] = TopicState()
        at = batch.n - 1 if column is None else column.rfind(COLUMN_BASE + index)
        state.last = batch.first + at if offsets is None else offsets[at]
        if "r" in flags:
            state.floor, state.dead, state.live, state.ended = state.last, state.count, 0, False
        elif "e" in flags:
            state.ended = True
        else:
            added = batch.count_of(index)
            state.count += added
            state.live += added
            state.ended = False
    return 0 if batch.control else batch.n


def add_lost(topics: dict[bytes, TopicState], counts: Mapping[bytes, int], last: int) -> int:
    """Count messages that were kept and cannot be read any more; `last` is the last lost offset."""
    for topic, count in counts.items():
        state = topics.setdefault(topic, TopicState())
        state.count += count
        state.last = max(state.last, last)
    return sum(counts.values())
