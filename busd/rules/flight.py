"""What one member of a group has out: chunks of offsets, found by token.

A chunk is what was sent in one step, so that a thousand messages cost one object.  Acknowledgements cut chunks; what
is left costs memory in proportion to the holes.

Pure.  Invariants:
1. Each offset is out once.  `count` is how many are.
2. Chunks of first deliveries have rising, disjoint offsets, in the order in which they were sent; single messages and
   further deliveries are kept apart, because theirs may be in any order.  Both lists rise by first offsets.
3. `_further` has the offsets of the further deliveries that are no single messages.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from busd.words.requests import Token


@dataclass(slots=True, eq=False)
class Chunk:
    """Messages given out together, all for the `tries`-th time; at least one.

    `seq` rises with every chunk sent.
    """

    offsets: Sequence[int]
    tries: int
    seq: int = 0
    deadline_ns: int = 0

    def part(self, start: int, stop: int) -> Chunk:
        """The same for some of them."""
        # Not `replace`: an ACK of a hundred thousand tokens makes three hundred thousand.
        return Chunk(self.offsets[start:stop], self.tries, self.seq, self.deadline_ns)

    def find(self, offset: int) -> int:
        """The place of an offset, -1 when it is not here."""
        offsets = self.offsets
        if isinstance(offsets, range):
            return offsets.index(offset) if offset in offsets else -1
        at = bisect_left(offsets, offset)
        return at if at < len(offsets) and offsets[at] == offset else -1


class Flight:
    """See the module."""

    def __init__(self) -> None:
        self.count = 0
        self._runs: list[Chunk] = []
        self._again: list[Chunk] = []
        self._singles: dict[int, Chunk] = {}
        # Offset -> tries of what is in `_again`: a token of something that is not is known at once.
        self._further: dict[int, int] = {}

    def add(self, chunk: Chunk) -> None:
        """It was sent."""
        self.count += len(chunk.offsets)
        self._keep(chunk)

    def _keep(self, chunk: Chunk) -> None:
        if len(chunk.offsets) == 1:
            self._singles[chunk.offsets[0]] = chunk
        elif chunk.tries > 1:
            insort(self._again, chunk, key=_first)
            self._further.update(dict.fromkeys(chunk.offsets, chunk.tries))
        else:
            self._runs.append(chunk)

    def take(self, token: Token) -> Chunk | None:
        """Take one message out; None when it is not out by this token."""
        offset, tries = token
        chunk = self._singles.get(offset)
        if chunk is not None:
            if chunk.tries != tries:
                return None
            del self._singles[offset]
            self.count -= 1
            return chunk
        chunks = self._runs if tries == 1 else self._again
        found = self._find(chunks, offset, tries)
        if found is None:
            return None
        number, at = found
        chunk = chunks[number]
        parts = [part for part in (chunk.part(0, at), chunk.part(at + 1, len(chunk.offsets))) if part.offsets]
        _replace(chunks, number, parts)
        self._further.pop(offset, None)
        self.count -= 1
        return chunk.part(at, at + 1)

    def _find(self, chunks: list[Chunk], offset: int, tries: int) -> tuple[int, int] | None:
        """Which chunk, and where in it."""
        if tries > 1 and self._further.get(offset) != tries:
            return None
        number = bisect_right(chunks, offset, key=_first) - 1
        # Further deliveries may lie between each other's offsets, so it may be in an earlier one, too.
        last = number if tries == 1 else 0
        while number >= max(0, last):
            chunk = chunks[number]
            if chunk.tries == tries and (at := chunk.find(offset)) >= 0:
                return number, at
            number -= 1
        return None

    def take_through(self, token: Token) -> list[Chunk] | None:
        """Take out this message and everything sent before it; None (and nothing taken) when it is not out."""
        offset, tries = token
        single = self._singles.get(offset)
        if single is not None:
            if single.tries != tries:
                return None
            seq, chunk = single.seq, single
        else:
            chunks = self._runs if tries == 1 else self._again
            found = self._find(chunks, offset, tries)
            if found is None:
                return None
            number, at = found
            chunk = chunks[number]
            seq = chunk.seq
            rest = chunk.part(at + 1, len(chunk.offsets))
            _replace(chunks, number, [part for part in (chunk.part(0, at + 1), rest) if part.offsets])
        return self._cut(lambda one: one.seq < seq or (one.seq == seq and one.offsets[-1] <= offset))

    def _cut(self, gone: Callable[[Chunk], bool]) -> list[Chunk]:
        """Take out the chunks that are meant, in the order of sending."""
        taken = [chunk for chunk in self._all() if gone(chunk)]
        if len(taken) == len(self._runs) + len(self._again) + len(self._singles):
            self._runs, self._again, self._singles, self._further = [], [], {}, {}
        elif taken:
            names = set(map(id, taken))
            self._runs = [chunk for chunk in self._runs if id(chunk) not in names]
            for chunk in self._again:
                if id(chunk) in names:
                    for offset in chunk.offsets:
                        del self._further[offset]
            self._again = [chunk for chunk in self._again if id(chunk) not in names]
            self._singles = {offset: chunk for offset, chunk in self._singles.items() if id(chunk) not in names}
        self.count -= sum(len(chunk.offsets) for chunk in taken)
        return sorted(taken, key=_order)

    def _all(self) -> Iterator[Chunk]:
        yield from self._runs
        yield from self._again
        yield from self._singles.values()

    def touch(self, token: Token, deadline_ns: int) -> bool:
        """Give one message more time; False when it is not out by this token."""
        chunk = self.take(token)
        if chunk is None:
            return False
        # It keeps its place in the order of sending.
        self.count += 1
        self._singles[token[0]] = replace(chunk, deadline_ns=deadline_ns)
        return True

    def overdue(self, now_ns: int) -> list[Chunk]:
        """Take out what had its time, in the order of sending."""
        return self._cut(lambda chunk: chunk.deadline_ns <= now_ns)

    def drain(self) -> list[Chunk]:
        """Take out all of it."""
        return self._cut(lambda chunk: True)

    @property
    def deadline_ns(self) -> int | None:
        """The earliest deadline of any of them."""
        return min((chunk.deadline_ns for chunk in self._all()), default=None)


def _replace(chunks: list[Chunk], number: int, parts: Sequence[Chunk]) -> None:
    del chunks[number]
    for part in parts:
        insort(chunks, part, key=_first)


def _first(chunk: Chunk) -> int:
    return chunk.offsets[0]


def _order(chunk: Chunk) -> tuple[int, int]:
    return chunk.seq, chunk.offsets[0]
