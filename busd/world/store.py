"""One log on disk: directory, growing segment, states of topics.  Must not know requests, subscriptions, other stores.

Who calls what: `begin`, `landed`, `reset`, `expired`, `trimmed`, `read(may_block=False)` belong to the loop; `write`,
`sync` to who carries out a commit, one call at a time (under `interval` another thread calls `sync`, beside a `write`);
`trim`, `read(may_block=True)` and what looks back in time or counts may run in other threads.  Invariants:
1. Memory (topics, index, sizes) changes in `landed`, `reset` and `trimmed` only; what fails in a thread changes none.
2. A segment is synced before its successor exists, the successor's name before it is written, and then its opening.
3. After a failed sync, or a failed attempt to undo a write, the store never writes and never syncs again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from busd.rules import retention
from busd.rules.record import Batch, CleanStop, frame_clean_stop, frame_hole
from busd.rules.retention import ActiveFacts
from busd.rules.segment_index import MAX_SEGMENT_BYTES, SegmentIndex
from busd.rules.segment_opening import Opening, frame_opening
from busd.rules.topic_state import TopicState, TopicTable
from busd.rules.wanted import Claims
from busd.words.patterns import Wanted
from busd.words.settings import StoreRule
from busd.world import store_lookup, store_reader, store_resets
from busd.world.disk import Disk, DiskFailed, File, try_remove
from busd.world.pages import Pages, Roll
from busd.world.segment import Cache, Segment, Shelf, index_path
from busd.world.store_recovery import NewerFormat, Recovered, recover, segment_path
from busd.world.store_telling import Chunk, Cursor
from busd.world.store_trim import Sweep, Trim, Trimmed, Trimmer, durable

__all__ = ["Chunk", "Cursor", "NewerFormat", "Roll", "Store", "TopicState", "Trim", "Trimmed"]


class Store:
    """One log.

    `topics`: state of every topic ever seen; `first`: lowest offset still kept, or the next one; `last`: highest offset
    that landed, 0 for none; `bytes`: what its files take on the disk, logs without what was given back in the middle of
    them, and indexes; `synced`: highest offset known to be synced; `unsynced_bytes`: written since a sync began;
    `report`: what recovery found, a line each; `doubtful`: offsets above `last` may have been given out before
    (something was cut off); `blind`: it may have lost messages of unknown topics; `failed`: why nothing can be written.
    """

    def __init__(self, disk: Disk, path: str, name: str, rule: StoreRule, epoch: int, found: Recovered) -> None:
        self.name = name
        self.rule = rule
        self._plain_bytes = retention.plain_bytes(rule)
        self.topics: TopicTable = found.topics
        self.total = found.total
        self.synced = found.synced
        self.report = found.report
        self.doubtful = found.doubtful
        self.failed = ""
        self._disk = disk
        self._path = path
        self._epoch = epoch
        self._shelf: Shelf = found.shelf
        self._born, self._sure = found.born, found.sure
        self.blind = found.sure > found.born
        self._must_roll = found.must_roll
        self._shelf.floor_of = self.topics.floor_of
        self._index.pairs.renumber(self.topics.numbers)
        self._pages = Pages(disk, found.pages)
        if found.pages is None and self._active.size == self._active.data_at and self._active.file is not None:
            self._pages.begin(self._active, self._active.file.read(0, self._active.size))
        self._active.index_bytes = self._pages.bytes
        self.bytes = self._shelf.used_bytes
        self._writing, self._written = self._active, self._active.size
        self.unsynced_bytes = 0
        self._trimmer = Trimmer(self._shelf, rule)
        self._trimmer.count_live(self.topics)

    @classmethod
    def open(
        cls,
        disk: Disk,
        path: str,
        name: str,
        rule: StoreRule,
        *,
        epoch: int,
        next_offset: int,
        now_ns: int,
        cache: Cache | None = None,
    ) -> Store:
        """Open or make the store in directory `path`; waits for the disk.

        `next_offset`: the lowest offset that may come next.  `epoch`: when it is higher than at the last segment's
        start, messages below `next_offset` may have been shown and lost: readers get a hole `unsynced` for them.
        `cache`: what sealed segments share; stores may have one in common.

        Raises:
            NewerFormat: a newer version wrote it.
            DiskFull, DiskFailed, OSError: it cannot be read or made.
        """
        found = recover(disk, path, name, epoch=epoch, next_offset=next_offset, now_ns=now_ns, cache=cache or Cache())
        return cls(disk, path, name, rule, epoch, found)

    @property
    def _active(self) -> Segment:
        return self._shelf.segments[-1]

    @property
    def _index(self) -> SegmentIndex:
        index = self._active.index
        assert index is not None
        return index

    @property
    def first(self) -> int:
        """Lowest offset still kept, or the lowest that may come."""
        return self._trimmer.first

    @property
    def newest_ns(self) -> int:
        """The newest time of receipt in it, or a later one at which its last segment began."""
        return max(self._active.head.time_ns, self._index.times[-1] if len(self._index) else 0)

    @property
    def last(self) -> int:
        """Highest offset that landed, 0 for none; after a loss the highest that may have."""
        loss = self._shelf.pending
        return self._shelf.tip[2] if loss is None else loss.last

    @property
    def begins(self) -> int:
        """The offset that the growing segment is named by: nothing below it comes to this store any more."""
        return self._active.first

    @property
    def segments(self) -> int:
        """Number of segments."""
        return len(self._shelf.segments)

    def pinned_bytes(self, wanted: Wanted, position: int) -> int:
        """What segments take that reach up to `position` or beyond and may hold such topics."""
        return self._trimmer.pinned_bytes(wanted, position)

    def _facts(self) -> ActiveFacts:
        index, sealed = self._index, self._active.head.total
        # The first entry may be a recorded loss, which has no time.
        oldest = next((time_ns for time_ns in index.times[:2] if time_ns), 0)
        newest = index.times[-1] if len(index) else 0
        return ActiveFacts(self._active.size, self.total - sealed, oldest, newest)

    # Before a commit, on the loop.

    def begin(self, size_bytes: int, first: int, epoch: int, now_ns: int) -> Roll | None:
        """Whether a new segment must be begun before `size_bytes` more, whose lowest offset is `first`.

        None: no.  Otherwise give the answer to `write` and to `landed`, also when there is nothing to write.
        """
        if not self._must_roll and (
            self._shelf.tip[0][-1].size + size_bytes <= self._plain_bytes
            or not retention.must_roll(self.rule, self._facts(), size_bytes, now_ns)
        ):
            return None
        loss, prev = self._shelf.pending, self._shelf.last
        if loss is not None:
            first, prev = loss.first, loss.prev
        name = max(first, self._active.first + 1)
        head = Opening(self.name, epoch, name, prev, 0, self._born, self._sure, self.total, now_ns)
        return Roll(head, loss)

    # In the commit thread.

    def write(self, roll: Roll | None, records: Sequence[bytes]) -> None:
        """Append the records, to a new segment if `roll` says so; not synced.

        Raises:
            DiskFull, DiskFailed: the file is cut back to what it was, nothing else has changed.
        """
        self._check()
        if roll is not None:
            self._roll(roll, records)
            return
        active = self._shelf.tip[0][-1]
        assert active.file is not None
        if (index := active.index) is not None and index.page_due():
            self._pages.save(active, index)
            active.index_bytes = self._pages.bytes
        try:
            active.file.append(records)
        except Exception:
            self._cut_back(active.file, self._written)
            raise
        self._written += sum(map(len, records))

    def _check(self) -> None:
        if self.failed:
            raise DiskFailed(self.failed)

    def _fail(self, error: Exception) -> None:
        self.failed = self.failed or str(error)

    def _cut_back(self, file: File, size_bytes: int) -> None:
        try:
            file.truncate(size_bytes)
        except Exception as error:
            self._fail(error)

    def _roll(self, roll: Roll, records: Sequence[bytes]) -> None:
        self._sync_file(self._active)
        self._pages.save(self._active, self._index)
        self._active.index_bytes = self._pages.bytes
        head = replace(roll.head, lines=self.topics.lines())
        opening = frame_opening(head)
        loss = [frame_hole(roll.loss)] if roll.loss is not None else []
        path = segment_path(self._path, head.first)
        file = self._disk.create(path)
        try:
            self._surely(lambda: self._disk.sync_dir(self._path))
            file.append([opening, *loss, *records])
            segment = Segment(path, head.first, head, len(opening), len(opening) + sum(map(len, loss)))
            segment.file = file
            self._sync_file(segment)  # Once older segments go, the states of all topics stand nowhere else.
        except Exception:
            self._remove(path)
            raise
        roll.segment, roll.pages = segment, Pages(self._disk, None)
        roll.pages.begin(segment, opening)
        segment.index_bytes = roll.pages.bytes
        self._writing, self._written = segment, segment.size + sum(map(len, records))

    def _remove(self, path: str) -> None:
        """Take back a new segment: were it left, the old one could not go on."""
        try:
            try_remove(self._disk, index_path(path))
            self._disk.remove(path)
            self._disk.sync_dir(self._path)
        except Exception as error:
            self._fail(error)

    def sync(self) -> None:
        """Wait until all that was written is durable.

        Raises:
            DiskFailed: it may not be, and nobody can tell any more; the store writes nothing from now on.
        """
        self._check()
        self._sync_file(self._writing)

    def _sync_file(self, segment: Segment) -> None:
        assert segment.file is not None
        self.unsynced_bytes = 0
        self._surely(segment.file.sync)

    def _surely(self, sync: Callable[[], None]) -> None:
        try:
            sync()
        except Exception as error:
            # Also a full disk: nobody can tell any more which of the written pages were dropped.
            self._fail(error)
            raise DiskFailed(str(error)) from error

    def undo(self) -> None:
        """Take back what was written and has not landed, as far as the disk lets us: after a sync that failed."""
        if self._writing is not self._active:
            self._remove(self._writing.path)
            self._writing = self._active
        elif self._active.file is not None:
            self._cut_back(self._active.file, self._active.size)
        self._written = self._active.size

    # After it, on the loop.

    def landed(self, batches: Sequence[Batch], roll: Roll | None, synced_to: int | None) -> None:
        """Take in what `write` has written (and `sync` synced, if so): show it to readers.

        `synced_to`: the highest offset known to be synced now, None when that has not changed.
        """
        shelf = self._shelf
        segments, _, last = shelf.tip
        if roll is not None:
            segments, last = self._take_roll(roll)
        active = segments[-1]
        index = active.index
        assert index is not None
        position, messages, topics = active.size, index.messages, self.topics
        ours = index.pairs.numbers is topics.numbers
        for batch in batches:
            pairs = topics.note(batch)
            index.add(position, len(batch.record), batch, pairs if ours else None)
            position += len(batch.record)
            last = batch.last
        self.total += index.messages - messages
        if synced_to is not None:
            self.synced = max(self.synced, synced_to)
            index.synced = max(index.synced, synced_to)
        self.bytes += position - active.size
        self.unsynced_bytes += position - active.size
        active.size = position
        shelf.land(segments, last)
        if roll is not None:
            shelf.pending = None

    def _take_roll(self, roll: Roll) -> tuple[tuple[Segment, ...], int]:
        segment, shelf = roll.segment, self._shelf
        assert segment is not None
        index = segment.index = SegmentIndex(segment.data_at, segment.prev, self.topics.numbers)
        last = shelf.last
        if roll.loss is not None:
            index.add(segment.data_at, segment.size - segment.data_at, roll.loss)
            last = roll.loss.last
        self.bytes += segment.used_bytes
        self._pages = roll.pages or Pages(self._disk, None)
        self._must_roll = False
        self.synced = max(self.synced, shelf.last)
        shelf.cache.keep(self._active)
        return (*shelf.segments, segment), last

    # Reading.

    def read(self, cursor: Cursor, wanted: Wanted, horizon: int, budget_bytes: int, may_block: bool) -> Chunk | None:
        """See store_reader.read."""
        return store_reader.read(self._shelf, cursor, wanted, horizon, budget_bytes, may_block)

    def offset_at(self, time_ns: int) -> int:
        """First offset whose batch time is `time_ns` or later; `last` + 1 when there is none.  May wait."""
        return store_lookup.offset_at(self._shelf, time_ns)

    def nth_last(self, topic: bytes, n: int, below: int, memo: store_lookup.Memo | None = None) -> int:
        """Offset of the n-th last message of a topic below `below` and above its RESET floor.  May wait.

        The oldest one that is kept when there are fewer, `below` when there is none.  `memo`: of questions before it.
        """
        state = self.topics.get(topic)
        return below if state is None else store_lookup.nth_last(self._shelf, topic, state, n, below, memo)

    def newest(self, topic: bytes, below: int, memo: store_lookup.Memo) -> Iterator[Sequence[int]]:
        """What `nth_last` counts of a topic that is there: the offsets in each batch, newest batch first.  May wait."""
        return store_lookup.newest(self._shelf, topic, self.topics[topic], below, memo)

    def count(self, wanted: Wanted, lo: int, hi: int) -> int | None:
        """Messages of wanted topics with lo <= offset < hi that can be read (RESET or not); None: nobody knows.

        May wait.
        """
        return store_lookup.count(self._shelf, wanted, lo, hi)

    # Retention.

    def reset(self, floors: Mapping[bytes, int]) -> None:
        """Topics were RESET at these offsets, in whatever store.  May wait for the disk, but only at a start."""
        store_resets.note(self._shelf, self.topics, floors)

    def expired(self, now_ns: int, claims: Claims | None = None, asked: bool = False) -> list[Trim]:
        """What has to go by the rule, and a look at what may: for `trim` in a thread; its answer is for `trimmed`.

        `claims`: what groups have not settled; `asked`: somebody waits for room.
        """
        if retention.is_old(self.rule, self._facts(), now_ns):
            self._must_roll = True
        cap, used = self.rule.max_bytes, self.bytes
        room = cap - used if cap else MAX_SEGMENT_BYTES
        sweep = Sweep(claims, now_ns, room, self.topics.reset, bool(cap and asked and 2 * used > cap))
        trims = self._trimmer.expired(self._facts(), self.topics, now_ns)
        # What has failed once is not written to, not even to give space back.
        return trims if self.failed else [*trims, Trim(sweep=sweep)]

    def trim(self, trims: Sequence[Trim], secure: Callable[[], None] = durable) -> Trimmed:
        """Delete, punch and rewrite files.  Errors are in the answer; readers of what is left are not disturbed."""
        return self._trimmer.trim(trims, secure)

    def trimmed(self, result: Trimmed) -> None:
        """Take in what `trim` did."""
        self._trimmer.trimmed(result, self.topics)
        self.bytes = self._shelf.used_bytes
        self._must_roll = self._must_roll or bool(result.roll and len(self._index))

    def close(self, next_offset: int, now_ns: int) -> None:
        """A clean stop: every offset below `next_offset` is decided.  Writes the mark and the index, syncs, closes.

        Raises:
            DiskFull, DiskFailed: the files are closed; the next start scans as after a crash.
        """
        try:
            if not self.failed:
                self._stop(next_offset, now_ns)
        finally:
            self._pages = Pages(self._disk, None)
            for segment in self._shelf.segments:
                segment.file = None

    def _stop(self, next_offset: int, now_ns: int) -> None:
        if self._must_roll and self._shelf.pending is not None:
            roll = self.begin(0, next_offset, self._epoch, now_ns)
            self.write(roll, [])
            self.landed([], roll, None)
        self._pages.save(self._active, self._index)
        if self.synced < self.last:
            # The mark says that it is durable: found without what it speaks of, it would be damage.
            self.sync()
        self.write(None, [frame_clean_stop(CleanStop(next_offset, self.last, now_ns))])
        self.sync()
