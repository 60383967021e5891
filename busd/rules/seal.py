"""Sealing: the requests that waited become batches, one or more a store, with offsets dealt in the order of arrival.

This is the only place that deals offsets.  Runs are dealt whole: a run of n messages takes n consecutive offsets.
A store's batch is cut where the kind changes, beyond about BATCH_BYTES, and where it would name more than MAX_TOPICS
topics.

Pure; per run Python, per message C.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, compress

from busd.rules.items import Item
from busd.rules.record import COLUMN_BASE, MAX_TOPICS
from busd.words.requests import Publish

# What waits beyond this stays for the next commit: as much as one read of a socket brings.
COMMIT_BYTES = 256 * 1024
# About 600 messages of 100 bytes: beyond that nothing per batch shows in the cost per message, and a reader with a
# small outbox reads a batch again for each slice that it can take.  A little more than a quarter of what one read of a
# socket brings, or each quarter that ends behind a message would be cut once more.
BATCH_BYTES = 68 * 1024

FLAGS = {"message": "-", "eof": "e", "reset": "r"}


@dataclass(slots=True)
class Part:
    """A piece of a run that goes to one store: one topic for all, or one a message.  `names`: the different topics of
    it, or of what it was cut from."""

    offsets: Sequence[int]
    topics: bytes | Sequence[bytes]
    items: list[Item]
    size_bytes: int
    headers: bool
    kind: str
    names: set[bytes]

    def piece(self, lo: int, hi: int) -> Part:
        """Messages lo … hi-1."""
        topics, names = self.topics, self.names
        if not isinstance(topics, bytes):
            topics = topics[lo:hi]
            # What one batch can name needs no further looks.
            names = names if len(names) <= MAX_TOPICS else set(topics)
        size = self.size_bytes * (hi - lo) // len(self.items)
        return Part(self.offsets[lo:hi], topics, self.items[lo:hi], size, self.headers, self.kind, names)


@dataclass(slots=True)
class Draft:
    """A batch before it is framed: everything but prev, synced and the time."""

    offsets: Sequence[int]
    topics: tuple[bytes, ...]
    column: bytes | None
    steps: tuple[int, ...] | None
    flags: str
    items: list[Item]
    size_bytes: int


@dataclass(slots=True)
class Sealed:
    """What one commit takes: drafts by store, the first offset of each run, and by run what a RESET removes."""

    drafts: dict[str, list[Draft]]
    firsts: list[int]
    next: int
    removed: dict[int, int] = field(default_factory=dict)


def seal(
    runs: Sequence[Publish],
    next_offset: int,
    route: Callable[[bytes], str],
    live: Callable[[bytes], int],
    lone: str = "",
) -> Sealed:
    """Deal offsets from `next_offset` on and sort the runs into drafts.

    Args:
        runs: in the order of arrival.
        route: the store of a topic.
        lone: the store of all topics, where there is one only: nobody is asked then.
        live: messages of a topic that are readable now; what a RESET removes is this and what precedes it here.
    """
    if len(runs) == 1 and (alone := _alone(runs[0], next_offset)) is not None:
        return Sealed({lone or route(alone.topics[0]): [alone]}, [next_offset], next_offset + len(runs[0].items))
    parts: dict[str, list[Part]] = {}
    firsts = []
    removed: dict[int, int] = {}
    for number, run in enumerate(runs):
        firsts.append(next_offset)
        if run.kind == "reset":
            removed[number] = _count_removed(run, parts, live)
        for store, part in _split(run, next_offset, route, lone):
            parts.setdefault(store, []).append(part)
        next_offset += len(run.items)
    drafts = {store: [_draft(group) for group in _cut(found)] for store, found in parts.items()}
    return Sealed(drafts, firsts, next_offset, removed)


def _alone(run: Publish, first: int) -> Draft | None:
    """The draft of a run that is a batch as it is: a lone PUB is answered 10 us sooner."""
    topics, items = run.topics, run.items
    if not isinstance(topics, bytes) or run.size_bytes > BATCH_BYTES or run.kind != "message":
        return None
    flags = "h" if run.headers else "-"
    return Draft(range(first, first + len(items)), (topics,), None, None, flags, items, run.size_bytes)


def _split(run: Publish, first: int, route: Callable[[bytes], str], lone: str) -> Iterator[tuple[str, Part]]:
    offsets = range(first, first + len(run.items))
    topics = run.topics
    names = {topics} if isinstance(topics, bytes) else set(topics)
    whole = Part(offsets, topics, run.items, run.size_bytes, run.headers, run.kind, names)
    if lone or isinstance(topics, bytes):
        yield lone or route(*names), whole
        return
    homes = {topic: route(topic) for topic in names}
    stores = set(homes.values())
    if len(stores) == 1:
        yield stores.pop(), whole
        return
    for store in dict.fromkeys(map(homes.__getitem__, topics)):
        mine = [homes[topic] == store for topic in topics]
        some = list(compress(run.items, mine))
        size = run.size_bytes * len(some) // len(run.items)
        taken, theirs = list(compress(offsets, mine)), list(compress(topics, mine))
        yield store, Part(taken, theirs, some, size, run.headers, run.kind, set(theirs))


def _count_removed(run: Publish, parts: dict[str, list[Part]], live: Callable[[bytes], int]) -> int:
    """Fill in a RESET's payloads: what was readable, and what this commit holds before it."""
    here: Counter[bytes] = Counter()
    cleared: set[bytes] = set()
    for part in chain.from_iterable(parts.values()):
        if part.kind == "reset":
            cleared |= part.names
            for topic in part.names:
                here[topic] = 0
        elif part.kind == "message":
            here.update({part.topics: len(part.items)} if isinstance(part.topics, bytes) else part.topics)
    topics = [run.topics] if isinstance(run.topics, bytes) else run.topics
    counts = [here[topic] + (0 if topic in cleared else live(topic)) for topic in topics]
    run.items[:] = [b"%d" % count for count in counts]
    return sum(counts)


