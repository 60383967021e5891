"""Bytes to the server and from it: commands are encoded, replies and pushes decoded.

Pure: no sockets, no clock.  Invariants:
1. Every argument is a bulk string, so nothing a caller passes can become a second command.
2. Replies.feed gives the same values however the bytes are split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import hiredis

from busd.words.errors import BusError
from busd.words.units import parse_duration_ns
from busd_client.events import (
    NO_HEADERS,
    BusdError,
    ConnectionLost,
    End,
    EndOfStream,
    Event,
    Gap,
    Message,
    Reset,
)

Payload = bytes | str
Headers = Mapping[str, str] | None
Position = int | str
Duration = float | str
Reply = Any

HELLO = b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n"
_NOTHING = object()
# hiredis moves the rest of its buffer for every KiB it consumed: fed more at once, it moves more than it parses.
_FEED_BYTES = 65_536


def command(*words: bytes | str | int) -> bytes:
    """Any command as a RESP array."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        raw = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


@lru_cache(maxsize=4096)
def _publish_head(topic: str) -> bytes:
    raw = topic.encode()
    return b"*3\r\n$3\r\nPUB\r\n$%d\r\n%b\r\n$" % (len(raw), raw)


def publish(topic: str, payload: Payload, headers: Headers = None) -> bytes:
    """PUB.  Text is sent as UTF-8."""
    raw = payload if isinstance(payload, bytes) else payload.encode()
    if headers:
        return command("PUB", topic, raw, *[word for pair in headers.items() for word in pair])
    return b"%b%d\r\n%b\r\n" % (_publish_head(topic), len(raw), raw)


def hello(token: str = "") -> bytes:
    """HELLO 3, with the token of a user where there is one; its name is in it."""
    return command("HELLO", "3", "AUTH", "default", token) if token else HELLO


def publish_many(topic: str, payloads: Sequence[Payload]) -> bytes:
    """MPUB.

    Raises:
        ValueError: there is nothing to publish.
    """
    if not payloads:
        raise ValueError("MPUB takes at least one payload")
    raws = [one if isinstance(one, bytes) else one.encode() for one in payloads]
    parts = [command("MPUB", topic).replace(b"*2", b"*%d" % (len(raws) + 2), 1)]
    parts += [b"$%d\r\n%b\r\n" % (len(raw), raw) for raw in raws]
    return b"".join(parts)


def patterns_text(patterns: str | Sequence[str]) -> str:
    """Patterns as the protocol takes them: joined by commas."""
    return patterns if isinstance(patterns, str) else ",".join(patterns)


def duration_ns(value: Duration) -> int:
    """Seconds, or text like `250ms`, in ns.

    Raises:
        ValueError: it is neither, or negative.
    """
    if isinstance(value, str):
        try:
            return parse_duration_ns(value.encode())
        except BusError as error:
            raise ValueError(error.text) from None
    if value < 0:
        raise ValueError(f"{value} s is not a duration")
    return int(value * 1_000_000_000)


def milliseconds(value_ns: int) -> str:
    """A duration as the protocol takes it; rounded up, so that it is never shorter."""
    return f"{-(-value_ns // 1_000_000)}ms"


def read(
    patterns: str,
    start: Position | None = None,
    last: int | None = None,
    limit: int | None = None,
    within: Duration | None = None,
    group: str | None = None,
) -> bytes:
    """READ, answered by an array."""
    within_text = None if within is None else milliseconds(duration_ns(within))
    words = options(GROUP=group, FROM=start, LAST=last, LIMIT=limit, WITHIN=within_text)
    return command("READ", patterns, *words)


def options(**values: Position | None) -> list[str | int]:
    """Keywords and values of those that are set."""
    return [word for name, value in values.items() if value is not None for word in (name, value)]


def _reply_error(text: str) -> BusdError:
    code, _, rest = text.partition(" ")
    return BusdError(code, rest)


