"""Inline answers and events taken apart, and the slow, plain way to say what a reader should see.

Independent of the code under test: it shares the grammar of topics with it and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from busd.words.topics import matches

Kind = Literal["MSG", "EOF", "RESET"]
_OK = re.compile(rb"\+OK next=(\d+) epoch=(\d+)")
_GAP = re.compile(rb"GAP (\S+) (\d+) (\d+) (\d+|\?) (\w+)")
_END = re.compile(rb"END (\w+) next=(\d+)")
_MARK = re.compile(rb"(EOF|RESET) (\S+) (\d+)(?: (\d+))?")
_MESSAGE = re.compile(rb"MSG (\S+) (\d+) (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Seen:
    """A message, an end of stream or a RESET."""

    kind: str
    topic: bytes
    offset: int
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Gap:
    """A loss; `count` None for unknown."""

    first: int
    last: int
    count: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class End:
    """The end of a subscription."""

    reason: str
    next: int


@dataclass(frozen=True, slots=True)
class Ok:
    """The answer to SUB."""

    next: int


Event = Seen | Gap | End | Ok


def parse(data: bytes) -> list[Event]:
    """Everything that a connection got, all of it `line` events and answers to SUB.

    Raises:
        AssertionError: there is something else.
    """
    assert data.endswith(b"\n") or not data
    return [_parse(line) for line in data.split(b"\n")[:-1]]


def _parse(line: bytes) -> Event:
    if match := _MESSAGE.fullmatch(line):
        return Seen("MSG", match[1], int(match[2]), match[3])
    if match := _MARK.fullmatch(line):
        return Seen(match[1].decode(), match[2], int(match[3]), match[4] or b"")
    if match := _GAP.fullmatch(line):
        return Gap(int(match[2]), int(match[3]), None if match[4] == b"?" else int(match[4]), match[5].decode())
    if match := _END.fullmatch(line):
        return End(match[1].decode(), int(match[2]))
    if match := _OK.fullmatch(line):
        return Ok(int(match[1]))
    raise AssertionError(f"not an event: {line!r}")


def seen(events: Iterable[Event]) -> list[Seen]:
    """What was delivered, without answers, gaps and the end."""
    return [event for event in events if isinstance(event, Seen)]


def gaps(events: Iterable[Event]) -> list[Gap]:
    """The losses."""
    return [event for event in events if isinstance(event, Gap)]


def wanted(kept: Sequence[Seen], patterns: bytes, first: int = 1) -> list[Seen]:
    """What of everything kept a subscription from `first` on is meant to get."""
    chosen = patterns.split(b",")
    return [one for one in kept if one.offset >= first and any(matches(p, one.topic) for p in chosen)]


def check_lossy(events: Sequence[Event], kept: Sequence[Seen]) -> None:
    """Nothing twice, nothing missing without a word, and exact counts.

    Args:
        events: of one subscription, all of them.
        kept: what it would have got had it been quick enough.

    Raises:
        AssertionError: a promise is broken.
    """
    got = seen(events)
    messages = [one for one in got if one.kind == "MSG"]
    offsets = [one.offset for one in messages]
    assert offsets == sorted(set(offsets)), "out of order, or twice"
    assert len(got) == len(set(got)), "a mark stands twice"
    lost = [one for one in kept if one not in set(got)]
    for gap in gaps(events):
        inside = [one for one in lost if gap.first <= one.offset <= gap.last]
        assert gap.count == sum(one.kind == "MSG" for one in inside)
        assert inside, "a gap where nothing is missing"
        assert (gap.first, gap.last) == (inside[0].offset, inside[-1].offset)
        assert not [offset for offset in offsets if gap.first <= offset <= gap.last], "delivered, and said to be lost"
        lost = [one for one in lost if one not in inside]
    assert lost == [], "missing without a word"
    assert set(got) <= set(kept), "something that was never asked for"
