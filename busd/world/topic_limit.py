"""How many topics there may be: names are looked at only when a run could make one too many.

Until then numbers say enough, and a run of thousands of names need not be looked up.  Invariants:
1. No topic is made beyond the limit, and none is refused below it.
2. Once names had to be looked at, every name is, and all that there are are kept here.
"""

from __future__ import annotations

from collections.abc import Collection

from busd.words.errors import BusError
from busd.world.stores import Stores
from busd.world.waiting import Waiting


class TopicLimit:
    """See the module.  `spare`: as many names as may wait, all of them new, without a look; negative for none."""

    def __init__(self, stores: Stores, waiting: Waiting, limit: int) -> None:
        self._stores = stores
        self._waiting = waiting
        self._limit = limit
        self._known: set[bytes] | None = None
        # A topic may be in two stores: then fewer than there could be.
        self.spare = limit - sum(len(store.topics) for store in stores.open.values())

    def __len__(self) -> int:
        """Number of topics."""
        if self._known is not None:
            return len(self._known)
        stores = [*self._stores.open.values()]
        return len(stores[0].topics) if len(stores) == 1 else len(self._all())

    def _all(self) -> set[bytes]:
        return set().union(*(store.topics for store in self._stores.open.values()))

    def grown(self, count: int) -> None:
        """So many topics are new in a store."""
        self.spare -= count

    def admit(self, names: Collection[bytes]) -> None:
        """These are about to wait.

        Raises:
            BusError: LIMIT; none of them was taken.
        """
        if self._known is None:
            self._known, self.spare = self._all(), -1
            for run in self._waiting.undecided():
                self._known.update((run.topics,) if isinstance(run.topics, bytes) else run.topics)
        known = self._known
        if not known.issuperset(names):
            added = set(names) - known
            if len(known) + len(added) > self._limit:
                raise BusError("LIMIT", f"there are {len(known)} topics; no more can be made")
            known |= added
