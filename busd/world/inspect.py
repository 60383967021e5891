"""Looking at a data directory while no server has it: is every byte as it was written, and what messages lie there.

Reads only; the caller holds the lock.  The same walk as recovery, over every segment.  It must not know how anything is
shown.  Invariants:
1. Nothing is changed, created or repaired.
2. A damaged spot is named once, as file:position, and the walk goes on behind it where that is safe.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from busd.rules.envelope import BadRecord
from busd.rules.group_records import read_groups
from busd.rules.record import Batch, CleanStop, Hole
from busd.rules.recovery import Verdict, plan
from busd.rules.scan import Flaw, walk
from busd.rules.segment_opening import Opening
from busd.rules.topic_state import TopicTable
from busd.words.patterns import Wanted, any_topic
from busd.world.disk import Disk
from busd.world.meta import WrongFormat, load_meta
from busd.world.punch import patched
from busd.world.salvage import readable
from busd.world.segment import read_opening, reader_of, saved_index
from busd.world.store_recovery import OURS
from busd.world.stores import is_bare, is_store

_SEGMENT = re.compile(r"([0-9]{20})\.log")

# (offset, time_ns, topic, payload, headers)
Message = tuple[int, int, bytes, bytes, tuple[tuple[bytes, bytes], ...]]


@dataclass(slots=True, frozen=True)
class Finding:
    """One thing that was found.  `store` is empty for what is of no store.

    `kind`: segment (how much is in it) · hole (what retention or an earlier loss has recorded) · torn (the end of the
    newest segment, or of groups.log, which the next start cuts off) · leftover (of an interrupted merge or punch) ·
    corrupt · foreign (not a file of busd).
    """

    kind: str
    store: str
    path: str
    position: int
    text: str
    records: int = 0
    messages: int = 0
    bytes: int = 0

    @property
    def bad(self) -> bool:
        """True for damage; a torn end is what any crash may leave, and no promise covers it."""
        return self.kind == "corrupt"

    def __str__(self) -> str:
        """`file:position: kind: text`."""
        return f"{self.path}:{self.position}: {self.kind}: {self.text}"


@dataclass(slots=True)
class _Segment:
    """A segment under inspection: what it holds, and how its predecessor and its successor see it."""

    path: str
    first: int
    newest: bool
    records: int = 0
    messages: int = 0
    last: int = 0
    until: int = 0


def stores(disk: Disk, data_dir: str) -> list[str]:
    """Names of all stores."""
    logs = f"{data_dir}/logs"
    names = disk.listdir(logs) if disk.exists(logs) else []
    return [name for name in names if is_store(disk, f"{logs}/{name}")]


def verify(disk: Disk, data_dir: str) -> Iterator[Finding]:
    """Check every record of every store, and those of the groups.

    Raises:
        OSError, DiskFailed: a directory or file cannot be opened at all.
    """
    known = stores(disk, data_dir)
    for name in disk.listdir(f"{data_dir}/logs"):
        if name not in known and not is_bare(disk, f"{data_dir}/logs/{name}"):
            yield Finding("foreign", "", f"{data_dir}/logs/{name}", 0, "not a store of busd")
    for store in known:
        path = f"{data_dir}/logs/{store}"
        names = disk.listdir(path)
        for name in names:
            if not OURS.fullmatch(name):
                yield Finding("foreign", store, f"{path}/{name}", 0, "not a file of busd")
            if name.endswith(".punch"):
                yield Finding(
                    "leftover", store, f"{path}/{name}", 0, "space was being given back; the next start goes on with it"
                )
        last, until = -1, 0
        for segment in _segments(path, names):
            if segment.first <= until:
                yield Finding(
                    "leftover", store, segment.path, 0, "merged into the segment before it; the next start removes it"
                )
                continue
            yield from _check(disk, store, segment, last)
            last, until = max(last, segment.last), segment.until
    yield from _check_groups(disk, f"{data_dir}/groups.log")
    try:
        load_meta(disk, f"{data_dir}/meta")
    except WrongFormat as error:
        yield Finding("corrupt", "", f"{data_dir}/meta", 0, str(error).removeprefix(f"{data_dir}/meta: "))


def _check_groups(disk: Disk, path: str) -> Iterator[Finding]:
    """Findings of groups.log; none when it is sound, or not there."""
    if not disk.exists(path):
        return
    file = disk.open(path)
    data = readable(file, 0, file.size())
    found = read_groups(data)
    for flaw in found.flaws:
        text = f"{flaw.detail}; what groups had out then comes back to them"
        yield Finding("corrupt", "", path, flaw.position, text, bytes=flaw.size)
    if found.good_bytes < len(data):
        size = len(data) - found.good_bytes
        yield Finding("torn", "", path, found.good_bytes, f"{size} bytes are no whole record", bytes=size)


def _segments(path: str, names: list[str]) -> Iterator[_Segment]:
    logs = [match for name in names if (match := _SEGMENT.fullmatch(name))]
    for match in logs:
        yield _Segment(f"{path}/{match[0]}", int(match[1]), match is logs[-1])


def _check(disk: Disk, store: str, segment: _Segment, before: int) -> Iterator[Finding]:
    """Findings of one segment; `before`: last offset of the one before, -1 when this is the first."""
    file = disk.open(segment.path)
    read, size = patched(disk, segment.path, reader_of(file)), file.size()
    opening = _opening(disk, segment, size)
    if isinstance(opening, str):
        kind = "torn" if segment.newest and size == 0 else "corrupt"
        yield Finding(kind, store, segment.path, 0, opening, bytes=size)
        return
    head, start, spoilt = opening
    if spoilt:
        yield Finding("corrupt", store, segment.path, 0, f"{spoilt}; the index has a copy of the opening")
    if before >= 0 and head.prev > before:
        text = f"offsets {before + 1} to {head.prev} should come before it and are not there"
        yield Finding("corrupt", store, segment.path, 0, text)
    segment.last = head.prev
    saved = saved_index(disk, segment.path, head)
    torn_at = _torn_at(disk, segment, read, start, size, head)
    for step in walk(read, start, size, head.prev, saved[0] if saved is not None else None):
        if isinstance(step, Flaw):
            kind = "torn" if step.position == torn_at else "corrupt"
            yield Finding(kind, store, segment.path, step.position, _text(step))
            segment.last = max(segment.last, step.last or 0)
            if kind == "torn":
                break
            continue
        segment.records += 1
        record = step.record
        if isinstance(record, Batch):
            segment.messages += 0 if record.control else record.n
            segment.last = record.last
        elif isinstance(record, Hole):
            segment.last = record.last
            yield Finding("hole", store, segment.path, step.position, _hole_text(record))
    known = saved[0] if saved is not None else None
    if known is not None and known.last > segment.last and known.synced > segment.last:
        text = f"offsets {segment.last + 1} to {known.last} were synced and are not there"
        yield Finding("corrupt", store, segment.path, size, text)
        segment.last = known.last
    text = f"{segment.records} records, {segment.messages} messages, {size} bytes"
    yield Finding("segment", store, segment.path, 0, text, segment.records, segment.messages, size)


def _opening(disk: Disk, segment: _Segment, size: int) -> tuple[Opening, int, str] | str:
    """The opening, where the records begin, and what is wrong with the opening itself; or why there is none."""
    try:
        head, start = read_opening(reader_of(disk.open(segment.path)))
        spoilt = ""
    except BadRecord as error:
        saved = saved_index(disk, segment.path, None) if error.reason != "format" else None
        if saved is None:
            return "the file is empty" if size == 0 else str(error)
        start, head, spoilt = saved[0].start, saved[1], str(error)
    if head.first != segment.first:
        return f"it is the segment that begins at {head.first}"
    segment.until = head.until
    return head, start, spoilt


def _torn_at(
    disk: Disk, segment: _Segment, read: Callable[[int, int], bytes], start: int, size: int, head: Opening
) -> int:
    """Where the next start would cut the newest segment; -1 when it would not."""
    if not segment.newest:
        return -1
    saved = saved_index(disk, segment.path, head)
    found = plan(read, start, size, head.prev, saved[0] if saved is not None else None, TopicTable())
    return found.keep_bytes if found.verdict is not Verdict.CLEAN and found.keep_bytes < size else -1


def _text(flaw: Flaw) -> str:
    if flaw.kind == "doubled":
        return f"a block that is there twice ({flaw.detail})"
    to = "an unknown offset" if flaw.last is None else str(flaw.last)
    lost = "nothing is lost" if flaw.last is not None and flaw.last < flaw.first else f"lost: {flaw.first} to {to}"
    detail = f"missing: {flaw.detail}" if flaw.kind == "missing" else flaw.detail
    return f"{detail}; {lost}"


def _hole_text(hole: Hole) -> str:
    count = "?" if hole.counts is None else str(sum(hole.counts.values()))
    return f"{hole.reason}, {count} messages from {hole.first} to {hole.last}"


def messages(
    disk: Disk,
    data_dir: str,
    *,
    start: int = 1,
    wanted: Wanted = any_topic,
    warn: Callable[[Finding], None] = lambda finding: None,
) -> Iterator[Message]:
    """Messages of all stores in offset order from offset `start` on, as they lie: RESET or not, no control records.

    What is damaged is passed over; `warn` gets every Finding of it.

    Raises:
        OSError, DiskFailed: a directory or file cannot be opened at all.
    """
    logs = [_of_store(disk, data_dir, store, start, wanted, warn) for store in stores(disk, data_dir)]
    # Offsets are unique over all stores, so nothing else is ever compared.
    return heapq.merge(*logs)


def _of_store(
    disk: Disk, data_dir: str, store: str, start: int, wanted: Wanted, warn: Callable[[Finding], None]
) -> Iterator[Message]:
    path = f"{data_dir}/logs/{store}"
    segments = list(_segments(path, disk.listdir(path)))
    last, until = -1, 0
    for number, segment in enumerate(segments):
        if segment.first <= until or (number + 1 < len(segments) and segments[number + 1].first <= start):
            continue
        for batch in _batches(disk, store, segment, last, warn):
            if batch.last >= start and any(map(wanted, batch.topics)):
                yield from _messages(batch, start, wanted)
        last, until = max(last, segment.last), segment.until


def _batches(
    disk: Disk, store: str, segment: _Segment, before: int, warn: Callable[[Finding], None]
) -> Iterator[Batch]:
    file = disk.open(segment.path)
    size = file.size()
    opening = _opening(disk, segment, size)
    if isinstance(opening, str):
        warn(Finding("corrupt", store, segment.path, 0, opening, bytes=size))
        return
    head, at, _ = opening
    if before >= 0 and head.prev > before:
        warn(Finding("corrupt", store, segment.path, 0, f"offsets {before + 1} to {head.prev} are not there"))
    segment.last = head.prev
    read = patched(disk, segment.path, reader_of(file))
    torn_at = _torn_at(disk, segment, read, at, size, head)
    saved = saved_index(disk, segment.path, head)
    for step in walk(read, at, size, head.prev, saved[0] if saved is not None else None):
        if isinstance(step, Flaw):
            kind = "torn" if step.position == torn_at else "corrupt"
            warn(Finding(kind, store, segment.path, step.position, _text(step)))
            segment.last = max(segment.last, step.last or 0)
            if kind == "torn":
                return
        elif isinstance(step.record, CleanStop):
            continue
        elif isinstance(step.record, Batch | Hole):
            segment.last = step.record.last
            if isinstance(step.record, Batch) and not step.record.control:
                yield step.record


def _messages(batch: Batch, start: int, wanted: Wanted) -> Iterator[Message]:
    for number, (offset, item) in enumerate(zip(batch.offsets(), batch.items(), strict=True)):
        topic = batch.topic_of(number)
        if offset >= start and wanted(topic):
            payload, pairs = (item, ()) if isinstance(item, bytes) else (item[0], _pairs(item))
            yield offset, batch.time_ns, topic, payload, pairs


def _pairs(item: list[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(zip(item[1::2], item[2::2], strict=True))
