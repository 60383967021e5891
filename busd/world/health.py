"""How the server is: conditions that somebody should know of, as they are now; each change is told once.

Looked at once a second and whenever somebody asks, so that it never says ok when it is not.  Invariants:
1. `failing`: messages cannot be kept.  `degraded`: all is kept, but something needs a person or will.  Else `ok`.
2. A condition is there as long as its cause; it is told when it comes, when it goes, and not in between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice

from busd.rules.replies import Pairs
from busd.words.units import NS_PER_S
from busd.world.commit import CommitThread
from busd.world.journal import events
from busd.world.log import DiskLog

# A disk that takes longer than this over one commit or sync is no disk one can work with.
_OVERDUE_NS = 5 * NS_PER_S
# A small message may still fit where the usual one does not: so long after a refusal it is no better.
_REFUSED_NS = 10 * NS_PER_S
# Time to act before that.
_NEARLY_PERCENT = 90
# Small steps back are what time servers do.
_BEHIND_NS = 2 * NS_PER_S
# One line is for a person to read: so many groups are named in it, the others counted.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that is not as it should be."""

    name: str
    text: str
    failing: bool = False


class Watch:
    """See the module.  `unburied`: groups whose dead letters cannot be kept at present, and why."""

    def __init__(
        self, log: DiskLog, committer: CommitThread, clock: Callable[[], int], unburied: Mapping[bytes, str]
    ) -> None:
        self._log = log
        self._committer = committer
        self._clock = clock
        self._unburied = unburied
        self._told: dict[str, Condition] = {}

    def conditions(self) -> list[Condition]:
        """What is not as it should be, the worst first."""
        health, clock = self._log.health, self._log.clock
        found: list[Condition] = []
        if health.failed:
            stores = "; ".join(f"{name}: {text}" for name, text in health.failed.items())
            found.append(Condition("disk", stores, failing=True))
        if health.full or (health.refused and self._clock() - health.refused_ns < _REFUSED_NS):
            found.append(Condition("full", health.refused, failing=True))
        elif health.cap_bytes and health.used_bytes >= health.cap_bytes * _NEARLY_PERCENT // 100:
            percent = 100 * health.used_bytes // health.cap_bytes
            text = f"the data directory holds {percent} % of the {health.cap_bytes} bytes that it may"
            found.append(Condition("space", text))
        if (waited_ns := self._waited_ns()) > _OVERDUE_NS:
            text = f"the disk has not finished a commit or sync for {waited_ns // NS_PER_S}s"
            found.append(Condition("sync", text, failing=True))
        if health.trouble:
            found.append(Condition("retention", health.trouble))
        if self._unburied:
            found.append(Condition("dead", _told(self._unburied)))
        if not health.reserve_whole:
            found.append(
                Condition(
                    "reserve",
                    "the bytes kept for acknowledgements on a full disk are in use, or could not be made",
                )
            )
        if clock.ahead_ns:
            text = f"the wall clock is {clock.ahead_ns // NS_PER_S}s ahead of what was measured, and not followed yet"
            found.append(Condition("clock", text))
        elif clock.behind_ns > _BEHIND_NS:
            text = f"the wall clock is {clock.behind_ns // NS_PER_S}s behind the newest message, and waited for"
            found.append(Condition("clock", text))
        return found

    def _waited_ns(self) -> int:
        since_ns = self._log.health.syncing_since_ns
        return max(self._committer.waited_ns(), self._clock() - since_ns if since_ns else 0)

    def facts(self) -> Pairs:
        """The section `health` of INFO."""
        found = self.conditions()
        status = "ok" if not found else "failing" if any(one.failing for one in found) else "degraded"
        return [("status", status), *((one.name, one.text) for one in found)]

    def look(self) -> None:
        """Tell what has changed."""
        now = {one.name: one for one in self.conditions()}
        for name, one in now.items():
            if name not in self._told:
                (events.error if one.failing else events.warning)(name, why=one.text)
        for name in self._told.keys() - now.keys():
            events.info(f"{name} is well again")
        self._told = now


def _told(unburied: Mapping[bytes, str]) -> str:
    named = [f"{name.decode()}: {why}" for name, why in islice(unburied.items(), _NAMED)]
    more = [f"{len(unburied) - _NAMED} groups more"] if len(unburied) > _NAMED else []
    return f"dead letters cannot be kept, and are tried again; {'; '.join(named + more)}"
