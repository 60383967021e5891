"""Every call to the disk fails once, one at a time: nothing is promised, nothing has changed, and the store goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from busd.rules.topic_state import TopicState
from busd.words.settings import StoreRule
from busd.world.disk import DiskFailed, DiskFull
from tests.conftest import Cases
from tests.recovery.test_crashes import full
from tests.support.memory_disk import MemoryDisk
from tests.support.store_kit import PATH, Kit, Tale, open_store, read_all

SMALL = StoreRule(segment_bytes=4096, max_bytes=16384)
ERRORS: tuple[Exception, ...] = (DiskFull("x:0: No space left on device"), DiskFailed("x:0: Input/output error"))
State = tuple[int, int, int, int, int, dict[bytes, TopicState], Tale]


def state(kit: Kit) -> State:
    """Everything that readers and callers can see."""
    store = kit.store
    topics = dict(store.topics)
    return store.first, store.last, store.bytes, store.synced, store.total, topics, read_all(store)


def before_roll() -> Kit:
    """The next commit begins a segment."""
    kit = Kit(rule=SMALL)
    kit.commit((b"a", b"x" * 3900), (b"b", b"y"))
    return kit


def before_page() -> Kit:
    """The next commit saves a page of the index first."""
    kit = Kit(rule=replace(SMALL, segment_bytes=1 << 26, max_bytes=0))
    for _ in range(1030):
        kit.commit((b"a", b""))
    return kit


@pytest.mark.parametrize("short", [0, 7, 1 << 20])
@pytest.mark.parametrize("error", ERRORS, ids=["full", "failed"])
@pytest.mark.parametrize("make", [Kit, before_roll, before_page])
def test_a_commit_that_fails_at_any_call(make: Callable[[], Kit], error: Exception, short: int, cases: Cases) -> None:
    probe = make()
    calls = len(probe.disk.calls)
    probe.commit((b"a", b"one"), (b"c", b"two" * 50))
    total = len(probe.disk.calls) - calls
    assert total >= 2
    for number in range(total):
        cases.add()
        kit = make()
        before = state(kit)
        kit.disk.failure, kit.disk.short_bytes = error, short
        kit.disk.fail_at = len(kit.disk.calls) + number
        try:
            kit.commit((b"a", b"one"), (b"c", b"two" * 50))
        except (DiskFull, DiskFailed):
            where = f"call {number}: {kit.disk.calls[-3:]}"
            if kit.store.failed:
                kit.store.undo()
            assert state(kit) == before, where
            assert read_all(open_store(kit.disk.copy())).messages == kit.kept, where
        else:
            # The page of the index, which is a hint, or the removal of an old one.
            assert ".idx" in kit.disk.calls[kit.disk.fail_at]
        kit.disk.fail_at = -1
        if not kit.store.failed:
            kit.commit((b"a", b"three"))
            kit.close()
        again = open_store(kit.disk)
        assert read_all(again).messages == kit.kept
        assert read_all(again).losses == []
        if not kit.store.failed:
            assert again.report == []


def test_a_cut_back_that_fails_latches() -> None:
    kit = Kit()
    kit.commit((b"a", b"one"))
    kit.disk.fail_all, kit.disk.short_bytes = {"append", "truncate"}, 5
    with pytest.raises(DiskFull):
        kit.commit((b"a", b"two"))
    kit.disk.fail_all = set()
    assert kit.store.failed
    with pytest.raises(DiskFailed):
        kit.commit((b"a", b"three"))
    assert read_all(kit.store).messages == kit.kept
    assert read_all(open_store(kit.disk)).messages == kit.kept


def test_a_full_disk_heals_without_a_restart() -> None:
    kit = before_roll()
    kit.disk.fail_all, kit.disk.short_bytes = {"append", "create"}, 100
    for _ in range(3):
        with pytest.raises(DiskFull):
            kit.commit((b"a", b"refused"))
    kit.disk.fail_all = set()
    kit.commit((b"a", b"taken"))
    assert read_all(kit.store).messages == kit.kept
    assert read_all(open_store(kit.disk)).messages == kit.kept


@pytest.mark.parametrize("keep_last", [0, 2])
@pytest.mark.parametrize("error", ERRORS, ids=["full", "failed"])
def test_trimming_that_fails_at_any_call(error: Exception, keep_last: int, cases: Cases) -> None:
    rule = replace(SMALL, keep_last=keep_last)
    probe = full(rule)
    calls = len(probe.disk.calls)
    probe.trim()
    expected = state(probe)
    total = len(probe.disk.calls) - calls
    assert total >= 6
    for number in range(total):
        cases.add()
        kit = full(rule)
        kit.disk.failure = error
        kit.disk.fail_at = len(kit.disk.calls) + number
        result = kit.store.trim(kit.store.expired(kit.now_ns))
        kit.store.trimmed(result)
        where = f"call {number}: {kit.disk.calls[kit.disk.fail_at - 1 : kit.disk.fail_at + 1]}"
        # Hints and leftovers are nobody's loss; all else is told.
        assert result.error is not None or ".idx" in where or ".tmp" in where, where
        kit.disk.fail_at = -1
        # What is still to do is done the next time.
        kit.trim()
        now = state(kit)
        assert now[6].messages == expected[6].messages, where
        assert (now[1], now[5]) == (expected[1], expected[5]), where
        again = open_store(kit.disk, rule)
        assert read_all(again).messages == now[6].messages, where
        assert again.report == [], where


@pytest.mark.parametrize("error", ERRORS, ids=["full", "failed"])
def test_opening_that_fails_at_any_call(error: Exception) -> None:
    """An error at the start changes nothing that the next start needs; a full disk keeps no store from opening."""
    kit = Kit()
    kit.commit((b"a", b"one"))
    kit.store.write(None, [kit.frame([(b"a", b"torn")]).record[:-3]])
    opened = 0
    for number in range(12):
        disk = kit.disk.copy()
        disk.failure, disk.fail_at = error, number
        try:
            assert read_all(open_store(disk)).messages == kit.kept
            opened += 1
        except (DiskFull, DiskFailed):
            assert number < len(disk.calls)
        disk.fail_at = -1
        assert read_all(open_store(disk)).messages == kit.kept
    assert opened > 2


def test_a_new_store_that_cannot_be_made_leaves_nothing() -> None:
    for number in range(3):
        disk = MemoryDisk()
        disk.fail_at = number + 1
        with pytest.raises(DiskFull):
            open_store(disk)
        assert [path for path in disk.contents() if path.endswith(".log")] == []
        disk.fail_at = -1
        store = open_store(disk, next_offset=5)
        assert (store.first, store.last, store.report) == (5, 0, [])
        assert disk.listdir(PATH) == [f"{5:020d}.idx", f"{5:020d}.log"]


def test_a_full_disk_at_the_start_serves_what_is_there() -> None:
    kit = before_roll()
    kit.store.write(None, [kit.frame([(b"a", b"torn")]).record[:-3]])
    kit.disk.fail_all = {"append", "create"}
    store = open_store(kit.disk, SMALL)
    assert read_all(store).messages == kit.kept
    assert "could not be kept" in " ".join(store.report)
    with pytest.raises(DiskFull):
        store.write(None, [b"x"])
    kit.disk.fail_all = set()
    kit.store = store
    kit.commit((b"a", b"room again"))
    assert read_all(store).messages == kit.kept
