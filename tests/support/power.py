"""Every disk that a power cut may leave behind: what was not synced is there, gone, cut short, zeros or out of order.

A MemoryDisk knows which changes of names and bytes are not durable.  Here each of them is let go in every way that is
told apart, file by file:

    names   each prefix of the changes since the last sync of the directory; with depth 3, each change lost alone, too
    bytes   each prefix of the changes of a file, the next one torn in half; zeros of the right size; and each change
            lost while those behind it came through

One file at a time, the others whole or lost; all combinations where those are few.  What was tried with the same
promises is not tried again.  BUSD_FAULT_DEPTH: 1 tries a part of them, evenly spread (`make test`); 2 many more, all of
them under the default policy (`make faults`); 3 all, also changes of names that come out of order and larger
combinations.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from itertools import product

from tests.support.memory_disk import Change, Inode, MemoryDisk, apply_change, half_of

DEPTH = int(os.environ.get("BUSD_FAULT_DEPTH", "1"))
# All combinations of the states of all files are tried up to so many.
_PRODUCT = 16 if DEPTH < 3 else 400


def states(inode: Inode) -> list[bytes]:
    """What a file may hold, each once; the first is all of it, the second what is durable."""
    changes = inode.changes
    found = [bytes(inode.data), inode.durable]
    for count in range(len(changes)):
        data = _after(inode.durable, changes[:count])
        found.append(bytes(data))
        apply_change(data, half_of(changes[count]))
        found.append(bytes(data))
        if count < len(changes) - 1:
            found.append(_without(inode.durable, changes, count))
    if changes:
        found.append(inode.durable[: len(inode.data)].ljust(len(inode.data), b"\0"))
    return list(dict.fromkeys(found))


def _after(data: bytes, changes: list[Change]) -> bytearray:
    result = bytearray(data)
    for change in changes:
        apply_change(result, change)
    return result


def _without(durable: bytes, changes: list[Change], lost: int) -> bytes:
    """All changes but one, in whose place the old bytes or zeros stand."""
    data = bytearray(durable)
    for number, change in enumerate(changes):
        if number != lost:
            apply_change(data, change)
        elif isinstance(change, bytes):
            data += bytes(len(change))
    return bytes(data)


def cuts(disk: MemoryDisk) -> Iterator[tuple[str, Callable[[], MemoryDisk]]]:
    """Every disk that may be found after a power cut now, each with a name, made when asked for."""
    for names_said, names in _names(disk):
        inodes = list(dict.fromkeys(names.values()))
        dirty = {inode: states(inode) for inode in inodes}
        dirty = {inode: some for inode, some in dirty.items() if len(some) > 1}
        for said, choice in _choices(dirty, {inode: path for path, inode in names.items()}):
            yield f"{names_said}; {said}", partial(disk.left_with, names, choice)


def _names(disk: MemoryDisk) -> Iterator[tuple[str, dict[str, Inode]]]:
    count = disk.unsynced_names
    for kept in range(count, -1, -1):
        yield f"{kept} of {count} names", disk.named(kept)
    if DEPTH > 2:
        for lost in range(count - 1):
            yield f"all of {count} names but number {lost}", disk.named(count, lost)


def _choices(dirty: dict[Inode, list[bytes]], paths: dict[Inode, str]) -> Iterator[tuple[str, dict[Inode, bytes]]]:
    total = 1
    for some in dirty.values():
        total *= len(some)
    if total <= _PRODUCT:
        for numbers in product(*[range(len(some)) for some in dirty.values()]):
            said = ", ".join(f"{paths[inode]} as {number}" for inode, number in zip(dirty, numbers, strict=True))
            chosen = {inode: some[number] for (inode, some), number in zip(dirty.items(), numbers, strict=True)}
            yield said or "nothing unsynced", chosen
        return
    for others in (0, 1):
        yield f"all as {others}", {inode: some[others] for inode, some in dirty.items()}
        for inode, some in dirty.items():
            for number in range(len(some)):
                if number != others:
                    rest = {other: one[others] for other, one in dirty.items()}
                    yield f"{paths[inode]} as {number}, others as {others}", {**rest, inode: some[number]}


class Enumeration:
    """The cuts of a whole story, each once; `every`: one of so many at depth 1, at depth 2; all of them beyond."""

    def __init__(self, *every: int) -> None:
        self._every = every[DEPTH - 1] if len(every) >= DEPTH else 1
        self._seen: set[int] = set()
        self._number = 0

    def cuts(self, disk: MemoryDisk, promises: Hashable) -> Iterator[tuple[str, MemoryDisk]]:
        """Those of this moment that were not tried with these promises."""
        for said, make in cuts(disk):
            self._number += 1
            if self._number % self._every:
                continue
            found = make()
            key = hash((promises, tuple(sorted(found.contents().items()))))
            if key not in self._seen:
                self._seen.add(key)
                yield said, found
