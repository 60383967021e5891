"""The segments of one store as objects: files, openings, indexes, and which of those stay in memory.

It must not know what a reader wants or when something is trimmed.  Invariants:
1. `Shelf.segments` is a tuple that is replaced, never changed: a reader in a thread works on the one it took.
2. The active segment has its file and its index in memory; those of sealed ones come and go with the Cache.
3. `Segment.size` covers landed bytes only; bytes behind it do not exist for readers.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace

from busd.rules.envelope import BadRecord, peek
from busd.rules.record import Batch, CleanStop, Hole, parse
from busd.rules.scan import Flaw, Found, Read, walk
from busd.rules.segment_index import SegmentIndex
from busd.rules.segment_opening import Opening, TopicLine
from busd.world.disk import Disk, DiskFailed, DiskFull, File
from busd.world.salvage import readable

# An opening is read in one piece of this size first; with more than a thousand topics a second read follows.
_OPENING_BYTES = 64 << 10
# Sealed segments that stay open: more than a replay, a backlog and a look-up use at once, far below any limit of files.
CACHE_SEGMENTS = 64
CACHE_BYTES = 64 << 20


class Segment:
    """One file `<first>.log` with its opening (`head`, without topics) and, while cached, file, index and topics.

    `dead_bytes`: how much of its size takes no room any more; `index_bytes`: size of its index file, about; `marked`:
    an empty file `<first>.thin` says that holes were put into it, which its size alone does not when it was copied.
    """

    __slots__ = (
        "_index",
        "damages",
        "data_at",
        "dead_bytes",
        "file",
        "first",
        "head",
        "index_bytes",
        "marked",
        "path",
        "pinned",
        "punched",
        "size",
        "topics",
        "touched",
    )

    def __init__(self, path: str, first: int, head: Opening, data_at: int, size: int) -> None:
        self.path = path
        self.first = first
        self.head = replace(head, lines=b"")
        self.data_at = data_at
        self.size = size
        self.file: File | None = None
        self._index: SegmentIndex | None = None
        self.topics: dict[bytes, TopicLine] | None = None
        self.damages: dict[int, Flaw] = {}
        self.dead_bytes = 0
        self.index_bytes = 0
        self.marked = False
        # Bytes (from, to) that holes came to stand for while readers may be in the middle of them.
        self.punched: tuple[tuple[int, int, Hole], ...] = ()
        self.touched = 0
        # Its name is gone or stands for something else: whoever still reads it needs the file that is open.
        self.pinned = False

    @property
    def index(self) -> SegmentIndex | None:
        """Where what is in it; None while it is not loaded."""
        return self._index

    @index.setter
    def index(self, index: SegmentIndex | None) -> None:
        """From now on several threads may ask it."""
        if index is not None:
            index.pairs.guard = threading.Lock()
        self._index = index

    @property
    def prev(self) -> int:
        """Last offset of the log before this segment."""
        return self.head.prev

    @property
    def index_path(self) -> str:
        """The file of hints."""
        return index_path(self.path)

    @property
    def rewritten(self) -> bool:
        """True when it holds survivors and holes of one or more trimmed segments."""
        return self.head.until > 0

    @property
    def thinned(self) -> bool:
        """True when retention may have put holes into it."""
        return self.rewritten or self.marked or self.dead_bytes > 0

    @property
    def used_bytes(self) -> int:
        """What it takes on the disk, its index file included."""
        return self.size - self.dead_bytes + self.index_bytes


def index_path(path: str) -> str:
    """`<first>.idx` for `<first>.log`."""
    return path.removesuffix(".log") + ".idx"


def thin_path(path: str) -> str:
    """`<first>.thin` for `<first>.log`."""
    return path.removesuffix(".log") + ".thin"


def reader_of(file: File) -> Read:
    """Reads for a walk: sectors that the disk cannot read are zeros."""

    def read(at: int, length: int) -> bytes:
        try:
            return file.read(at, length)
        except DiskFailed:
            return readable(file, at, max(0, min(length, file.size() - at)))
        except DiskFull:
            return b""

    return read


def read_opening(read: Read) -> tuple[Opening, int]:
    """The opening at the start of a segment or an index file, and its size in bytes.

    Raises:
        BadRecord: there is none; `format` when a newer version wrote it.
    """
    data = read(0, _OPENING_BYTES)
    size = peek(data)[1]
    if size > len(data):
        data = read(0, size)
        if len(data) < size:
            raise BadRecord("short", f"an opening of {size} bytes, {len(data)} there")
    record = parse(data[:size])
    if not isinstance(record, Opening):
        raise BadRecord("form", "a segment begins with +S")
    return record, size


def saved_index(disk: Disk, path: str, head: Opening | None) -> tuple[SegmentIndex, Opening, int] | None:
    """The index file beside the segment at `path`, as far as it is good, the copy of the opening in it and the size of
    what was good; None when it is of no use.

    `head` is the segment's opening; when that cannot be read (None), the copy in the index file stands in for it.
    """
    try:
        data = disk.read_file(index_path(path))
        copy, size = read_opening(lambda at, length: data[at : at + length])
    except (BadRecord, DiskFailed, DiskFull, OSError):
        return None
    if head is not None and copy != head:
        return None
    index = SegmentIndex(size, copy.prev)
    return index, copy, index.load(data, size)


def extend_index(index: SegmentIndex, read: Read, end: int, last: int) -> bool:
    """Scan the log behind what the index knows, up to byte `end`; `last` is the last offset the segment should hold.

    Returns False when there was damage; the index then says what is unknown.
    """
    sound = True
    for step in walk(read, index.end, end, index.last):
        if isinstance(step, Flaw):
            sound = False
            index.unknown.append((step.first, last if step.last is None else step.last))
        elif isinstance(step, Found) and isinstance(step.record, Batch | Hole):
            index.add(step.position, step.size, step.record)
        elif isinstance(step.record, CleanStop):
            index.skip(step.position, step.size, step.record.synced)
    if sound and index.last < last:
        index.unknown.append((index.last + 1, last))
        return False
    return sound


class Cache:
    """Keeps files and indexes of the sealed segments that were used last; one may serve many stores."""

    def __init__(self, limit_bytes: int = CACHE_BYTES, limit_segments: int = CACHE_SEGMENTS) -> None:
        self._limit_bytes = limit_bytes
        self._limit_segments = limit_segments
        self._weights: dict[Segment, int] = {}
        self._clock = 0
        self._guard = threading.Lock()

    def touch(self, segment: Segment) -> None:
        """Note a use; cheap, from any thread."""
        self._clock += 1
        segment.touched = self._clock

    def keep(self, segment: Segment) -> None:
        """Note that something of a sealed segment was loaded, and let go of what was not used for longest."""
        index, topics = segment.index, segment.topics
        weight = (index.weight_bytes() if index else 0) + (200 * len(topics) if topics else 0)
        self.touch(segment)
        with self._guard:
            if segment.pinned and segment not in self._weights:
                # It is gone from its store; a reader came late.  Nobody would drop it again.
                return
            self._weights[segment] = weight
            total = sum(self._weights.values())
            for old in sorted(self._weights, key=lambda one: one.touched)[:-1]:
                if old.pinned:
                    continue
                if total <= self._limit_bytes and len(self._weights) <= self._limit_segments:
                    break
                total -= self._weights.pop(old)
                old.file, old.index, old.topics = None, None, None

    def pin(self, segment: Segment) -> None:
        """From now on its file is not let go of."""
        with self._guard:
            segment.pinned = True

    def drop(self, segment: Segment) -> None:
        """Forget a segment that is gone or became active."""
        with self._guard:
            self._weights.pop(segment, None)


class Shelf:
    """A store's segments, oldest first, the last one active.

    `tip`: the segments, how many bytes of the last one have landed, and the last offset that did (or was lost); one
    attribute, so that a reader in a thread sees a state that was.  `pending`: a loss behind `last` that the next
    segment will record.  `spoilt`: first offsets of files whose openings cannot be read.  `floor_of`: the RESET floor
    of a topic, as of now; from any thread.
    """

    def __init__(self, disk: Disk, path: str, cache: Cache) -> None:
        self.disk = disk
        self.path = path
        self.cache = cache
        # Held from the look at a segment's file to its opening: between them its name may go.
        self._opening = threading.Lock()
        self.tip: tuple[tuple[Segment, ...], int, int] = ((), 0, 0)
        self.pending: Hole | None = None
        self.spoilt: list[int] = []
        self.floor_of: Callable[[bytes], int] = lambda topic: 0

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All segments, oldest first."""
        return self.tip[0]

    @property
    def used_bytes(self) -> int:
        """What the files take on the disk."""
        return sum([segment.used_bytes for segment in self.segments])

    @property
    def last(self) -> int:
        """The last offset of the log."""
        return self.tip[2]

    def land(self, segments: tuple[Segment, ...], last: int) -> None:
        """Show readers a new state; the sizes of the segments are set."""
        self.tip = (segments, segments[-1].size, last)

    def find(self, segments: Sequence[Segment], offset: int) -> int:
        """Number of the segment that holds `offset` or what comes before it; 0 when it is below all."""
        return max(0, bisect_right(segments, offset, key=lambda segment: segment.first) - 1)

    def last_of(self, segments: Sequence[Segment], number: int) -> int:
        """The last offset that a segment should hold."""
        return segments[number + 1].prev if number + 1 < len(segments) else self.last

    def file(self, segment: Segment, may_block: bool) -> File | None:
        """The segment's file; None when it is not open and must not be opened here."""
        file = segment.file
        if file is None and may_block:
            with self._opening:
                file = segment.file
                if file is None:
                    file = segment.file = self.disk.open(segment.path)
            self._keep(segment)
        return file

    def _keep(self, segment: Segment) -> None:
        # The active segment is not the cache's to take away.
        if segment is not self.segments[-1]:
            self.cache.keep(segment)

    def pin(self, segment: Segment) -> None:
        """Keep the file of a segment open for those who still read it, before its name goes.  Waits for the disk."""
        self.cache.pin(segment)
        with self._opening:
            if segment.file is None:
                segment.file = self.disk.open(segment.path)

    def index(self, segments: Sequence[Segment], number: int, may_block: bool) -> SegmentIndex | None:
        """The segment's index; None when it is not loaded and must not be loaded here."""
        segment = segments[number]
        index = segment.index
        if index is not None or not may_block:
            self.cache.touch(segment)
            return index
        file = self.file(segment, True)
        assert file is not None
        read = reader_of(file)
        try:
            head: Opening | None = read_opening(read)[0]
        except BadRecord:
            head = None
        saved = saved_index(self.disk, segment.path, head)
        index = saved[0] if saved is not None else SegmentIndex(segment.data_at, segment.prev)
        if index.end < segment.size:
            sound = extend_index(index, read, segment.size, self.last_of(segments, number))
            if sound and head is not None and not segment.pinned:
                self.save_index(segment, read, index)
        segment.index = index
        self._keep(segment)
        return index

    def save_index(self, segment: Segment, read: Read, index: SegmentIndex) -> None:
        """Write the index file of a sealed segment."""
        # A hint that cannot be written is rebuilt the next time.
        try:
            data = read(0, segment.data_at) + index.all_pages()
            self.disk.write_file(segment.index_path, data)
            segment.index_bytes = len(data)
        except (DiskFull, DiskFailed):
            return

    def topics(self, segment: Segment, may_block: bool) -> dict[bytes, TopicLine] | None:
        """What the segment's opening says of every topic; None when it is not loaded and must not be.

        A damaged opening is replaced by the copy in the index file, or by nothing.
        """
        topics = segment.topics
        if topics is not None or not may_block:
            return topics
        file = self.file(segment, True)
        assert file is not None
        try:
            topics = read_opening(reader_of(file))[0].topics()
        except BadRecord:
            saved = saved_index(self.disk, segment.path, None)
            topics = saved[1].topics() if saved is not None else {}
        segment.topics = topics
        self._keep(segment)
        return topics
