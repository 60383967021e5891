r"""The records of a log: what lies on disk, what is scanned after a crash, what `FORMAT batch` sends.

Every record begins with a prefix of fixed width, so 23 bytes tell what it is and where the next one begins:

    +<kind> <crc> <length> <fields…>\r\n<body>
     |      |     |
     |      |     10 digits: bytes that follow the blank behind it (fields, CR LF and body)
     |      8 hex digits: CRC-32 (zlib) of everything behind it, from the first digit of length to the end
     B batch · H hole · S segment opening · C clean stop · I index page

    +B … <first> <n> <time_ns> <prev> <synced> <flags> <topic[,topic…]> [column] [steps]\r\n
    *<n>\r\n$5\r\nhello\r\n*3\r\n$2\r\nhi\r\n$3\r\nkey\r\n$2\r\nk1\r\n…

        first    offset of its first message          prev    offset before it in this log, 0 for none
        n        number of messages, at least 1       synced  highest offset known to be synced, in this log
        flags    - none · h some messages have headers (those are arrays: payload, key, value, …)
                 · e every message is an end of stream · r every message is a RESET (payload: messages removed)
        topics   at most 2000
        column   UTF-8, one character a message, chr(48 + index into the topics); absent with one topic
        steps    n-1 differences between offsets, joined by commas; absent when all are 1

    +H … <first> <last> <prev> <hop> <reason> <topic:count,…>\r\n      `-` for counts that nobody knows
        stands for the messages first…last; `hop` bytes behind the line are dead and belong to it

    +S … <format> <store> <epoch> <first> <prev> <until> <born> <sure> <total> <time_ns>\r\n
    topic count last floor dead state\r\n…     one line a topic: what was before this segment

        first   lowest offset it may hold             prev    last offset before it in this log, 0 for none
        until   offsets up to here belong to it: it was merged with segments behind it; 0 where it was not
        born    lowest offset this log ever had       sure    all messages from this offset on are counted (a loss
        total   the sum of all counts                         of unknown size raises it)
        count   messages so far                       dead    how many of them stood below the RESET at floor
        state   o open · e ended (then `last` is the EOF)

    +I … a page of an index, not of a log: see segment_index.py

    +C … <next> <synced> <time_ns>\r\n         written by a clean stop; nothing behind it was lost

Why the length covers the fields too, and not only the body: a column can be long, so only a fixed prefix makes
"how much must I read" a question that 23 bytes answer.  Why CRC-32: one call, in every standard library, and quick
(busd.rules.checksum).

Pure: knows bytes, not files.  Invariants:
1. `parse` believes nothing whose CRC does not hold; `frame` and `parse` are the only writer and reader of the format.
2. Offsets rise within a record and from record to record of one log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from busd.rules import column as columns
from busd.rules.checksum import crc32
from busd.rules.column import Column
from busd.rules.envelope import PREFIX_BYTES, BadRecord, check, envelope
from busd.rules.items import FEW, UNEVEN, Item, cut_out, decode_items, encode_items, even_items, runs_pay, take_all
from busd.rules.segment_opening import Opening, opening_of

# +B, checksum, length, first, n, time, prev, synced, flags, topics
_FEWEST = 10

# Of each topic of a batch: how many messages it has, and the offset of the last.
Tally = tuple[Sequence[int], Sequence[int]]


@dataclass(slots=True, eq=False)
class Batch:
    """One commit's messages of one store.  `column` is None with one topic, `steps` None when offsets are dense.

    `last`: offset of the last message; `control`: True for ends of stream and RESETs, which are no messages and are
    never counted as such.
    """

    first: int
    n: int
    time_ns: int
    prev: int
    synced: int
    flags: str
    topics: tuple[bytes, ...]
    column: Column | None
    steps: tuple[int, ...] | None
    record: bytes = field(repr=False)
    body_at: int = field(repr=False)
    # Each is asked for several times a commit.
    last: int = field(init=False, repr=False)
    control: bool = field(init=False, repr=False)
    _items: list[Item] | None = field(default=None, repr=False)
    _tally: Tally | None = field(default=None, repr=False)
    # The size of all payloads, where it is known to be one.
    even: int = field(default=UNEVEN, repr=False)
    _even: tuple[int, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.last = self.first + (self.n - 1 if self.steps is None else sum(self.steps))
        self.control = "e" in self.flags or "r" in self.flags

    @property
    def size_bytes(self) -> int:
        """The size of its record."""
        return len(self.record)

    def offsets(self) -> Sequence[int]:
        """The offset of every message, rising."""
        if self.steps is None:
            return range(self.first, self.first + self.n)
        return list(accumulate(self.steps, initial=self.first))

    def items(self) -> list[Item]:
        """Every message: payload, or with headers [payload, key, value, …].  Decoded once, kept.  Raises BadRecord."""
        if self._items is None:
            try:
                even = self.evenly() if runs_pay(self.n, self.even) else ()
                self._items = (
                    take_all(self.record, even, self.n) if even else decode_items(self.record, self.body_at, self.n)
                )
            except ValueError as error:
                raise BadRecord("form", str(error)) from None
        return self._items

    def items_at(self, places: Sequence[int]) -> list[Item]:
        """Of `items` those with these numbers; a few of many of one size are cut out, the others never decoded."""
        if self._items is None and len(places) * FEW < self.n and (even := self.evenly()):
            return cut_out(self.record, even, places)
        return list(map(self.items().__getitem__, places))

    def evenly(self) -> tuple[int, ...]:
        """Where the payloads stand when all are of one size, see `even_items`; empty when they are not."""
        if self._even is None:
            self._even = even_items(self.record, self.body_at, self.n, self.even)
        return self._even

    def payloads(self) -> list[bytes]:
        """Every message's payload."""
        return [item if isinstance(item, bytes) else item[0] for item in self.items()]

    def topic_of(self, index: int) -> bytes:
        """The topic of message `index` (0 … n-1)."""
        return self.topics[0 if self.column is None else columns.number_at(self.column, index)]

    def counts(self) -> Sequence[int]:
        """How many records there are of each of `topics`."""
        if self._tally is not None:
            return self._tally[0]
        return (self.n,) if self.column is None else columns.counts(self.column, len(self.topics))

    def lasts(self) -> Sequence[int]:
        """The offset of the last record of each of `topics`."""
        if self._tally is not None:
            return self._tally[1]
        if self.column is None:
            return (self.last,)
        return columns.lasts(self.column, len(self.topics), self.offsets())

    def last_of(self, topic: bytes) -> int:
        """The offset of the last record of one of `topics`."""
        if self.column is None:
            return self.last
        return self.offsets()[columns.last_place(self.column, self.topics.index(topic))]


