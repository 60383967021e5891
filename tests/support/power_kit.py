"""Power cuts behind every single call that a store makes to its disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from tests.support.memory_disk import MemoryDisk
from tests.support.store_kit import Kit

K = TypeVar("K", bound=Kit)


class PowerCut(BaseException):
    """Nothing after this call happens; nobody catches it."""


class CuttingDisk(MemoryDisk):
    """Stops before call number `stop_at`."""

    stop_at = -1

    def step(self, kind: str, path: str) -> None:
        """See MemoryDisk."""
        if len(self.calls) == self.stop_at:
            raise PowerCut
        super().step(kind, path)


def crashes(make: Callable[[], K], sequence: Callable[[K], object]) -> Iterator[tuple[str, K, MemoryDisk]]:
    """Every crash of a sequence: (where, the kit with what was promised by then, the disk that is found)."""
    stop = 0
    while True:
        kit = make()
        disk = CuttingDisk()
        for path, data in kit.disk.contents().items():
            disk.set_contents(path, data)
            disk.names[path].durable_punched = disk.names[path].punched = kit.disk.names[path].punched[:]
        kit.disk = disk
        kit.reopen()
        disk.calls.clear()
        disk.stop_at = stop
        try:
            sequence(kit)
            ended = True
        except PowerCut:
            ended = False
        for where, found in disk.crashes():
            yield f"before call {stop} ({disk.calls[-1:]}), {where}", kit, found
        if ended:
            return
        stop += 1
