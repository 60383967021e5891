"""Headers of a message: which names there are, which of them busd acts on, what a value may be.

    name   [A-Za-z0-9_-], 1 to 64 bytes, each once a message
    value  UTF-8 without CR, LF, NUL; inline also without blanks

`event` and `sent` are the client's own times, Unix ns; `id`, `key`, `ttl` and `delay` steer.  All others are tags.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache

from busd.words.errors import BusError, quoted
from busd.words.groups import check_text
from busd.words.settings import Limits
from busd.words.units import parse_duration_ns

# Kept per topic (id) and per group (key), so they are short.
MAX_ID_BYTES = 200
# As many as an offset or a time in ns has that fits into 64 bits.
_TIME_DIGITS = 19
_NAME = re.compile(rb"[A-Za-z0-9_-]{1,64}")
_WORD = re.compile(rb"[ \t]*([^ \t]+)")


@dataclass(slots=True)
class Steering:
    """What a message's headers tell busd to do; empty, None or 0 where they say nothing."""

    id: bytes = b""
    key: bytes = b""
    ttl_ns: int | None = None
    delay_ns: int = 0


def _time(name: str, value: bytes) -> None:
    if not (value.isdigit() and len(value) <= _TIME_DIGITS):
        raise BusError("ARG", f"the header {name} takes a time in Unix ns, not {quoted(value)}")


def _identity(name: str, value: bytes) -> None:
    if not 1 <= len(value) <= MAX_ID_BYTES:
        raise BusError("ARG", f"the header {name} takes 1 to {MAX_ID_BYTES} bytes, not {len(value)}")


def _duration(name: str, value: bytes) -> None:
    try:
        duration_ns = parse_duration_ns(value)
    except BusError as error:
        raise BusError("ARG", f"the header {name}: {error.text}") from None
    if name == "ttl" and not duration_ns:
        raise BusError("ARG", "the header ttl takes a duration above 0; nobody would get the message")


# Names that mean something, each with the check of its value.
KNOWN: dict[bytes, Callable[[str, bytes], None]] = {
    b"event": _time,
    b"sent": _time,
    b"id": _identity,
    b"key": _identity,
    b"ttl": _duration,
    b"delay": _duration,
}
_TIMES = frozenset(name for name, check in KNOWN.items() if check is _time)
_IDENTITIES = frozenset(name for name, check in KNOWN.items() if check is _identity)
STEERING = frozenset((b"id", b"key", b"ttl", b"delay"))
# Few different durations are in use, and a lookup costs a tenth of parsing one.
_known_duration_ns = lru_cache(maxsize=1024)(parse_duration_ns)


def steering(headers: Sequence[bytes]) -> Steering | None:
    """What checked headers (name, value, …) ask for; None when none of them steers."""
    if STEERING.isdisjoint(headers[::2]):
        return None
    found = dict(zip(headers[::2], headers[1::2], strict=True))
    ttl, delay = found.get(b"ttl"), found.get(b"delay")
    return Steering(
        found.get(b"id", b""),
        found.get(b"key", b""),
        _known_duration_ns(ttl) if ttl else None,
        _known_duration_ns(delay) if delay else 0,
    )


