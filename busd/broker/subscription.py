"""One subscription: replays, goes live, falls behind, catches up, ends.

Its state machine is the table in busd.rules.subscription.  Knows the log and its outbox by their ports only.

Invariants:
1. Everything that matches below `position` was delivered or named in a GAP; nothing at or above it was.
2. It costs its outbox (its limit, or half of it and any one message) and one pending gap.
3. Only REPLAYING reads the log, one piece at a time; only LIVE and SKIPPING are among the live readers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from busd.broker.ports import Log, Outbox, Piece, Runtime
from busd.rules.formats import Encoder
from busd.rules.record import Batch, Hole
from busd.rules.select import Selection, Wanted, select
from busd.rules.subscription import Action, Event, State, step
from busd.words.topics import is_literal
from busd.words.units import MAX_OFFSET

# A piece of the log read in one step: long enough that its fixed cost (about 30 µs) does not show, short enough that
# a step stays well under a millisecond.
PIECE_BYTES = 256 * 1024
# Ends of stream and RESETs that a skipping reader gets after its GAP; beyond this many bytes the GAP must do.
_MARKS_BYTES = 16 * 1024


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


@dataclass(slots=True)
class _Gap:
    first: int
    last: int
    count: int


@dataclass(slots=True)
class Tally:
    """Counters shared by all subscriptions of a broker."""

    delivered: int = 0
    gaps: int = 0


class Subscription:
    """See the module.  `live` and `not_live` tell the fan-out; `over` is called once, after the END was written."""

    def __init__(
        self,
        terms: Terms,
        wanted: Wanted,
        encoder: Encoder,
        outbox: Outbox,
        log: Log,
        runtime: Runtime,
        tally: Tally,
    ) -> None:
        self.terms = terms
        self.wanted = wanted
        self.encoder = encoder
        self.position = terms.position
        self.state = State.REPLAYING
        self.live: Callable[[Subscription], None] = lambda _: None
        self.not_live: Callable[[Subscription], None] = lambda _: None
        self.over: Callable[[], None] = lambda: None
        self.failed: Callable[[Exception], None] = lambda error: None
        self._outbox = outbox
        self._log = log
        self._runtime = runtime
        self._tally = tally
        self._left = terms.limit
        self._until = terms.until
        self._told = False
        self._gap: _Gap | None = None
        self._marks: list[bytes] = []
        # Holes already named: with several stores one may reach beyond messages of another.
        self._named: set[tuple[int, int, str]] = set()
        self._reading = False
        self._scheduled = False
        self._cursor = log.cursor(terms.position)
        self._bounded = terms.until != MAX_OFFSET or terms.limit is not None

    # What happens to it.

    def start(self) -> None:
        """Begin: ends of stream that are a state, then the first step of the replay, in this call."""
        self._announce_ended()
        if self.state is State.REPLAYING:
            self._read()

    def offered(self, batch: Batch, selection: Selection | None, data: bytes) -> None:
        """A batch became visible.  `selection` and `data` are what every live reader of these patterns and this
        format gets; a reader with bounds of its own, or one that has part of it already, selects again."""
        if batch.last < self.position:
            return
        action, self.state = step(self.state, Event.BATCH)
        if action is Action.NOTHING:
            return
        if self._bounded or batch.first < self.position:
            selection, data = self._select(batch), b""
        if action is Action.COUNT:
            self._skip(selection)
        elif selection is not None:
            self._deliver_live(selection, data or self.encoder.messages(selection))
        if self.state in (State.LIVE, State.SKIPPING):
            self._pass(batch.last)
            self._check_bounds()

    def drained(self) -> None:
        """The outbox is half empty."""
        action, self.state = step(self.state, Event.DRAINED)
        if action is Action.RESUME:
            self._cursor = self._log.cursor(self.position)
            self._read_soon()
        elif action is Action.NAME:
            self._name_gap()

    def end(self, reason: str | None) -> None:
        """End it: with a reason END is written and `over` called, without one it is dropped in silence."""
        before = self.state
        action, self.state = step(before, Event.DONE)
        if action is not Action.FINISH:
            return
        if before in (State.LIVE, State.SKIPPING):
            self.not_live(self)
        if reason is not None:
            self._name_gap()
            self._outbox.write(self.encoder.end(reason, self.position))
            self.over()

    # Live.

    def _deliver_live(self, selection: Selection, data: bytes) -> None:
        done = self._deliver(selection, data)
        if done == selection.count:
            return
        full = Event.FULL_DROP if self.terms.drop else Event.FULL_SPILL
        action, self.state = step(self.state, full)
        if action is Action.SKIP:
            self._skip(selection, done)
            return
        self.not_live(self)
        self.position = selection.offsets()[done]
        self._await_room()

    def _skip(self, selection: Selection | None, done: int = 0) -> None:
        if selection is None:
            return
        if selection.batch.control:
            mark = self.encoder.messages(selection)
            if sum(map(len, self._marks)) + len(mark) <= _MARKS_BYTES:
                self._marks.append(mark)
            return
        offsets = selection.offsets()
        if self._gap is None:
            self._gap = _Gap(offsets[done], offsets[-1], 0)
        self._gap.last = offsets[-1]
        self._gap.count += selection.count - done

    def _name_gap(self) -> None:
        gap, self._gap = self._gap, None
        marks, self._marks = self._marks, []
        if gap is not None:
            self._tally.gaps += 1
            self._outbox.write(self.encoder.gap(self._pattern, gap.first, gap.last, gap.count, "slow"))
        for mark in marks:
            self._outbox.write(mark)

    # Replay.

    def _read_soon(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._runtime.soon(self._read_now)

    def _read_now(self) -> None:
        self._scheduled = False
        if self.state is State.REPLAYING and not self._reading:
            self._read()

    def _read(self) -> None:
        if self.position >= min(self._log.horizon, self._until):
            self._caught_up()
            return
        self._reading = True
        self._log.read(self._cursor, self.wanted, PIECE_BYTES, self._got)

    def _got(self, piece: Piece) -> None:
        try:
            self._take(piece)
        except Exception as error:
            self.failed(error)

    def _take(self, piece: Piece) -> None:
        self._reading = False
        for record in piece.records:
            if step(self.state, Event.READ)[0] is not Action.DELIVER:
                return
            whole = self._deliver_gap(record) if isinstance(record, Hole) else self._deliver_stored(record)
            if not whole:
                return
            if self._check_bounds():
                return
        if step(self.state, Event.READ)[0] is not Action.DELIVER:
            return
        self.position = max(self.position, piece.next)
        self._runtime.breathe()
        if self.position >= min(self._log.horizon, self._until):
            self._caught_up()
        else:
            self._read_soon()

    def _caught_up(self) -> None:
        if not self._check_bounds():
            _, self.state = step(self.state, Event.HORIZON)
            self.live(self)

    def _deliver_stored(self, batch: Batch) -> bool:
        """False when not all of it had room, or the subscription ended."""
        selection = self._select(batch)
        if selection is not None:
            # Encoding all of a large batch for a small outbox would cost as much memory as having no bound.
            some = selection.take(max(1, selection.count * self.terms.outbox_bytes // max(1, len(batch.record))))
            done = self._deliver(some, self.encoder.messages(some))
            if done < selection.count and self.state is State.REPLAYING:
                self.position = selection.offsets()[done]
                _, self.state = step(self.state, Event.FULL_SPILL)
                self._await_room()
                return False
        self._pass(batch.last)
        return self.state is State.REPLAYING

    def _deliver_gap(self, hole: Hole) -> bool:
        first, last = max(hole.first, self.position), min(hole.last, self._until - 1)
        self._named = {named for named in self._named if named[0] >= self.position}
        name = (hole.last, hole.prev, hole.reason)
        if first > last or name in self._named:
            return True
        if self.encoder.bare:
            self.end("lost")
            return False
        count = None
        if hole.counts is not None and (first, last) == (hole.first, hole.last):
            count = sum(number for topic, number in hole.counts.items() if self.wanted(topic))
        if count != 0:
            self._tally.gaps += 1
            self._told = True
            self._outbox.write(self.encoder.gap(self._pattern, first, last, count, hole.reason))
        self._named.add(name)
        return True

    # Both.

    @property
    def _pattern(self) -> bytes:
        return b",".join(self.terms.patterns)

    def _select(self, batch: Batch) -> Selection | None:
        floors: Mapping[bytes, int] = self._log.floors
        if self.terms.floors is not None:
            own = self.terms.floors
            floors = {topic: max(own.get(topic, 0), floors.get(topic, 0)) for topic in batch.topics}
        selection = select(batch, self.wanted, self.position, self._until, floors)
        if selection is not None and self._left is not None and not batch.control:
            return selection.take(self._left)
        return selection

    def _deliver(self, selection: Selection, data: bytes) -> int:
        """Write as many of them as there is room for; how many that was."""
        limit, buffered = self.terms.outbox_bytes, self._outbox.buffered()
        count = selection.count
        while buffered + len(data) > limit and not (count == 1 and buffered <= limit // 2):
            fitting = count * max(0, limit - buffered) // len(data)
            count = min(count - 1, max(fitting, 1 if buffered <= limit // 2 else 0))
            if count == 0:
                return 0
            data = self.encoder.messages(selection.take(count))
        self._outbox.write(data, count)
        self._told = True
        if selection.batch.control:
            self._end_if_ended(selection)
            return count
        self._tally.delivered += count
        if self._left is not None:
            self._left -= count
            if self._left == 0:
                self.position = selection.offsets()[count - 1] + 1
        return count

    def _pass(self, offset: int) -> None:
        """Everything up to this offset is dealt with; a LIMIT that was reached stays where it was."""
        if self._left != 0:
            self.position = max(self.position, offset + 1)

    def _await_room(self) -> None:
        if self.terms.one_answer:
            self.end("limit")
        elif self._outbox.buffered() <= self.terms.outbox_bytes // 2:
            self.drained()

    def _check_bounds(self) -> bool:
        """True when it is over, by LIMIT or UNTIL."""
        if self.state is State.ENDED:
            return True
        if self._left == 0:
            self.end("limit")
        elif self.position >= self._until:
            if self.terms.wait_first and not self._told:
                self._until = MAX_OFFSET
                return False
            self.position = max(self.terms.position, self._until)
            self.end("end")
        elif self.terms.wait_first and self._told and self._until == MAX_OFFSET:
            self.end("end")
        return self.state is State.ENDED  # type: ignore[comparison-overlap]

    # End of stream.

    def _announce_ended(self) -> None:
        """Literal topics that are at their end, and that this reader would wait for in vain."""
        for pattern in self.terms.patterns:
            topic = self._log.topic(pattern) if is_literal(pattern) else None
            if topic is not None and topic.ended and topic.last < self.position and self._left != 0:
                batch = _mark(pattern, topic.last)
                self._outbox.write(self.encoder.messages(batch))
                self._told = True
                self._end_if_ended(batch)
                if self.state is State.ENDED:
                    return

    def _end_if_ended(self, selection: Selection) -> None:
        """A bare format cannot show an EOF: it ends when every one of its topics has."""
        if not self.encoder.bare or "e" not in selection.batch.flags:
            return
        here = max(selection.last, self.position - 1)
        for pattern in self.terms.patterns:
            topic = self._log.topic(pattern) if is_literal(pattern) else None
            if topic is None or not topic.ended or topic.last > here:
                return
        self.end("eof")


def _mark(topic: bytes, offset: int) -> Selection:
    batch = Batch(offset, 1, 0, 0, 0, "e", (topic,), None, None, b"", 0, [b""])
    return Selection(batch, 0, 1, None, 1)
