"""Once a second: sync what `interval` has written, let retention act, measure the cap; and the health of the log.

The timer owns the sync: it does not wait for traffic.  All waiting is done in threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from busd.broker.ports import Runtime
from busd.words.errors import BusError
from busd.words.settings import Settings
from busd.words.units import NS_PER_S
from busd.world.disk import Disk, DiskFailed, DiskFull
from busd.world.store import Store, Trimmed
from busd.world.stores import Stores

_TICK_NS = NS_PER_S


@dataclass(slots=True)
class Health:
    """What is wrong.  `failed`: by store, why it waits for a restart; `full`: why the last run was refused;
    `trouble`: what kept retention from its work."""

    failed: dict[str, str] = field(default_factory=dict)
    full: str = ""
    trouble: str = ""
    cap_bytes: int = 0
    used_bytes: int = 0

    @property
    def text(self) -> str:
        """`ok`, or what is wrong."""
        if self.failed:
            return "disk: " + "; ".join(f"{name}: {text}" for name, text in self.failed.items())
        if self.full:
            return f"full: {self.full}"
        return f"retention: {self.trouble}" if self.trouble else "ok"


class Upkeep:
    """See the module.  `stamp`: the time of receipt, which does not leap; `roll`: begins segments that are due."""

    def __init__(
        self,
        disk: Disk,
        settings: Settings,
        runtime: Runtime,
        stores: Stores,
        health: Health,
        stamp: Callable[[], int],
        roll: Callable[[], None],
    ) -> None:
        self._disk = disk
        self._settings = settings
        self._runtime = runtime
        self._stores = stores
        self._health = health
        self._stamp = stamp
        self._roll = roll
        self._trimming = False
        self._syncing = False
        self._cancel: Callable[[], None] | None = None

    def start(self) -> None:
        """The first look around, and one a second from then on."""
        if self._settings.sync == "interval":
            self._sync_written()
        self._trim()
        self._roll()
        self._measure_cap()
        self._cancel = self._runtime.later(_TICK_NS, self.start)

    def stop(self) -> None:
        """No more of them."""
        if self._cancel is not None:
            self._cancel()

    def _sync_written(self) -> None:
        if self._syncing:
            return
        written = [(store, store.last) for store in self._stores.open.values() if store.synced < store.last]
        written = [(store, last) for store, last in written if store.name not in self._health.failed]
        if not written:
            return
        self._syncing = True
        failures: dict[str, str] = {}

        def work() -> None:
            for store, _ in written:
                try:
                    store.sync()
                except DiskFailed as error:
                    failures[store.name] = error_of(error).text

        def done(result: object) -> None:
            self._syncing = False
            if isinstance(result, Exception):
                raise result
            self._health.failed.update(failures)
            for store, last in written:
                if store.name not in failures:
                    store.landed([], None, last)

        self._runtime.in_thread(work, done)

    def _trim(self) -> None:
        if self._trimming:
            return
        now_ns = self._stamp()
        found = [(store, trims) for store in self._stores.open.values() if (trims := store.expired(now_ns))]
        if not found:
            return
        self._trimming = True

        def work() -> list[tuple[Store, Trimmed]]:
            return [(store, store.trim(trims)) for store, trims in found]

        def done(result: list[tuple[Store, Trimmed]] | Exception) -> None:
            self._trimming = False
            if isinstance(result, Exception):
                raise result
            for store, trimmed in result:
                store.trimmed(trimmed)
            self._health.trouble = "; ".join(f"{trimmed.error}" for _, trimmed in result if trimmed.error)
            self._stores.version += 1

        self._runtime.in_thread(work, done)

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