@dataclass(slots=True, frozen=True)
class Hole:
    """Stands for messages that are gone.  `counts` None: nobody knows how many of which topic."""

    first: int
    last: int
    prev: int
    hop: int
    reason: str
    counts: dict[bytes, int] | None


@dataclass(slots=True, frozen=True)
class CleanStop:
    """The mark of a clean stop: every offset below `next` of this log is decided and synced."""

    next: int
    synced: int
    time_ns: int


Record = Batch | Hole | Opening | CleanStop
# What the line of a batch says: size of the record, first, last, prev; where it ends, and what is between its blanks.
Facts = tuple[int, int, int, int, int, list[bytes]]


def glance(record: bytes) -> Facts | None:
    """What the line of a batch says, unchecked: enough to pass it by.

    None when it is no batch, or its line is not whole.
    """
    end = record.find(b"\r\n")
    fields = record[:end].split(b" ")
    if fields[0] != b"+B" or end < 0 or not _FEWEST <= len(fields) <= _FEWEST + 2:
        return None
    steps = fields[_FEWEST + 1 :] if b"," in fields[9] else fields[_FEWEST:]
    if len(steps) > 1 or not fields[9] or not fields[-1]:
        return None
    try:
        first, n = int(fields[3]), int(fields[4])
        last = first + (sum(map(int, steps[0].split(b","))) if steps else n - 1)
        return PREFIX_BYTES + int(fields[2]), first, last, int(fields[6]), end, fields
    except ValueError:
        return None


def parse_batch(record: bytes, facts: Facts) -> Batch:
    """The batch of which `glance` said that: what `parse` makes of it.

    Raises:
        BadRecord: see `parse`.
    """
    check(record)
    try:
        return _parse_batch(record, facts)
    except (ValueError, IndexError) as error:
        raise BadRecord("form", f"fields of +B: {error}") from None


def parse(record: bytes) -> Record:
    """One whole record (as `peek` measured it), checked.

    Raises:
        BadRecord: `crc`, or `form` where a valid checksum covers fields that make no sense (another format version).
    """
    check(record)
    kind = record[1:2]
    try:
        if kind == b"B":
            facts = glance(record)
            if facts is None:
                raise ValueError("too few, too many, or no numbers")
            return _parse_batch(record, facts)
        end = record.index(b"\r\n", PREFIX_BYTES)
        return _PARSERS[kind](record, end + 2, record[PREFIX_BYTES:end].split(b" "))
    except (ValueError, IndexError, KeyError) as error:
        raise BadRecord("form", f"fields of +{kind.decode()}: {error}") from None


