"""`data/meta`: what must be known before any log is read.

    format 1 / epoch / boot / floor / sync / clean, a line each: name, blank, value

`floor` lies above every offset ever given, so that a log that lost its tail in a power cut cannot give one twice.
`clean` is yes only between a clean stop and the next start.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from busd.rules.record import FORMAT
from busd.world.disk import Disk

# The floor is moved this far ahead at a time: one durable write in four million messages.
FLOOR_STEP = 1 << 22


class WrongFormat(Exception):
    """The data directory is of another version of busd, or not one at all."""


@dataclass(frozen=True, slots=True)
class Meta:
    """See the module."""

    epoch: int = 1
    boot: str = ""
    floor: int = 1
    sync: str = "always"
    clean: bool = True

    def text(self) -> bytes:
        """The file's contents."""
        clean = "yes" if self.clean else "no"
        lines = (f"format {FORMAT}", f"epoch {self.epoch}", f"boot {self.boot}", f"floor {self.floor}")
        return "\n".join((*lines, f"sync {self.sync}", f"clean {clean}", "")).encode()


def load_meta(disk: Disk, path: str) -> Meta | None:
    """The file at `path`; None when there is none.

    Raises:
        WrongFormat: it is not one of ours, or of a newer version.
    """
    if not disk.exists(path):
        return None
    try:
        lines = disk.read_file(path).decode().splitlines()
        fields = dict(line.split(" ", 1) for line in lines)
        if int(fields["format"]) != FORMAT:
            raise WrongFormat(f"{path}: format {fields['format']}; this busd reads format {FORMAT}")
        return Meta(
            int(fields["epoch"]), fields["boot"], int(fields["floor"]), fields["sync"], fields["clean"] == "yes"
        )
    except (ValueError, KeyError, UnicodeDecodeError) as error:
        raise WrongFormat(f"{path}: not a meta file of busd ({error})") from None


def save_meta(disk: Disk, path: str, meta: Meta) -> None:
    """Replace the file, durably."""
    disk.write_file(path, meta.text())


def raised(meta: Meta, next_offset: int) -> Meta | None:
    """A meta whose floor is far enough above `next_offset`, or None when it is already."""
    if next_offset + FLOOR_STEP // 2 <= meta.floor:
        return None
    return replace(meta, floor=next_offset + FLOOR_STEP)
