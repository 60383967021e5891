"""groups.log after power cuts and with bytes that changed: nothing that was answered is lost, nothing is settled that
nobody settled, and a start never fails for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest

from busd.rules.group_records import GroupState, States, line_done, line_new, line_out, line_seek, read_groups
from busd.words.errors import BusError
from busd.words.settings import Settings, settings_from
from busd.world import group_log
from busd.world.disk import DiskFailed, DiskFull
from busd.world.group_log import GroupLog
from busd.world.inspect import verify
from tests.conftest import Cases
from tests.support.log_kit import LogKit
from tests.support.memory_disk import MemoryDisk

PATH = "busd-data/groups.log"
ERRORS: tuple[Exception, ...] = (DiskFull("x:0: No space left on device"), DiskFailed("x:0: Input/output error"))


def settled_in(states: Mapping[bytes, GroupState], name: bytes = b"g") -> set[int]:
    """Messages of a group that are settled."""
    state = states.get(name)
    return set() if state is None else {one for one in range(1, state.next) if state.unsettled.get(one) is None}


class Worker:
    """Gives out and settles messages one after the other; `acknowledged`: what was answered."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.kit = LogKit(settings or Settings())
        self.made = False
        self.acknowledged: set[int] = set()
        self.refused: set[int] = set()
        self.asked: set[int] = set()
        self.number = 0

    def begin(self) -> None:
        """Make the group."""

        def made(error: BusError | None) -> None:
            self.made = self.made or error is None

        self.kit.log.settle([line_new(b"g", (b"jobs.>",), 3, 1, 7)], made)
        self.kit.runtime.run()

    def step(self) -> None:
        """Two messages are given out; the first is settled, and the one that was left the last time."""
        first = self.number + 1
        self.number += 2
        self.kit.log.note([line_out(b"g", self.number + 1, 1, [(first, self.number)])], lambda: None)
        these = {max(1, first - 1), first}
        self.asked |= these

        def decided(error: BusError | None) -> None:
            answered = self.acknowledged if error is None else self.refused
            answered |= these

        self.kit.log.settle([line_done(b"g", [(min(these), first)])], decided)
        self.kit.runtime.run()

    def check(self, states: States, where: str) -> None:
        """What a restart finds is no less than what was answered and no more than what was asked."""
        settled = settled_in(states)
        assert self.acknowledged <= settled <= self.asked, where
        assert (b"g" in states) or not self.made, where


def opened(disk: MemoryDisk) -> States:
    """What a start makes of a disk; a second start finds the same without a word."""
    disk.makedirs("busd-data")
    found = GroupLog(disk, "busd-data").states
    again = GroupLog(disk.copy(), "busd-data")
    assert (again.states, again.report) == (found, [])
    return found


def crashing(worker: Worker, check: Callable[[MemoryDisk, str], None], step: Callable[[], None]) -> None:
    """Carry out a step with a power cut behind every call to the disk."""
    disk, plain = worker.kit.disk, worker.kit.disk.step

    def watched(kind: str, path: str) -> None:
        for name, found in disk.crashes():
            check(found, f"before {kind} {path}: {name}")
        plain(kind, path)

    disk.step = watched  # type: ignore[method-assign]
    step()
    disk.step = plain  # type: ignore[method-assign]
    for name, found in disk.crashes():
        check(found, f"after: {name}")


def test_a_power_cut_behind_every_call_takes_nothing_that_was_answered(cases: Cases) -> None:
    worker = Worker()

    def check(found: MemoryDisk, where: str) -> None:
        worker.check(opened(found), where)
        cases.add()

    crashing(worker, check, worker.begin)
    for _ in range(5):
        crashing(worker, check, worker.step)
    assert worker.acknowledged == set(range(1, 10))
    assert cases.count > 60


@pytest.mark.parametrize("sync", ["always", "never"])
def test_a_power_cut_behind_every_call_of_a_snapshot(sync: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_log, "COMPACT_BYTES", 2000)
    worker = Worker(settings_from({"sync": sync}))
    worker.begin()
    while worker.kit.log.info()["log"][-1][1] < 1900:  # type: ignore[operator]
        worker.step()
    # What `never` has promised is what the kernel has; only what was synced before this counts here.
    worker.kit.log._groups.log.sync()
    if sync == "never":
        promised = set(worker.acknowledged)
    renames: list[str] = []

    def check(found: MemoryDisk, where: str) -> None:
        states = opened(found)
        if sync == "always":
            worker.check(states, where)
        else:
            assert promised <= settled_in(states) <= worker.asked, where
        renames.append(where)

    before = len(worker.kit.disk.calls)
    while f"rename {PATH}" not in worker.kit.disk.calls[before:]:
        crashing(worker, check, worker.step)
    crashing(worker, check, worker.step)
    assert any(where.startswith("before sync_dir busd-data: 0 of 2 names, bytes lost") for where in renames)
    assert worker.refused == set()