class Replies:
    """A decoder of what the server sends.  Errors are values of type BusdError, pushes are lists."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader(notEnoughData=_NOTHING, replyError=_reply_error)

    def feed(self, data: bytes) -> list[Reply]:
        """Every reply and push that is whole now.

        Raises:
            ConnectionLost: the bytes are not RESP; no further use of this decoder or its connection is possible.
        """
        reader = self._reader
        replies: list[Reply] = []
        try:
            for at in range(0, len(data), _FEED_BYTES):
                reader.feed(data, at, min(_FEED_BYTES, len(data) - at))
                replies.extend(iter(reader.gets, _NOTHING))
        except hiredis.ProtocolError as error:
            raise ConnectionLost(f"the server does not speak RESP: {error}") from None
        return replies


def check_hello(reply: Reply) -> dict[str, str | int]:
    """Who is there, from the answer to HELLO.

    Raises:
        BusdError: the server's own, or PROTO when it is no busd.
    """
    if isinstance(reply, BusdError):
        raise reply
    facts = pairs(reply)
    if facts.get("server") != "busd":
        raise BusdError("PROTO", f"this is no busd: {facts.get('server', reply)!r}")
    return facts


def check_end(end: End) -> End:
    """The END of a subscription.

    Raises:
        BusdError: DENIED: the server's users were changed, and it may not go on.
    """
    if end.reason == "denied":
        raise BusdError("DENIED", f"the users of the server were changed, and this may not be read on from {end.next}")
    return end


def check_integer(reply: Reply) -> int:
    """A number.

    Raises:
        BusdError: the server's own, or PROTO.
    """
    if isinstance(reply, int):
        return reply
    if isinstance(reply, BusdError):
        raise reply
    raise BusdError("PROTO", f"a number was expected, not {reply!r}")


def check_done(reply: Reply) -> Reply:
    """Anything but an error.

    Raises:
        BusdError: the server's own.
    """
    if isinstance(reply, BusdError):
        raise reply
    return reply


def text(value: Reply) -> Reply:
    """bytes as text, all else as it is."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def pairs(reply: Reply) -> dict[str, str | int]:
    """A map, or an array of names and values, as a dict; numbers stay numbers.

    Raises:
        BusdError: the server's own, or PROTO.
    """
    reply = check_done(reply)
    if isinstance(reply, list) and len(reply) % 2 == 0:
        reply = dict(zip(reply[::2], reply[1::2], strict=True))
    if not isinstance(reply, dict):
        raise BusdError("PROTO", f"names and values were expected, not {reply!r}")
    return {str(text(name)): text(value) for name, value in reply.items()}


def table(reply: Reply, kind: str = "topic") -> list[dict[str, str | int]]:
    """The answer to TOPICS: a dict a topic; or with `kind` "group" to GROUPS.

    Raises:
        BusdError: the server's own, or PROTO.
    """
    rows = []
    for line in check_done(reply):
        if isinstance(line, list) and len(line) % 2:
            line = [kind.encode(), *line]
        facts = pairs(line)
        rows.append({kind: facts.pop(kind, "") or facts.pop("name", ""), **facts})
    return rows


def sought(reply: Reply) -> int:
    """`next` from the `+OK next=…` of a SEEK.

    Raises:
        BusdError: the server's own, or PROTO.
    """
    name, _, value = str(text(check_done(reply))).removeprefix("OK ").partition("=")
    if name != "next" or not value.isdigit():
        raise BusdError("PROTO", f"+OK next=… was expected, not {reply!r}")
    return int(value)


def accepted(reply: Reply) -> tuple[int, int]:
    """`next` and `epoch` from the `+OK next=… epoch=…` of a SUB.

    Raises:
        BusdError: the server's own, or PROTO.
    """
    words = dict(word.partition("=")[::2] for word in str(text(check_done(reply))).split())
    try:
        return int(words["next"]), int(words["epoch"])
    except (KeyError, ValueError):
        raise BusdError("PROTO", f"+OK next=… epoch=… was expected, not {reply!r}") from None


def headers_of(flat: Sequence[bytes]) -> Mapping[str, str]:
    """[name, value, …] as a mapping."""
    if not flat:
        return NO_HEADERS
    words = [word.decode("utf-8", "replace") for word in flat]
    return dict(zip(words[::2], words[1::2], strict=True))


def event(words: Sequence[Any]) -> Event | End:
    """An event from its words, as in a push or in the array of a READ; BATCH is for `stream`.

    Raises:
        BusdError: PROTO, when it is none.
    """
    try:
        kind = words[0]
        if kind == b"MSG":
            _, topic, offset, time_ns, payload = words[:5]
            return Message(topic.decode(), int(offset), int(time_ns), payload, headers_of(words[5:]))
        if kind == b"GAP":
            _, pattern, first, last, count, reason = words
            return Gap(pattern.decode(), int(first), int(last), None if count is None else int(count), reason.decode())
        if kind == b"EOF":
            return EndOfStream(words[1].decode(), int(words[2]))
        if kind == b"RESET":
            return Reset(words[1].decode(), int(words[2]), int(words[3]))
        if kind == b"END":
            return End(words[1].decode(), int(words[2]))
    except (AttributeError, IndexError, TypeError, ValueError):
        pass
    raise BusdError("PROTO", f"an event was expected, not {words!r:.200}")
