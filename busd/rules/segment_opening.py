"""What a segment begins with: where it stands in its log, and what each topic had before it.

Pure: knows bytes, not files.  Invariant: `topic_lines` and `Opening.topics`, `frame_opening` and `opening_of` are the
only writers and readers of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from busd.rules.envelope import BadRecord, envelope

# What is written.  Format 1, which is read as well, had at most 78 topics in a batch.
FORMAT = 2


@dataclass(slots=True, frozen=True)
class TopicLine:
    """What a segment opening remembers of a topic: messages so far, last offset, RESET floor and messages below it."""

    count: int
    last: int
    floor: int
    dead: int
    ended: bool


@dataclass(slots=True, frozen=True)
class Opening:
    """The first record of a segment; busd.rules.record tells its fields.  Topics are decoded on demand."""

    store: str
    epoch: int
    first: int
    prev: int
    until: int
    born: int
    sure: int
    total: int
    time_ns: int
    lines: bytes = field(default=b"", repr=False)

    def topics(self) -> dict[bytes, TopicLine]:
        """Every topic so far.

        Raises:
            BadRecord: `form`.
        """
        try:
            return dict(map(_topic_line, self.lines.split(b"\r\n")[:-1]))
        except ValueError as error:
            raise BadRecord("form", f"topics of +S: {error}") from None


def format_trouble(number: int) -> str:
    """Why files of this format cannot be read; empty when they can."""
    return "" if 1 <= number <= FORMAT else f"format {number}; this busd reads formats 1 to {FORMAT}"


def topic_lines(topics: Iterable[tuple[bytes, int, int, int, int, bool]]) -> bytes:
    """The body of a segment opening: of each topic its name and what a TopicLine has, in that order."""
    return b"".join(
        [
            b"%b %d %d %d %d %b\r\n" % (topic, count, last, floor, dead, b"e" if ended else b"o")
            for topic, count, last, floor, dead, ended in topics
        ]
    )


def frame_opening(o: Opening) -> bytes:
    """The record that begins a segment."""
    numbers = (o.epoch, o.first, o.prev, o.until, o.born, o.sure, o.total, o.time_ns)
    fields = b"%d %b %b" % (FORMAT, o.store.encode(), b" ".join([b"%d" % number for number in numbers]))
    return envelope("S", fields, o.lines)


def opening_of(record: bytes, body_at: int, fields: list[bytes]) -> Opening:
    """The opening with these fields, and the topics that stand in its record from `body_at` on.

    Raises:
        BadRecord: `format`: it is of another one.
        ValueError, IndexError: they are not those of an opening.
    """
    if trouble := format_trouble(int(fields[0])):
        raise BadRecord("format", trouble)
    epoch, first, prev, until, born, sure, total, time_ns = map(int, fields[2:])
    return Opening(fields[1].decode(), epoch, first, prev, until, born, sure, total, time_ns, record[body_at:])


def _topic_line(line: bytes) -> tuple[bytes, TopicLine]:
    topic, count, last, floor, dead, state = line.split(b" ")
    return topic, TopicLine(int(count), int(last), int(floor), int(dead), state == b"e")
