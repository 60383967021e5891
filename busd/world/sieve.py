"""What is taken out of runs: messages for topics that would be too many, for stores that failed or cannot be had.

It must not know how a commit is made.  Invariants:
1. Whether a message is refused does not depend on those that came in the same run, but for runs that have one answer.
2. Who is refused is told; what is left goes on as if it had come alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from busd.broker.ports import Outcome, Sink
from busd.words.errors import BusError
from busd.words.requests import Publish
from busd.world.answers import sift, topics_of
from busd.world.room import Room
from busd.world.stores import Stores
from busd.world.topic_limit import TopicLimit
from busd.world.upkeep import Health


class Sieve:
    """See the module.  `safely` makes a call whose fault must not stop what follows."""

    def __init__(
        self,
        stores: Stores,
        topics: TopicLimit,
        room: Room,
        health: Health,
        safely: Callable[[Callable[[], object]], None],
    ) -> None:
        self._stores = stores
        self._topics = topics
        self._room = room
        self._health = health
        self._safely = safely

    def admit(self, run: Publish, sink: Sink, near: bool, horizon: int) -> tuple[Publish | None, Sink]:
        """What is left of a run that is about to wait, and whom to tell of that; None when nothing is.

        Args:
            near: its topics may be too many; else only stores that failed are looked for.

        Raises:
            BusError: all of it is refused for one reason; nobody was told.
        """
        names, failed = topics_of(run), self._health.failed
        bad: dict[bytes, BusError] = {}
        if failed:
            homes = {name: self._stores.route(name) for name in set(names)}
            bad = {name: BusError("DISK", failed[home]) for name, home in homes.items() if home in failed}
        whole = run.answers == "first"
        if near and not (whole and bad):
            bad |= self._topics.admit([name for name in names if name not in bad] if bad else names, whole)
        if not bad:
            return run, sink
        rest, told = sift(run, bad, sink)
        if rest is None:
            if len({error.text for error in bad.values()}) == 1:
                raise next(iter(bad.values()))
            told(Outcome(horizon, 0, {}))
        return rest, told

    def sift(
        self,
        runs: list[Publish],
        sinks: list[Sink],
        refused: Callable[[Publish], Mapping[bytes, BusError]],
        horizon: int,
    ) -> tuple[list[Publish], list[Sink]]:
        """What is left of runs that a commit has taken, and whom to tell of each, without topics that are refused."""
        rests = [sift(run, refused(run), sink) for run, sink in zip(runs, sinks, strict=True)]
        left = [(rest, sink) for rest, sink in rests if rest is not None]
        for run, (rest, sink) in zip(runs, rests, strict=True):
            if rest is not run:
                self._safely(partial(self._room.smaller, run, rest))
            if rest is None:
                self._safely(partial(sink, Outcome(horizon, 0, {})))
        return [rest for rest, _ in left], [sink for _, sink in left]
