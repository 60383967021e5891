"""busd.words.units: durations, sizes, times of day, positions."""

from __future__ import annotations

import pytest

from busd.words.errors import BusError
from busd.words.units import (
    FIRST,
    MAX_OFFSET,
    NEXT,
    NS_PER_S,
    Base,
    Position,
    parse_day_time_s,
    parse_duration_ns,
    parse_position,
    parse_size_bytes,
)

# 2026-11-21T08:00:00Z
TIME_NS = 1_795_248_000 * NS_PER_S


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        (b"250ms", 250_000_000),
        (b"5s", 5 * NS_PER_S),
        (b"10m", 600 * NS_PER_S),
        (b"2h", 7200 * NS_PER_S),
        (b"7d", 7 * 86_400 * NS_PER_S),
        (b"0s", 0),
        (b"999999999999d", 999_999_999_999 * 86_400 * NS_PER_S),
    ],
)
def test_durations(text: bytes, ns: int) -> None:
    assert parse_duration_ns(text) == ns


@pytest.mark.parametrize(
    "text", [b"", b"5", b"s", b"-5s", b"1.5s", b"5 s", b"5S", b"5s ", b"5s\n", b"1w", b"9" * 13 + b"s", "٥s".encode()]
)
def test_what_is_no_duration(text: bytes) -> None:
    with pytest.raises(BusError) as caught:
        parse_duration_ns(text)
    assert caught.value.code == "ARG"


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("4096", 4096), ("64k", 65_536), ("10M", 10 << 20), ("1G", 1 << 30)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "k", "-1", "1.5k", "1 k", "1K", "1m", "1kb", "1T", "9" * 16, "1k\n"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size like"):
        parse_size_bytes(text)


@pytest.mark.parametrize(("text", "seconds"), [("00:00", 0), ("00:01", 60), ("12:30", 45_000), ("23:59", 86_340)])
def test_times_of_day(text: str, seconds: int) -> None:
    assert parse_day_time_s(text) == seconds


@pytest.mark.parametrize("text", ["", "24:00", "12:60", "1:00", "12:00:00", "12.00", "-1:00", "12:00\n"])
def test_what_is_no_time_of_day(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time of day"):
        parse_day_time_s(text)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        (b"1", Position(Base.OFFSET, 1)),
        (b"007", Position(Base.OFFSET, 7)),
        (b"%d" % MAX_OFFSET, Position(Base.OFFSET, MAX_OFFSET)),
        (b"first", FIRST),
        (b"FIRST", FIRST),
        (b"next", NEXT),
        (b"End", NEXT),
        (b"-5m", Position(Base.AGO, 300 * NS_PER_S)),
        (b"@0", Position(Base.TIME, 0)),
        (b"@%d" % TIME_NS, Position(Base.TIME, TIME_NS)),
        (b"@2026-11-21T08:00:00Z", Position(Base.TIME, TIME_NS)),
        (b"@2026-11-21T08:00:00", Position(Base.TIME, TIME_NS)),
        (b"@2026-11-21T09:00:00+01:00", Position(Base.TIME, TIME_NS)),
        (b"@2026-11-21T08:00:00.000001Z", Position(Base.TIME, TIME_NS + 1000)),
        (b"@2026-11-21", Position(Base.TIME, TIME_NS - 8 * 3600 * NS_PER_S)),
        (b"@1969-12-31T23:59:59Z", Position(Base.TIME, 0)),
        (b"@0001-01-01T00:00:00+23:59", Position(Base.TIME, 0)),
    ],
)
def test_positions(text: bytes, position: Position) -> None:
    assert parse_position(text) == position


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"0",
        b"-1",
        b"+1",
        b"1.0",
        b"%d" % (MAX_OFFSET + 1),
        b"9" * 20,
        b"soon",
        b"-",
        b"-5",
        b"--5m",
        b"@",
        b"@soon",
        b"@-5m",
        b"@2026-13-01T00:00:00Z",
        b"@2026-11-21T08:00:00Q",
        b"@" + b"9" * 20,
        b"@\xff",
        "٣".encode(),
        b"first ",
    ],
)
def test_what_is_no_position(text: bytes) -> None:
    with pytest.raises(BusError) as caught:
        parse_position(text)
    assert caught.value.code == "POS"