def _cut(parts: list[Part]) -> Iterator[list[Part]]:
    """Groups of parts that one batch can hold."""
    group: list[Part] = []
    names: set[bytes] = set()
    size = 0
    for part in chain.from_iterable(map(_narrow, parts)):
        added = part.names
        if group and (
            part.kind != group[0].kind
            or size + part.size_bytes > BATCH_BYTES
            or len(names) + len(added) > MAX_TOPICS < len(names | added)
        ):
            yield group
            group, names, size = [], set(), 0
        group.append(part)
        names |= added
        size += part.size_bytes
    yield group


def _narrow(part: Part) -> Iterator[Part]:
    """Pieces that are small and name few enough topics: sets run in C, a greedy cut would ask message by message."""
    number = len(part.items)
    few = len(part.names) <= MAX_TOPICS
    if number == 1 or (few and part.size_bytes <= BATCH_BYTES):
        yield part
        return
    # With almost as many topics as messages each piece is one that surely fits.
    step = MAX_TOPICS
    if few or 2 * len(part.names) < number:
        # As few and as even as its size lets them be.
        step = -(-number // max(2, -(-part.size_bytes // BATCH_BYTES)))
    for lo in range(0, number, step):
        yield from _narrow(part.piece(lo, min(number, lo + step)))


def _draft(group: list[Part]) -> Draft:
    different: dict[bytes, None] = {}
    for part in group:
        different.update(dict.fromkeys((part.topics,) if isinstance(part.topics, bytes) else part.topics))
    names = dict(zip(different, range(COLUMN_BASE, COLUMN_BASE + MAX_TOPICS), strict=False))
    column = None
    if len(names) == sum([len(part.items) for part in group]) > 1:
        column = bytes(names.values())
    elif len(names) > 1:
        column = b"".join(
            bytes((names[part.topics],)) * len(part.items)
            if isinstance(part.topics, bytes)
            else bytes(map(names.__getitem__, part.topics))
            for part in group
        )
    one = group[0]
    single = len(group) == 1
    items = one.items if single else list(chain.from_iterable(part.items for part in group))
    first, last = one.offsets[0], group[-1].offsets[-1]
    offsets: Sequence[int] = range(first, last + 1)
    steps = None
    if last - first != len(items) - 1:
        offsets = list(chain.from_iterable(part.offsets for part in group))
        steps = tuple(map(int.__sub__, offsets[1:], offsets[:-1]))
    flags = FLAGS[one.kind]
    if any(part.headers for part in group):
        flags = "h" if flags == "-" else flags + "h"
    return Draft(offsets, tuple(names), column, steps, flags, items, sum(part.size_bytes for part in group))
