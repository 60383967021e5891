"""One subscription: replays, goes live, falls behind, catches up, ends.

Its state machine is the table in busd.rules.subscription.  Knows the log and its outbox by their ports only.

Invariants:
1. Everything that matches below `position` was delivered or named in a GAP; nothing at or above it was.
2. It costs its outbox (its limit, or half of it and any one message or batch) and one pending gap.
3. Only REPLAYING reads the log, one piece at a time; only LIVE and SKIPPING are among the live readers.
"""

from __future__ import annotations

from collections.abc import Callable

from busd.broker.cork import Cork
from busd.broker.ends import Ends
from busd.broker.gap import PendingGap
from busd.broker.ports import Log, Outbox, Piece, Runtime, Wanted
from busd.broker.stride import BATCH_BYTES, Handful, Stride
from busd.broker.terms import Tally, Terms
from busd.rules.formats import Encoder, parts_of
from busd.rules.losses import told
from busd.rules.parts import Parts
from busd.rules.record import Batch, Hole
from busd.rules.select import Selection, build, select
from busd.rules.subscription import Action, Event, State, step
from busd.words.units import MAX_OFFSET


class Subscription:
    """See the module.  `live`, `not_live` tell the fan-out; `over` is called behind the END; `late`: WITHIN is over."""

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
        self.encoder, self._encode = encoder, parts_of(encoder)
        self.position = terms.position
        self.state = State.REPLAYING
        self.live: Callable[[Subscription], None] = lambda _: None
        self.not_live: Callable[[Subscription], None] = lambda _: None
        self.over: Callable[[], None] = lambda: None
        self.failed: Callable[[Exception], None] = lambda error: None
        self._outbox = Cork(outbox)
        self._stride = Stride(terms.outbox_bytes, terms.limit is not None)
        self._few = Handful()
        self._log = log
        self._runtime = runtime
        self._tally = tally
        self._left, self._until = terms.limit, terms.until
        self._gap = PendingGap(terms.marks_bytes)
        # Holes already named: with several stores one may reach beyond messages of another.
        self._named: set[tuple[int, int, str]] = set()
        self._reading = self._scheduled = self._told = self.late = False
        self._ends = Ends(log.topic, terms.patterns, terms.floors)
        self._topic = terms.topic if encoder.timeless else b""
        self._seek()
        self._bounded = terms.until != MAX_OFFSET or terms.limit is not None
        self._gathers = terms.limit is None and not terms.wait_first and not terms.one_answer

    # What happens to it.

    def start(self) -> None:
        """Begin: ends of stream that are a state, then the first step of the replay, in this call."""
        if self.state is State.REPLAYING:  # Who was told that it is open may have ended it in that call.
            self._announce_ended()
        self._read_now()

    def offered(self, batch: Batch, selection: Selection | None, data: bytes) -> None:
        """A batch became visible.  `selection` and `data` are what every live reader of these patterns and this
        format gets; a reader with bounds of its own, or one that has part of it already, selects again."""
        if batch.last < self.position:
            return
        action, self.state = step(self.state, Event.BATCH)
        if action is Action.NOTHING:
            return
        own = self._bounded or batch.first < self.position
        if action is Action.COUNT:
            self._skip(self._matching(batch) if own else selection)
        elif own:
            self._deliver_live(self._select(batch), b"")
        else:
            self._deliver_live(selection, data)
        if self.state in (State.LIVE, State.SKIPPING):
            self._pass(batch.last)
            self._check_bounds()

    def drained(self) -> None:
        """The outbox has room again."""
        action = self._step(Event.DRAINED)
        if action is Action.RESUME:
            self._read_soon()
        elif action is Action.NAME:
            self._name_gap()

    def end(self, reason: str | None) -> None:
        """End it: with a reason END is written and `over` called, without one it is dropped in silence."""
        if self._finish() and reason is not None:
            self._name_gap()
            self._outbox.write(self.encoder.end(reason, self.position))
            self._outbox.flush()
            self.over()

    def until(self, offset: int, offered: bool) -> None:
        """UNTIL was a time that has come: nothing from this offset on; `offered`: all below it was, to who is live."""
        self._until = offset
        if offered and self.state in (State.LIVE, State.SKIPPING):
            self.end("end")

    def leave(self) -> None:
        """End it for a reader that stays and asked for that: what it missed is told, without an END."""
        if self._finish():
            self._name_gap()

    def _finish(self) -> bool:
        before, finish = self.state, self._step(Event.DONE) is Action.FINISH
        if finish and before in (State.LIVE, State.SKIPPING):
            self.not_live(self)
        return finish

    # Live.

    def _deliver_live(self, selection: Selection | None, data: bytes) -> None:
        while selection is not None:
            done = self._deliver(selection, data or self._encode(selection))
            if done == selection.count:
                return
            self.position = selection.offsets()[done]
            if not self.terms.drop or not self._roomy:
                self._fall_behind(selection.batch)
                return
            # A message too large to stand behind others was next, and those have gone out already.
            selection, data = self._select(selection.batch), b""

    def _fall_behind(self, batch: Batch) -> None:
        """The outbox is full; what the batch holds from `position` on had no room."""
        if self._step(self._full) is Action.SKIP:
            self._skip(self._matching(batch))
        else:
            self.not_live(self)
            self._await_room()

    def _skip(self, selection: Selection | None) -> None:
        if selection is not None:
            self._gap.skip(selection, self.encoder)

    def _name_gap(self) -> None:
        self._tally.gaps += self._gap.open
        for event in self._gap.take(self.terms.pattern, self.encoder):
            self._outbox.write(event)

    # Replay.

    def _seek(self) -> None:
        self._cursor = self._log.cursor(self.position, self._topic)

    def _read_soon(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._runtime.step(self._read_now)

    def _read_now(self) -> None:
        self._scheduled = False
        if self.state is State.REPLAYING and not self._reading:
            self._read()

    def _read(self) -> None:
        if self.position >= min(self._log.horizon, self._until):
            self._caught_up()
            return
        self._reading = True
        try:
            self._log.read(self._cursor, self.wanted, self._tally.piece_bytes(self.terms, self._stride), self._got)
        except Exception as error:
            self.failed(error)

    def _got(self, piece: Piece | Exception) -> None:
        self._reading = False
        try:
            if isinstance(piece, Exception):
                raise piece
            self._outbox.hold()
            try:
                self._take(piece)
            finally:
                written = self._outbox.release()
            if self.state is State.REPLAYING and self.terms.spills and not self._roomy:
                self._step(Event.FULL_SPILL)  # Not all of it was taken; the next piece would have no room.
            held = self.state is State.HELD
            self._stride.took(written, not held, not self._outbox.buffered(), self._runtime.hurried)
            if held and self._roomy:
                self.drained()  # It was full of what has just gone out.
        except Exception as error:
            self.failed(error)

    def _take(self, piece: Piece) -> None:
        for record in piece.records:
            if step(self.state, Event.READ)[0] is not Action.DELIVER:
                return
            if isinstance(record, Hole):
                whole = self._deliver_few() and self._deliver_gap(record)
            elif record.control or not self._gathers:
                whole = self._deliver_few() and self._deliver_stored(record, self._select(record))
            else:
                whole = self._gather(record)
            if not whole or self._check_bounds():
                return
        if step(self.state, Event.READ)[0] is not Action.DELIVER or not self._deliver_few():
            return
        self.position = max(self.position, piece.next)
        self._runtime.breathe()
        if self.position >= min(self._log.horizon, self._until):
            self._caught_up()
        else:
            self._read_soon()

    def _caught_up(self) -> None:
        if self._check_bounds():
            return
        self._step(Event.HORIZON)
        self.live(self)

    def _gather(self, batch: Batch) -> bool:
        """Deliver it, or let it wait for others of its kind when it is small; answers as `_deliver_stored`."""
        selection = self._matching(batch)
        if self._few.add(batch, selection):
            return True
        if self._few.selections:
            return self._deliver_few() and self._gather(batch)
        return self._deliver_stored(batch, selection)

    def _deliver_few(self) -> bool:
        """Deliver what was gathered: in one write where there is room for all of it, else one by one."""
        selections, last = self._few.take()
        if len(selections) > 1:
            data, count = self.encoder.several(selections), sum([selection.count for selection in selections])
            if self._outbox.buffered() + len(data) <= self._tally.outbox_bytes(self.terms):
                self._outbox.write(data, count)
                self._told = True
                self._tally.delivered += count
                selections = []
        for selection in selections:
            if not self._deliver_stored(selection.batch, selection):
                return False
        self._pass(last)
        return True

    def _deliver_stored(self, batch: Batch, selection: Selection | None) -> bool:
        """False when not all of it had room, or the subscription ended."""
        if selection is not None:
            done = self._deliver(selection, self._encode(selection))
            if done < selection.count and self.state is State.REPLAYING:
                self.position = selection.offsets()[done]
                self._hold()
                return False
        self._pass(batch.last)
        return self.state is State.REPLAYING

    def _deliver_gap(self, hole: Hole) -> bool:
        first, last = max(hole.first, self.position), min(hole.last, self._until - 1)
        self._named = {named for named in self._named if named[0] >= self.position}
        name = (hole.last, hole.prev, hole.reason)
        settled = hole.reason == "settled" and self.terms.unsettled is not None
        if first > last or name in self._named or settled:
            return True
        count, reason = told(hole, first, last, self.wanted)
        if count != 0:
            if self.encoder.bare:
                self.end("lost")
                return False
            self._tally.gaps += 1
            self._told = True
            self._outbox.write(self.encoder.gap(self.terms.pattern, first, last, count, reason))
        self._named.add(name)
        if self._outbox.buffered() > self.terms.outbox_bytes:
            self._hold()
            return False
        return True

    def _hold(self) -> None:
        self._step(self._full)
        self._await_room()

    # Both.

    def _step(self, event: Event) -> Action:
        """As the table has it; a reader that stands still is counted."""
        before = self.state
        action, self.state = step(before, event)
        self._tally.stalled += (self.state is State.HELD) - (before is State.HELD)
        if action is Action.WAIT or event is Event.HORIZON:
            self._seek()  # Anew: the old place may hold a record of each store, and the segment that it is in.
        return action

    @property
    def _full(self) -> Event:
        return Event.FULL_DROP if self.terms.drop else Event.FULL_SPILL

    @property
    def _roomy(self) -> bool:
        return self._outbox.buffered() <= self.terms.low_bytes

    def _matching(self, batch: Batch) -> Selection | None:
        """All of the batch that is asked for, from `position` on."""
        floors = self.terms.floors_over(self._log.floors, batch.topics)
        selection = select(batch, self.wanted, self.position, self._until, floors)
        if selection is not None and self.terms.unsettled is not None:
            return self.terms.unsettled(selection)
        return selection

    def _select(self, batch: Batch) -> Selection | None:
        """The same, no more than LIMIT leaves."""
        selection = self._matching(batch)
        if selection is not None and self._left is not None and not batch.control:
            return selection.take(self._left)
        return selection

    def _deliver(self, selection: Selection, data: bytes | Parts) -> int:
        """Write as many of them as there is room for; how many that was."""
        replaying, count = self.state is State.REPLAYING, selection.count
        limit = self._tally.outbox_bytes(self.terms) if replaying else self.terms.outbox_bytes
        if self._outbox.buffered() + len(data) > limit:
            self._outbox.flush()  # What has waited for more may be all that is in it.
            buffered = self._outbox.buffered()
            easy = buffered <= (self.terms.low_bytes if replaying else limit // 2)
            if easy and len(data) <= 2 * BATCH_BYTES <= 2 * limit:
                limit += 2 * BATCH_BYTES
            # Without data (a payload of no bytes, an end of stream in a bare format) there is always room.
            while data and buffered + len(data) > limit and not (count == 1 and easy):
                fitting = count * max(0, limit - buffered) // len(data) if easy or not replaying else 0
                count = min(count - 1, max(fitting, 1 if easy else 0))
                if count == 0:
                    return 0
                data = self._encode(selection.take(count))
        self._outbox.write(data, count)
        self._told |= "r" not in selection.batch.flags
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
        elif self._roomy:
            self.drained()

    def _check_bounds(self) -> bool:
        """True when nothing more is to be done now: by LIMIT or UNTIL it is over, or it goes on in another turn."""
        if self.state is State.ENDED:
            return True
        if self._left == 0:
            self.end("limit")
        elif self.position >= self._until:
            if self.terms.wait_first and not (self._told or self.late):
                # Nothing below it: on from there.  What was read beyond it was left out, so it is read again.
                self.position, self._until = self._until, MAX_OFFSET
                self._seek()
                self._read_soon()
                return True
            self.position = max(self.terms.position, self._until)
            self.end("time" if self.late and not self._told else "end")
        elif self.terms.wait_first and self._told and self._until == MAX_OFFSET:
            self.end("end")
        return self.state is State.ENDED  # type: ignore[comparison-overlap]

    # End of stream.

    def _announce_ended(self) -> None:
        """Literal topics that are at their end, and that this reader would wait for in vain."""
        for offset, pattern in self._ends.before(self.position):
            mark = build([offset], [pattern], [b""], 0, "e")
            selection = Selection(mark, 0, 1, None, 1)
            self._outbox.write(self.encoder.messages(selection))
            self._told = True
            self._end_if_ended(selection)

    def _end_if_ended(self, selection: Selection) -> None:
        """A bare format cannot show an EOF: it ends when every one of its topics has."""
        last = self.encoder.bare and "e" in selection.batch.flags
        if last and self._ends.all(max(selection.last, self.position - 1), self.position):
            self.end("eof")
