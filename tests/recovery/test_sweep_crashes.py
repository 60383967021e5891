"""A power cut behind every call while space is given back: what is wanted is there once and in order, the rest counted.

Deleting, rewriting and punching; the disk loses, tears or keeps what was not synced, overwritten bytes among it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from busd.world import store_sweep
from busd.world.inspect import verify
from tests.conftest import Cases
from tests.support.acked_kit import SMALL, AckedKit
from tests.support.memory_disk import MemoryDisk
from tests.support.power_kit import crashes
from tests.support.store_kit import Kit, read_all

LARGE = replace(SMALL, segment_bytes=1 << 16)


def filled(kit: AckedKit, count: int, size: int) -> AckedKit:
    """Messages on two topics, all of them out, in sealed segments."""
    for number in range(count):
        kit.commit((b"ab"[number % 2 : number % 2 + 1], b"%04d" % number + b"." * size))
    kit.roll()
    kit.group(b"g", b">")
    kit.give(b"g")
    return kit


def front() -> AckedKit:
    """Whole segments at the front can go."""
    kit = filled(AckedKit(), 40, 300)
    kit.settle(b"g", range(1, 30))
    return kit


def middle() -> AckedKit:
    """Whole segments in the middle, and parts of those beside them."""
    kit = filled(AckedKit(), 60, 300)
    kit.settle(b"g", [n for n in range(5, 55) if n != 30])
    return kit


def stretch() -> AckedKit:
    """Stretches of one segment that are worth a hole in the file."""
    kit = filled(AckedKit(rule=LARGE), 60, 300)
    kit.settle(b"g", [*range(5, 15), *range(30, 44)])
    return kit


def longer() -> AckedKit:
    """A stretch that grows over a hole that is there."""
    kit = stretch()
    kit.sweep()
    kit.settle(b"g", range(10, 24))
    return kit


def removed() -> AckedKit:
    """A RESET, in a store where groups do not decide."""
    kit = filled(AckedKit(rule=replace(SMALL, retain="limits")), 40, 300)
    kit.commit((b"a", b""), flags="r")
    kit.commit((b"b", b"later"))
    return kit


MAKERS: dict[str, Callable[[], AckedKit]] = {
    "front": front,
    "middle": middle,
    "stretch": stretch,
    "longer": longer,
    "removed": removed,
}


def check(kit: AckedKit, disk: MemoryDisk, where: str) -> None:
    """What a start finds."""
    found = AckedKit(disk=disk, rule=kit.rule, groups=kit.groups, kept=kit.kept.copy(), next=kit.next, step=40)
    assert all("given back" in line for line in found.store.report), (where, found.store.report)
    assert not [name for name in disk.names if name.endswith((".punch", ".tmp"))], where
    found.store.report.clear()
    found.check()
    # What was begun is done by the next sweep, and the log goes on.
    found.sweep()
    found.check()
    goes_on(found, where)


def goes_on(kit: Kit, where: str) -> None:
    """The next commits are kept over a clean stop."""
    before = read_all(kit.store)
    kit.commit((b"z", b"q" * 3000))
    kit.commit((b"z", b"q" * 3000))
    kit.close()
    kit.reopen()
    assert kit.store.report == [], where
    after = read_all(kit.store)
    assert after.messages == [*before.messages, *kit.kept[-2:]], where


# Thousands of restarts: 40 s on a slow machine that does something else beside it.
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", MAKERS)
def test_a_power_cut_behind_every_call(name: str, monkeypatch: pytest.MonkeyPatch, cases: Cases) -> None:
    monkeypatch.setattr(store_sweep, "PUNCH_BYTES", 2000)
    for where, kit, disk in crashes(MAKERS[name], AckedKit.sweep):
        check(kit, disk, where)
        cases.add()
    # Enumerated, not sampled: a sequence that shrank would hide what is not tried any more.
    assert cases.count >= {"front": 50, "middle": 60, "stretch": 60, "longer": 40, "removed": 40}[name]


def test_zeros_without_a_record_are_damage() -> None:
    """The space of messages that nobody settled went away: that is told as what it is."""
    kit = filled(AckedKit(rule=LARGE), 40, 300)
    path = next(name for name in kit.disk.names if name.endswith("01.log"))
    data = kit.disk.contents()[path]
    at = data.index(b"0010.")
    kit.disk.names[path].data[at : at + 2000] = bytes(2000)
    kit.reopen()
    assert {hole.reason for hole in read_all(kit.store).holes} == {"corrupt"}


def test_a_full_disk_is_punched_where_a_sector_takes_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no room for the punch file, nor for a rewrite."""
    monkeypatch.setattr(store_sweep, "PUNCH_BYTES", 2000)
    monkeypatch.setattr(store_sweep, "TIGHT_PUNCH_BYTES", 2000)
    kit = filled(AckedKit(rule=LARGE), 60, 300)
    kit.settle(b"g", [n for n in range(1, 60) if n % 15 != 0])
    before = kit.store.bytes
    kit.disk.fail_all = {"create"}
    result = kit.store.trim(kit.store.expired(kit.now_ns, None))
    kit.store.trimmed(result)
    assert result.gone == []
    kit.sweep()
    kit.disk.fail_all = set()
    assert kit.store.bytes < before / 2
    kit.check()


@pytest.mark.parametrize("name", ["stretch", "longer"])
def test_verify_finds_no_damage_after_a_power_cut(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_sweep, "PUNCH_BYTES", 2000)
    leftovers = 0
    for where, _, disk in crashes(MAKERS[name], AckedKit.sweep):
        findings = list(verify(disk, "/data"))
        assert [str(one) for one in findings if one.bad] == [], where
        leftovers += sum(one.kind == "leftover" for one in findings)
    assert leftovers
