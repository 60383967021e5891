"""The desk of one group: gives messages out to its members, takes them back, keeps the time.

Invariants:
1. What came back is given out before anything new; new messages in the order of offsets, members in turn.
2. Lines of the group are noted before what they say can be seen by a member.
3. No more than `in_flight` messages were given out or passed by and are not settled, noted or on the way there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from busd.broker.again import Again
from busd.broker.burial import Burial
from busd.broker.feed import Entry, Feed
from busd.broker.marks import Marks
from busd.broker.opening import House
from busd.broker.seat import Place, Seat
from busd.rules.flight import Chunk
from busd.rules.group import Group
from busd.rules.group_records import GroupState
from busd.rules.record import Hole
from busd.rules.select import only, split
from busd.words.errors import BusError
from busd.words.requests import Ack, Nack, Token

# Steps in a turn: delayed messages take one each, about 10 us.
_STEPS = 1_000
_LATE = b"not acknowledged in time"
_GONE = b"its member was gone"


class Desk:
    """See the module.  `seats`: the members; `unnoted`: new messages of which the notes are on their way."""

    def __init__(self, house: House, name: bytes, state: GroupState) -> None:
        self.group = Group(name, state)
        self.seats: dict[Seat, None] = {}
        self.unnoted = 0
        self.feed = Feed(house, state.patterns, self.group.next)
        self.feed.ready = self.pump
        self.feed.failed = self.fault
        self.marks = Marks(house, self)
        # When the last member left; 0 while there are some, or there never was one.
        self.idle_since_ns = 0
        self._house = house
        self._burial = Burial(house, self)
        # Members that may have room, whose turn it is first; who has none is left out until that changes.
        self._roomy: dict[Seat, None] = {}
        self._again = Again(house, self)
        self._pumping = False
        self._soon = False
        # How many times its place is being moved at present, and was moved.
        self._holds = 0
        self.moves = 0
        self._timer_ns: int | None = None
        self._cancel_timer: Callable[[], None] = lambda: None

    # Members.

    def joined(self, seat: Seat) -> None:
        """A member, from now on, unless it has left already."""
        if seat.place is Place.GONE:
            return
        self.idle_since_ns = 0
        self.seats[seat] = None
        self.marks.look()
        self.has_room(seat)

    def left(self, seat: Seat) -> None:
        """It is gone: what it had out goes to others, in order."""
        self.seats.pop(seat, None)
        self._roomy.pop(seat, None)
        self.group.back(seat.flight.drain(), _GONE)
        if not self.seats:
            self.idle_since_ns = self._house.runtime.monotonic_ns()
            self._again.put_back()
            self.feed.rewind(self.group.next)
        self.pump()

    def has_room(self, seat: Seat) -> None:
        """It may take more than it could before."""
        if seat in self.seats:
            self._roomy[seat] = None
        self.pump()

    def clear(self, next_offset: int) -> list[bytes]:
        """SEEK: nothing is out, reading goes on there; the lines to be settled."""
        self.moves += 1
        for seat in self.seats:
            seat.flight.drain()
            self._roomy[seat] = None
        self._again.clear()
        self._burial.clear()
        lines = self.group.clear(next_offset)
        self.marks.clear()
        self.feed.rewind(next_offset)
        for seat in list(self.seats):
            # Who only waited for what it had out is done.
            seat.check()
        return lines

    def later(self, delay_ns: int, call: Callable[[], None]) -> None:
        """Call it then."""
        self._house.runtime.later(delay_ns, call)

    def hold(self) -> None:
        """Its place is being moved: until as many `release` nothing is given out."""
        self._holds += 1

    def release(self) -> None:
        """See hold."""
        self._holds -= 1
        self.pump()

    def close(self) -> None:
        """FORGET."""
        self.clear(self.group.next)
        self.feed.close()
        self._cancel_timer()

    @property
    def in_flight(self) -> int:
        """Messages that members have out."""
        return sum(seat.flight.count for seat in self.seats)

    # Giving out.

    def pump(self) -> None:
        """Give out what there is room for."""
        if self._pumping:
            return
        self._pumping = True
        try:
            self.group.due(self._house.runtime.monotonic_ns())
            for _ in range(_STEPS):
                if not self._step():
                    break
            else:
                self._go_on_soon()
            self._note()
            self.marks.tell_ends()
        finally:
            self._pumping = False
        self._arm()
        self._burial.begin()

    def _go_on_soon(self) -> None:
        if not self._soon:
            self._soon = True
            self._house.runtime.soon(self._go_on)

    def _go_on(self) -> None:
        self._soon = False
        self.pump()

    def _step(self) -> bool:
        """One hand-out, or one step towards it; False when there is nothing to do now."""
        if self._holds or not self.seats:
            return False
        again = self._again
        if again.entries:
            return self._hand(again.entries[0], self._house.limits.in_flight)
        if again.fetching is not None or self.group.anything_waits:
            # New messages wait, so that order is kept as far as it can be.
            return bool(self._roomy) and again.fetch()
        if not self.feed.entries:
            if self._roomy and self.feed.fill():
                self._go_on_soon()
            if not self.feed.entries:
                self.group.pass_over(self.feed.position)
                return False
        item = self.feed.entries[0]
        if isinstance(item, Hole) or item.selection.batch.control:
            self.feed.entries.popleft()
            self.marks.take(item)
            self.feed.taken()
            return True
        out = self._house.log.groups[self.group.name].unsettled.count + self.group.passed_by + self.unnoted
        left = self._house.limits.in_flight - out
        return left > 0 and self._hand(item, left)

    def _hand(self, entry: Entry, most: int) -> bool:
        """Give the entry, or a part of at most so many messages, to whose turn it is."""
        if not self._roomy:
            return False
        steer = entry.steer
        if steer is not None and not self._may_go(entry):
            return False
        if steer is not None and self._entry() is not entry:
            return True
        entry.share = entry.share or -(-entry.selection.count // len(self.seats))
        batch = entry.selection.batch
        size_bytes = len(batch.record) // batch.n + 64
        while self._roomy:
            seat = next(iter(self._roomy))
            del self._roomy[seat]
            room = seat.room(size_bytes)
            if room:
                self._roomy[seat] = None
                self._send(seat, entry, min(room, entry.share, most))
                return True
        return False

    def _entry(self) -> Entry | Hole | None:
        """What is next in line."""
        queue = self._again.entries or self.feed.entries
        return queue[0] if queue else None

    def _send(self, seat: Seat, entry: Entry, count: int) -> None:
        head, rest = split(entry.selection, count)
        if rest is None:
            self._take()
        else:
            entry.selection = rest
        tries = entry.tries + 1
        deadline_ns = self._house.runtime.monotonic_ns() + seat.request.wait_ns
        key = entry.steer.key if entry.steer is not None else b""
        offsets = head.offsets()
        fresh = self.group.passed_by + (head.count if offsets[0] >= self.group.next else 0)
        self.unnoted += fresh
        self.group.give(seat.flight, offsets, tries, deadline_ns, key)
        data = seat.encode(head, tries)
        self._house.tally.delivered += head.count
        self._house.log.note(self.group.take_lines(), seat.sent(data, head.count, fresh))
        if self._timer_ns is None or deadline_ns < self._timer_ns:
            self._arm_at(deadline_ns)

    def _take(self) -> None:
        (self._again.entries or self.feed.entries).popleft()
        self.feed.taken()

    def _may_go(self, entry: Entry) -> bool:
        """What its headers say.  True when the line may move on: it may be given out, or it is no longer in it."""
        steer, batch = entry.steer, entry.selection.batch
        assert steer is not None
        offset, runtime = entry.selection.first, self._house.runtime
        age_ns = self._house.log.now_ns() - batch.time_ns
        if steer.ttl_ns is not None and age_ns >= steer.ttl_ns:
            self._take()
            self.group.expire(offset)
        elif entry.tries == 0 and age_ns < (steer.delay_ns or 0):
            self._take()
            self.group.delay(offset, runtime.monotonic_ns() + steer.delay_ns - age_ns)
        elif steer.key and self.group.busy(steer.key, offset):
            if not self.group.park(offset, entry.tries, steer.key):
                return False
            self._take()
        return True

    def _note(self) -> None:
        fresh = self.group.passed_by
        lines = self.group.take_lines()
        if not lines:
            return
        self.unnoted += fresh

        def noted() -> None:
            self.unnoted -= fresh
            self.marks.tell_ends()
            # What was settled (too old, removed) counted as unsettled until now: there may be room for new ones.
            self._go_on_soon()

        self._house.log.note(lines, noted)

    def removed(self) -> None:
        """A RESET: what was read before it may not be there any more."""
        floors = self._house.log.floors
        self.feed.keep(lambda entry: only(entry.selection.batch, entry.selection.offsets(), floors))
        self._again.removed()
        self.pump()

    # What members say.

    def ack(self, seat: Seat, request: Ack, sink: Callable[[int, Token | None, BusError | None], None]) -> None:
        """See Member."""
        chunks, stale = self.group.ack(seat.flight, request)

        seat.unanswered += 1
        moves = self.moves

        def answer(error: BusError | None, settled: Sequence[Chunk]) -> None:
            seat.unanswered -= 1
            if error is None:
                sink(sum(len(chunk.offsets) for chunk in chunks), stale, None)
            else:
                self.group.restore(settled)
                sink(0, None, error)
            seat.check()
            # Only now fewer count as unsettled, or the messages are back.
            self.pump()

        def decided(error: BusError | None) -> None:
            if moves == self.moves:
                answer(error, chunks)
            elif error is None and (again := self._out_again(chunks)):
                # A SEEK came between, and what it gave out anew stands behind the lines of these: settled once more.
                now, lines = self.moves, [*self.group.take_lines(), *self.group.done(again)]
                self._house.log.settle(lines, lambda error: answer(error, again if now == self.moves else ()))
            else:
                # Refused behind a SEEK: they are given out anyway.
                answer(error, ())

        # Deliveries that are not noted yet come before, whatever they are.
        self._house.log.settle([*self.group.take_lines(), *self.group.done(chunks)], decided)
        self.has_room(seat)

    def _out_again(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Take out what members have of these again, as first deliveries behind a SEEK."""
        request = Ack([(offset, 1) for chunk in chunks for offset in chunk.offsets])
        taken: list[Chunk] = []
        for seat in list(self.seats):
            if found := self.group.ack(seat.flight, request)[0]:
                taken += found
                seat.check()
                self.has_room(seat)
        return taken

    def nack(self, seat: Seat, request: Nack) -> bool:
        """See Member; False when the token is stale."""
        now_ns = self._house.runtime.monotonic_ns()
        found = self.group.nack(seat.flight, request.token, request.delay_ns, request.reason, now_ns)
        self.has_room(seat)
        seat.check()
        return found

    def touch(self, seat: Seat, tokens: list[Token]) -> tuple[int, Token | None]:
        """See Member: how many were found, and the first stale one."""
        deadline_ns = self._house.runtime.monotonic_ns() + seat.request.wait_ns
        stale = [token for token in tokens if not seat.flight.touch(token, deadline_ns)]
        return len(tokens) - len(stale), stale[0] if stale else None

    # Time.

    def _arm(self) -> None:
        due_ns = self.group.due_ns if self.seats else None
        if due_ns is not None and (self._timer_ns is None or due_ns < self._timer_ns):
            self._arm_at(due_ns)

    def _arm_at(self, time_ns: int) -> None:
        self._cancel_timer()
        self._timer_ns = time_ns
        delay_ns = max(0, time_ns - self._house.runtime.monotonic_ns())
        self._cancel_timer = self._house.runtime.later(delay_ns, self._time)

    def _time(self) -> None:
        self._timer_ns = None
        now_ns = self._house.runtime.monotonic_ns()
        for seat in list(self.seats):
            late = seat.flight.overdue(now_ns)
            if late:
                self.group.back(late, _LATE)
                # Others first: it has not shown that it can.
                self._roomy.pop(seat, None)
                self._roomy[seat] = None
                seat.check()
        deadlines = [found for seat in self.seats if (found := seat.flight.deadline_ns) is not None]
        if deadlines:
            self._arm_at(min(deadlines))
        self.pump()

    def fault(self, error: Exception) -> None:
        """The log could not be read: the members are told, each once."""
        self._house.runtime.fault(error)
        for seat in list(self.seats):
            seat.subscriber.failed()
