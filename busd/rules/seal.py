"""Sealing: the requests that waited become batches, one or more a store, with offsets dealt in the order of arrival.

This is the only place that deals offsets.  Runs are dealt whole: a run of n messages takes n consecutive offsets.
A store's batch is cut where the kind changes, beyond about BATCH_BYTES, and where it would name more than MAX_TOPICS
topics, or more than BATCH_BYTES of their names.

Pure; per run Python, per message C.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, compress
from typing import Any

from busd.rules import column as columns
from busd.rules.column import MAX_TOPICS, Column
from busd.rules.items import Item
from busd.rules.record import Tally
from busd.words.requests import Publish

# What waits beyond this stays for the next commit, unless the disk is slow (busd.world.waiting): as much as one read
# of a socket brings.
COMMIT_BYTES = 256 * 1024
# A little more than what one read of a socket brings: about 2,300 messages of 100 bytes.  With half of it publishing
# takes up to 1.1 (100 bytes) and 1.2 (1,000) times as long, a replay 1.02 to 1.3 times; a batch is also the least step
# of a replay, which others wait for.
BATCH_BYTES = 264 * 1024

# A run with more than half as many topics as messages among so many has many topics; with all but two of them, most of
# its messages have a topic each.
_SAMPLE = 64
_EACH = _SAMPLE - 2
# So many different ones among so many: there are 2,500 or more, or as good as.
_WIDE_SAMPLE = 512
_WIDE = 460

FLAGS = {"message": "-", "eof": "e", "reset": "r"}


@dataclass(slots=True)
class Part:
    """A piece of a run that goes to one store: one topic for all, or one a message."""

    offsets: Sequence[int]
    topics: bytes | Sequence[bytes]
    items: list[Item]
    size_bytes: int
    headers: bool
    kind: str

    def each(self) -> Sequence[bytes]:
        """Its topics; some may be there again."""
        return (self.topics,) if isinstance(self.topics, bytes) else self.topics

    def piece(self, lo: int, hi: int) -> Part:
        """Messages lo … hi-1."""
        topics = self.topics if isinstance(self.topics, bytes) else self.topics[lo:hi]
        size = self.size_bytes * (hi - lo) // len(self.items)
        return Part(self.offsets[lo:hi], topics, self.items[lo:hi], size, self.headers, self.kind)


@dataclass(slots=True)
class Draft:
    """A batch before it is framed: everything but prev, synced and the time."""

    offsets: Sequence[int]
    topics: tuple[bytes, ...]
    column: Column | None
    steps: tuple[int, ...] | None
    flags: str
    items: list[Item]
    # What is known already: the topics as they stand in a record, and the counts and the last offsets of each.
    names: bytes = b""
    tally: Tally | None = None


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
    if lone and len(runs) > 1 and (joined := _joined(runs)) is not None:
        sealed = seal([joined], next_offset, route, live, lone)
        sealed.firsts = list(accumulate([len(run.items) for run in runs[:-1]], initial=next_offset))
        return sealed
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
    drafts = {store: [draft for group in _cut(found) for draft in _drafts(group)] for store, found in parts.items()}
    return Sealed(drafts, firsts, next_offset, removed)


def _alone(run: Publish, first: int) -> Draft | None:
    """The draft of a run that is a batch as it is."""
    topics, items = run.topics, run.items
    if not isinstance(topics, bytes) or not (flags := flags_alone(run)):
        return None
    return Draft(range(first, first + len(items)), (topics,), None, None, flags, items)


def flags_alone(run: Publish) -> str:
    """Flags of the batch that a run of one topic is as it is; empty when it may have to be cut, or is no message."""
    if run.size_bytes > BATCH_BYTES or run.kind != "message":
        return ""
    return "h" if run.headers else "-"


def _joined(runs: Sequence[Publish]) -> Publish | None:
    """Runs that are a batch together as one run; None of any others.  So come those of many connections that each wait
    for an answer: 0.4 us a run instead of 1.7."""
    topics: list[bytes] = []
    items: list[Item] = []
    size_bytes, headers = 0, False
    for run in runs:
        size_bytes += run.size_bytes
        if size_bytes > BATCH_BYTES or run.kind != "message":
            return None
        if isinstance(run.topics, bytes):
            topics += [run.topics] * len(run.items)
        else:
            topics += run.topics
        items += run.items
        headers = headers or run.headers
    same = topics.count(topics[0]) == len(topics)
    return Publish(topics[0] if same else topics, items, size_bytes, headers)


def _split(run: Publish, first: int, route: Callable[[bytes], str], lone: str) -> Iterator[tuple[str, Part]]:
    offsets = range(first, first + len(run.items))
    topics = run.topics
    whole = Part(offsets, topics, run.items, run.size_bytes, run.headers, run.kind)
    if lone:
        yield lone, whole
        return
    if isinstance(topics, bytes):
        yield route(topics), whole
        return
    homes = {topic: route(topic) for topic in set(topics)}
    stores = set(homes.values())
    if len(stores) == 1:
        yield stores.pop(), whole
        return
    for store in dict.fromkeys(map(homes.__getitem__, topics)):
        mine = [homes[topic] == store for topic in topics]
        some = list(compress(run.items, mine))
        size = run.size_bytes * len(some) // len(run.items)
        taken, theirs = list(compress(offsets, mine)), list(compress(topics, mine))
        yield store, Part(taken, theirs, some, size, run.headers, run.kind)


def _count_removed(run: Publish, parts: dict[str, list[Part]], live: Callable[[bytes], int]) -> int:
    """Fill in a RESET's payloads: what was readable, and what this commit holds before it."""
    here: Counter[bytes] = Counter()
    cleared: set[bytes] = set()
    for part in chain.from_iterable(parts.values()):
        if part.kind == "reset":
            cleared.update(part.each())
            for topic in part.each():
                here[topic] = 0
        elif part.kind == "message":
            here.update({part.topics: len(part.items)} if isinstance(part.topics, bytes) else part.topics)
    topics = [run.topics] if isinstance(run.topics, bytes) else run.topics
    counts = [here[topic] + (0 if topic in cleared else live(topic)) for topic in topics]
    run.items[:] = [b"%d" % count for count in counts]
    return sum(counts)


