"""Trimming one store: which segments go is decided by rules/retention and store_sweep, here they go.

`expired` and `trimmed` run on the loop, `trim` in a thread; between them the caller asks for nothing else.  It must not
know readers: they keep the files they have open, and look their place up again by offset.  Invariants:
1. After a crash at any point every survivor is there once: a merged segment says up to where it covers (`until`), and
   what it covers is removed only when it is durable.
2. Segments are removed oldest first, each durably before the next, so that no hole can appear in the middle; what goes
   from the middle leaves a record of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from busd.rules import retention
from busd.rules.column import BASE, codes
from busd.rules.envelope import BadRecord
from busd.rules.record import Batch
from busd.rules.retention import ActiveFacts, SealedFacts
from busd.rules.rewrite import Survivors
from busd.rules.topic_state import TopicState, TopicTable
from busd.words.patterns import Wanted
from busd.words.settings import StoreRule
from busd.world.disk import DiskFailed, DiskFull
from busd.world.segment import Segment, Shelf
from busd.world.store_merge import Choice
from busd.world.store_sweep import Sweep, Sweeper
from busd.world.trim_work import Trimmed, TrimWork, durable, live_in, parts

__all__ = ["Sweep", "Trim", "Trimmed", "Trimmer", "durable"]

# What survives of a segment: entry -> (bytes it will take, about; topic -> how many of its newest).
_Kept = dict[int, tuple[int, dict[bytes, int]]]


@dataclass(slots=True, frozen=True)
class Trim:
    """Work for a thread: delete these segments, or rewrite them to the last messages of each topic; or sweep all."""

    segments: tuple[Segment, ...] = ()
    rewrite: bool = False
    sweep: Sweep | None = None


class Trimmer:
    """The trimming side of a store; `first` is the lowest offset still kept."""

    def __init__(self, shelf: Shelf, rule: StoreRule) -> None:
        self._shelf = shelf
        self._rule = rule
        self._states: Mapping[bytes, TopicState] = {}
        self.sweeper = Sweeper(shelf, rule)
        self.first = self._first(shelf.segments)

    def _first(self, segments: Sequence[Segment]) -> int:
        for at, segment in enumerate(segments):
            if not segment.thinned:
                return segment.first
            index = self._shelf.index(segments, at, True)
            assert index is not None
            for number in range(len(index)):
                if number not in index.holes:
                    return index.firsts[number]
        return segments[-1].first

    # On the loop.

    def expired(self, active: ActiveFacts, topics: Mapping[bytes, TopicState], now_ns: int) -> list[Trim]:
        """What has to go by the caps."""
        self._states = topics
        if not (self._rule.max_bytes or self._rule.max_messages or self._rule.max_age_ns):
            return []
        segments = self._shelf.segments
        kept = 0
        while self._rule.keep_last and kept < len(segments) - 1 and segments[kept].rewritten:
            kept += 1
        facts = [
            SealedFacts(old.used_bytes, self._messages(old, new), new.head.time_ns)
            for old, new in zip(segments[kept:-1], segments[kept + 1 :], strict=True)
        ]
        kept_bytes = sum(segment.used_bytes for segment in segments[:kept])
        count = retention.drop_count(self._rule, facts, active, kept_bytes, now_ns)
        return [Trim(segments[: kept + count], bool(self._rule.keep_last))] if count else []

    def _messages(self, old: Segment, new: Segment) -> int:
        """How many a cap counts of a sealed segment: those that groups want, where groups decide."""
        whole = new.head.total - old.head.total
        return self.sweeper.wanted(old, whole) if self._rule.retain == "acked" else whole

    def pinned_bytes(self, wanted: Wanted, position: int) -> int:
        """See Store.pinned_bytes."""
        shelf, segments = self._shelf, self._shelf.segments
        behind = [segment for n, segment in enumerate(segments) if shelf.last_of(segments, n) >= position]
        return sum([segment.used_bytes for segment in behind if self.sweeper.holds(segment, wanted)])

    def trimmed(self, result: Trimmed, topics: TopicTable) -> None:
        """See Store.trimmed."""
        shelf = self._shelf
        gone = set(result.gone)
        left = [segment for segment in (*shelf.segments, *result.new) if segment not in gone]
        shelf.land(tuple(sorted(left, key=lambda segment: segment.first)), shelf.last)
        shelf.spoilt = [first for first in shelf.spoilt if first > shelf.segments[0].first]
        for segment in gone:
            shelf.cache.drop(segment)
        if gone:
            self.first = result.first
        for topic, old, new in result.live:
            # One that stood only in a damaged opening has none.
            if (state := topics.get(topic)) is not None:
                topics.set_live(topic, max(0, state.live + live_in(new, state) - live_in(old, state)))

    # In a thread.

    def trim(self, trims: Sequence[Trim], secure: Callable[[], None] = durable) -> Trimmed:
        """See Store.trim."""
        work = TrimWork(self._shelf, secure)
        try:
            for trim in trims:
                if trim.sweep is not None:
                    self.sweeper.sweep(trim.sweep, work)
                elif trim.rewrite:
                    self._rewrite(len(trim.segments), work)
                else:
                    work.delete(len(trim.segments))
        except (DiskFull, DiskFailed, BadRecord, OSError) as error:
            work.result.error = error
        if work.result.gone:
            work.result.first = self._first(work.segments)
        return work.result

    def _rewrite(self, chosen: int, work: TrimWork) -> None:
        """Leave only the last messages of each topic of the oldest segments."""
        segments = work.segments[:chosen]
        marks = {segment: self._survivors(work.segments, number) for number, segment in enumerate(segments)}
        sizes = [sum(size for size, _ in mark.values()) for mark in marks.values()]
        at = 0
        for count in retention.merge_groups(sizes, self._rule.segment_bytes):
            size = sum(sizes[at : at + count])
            some = segments[at : at + count]
            at += count
            if size == 0 and work.segments[0] is some[0]:
                work.delete(count)
            elif count > 1 or not some[0].rewritten or 2 * size <= some[0].size:
                work.merge(some, [_choice(marks[segment]) for segment in some], "trimmed")

    def _survivors(self, segments: Sequence[Segment], number: int) -> _Kept:
        """What survives of a segment by keep_last."""
        index = self._shelf.index(segments, number, True)
        after = self._shelf.topics(segments[number + 1], True)
        assert index is not None
        assert after is not None
        found: dict[int, dict[bytes, int]] = {}
        for topic, entries in index.topics.items():
            # A topic without a state was lost with a damaged opening: then all of it counts as new.
            state = self._states.get(topic) or TopicState()
            later = max(0, state.count - after[topic].count) if topic in after else 0
            counts = [
                count if index.firsts[entry] > state.floor else 0
                for entry, count in zip(entries.numbers, entries.counts, strict=True)
            ]
            for entry, kept in zip(
                entries.numbers, retention.survivors(counts, later, self._rule.keep_last), strict=True
            ):
                if kept:
                    found.setdefault(entry, {})[topic] = kept
            if state.ended and not entries.counts[-1] and index.number_at(state.last) == entries.numbers[-1]:
                found.setdefault(entries.numbers[-1], {})[topic] = 1
        result = {}
        for entry, kept_of in found.items():
            size = index.end_of(entry) - index.positions[entry]
            result[entry] = (size, kept_of)
        return result

    def count_live(self, topics: TopicTable) -> None:
        """Set how many messages of each topic can be read, after a start; waits for the disk."""
        self._states = topics
        segments = self._shelf.segments
        if not segments[0].head.total and not any(segment.thinned for segment in segments):
            return
        held = parts(self._shelf, segments, 0, len(segments), topics)
        for topic, state in topics.items():
            topics.set_live(topic, live_in(held.get(topic), state))


def _choice(kept: _Kept) -> Choice:
    return Choice(frozenset(kept), lambda entry, batch: _marks(batch, kept[entry][1]))


def _marks(batch: Batch, kept: Mapping[bytes, int]) -> Survivors:
    """One byte a message: 1 for the newest `kept` of each topic."""
    if not kept:
        return False
    if batch.column is None:
        count = kept[batch.topics[0]]
        return count == batch.n or bytes(batch.n - count) + b"\1" * count
    left = [kept.get(topic, 0) for topic in batch.topics]
    marks = bytearray(batch.n)
    seen = codes(batch.column)
    for number in range(batch.n - 1, -1, -1):
        topic = seen[number] - BASE
        if left[topic]:
            left[topic] -= 1
            marks[number] = 1
    return all(marks) or bytes(marks)
