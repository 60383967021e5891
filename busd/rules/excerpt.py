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
from busd.rules.envelope import PREFIX_BYTES
from busd.rules.items import FEW, UNEVEN, Item, decode_items, even_items
from busd.rules.record import Batch, Hole

# An excerpt of so much gets no more: about what goes out in one write (busd.broker.stride).
_ENOUGH_BYTES = 32 * 1024
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
    """Takes the messages of one topic.  Of the batch that was taken, `last`: its last offset; `even`: the size of all
    payloads, where they were looked at and it is one."""

    __slots__ = ("_among", "_topic", "even", "last")

    def __init__(self, topic: bytes) -> None:
        self._topic = topic
        self._among = b",%b," % topic
        self.last = 0
        self.even = UNEVEN

    def take(
        self, data: bytes, at: int, lo: int, hi: int, last: int, records: list[Batch | Hole], even: int = UNEVEN
    ) -> int:
        """Add what the batch at `at` has of the topic to the excerpt at the end of `records`, or to a new one there.

        Args:
            data: perhaps no batch, perhaps cut off, perhaps damaged.
            lo, hi: the batch must lie in lo … hi-1.
            last: the offset read before; the batch must follow it.
            even: the size of all payloads, where that is known to be one.

        Returns the size of its record in bytes; 0 when it was not taken, and nothing has changed.
        """
        line_end = data.find(b"\r\n", at)
        fields = data[at:line_end].split(b" ")
        if len(fields) != _FIELDS or fields[0] != b"+B" or fields[8] != b"-":
            return 0
        _, checksum, length, first_, n_, _, prev, _, _, topics, letters = fields
        try:
            first, n, end = int(first_), int(n_), at + PREFIX_BYTES + int(length)
            if first < lo or first + n > hi or first <= last or int(prev) > last or not line_end < end <= len(data):
                return 0
            gaps = self._gaps(topics, letters, n)
            # The others are for C, of these each costs 0.3 µs.
            if gaps is None or FEW * len(gaps) > n or int(checksum, 16) != crc32(memoryview(data)[at + 12 : end]):
                return 0
            self.even = even
            if gaps:
                where = even_items(data, line_end + 2, n, end, even)
                if where:
                    self.even = where[2]
                    offsets, payloads = _cut(data, where, first, gaps)
                else:
                    offsets, payloads = _picked(decode_items(data, line_end + 2, n, end), first, gaps)
                self._excerpt(records).extend(offsets, payloads, (end - at) * len(gaps) // n)
        except ValueError:
            return 0
        self.last = first + n - 1
        return end - at

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


def _cut(data: bytes, even: tuple[int, ...], first: int, gaps: list[int]) -> tuple[list[int], list[bytes]]:
    """Offsets and payloads of messages between which there are such gaps; `even`: see `even_items`."""
    offsets: list[int] = []
    payloads: list[bytes] = []
    start, step, size = even
    start -= first * step
    for gap in gaps:
        first += gap
        at = start + first * step
        payloads.append(data[at : at + size])
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
