"""Reading a file of which the disk cannot give everything: zeros stand for what it cannot.

Checksums find the zeros, so that what is around them is used and they are named as damage.
"""

from __future__ import annotations

from busd.world.disk import DiskFailed, File

# What a disk loses, it loses by sectors.
_SECTOR_BYTES = 512


def readable(file: File, at: int, size_bytes: int) -> bytes:
    """So many bytes from a position; sectors that cannot be read are zeros.  Waits for the disk."""
    try:
        return file.read(at, size_bytes)
    except DiskFailed:
        pass
    # By halves, between sectors: one bad sector in a large file costs some tens of reads, not thousands.
    middle = -(-(at + size_bytes // 2) // _SECTOR_BYTES) * _SECTOR_BYTES
    if middle >= at + size_bytes:
        middle -= _SECTOR_BYTES
    if middle <= at:
        return bytes(size_bytes)
    return readable(file, at, middle - at) + readable(file, middle, at + size_bytes - middle)
