"""Which topics of a reader are at their end: those it would wait for in vain.

Only literal ones: behind a wildcard a new topic may come any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from busd.broker.ports import Topic
from busd.words.topics import is_literal

# Where a topic begins for this reader, or where the reader is by now.
Begin = Callable[[bytes], int]
TopicOf = Callable[[bytes], Topic | None]


def ended(topic_of: TopicOf, patterns: Iterable[bytes], begin: Begin) -> list[tuple[int, bytes]]:
    """Offset and name of those that ended before this reader, in the order of offsets."""
    found = []
    for pattern in patterns:
        topic = topic_of(pattern) if is_literal(pattern) else None
        if topic is not None and topic.ended and topic.last < begin(pattern):
            found.append((topic.last, pattern))
    return sorted(found)


def all_ended(topic_of: TopicOf, patterns: Iterable[bytes], begin: Begin, here: int) -> bool:
    """True when every one of them has ended, and this reader has come past the end (`here`: what it has by now)."""
    for pattern in patterns:
        topic = topic_of(pattern) if is_literal(pattern) else None
        if topic is None or not topic.ended or here < topic.last >= begin(pattern):
            return False
    return True
