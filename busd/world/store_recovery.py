"""Opening a store: what its directory holds, the last segment scanned, the plan of rules/recovery carried out.

Sealed segments are trusted: only their openings are read.  It must not know readers or commits.  Invariants:
1. Nothing is cut before the bytes are in a .cut file and the index that describes them is gone; a full disk alone lets
   bytes go that no promise covers.
2. Whatever is served after `recover` is synced.
3. Files that are not ours are left alone and named in the report.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from busd.rules.envelope import PREFIX_BYTES, BadRecord, peek
from busd.rules.record import Batch, CleanStop, Hole
from busd.rules.recovery import Plan, Verdict, plan
from busd.rules.scan import Flaw, Found, Read, walk
from busd.rules.segment_index import SegmentIndex
from busd.rules.segment_opening import Opening, frame_opening
from busd.rules.topic_state import TopicTable
from busd.words.patterns import any_topic
from busd.world.disk import Disk, DiskFailed, DiskFull, File, try_remove
from busd.world.punch import finish
from busd.world.salvage import readable
from busd.world.segment import Cache, Segment, Shelf, index_path, read_opening, reader_of, saved_index, thin_path

# What may lie in a store's directory.
OURS = re.compile(r"([0-9]{20})\.(log|idx|punch|thin|cut(?:\.[0-9]+)?)")


class NewerFormat(Exception):
    """A segment was written by a newer busd; nothing was touched."""


@dataclass(slots=True)
class Recovered:
    """A store as it was found: what Store works on from then on.

    `must_roll`: the last segment takes no more; `pages`: the index file to add pages to, None when there is none that
    fits; `sure`: see record.py; `doubtful`: offsets above `last` may have been given out.
    """

    shelf: Shelf
    topics: TopicTable
    total: int = 0
    synced: int = 0
    born: int = 0
    sure: int = 0
    must_roll: bool = False
    doubtful: bool = False
    pages: File | None = None
    report: list[str] = field(default_factory=list)


def segment_path(path: str, first: int) -> str:
    """The file of the segment that begins at this offset."""
    return f"{path}/{first:020d}.log"


def recover(disk: Disk, path: str, name: str, *, epoch: int, next_offset: int, now_ns: int, cache: Cache) -> Recovered:
    """Open the directory of a store, or make it.

    Raises:
        NewerFormat: written by a newer version.
        DiskFull, DiskFailed, OSError: it cannot be read, made or made durable.
    """
    disk.makedirs(path)
    store = Recovered(Shelf(disk, path, cache), TopicTable())
    store.report += finish(disk, path, disk.listdir(path))
    firsts = _list(store)
    segments = _openings(store, firsts, name)
    segments = _last(store, segments, name, next_offset)
    head = Opening(name, epoch, next_offset, store.shelf.last, 0, next_offset, next_offset, 0, now_ns)
    if not segments:
        last = max([*store.shelf.spoilt, 0])
        first = max(next_offset, last + 1)
        store.born, store.sure, store.synced = first, first, last
        head = replace(head, first=first, born=first, sure=first, prev=last)
        store.shelf.land((create(disk, path, head),), last)
        _start_index(store.shelf.segments[0])
        return store
    _epoch(store, epoch, next_offset)
    return store


def _start_index(segment: Segment) -> None:
    segment.index = SegmentIndex(segment.data_at, segment.prev)


def create(disk: Disk, path: str, head: Opening) -> Segment:
    """A new segment with nothing but its opening, durable.

    Raises:
        DiskFull, DiskFailed: the file is gone again, if the disk still lets us.
    """
    target = segment_path(path, head.first)
    opening = frame_opening(head)
    try_remove(disk, index_path(target))
    file = disk.create(target)
    try:
        disk.sync_dir(path)
        file.append([opening])
        file.sync()
    except (DiskFull, DiskFailed):
        try_remove(disk, target)
        raise
    segment = Segment(target, head.first, head, len(opening), len(opening))
    segment.file = file
    return segment


def _list(store: Recovered) -> list[int]:
    """First offsets of the segments, rising; leftovers of an interrupted write are removed, strangers reported."""
    disk, path = store.shelf.disk, store.shelf.path
    names = disk.listdir(path)
    firsts = []
    for name in names:
        match = OURS.fullmatch(name)
        if name.endswith(".tmp"):
            try_remove(disk, f"{path}/{name}")
        elif match is None:
            store.report.append(f"{path}/{name}: not a file of busd, left alone")
        elif match[2] == "log":
            firsts.append(int(match[1]))
        elif match[2] in ("idx", "thin") and match[1] + ".log" not in names:
            try_remove(disk, f"{path}/{name}")
    return firsts


def _openings(store: Recovered, firsts: list[int], name: str) -> list[Segment]:
    """A segment for every file whose opening is good, or has a good copy."""
    shelf = store.shelf
    segments: list[Segment] = []
    until = 0
    for first in firsts:
        path = segment_path(shelf.path, first)
        if first <= until:
            # Merged into its predecessor, and a crash came before it could be removed.
            try_remove(shelf.disk, index_path(path))
            shelf.disk.remove(path)
            continue
        file = shelf.disk.open(path)
        try:
            head, data_at = read_opening(reader_of(file))
        except BadRecord as error:
            if error.reason == "format":
                raise NewerFormat(f"{path}: {error}") from None
            saved = saved_index(shelf.disk, path, None)
            if saved is None:
                shelf.spoilt.append(first)
                store.report.append(f"{path}:0: {error}")
                continue
            head, data_at = saved[1], len(frame_opening(saved[1]))
            store.report.append(f"{path}:0: {error}; the copy in the index is used")
            store.must_roll = True
            # It was whole when the copy was made, and what stood behind the opening is nowhere.
            store.doubtful = store.doubtful or file.size() < data_at
        if (head.first, head.store) != (first, name):
            shelf.spoilt.append(first)
            store.report.append(f"{path}:0: the opening is that of {head.store} {head.first}; not served")
            continue
        segment = Segment(path, first, head, data_at, file.size())
        segment.marked = shelf.disk.exists(thin_path(path))
        if first != firsts[-1]:
            segment.dead_bytes = segment.size - file.used_bytes()
            segment.index_bytes = _size(shelf.disk, segment.index_path)
        segments.append(segment)
        until = head.until
    return segments


def _size(disk: Disk, path: str) -> int:
    try:
        return disk.open(path).size()
    except (OSError, DiskFull, DiskFailed):
        return 0


def _last(store: Recovered, segments: list[Segment], name: str, next_offset: int) -> list[Segment]:
    """Scan the last segment and carry out what is planned for it."""
    shelf = store.shelf
    store.doubtful = store.doubtful or bool(shelf.spoilt)
    if shelf.spoilt and (not segments or shelf.spoilt[-1] > segments[-1].first):
        _remove_unborn(store, segments[-1].first if segments else -1)
    if not segments:
        return segments
    last = segments[-1]
    if last.head.until and not (shelf.spoilt and shelf.spoilt[-1] > last.first):
        # Merged with others, which the newest never is: one came behind what it covers, and nobody took it away.
        shelf.spoilt.append(last.head.until + 1)
        store.doubtful = True
        store.report.append(f"{segment_path(shelf.path, shelf.spoilt[-1])}: not there, and what was in it is lost")
    file = shelf.disk.open(last.path, writable=True)
    last.file = file
    read = reader_of(file)
    saved = saved_index(shelf.disk, last.path, None)
    if saved is not None and (saved[1].first, saved[1].store) != (last.first, name):
        saved = None
    try:
        head = read_opening(read)[0]
        if saved is not None and saved[1] != head:
            saved = None
    except BadRecord:
        assert saved is not None
        head = saved[1]
    store.topics.load(head.topics())
    store.total, store.born, store.sure = head.total, head.born, head.sure
    hints, loaded = (saved[0], saved[2]) if saved is not None else (None, 0)
    found = plan(read, last.data_at, last.size, last.prev, hints, store.topics)
    store.total += found.messages
    shelf.land(tuple(segments), found.last)
    _carry_out(store, last, found, loaded, next_offset)
    return segments


def _remove_unborn(store: Recovered, newest: int) -> None:
    """Files behind segment `newest` without a readable opening: a roll that a crash cut off, unless it was synced."""
    shelf = store.shelf
    while shelf.spoilt and shelf.spoilt[-1] > newest:
        first = shelf.spoilt[-1]
        path = segment_path(shelf.path, first)
        file = shelf.disk.open(path)
        size = file.size()
        if _synced_in(reader_of(file), size, first) >= first:
            store.must_roll = True
            return
        if size:
            _keep_cut(store, path, file.read(0, size))
        store.report.append(f"{path}: a new segment of {size} bytes was never finished, removed")
        try_remove(shelf.disk, index_path(path))
        shelf.disk.remove(path)
        shelf.disk.sync_dir(shelf.path)
        shelf.spoilt.pop()


def _synced_in(read: Read, size: int, first: int) -> int:
    """The highest `synced` that valid records behind an unreadable opening tell of."""
    try:
        start = peek(read(0, PREFIX_BYTES))[1]
    except BadRecord:
        return 0
    steps = [step.record for step in walk(read, start, size, first - 1) if isinstance(step, Found)]
    return max([record.synced for record in steps if isinstance(record, Batch | CleanStop)], default=0)


def _carry_out(store: Recovered, last: Segment, found: Plan, loaded: int, next_offset: int) -> None:
    """Cut what is torn, count what is lost, sync what is kept."""
    shelf = store.shelf
    disk, file = shelf.disk, last.file
    assert file is not None
    last.index = found.index
    found_size = last.size
    for flaw in found.flaws:
        store.report.append(_line(last.path, flaw, found, last.size))
    if found.keep_bytes < last.size:
        store.doubtful = True
        _keep_cut(store, last.path, readable(file, found.keep_bytes, last.size - found.keep_bytes))
        if not found.pages_fit:
            disk.remove(last.index_path)
            disk.sync_dir(shelf.path)
        file.truncate(found.keep_bytes)
        last.size = found.keep_bytes
        shelf.land(shelf.segments, shelf.last)
    if found.verdict is Verdict.CORRUPT or shelf.spoilt:
        store.must_roll = True
        for lo, hi in found.lost:
            _count_lost(store, found.index, lo, hi)
        if not found.complete:
            store.doubtful = True
            store.sure = max(store.sure, found.last + 1, next_offset)
    if shelf.spoilt and shelf.spoilt[-1] > last.first:
        # A whole file behind the last good one cannot be read: at least its first offset was there.
        store.sure = max(store.sure, shelf.spoilt[-1] + 1, next_offset)
        shelf.land(shelf.segments, max(shelf.last, shelf.spoilt[-1]))
    if found.stop is None or found.keep_bytes < found_size:
        file.sync()
    store.synced = shelf.last
    if found.pages_fit:
        store.pages = _open_pages(disk, last, loaded)
    elif not found.lost:
        try_remove(disk, last.index_path)


def _open_pages(disk: Disk, last: Segment, loaded: int) -> File | None:
    try:
        pages = disk.open(last.index_path, writable=True)
        if pages.size() > loaded:
            pages.truncate(loaded)
    except (DiskFull, DiskFailed, OSError):
        return None
    return pages


def _count_lost(store: Recovered, index: SegmentIndex, first: int, last: int) -> None:
    if not index.knows(first, last):
        return
    lo, hi = index.number_at(first - 1) + 1, index.number_at(last) + 1
    store.total += store.topics.add_lost(index.counts(any_topic, lo, hi), last)


def _line(path: str, flaw: Flaw, found: Plan, size: int) -> str:
    if flaw.position == found.keep_bytes and found.keep_bytes < size:
        return f"{path}:{flaw.position}: torn, {size - flaw.position} bytes cut off ({flaw.detail})"
    if flaw.kind == "doubled":
        return f"{path}:{flaw.position}: a block that is there twice, passed over ({flaw.detail})"
    to = "?" if flaw.last is None else str(flaw.last)
    return f"{path}:{flaw.position}: corrupt, offsets {flaw.first} to {to} are lost ({flaw.detail})"


def _keep_cut(store: Recovered, path: str, data: bytes) -> None:
    disk = store.shelf.disk
    target = base = path.removesuffix(".log") + ".cut"
    number = 0
    while disk.exists(target):
        number += 1
        target = f"{base}.{number}"
    try:
        disk.write_file(target, data)
        store.report.append(f"{target}: {len(data)} bytes that were cut off are kept here")
    except DiskFull as error:
        store.report.append(f"{len(data)} bytes that were cut off could not be kept: {error}")


def _epoch(store: Recovered, epoch: int, next_offset: int) -> None:
    """A higher epoch says that offsets below `next_offset` may have been shown and lost."""
    shelf = store.shelf
    active = shelf.segments[-1]
    if epoch <= active.head.epoch:
        return
    lost = max(shelf.last + 1, active.first)
    if lost < next_offset:
        shelf.pending = Hole(lost, next_offset - 1, shelf.last, 0, "unsynced", None)
        store.sure = next_offset
        store.must_roll = True
        return
    if active.index is not None and len(active.index) == 0 and not store.must_roll:
        _renew(store, active, epoch)
    else:
        store.must_roll = True


def _renew(store: Recovered, active: Segment, epoch: int) -> None:
    """Give an empty segment an opening of the new epoch, or later losses could not be told from this one."""
    shelf = store.shelf
    assert active.file is not None
    head = replace(read_opening(reader_of(active.file))[0], epoch=epoch)
    opening = frame_opening(head)
    try:
        shelf.disk.remove(active.index_path)
        shelf.disk.write_file(active.path, opening)
        file = shelf.disk.open(active.path, writable=True)
    except (DiskFull, DiskFailed) as error:
        store.report.append(f"{active.path}: epoch {epoch} could not be noted: {error}")
        return
    segment = Segment(active.path, active.first, head, len(opening), len(opening))
    segment.file = file
    _start_index(segment)
    store.pages = None
    shelf.land((*shelf.segments[:-1], segment), shelf.last)
