"""What a group costs: bytes on disk that logs keep because something in them is not acknowledged.

It must not know groups.  Waits for nothing: it asks what is known in memory, and counts a segment of which it is not
known what it holds.
"""

from __future__ import annotations

from collections.abc import Iterable

from busd.words.patterns import Wanted
from busd.world.store import Store


def pinned_bytes(stores: Iterable[Store], wanted: Wanted, position: int) -> int:
    """Bytes on disk of the segments from `position` on that hold such topics, in stores with `retain = acked`."""
    acked = [store for store in stores if store.rule.retain == "acked" and any(map(wanted, store.topics))]
    return sum([store.pinned_bytes(wanted, position) for store in acked])
