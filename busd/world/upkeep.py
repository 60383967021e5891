"""Once a second: sync what `interval` has written, let retention act, measure the cap; and the health of the log.

The timer owns the sync: it does not wait for traffic; what is much is synced earlier.  All waiting is done in threads.
Retention also acts when it is poked, because somebody waits for room: at once, and again as long as closing a segment
lets more go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from busd.broker.ports import Runtime
from busd.rules.clock import MAX_LEAP_NS
from busd.rules.group_records import GroupState
from busd.rules.wanted import Claims
from busd.words.errors import BusError
from busd.words.requests import Publish
from busd.words.settings import Settings
from busd.words.units import NS_PER_S
from busd.world.answers import topics_of
from busd.world.disk import Disk, DiskFailed, DiskFull
from busd.world.store import Store, Trimmed
from busd.world.stores import Stores

_TICK_NS = NS_PER_S
# Between two looks for somebody who waits: refused publishers may ask thousands of times a second.
_POKE_NS = NS_PER_S // 50


@dataclass(slots=True)
class Health:
    """What is wrong.  `failed`: by store, why it waits for a restart; `full`: why there was no room in the last commit,
    empty when there was; `refused`, `refused_ns`: the last refusal, and when that was; `trouble`: what kept retention
    from its work; `syncing_since_ns`: when the sync began that is under way, 0 for none; `reserve_whole`: whether
    groups can be written on a full disk."""

    failed: dict[str, str] = field(default_factory=dict)
    full: str = ""
    trouble: str = ""
    syncing_since_ns: int = 0
    refused: str = ""
    refused_ns: int = 0
    reserve_whole: bool = True
    cap_bytes: int = 0
    used_bytes: int = 0

    def refuse(self, text: str, now_ns: int) -> None:
        """There was no room, by the cap or on the disk.  `now_ns` is of the clock that only rises."""
        self.full = self.refused = text
        self.refused_ns = now_ns

    def over_cap(self, run: Publish, over_bytes: int) -> str:
        """Why a run is refused that would get the data directory so far over its cap; empty for a dead letter and for a
        RESET."""
        # A RESET makes room.  Dead letters have a reserve: what they stand for can only be settled behind them.
        dead = over_bytes <= self.cap_bytes // 20 and all(topic.startswith(b"_dead.") for topic in topics_of(run))
        if dead or run.kind == "reset":
            return ""
        return f"the data directory is at its cap of {self.cap_bytes} bytes; nothing was kept"

    @property
    def text(self) -> str:
        """`ok`, or what is wrong."""
        if self.failed:
            return "disk: " + "; ".join(f"{name}: {text}" for name, text in self.failed.items())
        if self.full:
            return f"full: {self.full}"
        return f"retention: {self.trouble}" if self.trouble else "ok"


class Upkeep:
    """See the module.

    `stamp`: the time of receipt, which does not leap; `roll`: begins segments that are due; `groups`: what is decided
    of each group; `freed`: told when there is more room; `secure`: makes durable what groups have
    settled, in a thread, before anything goes because of it.
    """

    def __init__(
        self,
        disk: Disk,
        settings: Settings,
        runtime: Runtime,
        stores: Stores,
        health: Health,
        stamp: Callable[[], int],
        roll: Callable[[], None],
        groups: Callable[[], Mapping[bytes, GroupState]] = dict,
        freed: Callable[[], None] = lambda: None,
        secure: Callable[[], None] = lambda: None,
    ) -> None:
        self._disk = disk
        self._settings = settings
        self._runtime = runtime
        self._stores = stores
        self._health = health
        self._stamp = stamp
        self._roll = roll
        self._groups = groups
        self._freed = freed
        self._secure = secure
        self._began_ns = runtime.monotonic_ns()
        self._newest_ns = max((store.newest_ns for store in stores.open.values()), default=0)
        self._claims: Claims | None = None
        # Stores in which somebody waits for room, and how to call off the next look for them.
        self._asked: set[str] = set()
        self._look: Callable[[], None] | None = None
        self._looked_ns = 0
        self._stopped = False
        self._trimming = False
        self._syncing = False
        # All were to be synced while a sync was under way.
        self._overdue = False
        self._cancel: Callable[[], None] | None = None

    def start(self) -> None:
        """The first look around, and one a second from then on."""
        # First, so that a fault below costs one look around and not all that would follow.
        self._cancel = self._runtime.later(_TICK_NS, self.start)
        if self._settings.sync == "interval":
            self._sync_all()
        self._trim()
        self._roll()
        self._measure_cap()

    def stop(self) -> None:
        """No more of them."""
        self._stopped = True
        for cancel in (self._cancel, self._look):
            if cancel is not None:
                cancel()

    def poke(self, store: str) -> None:
        """Somebody waits for room in this store: what may go should go now."""
        self._asked.add(store)
        self.look_soon()

    def look_soon(self) -> None:
        """A segment was closed: caps may be passed long before the second is over."""
        if self._look is None and not self._trimming and not self._stopped:
            since_ns = self._runtime.monotonic_ns() - self._looked_ns
            self._look = self._runtime.later(max(0, _POKE_NS - since_ns), self._look_now)

    def _look_now(self) -> None:
        self._look = None
        self._looked_ns = self._runtime.monotonic_ns()
        self._trim()

    def sync_soon(self, store: Store) -> None:
        """Much was written to it since the last sync: under `interval` the disk begins with that."""
        if self._settings.sync == "interval":
            self._sync([store])

    def _sync_all(self) -> None:
        # One of much is under way again and again in a flood: the others must not wait for its end.
        self._overdue = self._syncing
        self._sync(self._stores.open.values())

    def _sync(self, stores: Iterable[Store]) -> None:
        if self._syncing or self._stopped:
            return
        written = [(store, store.last) for store in stores if store.synced < store.last]
        written = [(store, last) for store, last in written if store.name not in self._health.failed]
        if not written:
            return
        failures: dict[str, str] = {}

        def work() -> None:
            for store, _ in written:
                try:
                    store.sync()
                except DiskFailed as error:
                    failures[store.name] = error_of(error).text

        def done(result: object) -> None:
            self._syncing = False
            self._health.syncing_since_ns = 0
            if isinstance(result, Exception):
                raise result
            self._health.failed.update(failures)
            for store, last in written:
                if store.name not in failures and not store.failed:
                    store.landed([], None, last)
            if self._overdue:
                self._sync_all()

        self._runtime.in_thread(work, done)
        self._syncing = True
        self._health.syncing_since_ns = self._runtime.monotonic_ns()

    def _trim(self) -> None:
        if self._trimming:
            return
        now_ns, groups, asked = self._expiry_ns(), self._groups(), self._asked
        if self._claims is None or not self._claims.still(groups):
            self._claims = Claims(groups, self._claims)
        found = [
            (store, store.expired(now_ns, self._claims, name in asked)) for name, store in self._stores.open.items()
        ]

        faults: list[Exception] = []

        def work() -> list[tuple[Store, Trimmed]]:
            trimmed = []
            for store, trims in found:
                try:
                    trimmed.append((store, store.trim(trims, self._secure)))
                except Exception as error:
                    # What became of the other stores' files is to be known all the same.
                    faults.append(error)
            return trimmed

        def done(result: list[tuple[Store, Trimmed]] | Exception) -> None:
            self._trimming = False
            if isinstance(result, Exception):
                raise result
            if self._stopped:
                return
            for store, trimmed in result:
                store.trimmed(trimmed)
            self._health.trouble = "; ".join(f"{trimmed.error}" for _, trimmed in result if trimmed.error)
            if any(trimmed.gone for _, trimmed in result):
                self._stores.version += 1
                self._health.used_bytes = self._stores.total_bytes
                self._freed()
            closing = [store.name for store, trimmed in result if trimmed.roll]
            if closing:
                self._roll()
            for name in (*closing, *self._asked):
                self.poke(name)
            for fault in faults:
                self._runtime.fault(fault)

        self._runtime.in_thread(work, done)
        self._trimming, self._asked = True, set()

    def _expiry_ns(self) -> int:
        """The time that ages are measured by.  A machine may start with its clock years ahead and be corrected soon:
        for as long as a leap is not followed, the time that the server was down counts as that long at most."""
        now_ns, up_ns = self._stamp(), self._runtime.monotonic_ns() - self._began_ns
        if self._newest_ns and up_ns < MAX_LEAP_NS:
            return min(now_ns, self._newest_ns + MAX_LEAP_NS + up_ns)
        return now_ns

    def _measure_cap(self) -> None:
        limits = self._settings.limits
        self._health.used_bytes = self._stores.total_bytes
        if limits.total_bytes:
            self._health.cap_bytes = limits.total_bytes
            return

        def done(usage: object) -> None:
            if isinstance(usage, tuple):
                self._health.cap_bytes = usage[0] * limits.total_percent // 100

        self._runtime.in_thread(lambda: self._disk.usage(self._settings.data), done)


def error_of(failure: Exception) -> BusError:
    """What a client is told about a failure of the disk."""
    if isinstance(failure, DiskFull):
        return BusError("FULL", f"no room: {failure}; nothing was kept")
    return BusError("DISK", f"{failure}; nothing is written there until busd is restarted")
