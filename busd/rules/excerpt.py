"""The messages of one topic, cut out of batches of many topics without looking at the others.

A reader of one topic of twenty gets a few of the hundreds of messages in each batch; to make a Batch and a Selection
for those costs more than they do.  An Excerpt is one Batch for the messages of many.

Pure.  Per wanted message a few steps of Python, per other message C.  Invariants:
1. Nothing is taken of a batch unless its checksum holds, and then what `parse` and `select` would find; what is unusual
   (headers, steps, control records, a batch of one topic, or much of it of this one) is left to those.
2. A batch is taken whole or not at all: all its messages of the topic are in the Excerpt, or none.
"""

from __future__ import annotations

from collections.abc import Sequence

from busd.rules.checksum import crc32
from busd.rules.column import BASE, MAX_TOPICS
from busd.rules.items import FEW, UNEVEN, Item, decode_items, even_items
from busd.rules.record import Batch, Facts, Hole

# An excerpt of so much gets no more: about what goes out in one write (busd.broker.stride).
_ENOUGH_BYTES = 64 * 1024
# kind, checksum, length, first, n, time, prev, synced, flags, topics, column
_FIELDS = 11
# Letters of one byte are spelled alike in a record and in memory.
_ASCII = 128 - BASE


class Excerpt(Batch):
    """A batch of one topic that is in no log: it has no record, and its messages came at different times."""

    __slots__ = ("_offsets", "_payloads", "_size_bytes")

    def __init__(self, topic: bytes) -> None:
        self._offsets: list[int] = []
        self._payloads: list[bytes] = []
        self._size_bytes = 0
        super().__init__(0, 0, 0, 0, 0, "-", (topic,), None, (), b"", 0)
        self._items = self._payloads  # type: ignore[assignment]

    @property
    def size_bytes(self) -> int:
        """About how much of a record its messages would be."""
        return self._size_bytes

    def offsets(self) -> Sequence[int]:
        """See Batch."""
        return self._offsets

    def extend(self, offsets: list[int], payloads: list[bytes], size_bytes: int) -> None:
        """Add messages that come behind those that are in it, at least one; about so many bytes."""
        self._offsets += offsets
        self._payloads += payloads
        self.first, self.last, self.n = self._offsets[0], offsets[-1], len(self._offsets)
        self._size_bytes += size_bytes


class Excerpter:
    """Takes the messages of one topic.  `even`: the size of all payloads of the batch that was taken, where they were
    looked at and it is one."""

    __slots__ = ("_among", "_topic", "even")

    def __init__(self, topic: bytes) -> None:
        self._topic = topic
        self._among = b",%b," % topic
        self.even = UNEVEN

    def take(
        self,
        record: bytes,
        facts: Facts,
        lo: int,
        hi: int,
        last: int,
        records: list[Batch | Hole],
        even: int = UNEVEN,
    ) -> bool:
        """Add what a batch has of the topic to the excerpt at the end of `records`, or to a new one there.

        Args:
            record: all of it, perhaps damaged.
            facts: what `glance` said of it.
            lo, hi: the batch must lie in lo … hi-1.
            last: the offset read before; the batch must follow it.
            even: the size of all payloads, where that is known to be one.

        Returns False when it was not taken, and nothing has changed.
        """
        size, first, final, prev, line_end, fields = facts
        if len(fields) != _FIELDS or fields[8] != b"-" or first < lo or final >= hi or first <= last or prev > last:
            return False
        n = final - first + 1
        try:
            gaps = self._gaps(fields[9], fields[10], n)
            # The others are for C, of these each costs 0.3 µs.
            if gaps is None or FEW * len(gaps) > n or int(fields[1], 16) != crc32(memoryview(record)[12:]):
                return False
            self.even = even
            if gaps:
                where = even_items(record, line_end + 2, n, even)
                if where:
                    self.even = where[2]
                    offsets, payloads = _cut(record, where, first, gaps)
                else:
                    offsets, payloads = _picked(decode_items(record, line_end + 2, n), first, gaps)
                self._excerpt(records).extend(offsets, payloads, size * len(gaps) // n)
        except ValueError:
            return False
        return True

    def _gaps(self, topics: bytes, letters: bytes, n: int) -> list[int] | None:
        """How many other messages stand before each message of the topic; None when the batch is unusual."""
        names = b",%b," % topics
        where = names.find(self._among)
        number = names.count(b",", 0, where) if where >= 0 else -1
        if letters.isascii():
            if len(letters) != n or b"," not in topics:
                return None
            if not 0 <= number < _ASCII:
                return []
            gaps = list(map(len, letters.split(b"%c" % (BASE + number))))
        else:
            text = letters.decode()
            if len(text) != n or number >= MAX_TOPICS:
                return None
            if number < 0:
                return []
            gaps = list(map(len, text.split(chr(BASE + number))))
        gaps.pop()
        return gaps

    def _excerpt(self, records: list[Batch | Hole]) -> Excerpt:
        found = records[-1] if records else None
        if not isinstance(found, Excerpt) or found.size_bytes > _ENOUGH_BYTES:
            found = Excerpt(self._topic)
            records.append(found)
        return found


def _cut(record: bytes, even: tuple[int, ...], first: int, gaps: list[int]) -> tuple[list[int], list[bytes]]:
    """Offsets and payloads of messages between which there are such gaps; `even`: see `even_items`."""
    offsets: list[int] = []
    payloads: list[bytes] = []
    start, step, size = even
    start -= first * step
    for gap in gaps:
        first += gap
        at = start + first * step
        payloads.append(record[at : at + size])
        offsets.append(first)
        first += 1
    return offsets, payloads


def _picked(items: list[Item], first: int, gaps: list[int]) -> tuple[list[int], list[bytes]]:
    """The same of decoded items."""
    places: list[int] = []
    place = 0
    for gap in gaps:
        place += gap
        places.append(place)
        place += 1
    payloads: list[bytes] = list(map(items.__getitem__, places))  # type: ignore[arg-type]
    return list(map(first.__add__, places)), payloads
