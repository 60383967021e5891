"""The options of SUB and READ: one table of keywords, one parser; order is free, repeats are errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from busd.words.errors import BusError, quoted
from busd.words.groups import DEAD, check_group
from busd.words.requests import BARE_FORMATS, INLINE_FORMATS, RESP_FORMATS, Format, Read, Subscribe
from busd.words.settings import Limits
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


def _wait_ns(raw: bytes) -> int:
    wait_ns = parse_duration_ns(raw)
    if not wait_ns:
        raise BusError("ARG", f"WAIT takes a duration above 0, not {quoted(raw)}")
    return wait_ns


# keyword: (field, reader)
_READ: dict[bytes, tuple[str, Callable[[bytes], Any]]] = {
    b"FROM": ("start", parse_position),
    b"LAST": ("last", lambda raw: parse_count(raw, "LAST")),
    b"LIMIT": ("limit", lambda raw: parse_count(raw, "LIMIT")),
    b"WITHIN": ("within_ns", parse_duration_ns),
    b"FORMAT": ("format", lambda raw: raw.lower().decode("ascii", "replace")),
    b"GROUP": ("group", check_group),
}
_SUBSCRIBE: dict[bytes, tuple[str, Callable[[bytes], Any]]] = {
    **_READ,
    b"UNTIL": ("until", parse_position),
    b"SLOW": ("slow", _slow),
    b"WINDOW": ("window", lambda raw: parse_count(raw, "WINDOW")),
    b"WAIT": ("wait_ns", _wait_ns),
    b"TRIES": ("tries", lambda raw: parse_count(raw, "TRIES")),
}
# A group has one place and gives out each message, so these make no sense with it; and those only with it.
_NOT_IN_GROUPS = {
    b"LAST": "a new group begins where FROM says",
    b"UNTIL": "a group has no end; LIMIT and WITHIN end a member",
    b"SLOW": "WINDOW says how much a member is given",
}
_IN_GROUPS = (b"WINDOW", b"WAIT", b"TRIES")


def parse_subscribe(args: list[bytes], resp: bool, limits: Limits) -> Subscribe:
    """SUB's arguments.

    Raises:
        BusError: ARG, PATTERN, POS or LIMIT.
    """
    if not args:
        raise BusError("ARG", "SUB takes a pattern: SUB pattern[,pattern…] [FROM pos | LAST n] …")
    patterns = parse_patterns(args[0])
    values, seen = _options("SUB", args[1:], _SUBSCRIBE, resp)
    request = Subscribe(patterns, **values)
    if request.group:
        _check_member(request, seen, limits)
        return request
    for keyword in _IN_GROUPS:
        if keyword in seen:
            raise BusError("ARG", f"{keyword.decode()} is for members of a group; say GROUP, too")
    if request.format in BARE_FORMATS and request.slow == "drop":
        raise BusError(
            "ARG", f"FORMAT {request.format} carries no GAP, so it cannot drop; leave SLOW out or take spill"
        )
    return request


def _check_member(request: Subscribe, seen: set[bytes], limits: Limits) -> None:
    for keyword, why in _NOT_IN_GROUPS.items():
        if keyword in seen:
            raise BusError("ARG", f"{keyword.decode()} does not go with GROUP: {why}")
    if request.format in BARE_FORMATS:
        raise BusError(
            "ARG", f"FORMAT {request.format} carries no token, so nothing could be acknowledged; take line or json"
        )
    if request.window > limits.in_flight:
        raise BusError("LIMIT", f"WINDOW {request.window}; the limit is {limits.in_flight}")
    if request.tries and any(pattern.partition(b".")[0] == DEAD for pattern in request.patterns):
        raise BusError("ARG", "TRIES makes dead letters; a group that reads them makes none, so leave TRIES out")


def parse_read(args: list[bytes], resp: bool) -> Read:
    """READ's arguments.

    Raises:
        BusError: ARG, PATTERN, POS or LIMIT.
    """
    if not args:
        raise BusError("ARG", "READ takes a pattern: READ pattern[,pattern…] [FROM pos | LAST n] …")
    patterns = parse_patterns(args[0])
    values, _ = _options("READ", args[1:], _READ, resp)
    request = Read(patterns, **values)
    if request.format == "batch":
        raise BusError("ARG", "READ answers with one array, so it takes msg; batch is for SUB")
    return request


def _options(
    verb: str, args: list[bytes], known: dict[bytes, tuple[str, Callable[[bytes], Any]]], resp: bool
) -> tuple[dict[str, Any], set[bytes]]:
    """The fields that the options set, and which options stand there."""
    values: dict[str, Any] = {"format": "msg" if resp else "line"}
    seen: set[bytes] = set()
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
    return values, seen


def _check_format(name: str, resp: bool) -> None:
    here: tuple[Format, ...] = RESP_FORMATS if resp else INLINE_FORMATS
    if name in here:
        return
    dialect = "RESP" if resp else "inline"
    elsewhere = name in RESP_FORMATS + INLINE_FORMATS
    why = "is of the other dialect" if elsewhere else "is not a format"
    raise BusError("ARG", f"{quoted(name.encode())} {why}; {dialect} connections take {', '.join(here)}")
