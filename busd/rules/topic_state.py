"""What a store knows of its topics: a table, held in columns, and how a batch changes it.

Why columns: a commit may name thousands of topics, and an object for each, cold in the cache, costs more than all else
that is done with its number.  Who asks for a topic gets a TopicState, made for the answer.

Pure.  Invariants:
1. `count` counts every message ever kept, and no control record; it never falls.
2. `dead` of them stand below `floor`, the offset of the last RESET, which may be in another store.
3. When `ended`, `last` is the offset of the end of stream.
4. One thread changes the table, any may read it: topics come and stay, and one that can be found has its place in every
   column (see TopicNumbers).  Of a topic that is changed meanwhile a reader may see some columns as they were before.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import compress

from busd.rules.record import Batch
from busd.rules.segment_index import Pairs, SegmentIndex, counts_in
from busd.rules.segment_opening import TopicLine, topic_lines
from busd.rules.topic_pairs import TopicNumbers

# A topic among many, without an object for each: name, live, last, ended.
TopicRow = tuple[bytes, int, int, bool]


@dataclass(slots=True, frozen=True)
class TopicState:
    """A topic in one store, as it was when it was asked for.

    `live`: messages that can still be read; `last`: last offset, control records included.
    """

    count: int = 0
    live: int = 0
    last: int = 0
    floor: int = 0
    ended: bool = False
    dead: int = 0


class TopicTable(Mapping[bytes, TopicState]):
    """Every topic that a store has ever seen, in the order in which they came; `numbers` deals them their numbers,
    `reset` is the highest offset at which one was RESET, 0 for none."""

    __slots__ = ("_count", "_dead", "_ended", "_floor", "_gone", "_last", "numbers", "reset")

    def __init__(self) -> None:
        # By number.  Of `count`, `gone` cannot be read any more.  What every message of a topic changes is an array: 8
        # bytes a topic where a list takes 40, all over the memory.
        self._count = array("Q")
        self._last = array("Q")
        self._gone: list[int] = []
        self._floor: list[int] = []
        self._dead: list[int] = []
        # Numbers: few topics end, and most of these begin again.
        self._ended: set[int] = set()
        self.reset = 0
        self.numbers = TopicNumbers((self._count, self._gone, self._last, self._floor, self._dead))

    # Asking, from any thread.

    def __len__(self) -> int:
        """Number of topics."""
        return len(self.numbers)

    def __iter__(self) -> Iterator[bytes]:
        """Names, in the order in which they came."""
        return iter(self.numbers.names)

    def __contains__(self, topic: object) -> bool:
        """Whether it was ever seen."""
        return topic in self.numbers

    def __getitem__(self, topic: bytes) -> TopicState:
        """What is known of it.

        Raises:
            KeyError: nothing.
        """
        number = self.numbers.get(topic)
        if number is None:
            raise KeyError(topic)
        count = self._count[number]
        live, ended = count - self._gone[number], number in self._ended
        return TopicState(count, live, self._last[number], self._floor[number], ended, self._dead[number])

    @property
    def live(self) -> int:
        """Messages of all topics that can still be read."""
        return sum(self._count) - sum(self._gone)

    def floor_of(self, topic: bytes) -> int:
        """The offset of its last RESET, 0 for none."""
        number = self.numbers.get(topic)
        return 0 if number is None else self._floor[number]

    def live_of(self, topic: bytes) -> int:
        """Its messages that can still be read."""
        number = self.numbers.get(topic)
        return 0 if number is None else self._count[number] - self._gone[number]

    def with_messages(self) -> list[bytes]:
        """Topics of which any can."""
        return list(compress(self, map(int.__ne__, self._count, self._gone)))

    def floors(self) -> list[bytes]:
        """Topics that were RESET."""
        return list(compress(self, self._floor))

    def rows(self, wanted: Callable[[bytes], bool], numbers: range) -> list[TopicRow]:
        """What is known of each such topic among those with these numbers, in the order in which they came."""
        lo, hi, ended = numbers.start, numbers.stop, self._ended
        columns = zip(self.numbers.names[lo:hi], self._count[lo:hi], self._gone[lo:hi], self._last[lo:hi], strict=True)
        return [
            (name, count - gone, last, number in ended)
            for number, (name, count, gone, last) in enumerate(columns, lo)
            if wanted(name)
        ]

    def ended(self) -> list[bytes]:
        """Topics that are at their end."""
        return list(map(self.numbers.names.__getitem__, self._ended))

    def lines(self) -> bytes:
        """What a segment opening says of them."""
        ended = map(self._ended.__contains__, range(len(self)))
        return topic_lines(zip(self, self._count, self._last, self._floor, self._dead, ended, strict=False))

    # Changing it.

    def load(self, lines: Mapping[bytes, TopicLine]) -> None:
        """Take in what a segment opening says, as if nothing had been trimmed."""
        for topic, line in lines.items():
            number = self.numbers[topic]
            self._count[number], self._gone[number] = line.count, line.dead
            self._last[number], self._floor[number], self._dead[number] = line.last, line.floor, line.dead
            self.reset = max(self.reset, line.floor)
            if line.ended:
                self._ended.add(number)

    def note(self, batch: Batch) -> Pairs:
        """Take in a batch that landed.  Returns what its entry in an index says of topics: their numbers, and how many
        messages of each there are (none for control records)."""
        topics = batch.topics
        if len(topics) == 1 and not batch.control:
            number = self.numbers[topics[0]]
            self._count[number] += batch.n
            self._last[number] = batch.last
            self._ended.discard(number)
            return [number], [batch.n]
        ids, counts = self.numbers.of(topics), counts_in(batch)
        if batch.control:
            for number, offset in zip(ids, batch.lasts(), strict=True):
                self._place(number, batch.flags, offset)
            return ids, counts
        # Each of its topics once: in a commit of thousands of topics this is much of the work.
        count, last = self._count, self._last
        for number, added, offset in zip(ids, counts, batch.lasts(), strict=True):
            count[number] += added
            last[number] = offset
        if self._ended:
            self._ended.difference_update(ids)
        return ids, counts

    def note_index(self, index: SegmentIndex, record: Callable[[int], object]) -> None:
        """The same for all entries of an index at once; `record` reads one: control records and each topic's last."""
        for topic, entries in index.topics.items():
            number = self.numbers[topic]
            before = self._count[number]
            newest = len(entries.counts) - 1
            for at in [at for at, count in enumerate(entries.counts) if not count or at == newest]:
                batch = record(entries.numbers[at])
                if isinstance(batch, Batch):
                    self._count[number] = before + sum(entries.counts[:at])
                    self._place(number, batch.flags, batch.last_of(topic))
            self._count[number] = before + sum(entries.counts)
            self._gone[number] = self._dead[number]

    def _place(self, number: int, flags: str, offset: int) -> None:
        """Take in what the newest record of a topic says."""
        self._last[number] = offset
        if "r" in flags:
            self._floor[number] = offset
            self.reset = max(self.reset, offset)
            self._gone[number] = self._dead[number] = self._count[number]
        if "e" in flags:
            self._ended.add(number)
        else:
            self._ended.discard(number)

    def add_lost(self, counts: Mapping[bytes, int], last: int) -> int:
        """Count messages that were kept and cannot be read any more; `last` is the last lost offset."""
        for topic, count in counts.items():
            number = self.numbers[topic]
            self._count[number] += count
            self._gone[number] += count
            self._last[number] = max(self._last[number], last)
        return sum(counts.values())

    def reset_at(self, topic: bytes, floor: int, dead: int) -> None:
        """A topic was RESET at this offset in another store, behind so many messages of it here."""
        number = self.numbers[topic]
        self._floor[number], self._dead[number] = floor, dead
        self.reset = max(self.reset, floor)
        self._gone[number] = max(self._gone[number], dead)

    def set_live(self, topic: bytes, live: int) -> None:
        """So many messages of a topic can still be read, after others have gone."""
        number = self.numbers[topic]
        self._gone[number] = self._count[number] - live
