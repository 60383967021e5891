"""What a store knows of each topic, and how a batch changes it.

Pure.  Invariants:
1. `count` counts every message ever kept, and no control record; it never falls.
2. `dead` of them stand below `floor`, the offset of the last RESET.
3. When `ended`, `last` is the offset of the end of stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import repeat

from busd.rules.record import Batch, TopicLine
from busd.rules.segment_index import SegmentIndex


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
    flags, control = batch.flags, batch.control
    # Each of its topics once: in a commit of thousands of topics this is most of the work.
    for topic, last, added in zip(batch.topics, batch.lasts(), repeat(0) if control else batch.counts(), strict=False):
        try:
            state = topics[topic]
        except KeyError:
            state = topics[topic] = TopicState()
        if control:
            _place(state, flags, last)
            continue
        state.last = last
        state.count += added
        state.live += added
        if state.ended:
            state.ended = False
    return 0 if control else batch.n


def note_index(topics: dict[bytes, TopicState], index: SegmentIndex, record: Callable[[int], object]) -> None:
    """The same for all entries of an index at once; `record` reads one: control records and each topic's last."""
    for topic, entries in index.topics.items():
        state = topics.setdefault(topic, TopicState())
        before = state.count
        newest = len(entries.counts) - 1
        for at in [at for at, count in enumerate(entries.counts) if not count or at == newest]:
            batch = record(entries.numbers[at])
            if isinstance(batch, Batch):
                state.count = before + sum(entries.counts[:at])
                _place(state, batch.flags, batch.last_of(topic))
        state.count = before + sum(entries.counts)
        state.live = state.count - state.dead


def _place(state: TopicState, flags: str, offset: int) -> None:
    """Take in what the newest record of a topic says."""
    state.last = offset
    if "r" in flags:
        state.floor, state.dead, state.live = offset, state.count, 0
    state.ended = "e" in flags


def add_lost(topics: dict[bytes, TopicState], counts: Mapping[bytes, int], last: int) -> int:
    """Count messages that were kept and cannot be read any more; `last` is the last lost offset."""
    for topic, count in counts.items():
        state = topics.setdefault(topic, TopicState())
        state.count += count
        state.last = max(state.last, last)
    return sum(counts.values())
