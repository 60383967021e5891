"""One connection's conversation: bytes in, requests in order, answers in order.  No sockets: it is given a Wire.

Invariants:
1. Answers leave in the order of the commands.  PUBs may wait for the disk many at a time; any other command waits
   until those before it are answered.
2. What is held for a connection is bounded: one read's requests, and its outbox.  When more would come, it is not read.
3. Only this file decides to hang up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from busd.broker import greeting, group_talk, questions
from busd.broker.gate import Gate
from busd.broker.intake import Intake
from busd.broker.ports import Engine, Handle, Outbox, Outcome
from busd.broker.questions import Host
from busd.broker.turns import Turns
from busd.broker.turnstile import TURN, WEIGHTS
from busd.broker.voice import Collector, Voice, Wire
from busd.rules.replies import AnswerArray, RespReplies
from busd.words import requests as rq
from busd.words.errors import BusError
from busd.words.settings import Limits


class Session:
    """See the module.  It is the Subscriber of its own subscription."""

    def __init__(self, engine: Engine, wire: Wire, host: Host, limits: Limits, gate: Gate | None = None) -> None:
        self.outbox: Outbox = wire
        self.subscription: str = ""
        self.gate = gate or Gate()
        self.engine = engine
        self._wire = wire
        self.host = host
        self._limits = limits
        self._intake = Intake(limits, host.unfinished, self._last_words)
        self.voice = Voice(wire)
        self._queue: deque[rq.Request] = deque()
        # Answers that are owed, and the one type of command that may go on while they are.
        self._outstanding = 0
        self._pipelined: type[rq.Request] = rq.Publish
        self._turns = Turns(engine, self._published)
        self._opening: rq.Subscribe | rq.Read | None = None
        # What the subscription or READ reads, while there is one.
        self._patterns: tuple[bytes, ...] = ()
        self.handle: Handle | None = None
        self._answer: AnswerArray | None = None
        self._understood = False
        self._input_ended = False
        self._paused = False
        self._awaits_room = False
        self._closed = False
        self._reading = self._bare = self._pumping = False
        # Waits at the turnstile to go on.
        self._in_line = False
        # Also without a subscription `drained` must come when more was written than may be.
        wire.bound(limits.outbox_bytes // 2)

    @property
    def dialect(self) -> str:
        """For CONNS: inline, resp2, resp3, or nothing before the first byte."""
        if self._intake.silent:
            return "-"
        return f"resp{self.voice.version}" if self.voice.version else "inline"

    @property
    def half_closed(self) -> bool:
        """The peer sends no more, or cannot be heard while a PUB of its is held; it is owed something still."""
        return (self._input_ended or self._turns.held) and not self._closed

    # What the connection tells.

    def received(self, data: bytes, now_ns: int) -> None:
        """Bytes came; `now_ns` by the monotonic clock."""
        if self._closed or self._input_ended:
            return
        intake = self._intake
        if intake.silent and intake.begin(data):
            self.voice.replies = RespReplies()
        if self.gate.stranger:
            intake.feed_stranger(data, now_ns, self._heard)
            return
        self._queue.extend(intake.feed(data, now_ns, bool(self._queue)))
        if intake.counts:
            intake.charge()
        self._pump()

    def _heard(self, requests: list[rq.Request]) -> bool:
        """A stranger's; True as long as it is one, and is listened to."""
        self._queue.extend(requests)
        self._pump()
        return self.gate.stranger and not (self._closed or self._input_ended)

    def end_of_input(self) -> None:
        """The peer sends no more, but may go on reading."""
        if self._closed or self._input_ended:
            return
        self._input_ended = True
        if (cut := self._intake.end()) is not None:
            self._queue.append(cut)
        self._pump()

    def lost(self) -> None:
        """The connection is gone."""
        self._answer, self._closed, self.voice.hung_up = None, True, True
        self._queue.clear()
        self._intake.forget()
        self._turns.drop()
        if self.handle is not None:
            handle, self.handle = self.handle, None
            handle.end(None)

    def drained(self) -> None:
        """The outbox has room again."""
        if self.handle is not None:
            self.handle.drained()
        self._soon_pump()

    def expire(self, now_ns: int) -> None:
        """Close when a command was begun too long ago, or nobody has said who this is."""
        if self._closed:
            return
        self._intake.expire(now_ns, self._paused)
        if (error := self.gate.overdue(now_ns)) is not None:
            self._intake.give_up(error)

    def renew(self) -> None:
        """The users were read again: what is no longer allowed ends."""
        known = self.gate.renew()
        if self.handle is not None and not self.gate.may_read(self._patterns):
            self.handle.end("denied")
        if not known and not (self._closed or self._input_ended):
            # What it asked before is answered first; what waits for room is given up.
            self._queue.clear()
            self._turns.drop()
            self._intake.give_up(BusError("AUTH", "this user, or its token, is no more; say AUTH with another"))

    def _last_words(self, bad: rq.Bad) -> None:
        if self._closed:
            return
        if self.gate.stranger and self._wire.buffered() > self._limits.outbox_bytes:
            # Its other commands wait for room, and it may never read.
            self._queue.clear()
        elif self._input_ended:
            return
        self._input_ended = True
        self._queue.append(bad)
        self._soon_pump()

    def stop(self) -> None:
        """The server stops: what was accepted is answered, nothing more is read."""
        if not self._input_ended:
            self._input_ended = True
            self._queue.clear()
            self._intake.forget()
        self._steer()

    # Subscriber.

    def opened(self, next_offset: int, epoch: int) -> None:
        """See Subscriber."""
        request, self._opening = self._opening, None
        if isinstance(request, rq.Subscribe):
            self.subscription = b",".join(request.patterns).decode()
            if request.format not in rq.BARE_FORMATS:
                self.voice.ok(request.eol, f"next={next_offset} epoch={epoch}")
            self._soon_pump()

    def refused(self, error: BusError) -> None:
        """See Subscriber."""
        request, self._opening, self.handle, self._answer = self._opening, None, None, None
        self._reading = False
        if request is not None:
            self._error(error, request.eol)
        self._soon_pump()

    def ended(self) -> None:
        """See Subscriber."""
        self.handle, self._opening, self.subscription = None, None, ""
        self._reading = False
        if self._answer is not None:
            answer, self._answer = self._answer, None
            self._wire.write(answer.bytes())
        if self._bare:
            # Closed as after a half-close: what is still owed to PUBs is answered first.
            self._bare = False
            self._input_ended = True
            self._queue.clear()
        self._soon_pump()

    def failed(self) -> None:
        """See Subscriber; also for any other fault that concerns this connection only."""
        self._error(BusError("INTERNAL", "a fault of busd; its log says more"), b"\n")

    # The order of things.

    def _soon_pump(self) -> None:
        """Go on, unless the call came from within the pump, which goes on by itself."""
        if not self._pumping:
            self._pump()

    def _turn(self) -> None:
        self._in_line = False
        self._soon_pump()

    def _pump(self) -> None:
        if self._in_line:
            # It is not its turn.
            self._steer()
            return
        self._pumping = True
        queue, left = self._queue, TURN
        try:
            while queue and not (self._closed or self._opening or self._reading or self._turns.held):
                request = queue[0]
                kind = type(request)
                full = self._wire.buffered() > self._limits.outbox_bytes
                if full and not (isinstance(request, rq.Bad) and request.closes):
                    # Short commands can have long answers; `drained` goes on.  Last words need no room.
                    break
                if self._outstanding and kind is not self._pipelined:
                    break
                if left <= 0:
                    # Others first.
                    self._in_line = True
                    self.host.costly(self._turn)
                    break
                queue.popleft()
                left -= WEIGHTS.get(kind, 1)
                self._handle_request(request)
        finally:
            self._pumping = False
        self._steer()

    def _steer(self) -> None:
        """Read or not, close or not."""
        if self._closed:
            return
        if self._input_ended:
            self._finish()
            return
        congested = self.engine.congested
        pause = bool(self._queue) or congested or self._wire.buffered() > self._limits.outbox_bytes
        if congested and not self._awaits_room:
            self._awaits_room = True
            self.engine.when_roomy(self._room, self._intake.read_bytes)
        if pause != self._paused:
            self._paused = pause
            (self._wire.pause_reading if pause else self._wire.resume_reading)()

    def _finish(self) -> None:
        """Nothing is read any more: close once nothing is owed."""
        if self._queue or self._outstanding or self._opening is not None or self._reading:
            return
        if self.handle is not None and self.handle.member is not None:
            # It cannot acknowledge any more, so it is no member.
            handle, self.handle = self.handle, None
            handle.leave()
        if self.handle is None:
            self._close()

    def _room(self) -> None:
        self._awaits_room = False
        self._steer()

    def _handle_request(self, request: rq.Request) -> None:
        self._understood = self._understood or not (type(request) is rq.Bad and request.unknown)
        try:
            if self.gate.bounded:
                self.gate.admit(request, self.engine)
            _HANDLERS[type(request)](self, request)
        except BusError as error:
            self._error(error, request.eol)

    # A handler for each request.

    def _publish(self, run: rq.Publish) -> None:
        if self.gate.bounded and (parts := self.gate.parts(run, self.engine)) is not None:
            self._queue.extendleft(reversed(parts))
            return
        self._outstanding += 1
        self._pipelined = rq.Publish
        try:
            # A member is not held: its acknowledgements, which make room, would be held with it.
            self._turns.publish(run, hold=self.handle is None or self.handle.member is None)
        except BusError as error:
            self._outstanding -= 1
            times = len(run.items) if run.answers == "each" else 1
            self._queue.appendleft(rq.Bad(error, times=times, eol=run.eol))

    def _published(self, run: rq.Publish, outcome: Outcome) -> None:
        self._outstanding -= not outcome.more
        if self.voice.outcome(run, outcome):
            self._close()
        if self._queue or self._paused or self._input_ended:
            self._soon_pump()

    def _subscribe(self, request: rq.Subscribe) -> None:
        if self.handle is not None:
            raise BusError("BUSY", "this connection has a subscription; UNSUB ends it")
        if self.voice.version == 2:
            raise BusError("PROTO", "SUB in RESP2 would mix events with replies; send HELLO 3 first, or READ")
        self._opening, self._patterns = request, request.patterns
        self._bare = request.format in rq.BARE_FORMATS
        enter = self.engine.join if request.group else self.engine.subscribe
        self._attach(enter(request, self, self.voice.version))

    def _read(self, request: rq.Read) -> None:
        if self.handle is not None:
            raise BusError("BUSY", "this connection has a subscription; UNSUB ends it")
        self._opening, self._patterns = request, request.patterns
        self._reading = True
        self._bare = request.format in rq.BARE_FORMATS
        self._answer = AnswerArray() if self.voice.version else None
        reader = self if self._answer is None else Collector(self, self._answer)
        self._attach(self.engine.read(request, reader, self.voice.version))

    def _attach(self, handle: Handle) -> None:
        """Keep the handle, unless it was all over within the call."""
        if self._opening is not None or self._reading or self.subscription:
            self.handle = handle

    def _unsub(self, request: rq.Unsub) -> None:
        if request.drain:
            member = group_talk.member(self.handle)
            self.voice.ok(request.eol)
            member.drain()
            return
        handle, self.handle, self.subscription = self.handle, None, ""
        if handle is not None:
            handle.leave()
        self.voice.ok(request.eol)

    def owe(self, pipelined: type[rq.Request]) -> None:
        """See group_talk.Talk."""
        self._outstanding += 1
        self._pipelined = pipelined

    def paid(self) -> None:
        """See group_talk.Talk."""
        self._outstanding -= 1
        self._soon_pump()

    def _reset(self, request: rq.Reset) -> None:
        # PUBs would be told by another way, some of them within the call.
        self.owe(rq.Request)
        try:
            self.engine.reset(request.patterns, lambda outcome: self._removed(request, outcome))
        except BusError:
            self._outstanding -= 1
            raise

    def _removed(self, request: rq.Reset, outcome: Outcome) -> None:
        if outcome.errors:
            self._error(next(iter(outcome.errors.values())), request.eol)
        else:
            self.voice.number(request.eol, outcome.removed)
        self.paid()

    def _quieten(self, request: rq.Quiet) -> None:
        self.voice.quiet = request.on
        self.voice.ok(request.eol)

    def _quit(self, request: rq.Quit) -> None:
        self.voice.ok(request.eol)
        self._close()

    def _bad(self, request: rq.Bad) -> None:
        self._error(request.error, request.eol, 1 if request.error.fatal else request.times)
        if request.closes or (request.unknown and not self._understood and not self.voice.version):
            self._close()

    def _error(self, error: BusError, eol: bytes, times: int = 1) -> None:
        self.voice.error(error, eol, times)
        if error.fatal:
            self._close()

    def _close(self) -> None:
        if not self._closed:
            self.lost()
            self._wire.close()


_HANDLERS: dict[type[rq.Request], Callable[..., None]] = {
    **questions.HANDLERS,
    **greeting.COMMANDS,
    **group_talk.COMMANDS,
    rq.Publish: Session._publish,
    rq.Subscribe: Session._subscribe,
    rq.Read: Session._read,
    rq.Unsub: Session._unsub,
    rq.Reset: Session._reset,
    rq.Quiet: Session._quieten,
    rq.Quit: Session._quit,
    rq.Bad: Session._bad,
}
