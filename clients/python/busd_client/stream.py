"""One subscription, from its SUB to its END, over as many connections as it takes.

Pure: bytes in, parts out; `now_ns` (monotonic) is an argument.  Invariants:
1. `next` is where a new connection goes on: above everything given out or named by a gap, never falling.
2. What was given out is never given out again; LIMIT and WITHIN count over all connections.
3. `ended` is set once, at the END that finishes the subscription; a server that stops (`closed`) does not finish it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from busd.words.topics import is_literal
from busd_client import wire
from busd_client.events import BusdError, ConnectionLost, End, EndOfStream, Event, Gap, Message
from busd_client.runs import Matcher, Part, Run, run_of

# A server that gives these answers will soon be another one.
COMING_BACK = ("STOPPING",)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a subscription asks for; see SUB in protocol.md.  `within_ns`: None means for ever."""

    patterns: str
    start: wire.Position | None = None
    last: int | None = None
    until: wire.Position | None = None
    limit: int | None = None
    within_ns: int | None = None
    slow: str | None = None


class Stream:
    """The state of one subscription: `opening` for each new connection, then `feed` with what comes from it."""

    def __init__(self, wish: Wish) -> None:
        self._wish = wish
        self._wanted = Matcher(wish.patterns)
        self._literals = {one.decode() for one in self._wanted.patterns if is_literal(one)}
        self._replies = wire.Replies()
        self._handshake = 0
        self._failure: BusdError | ConnectionLost | None = None
        self._received = 0
        self._deadline_ns: int | None = None
        self._eofs: dict[str, int] = {}
        self.next: int | None = None
        # Of the present connection: the first offset it considers, and the server's epoch.
        self.accepted = 0
        self.epoch = 0
        self.ended: End | None = None

    @property
    def live(self) -> bool:
        """True when the present connection's SUB was accepted."""
        return self._handshake == 2

    def opening(self, now_ns: int, token: str = "") -> bytes:
        """What to send first on a new connection; everything of the one before is forgotten."""
        wish = self._wish
        self._replies = wire.Replies()
        self._handshake = 0
        self._failure = None
        if self._deadline_ns is None and wish.within_ns is not None:
            self._deadline_ns = now_ns + wish.within_ns
        within = None if self._deadline_ns is None else wire.milliseconds(max(0, self._deadline_ns - now_ns))
        start, last, slow = wish.start, wish.last, wish.slow
        if self.next is not None and (last is None or self._received):
            # FROM would mean SLOW spill; who began with drop goes on with it.
            slow = slow or ("drop" if (start, last, wish.until) == (None, None, None) else None)
            start, last = self.next, None
        limit = None if wish.limit is None else wish.limit - self._received
        words = wire.options(FROM=start, LAST=last, UNTIL=wish.until, LIMIT=limit, WITHIN=within, SLOW=slow)
        return wire.hello(token) + wire.command("SUB", wish.patterns, *words, "FORMAT", "batch")

    def lost(self, now_ns: int) -> None:
        """The connection is gone.  Sets `ended` when nothing more was to come; then no new one is needed.

        Raises:
            BusdError: it was the server's wish, told by the last `feed`.
        """
        self._handshake = 0
        if isinstance(self._failure, BusdError):
            raise self._failure
        if self.ended is None:
            if self._wish.limit is not None and self._received >= self._wish.limit:
                self.ended = End("limit", self.next or 1)
            elif self._deadline_ns is not None and now_ns >= self._deadline_ns:
                self.ended = End("time", self.next or 1)

    def check(self) -> None:
        """Raise what `feed` met behind what it gave last: no further bytes need come, so ask before waiting for them.

        Raises as `feed`.
        """
        if self._failure is not None:
            raise self._failure

    def feed(self, data: bytes) -> list[Part]:
        """What the bytes bring, in order of offsets.

        Raises:
            BusdError: SUB was refused, or what came is not the protocol; the subscription is over.
            ConnectionLost: the server is stopping, or what came is damaged; a new connection may go on.
        """
        self.check()
        parts: list[Part] = []
        try:
            for reply in self._replies.feed(data):
                if self.ended is None:
                    self._take(reply, parts)
        except (BusdError, ConnectionLost) as error:
            if not parts:
                raise
            # What came before it counts as given out, so it must be given out; `check` raises.
            self._failure = error
        return parts

    def _take(self, reply: wire.Reply, parts: list[Part]) -> None:
        if self._handshake < 2:
            self._accept(reply)
        elif isinstance(reply, list):
            self._push(reply, parts)
        else:
            # An error outside of any command: the server's last word.
            self._refused(reply)

    def _accept(self, reply: wire.Reply) -> None:
        if isinstance(reply, BusdError):
            self._refused(reply)
        if self._handshake == 0:
            wire.check_hello(reply)
        else:
            self.accepted, self.epoch = wire.accepted(reply)
            self.next = max(self.accepted, self.next or 0)
        self._handshake += 1

    def _refused(self, reply: wire.Reply) -> None:
        if isinstance(reply, BusdError) and reply.code in COMING_BACK:
            raise ConnectionLost(str(reply))
        wire.check_done(reply)
        raise BusdError("PROTO", f"an event was expected, not {reply!r:.200}")

    def _push(self, words: list[Any], parts: list[Part]) -> None:
        if words[:1] == [b"BATCH"] and len(words) == 4:
            self._batch(words[1], words[2], words[3], parts)
            return
        event = wire.event(words)
        if isinstance(event, End):
            if event.reason != "closed":
                self.next = max(event.next, self.next or 0)
                self.ended = End(wire.check_end(event).reason, self.next)
        else:
            self._event(event, parts)

    def _batch(self, first: int, last: int, frame: bytes, parts: list[Part]) -> None:
        run = run_of(first, last, frame, self._wanted)
        if run is None:
            return
        if run.control:
            for control in run.controls():
                self._event(control, parts)
            return
        parts.append(run)
        self._received += run.count
        self._reach(run.last + 1)

    def _event(self, event: Event, parts: list[Part]) -> None:
        if isinstance(event, EndOfStream):
            if self._eofs.get(event.topic) == event.offset:
                # The state of the topic, told again on a new connection.
                return
            if event.topic in self._literals:
                self._eofs[event.topic] = event.offset
        parts.append(event)
        self._received += isinstance(event, Message)
        if isinstance(event, Gap) and event.reason != "slow":
            # Where there are several stores, messages of others that lie within it come behind it.
            self._reach(event.first)
        else:
            self._reach((event.last if isinstance(event, Gap) else event.offset) + 1)

    def _reach(self, position: int) -> None:
        """Everything below it was given out or named."""
        self.next = max(position, self.next or 0)


def events_of(parts: list[Part]) -> list[Event]:
    """Parts with their runs taken apart."""
    events: list[Event] = []
    for part in parts:
        if isinstance(part, Run):
            events.extend(part.messages())
        else:
            events.append(part)
    return events


__all__ = ["COMING_BACK", "Part", "Run", "Stream", "Wish", "events_of"]
