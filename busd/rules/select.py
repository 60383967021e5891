"""Which messages of a batch a reader gets: one function for patterns, FROM, UNTIL, LIMIT, RESET floors and LAST.

A Selection names them without copying any: a slice of the batch and, unless all in it are meant, a selector of one
byte a message.  Encoders read columns from it.  Per message only C runs.

`merge` makes one batch of selections whose offsets interleave, which happens when a pattern spans several stores.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress, groupby, islice, repeat
from operator import and_, le

from busd.rules import column as columns
from busd.rules.column import BASE, MAX_TOPICS, Column, codes
from busd.rules.items import Item
from busd.rules.record import Batch, frame
from busd.words.patterns import Wanted, any_topic
from busd.words.units import MAX_OFFSET

# Looking for one of so many or fewer is quicker from one to the next.
_FEW = 5


@dataclass(slots=True, eq=False)
class Selection:
    """Messages [start, stop) of a batch; of these only where `selector` is 1, unless it is None.  Never empty."""

    batch: Batch
    start: int
    stop: int
    selector: bytes | None
    count: int
    _places: Sequence[int] | None = field(default=None, repr=False)
    # The topic of all of them, where that is known.
    topic: bytes | None = None

    @property
    def whole(self) -> bool:
        """True when it is all of the batch."""
        return self.count == self.batch.n

    @property
    def first(self) -> int:
        """Offset of the first message meant."""
        return self.offsets()[0]

    @property
    def last(self) -> int:
        """Offset of the last message meant."""
        return self.offsets()[-1]

    def places(self) -> Sequence[int]:
        """Their numbers in the batch, rising.  Looked for once: a look at each message of the batch."""
        if self._places is None:
            places = range(self.start, self.stop)
            if self.selector is None:
                self._places = places
            elif self.count * _FEW < len(places):
                self._places = _few_places(self.selector, self.start)
            else:
                self._places = list(compress(places, self.selector))
        return self._places

    def offsets(self) -> Sequence[int]:
        """Their offsets, rising."""
        offsets = self.batch.offsets()
        if self.selector is None:
            return offsets[self.start : self.stop]
        if isinstance(offsets, range):
            return list(map(self.batch.first.__add__, self.places()))
        return list(map(offsets.__getitem__, self.places()))

    def items(self) -> list[Item]:
        """Their payloads, or lists of payload and headers."""
        if self.selector is not None or not self.whole:
            return self.batch.items_at(self.places())
        return self.batch.items()

    def column(self) -> Column | None:
        """Their topics as in a batch's column; None when the batch has one topic."""
        column = self.batch.column
        if column is None:
            return None
        return column[self.start : self.stop] if self.selector is None else columns.pick(column, self.places())

    def topics(self) -> list[bytes]:
        """The topic of each."""
        column = self.column()
        if column is None:
            return [self.batch.topics[0]] * self.count
        return [self.batch.topics[code - BASE] for code in codes(column)]

    def take(self, count: int) -> Selection:
        """The first `count` of them; itself when there are no more.  `count` is at least 1."""
        if count >= self.count:
            return self
        if self.selector is None:
            return Selection(self.batch, self.start, self.start + count, None, count)
        length = _nth(self.selector, count - 1) + 1
        return Selection(self.batch, self.start, self.start + length, self.selector[:length], count)

    def drop(self, count: int) -> Selection | None:
        """All but the first `count` (from 0) of them; None when there are no more."""
        if count >= self.count:
            return None
        if count == 0:
            return self
        if self.selector is None:
            return Selection(self.batch, self.start + count, self.stop, None, self.count - count)
        start = _nth(self.selector, count)
        return Selection(self.batch, self.start + start, self.stop, self.selector[start:], self.count - count)


def split(selection: Selection, count: int) -> tuple[Selection, Selection | None]:
    """The first `count` (from 1) and the rest, None when there is none."""
    return selection.take(count), selection.drop(count)


