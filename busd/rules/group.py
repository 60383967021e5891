"""A group: which of its messages came back, are delayed, wait for a key or die; and the lines that remember it.

What members have out lies in their flights; the rest lies here.  New messages are given out from `next` on; what comes
back is given out again before anything new.  Every change goes through the table in delivery.py.

Pure: it is told the time, and reads no log: who gives a message out has read it.  Invariants:
1. Every message below `next` is settled, in a flight, or in exactly one of `waiting`, `delayed`, `parked`, `dying`.
2. A key is held by one message: from when it is given out until it is settled.
3. `lines` say what changed, in order; who takes them writes them before the change can be seen outside.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import count

from busd.rules.delivery import Action, Event, State, step
from busd.rules.flight import Chunk, Flight
from busd.rules.group_records import GroupState, line_done, line_out, line_seek, ranges_of
from busd.words.requests import Ack, Token
from busd.words.units import NS_PER_S

# How far a group looks ahead over messages that wait for their key: an offset each, so about 2 MB.
MAX_PARKED = 10_000
_BACK_OFF_NS = NS_PER_S
_LONGEST_BACK_OFF_NS = 300 * NS_PER_S


@dataclass(slots=True)
class Dying:
    """A message on its way to the dead letters.  `recovered`: known from before a restart, so its dead letter may be
    kept already."""

    tries: int
    reason: bytes
    recovered: bool = False


class Group:
    """See the module.  `expired`, `dead`: how many were settled so since the start."""

    def __init__(self, name: bytes, state: GroupState) -> None:
        self.name = name
        self.patterns = state.patterns
        self.tries = state.tries
        self.next = state.next
        self.dying: dict[int, Dying] = {}
        self.expired = 0
        self.dead = 0
        # How many messages the lines not taken yet say were passed by.
        self.passed_by = 0
        self._lines: list[bytes] = []
        self._serial = count(1)
        self._waiting: list[tuple[int, int, Chunk]] = []
        self._delayed: list[tuple[int, int, Chunk]] = []
        self._keys: dict[bytes, int] = {}
        self._held: dict[int, bytes] = {}
        self._parked: dict[bytes, deque[Chunk]] = {}
        self._parked_count = 0
        for first, last, tries in state.unsettled:
            if self.tries and tries >= self.tries:
                lost = b"the server stopped while it was out"
                self.dying.update({offset: Dying(tries, lost, True) for offset in range(first, last + 1)})
            else:
                self._waiting.append((first, next(self._serial), Chunk(range(first, last + 1), tries)))
        heapify(self._waiting)

    def take_lines(self) -> list[bytes]:
        """What has to be written; nothing is left to take."""
        lines, self._lines = self._lines, []
        self.passed_by = 0
        return lines

    # Giving out.

    def give(self, flight: Flight, offsets: Sequence[int], tries: int, deadline_ns: int, key: bytes = b"") -> Chunk:
        """Messages go out to a member, each for the `tries`-th time; a `key` is that of a single one."""
        step(State.WAITING, Event.ROOM)
        chunk = Chunk(offsets, tries, next(self._serial), deadline_ns)
        if key:
            self._keys[key] = offsets[0]
            self._held[offsets[0]] = key
        self.next = max(self.next, offsets[-1] + 1)
        self._lines.append(line_out(self.name, self.next, tries, ranges_of(offsets)))
        flight.add(chunk)
        return chunk

    def pass_over(self, next_offset: int) -> None:
        """Nothing of the group is below this offset but what is known."""
        if next_offset > self.next:
            self.next = next_offset
            self._lines.append(line_out(self.name, self.next, 0, ()))

    def expire(self, offset: int) -> None:
        """Its `ttl` has run out before it could be given out."""
        step(State.WAITING, Event.EXPIRED)
        self.expired += 1
        self._settle_unsent([offset])

    def missing(self, offsets: Sequence[int]) -> None:
        """They were to be given out again, and are not in the log any more."""
        step(State.WAITING, Event.MISSING)
        self._settle_unsent(offsets)

    def _settle_unsent(self, offsets: Sequence[int]) -> None:
        if offsets[0] >= self.next:
            self.pass_over(offsets[-1] + 1)
        else:
            self._lines.append(line_done(self.name, ranges_of(offsets)))
        self._free(offsets)

    def delay(self, offset: int, due_ns: int) -> None:
        """Its `delay` has not passed."""
        step(State.WAITING, Event.EARLY)
        self._pass_by(offset)
        heappush(self._delayed, (due_ns, offset, Chunk([offset], 0)))

    def busy(self, key: bytes, offset: int) -> bool:
        """True when another message holds the key."""
        return self._keys.get(key, offset) != offset

    def park(self, offset: int, tries: int, key: bytes) -> bool:
        """It waits for its key; False when it is new and too many do already, and nothing was changed.

        What came back is parked always: what holds its key may stand behind it.
        """
        if self._parked_count >= MAX_PARKED and offset >= self.next:
            return False
        step(State.WAITING, Event.KEY_BUSY)
        self._pass_by(offset)
        parked = self._parked.setdefault(key, deque())
        chunk = Chunk([offset], tries)
        # Most come behind all others; what came back, or was delayed, belongs between them.
        place = len(parked)
        while place and offset < parked[place - 1].offsets[0]:
            place -= 1
        parked.insert(place, chunk)
        self._parked_count += 1
        return True

    def _pass_by(self, offset: int) -> None:
        """It stays behind; `next` goes on."""
        if offset >= self.next:
            self.next = offset + 1
            self.passed_by += 1
            self._lines.append(line_out(self.name, self.next, 0, [(offset, offset)]))

    # Coming back.

    def ack(self, flight: Flight, request: Ack) -> tuple[list[Chunk], Token | None]:
        """What is settled by it, and the first stale token.  `done` gives the lines, once for all of it."""
        stale: Token | None = None
        chunks: list[Chunk] = []
        if request.through is not None:
            through = flight.take_through(request.through)
            if through is None:
                stale = request.through
            else:
                chunks = through
        for token in request.tokens:
            chunk = flight.take(token)
            if chunk is not None:
                chunks.append(chunk)
            elif stale is None:
                stale = token
        for chunk in chunks:
            step(State.OUT, Event.ACK)
            self._free(chunk.offsets)
        return chunks, stale

    def done(self, chunks: Iterable[Chunk]) -> list[bytes]:
        """The lines that remember them as settled."""
        parts = [chunk.offsets for chunk in chunks]
        if not parts:
            return []
        if len(parts) == 1:
            return [line_done(self.name, ranges_of(parts[0]))]
        return [line_done(self.name, ranges_of(sorted([offset for part in parts for offset in part])))]

    def restore(self, chunks: Iterable[Chunk]) -> None:
        """Their acknowledgement could not be kept."""
        for chunk in chunks:
            step(State.SETTLED, Event.REFUSED)
            self._queue(chunk)

    def nack(self, flight: Flight, token: Token, delay_ns: int | None, reason: bytes, now_ns: int) -> bool:
        """One comes back; False when the token is stale."""
        chunk = flight.take(token)
        if chunk is None:
            return False
        action, _ = step(State.OUT, self._event(chunk, Event.NACK))
        if action is Action.BURY:
            self._die(chunk, reason or b"given back")
            return True
        if delay_ns is None:
            delay_ns = min(_BACK_OFF_NS << min(chunk.tries - 1, 20), _LONGEST_BACK_OFF_NS)
        heappush(self._delayed, (now_ns + delay_ns, chunk.offsets[0], chunk))
        self.due(now_ns)
        return True

    def back(self, chunks: Iterable[Chunk], reason: bytes) -> None:
        """Their time is over, or their member is gone."""
        for chunk in chunks:
            action, _ = step(State.OUT, self._event(chunk, Event.BACK))
            if action is Action.BURY:
                self._die(chunk, reason)
            else:
                self._queue(chunk)

    def _event(self, chunk: Chunk, otherwise: Event) -> Event:
        return Event.LAST if self.tries and chunk.tries >= self.tries else otherwise

    def _die(self, chunk: Chunk, reason: bytes) -> None:
        self.dying.update({offset: Dying(chunk.tries, reason) for offset in chunk.offsets})

    def buried(self, offsets: Sequence[int], letters: int) -> None:
        """They are settled: so many became dead letters, the others are not in the log any more."""
        for offset in offsets:
            step(State.DYING, Event.BURIED)
            del self.dying[offset]
        self._free(offsets)
        self.dead += letters

    def due(self, now_ns: int) -> None:
        """What was delayed until now or earlier comes next."""
        while self._delayed and self._delayed[0][0] <= now_ns:
            step(State.DELAYED, Event.DUE)
            self._queue(heappop(self._delayed)[2])

    def _queue(self, chunk: Chunk) -> None:
        heappush(self._waiting, (chunk.offsets[0], next(self._serial), chunk))

    def pop(self) -> Chunk | None:
        """What is to be given out again first; who takes it gives it out, or gives it back by `push`."""
        return heappop(self._waiting)[2] if self._waiting else None

    def push(self, chunk: Chunk) -> None:
        """It was not given out after all."""
        self._queue(chunk)

    # Keys.

    def _free(self, offsets: Sequence[int]) -> None:
        """They are settled: the keys that they held go to the next of each, if one waits."""
        for offset in offsets if self._held else ():
            key = self._held.pop(offset, None)
            if key is None:
                continue
            parked = self._parked.get(key)
            if parked is None:
                del self._keys[key]
                continue
            step(State.BLOCKED, Event.KEY_FREE)
            chunk = parked.popleft()
            self._parked_count -= 1
            if not parked:
                del self._parked[key]
            self._keys[key] = chunk.offsets[0]
            self._held[chunk.offsets[0]] = key
            self._queue(chunk)

    # As a whole.

    def clear(self, next_offset: int) -> list[bytes]:
        """SEEK: nothing is out or kept back; the lines.  Flights are the caller's."""
        step(State.WAITING, Event.CLEARED)
        self.next = next_offset
        self.dying = {}
        self._lines, self._waiting, self._delayed = [], [], []
        self.passed_by = 0
        self._keys, self._held, self._parked, self._parked_count = {}, {}, {}, 0
        return [line_seek(self.name, next_offset)]

    @property
    def due_ns(self) -> int | None:
        """When the next delayed one is due."""
        return self._delayed[0][0] if self._delayed else None

    @property
    def held_back(self) -> int:
        """How many are delayed or wait for their key."""
        return len(self._delayed) + self._parked_count

    @property
    def anything_waits(self) -> bool:
        """True when something is to be given out again."""
        return bool(self._waiting)
