"""The ids that were published of late, by topic: what is a duplicate, and of which message.

Time is any clock that never falls and does not leap.  Pure.  Invariants:
1. A topic remembers `ids` ids at most, the newest, and none for longer than `span_ns`.
2. A topic of which nothing is remembered costs nothing once it was swept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from busd.rules.items import Item

_ID = b"id"


def ids_of(items: Sequence[Item]) -> list[bytes] | None:
    """The header `id` of each message, empty where there is none; None when no message has one."""
    found = [_id_of(item) if type(item) is list else b"" for item in items]
    return found if any(found) else None


def _id_of(item: list[bytes]) -> bytes:
    # Most messages with headers have no such word at all; a value may be the word, too.
    if _ID not in item:
        return b""
    names = item[1::2]
    return item[2 * names.index(_ID) + 2] if _ID in names else b""


class Window:
    """See the module.  `len`: ids remembered, those included that only a sweep will find too old."""

    def __init__(self, ids: int, span_ns: int) -> None:
        self._ids = ids
        self._span_ns = span_ns
        # By topic: id to its offset and when; both in the order of the last publish, so what is old stands in front.
        # Ordered dictionaries, because a plain one that is emptied from the front looks at all its gaps each time.
        self._topics: OrderedDict[bytes, OrderedDict[bytes, tuple[int, int]]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._topics.values()))

    @property
    def topics(self) -> int:
        """Topics of which anything is remembered."""
        return len(self._topics)

    def find(self, topic: bytes, message_id: bytes, now_ns: int) -> int | None:
        """The offset of the message of this topic that had this id; None when there was none of late."""
        found = self._topics.get(topic)
        if found is None:
            return None
        known = found.get(message_id)
        return None if known is None or known[1] + self._span_ns <= now_ns else known[0]

    def put(self, topic: bytes, message_id: bytes, offset: int, now_ns: int) -> None:
        """Remember; `now_ns` is no lower than at any call before."""
        found = self._topics.get(topic)
        if found is None:
            found = self._topics[topic] = OrderedDict()
        found[message_id] = (offset, now_ns)
        found.move_to_end(message_id)
        self._topics.move_to_end(topic)
        if len(found) > self._ids:
            found.popitem(last=False)
        # Two for each that comes: so the old ones go, and none has to pay for many.
        for _ in range(2):
            oldest = next(iter(found.values()))
            if oldest[1] + self._span_ns > now_ns:
                break
            found.popitem(last=False)

    def sweep(self, now_ns: int) -> None:
        """Forget the topics whose newest id is too old."""
        while self._topics:
            found = next(iter(self._topics.values()))
            if found and next(reversed(found.values()))[1] + self._span_ns > now_ns:
                break
            self._topics.popitem(last=False)