def only(
    batch: Batch, offsets: Sequence[int], floors: Mapping[bytes, int] | None = None, wanted: Wanted = any_topic
) -> Selection | None:
    """The messages of a batch with these offsets (rising; others are passed by), of topics that are wanted and, by
    topic, offset >= floor.

    In C when the offsets are a range, else message by message.
    """
    if not offsets:
        return None
    found = select(batch, wanted, offsets[0], offsets[-1] + 1, floors)
    if found is None or offsets[-1] - offsets[0] == len(offsets) - 1:
        return found
    meant = bytes(map(frozenset(offsets).__contains__, batch.offsets()[found.start : found.stop]))
    if found.selector is not None:
        meant = bytes(map(and_, meant, found.selector))
    count = meant.count(1)
    return Selection(batch, found.start, found.stop, meant, count) if count else None


def _few_places(selector: bytes, start: int) -> list[int]:
    """Where it is 1, from `start` on: a third of the time that a look at each takes where one of 20 is."""
    places = []
    for gap in selector.split(b"\1"):
        start += len(gap)
        places.append(start)
        start += 1
    places.pop()
    return places


def _nth(selector: bytes, number: int) -> int:
    """Where in a selector its `number`-th (from 0) message is."""
    return next(islice(compress(range(len(selector)), selector), number, None))


def select(
    batch: Batch,
    wanted: Wanted,
    lo: int = 0,
    hi: int = MAX_OFFSET,
    floors: Mapping[bytes, int] | None = None,
) -> Selection | None:
    """The messages of wanted topics with lo <= offset < hi and, by topic, offset >= floor; None when there are none."""
    if batch.column is None and not floors and lo <= batch.first and batch.last < hi:
        return Selection(batch, 0, batch.n, None, batch.n) if wanted(batch.topics[0]) else None
    start, stop = _slice(batch, lo, hi)
    if start >= stop:
        return None
    return _of_topics(batch, list(compress(range(len(batch.topics)), map(wanted, batch.topics))), start, stop, floors)


def of_topics(batch: Batch, numbers: Sequence[int]) -> Selection | None:
    """The messages of those topics that have these (rising) indexes among the batch's; None when there are none."""
    return _of_topics(batch, numbers, 0, batch.n, None)


def _of_topics(
    batch: Batch, numbers: Sequence[int], start: int, stop: int, floors: Mapping[bytes, int] | None
) -> Selection | None:
    if floors and numbers:
        above = [floors.get(batch.topics[number], 0) for number in numbers]
        if max(above) > batch.first:
            last = batch.last
            numbers = [number for number, floor in zip(numbers, above, strict=True) if floor <= last]
            inside = [floor for floor in above if floor <= last]
            if any(floor > batch.first for floor in inside):
                return _select_above(batch, start, stop, dict(zip(numbers, inside, strict=True)))
    if not numbers:
        return None
    if batch.column is None or len(numbers) == len(batch.topics):
        return Selection(batch, start, stop, None, stop - start)
    selector, places = columns.selector(batch.column, numbers, start, stop)
    count = selector.count(1)
    topic = batch.topics[numbers[0]] if len(numbers) == 1 else None
    return Selection(batch, start, stop, selector, count, places, topic) if count else None


def _slice(batch: Batch, lo: int, hi: int) -> tuple[int, int]:
    if batch.steps is None:
        return max(0, lo - batch.first), min(batch.n, hi - batch.first)
    if lo <= batch.first and hi > batch.last:
        return 0, batch.n
    offsets = batch.offsets()
    return bisect_left(offsets, lo), bisect_left(offsets, hi)


