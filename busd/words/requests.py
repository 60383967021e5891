"""What a client can ask, as data.  Both codecs produce these; the session and the broker know no others.

`eol` is the line end of the answer: that of the line that asked, CR LF in RESP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from busd.words.errors import BusError
from busd.words.units import NS_PER_S, Position

Item = bytes | list[bytes]
Slow = Literal["drop", "spill"]
Format = Literal["line", "raw", "bytes", "json", "msg", "batch"]
INLINE_FORMATS: tuple[Format, ...] = ("line", "raw", "bytes", "json")
RESP_FORMATS: tuple[Format, ...] = ("msg", "batch")
# These carry payloads and nothing else: no reply, no GAP; they end at a loss rather than jump it.
BARE_FORMATS: tuple[Format, ...] = ("raw", "bytes")
# A delivery in a group: the offset, and the how-manieth time it was given out.  `17` is (17, 1), `17.2` is (17, 2).
Token = tuple[int, int]
# Long enough for most commands, short enough that a worker that hangs is noticed within a coffee.
WAIT_NS = 30 * NS_PER_S


@dataclass(slots=True, kw_only=True)
class Request:
    """Anything a client asks."""

    eol: bytes = b"\n"


@dataclass(slots=True)
class Publish(Request):
    """A run of messages.  One topic for all, or one a message (then as many topics as items).

    Args:
        topics: checked topics.
        items: payloads; with headers [payload, key, value, …].
        headers: True when an item may be a list.
        ids: False when it is known that none of the items has the header `id`.
        answers: an offset for `each` message, or the `first` only.
        kind: a message, an end of stream (`eof`) or a removal (`reset`; made by the broker, never by a codec).
        size_bytes: of all payloads and headers, or a little more.
        source: whose it is: runs of one keep their order.
    """

    topics: bytes | Sequence[bytes]
    items: list[Item]
    size_bytes: int
    headers: bool = False
    ids: bool = field(default=True, compare=False)
    answers: Literal["each", "first"] = "each"
    kind: Literal["message", "eof", "reset"] = "message"
    source: object = None


@dataclass(slots=True)
class Subscribe(Request):
    """SUB: at most one of `start` and `last` is set; with neither, live from `next` (or from `first` with `until`)."""

    patterns: tuple[bytes, ...]
    start: Position | None = None
    last: int | None = None
    until: Position | None = None
    limit: int | None = None
    within_ns: int | None = None
    slow: Slow | None = None
    format: Format = "line"
    group: bytes = b""
    window: int = 1
    wait_ns: int = WAIT_NS
    tries: int | None = None


@dataclass(slots=True)
class Read(Request):
    """READ: what is there, one answer.  `within_ns`: how long it may wait for a first message.

    With `group` only what that group has not settled; nothing is given out by it.
    """

    patterns: tuple[bytes, ...]
    start: Position | None = None
    last: int | None = None
    limit: int | None = None
    within_ns: int | None = None
    format: Format = "line"
    group: bytes = b""


@dataclass(slots=True)
class Unsub(Request):
    """UNSUB [DRAIN]; `drain`: a member takes no more, and is over when what it has out is settled."""

    drain: bool = False


@dataclass(slots=True)
class Reset(Request):
    """RESET pattern."""

    patterns: tuple[bytes, ...]


@dataclass(slots=True)
class Ack(Request):
    """ACK: `through` and all that was sent before it on this connection, then `tokens`."""

    tokens: list[Token]
    through: Token | None = None


@dataclass(slots=True)
class Nack(Request):
    """NACK: give one back; without `delay_ns` it backs off."""

    token: Token
    delay_ns: int | None = None
    reason: bytes = b""


@dataclass(slots=True)
class Touch(Request):
    """TOUCH: these need more time."""

    tokens: list[Token]


@dataclass(slots=True)
class Seek(Request):
    """SEEK group pos."""

    group: bytes
    position: Position


@dataclass(slots=True)
class Forget(Request):
    """FORGET group."""

    group: bytes


@dataclass(slots=True)
class Groups(Request):
    """GROUPS [pattern]; the pattern is one of group names."""

    patterns: tuple[bytes, ...]


@dataclass(slots=True)
class Topics(Request):
    """TOPICS [pattern]."""

    patterns: tuple[bytes, ...]


@dataclass(slots=True)
class Info(Request):
    """INFO [section]; the empty section is all of them."""

    section: str = ""


@dataclass(slots=True)
class Conns(Request):
    """CONNS."""


@dataclass(slots=True)
class Help(Request):
    """HELP [command]."""

    command: str = ""


@dataclass(slots=True)
class Ping(Request):
    """PING [payload], ECHO payload."""

    payload: bytes | None = None


@dataclass(slots=True)
class Auth(Request):
    """AUTH [user] token; without a user the token begins with its name.  Its text never holds the token."""

    user: bytes
    token: bytes = field(repr=False)


@dataclass(slots=True)
class Hello(Request):
    """HELLO [2|3 [AUTH user token]]."""

    version: int | None = None
    auth: Auth | None = None


@dataclass(slots=True)
class Quiet(Request):
    """QUIET [ON|OFF]."""

    on: bool = True


@dataclass(slots=True)
class Quit(Request):
    """QUIT."""


@dataclass(slots=True)
class Housekeeping(Request):
    """What Redis clients ask unprompted.  `empty`: the answer is an empty list, else OK."""

    empty: bool = False


@dataclass(slots=True)
class Bad(Request):
    """Something that cannot be carried out; answered in its place, `times` times.

    `unknown`: it did not even name a command.  `closes`: nothing can follow, also when the error is not fatal.
    """

    error: BusError
    unknown: bool = False
    times: int = 1
    closes: bool = False

    def __post_init__(self) -> None:
        # A raised exception keeps the frames it came through, with the whole read and the requests before this one.
        self.error.__traceback__ = self.error.__context__ = None
