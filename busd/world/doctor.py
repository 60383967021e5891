"""What a place is good for, before anything depends on it: the disk, the lock, the clock, the limits of the process.

Each check gives one finding and leaves nothing behind.  It must not open the log.  Blocking.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Literal

from busd.rules.users import BadUsers
from busd.words.settings import Settings
from busd.words.units import NS_PER_S
from busd.world import descriptors
from busd.world.disk import DiskFailed, DiskFull, Locked
from busd.world.fallocate import punch_hole
from busd.world.inspect import stores
from busd.world.real_disk import RealDisk
from busd.world.sockets import BadAddress, owner_of, split_address
from busd.world.tls import tls_context
from busd.world.users import read_users

Verdict = Literal["ok", "note", "bad"]
# A commit of a few messages, and enough of them for a 99th percentile.
_WRITE_BYTES = 512
_ROUNDS = 100
# No longer than this over a disk that is very slow.
_PATIENCE_NS = 5 * NS_PER_S
_MIB = 1 << 20
# Fewer connections than people expect; more are refused.
_FEW_DESCRIPTORS = 4096
# Faster than any disk that keeps what it says it has kept: a cache, or memory.
_TOO_QUICK_US = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `bad`: busd will not work as it should there."""

    name: str
    verdict: Verdict
    text: str


def examine(settings: Settings) -> list[Finding]:
    """All checks, in an order that a person reads them in."""
    disk = RealDisk()
    made = _missing(settings.data)
    try:
        try:
            disk.makedirs(settings.data)
        except (DiskFull, DiskFailed, OSError) as error:
            return [Finding("data", "bad", f"{settings.data} cannot be made: {error}")]
        if not os.path.isdir(settings.data):
            return [Finding("data", "bad", f"{settings.data} is not a directory")]
        found = [_data(settings), _lock(disk, settings), *_sync_cost(settings), _space(disk, settings)]
        found += [_holes(settings), _sockets(settings), *_files(settings)]
        return [*found, _clock(), _descriptors(disk, settings), _memory(settings)]
    finally:
        for path in made:
            # Ours; with anything in it, it stays.
            with contextlib.suppress(OSError):
                os.rmdir(path)


def _missing(path: str) -> list[str]:
    """The directories that have to be made for it, the deepest first."""
    found = []
    path = os.path.abspath(path)
    while not os.path.lexists(path):
        found.append(path)
        path = os.path.dirname(path)
    return found


def _data(settings: Settings) -> Finding:
    if not os.access(settings.data, os.R_OK | os.W_OK | os.X_OK):
        return Finding("data", "bad", f"{settings.data} may not be written to by {_who()}")
    kind = _file_system(os.path.realpath(settings.data))
    if kind in ("tmpfs", "ramfs"):
        return Finding("data", "bad", f"{settings.data} is on {kind}: a power cut takes everything")
    if kind.startswith(("nfs", "cifs", "smb", "9p", "fuse")):
        text = f"{settings.data} is on {kind}: locks and syncs mean there what its server makes of them"
        return Finding("data", "note", text)
    return Finding("data", "ok", f"{settings.data} is on {kind or 'an unknown file system'}")


def _who() -> str:
    return f"uid {os.getuid()}"


def _file_system(path: str) -> str:
    """The kind of the file system that holds a path; empty where nobody tells."""
    best, kind = "", ""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
            for line in file:
                _, place, what, *_ = line.split(" ")
                place = place.replace("\\040", " ")
                inside = path == place or path.startswith(place.rstrip("/") + "/")
                if inside and len(place) >= len(best):
                    best, kind = place, what
    except OSError:
        return ""
    return kind


def _lock(disk: RealDisk, settings: Settings) -> Finding:
    path = f"{settings.data}/LOCK"
    if not os.path.lexists(path):
        # Made here it would have to be removed again, perhaps from under a server that starts in this moment.
        return Finding("lock", "ok", "free: no server has been here")
    try:
        lock = disk.lock(path)
    except Locked as error:
        return Finding("lock", "note", f"in use: {error}")
    except (DiskFull, DiskFailed, OSError) as error:
        return Finding("lock", "bad", f"cannot be taken: {error}")
    lock.release()
    return Finding("lock", "ok", "free, and can be taken")


def _sync_cost(settings: Settings) -> list[Finding]:
    """What an answer under `sync = always` costs here, measured."""
    path = os.path.join(settings.data, f".doctor-{os.getpid()}")
    waits_us: list[float] = []
    writes_us: list[float] = []
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            end_ns = time.monotonic_ns() + _PATIENCE_NS
            while len(waits_us) < _ROUNDS and time.monotonic_ns() < end_ns:
                began_ns = time.monotonic_ns()
                os.write(fd, b"x" * _WRITE_BYTES)
                written_ns = time.monotonic_ns()
                os.fdatasync(fd)
                waits_us.append((time.monotonic_ns() - written_ns) / 1000)
                writes_us.append((written_ns - began_ns) / 1000)
        finally:
            os.close(fd)
            os.unlink(path)
    except OSError as error:
        return [Finding("sync", "bad", f"a file in {settings.data} cannot be written and synced: {error.strerror}")]
    usual_us = median(waits_us)
    slow_us = quantiles(waits_us, n=100)[98] if len(waits_us) > 1 else usual_us
    text = (
        f"fdatasync takes {_time(usual_us)}, 1 in 100 {_time(slow_us)}: with sync = always a lone PUB is answered "
        f"after about that, {max(1, round(1e6 / usual_us)):,} a second one after the other; many at once share a sync. "
        f"With interval or never it is answered after a write, {_time(median(writes_us))}"
    )
    verdict: Verdict = "ok"
    if usual_us < _TOO_QUICK_US:
        text += "; no disk is that quick: what keeps it may not outlive a power cut"
        verdict = "note"
    elif usual_us > 50_000:
        text += "; that is slow: interval may suit, if the last second may be lost with the power"
        verdict = "note"
    return [Finding("sync", verdict, text)]


