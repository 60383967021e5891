"""What Linux says of another process: its memory, its time, its descriptors."""

from __future__ import annotations

import os
import re
from pathlib import Path


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def cpu_s(pid: int) -> float:
    """CPU time of a process so far."""
    # Behind the name in brackets, which may hold anything.
    facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(facts[11]) + int(facts[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(pid: int) -> int:
    """How many a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def arenas(pid: int) -> int:
    """Places besides the first from which threads of it take memory: glibc reserves 64 MB of addresses for each."""
    count = 0
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        addresses, rights, *_, inode = line.split()[:5]
        first, end = (int(one, 16) for one in addresses.split("-"))
        count += rights == "---p" and inode == "0" and end - first > 32 << 20
    return count