def _cut(parts: list[Part]) -> Iterator[list[Part]]:
    """Groups of parts that one batch can hold, as long as their topics are not too many."""
    group: list[Part] = []
    size = 0
    for part in chain.from_iterable(map(_small, parts)):
        if group and (part.kind != group[0].kind or size + part.size_bytes > BATCH_BYTES):
            yield group
            group, size = [], 0
        group.append(part)
        size += part.size_bytes
    yield group


def _small(part: Part) -> Iterator[Part]:
    """Pieces that are small enough: as few and as even as its size lets them be."""
    number = len(part.items)
    if number == 1 or part.size_bytes <= BATCH_BYTES:
        yield part
        return
    most = max(1, number * BATCH_BYTES // part.size_bytes)
    step = -(-number // -(-number // most))
    for lo in range(0, number, step):
        yield part.piece(lo, min(number, lo + step))


def _drafts(group: list[Part]) -> Iterator[Draft]:
    """The batch of a group of parts; more where its topics are too many for one, or their names too long."""
    letters: dict[bytes, Any]
    named, offsets = group[0].topics, group[0].offsets
    column: Column | None = None
    tally: Tally | None = None
    if len(group) > 1:
        letters = dict.fromkeys(chain.from_iterable(map(Part.each, group)))
    elif isinstance(named, bytes) or (sample := len(set(named[:_SAMPLE]))) <= _SAMPLE // 2:
        letters = dict.fromkeys(group[0].each())
    elif sample >= _EACH and len(named) > MAX_TOPICS and len(set(named[:_WIDE_SAMPLE])) >= _WIDE:
        # Likely too many for one; to count them all first would be for nothing.
        for smaller in _divided(group, -(-len(named) // MAX_TOPICS)):
            yield from _drafts(smaller)
        return
    elif sample >= _EACH and (found := columns.spread(named, offsets)) is not None:
        letters, column, tally = found
    else:
        # What everybody will ask costs half of what it costs to count the column later.
        letters = dict(zip(named, offsets, strict=True))
        tally = list(Counter(named).values()), list(letters.values())
    names = b",".join(letters)
    if len(letters) > 1 and (len(letters) > MAX_TOPICS or len(names) > BATCH_BYTES):
        # At once into as many as it must be: a RESET may name a million topics, and to halve is to look at all of them
        # nine times.
        for smaller in _divided(group, max(2, -(-len(letters) // MAX_TOPICS), -(-len(names) // BATCH_BYTES))):
            yield from _drafts(smaller)
        return
    topics = tuple(letters)
    if column is not None or len(topics) == 1:
        pass
    elif len(topics) == sum([len(part.items) for part in group]):
        column = columns.straight(len(topics))
    else:
        column = columns.make(letters, [(part.topics, len(part.items)) for part in group])
    draft = _draft(group, topics, column)
    draft.names, draft.tally = names, tally
    yield draft


def _divided(group: list[Part], number: int) -> Iterator[list[Part]]:
    """A single part in so many pieces; several parts in two groups."""
    half = len(group) // 2
    if half:
        yield group[:half]
        yield group[half:]
        return
    (part,) = group
    step = -(-len(part.items) // number)
    for lo in range(0, len(part.items), step):
        yield [part.piece(lo, min(len(part.items), lo + step))]


def _draft(group: list[Part], topics: tuple[bytes, ...], column: Column | None) -> Draft:
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
    return Draft(offsets, topics, column, steps, flags, items)
