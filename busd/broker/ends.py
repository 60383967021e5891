"""Which topics of a reader are at their end: those it would wait for in vain.

Only literal ones: behind a wildcard a new topic may come any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from busd.broker.ports import Topic
from busd.words.topics import is_literal

TopicOf = Callable[[bytes], Topic | None]


class Ends:
    """Of one reader.

    Args:
        topic_of: what is known of a topic; None for one that there is not.
        floors: where topics begin for this reader; None: where the reader is by now, which is never below these.
    """

    def __init__(self, topic_of: TopicOf, patterns: Iterable[bytes], floors: Mapping[bytes, int] | None) -> None:
        self._topic_of = topic_of
        self._patterns = tuple(patterns)
        self._floors = floors

    def before(self, position: int) -> list[tuple[int, bytes]]:
        """Offset and name of those that ended before the reader, who is at `position`, in the order of offsets."""
        found = []
        for pattern in self._patterns:
            topic = self._topic_of(pattern) if is_literal(pattern) else None
            if topic is not None and topic.ended and topic.last < self._begin(pattern, position):
                found.append((topic.last, pattern))
        return sorted(found)

    def all(self, here: int, position: int) -> bool:
        """True when every one of them has ended, and the reader has come past the end (`here`: what it has by now)."""
        for pattern in self._patterns:
            topic = self._topic_of(pattern) if is_literal(pattern) else None
            if topic is None or not topic.ended or here < topic.last >= self._begin(pattern, position):
                return False
        return True

    def _begin(self, topic: bytes, position: int) -> int:
        return position if self._floors is None else max(position, self._floors.get(topic, 0))
