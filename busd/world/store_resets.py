"""RESETs that stand in other stores: a rule came or went, and the older messages of the topic still lie in this one.

Only the store that took the topic when it was RESET has a record of it; to the others it is told, when it lands and at
each start, so that all that is asked of a store by topic is true in any of them.  Invariants:
1. When a RESET lands, no other store has messages of its topic behind it: all of them go to one store as long as the
   rules stand, which is until the next start.
2. What is told again changes nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

from busd.rules.topic_state import TopicTable
from busd.world.segment import Shelf
from busd.world.trim_work import live_in, parts


def note(shelf: Shelf, topics: TopicTable, floors: Mapping[bytes, int]) -> None:
    """Take in the offset at which each of these topics was RESET.

    Waits for the disk only where messages lie behind one, as they may at a start.
    """
    later: list[bytes] = []
    for name in topics if len(topics) < len(floors) else floors:
        floor = floors.get(name, 0)
        if name not in topics or floor <= topics.floor_of(name):
            continue
        state, dead = topics[name], topics[name].count
        if state.last > floor:
            later.append(name)
            dead = _count_to(shelf, name, floor)
        topics.reset_at(name, floor, dead)
    segments = shelf.segments
    if later and (segments[0].head.total or any(segment.thinned for segment in segments)):
        held = parts(shelf, segments, 0, len(segments), later)
        for name in later:
            topics.set_live(name, live_in(held.get(name), topics[name]))


def _count_to(shelf: Shelf, topic: bytes, offset: int) -> int:
    """How many messages of a topic there ever were up to an offset, at which none of its messages here is."""
    segments = shelf.segments
    number = shelf.find(segments, offset)
    lines = shelf.topics(segments[number], True) or {}
    index = shelf.index(segments, number, True)
    assert index is not None
    newest, count = index.number_at(offset), lines[topic].count if topic in lines else 0
    if (entries := index.topics.get(topic)) is not None:
        count += sum(entries.counts[: bisect_right(entries.numbers, newest)])
    holes = [hole for entry, hole in index.holes.items() if entry <= newest]
    return count + sum([(hole.counts or {}).get(topic, 0) for hole in holes])