def parse_header_pairs(flat: list[bytes], limits: Limits) -> list[bytes]:
    """[name, value, …], checked and returned as it is.

    Raises:
        BusError: ARG, or TOOBIG beyond the limits.
    """
    if not flat:
        return flat
    _check_size(len(flat) // 2, sum(map(len, flat)), limits)
    _check_pairs(flat)
    return flat


def parse_header_words(tail: bytes, limits: Limits) -> tuple[list[bytes], bytes]:
    """`k=v k=v :payload` as ([k, v, …], payload); the payload is all behind the colon, verbatim.

    Raises:
        BusError: ARG, or TOOBIG beyond the limits.
    """
    head, colon, payload = tail.partition(b" :")
    if colon and b"\t" not in head and not head.startswith(b":") and len(head) <= _KNOWN_BYTES:
        known, size = _known_words(head)
        _check_size(len(known) // 2, size, limits)
        return list(known), payload
    flat: list[bytes] = []
    at = 0
    while match := _WORD.match(tail, at):
        word = match[1]
        if word.startswith(b":"):
            return parse_header_pairs(flat, limits), tail[match.start(1) + 1 :]
        name, equals, value = word.partition(b"=")
        if not equals:
            raise BusError("ARG", f"{quoted(word)} is not name=value; the payload begins with a colon")
        flat += (name, value)
        at = match.end()
        if len(flat) > 2 * limits.headers:
            raise BusError("TOOBIG", f"more than {limits.headers} headers")
    raise BusError("ARG", "the payload is missing: HPUB topic name=value … :payload")


# Most headers come again and again, as tags and keys do: a lookup is a tenth of a look.  Few and short ones: 2 MB.
_KNOWN_BYTES = 256


def parse_heads(heads: Set[bytes], limits: Limits) -> dict[bytes, tuple[bytes, ...]]:
    """Of each text `k=v k=v` its words (k, v, …): many lines have the same.

    Raises:
        BusError: of one of them; also where this is left to `parse_header_words`.
    """
    if b"\t" in b"".join(heads):
        raise BusError("ARG", "a tab is left to the grammar")
    found = {}
    for head in heads:
        # Blanks between them count here: so the line is not too long either.
        words, _ = _known_words(head)
        _check_size(len(words) // 2, len(head), limits)
        found[head] = words
    return found


def surely_good(names: tuple[bytes, ...], columns: Sequence[Sequence[bytes]], limits: Limits, ascii_only: bool) -> bool:
    """Whether messages may have these headers; False says nothing.

    Args:
        columns: for each name its value in each message.
        ascii_only: known is that all values are ASCII without CR, LF and NUL.
    """
    longest = [max(map(len, values)) for values in columns]
    try:
        check_names(names)
        _check_size(len(names), sum(map(len, names)) + sum(longest), limits)
        for name, values, most in zip(names, columns, longest, strict=True):
            if name in _TIMES:
                if most > _TIME_DIGITS or not (all(values) and b"".join(values).isdigit()):
                    return False
            elif name in _IDENTITIES:
                if most > MAX_ID_BYTES or not all(values):
                    return False
            elif name in KNOWN:
                for value in set(values):
                    KNOWN[name](name.decode(), value)
            if not ascii_only:
                check_text(b" ".join(values), "a value")
    except BusError:
        return False
    return True


@lru_cache(maxsize=1024)
def check_names(names: tuple[bytes, ...]) -> None:
    """Nothing, when a message may have headers of these names.

    Raises:
        BusError: ARG.
    """
    if len(set(names)) != len(names):
        raise BusError("ARG", "a header stands twice")
    for name in names:
        _check_name(name)


@lru_cache(maxsize=4096)
def _known_words(head: bytes) -> tuple[tuple[bytes, ...], int]:
    """`k=v k=v`, blanks between, as k, v, … and how many bytes these are; raises ARG."""
    flat: list[bytes] = []
    for word in filter(None, head.split(b" ")):
        name, equals, value = word.partition(b"=")
        if not equals:
            raise BusError("ARG", f"{quoted(word)} is not name=value; the payload begins with a colon")
        flat += (name, value)
    _check_pairs(flat)
    return tuple(flat), sum(map(len, flat))


def _check_size(number: int, size: int, limits: Limits) -> None:
    if number > limits.headers or size > limits.header_bytes:
        allowed = f"limits are {limits.headers} and {limits.header_bytes}"
        raise BusError("TOOBIG", f"{number} headers of {size} bytes; {allowed}")


def _check_pairs(flat: list[bytes]) -> None:
    names = flat[::2]
    if len(set(names)) != len(names):
        raise BusError("ARG", "a header stands twice")
    for name, value in zip(names, flat[1::2], strict=True):
        _check(name, value)


def _check_name(name: bytes) -> None:
    if _NAME.fullmatch(name) is None:
        raise BusError("ARG", f"{quoted(name)} is not a header's name: A-Z a-z 0-9 _ -, 64 bytes at most")


def _check(name: bytes, value: bytes) -> None:
    _check_name(name)
    if check := KNOWN.get(name):
        check(name.decode(), value)
    check_text(value, f"the value of the header {name.decode()}")
