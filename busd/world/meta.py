"""`data/meta`: what must be known before any log is read.

    format 2 / epoch / boot / floor / since / sync / clean / crc, a line each: name, blank, value

`floor` lies above every offset ever given, so that a log that lost its tail in a power cut cannot give one twice.
`since` is where the last start went on: a store in which it could not yet record what a power cut took has lost at most
what stands below, and a start that comes before it has must say so, too.  Older files have none; who does not know a
line passes over it.
`clean` is yes only between a clean stop and the next start.  `crc` is the CRC-32 of the lines before it, in hex.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from busd.rules.checksum import crc32
from busd.rules.segment_opening import FORMAT, format_trouble
from busd.world.disk import Disk, DiskFailed, DiskFull

# The floor is moved this far ahead at a time: one durable write in four million messages.
FLOOR_STEP = 1 << 22


class WrongFormat(Exception):
    """The data directory is of another version of busd (`newer`), or not one at all, or damaged."""

    newer = False


@dataclass(frozen=True, slots=True)
class Meta:
    """See the module."""

    epoch: int = 1
    boot: str = ""
    floor: int = 1
    sync: str = "always"
    clean: bool = True
    since: int = 1

    def text(self) -> bytes:
        """The file's contents."""
        clean = "yes" if self.clean else "no"
        lines = (f"format {FORMAT}", f"epoch {self.epoch}", f"boot {self.boot}", f"floor {self.floor}")
        text = "\n".join((*lines, f"since {self.since}", f"sync {self.sync}", f"clean {clean}", "")).encode()
        return b"%bcrc %08x\n" % (text, crc32(text))


def load_meta(disk: Disk, path: str) -> Meta | None:
    """The file at `path`; None when there is none.

    Raises:
        WrongFormat: it is not one of ours, or of a newer version.
    """
    if not disk.exists(path):
        return None
    data = disk.read_file(path)
    try:
        fields = dict(line.split(" ", 1) for line in data.decode().splitlines())
        if trouble := format_trouble(int(fields["format"])):
            error = WrongFormat(f"{path}: {trouble}")
            error.newer = _holds(data)
            raise error
        epoch, floor, since = int(fields["epoch"]), int(fields["floor"]), int(fields.get("since", "1"))
        meta = Meta(epoch, fields["boot"], floor, fields["sync"], fields["clean"] == "yes", since)
    except (ValueError, KeyError, UnicodeDecodeError) as error:
        raise WrongFormat(f"{path}: not a meta file of busd ({error})") from None
    if not _holds(data):
        raise WrongFormat(f"{path}: damaged, its crc does not fit; `busd repair` writes it anew")
    return meta


def _holds(data: bytes) -> bool:
    """Whether the checksum at the end does; any later version will have it there."""
    text, _, crc = data.rpartition(b"crc ")
    return crc == b"%08x\n" % crc32(text)


def save_meta(disk: Disk, path: str, meta: Meta) -> None:
    """Replace the file, durably."""
    disk.write_file(path, meta.text())


def raised(meta: Meta, next_offset: int) -> Meta | None:
    """A meta whose floor is far enough above `next_offset`, or None when it is already."""
    if next_offset + FLOOR_STEP // 2 <= meta.floor:
        return None
    return replace(meta, floor=next_offset + FLOOR_STEP)


class MetaFile:
    """The file and what it says: `meta`.  `owes`: there was no room to write that.

    `due` belongs to the loop, what it returns to the thread of the commit that is in flight.
    """

    def __init__(self, disk: Disk, path: str, meta: Meta, owes: bool = False) -> None:
        self.meta = meta
        self._disk = disk
        self._path = path
        self._owes = owes

    def due(self, next_offset: int, anything: bool) -> Callable[[], None] | None:
        """What must be written before offsets below `next_offset` are given out (if `anything` is); None: nothing.

        What fails is due again the next time.
        """
        # As `raised` says; every commit asks.
        if next_offset + FLOOR_STEP // 2 <= self.meta.floor and not self._owes:
            return None
        meta = raised(self.meta, next_offset) or (self.meta if anything else None)
        if meta is None:
            return None

        def write() -> None:
            save_meta(self._disk, self._path, meta)
            self.meta, self._owes = meta, False

        return write

    def close(self, next_offset: int, clean: bool) -> None:
        """A stop, `clean` or with a store that has failed: then offsets that no store has were told of as next.

        Where it cannot be noted, the next start looks as after a crash.
        """
        meta = replace(self.meta, since=max(self.meta.since, next_offset))
        if clean:
            meta = replace(self.meta, clean=True, floor=next_offset)
        with contextlib.suppress(DiskFull, DiskFailed):
            save_meta(self._disk, self._path, meta)
