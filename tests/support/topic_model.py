"""What a store should know of its topics, told message by message: a plain dictionary to compare the table with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from busd.rules.record import Batch
from busd.rules.topic_state import TopicState


def note_plainly(states: dict[bytes, TopicState], batch: Batch) -> None:
    """Take in a batch."""
    for number, offset in enumerate(batch.offsets()):
        topic = batch.topic_of(number)
        state = states.get(topic, TopicState())
        if not batch.control:
            state = replace(state, count=state.count + 1, live=state.live + 1, ended=False)
        if "r" in batch.flags:
            state = replace(state, floor=offset, live=0, dead=state.count, ended=False)
        if "e" in batch.flags:
            state = replace(state, ended=True)
        states[topic] = replace(state, last=offset)


def lose_plainly(states: dict[bytes, TopicState], counts: Mapping[bytes, int], last: int) -> None:
    """So many were kept up to `last` and cannot be read any more."""
    for topic, count in counts.items():
        state = states.get(topic, TopicState())
        states[topic] = replace(state, count=state.count + count, last=max(state.last, last))
