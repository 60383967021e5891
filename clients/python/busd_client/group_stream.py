"""One membership of a group, from its SUB to its END, over as many connections as it takes.

Pure: bytes in, parts out and what the server is to be told; `now_ns` (monotonic) is an argument.  Invariants:
1. Each connection has a ledger of its own; that of a lost one is closed, so that nothing of it is told to the next.
2. LIMIT and WITHIN count over all connections.
3. `ended` is set once: by the END that finishes the subscription, or with `until_eof` when every topic has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from busd.words.topics import is_literal
from busd_client import wire
from busd_client.deliveries import Deliveries, Delivery, GroupPart, Ledger, delivery_of
from busd_client.events import BusdError, ConnectionLost, End, EndOfStream, Event
from busd_client.runs import Matcher, run_of
from busd_client.stream import COMING_BACK

# Acknowledgements that do not wait for others: a quarter of the window, so that the server refills it while the rest
# is worked on, but not so few that a write is more work than the messages.
_PARTS_OF_WINDOW = 4
_MIN_TOGETHER = 16


@dataclass(frozen=True, slots=True)
class GroupWish:
    """What a member asks for; see SUB … GROUP in protocol.md.  None is the server's default.

    `until_eof`: it is over when all its topics, which must be literal, have ended.
    """

    patterns: str
    group: str
    start: wire.Position | None = None
    limit: int | None = None
    within_ns: int | None = None
    window: int = 1
    wait_ns: int | None = None
    tries: int | None = None
    until_eof: bool = False

    def __post_init__(self) -> None:
        if self.until_eof and not all(is_literal(one.encode()) for one in self.patterns.split(",")):
            raise ValueError(f"{self.patterns}: only topics end, patterns with * or > do not")


def group_wish(
    patterns: str | Sequence[str],
    group: str,
    start: wire.Position | None = None,
    limit: int | None = None,
    within: wire.Duration | None = None,
    window: int = 1,
    wait: wire.Duration | None = None,
    tries: int | None = None,
    until_eof: bool = False,
) -> GroupWish:
    """A GroupWish from what callers write: seconds, or text like `250ms`.

    Raises:
        ValueError: a duration that is none, or `until_eof` with patterns.
    """
    within_ns = None if within is None else wire.duration_ns(within)
    wait_ns = None if wait is None else wire.duration_ns(wait)
    text = wire.patterns_text(patterns)
    return GroupWish(text, group, start, limit, within_ns, window, wait_ns, tries, until_eof)


class GroupStream:
    """The state of one membership: `opening` for each new connection, then `feed` with what comes from it.

    `gather` is what a Ledger takes: called when there are `commands` to be sent, True when they should go now.
    """

    def __init__(self, wish: GroupWish, gather: Callable[[bool], None]) -> None:
        self._wish = wish
        self._gather = gather
        self._wanted = Matcher(wish.patterns)
        self._literals = {one.decode() for one in self._wanted.patterns if is_literal(one)}
        self._replies = wire.Replies()
        self._handshake = 0
        self._failure: BusdError | ConnectionLost | None = None
        self._received = 0
        self._deadline_ns: int | None = None
        self._eofs: dict[str, int] = {}
        self._open_topics = set(self._literals)
        self._settled = 0
        self._stale = 0
        self.ledger = Ledger(gather)
        # Of the present connection: where the group stood, and the server's epoch.
        self.accepted = 0
        self.epoch = 0
        self.ended: End | None = None
        self._draining = False

    def drain(self) -> None:
        """Ask for nothing more; `ended` is set when all that is out is settled, or the connection is lost."""
        self._draining = True
        self.ledger.drain()

    @property
    def live(self) -> bool:
        """True when the present connection's SUB was accepted."""
        return self._handshake == 2

    @property
    def settled(self) -> int:
        """Deliveries that the server said it settled."""
        return self._settled + self.ledger.settled

    @property
    def stale(self) -> int:
        """Deliveries that were acknowledged, given back or touched too late."""
        return self._stale + self.ledger.stale

    def opening(self, now_ns: int, token: str = "") -> bytes:
        """What to send first on a new connection."""
        wish = self._wish
        self._leave()
        self._replies = wire.Replies()
        self._failure = None
        earlier = self.ledger
        self.ledger = Ledger(self._gather, max(_MIN_TOGETHER, wish.window // _PARTS_OF_WINDOW))
        self.ledger.take_over(earlier)
        if self._deadline_ns is None and wish.within_ns is not None:
            self._deadline_ns = now_ns + wish.within_ns
        within = None if self._deadline_ns is None else wire.milliseconds(max(0, self._deadline_ns - now_ns))
        limit = None if wish.limit is None else wish.limit - self._received
        wait = None if wish.wait_ns is None else wire.milliseconds(wish.wait_ns)
        options = wire.options(
            GROUP=wish.group, FROM=wish.start, WINDOW=wish.window, WAIT=wait, TRIES=wish.tries, LIMIT=limit,
            WITHIN=within,
        )  # fmt: skip
        return wire.hello(token) + wire.command("SUB", wish.patterns, *options, "FORMAT", "batch")

    def lost(self, now_ns: int) -> None:
        """The connection is gone, and what it brought is stale.  Sets `ended` when nothing more was to come.

        Raises:
            BusdError: it was the server's wish, told by the last `feed`.
        """
        self._leave()
        if isinstance(self._failure, BusdError):
            raise self._failure
        if self.ended is None:
            if self._draining:
                self.ended = End("drained", 0)
            elif self._deadline_ns is not None and now_ns >= self._deadline_ns:
                self.ended = End("time", 0)
            elif self._wish.limit is not None and self._received >= self._wish.limit:
                self.ended = End("limit", 0)

    def check(self) -> None:
        """Raise what `feed` met behind what it gave last: no further bytes need come, so ask before waiting for them.

        Raises as `feed`.
        """
        if self._failure is not None:
            raise self._failure

    def feed(self, data: bytes) -> list[GroupPart]:
        """What the bytes bring.

        Raises:
            BusdError: SUB was refused, or what came is not the protocol; the subscription is over.
            ConnectionLost: the server is stopping, or what came is damaged; a new connection may go on.
        """
        self.check()
        parts: list[GroupPart] = []
        try:
            for reply in self._replies.feed(data):
                if self._handshake == 2 and isinstance(reply, list):
                    if self.ended is None:
                        self._push(reply, parts)
                else:
                    self._answer(reply)
        except (BusdError, ConnectionLost) as error:
            if not parts:
                raise
            # What came before it was entered into the ledger, so it must be given out; `check` raises.
            self._failure = error
        return parts

    def _leave(self) -> None:
        self._handshake = 0
        # Also of a closed one: who hangs up does that first.  What was not settled comes again, so is not stale here.
        self._settled += self.ledger.settled
        self._stale += self.ledger.stale
        self.ledger.settled = self.ledger.stale = 0
        self.ledger.close()

    def _answer(self, reply: wire.Reply) -> None:
        if isinstance(reply, BusdError) and reply.code in COMING_BACK:
            raise ConnectionLost(str(reply))
        if self._handshake == 2:
            if not self.ledger.answered(reply):
                wire.check_done(reply)
                raise BusdError("PROTO", f"an event was expected, not {reply!r:.200}")
            return
        if self._handshake == 0:
            wire.check_hello(reply)
        else:
            self.accepted, self.epoch = wire.accepted(reply)
        self._handshake += 1

    def _push(self, words: list[Any], parts: list[GroupPart]) -> None:
        kind = words[0] if words else None
        if kind == b"BATCH" and len(words) == 4:
            run = run_of(words[1], words[2], words[3], self._wanted)
            if run is not None and run.control:
                for control in run.controls():
                    self._event(control, parts)
            elif run is not None:
                parts.append(Deliveries(run, self.ledger))
                self._received += run.count
                if self._wish.until_eof:
                    self._open_topics.update(map(bytes.decode, run.topics()))
        elif kind == b"MSG":
            delivery = delivery_of(words, self.ledger)
            parts.append(delivery)
            self._received += 1
            if self._wish.until_eof:
                self._open_topics.add(delivery.topic)
        else:
            event = wire.event(words)
            if not isinstance(event, End):
                self._event(event, parts)
            elif event.reason != "closed":
                self.ended = wire.check_end(event)

    def _event(self, event: Event, parts: list[GroupPart]) -> None:
        assert not isinstance(event, Delivery)
        if isinstance(event, EndOfStream):
            known = self._eofs.get(event.topic) == event.offset
            if event.topic in self._literals:
                self._eofs[event.topic] = event.offset
            self._open_topics.discard(event.topic)
            if self._wish.until_eof and not self._open_topics:
                self.ended = End("eof", event.offset + 1)
            if known:
                # The state of the topic, told again on a new connection.
                return
        parts.append(event)  # type: ignore[arg-type]


def taken_apart(parts: list[GroupPart]) -> list[Any]:
    """Parts with their deliveries one by one."""
    events: list[Any] = []
    for part in parts:
        if isinstance(part, Deliveries):
            events.extend(part.messages())
        else:
            events.append(part)
    return events


def deliveries_of(parts: list[GroupPart]) -> list[Delivery]:
    """The deliveries among the parts."""
    return [event for event in taken_apart(parts) if isinstance(event, Delivery)]
