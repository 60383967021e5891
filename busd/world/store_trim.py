"""Trimming one store: which segments go is decided by rules/retention, here they are deleted or rewritten.

`expired` and `trimmed` run on the loop, `trim` in a thread; between them the caller asks for nothing else.  It must not
know readers: they keep the files they have open, and look their place up again by offset.  Invariants:
1. After a crash at any point every survivor is there once: a merged segment says up to where it covers (`until`), and
   what it covers is removed only when it is durable.
2. Segments are removed oldest first, each durably before the next, so that no hole can appear in the middle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from busd.rules import losses, retention
from busd.rules.record import BadRecord, Batch, Hole, TopicLine, frame_opening
from busd.rules.retention import ActiveFacts, SealedFacts
from busd.rules.rewrite import Survivors, rewrite
from busd.rules.scan import Flaw, walk
from busd.rules.segment_index import SegmentIndex
from busd.rules.topic_state import TopicState
from busd.words.settings import StoreRule
from busd.world.disk import DiskFailed, DiskFull, try_remove
from busd.world.segment import Segment, Shelf, read_opening, reader_of

# Rewritten bytes go to the disk in pieces of this size.
_PIECE_BYTES = 1 << 20

# Messages before the first segment that is whole, first offsets and counts of the survivors among them.
Kept = tuple[int, list[tuple[int, int]]]
_NOTHING: Kept = (0, [])


@dataclass(slots=True, frozen=True)
class Trim:
    """Work for a thread: delete these segments, or rewrite them to the last messages of each topic."""

    segments: tuple[Segment, ...]
    rewrite: bool = False


@dataclass(slots=True)
class Trimmed:
    """What was done: each old segment that is gone, what stands in its place, and per topic what is still readable.

    `live`: topic -> (messages before the first segment that is whole, first offsets and counts of survivors).
    `error`: why not all was done; what was done is valid.
    """

    gone: list[Segment] = field(default_factory=list)
    new: list[Segment] = field(default_factory=list)
    live: dict[bytes, Kept] = field(default_factory=dict)
    first: int = 0
    error: Exception | None = None


class Trimmer:
    """The trimming side of a store; `first` is the lowest offset still kept."""

    def __init__(self, shelf: Shelf, rule: StoreRule) -> None:
        self._shelf = shelf
        self._rule = rule
        self._states: Mapping[bytes, TopicState] = {}
        self.first = self._first(shelf.segments)

    def _first(self, segments: Sequence[Segment]) -> int:
        if segments[0].rewritten:
            index = self._shelf.index(segments, 0, True)
            assert index is not None
            for number in range(len(index)):
                if number not in index.holes:
                    return index.firsts[number]
        return segments[0].first

    # On the loop.

    def expired(self, active: ActiveFacts, topics: Mapping[bytes, TopicState], now_ns: int) -> list[Trim]:
        """See Store.expired."""
        self._states = topics
        segments = self._shelf.segments
        kept = 0
        while self._rule.keep_last and segments[kept].rewritten:
            kept += 1
        facts = [
            SealedFacts(old.size, new.head.total - old.head.total, new.head.time_ns)
            for old, new in zip(segments[kept:-1], segments[kept + 1 :], strict=True)
        ]
        kept_bytes = sum(segment.size for segment in segments[:kept])
        count = retention.drop_count(self._rule, facts, active, kept_bytes, now_ns)
        return [Trim(segments[: kept + count], bool(self._rule.keep_last))] if count else []

    def trimmed(self, result: Trimmed, topics: Mapping[bytes, TopicState]) -> None:
        """See Store.trimmed."""
        shelf = self._shelf
        gone = set(result.gone)
        left = [segment for segment in shelf.segments if segment not in gone] + result.new
        shelf.land(tuple(sorted(left, key=lambda segment: segment.first)), shelf.last)
        shelf.spoilt = [first for first in shelf.spoilt if first > shelf.segments[0].first]
        for segment in gone:
            shelf.cache.drop(segment)
        if gone:
            self.first = result.first
        for topic, (before, survivors) in result.live.items():
            _set_live(topics[topic], before, survivors)

    # In a thread.

    def trim(self, trims: Sequence[Trim]) -> Trimmed:
        """See Store.trim."""
        result = Trimmed()
        before = self._shelf.segments
        old = self.kept(before)
        try:
            for trim in trims:
                if trim.rewrite:
                    self._rewrite(before, trim.segments, result)
                else:
                    self._delete(trim.segments, result)
        except (DiskFull, DiskFailed, BadRecord, OSError) as error:
            result.error = error
        gone = set(result.gone)
        after = [segment for segment in before if segment not in gone] + result.new
        after.sort(key=lambda segment: segment.first)
        if gone:
            result.first = self._first(after)
            new = self.kept(after)
            changed = [topic for topic in {*old, *new} if old.get(topic) != new.get(topic)]
            result.live = {topic: new.get(topic, _NOTHING) for topic in changed}
        return result

    def _delete(self, segments: Sequence[Segment], result: Trimmed) -> None:
        disk = self._shelf.disk
        for segment in segments:
            self._shelf.pin(segment)
            try_remove(disk, segment.index_path)
            disk.remove(segment.path)
            result.gone.append(segment)
            disk.sync_dir(self._shelf.path)

    def _rewrite(self, all_segments: Sequence[Segment], chosen: Sequence[Segment], result: Trimmed) -> None:
        marks = [self._survivors(all_segments, number) for number in range(len(chosen))]
        sizes = [sum(size for size, _ in mark.values()) for mark in marks]
        at = 0
        for count in retention.merge_groups(sizes, self._rule.segment_bytes):
            numbers = range(at, at + count)
            at += count
            size = sum(sizes[number] for number in numbers)
            if size == 0 and not result.new and len(result.gone) == numbers[0]:
                self._delete([chosen[number] for number in numbers], result)
            elif count > 1 or not chosen[numbers[0]].rewritten or 2 * size <= chosen[numbers[0]].size:
                self._merge(all_segments, numbers, marks, result)

    def _survivors(self, segments: Sequence[Segment], number: int) -> dict[int, tuple[int, dict[bytes, int]]]:
        """What survives of a segment: entry -> (bytes it will take, about; topic -> how many of its newest)."""
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

    def _merge(
        self,
        segments: Sequence[Segment],
        numbers: Sequence[int],
        marks: Sequence[Mapping[int, tuple[int, dict[bytes, int]]]],
        result: Trimmed,
    ) -> None:
        """Write the survivors of some neighbours into one segment that takes the place of the first of them."""
        disk, target = self._shelf.disk, segments[numbers[0]]
        file = self._shelf.file(target, True)
        assert file is not None
        until = segments[numbers[-1] + 1].first - 1
        head = replace(target.head, until=until, lines=read_opening(reader_of(file))[0].lines)
        opening = frame_opening(head)
        parts = [opening]

        def survive(batch: Batch) -> Survivors:
            number = max(one for one in numbers if segments[one].first <= batch.first)
            index = self._shelf.index(segments, number, True)
            assert index is not None
            return _marks(batch, marks[number].get(index.number_at(batch.first), (0, {}))[1])

        parts += rewrite(self._records(segments, numbers), survive, target.prev, "trimmed")
        temporary = target.path + ".tmp"
        disk.remove(temporary)
        new_file = disk.create(temporary)
        try:
            for piece in _pieces(parts):
                new_file.append(piece)
            new_file.sync()
            # The old hints must not outlive the file they describe: the new opening may be equal to the old one.
            disk.remove(target.index_path)
            disk.sync_dir(self._shelf.path)
            for number in numbers:
                self._shelf.pin(segments[number])
            disk.rename(temporary, target.path)
        except (DiskFull, DiskFailed):
            try_remove(disk, temporary)
            raise
        new = Segment(target.path, target.first, head, len(opening), sum(map(len, parts)))
        new.file = new_file
        # From here on the merged segment is the truth; a leftover of the others is removed at the next start.
        result.gone += [segments[number] for number in numbers]
        result.new.append(new)
        disk.sync_dir(self._shelf.path)
        for number in numbers[1:]:
            try_remove(disk, segments[number].index_path)
            disk.remove(segments[number].path)
        disk.sync_dir(self._shelf.path)

    def _records(self, segments: Sequence[Segment], numbers: Sequence[int]) -> Iterator[Batch | Hole]:
        """Batches and holes of these segments, with a hole for everything that is damaged."""
        last = segments[numbers[0]].prev
        for number in numbers:
            segment, index = segments[number], self._shelf.index(segments, number, True)
            file = self._shelf.file(segment, True)
            assert file is not None
            expected = self._shelf.last_of(segments, number)
            for step in walk(reader_of(file), segment.data_at, segment.size, last, index):
                if isinstance(step, Flaw):
                    upto = expected if step.last is None else step.last
                    if step.kind != "doubled" and upto > last:
                        yield _lost(index, last + 1, upto)
                        last = upto
                elif isinstance(step.record, Batch | Hole) and step.record.first > last:
                    yield step.record
                    last = step.record.last
            if last < expected:
                yield _lost(index, last + 1, expected)
                last = expected

    def kept(self, segments: Sequence[Segment]) -> dict[bytes, Kept]:
        """Per topic what `Trimmed.live` tells."""
        number = 0
        survivors: dict[bytes, list[tuple[int, int]]] = {}
        while number < len(segments) - 1 and segments[number].rewritten:
            index = self._shelf.index(segments, number, True)
            assert index is not None
            for topic, entries in index.topics.items():
                pairs = zip(entries.numbers, entries.counts, strict=True)
                survivors.setdefault(topic, []).extend([(index.firsts[entry], count) for entry, count in pairs])
            number += 1
        if number == 0 and not segments[0].head.total:
            return {}
        lines: Mapping[bytes, TopicLine] = self._shelf.topics(segments[number], True) or {}
        return {topic: (line.count, survivors.get(topic, [])) for topic, line in lines.items()}

    def count_live(self, topics: Mapping[bytes, TopicState]) -> None:
        """Set how many messages of each topic can be read, after a start; waits for the disk."""
        self._states = topics
        for topic, (before, survivors) in self.kept(self._shelf.segments).items():
            if topic in topics:
                _set_live(topics[topic], before, survivors)


def _set_live(state: TopicState, before: int, survivors: Sequence[tuple[int, int]]) -> None:
    state.live = state.count - max(state.dead, before)
    state.live += sum([count for first, count in survivors if first > state.floor])


def _lost(index: SegmentIndex | None, first: int, last: int) -> Hole:
    counts = losses.in_index(index, first, last, lambda topic: True, True) if index is not None else None
    return Hole(first, last, 0, 0, "corrupt", counts)


def _marks(batch: Batch, kept: Mapping[bytes, int]) -> Survivors:
    """One byte a message: 1 for the newest `kept` of each topic."""
    if not kept:
        return False
    if batch.column is None:
        count = kept[batch.topics[0]]
        return count == batch.n or bytes(batch.n - count) + b"\1" * count
    left = [kept.get(topic, 0) for topic in batch.topics]
    marks = bytearray(batch.n)
    for number in range(batch.n - 1, -1, -1):
        topic = batch.column[number] - 48
        if left[topic]:
            left[topic] -= 1
            marks[number] = 1
    return all(marks) or bytes(marks)


def _pieces(parts: Sequence[bytes]) -> Iterator[list[bytes]]:
    piece: list[bytes] = []
    size = 0
    for part in parts:
        piece.append(part)
        size += len(part)
        if size >= _PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece
