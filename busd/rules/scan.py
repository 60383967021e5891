"""The walk through a segment, record by record, everything checked; and where to go on behind a damaged record.

Recovery, rebuilding an index, rewriting and `verify` all walk here; reading for subscribers parses with the same
`record.parse` and asks `resume` when that fails.  Pure: bytes come from a `Read`, which may be short at the end of the
file and empty where the disk cannot read.  Invariants:
1. What is not whole, not checked or out of order is a Flaw and never a Found.
2. Behind a record that cannot be read, the walk goes on only at a position that an index names, or to which the
   damaged record's length, the structure of its body and the chain of the record there all point; and only when the
   record there validates.  Never by searching: a payload may hold a whole valid record.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import hiredis

from busd.rules.checksum import crc32
from busd.rules.envelope import PREFIX_BYTES, BadRecord, peek
from busd.rules.record import Batch, CleanStop, Hole, Record, glance, parse
from busd.rules.segment_index import SegmentIndex

Read = Callable[[int, int], bytes]
# One read of a walk: large enough to be sequential for the disk, small enough for the cache.
WINDOW_BYTES = 1 << 20
# A claim about offsets further ahead than this comes from no log: some payload looks like a record.
_FAR = 1 << 40
_TRACE = re.compile(rb"\+[BC] [0-9a-f]{8} [0-9]{10} ")
# The line of a damaged batch is to look like one in every field: `glance` leaves some to the checksum.
_LINE = re.compile(rb"\+B [0-9a-f]{8} [0-9]{10} \d+ \d+ \d+ \d+ \d+ [a-z-]+ ")


@dataclass(slots=True, frozen=True)
class Found:
    """A valid record; `size` includes the dead bytes of a hole."""

    position: int
    size: int
    record: Record


@dataclass(slots=True, frozen=True)
class Flaw:
    """Something that is not as it was written.

    `kind`: short, form, crc (unreadable; the walk goes on at `resume`, or ends when that is None) · missing (a record
    is not there: its successor names it) · doubled (a record that was there before; nothing is lost).
    `first` … `last`: the offsets lost by it; `last` is None when nobody knows, and below `first` when none are.
    `synced`, `claims`: what a valid record behind says was synced, and the highest offset that is known to be lost.
    """

    position: int
    kind: str
    detail: str
    first: int
    last: int | None = None
    resume: int | None = None
    synced: int = 0
    claims: int = 0


class Window:
    """Reads records through a `Read` in large pieces."""

    def __init__(self, read: Read, end: int) -> None:
        self._read = read
        self._end = end
        self._at = 0
        self._data = b""

    def bytes_at(self, position: int, length: int) -> bytes:
        """Up to `length` bytes from a position, fewer at the end."""
        start = position - self._at
        if start < 0 or start + length > len(self._data):
            size = min(max(length, WINDOW_BYTES), self._end - position)
            self._at, self._data, start = position, self._read(position, size) if size > 0 else b"", 0
            if len(self._data) < min(length, size):
                # The disk may be unable to read a part of a large piece: ask for just what is needed.
                self._data = self._read(position, min(length, size))
        return self._data[start : start + length]

    def record_at(self, position: int) -> Found:
        """The record at a position.

        Raises:
            BadRecord: there is none.
        """
        size = peek(self.bytes_at(position, PREFIX_BYTES))[1]
        if position + size > self._end:
            raise BadRecord("short", f"{size} bytes announced, {self._end - position} there")
        data = self.bytes_at(position, size)
        if len(data) < size:
            raise BadRecord("short", f"{size} bytes announced, {len(data)} could be read")
        record = parse(data)
        if isinstance(record, Hole):
            size += record.hop
            if position + size > self._end:
                raise BadRecord("short", f"a hole of {size} bytes, {self._end - position} there")
        return Found(position, size, record)


def sound(read: Read, start: int, index: SegmentIndex) -> bool:
    """True when everything that the index names between byte `start` and its end is there and checks.

    What stands between two entries, or before the first, may only be clean stops.
    """
    window = Window(read, index.end)
    base, data, view = 0, b"", memoryview(b"")
    gaps = [(start, index.positions[0])] if index.positions else []
    try:
        for number, position in enumerate(index.positions):
            end = index.end_of(number)
            if end - base > len(data):
                base, data = position, read(position, max(WINDOW_BYTES, end - position))
                view = memoryview(data)
            at = position - base
            kind, size = peek(data, at)
            stop = at + size
            if stop > len(data) or kind not in "BH" or int(data[at + 3 : at + 11], 16) != crc32(view[at + 12 : stop]):
                return False
            if not data.startswith(b"%d " % index.firsts[number], at + PREFIX_BYTES):
                return False
            if number in index.holes:
                stop += index.holes[number].hop
            if base + stop != end:
                gaps.append((base + stop, end))
        return all(_is_gap(window, *gap) for gap in gaps)
    except BadRecord:
        return False


def _is_gap(window: Window, position: int, end: int) -> bool:
    while position < end:
        found = window.record_at(position)
        if not isinstance(found.record, CleanStop):
            return False
        position += found.size
    return position == end


def walk(read: Read, start: int, end: int, prev: int, index: SegmentIndex | None = None) -> Iterator[Found | Flaw]:
    """Everything from position `start` to `end`; `prev` is the last offset before.

    `index` names positions to go on at behind damage.  Two Flaws may stand for one spot: unreadable, then missing.
    """
    window = Window(read, end)
    position, last = start, prev
    while position < end:
        try:
            found = window.record_at(position)
            if not isinstance(found.record, Batch | Hole | CleanStop):
                raise BadRecord("form", "a record that does not belong here")
        except BadRecord as error:
            flaw = _flaw(window, position, end, last, error, index)
            yield flaw
            if flaw.resume is None:
                return
            position = flaw.resume
            last = max(last, flaw.last or 0)
            continue
        record = found.record
        if isinstance(record, Batch | Hole):
            if record.first <= last:
                yield Flaw(position, "doubled", f"offset {record.first} comes after {last}", record.first, last=0)
                position += found.size
                continue
            if record.prev > last:
                yield Flaw(position, "missing", f"offset {record.prev} should come first", last + 1, record.prev)
            last = record.last
        yield found
        position += found.size


def _flaw(window: Window, position: int, end: int, last: int, error: BadRecord, index: SegmentIndex | None) -> Flaw:
    follower = _by_index(window, position, last, index) if index is not None else None
    if follower is None:
        follower = _by_structure(window, position, end)
    if follower is None:
        synced, claims = _traces(window, position, end, last)
        return Flaw(position, error.reason, str(error), last + 1, None, None, synced, claims)
    record = follower.record
    lost = None
    if isinstance(record, Batch | Hole):
        lost = record.prev
    elif index is not None and index.end == follower.position:
        lost = index.last
    synced, claims = _claims(record, last)
    return Flaw(position, error.reason, str(error), last + 1, lost, follower.position, synced, claims)


def _claims(record: Record, last: int) -> tuple[int, int]:
    """What a record says was synced, and the highest offset it shows; nothing if that cannot be."""
    if isinstance(record, CleanStop):
        return (record.synced, record.synced) if record.synced <= last + _FAR else (0, 0)
    if not isinstance(record, Batch | Hole) or not last <= record.prev <= last + _FAR:
        return 0, 0
    return min(record.synced, record.prev) if isinstance(record, Batch) else 0, record.last


def _traces(window: Window, position: int, end: int, last: int) -> tuple[int, int]:
    """What valid records anywhere behind `position` claim.

    Good enough to keep the bytes, not to serve them: they may lie in a payload.  A write that was merely cut off is not
    searched at all, or a payload in it could pass for something that was synced.
    """
    if _cut_off(window, position, end):
        return 0, 0
    synced = claims = 0
    at = position + 1
    while at < end:
        data = window.bytes_at(at, min(WINDOW_BYTES, end - at))
        if len(data) < PREFIX_BYTES:
            break
        match = _TRACE.search(data)
        if match is None:
            at += len(data) - PREFIX_BYTES + 1
            continue
        at += match.start()
        try:
            found = window.record_at(at)
        except BadRecord:
            at += 1
            continue
        more = _claims(found.record, last)
        synced, claims = max(synced, more[0]), max(claims, more[1])
        at += found.size
    return synced, claims


def _cut_off(window: Window, position: int, end: int) -> bool:
    """True when the bytes up to the end are the beginning of one good batch."""
    try:
        size = peek(window.bytes_at(position, PREFIX_BYTES))[1]
    except BadRecord as error:
        return error.reason == "short"
    data = window.bytes_at(position, end - position)
    return position + size > end and _items(data) is None


def resume(read: Read, position: int, end: int, last: int, index: SegmentIndex | None) -> Flaw | None:
    """What to make of an unreadable record at `position`, behind which offset `last` was read; None when it is good."""
    window = Window(read, end)
    try:
        window.record_at(position)
    except BadRecord as error:
        return _flaw(window, position, end, last, error, index)
    return None


def _by_index(window: Window, position: int, last: int, index: SegmentIndex) -> Found | None:
    numbers = range(bisect_right(index.positions, position), len(index))
    for number in numbers:
        try:
            found = window.record_at(index.positions[number])
        except BadRecord:
            continue
        record = found.record
        if isinstance(record, Batch | Hole) and record.first == index.firsts[number] and record.prev >= last:
            return found
    if index.end > position:
        try:
            found = window.record_at(index.end)
        except BadRecord:
            return None
        record = found.record
        if isinstance(record, CleanStop) or (isinstance(record, Batch | Hole) and record.prev == index.last):
            return found
    return None


def _by_structure(window: Window, position: int, end: int) -> Found | None:
    """The record behind a damaged batch, when everything else agrees on where that one ends."""
    try:
        size = peek(window.bytes_at(position, PREFIX_BYTES))[1]
        if position + size >= end:
            return None
        data = window.bytes_at(position, size)
        facts = glance(data)
        if facts is None or facts[0] != len(data) or not _LINE.match(data) or _items(data) != (int(facts[5][4]), True):
            return None
        found = window.record_at(position + size)
    except BadRecord:
        return None
    record = found.record
    return found if isinstance(record, Batch | Hole) and record.prev == facts[2] else None


def _items(data: bytes) -> tuple[int, bool] | None:
    """How many messages the body of a batch holds, and whether it ends with them; None when it is not whole.

    (-1, False) stands for something that is no body at all.
    """
    line_end = data.find(b"\r\n", PREFIX_BYTES)
    if line_end < 0:
        return None
    reader = hiredis.Reader(notEnoughData=None)
    reader.feed(data, line_end + 2, len(data) - line_end - 2)
    try:
        items = reader.gets()
    except hiredis.ProtocolError:
        return -1, False
    if items is None:
        return None
    return (len(items), not reader.has_data()) if type(items) is list else (-1, False)
