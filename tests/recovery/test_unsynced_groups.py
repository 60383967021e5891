"""A power cut while space is given back, under a policy that does not wait for the disk.

What a group settled last may be forgotten, and then those messages come again: so they must be there."""

from __future__ import annotations

import pytest

from busd.rules.group_records import line_done, line_new, line_out
from busd.words.errors import BusError
from busd.words.settings import Settings, StoreRule
from busd.words.settings import Sync as Policy
from busd.words.units import NS_PER_S
from busd.world import store_sweep
from busd.world.disk import DiskFailed
from tests.conftest import Cases
from tests.support.log_kit import LogKit
from tests.support.memory_disk import MemoryDisk

RULE = StoreRule("jobs", (b"jobs.>",), segment_bytes=8 << 10, retain="acked", groups=(b"g",))
COUNT = 40


def settle(kit: LogKit, *lines: bytes) -> None:
    """Decide group records."""
    errors: list[BusError | None] = []
    kit.log.settle(list(lines), errors.append)
    kit.runtime.run()
    assert errors == [None]


def given_out(sync: Policy) -> LogKit:
    """A log with messages that are all out to one group; what can be durable is."""
    kit = LogKit(Settings(sync=sync, stores=(RULE,)))
    settle(kit, line_new(b"g", (b"jobs.>",), 0, 1, 1))
    for number in range(COUNT):
        kit.publish(b"jobs.a", b"%04d" % number + b"." * 996)
    kit.log.start()
    kit.runtime.advance(NS_PER_S)
    settle(kit, line_out(b"g", COUNT + 1, 1, [(1, COUNT)]))
    return kit


def told(disk: MemoryDisk, sync: Policy) -> tuple[set[int], set[int]]:
    """What a start finds: offsets of messages, and of those that the group has not settled."""
    kit = LogKit(Settings(sync=sync, stores=(RULE,)), disk, "boot-2")
    state = kit.log.groups.get(b"g")
    there = {offset for offset, _, _ in kit.messages(b"jobs.a")}
    open_ = {n for n in range(1, COUNT + 1) if state is None or n >= state.next or state.unsettled.get(n) is not None}
    return there, open_


DONE = {
    "front": [(1, 30)],
    "all": [(1, COUNT)],
    "middle": [(2, 18), (20, 30)],
}


@pytest.mark.parametrize("punch", [True, False])
@pytest.mark.parametrize("name", DONE)
@pytest.mark.parametrize("sync", ["interval", "never"])
def test_what_a_power_cut_brings_back_is_there(
    sync: Policy, name: str, punch: bool, monkeypatch: pytest.MonkeyPatch, cases: Cases
) -> None:
    monkeypatch.setattr(store_sweep, "PUNCH_BYTES", 2000)
    kit = given_out(sync)
    kit.disk.can_punch = punch
    durable, _ = told(kit.disk.crash(kit.disk.unsynced_names, "lost"), sync)
    assert len(durable) > 30
    before = kit.log.stores.open["jobs"].bytes
    settle(kit, line_done(b"g", DONE[name]))
    cuts: list[tuple[str, MemoryDisk]] = []
    step = kit.disk.step

    def cutting(kind: str, path: str) -> None:
        cuts.extend((f"before {kind} {path}, {where}", found) for where, found in kit.disk.crashes())
        step(kind, path)

    kit.disk.step = cutting  # type: ignore[method-assign]
    kit.runtime.advance(2 * NS_PER_S)
    cutting("end", "")
    assert kit.log.stores.open["jobs"].bytes < before - 10_000, "space was given back"
    for where, found in cuts:
        there, wanted = told(found, sync)
        assert durable & wanted <= there, where
        cases.add()
    assert cases.count > 100


def test_nothing_goes_while_nobody_can_tell_what_groups_have_settled() -> None:
    kit = given_out("interval")
    settle(kit, line_done(b"g", DONE["front"]))
    kit.disk.failure = DiskFailed("busd-data/groups.log:0: fdatasync: Input/output error")
    step = kit.disk.step

    def failing(kind: str, path: str) -> None:
        step(kind, path)
        if kind == "sync" and path.endswith("groups.log"):
            raise DiskFailed(f"{path}:0: fdatasync: Input/output error")

    kit.disk.step = failing  # type: ignore[method-assign]
    kit.runtime.advance(NS_PER_S)
    kit.disk.step = step  # type: ignore[method-assign]
    kit.runtime.advance(3 * NS_PER_S)
    assert "groups.log" in str(dict(kit.log.info()["server"])["health"])
    assert {offset for offset, _, _ in kit.messages(b"jobs.a")} == set(range(1, COUNT + 1))


def test_under_always_the_sweep_syncs_nothing_again() -> None:
    """What is known of groups is durable then before it is known."""
    kit = given_out("always")
    settle(kit, line_done(b"g", DONE["front"]))
    kit.log.note([line_out(b"g", COUNT + 1, 2, [(40, 40)])], lambda: None)
    kit.disk.calls.clear()
    kit.runtime.advance(NS_PER_S)
    assert kit.log.stores.open["jobs"].first > 10
    assert not [call for call in kit.disk.calls if call.startswith("sync ") and call.endswith("groups.log")]