def fail_at_each_call(error: Exception, short: int) -> Iterator[tuple[Worker, int]]:
    """A worker about to make a snapshot, with one more call set to fail each time, until none does."""
    number = 0
    while True:
        worker = Worker()
        worker.begin()
        while worker.kit.log.info()["log"][-1][1] < 1900:  # type: ignore[operator]
            worker.step()
        worker.kit.disk.failure, worker.kit.disk.short_bytes = error, short
        worker.kit.disk.fail_at = len(worker.kit.disk.calls) + number
        yield worker, number
        if worker.kit.disk.fail_at >= len(worker.kit.disk.calls):
            return
        number += 1


@pytest.mark.parametrize("short", [0, 7, 1 << 20])
@pytest.mark.parametrize("error", ERRORS, ids=["full", "failed"])
def test_every_call_that_can_fail_does(
    error: Exception, short: int, monkeypatch: pytest.MonkeyPatch, cases: Cases
) -> None:
    monkeypatch.setattr(group_log, "COMPACT_BYTES", 2000)
    for worker, number in fail_at_each_call(error, short):
        for _ in range(10):
            worker.step()
        where = f"call {number}: {worker.kit.disk.calls[worker.kit.disk.fail_at :][:1]}"
        assert len(worker.acknowledged) + len(worker.refused) == len(worker.asked), where
        # Refused ones are not there; what was given out meanwhile may be.
        now = read_groups(worker.kit.disk.contents()[PATH]).states
        assert settled_in(now) == worker.acknowledged == settled_in(worker.kit.crash().log.groups), where
        assert settled_in(worker.kit.log.groups) == worker.acknowledged, where
        for name, found in worker.kit.disk.crashes():
            assert worker.acknowledged <= settled_in(opened(found)) <= worker.asked, f"{where}, {name}"
        cases.add()
    assert cases.count > 30


def history() -> Worker:
    """A file in which groups come, move and go on."""
    worker = Worker()
    worker.begin()
    for _ in range(4):
        worker.step()
    log = worker.kit.log
    log.note([line_out(b"g", 9, 2, [(8, 8)])], lambda: None)
    log.settle([line_new(b"other", (b"a.*", b"b"), 0, 5, 8)], lambda error: None)
    log.settle([line_out(b"other", 30, 1, [(7, 9), (29, 29)]), line_done(b"other", [(8, 8)])], lambda error: None)
    log.settle([line_seek(b"other", 40)], lambda error: None)
    worker.kit.runtime.run()
    worker.step()
    return worker


def test_every_prefix_opens_to_an_earlier_state_and_keeps_what_it_cut() -> None:
    worker = history()
    data = worker.kit.disk.contents()[PATH]
    seen: list[dict[bytes, GroupState]] = []
    for size in range(len(data) + 1):
        disk = MemoryDisk()
        disk.set_contents(PATH, data[:size])
        found = GroupLog(disk, "busd-data")
        kept = disk.contents()[PATH]
        assert found.states == read_groups(data[:size]).states
        assert kept + disk.contents().get("busd-data/groups.cut", b"") == data[:size]
        assert bool(found.report) == (len(kept) < size)
        if found.states not in seen:
            seen.append(found.states)
    assert len(seen) > 10


@pytest.mark.parametrize("bit", [1, 0x40])
def test_every_flipped_byte_is_told_and_settles_nothing(bit: int, cases: Cases) -> None:
    worker = history()
    data = worker.kit.disk.contents()[PATH]
    ever = {name: settled_in(read_groups(data).states, name) for name in (b"g", b"other")}
    for at in range(len(data)):
        disk = MemoryDisk()
        disk.set_contents(PATH, data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])
        found = GroupLog(disk, "busd-data")
        assert found.report, at
        for name, settled in ever.items():
            assert settled_in(found.states, name) <= settled, at
        assert opened(disk.copy()) == found.states, at
        cases.add()


def test_a_log_that_starts_on_what_is_left_goes_on() -> None:
    worker = history()
    data = worker.kit.disk.contents()[PATH]
    for size in range(0, len(data), 7):
        disk = worker.kit.disk.copy()
        disk.set_contents(PATH, data[:size])
        kit = LogKit(worker.kit.settings, disk)
        told: list[BusError | None] = []
        kit.log.settle([line_new(b"later", (b">",), 0, 1, 1)], told.append)
        kit.runtime.run()
        assert told == [None]
        assert kit.crash().log.groups == kit.log.groups


def test_a_sector_that_cannot_be_read_is_damage_and_not_the_end() -> None:
    """The server starts; what the lost records settled comes back to the groups, and that is told."""
    worker = Worker()
    worker.begin()
    for _ in range(60):
        worker.step()
    size = len(worker.kit.disk.contents()[PATH])
    assert size > 2500
    for at in (0, 700, size - 3):
        disk = worker.kit.disk.copy()
        disk.unreadable.append((PATH, at, at + 2))
        found = [str(one) for one in verify(disk, "busd-data") if one.path == PATH]
        assert found, at
        kit = LogKit(worker.kit.settings, disk)
        assert "groups.log" in "\n".join(kit.opened.report)
        assert settled_in(kit.log.groups) <= worker.acknowledged
        if at:
            # All before the sector is as it was.
            assert len(settled_in(kit.log.groups)) > 10