def _select_above(batch: Batch, start: int, stop: int, floors: dict[int, int]) -> Selection | None:
    """A floor lies inside this batch (LAST n begins here): message by message, at most once a topic and reader.

    `floors`: of the topics that are wanted, by number.
    """
    offsets = batch.offsets()[start:stop]
    least: Iterable[int] = repeat(floors[0]) if batch.column is None else ()
    if batch.column is not None:
        table = [MAX_OFFSET + 1] * (BASE + len(batch.topics))
        for number, floor in floors.items():
            table[BASE + number] = floor
        least = map(table.__getitem__, codes(batch.column[start:stop]))
    selector = bytes(map(le, least, offsets))
    count = selector.count(1)
    return Selection(batch, start, stop, selector, count) if count else None


def merge(selections: Sequence[Selection]) -> list[Batch]:
    """Batches with all their messages in the order of offsets; each is at most MAX_TOPICS wide.

    The time of a merged batch is that of its newest part: within one commit they are the same.
    """
    offsets: list[int] = []
    topics: list[bytes] = []
    items: list[Item] = []
    for selection in selections:
        offsets += selection.offsets()
        topics += selection.topics()
        items += selection.items()
    order = sorted(range(len(offsets)), key=offsets.__getitem__)
    flags = selections[0].batch.flags
    if any("h" in selection.batch.flags for selection in selections) and "h" not in flags:
        flags = "h" if flags == "-" else flags + "h"
    time_ns = max(selection.batch.time_ns for selection in selections)
    return [
        build([offsets[i] for i in part], [topics[i] for i in part], [items[i] for i in part], time_ns, flags)
        for part in _narrow(order, topics)
    ]


def reframe(selection: Selection) -> Batch:
    """A batch of the selected messages alone, for readers and files that must not carry the others."""
    batch = selection.batch
    if selection.whole:
        return batch
    return build(
        list(selection.offsets()), selection.topics(), selection.items(), batch.time_ns, batch.flags, batch.synced
    )


def build(
    offsets: Sequence[int],
    topics: Sequence[bytes],
    items: list[Item],
    time_ns: int,
    flags: str,
    synced: int = 0,
    prev: int = 0,
) -> Batch:
    """A framed batch of columns; at most MAX_TOPICS different topics."""
    letters = dict.fromkeys(topics)
    names = tuple(letters)
    column = None
    if len(names) > 1:
        column = columns.make(letters, [(topics, len(topics))])
    steps = None
    if offsets[-1] - offsets[0] != len(offsets) - 1:
        steps = tuple(map(int.__sub__, offsets[1:], offsets[:-1]))
    return frame(offsets[0], time_ns, prev, synced, flags, names, column, steps, items)


def _narrow(order: list[int], topics: list[bytes]) -> Iterable[list[int]]:
    if len(order) <= MAX_TOPICS or len({topics[i] for i in order}) <= MAX_TOPICS:
        yield order
        return
    half = len(order) // 2
    yield from _narrow(order[:half], topics)
    yield from _narrow(order[half:], topics)


def interleave(batches: Sequence[Batch]) -> list[Batch]:
    """The same messages in the order of offsets: batches whose offsets overlap become one."""
    ordered = sorted(batches, key=lambda batch: batch.first)
    result: list[Batch] = []
    cluster: list[Batch] = []
    end = -1
    for batch in ordered:
        if cluster and batch.first > end:
            result += _merged(cluster)
            cluster = []
        cluster.append(batch)
        end = max(end, batch.last)
    return result + _merged(cluster) if cluster else result


def _merged(cluster: list[Batch]) -> list[Batch]:
    if len(cluster) == 1:
        return cluster
    if any(batch.control for batch in cluster):
        # Rare: an EOF or RESET between messages of another store.  Neighbours of one kind stay together.
        singles = [Selection(batch, at, at + 1, None, 1) for batch in cluster for at in range(batch.n)]
        singles.sort(key=lambda single: single.first)
        kinds = groupby(singles, lambda single: single.batch.flags if single.batch.control else "")
        return [batch for _, group in kinds for batch in merge(list(group))]
    return merge([Selection(batch, 0, batch.n, None, batch.n) for batch in cluster])
