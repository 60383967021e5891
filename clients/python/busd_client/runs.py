"""Messages that came together, and how they are taken out of what FORMAT batch sends.

Pure.  Invariant: per batch Python, per message C; nothing is decoded before it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat

from busd.rules import envelope, record
from busd.rules.select import Selection, select
from busd.words.topics import matches
from busd_client import wire
from busd_client.events import NO_HEADERS, BusdError, ConnectionLost, EndOfStream, Event, Message, Reset

# Topics of which it is remembered whether they match: some MiB at the most.
_MAX_KNOWN = 16_384


class Run:
    """Messages that came together: they share one time of receipt.  For those who handle thousands at once."""

    __slots__ = ("_headers", "count", "selection", "time_ns")

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self._headers = "h" in selection.batch.flags
        self.count = selection.count
        self.time_ns = selection.batch.time_ns

    @property
    def last(self) -> int:
        """Offset of the last one."""
        return self.selection.last

    def offsets(self) -> Sequence[int]:
        """Their offsets, rising."""
        return self.selection.offsets()

    def topics(self) -> list[bytes]:
        """The topic of each."""
        return self.selection.topics()

    def names(self) -> Iterator[str]:
        """The topic of each, as text."""
        names = {topic: topic.decode() for topic in self.selection.batch.topics}
        return map(names.__getitem__, self.topics())

    def payloads(self) -> list[bytes]:
        """The payload of each."""
        items = self.selection.items()
        if not self._headers:
            return items  # type: ignore[return-value]
        return [item if isinstance(item, bytes) else item[0] for item in items]

    def messages(self) -> list[Message]:
        """All of them as messages."""
        columns = (self.names(), self.offsets(), repeat(self.time_ns), self.payloads())
        return list(map(Message._make, zip(*columns, self.headers(), strict=False)))

    def headers(self) -> Iterable[Mapping[str, str]]:
        """The headers of each; without any in the whole record it has no end."""
        if not self._headers:
            return repeat(NO_HEADERS)
        items = self.selection.items()
        return [NO_HEADERS if isinstance(item, bytes) else wire.headers_of(item[1:]) for item in items]

    @property
    def control(self) -> bool:
        """True when they are no messages but `controls`."""
        return self.selection.batch.control

    def controls(self) -> Iterator[EndOfStream | Reset]:
        """What they are when the record is no record of messages: ends of streams, or resets."""
        reset = "r" in self.selection.batch.flags
        for topic, offset, payload in zip(self.topics(), self.offsets(), self.payloads(), strict=True):
            yield Reset(topic.decode(), offset, int(payload)) if reset else EndOfStream(topic.decode(), offset)


Part = Run | Event


class Matcher:
    """Whether a topic matches one of the patterns; remembers what it was asked."""

    def __init__(self, patterns: str) -> None:
        self.patterns = tuple(one.encode() for one in patterns.split(","))
        self._known: dict[bytes, bool] = {}

    def __call__(self, topic: bytes) -> bool:
        known = self._known.get(topic)
        if known is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            known = self._known[topic] = any(matches(pattern, topic) for pattern in self.patterns)
        return known


def run_of(first: int, last: int, frame: bytes, wanted: Matcher) -> Run | None:
    """The messages of a BATCH that are meant for this reader; None when there are none.

    Raises:
        ConnectionLost: it was damaged on its way.
        BusdError: PROTO, it is no record of messages.
    """
    try:
        # A whole record is what `parse` takes.
        if envelope.peek(frame)[1] != len(frame):
            raise envelope.BadRecord("short", "its length is not what it says")
        batch = record.parse(frame)
    except envelope.BadRecord as error:
        raise ConnectionLost(f"a batch was damaged on its way: {error}") from None
    if not isinstance(batch, record.Batch):
        raise BusdError("PROTO", "a batch was expected, not another record")
    selection = select(batch, wanted, int(first), int(last) + 1)
    return None if selection is None else Run(selection)
