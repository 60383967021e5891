"""Where in a segment a batch, an offset, a time or a topic is: positions in arrays, and their pages on disk.

A segment `<first>.log` may have an `<first>.idx`: a copy of the segment's opening, then pages, each an `I` record:

    +I <crc> <length> <number> <n> <start> <end> <last> <synced> <messages> <topics> <pairs> <holes> <headed> 2\r\n
    positions n × u32 · first offsets n × u64 · times n × u64            of entries number … number+n-1
    pairs of each entry, n × u32 · of each pair the number of its topic among the names, its messages, pairs × u32 each
    names of topics (those and maybe others) joined by LF, CR LF, then the +H records of those entries that are holes

All little-endian.  A page covers the log from byte `start` to byte `end`; `last` is the last offset in it, `synced` and
`messages` are as of its end; `headed` is 1 when messages up to there may have headers; 2 is the page's form.  Pages are
hints: one of another form, or that does not fit the ones before, ends the index there, and the rest is found by a scan
of the log.  They also remember where records began before a disk spoilt them.

Why u32 for positions: 28 bytes an entry instead of 32; segments are held below 4 GiB.  Why an entry for every batch:
even the worst segment, single small messages each in a commit of its own, costs a quarter of its size.

Pure: knows bytes, not files.  Invariants:
1. Entries rise in position and in offset; `numbers` of a topic rise.  Control records have the count 0.
2. Readers in a thread may use an index that grows: arrays are only appended to, topics only added.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence

from busd.rules.envelope import PREFIX_BYTES, BadRecord, check, envelope, peek
from busd.rules.items import UNEVEN
from busd.rules.record import Batch, Hole, frame_hole, parse
from busd.rules.topic_pairs import Entries, TopicNumbers, TopicPairs

# A position must fit in 32 bits; a record is at most 1 GiB and begins below this.
MAX_SEGMENT_BYTES = 3 << 30
# The active segment's index is saved this often: the most that a restart after a kill must scan without help.
PAGE_ENTRIES = 1024
PAGE_LOG_BYTES = 4 << 20
_FORM = 2

Topics = Callable[[bytes], bool]
Pairs = tuple[Sequence[int], Sequence[int]]


class SegmentIndex:
    """Entries for the batches and holes of one segment.

    `end`: the position behind what is known; `last`: the last offset before it; `messages`: how many are in it;
    `headed`: some messages may have headers;
    `unknown`: ranges of offsets (first, last) of which no entry is known because the log was damaged there.
    `numbers`: who deals the numbers of topics; None: nobody else needs them.
    """

    def __init__(self, start: int, prev: int, numbers: TopicNumbers | None = None) -> None:
        self.positions = array("I")
        self.firsts = array("Q")
        self.times = array("Q")
        self.evens = array("i")
        self.pairs = TopicPairs(numbers)
        self.holes: dict[int, Hole] = {}
        self.unknown: list[tuple[int, int]] = []
        self.end = start
        self.last = prev
        self.synced = 0
        self.messages = 0
        self.headed = False
        self.start = start
        self._paged = 0
        self._paged_end = start

    def __len__(self) -> int:
        """Number of entries."""
        return len(self.firsts)

    def weight_bytes(self) -> int:
        """About how much memory it takes."""
        # As if it had been asked for every topic, which may be any time.  500: two dictionary entries, the key and two
        # arrays; 24 a pair, as arrays grow ahead of need.
        return 28 * len(self) + 24 * len(self.pairs) + 500 * self.pairs.topics

    @property
    def topics(self) -> dict[bytes, Entries]:
        """Where each topic is; for reading.  May have to be made first, from `pairs`."""
        return self.pairs.by_topic(len(self.firsts))

    def turn(self) -> None:
        """Do now what `topics` would have to do first."""
        self.pairs.by_topic(len(self.firsts))

    @property
    def waiting_pairs(self) -> int:
        """How much has to be done first when somebody asks by topic: about half a microsecond for each."""
        return self.pairs.waiting(len(self.firsts))

    def add(self, position: int, size_bytes: int, record: Batch | Hole, pairs: Pairs | None = None) -> None:
        """Take in the record that follows; `size_bytes` includes a hole's dead bytes.

        `pairs`: the numbers of a batch's topics and how many messages each has; None: not known yet.
        """
        number = len(self.firsts)
        self.positions.append(position)
        if isinstance(record, Batch):
            self.times.append(record.time_ns)
            self.evens.append(record.even)
            if pairs is None:
                pairs = self.pairs.numbers.of(record.topics), counts_in(record)
            self.pairs.add(*pairs)
            if not record.control:
                self.messages += record.n
            if record.synced > self.synced:
                self.synced = record.synced
            if "h" in record.flags:
                self.headed = True
        else:
            self.times.append(self.times[-1] if number else 0)
            self.evens.append(UNEVEN)
            self.holes[number] = record
            self.pairs.add((), ())
        self.end = position + size_bytes
        self.last = record.last
        # The last one: a reader in a thread takes the length of `firsts` for the number of entries.
        self.firsts.append(record.first)

    def skip(self, position: int, size_bytes: int, synced: int = 0) -> None:
        """Note that a record without offsets (a clean stop) or damage ends here."""
        self.end = position + size_bytes
        self.synced = max(self.synced, synced)

    def thinned(self, holes: Sequence[tuple[int, int, Hole]]) -> SegmentIndex:
        """The index of the same segment where a hole stands for each of some stretches lo … hi-1 (rising)."""
        new = SegmentIndex(self.start, 0, self.pairs.numbers)
        pieces, at = [], 0
        for lo, hi, hole in holes:
            pieces.append((at, lo, len(new.firsts) - at))
            new._copy(self, at, lo)
            new.holes[len(new.firsts)] = hole
            new.positions.append(self.positions[lo])
            new.times.append(self.times[lo])
            new.evens.append(UNEVEN)
            new.pairs.add((), ())
            new.firsts.append(hole.first)
            at = hi
        pieces.append((at, len(self.firsts), len(new.firsts) - at))
        new._copy(self, at, len(self.firsts))
        for number, hole in self.holes.items():
            for lo, hi, shift in pieces:
                if lo <= number < hi:
                    new.holes[number + shift] = hole
        new.end, new.last, new.synced, new.headed = self.end, self.last, self.synced, self.headed
        new.messages = sum(new.pairs.counts)
        return new

    def _copy(self, old: SegmentIndex, lo: int, hi: int) -> None:
        self.positions.extend(old.positions[lo:hi])
        self.times.extend(old.times[lo:hi])
        self.evens.extend(old.evens[lo:hi])
        self.pairs.copy(old.pairs, lo, hi)
        self.firsts.extend(old.firsts[lo:hi])

    # Questions.

    def number_at(self, offset: int) -> int:
        """The last entry that begins at or below `offset`; -1 when all begin above it."""
        return bisect_right(self.firsts, offset, 0, len(self.firsts)) - 1

    def number_at_time(self, time_ns: int) -> int:
        """The first entry of this time or later; the number of entries when there is none."""
        return bisect_left(self.times, time_ns, 0, len(self.firsts))

    def even_at(self, position: int) -> int:
        """The size of all payloads of the batch there, where that is known to be one: by who wrote it, or `note_even`.

        Pages do not tell it.
        """
        number = bisect_left(self.positions, position, 0, len(self.firsts))
        return self.evens[number] if number < len(self.firsts) and self.positions[number] == position else UNEVEN

    def note_even(self, position: int, size: int) -> None:
        """All payloads of the batch there are of this size.  From any thread."""
        number = bisect_left(self.positions, position, 0, len(self.firsts))
        if number < len(self.firsts) and self.positions[number] == position:
            self.evens[number] = size

    def end_of(self, number: int) -> int:
        """Where the entry ends at the latest."""
        return self.positions[number + 1] if number + 1 < len(self.firsts) else self.end

    def wanted(self, topics: Topics, start: int, stop: int) -> list[int] | None:
        """Rising numbers of the entries start … stop-1 with a wanted topic, and of all holes.

        None when they are a quarter of all or more: then reading through costs less than seeking.
        """
        quarter = (stop - start) / 4
        found = {number for number in list(self.holes) if start <= number < stop}
        for topic in list(self.topics):
            if topics(topic):
                numbers = self.topics[topic].numbers
                lo, hi = bisect_left(numbers, start), bisect_left(numbers, stop)
                if hi - lo >= quarter:
                    return None
                found.update(numbers[lo:hi])
                if len(found) >= quarter:
                    return None
        return sorted(found)

    def counts(self, topics: Topics, lo: int, hi: int) -> dict[bytes, int]:
        """Messages of each wanted topic in entries lo … hi-1, without holes; 0 where only control records are."""
        counts = {}
        for topic in list(self.topics):
            if topics(topic):
                entries = self.topics[topic]
                part = entries.counts[bisect_left(entries.numbers, lo) : bisect_left(entries.numbers, hi)]
                if part:
                    counts[topic] = sum(part)
        return counts

    def totals(self) -> dict[bytes, int]:
        """Messages of every topic, those of holes included as far as they are known."""
        totals = {topic: sum(self.topics[topic].counts) for topic in list(self.topics)}
        for hole in list(self.holes.values()):
            for topic, count in (hole.counts or {}).items():
                totals[topic] = totals.get(topic, 0) + count
        return totals

    def knows(self, first: int, last: int) -> bool:
        """True when every message ever kept in this range of offsets has its entry here."""
        return last <= self.last and not any(lo <= last and first <= hi for lo, hi in self.unknown)

    # Pages.

    def page_due(self) -> bool:
        """True when enough has come since the last page."""
        return self.end - self._paged_end >= PAGE_LOG_BYTES or len(self.firsts) - self._paged >= PAGE_ENTRIES

    def page(self) -> bytes:
        """What came since the last page, as a record; empty when nothing did."""
        start, stop = self._paged, len(self.firsts)
        if self.end == self._paged_end:
            return b""
        names, sizes, numbers, counts = self.pairs.part(start, stop)
        holes = [frame_hole(self.holes[number]) for number in sorted(self.holes) if start <= number < stop]
        fields = [start, stop - start, self._paged_end, self.end, self.last, self.synced, self.messages]
        fields += [len(names), len(numbers), len(holes), int(self.headed), _FORM]
        columns = (self.positions[start:stop], self.firsts[start:stop], self.times[start:stop], sizes, numbers, counts)
        body = b"".join(map(_little, columns)) + b"\n".join(names) + b"\r\n" + b"".join(holes)
        self._paged, self._paged_end = stop, self.end
        return envelope("I", b" ".join([b"%d" % number for number in fields]), body)

    def adopt_pages(self, saved: SegmentIndex, end: int) -> bool:
        """Take the pages that `saved` was loaded from, up to byte `end`, for ours; False when they differ from us."""
        number = bisect_left(self.positions, end)
        same = saved.positions[:number] == self.positions[:number] and saved.firsts[:number] == self.firsts[:number]
        if not same or bisect_left(saved.positions, end) != number:
            return False
        self._paged, self._paged_end = number, end
        return True

    def all_pages(self) -> bytes:
        """Everything as one page, as if none had been made before."""
        self._paged, self._paged_end = 0, self.start
        return self.page()

    def load(self, data: bytes, at: int = 0) -> int:
        """Take in the pages that stand in `data` from `at` on, as far as they are whole and fit.

        Returns the position in `data` behind the last one taken.
        """
        while True:
            try:
                kind, size = peek(data, at)
                if kind != "I" or at + size > len(data):
                    return at
                if not self._load_page(data[at : at + size]):
                    return at
            except (BadRecord, ValueError):
                return at
            at += size

    def _load_page(self, record: bytes) -> bool:
        check(record)
        line_end = record.index(b"\r\n", PREFIX_BYTES)
        fields = list(map(int, record[PREFIX_BYTES:line_end].split(b" ")))
        body_at = line_end + 2
        if len(fields) != 12 or fields[-1] != _FORM:
            return False
        number, n, start, end, last, synced, messages, topics, pairs, _, headed, _ = fields
        if number != len(self.firsts) or start != self.end:
            return False
        view = memoryview(record)
        columns = []
        for code, length in (("I", n), ("Q", n), ("Q", n), ("I", n), ("I", pairs), ("I", pairs)):
            column = array(code)
            stop = body_at + length * column.itemsize
            column.frombytes(view[body_at:stop])
            if sys.byteorder == "big":
                column.byteswap()
            columns.append(column)
            body_at = stop
        names_end = record.index(b"\r\n", body_at)
        names = record[body_at:names_end].split(b"\n") if topics else []
        for hole in _holes(record, names_end + 2):
            self.holes[bisect_left(columns[1], hole.first) + number] = hole
        self.pairs.extend(names, *columns[3:])
        self.positions.extend(columns[0])
        self.firsts.extend(columns[1])
        self.times.extend(columns[2])
        self.evens.extend([UNEVEN] * n)
        self.end, self.last, self.synced, self.messages = end, last, synced, messages
        self.headed = self.headed or bool(headed)
        self._paged, self._paged_end = len(self.firsts), end
        return True


def _little(column: array[int]) -> bytes:
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()


def _holes(record: bytes, at: int) -> Iterator[Hole]:
    while at < len(record):
        size = peek(record, at)[1]
        hole = parse(record[at : at + size])
        if isinstance(hole, Hole):
            yield hole
        at += size


def counts_in(batch: Batch) -> Sequence[int]:
    """How many messages there are of each of a batch's topics; control records are none."""
    return [0] * len(batch.topics) if batch.control else batch.counts()
