"""A power cut behind every single call to the disk: what was promised is there, nothing is invented, it starts alone.

The disk forgets what was not synced: names, bytes, half of a write, or bytes but not the size (see MemoryDisk).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from busd.rules.record import Hole
from busd.words.settings import StoreRule, settings_from
from busd.world.disk import DiskFailed
from busd.world.store import Store
from tests.conftest import Cases
from tests.support.log_kit import LogKit
from tests.support.memory_disk import MemoryDisk
from tests.support.power import cuts
from tests.support.power_kit import CuttingDisk, PowerCut, crashes
from tests.support.store_kit import Kit, Message, open_store, read_all

SMALL = StoreRule(segment_bytes=4096, max_bytes=16384)
KEEP = StoreRule(segment_bytes=4096, max_bytes=16384, keep_last=2)


def write(kit: Kit) -> None:
    """Commits of several kinds."""
    kit.commit((b"a", b"one"))
    kit.commit((b"a", b"two"), (b"b", [b"three", b"k", b"v"]))
    kit.commit((b"b", b""), flags="e")


def roll(kit: Kit) -> None:
    """A commit that begins a new segment, and one behind it."""
    kit.commit((b"a", b"x" * 3000))
    kit.commit((b"b", b"y" * 3000))
    kit.commit((b"a", b"z"))


def trim(kit: Kit) -> None:
    """Retention, and a commit behind it."""
    kit.trim()
    kit.commit((b"a", b"after"))


def close(kit: Kit) -> None:
    """A clean stop."""
    kit.close()


def full(rule: StoreRule) -> Kit:
    """A store over its cap; topics a and b are seen rarely, and first."""
    kit = Kit(rule=rule)
    kit.commit((b"a", b"old"), (b"b", b"old"), (b"c", b"old"))
    for number in range(30):
        kit.now_ns += 1
        kit.commit((b"c", b"%d" % number + b"." * 700), (b"d", b"%d" % number))
    kit.commit((b"b", b"new"))
    return kit


SEQUENCES: dict[str, tuple[Callable[[], Kit], Callable[[Kit], None]]] = {
    "write": (Kit, write),
    "roll": (lambda: Kit(rule=SMALL), roll),
    "trim": (lambda: full(SMALL), trim),
    "rewrite": (lambda: full(KEEP), trim),
    "close": (lambda: full(SMALL), close),
}


def check(kit: Kit, disk: MemoryDisk, where: str, keep_last: int) -> None:
    """What a reader is told after the crash: all that was promised, or exactly what was trimmed of it."""
    store = open_store(disk, kit.rule, next_offset=1)
    tale = read_all(store)
    promised = kit.kept
    extra = [message for message in tale.messages if message not in promised]
    # A commit that had not been answered may have come through whole, as the newest.
    assert extra == tale.messages[len(tale.messages) - len(extra) :], where
    assert all(offset >= kit.store.last for offset, _, _ in extra), where
    assert all(reason == "trimmed" for _, _, reason, _ in tale.losses), (where, tale.losses, store.report)
    told = {offset for offset, _, _ in tale.messages}
    gone = [message for message in promised if message[0] not in told]
    covered = {offset for lo, hi, _, _ in tale.losses for offset in range(lo, hi + 1)}
    assert {offset for offset, _, _ in gone} <= covered, where
    counted: dict[bytes, int] = {}
    for _, _, _, counts in tale.losses:
        for topic, count in (counts or {}).items():
            counted[topic] = counted.get(topic, 0) + count
    assert counted == by_topic(gone), where
    if keep_last:
        for topic in (b"a", b"b", b"c", b"d"):
            newest = [message for message in promised if message[1] == topic][-keep_last:]
            assert [message for message in newest if message not in tale.messages] == [], where
    live = {topic: state.live for topic, state in store.topics.items() if state.live}
    assert live == by_topic([m for m in tale.messages if m[2] != b""]), where
    goes_on(store, where)


def by_topic(messages: list[Message]) -> dict[bytes, int]:
    """How many of each."""
    counts: dict[bytes, int] = {}
    for _, topic, _ in messages:
        counts[topic] = counts.get(topic, 0) + 1
    return counts


def goes_on(store: Store, where: str) -> None:
    """The next commits are kept over a clean stop."""
    kit = Kit(rule=store.rule)
    kit.disk, kit.store, kit.next = store._disk, store, store.last + 1  # type: ignore[assignment]
    before = read_all(store)
    kit.commit((b"z", b"q" * 3000))
    kit.commit((b"z", b"q" * 3000))
    kit.close()
    kit.reopen()
    assert kit.store.report == [], where
    after = read_all(kit.store)
    assert after.messages == [*before.messages, *kit.kept], where
    assert after.losses == before.losses, where


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_power_cut_behind_every_call(name: str, cases: Cases) -> None:
    for where, kit, disk in crashes(*SEQUENCES[name]):
        check(kit, disk, where, kit.rule.keep_last)
        cases.add()
    # Enumerated, not sampled: a sequence that shrank would hide what is not tried any more.
    assert cases.count >= {"write": 28, "roll": 60, "trim": 60, "rewrite": 100, "close": 15}[name]


def test_what_was_cut_off_in_a_second_crash_during_recovery(cases: Cases) -> None:
    """Recovery itself is cut: the same is found again."""
    kit = Kit()
    write(kit)
    kit.disk.calls.clear()
    batch = kit.frame([(b"a", b"never finished")])
    kit.store.write(None, [batch.record[:-5]])
    whole = kit.disk.copy()
    for stop in range(20):
        disk = CuttingDisk()
        for path, data in whole.contents().items():
            disk.set_contents(path, data)
        disk.stop_at = stop
        try:
            open_store(disk)
        except PowerCut:
            for where, found in disk.crashes():
                assert read_all(open_store(found)).messages == kit.kept, (stop, where)
                cases.add()
        else:
            break
    assert cases.count > 20


def test_a_sync_that_failed_is_the_last() -> None:
    kit = Kit()
    kit.commit((b"a", b"one"))
    kit.disk.failure = DiskFailed("disk:0: Input/output error")
    kit.disk.fail_all = {"sync"}
    with pytest.raises(DiskFailed):
        kit.commit((b"a", b"two"))
    kit.store.undo()
    kit.disk.fail_all.clear()
    calls = len(kit.disk.calls)
    for attempt in (kit.store.sync, lambda: kit.store.write(None, [b"x"]), lambda: kit.store.write(None, [])):
        with pytest.raises(DiskFailed):
            attempt()
    kit.close()
    assert [call for call in kit.disk.calls[calls:] if call.startswith(("sync", "append"))] == []
    assert read_all(kit.store).messages == kit.kept
    assert read_all(open_store(kit.disk)).messages == kit.kept


@pytest.mark.parametrize("sync", ["interval", "never"])
def test_the_mark_of_a_clean_stop_never_outlives_what_it_speaks_of(sync: str, cases: Cases) -> None:
    """Writes may reach the disk in another order than they were made."""
    kit = LogKit(settings_from({"sync": sync}))
    kit.publish(b"a", b"1")
    kit.publish(b"a", b"2")
    plain, left = kit.disk.step, []

    def step(kind: str, path: str) -> None:
        left.extend([(f"before {kind} {path}: {said}", make()) for said, make in cuts(kit.disk)])
        plain(kind, path)

    kit.disk.step = step  # type: ignore[method-assign]
    kit.stop()
    for said, disk in left:
        cases.add()
        after = LogKit(kit.settings, disk, "boot-2")
        assert not [line for line in after.opened.report if "corrupt" in line], said
        reasons = {record.reason for record in after.read() if isinstance(record, Hole)}
        assert reasons <= {"unsynced"}, said
    assert cases.count > 20
