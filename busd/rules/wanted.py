"""What of a log is still wanted: by groups that have not settled it, above the RESET of its topic, within its ttl.

A topic that no group covers is wanted always, and only caps remove it.  A covered message is wanted while a covering
group stands below it, or has it among what is not settled.

Pure: no files, no clock.  Invariants:
1. What a group has not settled is wanted, unless a RESET stands over it or its ttl has run out before the group came to
   it: what was given out may be given back, and then be a dead letter.
2. Claims are of one moment: groups that go on change nothing in them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from busd.rules.column import BASE, codes
from busd.rules.group_records import GroupState
from busd.rules.items import Item
from busd.rules.record import Batch
from busd.words.errors import BusError
from busd.words.headers import steering
from busd.words.patterns import PatternIndex

# Names of the groups that cover a topic; empty when none does.
Cover = tuple[bytes, ...]
# One byte a message, 1 where it is wanted; or all of them, or none.
Marks = bytes | bool
FloorOf = Callable[[bytes], int]
# How the name of the header stands in a body, so that batches without it are never decoded.
TTL_MARK = b"\r\nttl\r\n"


class Claim:
    """What some groups together have not settled: everything from `next` on, and the spans below it."""

    __slots__ = ("_firsts", "_lasts", "next")

    def __init__(self, states: Sequence[GroupState]) -> None:
        self.next = min([state.next for state in states])
        spans = sorted([(a, b) for state in states for a, b, _ in state.unsettled if a < self.next])
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in spans:
            last = min(last, self.next - 1)
            if self._lasts and first <= self._lasts[-1] + 1:
                self._lasts[-1] = max(self._lasts[-1], last)
            else:
                self._firsts.append(first)
                self._lasts.append(last)

    def spans(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The spans below `next`, as far as they lie in first … last."""
        for at in range(bisect_left(self._lasts, first), bisect_right(self._firsts, last)):
            yield max(first, self._firsts[at]), min(last, self._lasts[at])

    def count(self, first: int, last: int) -> int:
        """How many offsets below `next` are not settled, of first … last."""
        return sum([b - a + 1 for a, b in self.spans(first, last)])

    def has(self, first: int, last: int) -> bool:
        """True when anything of first … last is not settled."""
        return self.next <= last or next(self.spans(first, last), None) is not None

    def marks(self, offsets: Sequence[int]) -> bytes:
        """One byte for each of these rising offsets: 1 where it is not settled."""
        below = bisect_left(offsets, self.next)
        marks = bytearray(below) + b"\1" * (len(offsets) - below)
        for first, last in self.spans(offsets[0], offsets[-1]):
            lo, hi = bisect_left(offsets, first), bisect_right(offsets, last)
            marks[lo:hi] = b"\1" * (hi - lo)
        return bytes(marks)


class Covers:
    """Which groups cover a topic."""

    def __init__(self, patterns: Mapping[bytes, tuple[bytes, ...]]) -> None:
        self.patterns = dict(patterns)
        self._index: PatternIndex[bytes] = PatternIndex()
        for group, some in self.patterns.items():
            for pattern in some:
                self._index.add(pattern, group)

    def of(self, topic: bytes) -> Cover:
        """The groups that cover this topic, sorted."""
        return tuple(sorted(self._index.find(topic)))


class Claims:
    """What all groups claim, at one moment.  `covers` is the same object as long as no group comes, goes or changes."""

    def __init__(self, groups: Mapping[bytes, GroupState], old: Claims | None = None) -> None:
        """`old`: the claims made before, whose work is used again where nothing has changed."""
        self._states = {name: state.copy() for name, state in groups.items()}
        self._places = _places(groups)
        patterns = {name: state.patterns for name, state in groups.items()}
        self.covers: Covers = old.covers if old is not None and old.covers.patterns == patterns else Covers(patterns)
        self._claims: dict[Cover, Claim] = {}

    def still(self, groups: Mapping[bytes, GroupState]) -> bool:
        """True when nothing shows that these groups have gone on or changed since."""
        return self._places == _places(groups)

    def of(self, cover: Cover) -> Claim | None:
        """What these groups claim together; None for no groups."""
        if not cover:
            return None
        claim = self._claims.get(cover)
        if claim is None:
            claim = self._claims[cover] = Claim([self._states[name] for name in cover])
        return claim

    def claim(self, topic: bytes) -> Claim | None:
        """What is claimed of a topic; None when no group covers it."""
        return self.of(self.covers.of(topic))

    def has_out(self, topic: bytes, offset: int) -> bool:
        """True when a group has come to this message of the topic, and has not settled it."""
        return any(self._states[name].unsettled.get(offset) is not None for name in self.covers.of(topic))


