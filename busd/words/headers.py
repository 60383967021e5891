"""Headers of a message: which names there are, which are reserved, what a value may be.

    name   [A-Za-z0-9_-], 1 to 64 bytes, each once a message
    value  UTF-8 without CR, LF, NUL; inline also without blanks

`event` and `sent` are the client's own times, Unix ns.  All other names are tags, but for the reserved ones.
"""

from __future__ import annotations

import re

from busd.words.errors import BusError, quoted
from busd.words.settings import Limits

TIMES = (b"event", b"sent")
# They will steer groups and deduplication; taken as tags now, they would change their meaning under people's feet.
RESERVED = (b"id", b"key", b"delay", b"ttl")
_NAME = re.compile(rb"[A-Za-z0-9_-]{1,64}")
_CONTROL = re.compile(rb"[\r\n\0]")
_WORD = re.compile(rb"[ \t]*([^ \t]+)")


def parse_header_pairs(flat: list[bytes], limits: Limits) -> list[bytes]:
    """[name, value, …], checked and returned as it is.

    Raises:
        BusError: ARG, or TOOBIG beyond the limits.
    """
    if not flat:
        return flat
    names = flat[::2]
    size = sum(map(len, flat))
    if len(names) > limits.headers or size > limits.header_bytes:
        allowed = f"limits are {limits.headers} and {limits.header_bytes}"
        raise BusError("TOOBIG", f"{len(names)} headers of {size} bytes; {allowed}")
    if len(set(names)) != len(names):
        raise BusError("ARG", "a header stands twice")
    for name, value in zip(names, flat[1::2], strict=True):
        _check(name, value)
    return flat


def parse_header_words(tail: bytes, limits: Limits) -> tuple[list[bytes], bytes]:
    """`k=v k=v :payload` as ([k, v, …], payload); the payload is all behind the colon, verbatim.

    Raises:
        BusError: ARG, or TOOBIG beyond the limits.
    """
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


def _check(name: bytes, value: bytes) -> None:
    if _NAME.fullmatch(name) is None:
        raise BusError("ARG", f"{quoted(name)} is not a header's name: A-Z a-z 0-9 _ -, 64 bytes at most")
    if name in RESERVED:
        raise BusError("ARG", f"the header {name.decode()} is reserved and not acted on yet, so it is not taken")
    if name in TIMES and not (value.isdigit() and len(value) <= 19):
        raise BusError("ARG", f"the header {name.decode()} takes a time in Unix ns, not {quoted(value)}")
    try:
        value.decode()
    except UnicodeDecodeError:
        raise BusError("ARG", f"the value of the header {name.decode()} is not UTF-8") from None
    if _CONTROL.search(value):
        raise BusError("ARG", f"the value of the header {name.decode()} holds CR, LF or NUL")
