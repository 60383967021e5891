"""One store whose batches name hundreds of topics: read, looked up, trimmed, damaged and opened again."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from busd.rules.envelope import peek
from busd.rules.record import Batch
from busd.words.settings import StoreRule
from busd.world.store import Cursor
from tests.support.store_kit import Kit, every, only, read_all

RULE = StoreRule(segment_bytes=128 << 10)
NAMES = [b"t.%d" % number for number in range(600)]


def wide_kit(rule: StoreRule = RULE, batches: int = 40, seed: int = 1) -> Kit:
    """Batches of 500 messages with about 340 topics each; every fourth has offsets between that are not its own."""
    rng = random.Random(seed)
    kit = Kit(rule=rule)
    for number in range(batches):
        kit.now_ns += 100
        kit.commit(*[(rng.choice(NAMES), b"%d" % at) for at in range(500)], step=3 if number % 4 == 3 else 1)
    assert all(len(batch.topics) > 256 for batch in found(kit))
    return kit


def found(kit: Kit) -> list[Batch]:
    """The batches that lie in it."""
    chunk = kit.store.read(Cursor(1), every, kit.next, 1 << 30, True)
    assert chunk is not None
    return [record for record in chunk.records if isinstance(record, Batch)]


@pytest.mark.parametrize("budget_bytes", [1, 3000, 1 << 20])
def test_readers_of_all_of_some_and_of_one(budget_bytes: int) -> None:
    kit = wide_kit()
    for wanted in (every, only(NAMES[3]), only(*NAMES[:100]), only(b"none")):
        for start in (1, 777, kit.next - 600):
            tale = read_all(kit.store, start, wanted, budget_bytes=budget_bytes)
            assert tale.losses == []
            assert tale.messages == [m for m in kit.kept if m[0] >= start and wanted(m[1])]


def test_questions() -> None:
    kit = wide_kit()
    ends = [batch.last + 1 for batch in found(kit)]
    for topic in NAMES[:20]:
        offsets = [offset for offset, name, _ in kit.kept if name == topic]
        for below in (kit.next, ends[20], ends[7] - 100):
            before = [offset for offset in offsets if offset < below]
            for n in (1, 2, 9):
                assert kit.store.nth_last(topic, n, below) == (before[-n:][0] if before else below)
            for lo in (1, 333, ends[3] + 9):
                assert kit.store.count(only(topic), lo, below) == sum(lo <= offset < below for offset in offsets)
    assert kit.store.count(only(*NAMES[:300]), 250, 9000) == sum(
        250 <= offset < 9000 and name in NAMES[:300] for offset, name, _ in kit.kept
    )


@pytest.mark.parametrize("hints", [True, False])
@pytest.mark.parametrize("clean", [True, False])
def test_opened_again_it_knows_the_same(hints: bool, clean: bool) -> None:
    kit = wide_kit()
    before = dict(kit.store.topics)
    if clean:
        kit.close()
    if not hints:
        for path in [path for path in kit.disk.contents() if path.endswith(".idx")]:
            kit.disk.remove(path)
    kit.reopen()
    assert kit.store.report == []
    assert dict(kit.store.topics) == before
    assert read_all(kit.store, budget_bytes=1 << 20).messages == kit.kept


def test_a_batch_that_was_cut_off_is_taken_back() -> None:
    kit = wide_kit(batches=3)
    path = max(path for path in kit.disk.contents() if path.endswith(".log"))
    data = kit.disk.contents()[path]
    last = data.rindex(b"+B ")
    # Within the topics, within a character of the column, within the body.
    column = data.index(b" ", data.index(b" - t.", last) + 3)
    two_bytes = next(at for at in range(column, len(data)) if data[at] >= 0xC2) + 1
    for cut in (last + 200, two_bytes, two_bytes + 1, len(data) - 1):
        again = Kit(disk=kit.disk, rule=RULE, next=1)
        again.disk.set_contents(path, data[:cut])
        again.reopen()
        assert read_all(again.store, budget_bytes=1 << 20).messages == kit.kept[:1000]


def test_a_flipped_bit_of_a_column_is_one_hole_with_exact_counts() -> None:
    kit = wide_kit()
    kit.roll()
    kit.close()
    path = sorted(path for path in kit.disk.contents() if path.endswith(".log"))[1]
    data = bytearray(kit.disk.contents()[path])
    start = peek(bytes(data))[1]
    column = data.index(b" ", data.index(b" - t.", start) + 3)
    data[column + 40] ^= 1
    kit.disk.set_contents(path, bytes(data))
    kit.reopen()
    tale = read_all(kit.store, budget_bytes=1 << 20)
    ((first, last, reason, counts),) = tale.losses
    gone = [m for m in kit.kept if first <= m[0] <= last]
    assert (reason, len(gone)) == ("corrupt", 500)
    assert tale.messages == [m for m in kit.kept if m not in gone]
    assert counts == {topic: sum(m[1] == topic for m in gone) for topic in {m[1] for m in gone}}


@pytest.mark.parametrize("keep_last", [1, 2])
def test_what_retention_leaves_of_wide_batches(keep_last: int) -> None:
    kit = wide_kit(replace(RULE, segment_bytes=32 << 10, max_bytes=128 << 10, keep_last=keep_last), batches=60)
    kit.trim()
    for restarted in (False, True):
        if restarted:
            kit.reopen()
            assert kit.store.report == []
        tale = read_all(kit.store, budget_bytes=1 << 20)
        assert 0 < len(tale.messages) < len(kit.kept)
        for topic in NAMES:
            own = [m for m in kit.kept if m[1] == topic]
            assert [m for m in own[-keep_last:] if m not in tale.messages] == []
            left = sum(m[1] == topic for m in tale.messages)
            assert left + sum((hole.counts or {}).get(topic, 0) for hole in tale.holes) == len(own)
            assert kit.store.topics[topic].live == left
    assert max(batch.n for batch in found(kit)) == 500
    assert min(batch.n for batch in found(kit)) < 500