def _places(groups: Mapping[bytes, GroupState]) -> dict[bytes, tuple[int, int, int, int]]:
    # What is unsettled below the same `next` only grows less, so its count tells; but a SEEK may lead back to the same
    # numbers over other offsets.
    return {name: (state.next, state.unsettled.count, state.born_ns, state.moves) for name, state in groups.items()}


def wanted_of(
    batch: Batch, claims: Claims | None, floor_of: FloorOf, now_ns: int, groups: Claims | None = None
) -> Marks:
    """Which messages of a batch are wanted.

    Args:
        claims: None where groups do not decide (`retain = limits`).
        floor_of: the RESET floor of a topic: what stands below is not wanted.
        now_ns: messages whose ttl has run out by then are not wanted, unless one of `groups` has them out.

    Raises:
        BadRecord: the body is not what the header says.
    """
    offsets = batch.offsets()
    # Most topics are in the same case, and the masks of thousands would take as many bytes as messages each.
    known: dict[tuple[Claim | None, int], bytes] = {}
    masks = [_mask(topic, offsets, claims, floor_of, known) for topic in batch.topics]
    if batch.column is None or all(mask == masks[0] for mask in known.values()):
        marks = masks[0]
    else:
        # Topics that differ in what is settled: message by message.
        marks = bytes([masks[code - BASE][at] for at, code in enumerate(codes(batch.column))])
    if has_ttl(batch.flags, batch.record):
        left = bytearray(marks)
        for at in expired(batch, now_ns):
            left[at] &= groups is not None and groups.has_out(batch.topic_of(at), offsets[at])
        marks = bytes(left)
    return True if 0 not in marks else marks if 1 in marks else False


def _mask(
    topic: bytes,
    offsets: Sequence[int],
    claims: Claims | None,
    floor_of: FloorOf,
    known: dict[tuple[Claim | None, int], bytes],
) -> bytes:
    claim = claims.claim(topic) if claims is not None else None
    dead = bisect_left(offsets, floor_of(topic))
    mask = known.get((claim, dead))
    if mask is None:
        marks = b"\1" * len(offsets) if claim is None else claim.marks(offsets)
        mask = known[claim, dead] = bytes(dead) + marks[dead:] if dead else marks
    return mask


def has_ttl(flags: str, record: bytes) -> bool:
    """True when messages of the batch may have a ttl."""
    return "h" in flags and TTL_MARK in record


def ends_of(batch: Batch) -> list[int | None]:
    """When the ttl of each message runs out, Unix ns; None for those without."""
    return [None if (ttl_ns := _ttl_ns(item)) is None else batch.time_ns + ttl_ns for item in batch.items()]


def expired(batch: Batch, now_ns: int) -> list[int]:
    """The numbers of the messages whose ttl has run out by then."""
    return [at for at, end_ns in enumerate(ends_of(batch)) if end_ns is not None and end_ns <= now_ns]


def _ttl_ns(item: Item) -> int | None:
    if isinstance(item, bytes):
        return None
    try:
        steer = steering(item[1:])
    except (BusError, ValueError):
        # Nothing that a check lets through: it lies in the log and says nothing.
        return None
    return steer.ttl_ns if steer is not None else None


def eighths(ends_ns: Iterable[int]) -> list[int]:
    """Rising times at each of which another eighth of these has come."""
    rising = sorted(ends_ns)
    return sorted({rising[max(0, len(rising) * part // 8 - 1)] for part in range(1, 9)}) if rising else []
