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
from itertools import accumulate, chain, compress, repeat

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


# Most headers come again and again, as tags and keys do: a lookup is a tenth of a look.  Only short ones: a line may be
# as long as a payload, and 4,096 of those, each taken apart, are gigabytes.
_KNOWN_BYTES = 256


def parse_heads(heads: Set[bytes], limits: Limits, new: bool) -> dict[bytes, tuple[bytes, ...]]:
    """Of each text ` k=v k=v` its words (k, v, …): many lines have the same.

    Args:
        heads: each empty, or with a blank in front.
        new: most of them, more than a few, have not been seen before: as columns they take a tenth of one by one.

    Raises:
        BusError: of one of them; also where this is left to `parse_header_words`.
    """
    # Blanks between them count here: so the line is not too long either.
    longest = max(map(len, heads))
    if b"\t" in b"".join(heads):
        raise BusError("ARG", "a tab is left to the grammar")
    _check_size(0, longest, limits)
    if new:
        rows = _new_rows(list(heads), limits)
    else:
        words = _known_words if longest <= _KNOWN_BYTES else _words
        rows = [words(head)[0] for head in heads]
        _check_size(max(map(len, rows)) // 2, longest, limits)
    return dict(zip(heads, rows, strict=True))


def _new_rows(heads: list[bytes], limits: Limits) -> list[tuple[bytes, ...]]:
    text = b"".join(heads)
    check_text(text, "a header")
    if not text:
        return [()] * len(heads)
    names, signs, values = zip(*map(bytes.partition, text.split(b" ")[1:], repeat(b"=")), strict=True)
    if b"" in signs:
        raise BusError("ARG", "one of them is not name=value")
    for name in KNOWN.keys() & set(names):
        _check_values(name, list(compress(values, map(name.__eq__, names))))
    flat = tuple(chain.from_iterable(zip(names, values, strict=True)))
    ends = list(accumulate(map(bytes.count, heads, repeat(b" "))))
    rows = [flat[2 * lo : 2 * hi] for lo, hi in zip([0, *ends[:-1]], ends, strict=True)]
    # Before the names are remembered.
    _check_size(max(map(len, rows)) // 2, 0, limits)
    for shape in {row[::2] for row in rows}:
        check_names(shape)
    return rows


def surely_good(names: tuple[bytes, ...], columns: Sequence[Sequence[bytes]], limits: Limits, ascii_only: bool) -> bool:
    """Whether messages may have these headers; False says nothing.

    Args:
        columns: for each name its value in each message.
        ascii_only: known is that all values are ASCII without CR, LF and NUL.
    """
    try:
        check_names(names)
        size_bytes = sum(map(len, names)) + sum([max(map(len, values)) for values in columns])
        _check_size(len(names), size_bytes, limits)
        for name, values in zip(names, columns, strict=True):
            if name in KNOWN:
                _check_values(name, values)
            if not ascii_only:
                check_text(b" ".join(values), "a value")
    except BusError:
        return False
    return True


def _check_values(name: bytes, values: Sequence[bytes]) -> None:
    """What KNOWN says of the values of one of its names."""
    check = KNOWN[name]
    if check is _time and all(values) and max(map(len, values)) <= _TIME_DIGITS and b"".join(values).isdigit():
        return
    if check is _identity and all(values) and max(map(len, values)) <= MAX_ID_BYTES:
        return
    for value in set(values):
        check(name.decode(), value)


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


def _words(head: bytes) -> tuple[tuple[bytes, ...], int]:
    """`k=v k=v`, blanks between, as k, v, … and how many bytes these are; raises ARG."""
    flat: list[bytes] = []
    for word in filter(None, head.split(b" ")):
        name, equals, value = word.partition(b"=")
        if not equals:
            raise BusError("ARG", f"{quoted(word)} is not name=value; the payload begins with a colon")
        flat += (name, value)
    _check_pairs(flat)
    return tuple(flat), sum(map(len, flat))


_known_words = lru_cache(maxsize=4096)(_words)


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
