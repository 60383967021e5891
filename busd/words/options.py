"""The options of SUB and READ: one table of keywords, one parser; order is free, repeats are errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from busd.words.errors import BusError, quoted
from busd.words.requests import INLINE_FORMATS, RESP_FORMATS, Format, Read, Subscribe
from busd.words.topics import parse_patterns
from busd.words.units import parse_duration_ns, parse_position

# Enough for every message of a full 64-bit log; longer numbers are mistakes.
_MAX_DIGITS = 18


def parse_count(raw: bytes, name: str) -> int:
    """A number from 1.

    Raises:
        BusError: ARG.
    """
    if not raw.isdigit() or len(raw) > _MAX_DIGITS or int(raw) < 1:
        raise BusError("ARG", f"{name} takes a number from 1, not {quoted(raw)}")
    return int(raw)


def _slow(raw: bytes) -> str:
    word = raw.lower()
    if word not in (b"drop", b"spill"):
        raise BusError("ARG", f"SLOW takes drop or spill, not {quoted(raw)}")
    return word.decode()


# keyword: (field, reader)
_READ: dict[bytes, tuple[str, Callable[[bytes], Any]]] = {
    b"FROM": ("start", parse_position),
    b"LAST": ("last", lambda raw: parse_count(raw, "LAST")),
    b"LIMIT": ("limit", lambda raw: parse_count(raw, "LIMIT")),
    b"WITHIN": ("within_ns", parse_duration_ns),
    b"FORMAT": ("format", lambda raw: raw.lower().decode("ascii", "replace")),
}
_SUBSCRIBE: dict[bytes, tuple[str, Callable[[bytes], Any]]] = {
    **_READ,
    b"UNTIL": ("until", parse_position),
    b"SLOW": ("slow", _slow),
}


def parse_subscribe(args: list[bytes], resp: bool) -> Subscribe:
    """SUB's arguments.

    Raises:
        BusError: ARG, PATTERN, POS or LIMIT.
    """
    if not args:
        raise BusError("ARG", "SUB takes a pattern: SUB pattern[,pattern…] [FROM pos | LAST n] …")
    patterns = parse_patterns(args[0])
    request = Subscribe(patterns, **_options("SUB", args[1:], _SUBSCRIBE, resp))
    if request.format in ("raw", "bytes") and request.slow == "drop":
        raise BusError(
            "ARG", f"FORMAT {request.format} carries no GAP, so it cannot drop; leave SLOW out or take spill"
        )
    return request


def parse_read(args: list[bytes], resp: bool) -> Read:
    """READ's arguments.

    Raises:
        BusError: ARG, PATTERN, POS or LIMIT.
    """
    if not args:
        raise BusError("ARG", "READ takes a pattern: READ pattern[,pattern…] [FROM pos | LAST n] …")
    request = Read(parse_patterns(args[0]), **_options("READ", args[1:], _READ, resp))
    if request.format == "batch":
        raise BusError("ARG", "READ answers with one array, so it takes msg; batch is for SUB")
    return request


def _options(
    verb: str, args: list[bytes], known: dict[bytes, tuple[str, Callable[[bytes], Any]]], resp: bool
) -> dict[str, Any]:
    values: dict[str, Any] = {"format": "msg" if resp else "line"}
    seen = set()
    for at in range(0, len(args), 2):
        keyword = args[at].upper()
        if keyword not in known:
            raise BusError("ARG", f"{verb} has no option {quoted(args[at])}; known are {b' '.join(known).decode()}")
        if at + 1 == len(args):
            raise BusError("ARG", f"{keyword.decode()} takes a value")
        if keyword in seen:
            raise BusError("ARG", f"{keyword.decode()} stands twice")
        seen.add(keyword)
        name, reader = known[keyword]
        values[name] = reader(args[at + 1])
    if {b"FROM", b"LAST"} <= seen:
        raise BusError("ARG", "FROM and LAST exclude each other")
    _check_format(values["format"], resp)
    return values


def _check_format(name: str, resp: bool) -> None:
    here: tuple[Format, ...] = RESP_FORMATS if resp else INLINE_FORMATS
    if name in here:
        return
    dialect = "RESP" if resp else "inline"
    elsewhere = name in RESP_FORMATS + INLINE_FORMATS
    why = "is of the other dialect" if elsewhere else "is not a format"
    raise BusError("ARG", f"{quoted(name.encode())} {why}; {dialect} connections take {', '.join(here)}")
