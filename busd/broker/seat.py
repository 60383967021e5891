"""A member of a group: what it may still take, what it has out, and the way to it.

It is the Member that its session holds, from before it is open until it is gone.

Invariants:
1. No more than `window` messages are out here; with LIMIT no more than that are ever sent.
2. What is written to the outbox was noted first, in order.
3. While more than half of the outbox is full nothing is added to it but what was on its way, and END: RESETs and losses
   are kept, bounded, and ends of stream are told later, as they are then.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from busd.broker.gap import PendingMarks
from busd.broker.ports import Subscriber
from busd.broker.terms import ended_early, marks_bytes
from busd.rules.flight import Flight
from busd.rules.formats import Encoder, parts_of
from busd.rules.parts import Parts
from busd.rules.select import Selection
from busd.words.errors import BusError
from busd.words.groups import format_token
from busd.words.requests import Ack, Nack, Subscribe, Token, Touch

if TYPE_CHECKING:
    from busd.broker.desk import Desk

# What is given out at once is at least this part of a window: with windows below 8 any room is.
_LEAST_PART = 4
_MOMENT_NS = 1_000_000


class Place(Enum):
    """Where a member is: on its way in, taking messages, finishing what it has (LIMIT, WITHIN), or gone."""

    JOINING = "joining"
    SEATED = "seated"
    FINISHING = "finishing"
    GONE = "gone"


class Seat:
    """See the module."""

    def __init__(self, request: Subscribe, subscriber: Subscriber, encoder: Encoder, outbox_bytes: int) -> None:
        self.request = request
        self.subscriber = subscriber
        self.encoder, self._encode = encoder, parts_of(encoder)
        self.flight = Flight()
        self.place = Place.JOINING
        # Ends of stream that it was told of, by topic; and whether there are some that it had no room for.
        self.told: dict[bytes, int] = {}
        self.missed_ends = False
        self.gone: Callable[[Seat], None] = lambda seat: None
        self.desk: Desk | None = None
        self.cancel_timer: Callable[[], None] = lambda: None
        # ACKs whose answers are owed: the END comes behind them.
        self.unanswered = 0
        self._left = request.limit
        self._reason = ""
        self._outbox_bytes = outbox_bytes
        self._owed = PendingMarks(marks_bytes(outbox_bytes))
        # Sent, but not written to the outbox: their notes are on their way to the disk.
        self._unwritten_bytes = 0
        # With less room than this it waits a moment for more.
        self._least = request.window // _LEAST_PART
        self._waits = self._insists = False

    def room(self, size_bytes: int) -> int:
        """How many messages of about this size it takes now."""
        if self.place is not Place.SEATED:
            return 0
        room = self.request.window - self.flight.count
        if self._left is not None:
            room = min(room, self._left)
        buffered = self._buffered()
        if room <= 0 or buffered > self._outbox_bytes // 2:
            return 0
        if room < self._least and self.flight.count and not self._insists:
            self._wait_for_more()
            return 0
        self._insists = False
        return max(1, min(room, (self._outbox_bytes - buffered) // size_bytes))

    def _buffered(self) -> int:
        return self.subscriber.outbox.buffered() + self._unwritten_bytes

    def _wait_for_more(self) -> None:
        """Little room: who acknowledges small pieces of a large window would be given ever smaller ones, each with the
        costs of a hand-out.  So what comes within a moment is collected."""
        if self._waits:
            return
        self._waits = True

        def over() -> None:
            self._waits, self._insists = False, True
            self.drained()

        if self.desk is not None:
            self.desk.later(_MOMENT_NS, over)

    def encode(self, selection: Selection, tries: int) -> bytes | Parts:
        """Messages as they are sent the `tries`-th time."""
        return self._encode(selection) if tries == 1 else self.encoder.again(selection, tries)

    def sent(self, data: bytes | Parts, count: int, fresh: int) -> Callable[[], None]:
        """They are in its flight; the result writes them, once they are noted, `fresh` of the group with them."""
        self._unwritten_bytes += len(data)
        if self._left is not None:
            self._left -= count

        desk = self.desk
        assert desk is not None, "it gave them"

        def write() -> None:
            desk.unnoted -= fresh
            self._unwritten_bytes -= len(data)
            if self.place is not Place.GONE:
                self.subscriber.outbox.write(data, count)
                self.check()
                self.drained()

        return write

    # What is no delivery.

    def ended(self, mark: Selection) -> None:
        """The end of a topic's stream, now or, without room, when there is some."""
        if self._buffered() > self._outbox_bytes // 2:
            self.missed_ends = True
        else:
            self.told[mark.topics()[0]] = mark.first
            self.subscriber.outbox.write(self.encoder.messages(mark))

    def reset(self, selection: Selection) -> None:
        """Topics were RESET.  Without room to say it word for word it is a gap that no message lies in."""
        self._tell(self.encoder.messages(selection), selection.first, selection.last, 0, "slow")

    def lost(self, pattern: bytes, first: int, last: int, count: int | None, reason: str) -> None:
        """The group lost messages."""
        self._tell(self.encoder.gap(pattern, first, last, count, reason), first, last, count, reason)

    def _tell(self, event: bytes, first: int, last: int, count: int | None, reason: str) -> None:
        if not event or self.place not in (Place.SEATED, Place.FINISHING):
            return
        if self._owed or self._buffered() > self._outbox_bytes // 2:
            self._owed.keep(event, first, last, count, reason)
        else:
            self.subscriber.outbox.write(event)

    def _tell_owed(self) -> None:
        if self._owed:
            self.subscriber.outbox.write(self._owed.take(b",".join(self.request.patterns), self.encoder))

    def finish(self, reason: str) -> None:
        """Send it no more; END comes when nothing is out."""
        if self.place is Place.SEATED:
            self.place, self._reason = Place.FINISHING, reason
        self.check()

    def check(self) -> None:
        """END, where all that was asked for is done."""
        if self.place is Place.SEATED and self._left == 0:
            self.place, self._reason = Place.FINISHING, "limit"
        busy = self.flight.count or self.unanswered or self._unwritten_bytes
        if self.place is Place.FINISHING and not busy:
            self.end(self._reason)

    # Handle.

    @property
    def member(self) -> Seat:
        """See Handle."""
        return self

    def drained(self) -> None:
        """See Handle."""
        if self.desk is None or self.place not in (Place.SEATED, Place.FINISHING):
            return
        if self._buffered() <= self._outbox_bytes // 2:
            self._tell_owed()
            if self.missed_ends:
                self.desk.marks.catch_up(self)
        if self.place is Place.SEATED:
            self.desk.has_room(self)

    def end(self, reason: str | None) -> None:
        """See Handle."""
        place, desk = self.place, self.desk
        if place is Place.GONE:
            return
        if reason is not None:
            self._tell_owed()
        self._go()
        if reason is None:
            return
        if place is Place.JOINING:
            self.subscriber.refused(ended_early(reason))
            return
        next_offset = desk.group.next if desk is not None else 1
        self.subscriber.outbox.write(self.encoder.end(reason, next_offset))
        self.subscriber.ended()

    def leave(self) -> None:
        """See Handle.  What it has out goes back at once."""
        if self.place is not Place.GONE:
            self._tell_owed()
            self._go()

    def _go(self) -> None:
        self.place = Place.GONE
        self.cancel_timer()
        self.gone(self)
        if self.desk is not None:
            self.desk.left(self)

    # Member.

    def ack(self, request: Ack, sink: Callable[[int, Token | None, BusError | None], None]) -> None:
        """See Member."""
        self._seated().ack(self, request, sink)

    def nack(self, request: Nack) -> None:
        """See Member."""
        if not self._seated().nack(self, request):
            raise BusError("STALE", f"n=0 first={format_token(request.token).decode()}")

    def drain(self) -> None:
        """See Member."""
        self.finish("drained")

    def touch(self, request: Touch) -> None:
        """See Member."""
        done, stale = self._seated().touch(self, request.tokens)
        if stale is not None:
            raise BusError("STALE", f"n={done} first={format_token(stale).decode()}")

    def _seated(self) -> Desk:
        if self.desk is None or self.place not in (Place.SEATED, Place.FINISHING):
            raise BusError("GROUP", "this connection is in no group; SUB … GROUP g joins one")
        return self.desk
