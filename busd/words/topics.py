"""The grammar of topics and patterns.

    topic    tokens of [A-Za-z0-9_-] joined by dots, at most 200 bytes; the system's own at most 300
    pattern  the same, where a token may be `*` (any one token) and the last may be `>` (one or more tokens)

Topics that begin with `_` are the system's own: only patterns that begin with `_` match them.
"""

from __future__ import annotations

import re

from busd.words.errors import BusError, quoted

MAX_TOPIC_BYTES = 200
# A dead letter's topic is `_dead.`, a group's name, a dot and a topic: 271 bytes at most.
MAX_SYSTEM_TOPIC_BYTES = 300
MAX_PATTERNS = 64
_TOPIC = re.compile(rb"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_PATTERN = re.compile(rb"(?:[A-Za-z0-9_-]+|\*)(?:\.(?:[A-Za-z0-9_-]+|\*))*(?:\.>)?|>")


def is_topic(raw: bytes) -> bool:
    """True when `raw` is a topic, a client's or the system's."""
    longest = MAX_SYSTEM_TOPIC_BYTES if raw.startswith(b"_") else MAX_TOPIC_BYTES
    return len(raw) <= longest and _TOPIC.fullmatch(raw) is not None


def check_topic(raw: bytes) -> bytes:
    """`raw`, when clients may publish to it.

    Raises:
        BusError: TOPIC.
    """
    if not is_topic(raw):
        raise BusError(
            "TOPIC",
            f"{quoted(raw)} is not a topic: tokens of A-Z a-z 0-9 _ - joined by dots, {MAX_TOPIC_BYTES} bytes at most",
        )
    if raw.startswith(b"_"):
        raise BusError("TOPIC", f"{quoted(raw)} begins with _, which is for the system's own topics")
    return raw


def parse_patterns(raw: bytes) -> tuple[bytes, ...]:
    """`a.*,b.>` as its patterns, in order, without repeats.

    Raises:
        BusError: PATTERN or LIMIT.
    """
    patterns = tuple(dict.fromkeys(raw.split(b",")))
    if len(patterns) > MAX_PATTERNS:
        raise BusError("LIMIT", f"{len(patterns)} patterns; a subscription takes {MAX_PATTERNS}")
    for pattern in patterns:
        if len(pattern) > MAX_SYSTEM_TOPIC_BYTES or _PATTERN.fullmatch(pattern) is None:
            raise BusError(
                "PATTERN",
                f"{quoted(pattern)} is not a pattern: a topic, where * stands for one token and a final > for the rest",
            )
    return patterns


def is_literal(pattern: bytes) -> bool:
    """True when the pattern names one topic."""
    return b"*" not in pattern and b">" not in pattern


def matches(pattern: bytes, topic: bytes) -> bool:
    """True when `topic` is one of those that `pattern` names."""
    if topic.startswith(b"_") and not pattern.startswith(b"_"):
        return False
    if is_literal(pattern):
        return pattern == topic
    wanted, tokens = pattern.split(b"."), topic.split(b".")
    if wanted[-1] == b">":
        wanted.pop()
        if len(tokens) <= len(wanted):
            return False
        tokens = tokens[: len(wanted)]
    return len(wanted) == len(tokens) and all(w in (b"*", t) for w, t in zip(wanted, tokens, strict=True))
