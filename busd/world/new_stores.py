"""The stores that a commit needs and that are not there yet: made in a thread, and why one was not.

It must not know runs in full or whom to answer.  Invariants:
1. No more are made than descriptors allow (see descriptors.py).
2. A store that cannot be made is the trouble of its own messages alone, and is tried again with the next one for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from busd.words.errors import BusError
from busd.words.requests import Publish
from busd.words.settings import Settings
from busd.world import descriptors
from busd.world.answers import FAULT, topics_of
from busd.world.disk import DiskFailed, DiskFull
from busd.world.store import NewerFormat, Store
from busd.world.stores import Stores


class NewStores:
    """See the module.  `why`: by name, what those are told whose stores the commit under way could not get; `full`: the
    text of one that had no room, empty without any; `fault`: told of what nobody expected."""

    def __init__(self, stores: Stores, settings: Settings, fault: Callable[[Exception], None]) -> None:
        self.why: dict[str, BusError] = {}
        self.full = ""
        self._stores = stores
        self._fault = fault
        self._descriptors = descriptors.descriptor_limit()
        self._most = descriptors.most_stores(self._descriptors, settings.limits.connections)
        self._made: list[Store] = []
        self._failures: dict[str, Exception] = {}

    def due(self, runs: Iterable[Publish]) -> list[str]:
        """Begin with a commit of these: the stores to make for it.  Those for which there is no place are refused."""
        self.why, self.full = {}, ""
        missing = self._stores.missing(runs)
        if not missing:
            return missing
        places = max(0, self._most - len(self._stores.open))
        if len(missing) > places:
            self.why = dict.fromkeys(missing[places:], self._too_many())
        return missing[:places]

    def _too_many(self) -> BusError:
        return BusError(
            "LIMIT",
            f"there are {max(self._most, len(self._stores.open))} stores and no more can be made: each takes "
            f"{descriptors.STORE_DESCRIPTORS} of {self._descriptors} descriptors; LimitNOFILE= or `ulimit -n` allows "
            "more, a rule without {topic} needs fewer",
        )

    def make(self, names: Iterable[str], epoch: int, next_offset: int, now_ns: int) -> None:
        """Make these; in a thread.  What cannot be made is told by `take`."""
        for name in names:
            try:
                self._made.append(self._stores.create(name, epoch, next_offset, now_ns))
            except Exception as error:
                self._failures[name] = error

    def take(self) -> None:
        """On the loop, once they are made: from now on they are known."""
        made, self._made = self._made, []
        failures, self._failures = self._failures, {}
        for store in made:
            self._stores.add(store)
        for name, failure in failures.items():
            error = self.why[name] = self._error_of(failure)
            if error.code == "FULL":
                self.full = error.text

    def _error_of(self, failure: Exception) -> BusError:
        if isinstance(failure, DiskFull):
            return BusError("FULL", f"no room: {failure}; nothing was kept")
        if isinstance(failure, DiskFailed | NewerFormat | OSError):
            return BusError("DISK", f"{failure}; nothing was kept, the next message tries to make the store again")
        self._fault(failure)
        return FAULT

    def refused(self, run: Publish) -> Mapping[bytes, BusError]:
        """The topics of a run whose stores the commit could not get."""
        if not self.why:
            return {}
        homes = {topic: self._stores.route(topic) for topic in set(topics_of(run))}
        return {topic: self.why[name] for topic, name in homes.items() if name in self.why}
