"""The works of a commit: made of drafts before it; after it what was kept is taken into memory, what was not told why.

It must not know how runs are answered.  Invariants:
1. A store of which memory cannot be relied on any more is never written again, and what the commit wrote there is taken
   back: a restart finds what was answered as kept, and no more.
2. One store's trouble is that of its own batches alone.
3. A message that is too large for what is left of the disk takes no other one with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from busd.broker.ports import Runtime, Sink
from busd.rules.record import Batch, frame
from busd.rules.seal import Draft, Sealed, flags_alone, seal
from busd.words.errors import BusError
from busd.words.requests import Publish
from busd.world.commit import Commit, Work
from busd.world.disk import DiskFailed, DiskFull
from busd.world.store import Store
from busd.world.stores import Stores
from busd.world.upkeep import Health, error_of

# Whoever closes a segment waits for its sync, and all publishers with them: up to 80 ms for 64 MiB, 5 for what is left
# of it when the disk is given so much at a time.  With four times as much a flood of large messages is a tenth slower.
MUCH_UNSYNCED_BYTES = 2 * 1024 * 1024
# Runs, and whom to tell of each.
Taken = tuple[list[Publish], list[Sink]]


def work_of(store: Store, drafts: list[Draft], epoch: int, now_ns: int) -> Work:
    """What a store has to write for these; changes nothing."""
    batches: list[Batch] = []
    records: list[bytes] = []
    prev = store.last
    for draft in drafts:
        first = draft.offsets[0]
        batch = frame(
            first, now_ns, prev, store.synced, draft.flags, draft.topics, draft.column, draft.steps, draft.items,
            draft.names, draft.tally,
        )  # fmt: skip
        prev = batch.last
        batches.append(batch)
        records.append(batch.record)
    size = sum(map(len, records))
    return Work(store, store.begin(size, batches[0].first, epoch, now_ns), batches, records, size)


def work_alone(stores: Stores, run: Publish, first: int, epoch: int, now_ns: int) -> Work | None:
    """The same for a run that is a batch as it is, the only one of its commit; None of any other.

    A client that waits for each answer has it 3 µs sooner than by way of `seal`.
    """
    topics = run.topics
    if not isinstance(topics, bytes) or not (flags := flags_alone(run)):
        return None
    store = stores.open.get(stores.lone or stores.route(topics))
    if store is None:
        return None
    batch = frame(first, now_ns, store.last, store.synced, flags, (topics,), None, None, run.items)
    size = len(batch.record)
    return Work(store, store.begin(size, first, epoch, now_ns), [batch], [batch.record], size)


def sealed_works(
    runs: list[Publish], stores: Stores, live: Callable[[bytes], int], first: int, epoch: int, now_ns: int
) -> tuple[Sealed, list[Work]]:
    """What a commit of these is, from offset `first` on; changes nothing."""
    if len(runs) == 1 and (work := work_alone(stores, runs[0], first, epoch, now_ns)) is not None:
        return Sealed({}, [first], first + len(runs[0].items)), [work]
    sealed = seal(runs, first, stores.route, live, stores.lone)
    return sealed, [work_of(stores.open[name], some, epoch, now_ns) for name, some in sealed.drafts.items()]


def rolls(stores: Stores, first: int, epoch: int, now_ns: int) -> list[Work]:
    """The same of nothing, for the stores that are to begin a new segment."""
    due = [(store, store.begin(0, first, epoch, now_ns)) for store in stores.open.values()]
    return [Work(store, roll, [], [], 0) for store, roll in due if roll is not None]


def pieces(runs: list[Publish], sinks: list[Sink], commit: Commit) -> list[Taken]:
    """How a commit for which there was no room may be carried out anew: the largest run, what came before it, what came
    behind, each for itself; nothing if that cannot help, or something of it was kept."""
    works = commit.works
    if len(runs) < 2 or len(works) != 1 or commit.groups is not None or not isinstance(works[0].failure, DiskFull):
        return []
    sizes = [run.size_bytes for run in runs]
    at = sizes.index(max(sizes))
    cuts = (slice(at), slice(at, at + 1), slice(at + 1, None))
    return [(runs[cut], sinks[cut]) for cut in cuts if runs[cut]]


class Landing:
    """See the module.

    `much`: much of a store is not synced; `rolled`: a segment was closed; `short`: there was no room for a RESET, which
    makes some; `grown`: so many topics are new in a store.
    """

    def __init__(
        self,
        stores: Stores,
        health: Health,
        runtime: Runtime,
        much: Callable[[Store], None],
        rolled: Callable[[], None],
        short: Callable[[], object],
        grown: Callable[[int], None],
    ) -> None:
        self._stores = stores
        self._health = health
        self._runtime = runtime
        self._much = much
        self._rolled = rolled
        self._short = short
        self._grown = grown

    def land(self, commit: Commit, kept: list[Batch]) -> dict[int, BusError]:
        """Take it in; what was kept comes to the end of `kept`, of all other offsets the answer says why not."""
        void: dict[int, BusError] = {}
        for work in commit.works:
            self.take(work, commit.sync)
            if work.failure is None:
                kept += work.batches
                if work.roll is not None:
                    self._rolled()
            else:
                self._miss(work, void)
        return void

    def take(self, work: Work, synced: bool) -> None:
        """Take in one work, unless it failed; what goes wrong is kept in it."""
        if work.failure is not None:
            return
        store = work.store
        try:
            numbers = store.topics.numbers
            known = len(numbers)
            store.landed(work.batches, work.roll, work.batches[-1].last if synced else None)
            self._health.used_bytes += work.size_bytes
            if len(numbers) != known:
                self._stores.version += 1
                self._grown(len(numbers) - known)
        except Exception as error:
            self._runtime.fault(error)
            work.failure = _given_up(store, error)
            return
        if store.unsynced_bytes > MUCH_UNSYNCED_BYTES:
            try:
                self._much(store)
            except Exception as error:
                # The sync of every second comes all the same; what was taken in is none the worse.
                self._runtime.fault(error)

    def _miss(self, work: Work, void: dict[int, BusError]) -> None:
        assert work.failure is not None
        error = error_of(work.failure)
        for batch in work.batches:
            void.update(dict.fromkeys(batch.offsets(), error))
        if isinstance(work.failure, DiskFailed):
            self._health.failed[work.store.name] = error.text
            return
        self._health.refuse(error.text, self._runtime.monotonic_ns())
        if any("r" in batch.flags for batch in work.batches):
            # It takes little and makes room: the reserve has it for who asks again.
            self._short()


def _given_up(store: Store, error: Exception) -> DiskFailed:
    """Nothing is written there any more: what was taken in half cannot be told from what was not."""
    store.failed = store.failed or f"{type(error).__name__}: {error}"
    with contextlib.suppress(Exception):
        # The loop waits for the disk here, as nothing else may come between.
        store.undo()
    return DiskFailed(store.failed)
