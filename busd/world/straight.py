"""The usual commit of one run, straight: framed, written and taken in on the loop, in one go.

So comes what a client publishes that waits for each answer.  The general way (busd.world.log) prepares for threads, for
several stores and for trouble; without that the Python from a PUB to its answer takes 38 µs instead of 45.
It must not know who is answered, nor groups.  Invariants:
1. It takes on no more than what the general way would do just so: a run that is a batch as it is, for a store that is
   there and goes on in its segment, nothing to note or to look up beside it, a disk that is quick.  Of any other run it
   says so, and nothing has changed.
2. Why it could not be written or taken in is in the work, for the general way to decide; from the write on nothing
   raises.
"""

from __future__ import annotations

from collections.abc import Callable

from busd.words.requests import Publish
from busd.world.commit import Work
from busd.world.meta import MetaFile
from busd.world.new_stores import NewStores
from busd.world.pace import Pace
from busd.world.stores import Stores
from busd.world.topic_limit import TopicLimit
from busd.world.works import Landing, work_alone


class Straight:
    """See the module.

    `on`: whether writes may happen on the loop and no cap counts them; `clock`: nanoseconds that only rise; `took_ns`:
    how long the last commit took.
    """

    def __init__(
        self,
        on: bool,
        stores: Stores,
        new_stores: NewStores,
        topics: TopicLimit,
        meta: MetaFile,
        pace: Pace,
        landing: Landing,
        clock: Callable[[], int],
    ) -> None:
        self.took_ns = 0
        self._on = on
        self._stores = stores
        self._new_stores = new_stores
        self._topics = topics
        self._meta = meta
        self._pace = pace
        self._landing = landing
        self._clock = clock

    def commit(self, run: Publish, first: int, epoch: int, now_ns: int) -> Work | None:
        """Carry out and land a commit of this run alone, from offset `first` on; None when it is not the usual one."""
        # A limit that leaves no room makes names be looked up, a store that could not be made is told of by the health.
        if not self._on or self._pace.slow or self._topics.spare < 0 or self._new_stores.full:
            return None
        work = work_alone(self._stores, run, first, epoch, now_ns)
        if work is None or work.roll is not None or self._meta.due(first + len(run.items), True) is not None:
            return None
        began_ns = self._clock()
        work.carry_out(False)
        self.took_ns = took_ns = self._clock() - began_ns
        self._pace.took(took_ns)
        self._landing.take(work, False)
        return work
