"""The log of the server: one sequence over many stores, group commit, the horizon.

Invariants:
1. Offsets are dealt only by `seal`, only here, rising; one commit is in flight at a time.
2. The horizon rises only after a commit is decided: below it everything is kept (as the policy means it) or void.
3. Nothing waits for a disk on the loop, except that under `interval` and `never` a small write happens on it as long
   as the disk has been quick (a hop to a thread and back costs 64 µs, such a write 1).
4. A store whose sync failed is never written again; one that is full is tried again with the next commit.
5. Every run that was taken is answered and every commit decided, whatever goes wrong on the way: a fault of busd costs
   those whom it met an answer INTERNAL, and nobody else anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from busd.broker.ports import Outcome, Piece, Runtime, Sink, Wanted
from busd.rules.clock import ReceiveClock
from busd.rules.group_records import GroupState
from busd.rules.record import Batch
from busd.rules.replies import Pairs
from busd.rules.seal import Sealed
from busd.rules.select import interleave
from busd.words.errors import BusError, stopping
from busd.words.requests import Publish
from busd.words.settings import Settings
from busd.words.units import NS_PER_S
from busd.world.answers import FAULT, UNKNOWN, names_in, refused
from busd.world.commit import Commit, Committer, GroupWork, Work
from busd.world.disk import Disk, DiskFailed, DiskFull
from busd.world.group_commits import GroupCommits
from busd.world.group_log import GroupLog
from busd.world.log_info import sections
from busd.world.log_questions import LogQuestions
from busd.world.meta import MetaFile
from busd.world.new_stores import NewStores
from busd.world.pace import Pace
from busd.world.reader import Place, Reader
from busd.world.room import Room
from busd.world.sieve import Sieve
from busd.world.stores import Stores
from busd.world.straight import Straight
from busd.world.topic_limit import TopicLimit
from busd.world.upkeep import Health, Upkeep
from busd.world.waiting import Waiting
from busd.world.works import Landing, Taken, pieces, rolls, sealed_works

# When no more than this waits behind a commit, clients ask one by one; 50 of them, each answered before it asks again,
# got half of them into each commit.  The next begins a turn later, behind what has come until then: with a sync, the
# switches of threads and a batch shared by more the server needs a tenth less of the processor for each message.
_LITTLE_BYTES = 16 * 1024


class DiskLog(LogQuestions):
    """See the module.  Made by `open_log`; `visible` is called with what the horizon rose over, `on_idle` when nothing
    waits any more."""

    def __init__(
        self,
        disk: Disk,
        settings: Settings,
        runtime: Runtime,
        committer: Committer,
        stores: Stores,
        meta: MetaFile,
        next_offset: int,
        groups: GroupLog,
    ) -> None:
        super().__init__(stores, runtime, next_offset)
        self.epoch = meta.meta.epoch
        self.visible: Callable[[list[Batch]], None] = lambda batches: None
        self.on_idle: Callable[[], None] | None = None
        self._disk = disk
        self._settings = settings
        self._always = settings.sync == "always"
        self._declared = {name for rule in (settings.main, *settings.stores) for name in rule.groups}
        self._committer = committer
        self._meta = meta
        self._reader = Reader(stores, runtime)
        newest_ns = max(store.newest_ns for store in stores.open.values())
        self.clock = ReceiveClock(runtime.now_ns(), runtime.monotonic_ns(), newest_ns)
        self._waiting = Waiting()
        self._new_stores = NewStores(stores, settings, runtime.fault)
        self._topics = TopicLimit(stores, self._waiting, settings.limits.topics)
        self._busy = False
        # What is tried again of a commit for which there was no room; so is nothing of that.
        self._again: list[Taken] = []
        self._tried_again = False
        self._scheduled = False
        self._stopping = False
        self._pace = Pace(runtime.monotonic_ns)
        self.health = Health()
        self._groups = GroupCommits(groups, runtime, settings.sync, self.health, self._wake)
        self.room = Room(settings, stores, runtime, lambda: self.groups, lambda store: self._upkeep.poke(store))
        self._upkeep = Upkeep(
            disk, settings, runtime, stores, self.health, self.now_ns, self.roll, lambda: self.groups,
            lambda: self.room.on_room(), self._groups.secure,
        )  # fmt: skip
        self._landing = Landing(
            stores, self.health, runtime, self._upkeep.sync_soon, self._upkeep.look_soon,
            lambda: self._groups.log.reserve.give_up(), self._topics.grown,
        )  # fmt: skip
        self._straight = Straight(
            not (self._always or self.room.on), stores, self._new_stores, self._topics, meta, self._pace, self._landing,
            runtime.monotonic_ns,
        )  # fmt: skip
        self._sieve = Sieve(stores, self._topics, self.room, self.health, self._safely)
        self.capped = self.room.on
        self.admits, self.fullness, self.make_room = self.room.admits, self.room.fullness, self.room.make_room
        self.room.load()

    # Publishing.

    def append(self, run: Publish, sink: Sink) -> None:
        """See Log."""
        if self._stopping:
            raise stopping()
        health, waiting = self.health, self._waiting
        if health.cap_bytes:
            # Of a run as a whole: so much more or less is no matter to a cap.
            over_bytes = health.used_bytes + waiting.pending_bytes + run.size_bytes - health.cap_bytes
            if over_bytes > 0 and (text := health.over_cap(run, over_bytes)):
                health.refuse(text, self._runtime.monotonic_ns())
                raise BusError("FULL", text)
        near = waiting.pending_names + names_in(run) > self._topics.spare
        if near or health.failed:
            rest, sink = self._sieve.admit(run, sink, near, self.horizon)
            if rest is None:
                return
            run = rest
        if self.capped:
            self.room.took(run)
        waiting.add(run, sink)
        if not (self._busy or self._scheduled):
            self._wake()

    @property
    def congested(self) -> bool:
        """See Log."""
        return self._waiting.congested

    def _wake(self) -> None:
        if not self._busy and not self._scheduled:
            self._scheduled = True
            self._runtime.first(self._begin)

    def _begin(self) -> None:
        """Start a commit of what waits, once there is one to start and none under way."""
        self._scheduled = False
        if self._busy or not (self._waiting or self._groups.waiting):
            return
        try:
            runs, sinks = self._waiting.take()
        except Exception as error:
            self._runtime.fault(error)
            # At once it would most likely fail again.
            self._runtime.later(NS_PER_S, self._wake)
            return
        self._busy = True
        alone: Work | None = None
        try:
            if len(runs) == 1 and not self._groups.waiting:
                alone = self._straight.commit(runs[0], self.horizon, self.epoch, self.now_ns())
            if alone is None and not self.stores.lone and (names := self._new_stores.due(runs)):
                make = partial(self._new_stores.make, names, self.epoch, self.horizon, self.now_ns())
                self._committer.submit(make, partial(self._made, runs, sinks))
                return
        except Exception as error:
            self._give_up(error, runs, sinks)
            runs, sinks = [], []
        if alone is not None:
            self._went_straight(alone, runs, sinks)
        else:
            self._commit(runs, sinks)

    def _went_straight(self, work: Work, runs: list[Publish], sinks: list[Sink]) -> None:
        """As `_decided` does it for one run that was kept."""
        first, count, took_ns = self.horizon, len(runs[0].items), self._straight.took_ns
        if work.failure is not None:
            commit = Commit([work], False, self._runtime.monotonic_ns, took_ns=took_ns)
            self._decided(runs, sinks, Sealed({}, [first], first + count), commit, at_once=False)
            return
        self.horizon = first + count
        self.health.full = ""
        self._waiting.decided(took_ns)
        self._safely(sinks[0], Outcome(first, count, {}))
        self._safely(self.visible, work.batches)
        self._free(at_once=False)

    def _made(self, runs: list[Publish], sinks: list[Sink]) -> None:
        self._safely(self._new_stores.take)
        self._commit(runs, sinks)

    def _refuse(self, runs: list[Publish], sinks: list[Sink], error: BusError) -> None:
        """Nothing of these was written."""
        self._topics.settle(self._settled())
        self._safely(self.room.decided, runs, [])
        for run, sink in zip(runs, sinks, strict=True):
            self._safely(sink, refused(run, self.horizon, error))

    def _settled(self, disk_ns: int = 0) -> list[Publish]:
        """What is under way no more, once the last piece of the commit is decided; the disk was at it for so long."""
        return [] if self._again else self._waiting.decided(disk_ns)

    def _give_up(self, error: Exception, runs: list[Publish], sinks: list[Sink]) -> None:
        """The same because of a fault."""
        self._runtime.fault(error)
        self._refuse(runs, sinks, FAULT)

    def _commit(self, runs: list[Publish], sinks: list[Sink]) -> None:
        try:
            if self._new_stores.why:
                runs, sinks = self._sieve.sift(runs, sinks, self._new_stores.refused, self.horizon)
            sealed, works = sealed_works(runs, self.stores, self._live, self.horizon, self.epoch, self.now_ns())
            before = self._meta.due(sealed.next, bool(works))
        except Exception as error:
            # What groups have to say is written all the same.
            self._give_up(error, runs, sinks)
            runs, sinks = [], []
            sealed, works, before = Sealed({}, [], self.horizon), [], None
        groups = self._groups.begin() if self._groups.waiting and not self._again else None
        waits = works and (self._always or self._pace.slow or any(work.roll for work in works))
        away = bool(waits) or before is not None or (groups is not None and self._groups.needs_thread(groups))
        commit = Commit(works, self._always, self._runtime.monotonic_ns, before, groups)
        self._carry_out(commit, away, runs, sinks, sealed)

    def _carry_out(self, commit: Commit, away: bool, runs: list[Publish], sinks: list[Sink], sealed: Sealed) -> None:
        if away:
            self._pace.handed_over()
            try:
                self._committer.submit(commit.carry_out, partial(self._decided, runs, sinks, sealed, commit))
                return
            except Exception as error:
                # What is sealed must be decided: this once the loop waits for the disk.
                self._runtime.fault(error)
        commit.carry_out()
        self._pace.took(commit.took_ns)
        # What its answers bring about begins in another turn: here it would be a call within a call, without end.
        self._decided(runs, sinks, sealed, commit, at_once=False)

    def _decided(
        self, runs: list[Publish], sinks: list[Sink], sealed: Sealed, commit: Commit, at_once: bool = True
    ) -> None:
        # Before anything can go wrong: no offset of these is given again.  Of those that are nowhere nobody is told:
        # after a crash they would be given again.
        if not commit.refused:
            self.horizon = sealed.next
        if len(runs) > 1 and not self._tried_again and (again := pieces(runs, sinks, commit)):
            self._again, self._tried_again = again, True
            self._free(at_once)
            return
        self.health.full = ""
        if self._new_stores.full:
            self.health.refuse(self._new_stores.full, self._runtime.monotonic_ns())
        taken = self._settled(commit.took_ns)
        kept: list[Batch] = []
        untold = zip(runs, sinks, sealed.firsts, strict=True)
        early = False
        try:
            try:
                void = self._landing.land(commit, kept)
            finally:
                self._topics.settle(taken)
            if self.capped:
                self._safely(self.room.decided, runs, commit.works)
            self.note_resets(kept)
            # The disk is at much while this one is answered; what is written here must come behind the answers.
            early = at_once and self._always and self._much and commit.groups is None
            if early:
                self._safely(self._free_early)
            for number, (run, sink, first) in enumerate(untold):
                count = len(run.items)
                errors = {at: void[first + at] for at in range(count) if first + at in void} if void else {}
                try:
                    sink(Outcome(first, count, errors, sealed.removed.get(number, 0)))
                except Exception as error:
                    self._runtime.fault(error)
        except Exception as error:
            self._runtime.fault(error)
            for run, sink, first in untold:
                self._safely(sink, refused(run, first, UNKNOWN))
        if commit.groups is not None:
            self._safely(self._regroup, commit.groups)
        self._safely(lambda: self.visible(kept if len(commit.works) == 1 else interleave(kept)))
        if not early:
            self._free(at_once)

    def _regroup(self, work: GroupWork) -> None:
        if self._groups.decided(work):
            self.room.regrouped()

    def _free_early(self) -> None:
        self._free()
        self._committer.hand_over()

    def _safely(self, call: Callable[..., object], *told: object) -> None:
        """One connection's trouble, or a fault in what else follows, must not stop the commits of all."""
        try:
            call(*told)
        except Exception as error:
            self._runtime.fault(error)

    def roll(self) -> None:
        """Begin new segments where one is due, also when nothing is published; not while a commit is under way."""
        if self._busy or self._stopping:
            return
        if works := rolls(self.stores, self.horizon, self.epoch, self.now_ns()):
            self._busy = True
            commit = Commit(works, False, self._runtime.monotonic_ns)
            self._carry_out(commit, True, [], [], Sealed({}, [], self.horizon))

    @property
    def _much(self) -> bool:
        """Between two commits: more waits than a few messages, which others may still come along with."""
        return self._waiting.pending_bytes > _LITTLE_BYTES

    def _free(self, at_once: bool = True) -> None:
        if self._again:
            piece = partial(self._commit, *self._again.pop(0))
            (piece if at_once else partial(self._runtime.first, piece))()
            return
        self._busy = self._tried_again = False
        if self._waiting or self._groups.waiting:
            (self._begin if at_once and (self._much or self._groups.waiting) else self._wake)()
        elif self.on_idle is not None:
            self.on_idle()

    def now_ns(self) -> int:
        """See Log."""
        return self.clock.stamp(self._runtime.now_ns(), self._runtime.monotonic_ns())

    # Groups.

    @property
    def groups(self) -> Mapping[bytes, GroupState]:
        """See Log."""
        return self._groups.log.states

    @property
    def declared(self) -> Collection[bytes]:
        """See Log."""
        return self._declared

    def note(self, lines: Sequence[bytes], done: Callable[[], None]) -> None:
        """See Log."""
        self._groups.note(lines, done)

    def settle(self, lines: Sequence[bytes], sink: Callable[[BusError | None], None]) -> None:
        """See Log."""
        self._groups.settle(lines, sink)

    # Reading.

    def cursor(self, position: int, topic: bytes = b"") -> Place:
        """See Log."""
        return Place(position, topic)

    def read(self, cursor: Place, wanted: Wanted, budget_bytes: int, done: Callable[[Piece | Exception], None]) -> None:
        """See Log."""
        self._reader.read(cursor, wanted, self.horizon, budget_bytes, done)

    def info(self) -> Mapping[str, Pairs]:
        """See Log."""
        return sections(
            self._settings, self.stores, self.health, self.horizon, self.epoch, len(self._topics), self.clock,
            self._groups.log,
        )  # fmt: skip

    # The end.

    @property
    def idle(self) -> bool:
        """True when nothing waits and no commit is in flight."""
        return not (self._busy or self._waiting or self._groups.waiting)

    def start(self) -> None:
        """Begin the upkeep."""
        self._upkeep.start()
        self._groups.start()

    def refuse(self) -> None:
        """From now on nothing is taken; what was taken is decided as ever."""
        self._stopping = True
        self._upkeep.stop()
        self._groups.stop()

    def close(self) -> None:
        """A clean stop: marks, indexes, meta.  Blocking; to be called when idle."""
        self._committer.close()
        clean = self.stores.close(self.horizon, self.now_ns(), self.health.failed)
        try:
            self._groups.close()
        except (DiskFull, DiskFailed, OSError):
            clean = False
        self._meta.close(self.horizon, clean)
