"""What a subscription was asked for, as plain values, and what all of them count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from busd.broker.stride import Stride
from busd.rules.group_records import GroupState
from busd.rules.select import Selection, only
from busd.words.errors import BusError
from busd.words.topics import is_literal
from busd.words.units import MAX_OFFSET

# In a small outbox a quarter of it.
_MARKS_BYTES = 16 * 1024
# What the outboxes of readers that stand still hold together before further ones get smaller slices: 64 of the usual
# size, which go on as ever.  A thousand, each at another place, hold about 60 MB, and ten thousand 210.
CROWD_BYTES = 16 * 1024 * 1024
# Not less: of a batch that is read for a slice the rest is read again.
LEAST_SLICE_BYTES = 16 * 1024


@dataclass(slots=True, frozen=True)
class Terms:
    """What was asked for: the range, the count, and what to do when the reader is slow."""

    patterns: tuple[bytes, ...]
    position: int
    until: int = MAX_OFFSET
    limit: int | None = None
    drop: bool = False
    outbox_bytes: int = 1 << 20
    floors: Mapping[bytes, int] | None = None
    # With nothing below `until`, wait for the first message behind it instead of ending (READ … WITHIN).
    wait_first: bool = False
    # A full outbox ends it instead of making it wait (READ in RESP: one answer of bounded size).
    one_answer: bool = False
    # READ … GROUP: what a group has settled is left out.
    unsettled: Callable[[Selection], Selection | None] | None = None

    def floors_over(self, floors: Mapping[bytes, int], topics: Iterable[bytes]) -> Mapping[bytes, int]:
        """The floors of RESETs, and those of this reader where they are higher."""
        if (own := self.floors) is None:
            return floors
        return {topic: max(own.get(topic, 0), floors.get(topic, 0)) for topic in topics}

    @property
    def pattern(self) -> bytes:
        """All patterns, as they are told."""
        return b",".join(self.patterns)

    @property
    def topic(self) -> bytes:
        """The only topic that this can be about; empty where there may be several."""
        return self.patterns[0] if len(self.patterns) == 1 and is_literal(self.patterns[0]) else b""

    @property
    def spills(self) -> bool:
        """A full outbox makes it wait, and it goes on from the log."""
        return not (self.drop or self.one_answer)

    @property
    def low_bytes(self) -> int:
        """A full outbox has room again when no more than this is in it.

        One that spills is to be empty: a thousand readers that stopped in the middle of something hold that, and no
        second piece beside it.
        """
        return 0 if self.spills else self.outbox_bytes // 2

    @property
    def marks_bytes(self) -> int:
        """Ends of stream and RESETs that a skipping reader gets after its GAP, at most."""
        return marks_bytes(self.outbox_bytes)


def marks_bytes(outbox_bytes: int) -> int:
    """How many bytes of events that are no messages are kept beside an outbox of this size that is full."""
    return min(_MARKS_BYTES, outbox_bytes // 4)


@dataclass(slots=True)
class Tally:
    """Counters shared by all subscriptions of a broker."""

    delivered: int = 0
    gaps: int = 0
    # Readers that stand still: what is in their outbox must go before they read on.
    stalled: int = 0

    def piece_bytes(self, terms: Terms, stride: Stride) -> int:
        """How much of the log such a reader reads at once: while many stand still no more than half of its usual
        outbox, because slices look like little of it."""
        crowded = self.outbox_bytes(terms) < terms.outbox_bytes
        return min(stride.bytes, terms.outbox_bytes // 2) if crowded else stride.bytes

    def outbox_bytes(self, terms: Terms) -> int:
        """How much the outbox of a reader with these terms takes of a replay now."""
        if not terms.spills or self.stalled * terms.outbox_bytes <= CROWD_BYTES:
            return terms.outbox_bytes
        return min(terms.outbox_bytes, max(LEAST_SLICE_BYTES, CROWD_BYTES // self.stalled))


def ended_early(reason: str) -> BusError:
    """What a subscription is told that is ended before it was open: nobody may think that it will be."""
    if reason == "denied":
        return BusError("DENIED", "the users were read again, and these patterns are no longer covered")
    return BusError("STOPPING", "the server is going down")


def unsettled_of(state: GroupState) -> Callable[[Selection], Selection | None]:
    """Of messages of the group those that it has not settled, now."""

    def left(selection: Selection) -> Selection | None:
        if selection.first >= state.next:
            return selection
        offsets = selection.offsets()
        known = state.unsettled
        kept = [offset for offset in offsets if offset >= state.next or known.get(offset) is not None]
        return selection if len(kept) == len(offsets) else only(selection.batch, kept)

    return left