def _time(us: float) -> str:
    return f"{us / 1000:.1f} ms" if us >= 1000 else f"{us:.0f} µs"


def _space(disk: RealDisk, settings: Settings) -> Finding:
    total, free = disk.usage(settings.data)
    limits = settings.limits
    cap = limits.total_bytes or total * limits.total_percent // 100
    text = f"{free // _MIB:,} MiB free of {total // _MIB:,}; busd takes up to {cap // _MIB:,} and refuses what is more"
    if free < 64 * _MIB:
        return Finding("space", "bad", text)
    return Finding(
        "space", "note" if cap > free else "ok", text + (", but the disk is full before" if cap > free else "")
    )


def _holes(settings: Settings) -> Finding:
    path = os.path.join(settings.data, f".doctor-{os.getpid()}")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, b"x" * 65_536)
            can = punch_hole(fd, 0, 32_768)
        finally:
            os.close(fd)
            os.unlink(path)
    except OSError as error:
        return Finding("holes", "note", f"cannot be tried: {error.strerror}")
    if can:
        return Finding("holes", "ok", "space of what is settled can be given back at once")
    return Finding(
        "holes", "note", "this file system has none: what is settled is given back by whole or rewritten files"
    )


def _sockets(settings: Settings) -> Finding:
    places = []
    for text in filter(None, (settings.tcp, settings.tls, settings.unix)):
        try:
            places.append(_unix(text) if text == settings.unix else _tcp(text))
        except OSError as error:
            return Finding("sockets", "bad", f"{text}: {error.strerror or error}")
        except BadAddress as error:
            return Finding("sockets", "bad", str(error))
    return Finding("sockets", "ok", "; ".join(places))


def _unix(path: str) -> str:
    """What one finds at a path: a server, or room for one."""
    owner = owner_of(path)
    directory = os.path.dirname(path) or "."
    if not owner and not os.access(directory, os.W_OK):
        raise PermissionError(0, f"{directory} may not be written to by {_who()}")
    if owner is None:
        return f"{path} is free"
    return f"process {owner} listens on {path}" if owner else f"{path} is left over from a server, and will be replaced"


def _tcp(text: str) -> str:
    """The same at an address."""
    host, port = split_address(text)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError:
            with socket.socket(family) as probe:
                probe.settimeout(1)
                probe.connect((host, port))
            return f"somebody listens on {text}"
    return f"{text} is free"


def _files(settings: Settings) -> list[Finding]:
    """What else a start reads, and is stopped by."""
    found = []
    if settings.tls:
        try:
            tls_context(settings)
            found.append(Finding("tls", "ok", f"the certificate {settings.tls_cert} and its key fit"))
        except (BadAddress, OSError) as error:
            found.append(Finding("tls", "bad", str(error)))
    if settings.users:
        try:
            read_users(settings.users)
            found.append(Finding("users", "ok", f"{settings.users} can be used"))
        except BadUsers as error:
            found.append(Finding("users", "bad", str(error)))
    return found


def _clock() -> Finding:
    now_s = time.time()
    built_s = os.stat(__file__).st_mtime
    if now_s < built_s - 86_400:
        return Finding("clock", "bad", "the wall clock is before the day that this file was written")
    try:
        with open("/run/systemd/timesync/synchronized", "rb"):
            return Finding("clock", "ok", "set, and kept by systemd-timesyncd")
    except OSError:
        return Finding(
            "clock", "ok", f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(now_s))}; nobody tells who keeps it"
        )


def _descriptors(disk: RealDisk, settings: Settings) -> Finding:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    hard = descriptors.UNLIMITED if hard == resource.RLIM_INFINITY else hard
    limits = settings.limits
    text = f"{hard:,} descriptors; the setting connections is {limits.connections:,}"
    more = "raise `ulimit -Hn` or LimitNOFILE="
    try:
        there = len(stores(disk, settings.data))
    except (DiskFull, DiskFailed, OSError):
        # The place is looked at by another check.
        there = 0
    if there > 1 and (least := descriptors.needed(there)) > hard:
        return Finding("descriptors", "bad", f"{text}; the {there:,} stores need {least:,} to start; {more}")
    most = descriptors.most_stores(hard, limits.connections)
    if there > most:
        told = f"{text}; there are {there:,} stores, and none is made beyond {most:,}; {more}"
        return Finding("descriptors", "note", told)
    if most <= limits.topics and any("{topic}" in rule.name for rule in settings.stores):
        told = f"{text}; topics is {limits.topics:,} and each may have a store, of which {most:,} fit; {more}"
        return Finding("descriptors", "note", told)
    if hard < min(limits.connections + 64, _FEW_DESCRIPTORS):
        return Finding("descriptors", "note", f"{text}, so fewer will be taken; {more}")
    return Finding("descriptors", "ok", text)


def _memory(settings: Settings) -> Finding:
    limits = settings.limits
    readers = limits.connections * limits.outbox_bytes
    text = (
        f"about 50 MiB at rest, {limits.outbox_bytes // 1024:,} KiB more for each reader that is slow "
        f"({readers // _MIB:,} MiB when all {limits.connections:,} are), "
        f"{(limits.unfinished_bytes + limits.held_bytes) // _MIB:,} MiB for commands under way"
    )
    return Finding("memory", "ok", text)
