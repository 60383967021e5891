"""A store on a memory disk and what tests do with it: commit, read everything, reopen, look at the damage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from busd.rules import column as columns
from busd.rules.excerpt import Excerpt
from busd.rules.items import Item
from busd.rules.record import Batch, Hole, frame
from busd.words.settings import StoreRule
from busd.world.disk import Disk
from busd.world.segment import Cache
from busd.world.store import Cursor, Roll, Store
from tests.support.memory_disk import MemoryDisk

PATH = "/data/logs/main"
Message = tuple[int, bytes, Item]


def every(topic: bytes) -> bool:
    """Wants every topic."""
    return True


def only(*topics: bytes) -> Callable[[bytes], bool]:
    """Wants these topics."""
    return lambda topic: topic in topics


def open_store(
    disk: Disk,
    rule: StoreRule | None = None,
    *,
    epoch: int = 1,
    next_offset: int = 1,
    now_ns: int = 1000,
    path: str = PATH,
) -> Store:
    """The store `main`, with a cache of its own that keeps little, so that loading is tested too."""
    return Store.open(
        disk,
        path,
        "main",
        rule or StoreRule(),
        epoch=epoch,
        next_offset=next_offset,
        now_ns=now_ns,
        cache=Cache(limit_segments=2),
    )


def batch_of(
    messages: Sequence[tuple[bytes, Item]],
    first: int,
    prev: int,
    synced: int,
    *,
    now_ns: int = 1000,
    flags: str = "-",
    step: int = 1,
) -> Batch:
    """Frame (topic, payload) pairs as one batch; `step` is the distance between offsets."""
    topics = tuple(sorted({topic for topic, _ in messages}))
    column = None
    if len(topics) > 1:
        named = [topic for topic, _ in messages]
        column = columns.make(dict.fromkeys(topics), [(named, len(named))])
    steps = None if step == 1 or len(messages) == 1 else (step,) * (len(messages) - 1)
    items = [item for _, item in messages]
    if any(isinstance(item, list) for item in items):
        flags = "h"
    return frame(first, now_ns, prev, synced, flags, topics, column, steps, items)


@dataclass
class Kit:
    """A store and the offsets it was promised."""

    disk: MemoryDisk = field(default_factory=MemoryDisk)
    rule: StoreRule = field(default_factory=StoreRule)
    next: int = 1
    now_ns: int = 1000
    epoch: int = 1
    # What was acknowledged, in order.
    kept: list[Message] = field(default_factory=list)
    store: Store = field(init=False)

    def __post_init__(self) -> None:
        self.reopen()

    def reopen(self) -> Store:
        """Open what lies on the disk, as after a stop without a word."""
        self.store = open_store(self.disk, self.rule, epoch=self.epoch, next_offset=self.next, now_ns=self.now_ns)
        self.next = max(self.next, self.store.last + 1)
        return self.store

    def frame(self, messages: Sequence[tuple[bytes, Item]], flags: str = "-", step: int = 1) -> Batch:
        """The next batch."""
        store = self.store
        return batch_of(messages, self.next, store.last, store.synced, now_ns=self.now_ns, flags=flags, step=step)

    def commit(self, *messages: tuple[bytes, Item], flags: str = "-", step: int = 1, sync: bool = True) -> Batch:
        """Commit one batch as the server does; after an error nothing is promised and the offsets are void."""
        batch = self.frame(messages, flags, step)
        self.next = batch.last + 1
        roll = self.store.begin(len(batch.record), batch.first, self.epoch, self.now_ns)
        self.carry_out(batch, roll, sync)
        self.kept += zip(batch.offsets(), map(batch.topic_of, range(batch.n)), batch.items(), strict=True)
        return batch

    def carry_out(self, batch: Batch, roll: Roll | None, sync: bool = True) -> None:
        """Write, sync, land."""
        self.store.write(roll, [batch.record])
        if sync:
            self.store.sync()
        self.store.landed([batch], roll, batch.last if sync else None)

    def roll(self) -> None:
        """Begin a new segment."""
        roll = self.store.begin(1 << 40, self.next, self.epoch, self.now_ns)
        assert roll is not None
        self.store.write(roll, [])
        self.store.landed([], roll, None)

    def trim(self) -> None:
        """Let retention act."""
        result = self.store.trim(self.store.expired(self.now_ns))
        assert result.error is None
        self.store.trimmed(result)

    def close(self) -> None:
        """A clean stop."""
        self.store.close(self.next, self.now_ns)


@dataclass
class Tale:
    """What a reader was told."""

    messages: list[Message] = field(default_factory=list)
    holes: list[Hole] = field(default_factory=list)
    chunks: int = 0
    excerpts: int = 0

    @property
    def offsets(self) -> list[int]:
        """Offsets of the messages."""
        return [offset for offset, _, _ in self.messages]

    @property
    def losses(self) -> list[tuple[int, int, str, dict[bytes, int] | None]]:
        """The holes, without what readers do not look at."""
        return [(hole.first, hole.last, hole.reason, hole.counts) for hole in self.holes]


def read_all(
    store: Store,
    start: int = 1,
    wanted: Callable[[bytes], bool] = every,
    *,
    horizon: int | None = None,
    budget_bytes: int = 300,
    may_block: bool = False,
    topic: bytes = b"",
) -> Tale:
    """Read from `start` to the horizon as a subscriber would, in small steps; in a "thread" only when asked to.

    `topic`: nothing else is wanted, and excerpts will do."""
    horizon = store.last + 1 if horizon is None else horizon
    cursor, tale = Cursor(start, topic), Tale()
    last = start - 1
    while True:
        chunk = store.read(cursor, wanted, horizon, budget_bytes, may_block)
        if chunk is None:
            assert not may_block
            chunk = store.read(cursor, wanted, horizon, budget_bytes, True)
            assert chunk is not None
        for record in chunk.records:
            assert record.last > last, f"{record} comes after {last}"
            last = record.last
            if isinstance(record, Hole):
                assert start <= record.first <= record.last < horizon
                tale.holes.append(record)
                continue
            tale.excerpts += isinstance(record, Excerpt)
            for offset, number in zip(record.offsets(), range(record.n), strict=True):
                topic = record.topic_of(number)
                if offset >= start and wanted(topic):
                    tale.messages.append((offset, topic, record.items()[number]))
        tale.chunks += 1
        assert tale.chunks < 10_000, "the reader does not come forward"
        assert chunk.next == cursor.offset
        if chunk.done:
            assert chunk.next == max(horizon, start)
            return tale