def frame(
    first: int,
    time_ns: int,
    prev: int,
    synced: int,
    flags: str,
    topics: tuple[bytes, ...],
    column: Column | None,
    steps: tuple[int, ...] | None,
    items: list[Item],
    names: bytes = b"",
    tally: Tally | None = None,
) -> Batch:
    """Make a batch and the bytes of its record.  `items` is kept, not copied; the caller must not change it.

    `names`, `tally`: the topics joined by commas, and what `counts` and `lasts` say; where they are known already.
    """
    n = len(items)
    if n == 1 and flags == "-" and column is None:
        return _frame_alone(first, time_ns, prev, synced, topics, items)
    names = names or b",".join(topics)
    fields = b"%d %d %d %d %d %b %b" % (first, n, time_ns, prev, synced, flags.encode(), names)
    if column is not None:
        fields += b" " + columns.encode(column)
    if steps is not None:
        fields += b" " + b",".join([b"%d" % step for step in steps])
    body, even = encode_items(items, "h" in flags)
    rest = b"%010d %b\r\n" % (len(fields) + 2 + len(body), fields)
    head = b"+B %08x %b" % (crc32(body, crc32(rest)), rest)
    return Batch(
        first, n, time_ns, prev, synced, flags, topics, column, steps, head + body, len(head), items, tally, even
    )


def _frame_alone(
    first: int, time_ns: int, prev: int, synced: int, topics: tuple[bytes, ...], items: list[Item]
) -> Batch:
    """The same of a single payload, which is copied once: 2.5 µs instead of 4.8, for which its publisher waits."""
    payload: bytes = items[0]  # type: ignore[assignment]
    size = len(payload)
    rest = b"%d 1 %d %d %d - %b\r\n*1\r\n$%d\r\n" % (first, time_ns, prev, synced, topics[0], size)
    rest = b"%010d %b" % (len(rest) + size + 2, rest)
    record = b"+B %08x %b%b\r\n" % (crc32(b"\r\n", crc32(payload, crc32(rest))), rest, payload)
    body_at = record.index(b"\r\n", PREFIX_BYTES) + 2
    return Batch(first, 1, time_ns, prev, synced, "-", topics, None, None, record, body_at, items, None, size)


def frame_hole(hole: Hole) -> bytes:
    """The record of a hole, without the dead bytes behind it."""
    counts = b"-"
    if hole.counts is not None:
        counts = b",".join(b"%b:%d" % pair for pair in sorted(hole.counts.items())) or b"0"
    return envelope(
        "H", b"%d %d %d %d %b %b" % (hole.first, hole.last, hole.prev, hole.hop, hole.reason.encode(), counts)
    )


def frame_clean_stop(mark: CleanStop) -> bytes:
    """The record of a clean stop."""
    return envelope("C", b"%d %d %d" % (mark.next, mark.synced, mark.time_ns))


def _parse_batch(record: bytes, facts: Facts) -> Batch:
    _, first, _, prev, end, fields = facts
    n, time_ns, synced = int(fields[4]), int(fields[5]), int(fields[7])
    flags, topics, rest = fields[8].decode(), tuple(fields[9].split(b",")), fields[_FEWEST:]
    column = columns.decode(rest.pop(0), n, len(topics)) if len(topics) > 1 else None
    steps = tuple(map(int, rest.pop(0).split(b","))) if rest else None
    if rest or n < 1 or first <= prev:
        raise ValueError("they contradict each other")
    if steps is not None and (len(steps) != n - 1 or min(steps) < 1):
        raise ValueError("offsets do not rise")
    return Batch(first, n, time_ns, prev, synced, flags, topics, column, steps, record, end + 2)


def _parse_hole(record: bytes, body_at: int, fields: list[bytes]) -> Hole:
    first, last, prev, hop = map(int, fields[:4])
    if first > last or hop < 0 or first <= prev:
        raise ValueError("they contradict each other")
    counts: dict[bytes, int] | None = None
    if fields[5] != b"-":
        pairs = [pair.partition(b":") for pair in fields[5].split(b",") if pair != b"0"]
        counts = {topic: int(count) for topic, _, count in pairs}
    return Hole(first, last, prev, hop, fields[4].decode(), counts)


def _parse_clean_stop(record: bytes, body_at: int, fields: list[bytes]) -> CleanStop:
    next_offset, synced, time_ns = map(int, fields)
    return CleanStop(next_offset, synced, time_ns)


_PARSERS: dict[bytes, Callable[[bytes, int, list[bytes]], Record]] = {
    b"H": _parse_hole,
    b"S": opening_of,
    b"C": _parse_clean_stop,
}
