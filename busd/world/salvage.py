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
        if size_bytes <= _SECTOR_BYTES:
            return bytes(size_bytes)
    # By halves: one bad sector in a large file costs some tens of reads, not thousands.
    half = (size_bytes // 2 + _SECTOR_BYTES - 1) // _SECTOR_BYTES * _SECTOR_BYTES
    return readable(file, at, half) + readable(file, at + half, size_bytes - half)
