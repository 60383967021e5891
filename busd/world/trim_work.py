"""A trim under way: the segments as they are by now, what is gone, what is new, and what that does to counts.

It must not know why anything is trimmed.  Invariants:
1. `segments` is what a start after a crash would find, but for leftovers that it removes.
2. What goes because groups have settled it goes behind `secure`: were that lost in a power cut, they would miss it.
3. Counts of what is left are told as differences, to be worked out on the loop: a RESET may come meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from busd.rules.segment_opening import TopicLine
from busd.rules.topic_state import TopicState
from busd.world.disk import try_remove
from busd.world.segment import Segment, Shelf, thin_path
from busd.world.store_merge import Choice, clear, merge

# Messages of a topic: (how many there had been before and after) for each run of segments nothing was taken out of,
# and (first offset, messages) of the batches left in the others.
Part = tuple[list[tuple[int, int | None]], list[tuple[int, int]]]


@dataclass(slots=True)
class Trimmed:
    """What was done: each old segment that is gone, what stands in its place, per topic what was there and is there.

    `roll`: closing the active segment would let more go.  `error`: why not all was done; what was done is valid.
    """

    gone: list[Segment] = field(default_factory=list)
    new: list[Segment] = field(default_factory=list)
    live: list[tuple[bytes, Part | None, Part | None]] = field(default_factory=list)
    first: int = 0
    roll: bool = False
    error: Exception | None = None

    @property
    def freed_bytes(self) -> int:
        """How much less it is on the disk."""
        return sum([one.used_bytes for one in self.gone]) - sum([one.used_bytes for one in self.new])


def durable() -> None:
    """What groups have settled is durable as soon as it is known."""


class TrimWork:
    """See the module.  `secure`: makes durable what groups have settled."""

    def __init__(self, shelf: Shelf, secure: Callable[[], None] = durable) -> None:
        self._secure = secure
        self._secured = False
        self.segments: Sequence[Segment] = shelf.segments
        self.result = Trimmed()
        self._shelf = shelf

    def secure(self) -> None:
        """To be called before anything goes because groups have settled it.

        Raises:
            DiskFull, DiskFailed: it must stay.
        """
        if not self._secured:
            self._secure()
            self._secured = True

    def replace(self, lo: int, hi: int, new: Segment | None) -> TrimWork:
        """Segments lo … hi-1 are gone, `new` stands in their place; done on disk already."""
        before = self.segments
        old_parts = parts(self._shelf, before, lo, hi)
        middle = () if new is None else (new,)
        self.segments = (*before[:lo], *middle, *before[hi:])
        new_parts = {} if new is None else parts(self._shelf, self.segments, lo, lo + 1)
        for topic in {*old_parts, *new_parts}:
            if old_parts.get(topic) != new_parts.get(topic):
                self.result.live.append((topic, old_parts.get(topic), new_parts.get(topic)))
        self.result.gone += before[lo:hi]
        self.result.new += middle
        return self

    def merge(self, some: Sequence[Segment], choices: Sequence[Choice], reason: str) -> None:
        """Write what survives of some neighbours into one; `reason` names the holes that it leaves.

        Raises:
            DiskFull, DiskFailed, BadRecord: nothing has changed, or leftovers are there that the next start removes.
        """
        before, shelf = self.segments, self._shelf
        lo = before.index(some[0])
        numbers = range(lo, lo + len(some))
        new = merge(shelf, before, numbers, choices, reason)
        self.replace(lo, lo + len(some), new)
        clear(shelf, before, numbers)

    def delete(self, count: int) -> None:
        """Remove the oldest segments, each durably before the next.

        Raises:
            DiskFull, DiskFailed: some of them are left.
        """
        disk, done = self._shelf.disk, 0
        try:
            for segment in self.segments[:count]:
                self._shelf.pin(segment)
                try_remove(disk, segment.index_path)
                try_remove(disk, thin_path(segment.path))
                disk.remove(segment.path)
                done += 1
                disk.sync_dir(self._shelf.path)
        finally:
            if done:
                self.replace(0, done, None)


def parts(
    shelf: Shelf, segments: Sequence[Segment], lo: int, hi: int, topics: Iterable[bytes] = ()
) -> dict[bytes, Part]:
    """Per topic what segments lo … hi-1 hold; may wait for the disk.

    `topics`: all there are, when the last segment is among them.
    """
    found: dict[bytes, Part] = {}
    number = lo
    while number < hi:
        start = number
        if segments[number].thinned:
            _add_entries(shelf, segments, number, found)
            number += 1
            continue
        while number < hi and not segments[number].thinned:
            number += 1
        before = shelf.topics(segments[start], True) or {}
        if number < len(segments):
            _add_run(before, shelf.topics(segments[number], True) or {}, found)
            continue
        for topic in topics:
            found.setdefault(topic, ([], []))[0].append((before[topic].count if topic in before else 0, None))
    return found


def _add_entries(shelf: Shelf, segments: Sequence[Segment], number: int, found: dict[bytes, Part]) -> None:
    index = shelf.index(segments, number, True)
    assert index is not None
    for topic, entries in list(index.topics.items()):
        pairs = [
            (index.firsts[entry], count) for entry, count in zip(entries.numbers, entries.counts, strict=True) if count
        ]
        if pairs:
            found.setdefault(topic, ([], []))[1].extend(pairs)


def _add_run(before: Mapping[bytes, TopicLine], after: Mapping[bytes, TopicLine], found: dict[bytes, Part]) -> None:
    for topic, line in after.items():
        count = before[topic].count if topic in before else 0
        if line.count > count:
            found.setdefault(topic, ([], []))[0].append((count, line.count))


def live_in(part: Part | None, state: TopicState) -> int:
    """How many of the messages of a part can be read: those above the last RESET."""
    if part is None:
        return 0
    runs, batches = part
    whole = sum([max(0, (state.count if hi is None else hi) - max(lo, state.dead)) for lo, hi in runs])
    return whole + sum([count for first, count in batches if first > state.floor])
