r"""What is remembered of groups: the lines of groups.log, and the state that they add up to.

    new <group> <pattern[,pattern…]> <tries> <next> <time_ns>      a group begins; tries 0: no dead letters
    out <group> <next> <tries> <ranges>     given out for the how-manieth time (0: passed over, not given out yet);
                                            every message of the group below <next> was given out or passed over
    done <group> <ranges>                   settled
    seek <group> <next>                     moved: nothing is out, everything below <next> is settled
    gone <group>                            forgotten

    ranges: `-` for none, or first[-last] joined by commas, rising; exact offsets of the group's messages

Lines are put into frames, one a write, with the prefix of the log's own records (record.py):

    +G <crc> <length> line\nline\r\n        crc covers all behind it, length is of what follows its blank

No line can hold a `+`, a CR or an LF, so where a frame is damaged the next one can be found by its prefix, and its CRC
proves it.  What a lost frame may have said is then made up for on the safe side: messages that may have been given out
in it are given out again.

Pure.  Invariants:
1. A state is what its lines say in order; applying a prefix of them gives an earlier state of the group.
2. `unsettled` holds exact offsets only, so a group on a rare topic has no hole for the messages of others; only after
   damage it may hold offsets that are none of the group's, and who reads over those settles them.
3. Nothing is settled that no line settled: a frame that is lost can only bring messages back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from busd.rules.checksum import crc32
from busd.rules.envelope import PREFIX_BYTES, BadRecord, check
from busd.rules.spans import Spans

_PREFIX = re.compile(rb"\+G [0-9a-f]{8} ([0-9]{10}) ")
_NAME = re.compile(rb"[A-Za-z0-9_-]{1,64}")
_PATTERNS = re.compile(rb"[A-Za-z0-9_.*>,-]+")

Ranges = list[tuple[int, int]]


@dataclass(slots=True)
class GroupState:
    """A group's place.

    `unsettled`: offsets below `next` that are not settled, each with the times it was given out; `moves`: how often it
    was moved since it was read from the file.
    """

    patterns: tuple[bytes, ...]
    tries: int
    next: int
    born_ns: int
    unsettled: Spans = field(default_factory=Spans)
    moves: int = field(default=0, compare=False)

    @property
    def settled(self) -> int:
        """Every message of the group below this offset is settled."""
        return min(self.next, self.unsettled.first) if self.unsettled else self.next

    def copy(self) -> GroupState:
        """One that stays as it is now."""
        return GroupState(self.patterns, self.tries, self.next, self.born_ns, self.unsettled.copy(), self.moves)


States = dict[bytes, GroupState]


@dataclass(slots=True, frozen=True)
class GroupFlaw:
    """Something in groups.log that is not as it was written.  `frame`: how many good frames stand before it."""

    position: int
    size: int
    frame: int
    detail: str


@dataclass(slots=True)
class GroupsFound:
    """What groups.log says.  Bytes behind `good_bytes` are a torn end; `frames`: how many good ones there are."""

    states: States
    good_bytes: int
    flaws: list[GroupFlaw]
    frames: int


def ranges_of(offsets: Sequence[int]) -> Ranges:
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


# Lines to states.


def apply(states: States, line: bytes) -> None:
    """What a line says becomes true.

    Raises:
        BadRecord: `form`: not a line, or one of a group that there is not; the states are unchanged.
    """
    fields = line.split(b" ")
    try:
        _VERBS[fields[0]](states, *fields[1:])
    except (KeyError, TypeError, ValueError) as error:
        raise BadRecord("form", f"the line {line[:80]!r}: {error}") from None


def _new(states: States, name: bytes, patterns: bytes, tries: bytes, next_offset: bytes, time_ns: bytes) -> None:
    if not _NAME.fullmatch(name) or not _PATTERNS.fullmatch(patterns):
        raise ValueError("not a group and its patterns")
    state = GroupState(tuple(patterns.split(b",")), _number(tries), _number(next_offset), _number(time_ns))
    states[name] = state


def _out(states: States, name: bytes, next_offset: bytes, tries: bytes, ranges: bytes) -> None:
    state, next_, value, found = states[name], _number(next_offset), _number(tries), _parse_ranges(ranges)
    next_ = max(next_, state.next)
    if found and found[-1][1] >= next_:
        raise ValueError("given out, and not below next")
    state.next = next_
    for first, last in found:
        state.unsettled.put(first, last, value)


def _done(states: States, name: bytes, ranges: bytes) -> None:
    state, found = states[name], _parse_ranges(ranges)
    for first, last in found:
        state.unsettled.drop(first, last)


def _seek(states: States, name: bytes, next_offset: bytes) -> None:
    state = states[name]
    state.next = _number(next_offset)
    state.unsettled.clear()
    state.moves += 1


def _gone(states: States, name: bytes) -> None:
    del states[name]


_VERBS: dict[bytes, Callable[..., None]] = {
    b"new": _new,
    b"out": _out,
    b"done": _done,
    b"seek": _seek,
    b"gone": _gone,
}


def _number(text: bytes) -> int:
    # int() alone also takes signs, blanks and underscores.
    if not text.isdigit():
        raise ValueError("not a number")
    return int(text)


def _parse_ranges(text: bytes) -> Ranges:
    if text == b"-":
        return []
    ranges: Ranges = []
    before = -1
    for part in text.split(b","):
        first, dash, last = part.partition(b"-")
        lo = _number(first)
        hi = _number(last) if dash else lo
        if lo > hi or lo <= before:
            raise ValueError("ranges do not rise")
        before = hi
        ranges.append((lo, hi))
    return ranges


def snapshot_lines(name: bytes, state: GroupState) -> list[bytes]:
    """Lines that make this state of nothing: `new` first, then, if anything is not settled, `out` for each number."""
    lines = [line_new(name, state.patterns, state.tries, state.settled, state.born_ns)]
    ranges: dict[int, Ranges] = {}
    for first, last, tries in state.unsettled:
        ranges.setdefault(tries, []).append((first, last))
    return lines + [line_out(name, state.next, tries, found) for tries, found in sorted(ranges.items())]


def snapshot(states: Mapping[bytes, GroupState]) -> Iterator[bytes]:
    """Frames that make these states of nothing.

    A group has two: were the second damaged, the first alone lets everything not settled come back; and were the
    lines of the second in frames of their own, the loss of one would settle what it names.
    """
    for name, state in states.items():
        begin, *rest = snapshot_lines(name, state)
        yield frame_lines([begin])
        if rest:
            yield frame_lines(rest)


# Frames.


def frame_lines(lines: Iterable[bytes]) -> bytes:
    """Lines, at least one, as a frame: kept together or not at all."""
    body = b"\n".join(lines)
    rest = b"%010d %b\r\n" % (len(body) + 2, body)
    return b"+G %08x %b" % (crc32(rest), rest)


def scan_frames(data: bytes) -> tuple[list[list[bytes]], int, list[GroupFlaw]]:
    """The lines of every good frame, how many bytes to keep, and what is wrong before that.

    Bytes behind the last good frame are a torn end and no flaw: cut them.
    """
    found: list[list[bytes]] = []
    flaws: list[GroupFlaw] = []
    at = good = 0
    while at >= 0:
        end = _frame_end(data, at)
        if end < 0:
            at = data.find(b"+G ", at + 1)
            continue
        if at > good:
            flaws.append(GroupFlaw(good, at - good, len(found), f"{at - good} bytes are not as they were written"))
        found.append(data[at + PREFIX_BYTES : end - 2].split(b"\n"))
        at = good = end
    return found, good, flaws


def _frame_end(data: bytes, at: int) -> int:
    """Where the frame at `at` ends; -1 when there is none, or it is damaged."""
    match = _PREFIX.match(data, at)
    if match is None:
        return -1
    end = at + PREFIX_BYTES + int(match[1])
    if end > len(data) or data[end - 2 : end] != b"\r\n":
        return -1
    try:
        check(data[at:end])
    except BadRecord:
        return -1
    return end


def read_groups(data: bytes) -> GroupsFound:
    """States from the bytes of groups.log; what is damaged is named and made up for, see the module."""
    frames, good, flaws = scan_frames(data)
    states: States = {}
    # Groups of which something may have been lost.
    doubtful: set[bytes] = set()
    spoilt = {flaw.frame for flaw in flaws}
    position = 0
    for number, lines in enumerate(frames):
        if number in spoilt:
            position += sum(flaw.size for flaw in flaws if flaw.frame == number)
            doubtful.update(states)
        for line in lines:
            if doubtful:
                _mend(states, line, doubtful)
            try:
                apply(states, line)
            except BadRecord as error:
                flaws.append(GroupFlaw(position, 0, number, str(error)))
                doubtful.update(states)
        position += PREFIX_BYTES + sum(map(len, lines)) + len(lines) + 1
    return GroupsFound(states, good, flaws, len(frames))


def _mend(states: States, line: bytes, doubtful: set[bytes]) -> None:
    """Before this line is applied to a state that may lack some: what those may have given out is not settled."""
    verb, _, rest = line.partition(b" ")
    name, _, rest = rest.partition(b" ")
    if name not in doubtful:
        return
    state = states.get(name)
    if state is None or verb in (b"new", b"seek", b"gone"):
        doubtful.discard(name)
        return
    try:
        if verb == b"out":
            doubtful.discard(name)
            _believe_next(state, _number(rest.partition(b" ")[0]))
        elif verb == b"done" and (ranges := _parse_ranges(rest)) and ranges[-1][1] >= state.next:
            _believe_next(state, ranges[-1][1] + 1)
    except ValueError:
        # `apply` will say so.
        return


def _believe_next(state: GroupState, next_offset: int) -> None:
    if next_offset > state.next:
        state.unsettled.put(state.next, next_offset - 1, 0)
    else:
        # Moved back by what was lost.
        state.unsettled.drop(next_offset, state.next)
    state.next = next_offset
