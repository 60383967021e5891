"""Opening a data directory: lock, meta, recovery, and what an unclean stop means for the sequence."""

from __future__ import annotations

from dataclasses import dataclass, replace

from busd.broker.ports import Runtime
from busd.rules.group_records import line_new
from busd.words.patterns import matcher
from busd.words.settings import Settings
from busd.world.commit import Committer
from busd.world.disk import Disk, DiskFull, Lock
from busd.world.group_log import GroupLog
from busd.world.log import DiskLog
from busd.world.meta import Meta, MetaFile, load_meta, raised, save_meta
from busd.world.stores import Stores


@dataclass(slots=True)
class Opened:
    """An open data directory.  `report`: what recovery found, a line each, empty after a clean stop."""

    log: DiskLog
    lock: Lock
    report: list[str]


def open_log(disk: Disk, settings: Settings, runtime: Runtime, committer: Committer, boot: str) -> Opened:
    """Take the lock and open the log, recovering what a crash left.  Blocking.

    Args:
        boot: an id of this run of the machine; a power cut lies between two different ones.

    Raises:
        Locked: another busd has it.
        WrongFormat, DiskFull, DiskFailed: nothing was changed that would not be done again.
    """
    data = settings.data
    disk.makedirs(data)
    lock = disk.lock(f"{data}/LOCK")
    try:
        log, report = _open(disk, settings, runtime, committer, boot)
    except BaseException:
        lock.release()
        raise
    return Opened(log, lock, report)


def _open(
    disk: Disk, settings: Settings, runtime: Runtime, committer: Committer, boot: str
) -> tuple[DiskLog, list[str]]:
    path = f"{settings.data}/meta"
    found = load_meta(disk, path)
    meta = found or Meta()
    report = []
    # Under `always` everything shown was synced; within one boot the kernel still has what was written.
    power_cut = not meta.clean and meta.sync != "always" and meta.boot != boot
    if power_cut:
        meta = replace(meta, epoch=meta.epoch + 1)
        report.append(
            f"the machine went down under sync={meta.sync}: offsets go on at {meta.floor}, epoch {meta.epoch}; "
            "messages after the last one recovered, if there were any, are lost"
        )
    stores = Stores(disk, f"{settings.data}/logs", settings)
    # A start before this one may have been ended before it could record what a power cut had taken.
    known = meta.floor if meta.clean or power_cut else meta.since
    stores.load(meta.epoch, known, runtime.now_ns())
    opened = stores.open.values()
    if not meta.clean:
        _make_durable(disk, settings.data, stores)
    if any(store.doubtful for store in opened):
        # Bytes were cut off: offsets behind the last one kept may have been given out, and one names one message.
        known = max(known, meta.floor)
    groups = GroupLog(disk, settings.data)
    # Offsets that were refused by a sync that failed are in no store, but groups and names of segments may have passed
    # them.
    passed = [*(store.begins for store in opened), *(state.next for state in groups.states.values())]
    next_offset = max(known, *(store.last + 1 for store in opened), *passed)
    report += [*stores.report, *(line for store in opened for line in store.report)]
    meta = replace(meta, boot=boot, sync=settings.sync, clean=False, since=known)
    meta = raised(meta, next_offset) or meta
    report += groups.report
    owes = not _saved(disk, path, meta, groups)
    if owes:
        report.append(f"{path}: no room to write it; reading goes on, publishing as soon as there is some")
    report += _declare(groups, settings, stores, next_offset, runtime.now_ns())
    file = MetaFile(disk, path, meta, owes)
    return DiskLog(disk, settings, runtime, committer, stores, file, next_offset, groups), report


def _make_durable(disk: Disk, data: str, stores: Stores) -> None:
    """What a server that was killed wrote is in the cache of the kernel and may be nowhere else, names included: shown
    or built upon without this, a power cut could still take it."""
    for store in stores.open.values():
        store.sync()
        disk.sync_dir(f"{data}/logs/{store.name}")
    disk.sync_dir(f"{data}/logs")
    disk.sync_dir(data)


def _saved(disk: Disk, path: str, meta: Meta, groups: GroupLog) -> bool:
    """Write meta, with room from the reserve if need be; False where there is none."""
    while True:
        try:
            save_meta(disk, path, meta)
            return True
        except DiskFull:
            if not groups.reserve.give_up():
                return False


def _declare(groups: GroupLog, settings: Settings, stores: Stores, next_offset: int, now_ns: int) -> list[str]:
    """Make the groups that rules declare and nobody has made; whatever lies there for them they will get.

    Returns what does not fit, a line each.
    """
    report = []
    lines: list[bytes] = []
    for rule in (settings.main, *settings.stores):
        patterns = rule.group_patterns
        wanted = matcher(patterns)
        for name in rule.groups:
            state = groups.states.get(name)
            if state is None:
                first = min((store.first for store in stores.holding(wanted)), default=next_offset)
                line = line_new(name, patterns, 0, min(first, next_offset), now_ns)
                groups.take([line])
                lines.append(line)
            elif state.patterns != patterns:
                have, told = b",".join(state.patterns).decode(), b",".join(patterns).decode()
                report.append(
                    f"group {name.decode()} reads {have}, not {told} as declared; FORGET it undeclared to change that"
                )
    if lines:
        groups.write(groups.frame(lines))
        groups.sync()
    return report
