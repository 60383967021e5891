"""How many topics there may be: names are looked at only when a run could make one too many.

Until then numbers say enough, and a run of thousands of names need not be looked up.  Invariants:
1. No topic is made beyond the limit, and none is refused below it.
2. Once names had to be looked at, every name is, and all that there are are kept here.
3. A topic counts when it is kept, or while a message that may make it is under way; one that was refused never does.
4. What is refused does not depend on how many messages came together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from busd.words.errors import BusError
from busd.words.requests import Publish
from busd.world.answers import topics_of
from busd.world.stores import Stores
from busd.world.waiting import Waiting


class TopicLimit:
    """See the module.  `spare`: as many names as may wait, all of them new, without a look; negative for none."""

    def __init__(self, stores: Stores, waiting: Waiting, limit: int) -> None:
        self._stores = stores
        self._waiting = waiting
        self._limit = limit
        self._known: set[bytes] | None = None
        # Names that may be new, once names are looked at, and in how many of the runs that are under way.
        self._new: dict[bytes, int] = {}
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

    def admit(self, names: Collection[bytes], whole: bool = False) -> Mapping[bytes, BusError]:
        """These are about to wait, but for the answer: those that would be too many, or all new ones if `whole`."""
        if self._known is None:
            self._known, self.spare = self._all(), -1
            for run in self._waiting.undecided():
                self._count(set(topics_of(run)) - self._known)
        if self._known.issuperset(names):
            return {}
        # In the order in which they came.
        fresh = [name for name in dict.fromkeys(names) if name not in self._known]
        made = [name for name in fresh if name not in self._new]
        room = max(0, self._limit - len(self._known) - len(self._new))
        if whole and len(made) > room:
            return dict.fromkeys(made, self._error())
        refused = dict.fromkeys(made[room:], self._error())
        self._count(name for name in fresh if name not in refused)
        return refused

    def _count(self, names: Iterable[bytes]) -> None:
        for name in names:
            self._new[name] = self._new.get(name, 0) + 1

    def _error(self) -> BusError:
        text = f"there may be {self._limit} topics, and all are there or being made; the setting topics allows more"
        return BusError("LIMIT", text)

    def settle(self, runs: Iterable[Publish]) -> None:
        """These are under way no more: what was kept of them is in the stores."""
        new, known = self._new, self._known
        if known is None or not new:
            return
        for run in runs:
            for name in new.keys() & topics_of(run):
                if self._stores.of_topic(name):
                    known.add(name)
                    del new[name]
                elif new[name] > 1:
                    new[name] -= 1
                else:
                    del new[name]
