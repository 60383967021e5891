"""Durations, sizes, times of day and positions in the log, as people write them.

duration  250ms 5s 10m 2h 7d            size  64k 10M 1G (powers of 1024) or plain bytes
position  1200 · first · next · end · @2026-11-21T08:00:00Z · @1795248000000000000 · -5m
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from busd.words.errors import BusError, quoted

NS_PER_S = 1_000_000_000
MAX_OFFSET = (1 << 63) - 1
_DURATION = re.compile(rb"(\d{1,12})(ms|s|m|h|d)")
_SIZE = re.compile(r"(\d{1,15})([kMG]?)")
_DAY_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_NS = {b"ms": 1_000_000, b"s": NS_PER_S, b"m": 60 * NS_PER_S, b"h": 3600 * NS_PER_S, b"d": 86_400 * NS_PER_S}
_BYTES = {"": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Base(Enum):
    """What the value of a position counts from."""

    OFFSET = "offset"
    FIRST = "first"
    NEXT = "next"
    TIME = "time"
    AGO = "ago"


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the log.  `value`: the offset, a Unix time in ns, or an age in ns; 0 for FIRST and NEXT."""

    base: Base
    value: int = 0


FIRST = Position(Base.FIRST)
NEXT = Position(Base.NEXT)


def parse_duration_ns(text: bytes) -> int:
    """`5s` in ns.

    Raises:
        BusError: ARG, when it is not a duration.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise BusError("ARG", f"{quoted(text)} is not a duration like 250ms 5s 10m 2h 7d")
    return int(match[1]) * _NS[match[2]]


def parse_size_bytes(text: str) -> int:
    """`64k` in bytes.

    Raises:
        ValueError: when it is not a size.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size like 4096 64k 10M 1G")
    return int(match[1]) * _BYTES[match[2]]


def parse_day_time_s(text: str) -> int:
    """`HH:MM` as seconds after midnight UTC.

    Raises:
        ValueError: when it is not a time of day.
    """
    match = _DAY_TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time of day like 00:00 or 23:30 (UTC)")
    return int(match[1]) * 3600 + int(match[2]) * 60


def parse_position(text: bytes) -> Position:
    """A position as the protocol writes it.

    Raises:
        BusError: POS, when it is none of the forms.
    """
    lowered = text.lower()
    if lowered == b"first":
        return FIRST
    if lowered in (b"next", b"end"):
        return NEXT
    if text.isdigit() and len(text) <= 19 and 1 <= int(text) <= MAX_OFFSET:
        return Position(Base.OFFSET, int(text))
    if text.startswith(b"-") and (match := _DURATION.fullmatch(text[1:])):
        return Position(Base.AGO, int(match[1]) * _NS[match[2]])
    if text.startswith(b"@") and (time_ns := _parse_time_ns(text[1:])) is not None:
        return Position(Base.TIME, time_ns)
    raise BusError(
        "POS",
        f"{quoted(text)} is not a position: an offset from 1, first, next, end, @2026-11-21T08:00:00Z, @<unix ns>, -5m",
    )


def _parse_time_ns(text: bytes) -> int | None:
    if text.isdigit() and len(text) <= 19:
        return int(text)
    try:
        moment = datetime.fromisoformat(text.decode("ascii"))
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    # Not timestamp(): a float loses the microseconds of today.
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return max(0, (delta.days * 86_400 + delta.seconds) * NS_PER_S + delta.microseconds * 1000)
