r"""What `busd sub`, `read` and `cat` print: events as bytes, in the formats of protocol.md and two for people.

    raw      payload and LF (the default: like cat and tail)     bytes   payload alone
    line     MSG topic offset payload …                          json    an object a line
    offset   offset TAB topic TAB payload                        time    time of receipt (UTC) TAB topic TAB payload

Pure.  Invariants:
1. In `raw` and `bytes` nothing but payloads is printed, in `offset` and `time` nothing but messages.
2. `printable` leaves no character through that could steer a terminal.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from busd_client.deliveries import Delivery
from busd_client.events import End, EndOfStream, Gap, Message, Reset
from busd_client.stream import Part, Run

from busd.rules.formats import Encoder, encoder_for
from busd.rules.formats import Raw as RawEncoder
from busd.rules.items import Item
from busd.rules.record import frame
from busd.rules.select import Selection

FORMATS = ("raw", "line", "bytes", "json", "offset", "time")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Formatter:
    """Parts of a stream as bytes; `null`: NUL ends a message instead of LF."""

    def __init__(self, name: str, null: bool = False) -> None:
        self._name = name
        self._eol = b"\0" if null else b"\n"
        self._encoder: Encoder | None = None
        if name == "raw":
            self._encoder = RawEncoder(self._eol)
        elif name in ("line", "bytes", "json"):
            self._encoder = encoder_for(name, self._eol)

    def part(self, part: Part | End) -> bytes:
        """One part."""
        if isinstance(part, Run):
            return self.messages(part.selection)
        if isinstance(part, Gap | End):
            return self._notice(part)
        return self.messages(_selection(part))

    def delivery(self, delivery: Delivery) -> bytes:
        """A message that a group was given, with its token where the format has a place for it."""
        selection = _selection(delivery.message)
        if self._encoder is not None and delivery.tries > 1:
            return self._encoder.again(selection, delivery.tries)
        return self.messages(selection)

    def _notice(self, part: Gap | End) -> bytes:
        if self._encoder is None:
            return b""
        if isinstance(part, Gap):
            return self._encoder.gap(part.pattern.encode(), part.first, part.last, part.count, part.reason)
        return self._encoder.end(part.reason, part.next)

    def messages(self, selection: Selection) -> bytes:
        """The messages, ends of stream or resets of a record."""
        if self._encoder is not None:
            return self._encoder.messages(selection)
        if selection.batch.control:
            return b""
        run = Run(selection)
        if self._name == "time":
            stamp = time_text(run.time_ns).encode()
            rows = zip(run.topics(), run.payloads(), strict=True)
            return b"".join([b"%b\t%b\t%b%b" % (stamp, topic, payload, self._eol) for topic, payload in rows])
        numbered = zip(run.offsets(), run.topics(), run.payloads(), strict=True)
        return b"".join([b"%d\t%b\t%b%b" % (offset, topic, payload, self._eol) for offset, topic, payload in numbered])


def _selection(event: Message | EndOfStream | Reset) -> Selection:
    """A single event as the record it would stand in, so that there is one way to write each."""
    time_ns, flags = 0, "e"
    items: list[Item] = [b""]
    if isinstance(event, Reset):
        flags, items = "r", [b"%d" % event.count]
    elif isinstance(event, Message):
        words = [word.encode() for pair in event.headers.items() for word in pair]
        time_ns, flags, items = event.time_ns, "h", [[event.payload, *words]]
    batch = frame(event.offset, time_ns, 0, 0, flags, (event.topic.encode(),), None, None, items)
    return Selection(batch, 0, 1, None, 1)


def time_text(time_ns: int) -> str:
    """Unix ns as ISO 8601, UTC, with microseconds."""
    seconds, rest_ns = divmod(time_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest_ns // 1000:06d}Z"


def printable(data: bytes) -> bytes:
    r"""For a terminal: control characters but LF and tab, and bytes that are no UTF-8, as \xNN."""
    text = data.decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text).encode()


def gap_text(gap: Gap) -> str:
    """A loss, for people."""
    count = "an unknown number of" if gap.count is None else str(gap.count)
    return f"lost {count} messages of {gap.pattern}, offsets {gap.first} to {gap.last} ({gap.reason})"
