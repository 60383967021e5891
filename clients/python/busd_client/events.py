"""What a reader gets and what can go wrong.  Pure; knows nothing of bytes on a wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class BusdError(Exception):
    """The server refused a command: `code` is stable (see protocol.md, Errors), `text` is for people.

    The server's state is what it was before the command, and the connection goes on.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text


class Stale(BusdError):
    """Deliveries that were acknowledged, given back or touched too late: others have them now, or will.

    `count` of them; `first` is the token of the first, `?` when the server did not say.
    """

    def __init__(self, count: int, first: str) -> None:
        super().__init__("STALE", f"n={count} first={first}")
        self.count = count
        self.first = first


class Retry(Exception):
    """Raised by a worker's handler: give the message back, to be delivered again.

    Args:
        delay: seconds, or text like `5s`, until then; None backs off by the number of tries.
        reason: goes into the headers of the dead letter, if it comes to that.

    Raises:
        ValueError: the delay is none, or negative.
    """

    def __init__(self, delay: float | str | None = None, reason: str = "") -> None:
        if delay is not None:
            # Not at the top: `wire` needs this module.
            from busd_client.wire import duration_ns

            duration_ns(delay)
        super().__init__(delay, reason)
        self.delay = delay
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class ConnectionLost(ConnectionError):
    """The connection ended before the answer came.

    `sent`: True when the command may have reached the server, so that nobody knows whether a publish was kept;
    False when it never left, so that sending it again is safe.
    """

    def __init__(self, text: str, sent: bool = True) -> None:
        super().__init__(text)
        self.sent = sent

    @classmethod
    def by(cls, error: OSError) -> ConnectionLost:
        """What ended it as a ConnectionLost: a peer that is killed may reset the connection instead of closing it."""
        return cls(f"the connection broke: {error}")


class Message(NamedTuple):
    """One message.  `time_ns` is the server's time of receipt, Unix ns; `headers` must not be changed."""

    topic: str
    offset: int
    time_ns: int
    payload: bytes
    headers: Mapping[str, str] = NO_HEADERS

    @property
    def event_ns(self) -> int | None:
        """When it happened, by the publisher's word (header `event`), Unix ns."""
        return _time(self.headers.get("event"))

    @property
    def sent_ns(self) -> int | None:
        """When it was sent, by the publisher's clock (header `sent`), Unix ns."""
        return _time(self.headers.get("sent"))


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages from `first` to `last`, both included, that match and were not delivered.  `count` None: unknown."""

    pattern: str
    first: int
    last: int
    count: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class EndOfStream:
    """The publisher of the topic said that nothing follows; a later message reopens it."""

    topic: str
    offset: int


@dataclass(frozen=True, slots=True)
class Reset:
    """All messages of the topic before this offset were removed; `count` of them."""

    topic: str
    offset: int
    count: int


@dataclass(frozen=True, slots=True)
class End:
    """A subscription or READ is over: `reason` is end, limit, time, drained or closed; `next` is where to go on."""

    reason: str
    next: int


Event = Message | Gap | EndOfStream | Reset


class ReadResult(list[Message]):
    """The messages of one READ, and what came with them.

    `gaps`, `resets` and `ends` (of streams) are not messages and so not in the list; `next` is where a later read
    goes on; `reason` is why it ended: `end`, `limit` or `time` (nothing came in the time given).
    """

    def __init__(self) -> None:
        super().__init__()
        self.gaps: list[Gap] = []
        self.resets: list[Reset] = []
        self.ends: list[EndOfStream] = []
        self.next = 1
        self.reason = "end"

    def add(self, event: Event | End) -> None:
        """Put an event where it belongs."""
        if isinstance(event, Message):
            self.append(event)
        elif isinstance(event, Gap):
            self.gaps.append(event)
        elif isinstance(event, EndOfStream):
            self.ends.append(event)
        elif isinstance(event, Reset):
            self.resets.append(event)
        else:
            self.next, self.reason = event.next, event.reason


def _time(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
