"""The ids that were published of late, by topic: what is a duplicate, and of which message.

Time is any clock that never falls and does not leap.  Pure.  Invariants:
1. A topic remembers `ids` ids at most, the newest, and none for longer than `span_ns`.
2. A topic of which nothing is remembered costs nothing once it was swept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import count, repeat

from busd.rules.items import Item

_ID = b"id"


def ids_of(items: Sequence[Item]) -> list[bytes] | None:
    """The header `id` of each message, empty where there is none; None when no message has one."""
    if set(map(type, items)) == {list} and len(set(map(len, items))) == 1:
        # The same names in all of them, or none of them this one: a tenth of the time.
        columns = list(zip(*items, strict=True))
        at = next((at for at, names in enumerate(columns[1::2]) if _ID in names), None)
        if at is None:
            return None
        if columns[2 * at + 1].count(_ID) == len(items):
            return list(columns[2 * at + 2]) if any(columns[2 * at + 2]) else None
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
        self._drop_old(found, 2, now_ns)

    def _drop_old(self, found: OrderedDict[bytes, tuple[int, int]], most: int, now_ns: int) -> None:
        for _ in range(most):
            oldest = next(iter(found.values()))
            if oldest[1] + self._span_ns > now_ns:
                break
            found.popitem(last=False)

    def has_any(self, topics: Iterable[bytes] | bytes, ids: Sequence[bytes]) -> bool:
        """Whether one of these is remembered, too long ago included; `topics`: one for all, or one for each."""
        if isinstance(topics, bytes):
            found = self._topics.get(topics)
            return found is not None and not found.keys().isdisjoint(ids)
        known = self._topics
        return any(topic in known and one in known[topic] for topic, one in zip(topics, ids, strict=True))

    def put_all(self, topics: Iterable[bytes] | bytes, ids: Sequence[bytes], first: int, now_ns: int) -> None:
        """Remember ids that differ, of messages with offsets from `first` on; none of a single topic's was known."""
        if not isinstance(topics, bytes):
            for offset, (topic, one) in enumerate(zip(topics, ids, strict=True), first):
                self.put(topic, one, offset, now_ns)
            return
        found = self._topics.setdefault(topics, OrderedDict())
        found.update(zip(ids, zip(count(first), repeat(now_ns), strict=False), strict=False))
        self._topics.move_to_end(topics)
        for _ in range(len(found) - self._ids):
            found.popitem(last=False)
        self._drop_old(found, 2 * len(ids), now_ns)

    def sweep(self, now_ns: int) -> None:
        """Forget the topics whose newest id is too old."""
        while self._topics:
            found = next(iter(self._topics.values()))
            if found and next(reversed(found.values()))[1] + self._span_ns > now_ns:
                break
            self._topics.popitem(last=False)
