"""Mending a data directory while no server has it: what can be read stays, what cannot is recorded as lost.

A damaged segment is written anew: its readable records, and `+H … corrupt` for the rest, with the counts a reader would
have been told.  So every reader is told after it what it was told before, and `verify` finds nothing any more.
The caller holds the lock.  It must not know how anything is shown.  Invariants:
1. A file is changed or taken away only when a copy of it lies in `repaired/<n>`, durable.  What every start does first
   is done here, too, and needs none: a punch that was under way is finished in its place, a torn end is cut off and
   kept as `.cut`.
2. A segment is replaced at once and durably: after a crash at any point a second repair goes on.
3. No message that can be read is lost, none is made up, and no offset that may have been given is free again.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import replace

from busd.rules.envelope import BadRecord
from busd.rules.record import Batch, Hole
from busd.rules.rewrite import rewrite
from busd.rules.segment_opening import Opening, frame_opening
from busd.words.patterns import any_topic
from busd.words.settings import StoreRule
from busd.world.disk import Disk, DiskFailed, DiskFull, try_remove
from busd.world.group_log import GroupLog
from busd.world.inspect import Finding, stores, verify
from busd.world.meta import FLOOR_STEP, Meta, WrongFormat, load_meta, save_meta
from busd.world.salvage import readable
from busd.world.segment import Cache, Shelf, index_path, read_opening, reader_of, saved_index, thin_path
from busd.world.store import NewerFormat, Store
from busd.world.store_reader import read
from busd.world.store_recovery import create, recover
from busd.world.store_telling import Cursor

_PIECE_BYTES = 1 << 20


def repair(disk: Disk, data_dir: str, now_ns: int) -> Iterator[str]:
    """Mend what `verify` calls damage; a line for each thing done.

    Raises:
        WrongFormat, NewerFormat: a newer busd wrote it; nothing was changed.
        DiskFull, DiskFailed, OSError: what was done is done, and safe; the rest is as it was.
    """
    meta_path = f"{data_dir}/meta"
    try:
        meta = load_meta(disk, meta_path)
        meta_why = ""
    except WrongFormat as error:
        if error.newer:
            raise
        meta, meta_why = None, str(error)
    if not meta_why and not any(finding.bad for finding in verify(disk, data_dir)):
        return
    keeper = _Keeper(disk, data_dir)
    floor = meta.floor if meta is not None else 0
    epoch, last, doubtful = meta.epoch if meta is not None else 1, 0, False
    for name in stores(disk, data_dir):
        work = _StoreRepair(disk, data_dir, name, keeper, now_ns)
        yield from work.openings()
        epoch = max(epoch, work.epoch)
        yield from work.segments(epoch, floor)
        last = max(last, work.last)
        doubtful = doubtful or work.doubtful
    if meta is not None and doubtful and meta.since < floor:
        # What was cut off may have been given out, and the next start finds nothing that says so.
        save_meta(disk, meta_path, replace(meta, since=floor))
    if meta_why:
        keeper.keep(meta_path)
        # Whether a power cut lies behind, it alone could have told: readers hear of that, and offsets go on far above.
        renewed = Meta(epoch + 1, "", max(floor, last + FLOOR_STEP), "always", clean=True)
        save_meta(disk, meta_path, renewed)
        yield f"{meta_why}; written anew: epoch {renewed.epoch}, offsets go on at {renewed.floor}"
    yield from GroupLog(disk, data_dir).report
    if keeper.kept:
        yield f"{keeper.path}: {keeper.kept} files are kept here as they were"


class _Keeper:
    """Copies of what is changed."""

    def __init__(self, disk: Disk, data_dir: str) -> None:
        number = 1
        while disk.exists(f"{data_dir}/repaired/{number}"):
            number += 1
        self.path = f"{data_dir}/repaired/{number}"
        self.kept = 0
        self._disk = disk

    def keep(self, path: str) -> None:
        """Copy a file, durably; what the disk cannot read of it is zeros."""
        disk = self._disk
        target = f"{self.path}/{posixpath.basename(posixpath.dirname(path))}-{posixpath.basename(path)}"
        if disk.exists(target):
            return
        disk.makedirs(self.path)
        source, copy = disk.open(path), disk.create(target + ".tmp")
        for at in range(0, source.size(), _PIECE_BYTES):
            copy.append([readable(source, at, min(_PIECE_BYTES, source.size() - at))])
        copy.sync()
        copy.close()
        disk.rename(target + ".tmp", target)
        disk.sync_dir(self.path)
        self.kept += 1


class _StoreRepair:
    """One store.  `epoch`: the highest of its segments; `last`: the highest offset that may have been given out;
    `doubtful`: so may others."""

    def __init__(self, disk: Disk, data_dir: str, name: str, keeper: _Keeper, now_ns: int) -> None:
        self.epoch = 1
        self.last = 0
        self.doubtful = False
        self._disk = disk
        self._data_dir = data_dir
        self._name = name
        self._path = f"{data_dir}/logs/{name}"
        self._keeper = keeper
        self._now_ns = now_ns
        # Up to where offsets may have been in files that cannot be read at all.
        self._gone = 0

    def _logs(self) -> list[str]:
        return [f"{self._path}/{name}" for name in self._disk.listdir(self._path) if name.endswith(".log")]

    def openings(self) -> Iterator[str]:
        """Openings that cannot be read get their copy back; files without one are taken away."""
        for path in self._logs():
            first = int(posixpath.basename(path)[:-4])
            file = self._disk.open(path)
            try:
                head: Opening | None = read_opening(reader_of(file))[0]
            except BadRecord as error:
                if error.reason == "format":
                    raise NewerFormat(f"{path}: {error}") from None
                head = None
                saved = saved_index(self._disk, path, None)
                if saved is not None and (saved[1].first, saved[1].store) == (first, self._name):
                    yield from self._patch(path, saved[1])
                    head = saved[1]
            if head is None or (head.first, head.store) != (first, self._name):
                yield from self._take_away(path, first, file.size())
            else:
                self.epoch = max(self.epoch, head.epoch)

    def _patch(self, path: str, head: Opening) -> Iterator[str]:
        self._keeper.keep(path)
        opening = frame_opening(head)
        file = self._disk.open(path, patch=True)
        if file.size() < len(opening):
            # Nothing stands behind it: the whole file is the opening.
            self._disk.write_file(path, opening)
        else:
            file.overwrite(0, opening)
            file.sync()
        yield f"{path}:0: the opening is written anew, from the copy in the index"

    def _take_away(self, path: str, first: int, size_bytes: int) -> Iterator[str]:
        if size_bytes:
            self._keeper.keep(path)
        # A message takes more than a byte.
        self._gone = max(self._gone, first + size_bytes)
        for one in (index_path(path), thin_path(path), path):
            self._disk.remove(one)
        self._disk.sync_dir(self._path)
        yield f"{path}: nothing tells what is in it; {size_bytes} bytes are taken out of the log"

    def segments(self, epoch: int, floor: int) -> Iterator[str]:
        """Close what is damaged, then write damaged segments anew."""
        disk, path = self._disk, self._path
        beyond = max(floor, self._gone + FLOOR_STEP) if self._gone else 0
        if not self._logs():
            # Only files that nothing is known of: the log begins anew behind them.
            next_offset = max(beyond, floor, 1)
            head = Opening(
                self._name, epoch, next_offset, next_offset - 1, 0, next_offset, next_offset, 0, self._now_ns
            )
            create(disk, path, head)
            self.last = next_offset
            return
        newest = int(posixpath.basename(self._logs()[-1])[:-4])
        found = recover(disk, path, self._name, epoch=epoch, next_offset=1, now_ns=self._now_ns, cache=Cache())
        yield from found.report
        self.doubtful = found.doubtful
        last = found.shelf.last
        lost_tail = self._gone > newest and beyond > last + 1
        if lost_tail:
            found.shelf.pending = Hole(max(last + 1, newest), beyond - 1, last, 0, "corrupt", None)
            found.sure = beyond
            found.must_roll = True
        store = Store(disk, path, self._name, StoreRule(name=self._name), epoch, found)
        if found.must_roll or any(one.bad for one in verify(disk, self._data_dir) if one.store == self._name):
            roll = store.begin(1 << 40, store.last + 1, epoch, self._now_ns)
            store.write(roll, [])
            store.landed([], roll, None)
        self.last = store.last
        yield from self._write_anew(epoch)

    def _write_anew(self, epoch: int) -> Iterator[str]:
        bad = [one for one in verify(self._disk, self._data_dir) if one.bad and one.store == self._name]
        if not bad:
            return
        found = recover(
            self._disk, self._path, self._name, epoch=epoch, next_offset=1, now_ns=self._now_ns, cache=Cache()
        )
        shelf = found.shelf
        for number, segment in enumerate(shelf.segments[:-1]):
            after = shelf.segments[number + 1]
            reasons = [one for one in bad if one.path == segment.path or (one.path == after.path and _before(one))]
            if reasons:
                self._replace(shelf, number)
                yield from (f"{one.path}:{one.position}: recorded as lost: {one.text}" for one in reasons)

    def _replace(self, shelf: Shelf, number: int) -> None:
        disk, segment = self._disk, shelf.segments[number]
        self._keeper.keep(segment.path)
        file = shelf.file(segment, True)
        assert file is not None
        lines = read_opening(reader_of(file))[0].lines
        # Until it is replaced, its index leads on behind the damage; then it must not be taken for the new one's, which
        # it is not by this nanosecond.
        time_ns, until = segment.head.time_ns + 1, shelf.segments[number + 1].first - 1
        head = replace(segment.head, until=until, time_ns=time_ns, lines=lines)
        temporary = segment.path + ".tmp"
        disk.remove(temporary)
        new = disk.create(temporary)
        try:
            new.append([frame_opening(head)])
            for record in rewrite(_told(shelf, number), lambda batch: True, segment.prev, "corrupt"):
                new.append([record])
            new.sync()
            disk.rename(temporary, segment.path)
        except (DiskFull, DiskFailed):
            try_remove(disk, temporary)
            raise
        disk.sync_dir(self._path)
        try_remove(disk, segment.index_path)


def _before(finding: Finding) -> bool:
    """True when what is wrong is that the segment before it ends too early."""
    return finding.position == 0 and "should come before it" in finding.text


def _told(shelf: Shelf, number: int) -> Iterator[Batch | Hole]:
    """What a reader of everything is told of one segment, up to where the next one begins."""
    segment, last = shelf.segments[number], shelf.segments[number + 1].prev
    cursor = Cursor(segment.prev + 1)
    done = segment.prev
    while True:
        chunk = read(shelf, cursor, any_topic, last + 1, _PIECE_BYTES, True)
        assert chunk is not None
        for record in chunk.records:
            yield record
            done = record.last
        if chunk.done:
            break
    if done < last:
        # Known to hold nothing; but the next segment says that something of the log was there.
        yield Hole(done + 1, last, 0, 0, "corrupt", {})
