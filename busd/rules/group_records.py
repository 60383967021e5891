"""What is remembered of groups: the lines of groups.log, and the state that they add up to.

    new <group> <pattern[,pattern…]> <tries> <next> <time_ns>      a group begins; tries 0: no dead letters
    out <group> <next> <tries> <ranges>     given out for the how-manieth time (0: passed over, not given out yet);
                                            every message of the group below <next> was given out or passed over
    done <group> <ranges>                   settled
    seek <group> <next>                     moved: nothing is out, everything below <next> is settled
    gone <group>                            forgotten

    ranges: `-` for none, or first[-last] joined by commas, rising; exact offsets of the group's messages

Lines are put into frames that carry a CRC, one frame a write (see `frame_lines`).  Pure.  Invariants:
1. A state is what its lines say in order; applying a prefix of them gives an earlier state of the group.
2. `unsettled` holds exact offsets only, so a group on a rare topic has no hole for the messages of others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from busd.rules.spans import Spans


@dataclass(slots=True)
class GroupState:
    """A group's place.  `unsettled`: offsets below `next` that are not settled, each with the times it was given out."""

    patterns: tuple[bytes, ...]
    tries: int
    next: int
    born_ns: int
    unsettled: Spans = field(default_factory=Spans)

    @property
    def settled(self) -> int:
        """Every message of the group below this offset is settled."""
        return min(self.next, self.unsettled.first) if self.unsettled else self.next


def ranges_of(offsets: Sequence[int]) -> list[tuple[int, int]]:
    """Rising offsets as (first, last) of each unbroken stretch."""
    if not offsets:
        return []
    if offsets[-1] - offsets[0] == len(offsets) - 1:
        return [(offsets[0], offsets[-1])]
    ranges = []
    first = last = offsets[0]
    for offset in offsets[1:]:
        if offset != last + 1:
            ranges.append((first, last))
            first = offset
        last = offset
    return [*ranges, (first, last)]


def line_new(group: bytes, patterns: Sequence[bytes], tries: int, next_offset: int, time_ns: int) -> bytes:
    """A group begins."""
    return b"new %b %b %d %d %d" % (group, b",".join(patterns), tries, next_offset, time_ns)


def line_out(group: bytes, next_offset: int, tries: int, ranges: Iterable[tuple[int, int]]) -> bytes:
    """Given out, or passed over (tries 0)."""
    return b"out %b %d %d %b" % (group, next_offset, tries, _ranges(ranges))


def line_done(group: bytes, ranges: Iterable[tuple[int, int]]) -> bytes:
    """Settled."""
    return b"done %b %b" % (group, _ranges(ranges))


def line_seek(group: bytes, next_offset: int) -> bytes:
    """Moved."""
    return b"seek %b %d" % (group, next_offset)


def line_gone(group: bytes) -> bytes:
    """Forgotten."""
    return b"gone %b" % group


def _ranges(ranges: Iterable[tuple[int, int]]) -> bytes:
    return b",".join([b"%d" % a if a == b else b"%d-%d" % (a, b) for a, b in ranges]) or b"-"
