"""What groups have settled, a RESET removed or a ttl ended goes from the middle of a store; what is left is exact."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest

from busd.rules.record import Hole
from busd.rules.wanted import Claims
from busd.words.settings import StoreRule
from busd.world import store_sweep
from busd.world.pins import pinned_bytes
from busd.world.segment import Segment
from busd.world.store import Cursor
from tests.support.acked_kit import SMALL, AckedKit
from tests.support.store_kit import Kit, every, only, read_all

pytestmark = pytest.mark.usefixtures("column_kind")


def filled(kit: AckedKit, count: int = 60, size: int = 300) -> AckedKit:
    """So many messages on topics a and b, in several segments."""
    for number in range(count):
        kit.commit((b"ab"[number % 2 : number % 2 + 1], b"%04d" % number + b"." * size))
    return kit


def test_nothing_goes_while_a_group_wants_it() -> None:
    kit = filled(AckedKit())
    kit.group(b"g", b">")
    assert kit.sweep().gone == []
    kit.give(b"g")
    assert kit.sweep().gone == []
    kit.check()
    assert [m[0] for m in kit.wanted] == list(range(1, 61))


def test_what_everybody_has_settled_goes_from_the_front() -> None:
    kit = filled(AckedKit())
    kit.group(b"g", b">").next = 40
    kit.group(b"h", b"b").next = 20
    kit.sweep()
    kit.check()
    # h is at 20: from there on what is on b is kept for it.
    assert kit.store.first in (14, 15, 16, 17, 18, 19, 20)
    kit.groups[b"h"].next = 60
    kit.sweep()
    kit.sweep()
    kit.check()
    assert kit.store.first > 30


def test_what_no_group_covers_stays() -> None:
    kit = filled(AckedKit())
    kit.group(b"g", b"a").next = 100
    kit.sweep()
    kit.check()
    told = read_all(kit.store)
    assert [m for m in told.messages if m[1] == b"b"] == [m for m in kit.kept if m[1] == b"b"]


def test_a_stuck_message_keeps_little() -> None:
    kit = filled(AckedKit(), 120)
    kit.group(b"g", b">")
    kit.give(b"g")
    kit.settle(b"g", [n for n in range(1, 121) if n not in (33, 77)])
    before = kit.store.bytes
    kit.sweep()
    kit.check()
    assert kit.store.bytes < before / 4
    assert {33, 77} <= set(read_all(kit.store).offsets)
    assert {hole.reason for hole in read_all(kit.store).holes} == {"settled", "trimmed"}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("can_punch", [True, False])
def test_any_order_of_settling(seed: int, can_punch: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random batches, groups and acknowledgements against the list of what was kept."""
    monkeypatch.setattr(store_sweep, "PUNCH_BYTES", 700)
    rng = random.Random(seed)
    kit = AckedKit(rule=replace(SMALL, segment_bytes=8192))
    kit.disk.can_punch = can_punch
    kit.group(b"g", b">")
    kit.group(b"h", rng.choice([b"a", b"b.>", b">"]))
    for _ in range(8):
        for _ in range(rng.randint(5, 30)):
            topics = [rng.choice([b"a", b"b.c", b"d"]) for _ in range(rng.choice([1, 1, 5]))]
            kit.commit(*[(topic, b"x" * rng.choice([3, 300])) for topic in topics], step=rng.choice([1, 2]))
        for name in kit.groups:
            if rng.random() < 0.7:
                kit.give(name)
                share = rng.choice([0.5, 0.95, 1])
                kit.settle(name, [m[0] for m in kit.kept if rng.random() < share])
        kit.sweep(asked=rng.random() < 0.3)
        kit.check()
    assert kit.store.bytes < sum(len(b"%s" % m[2]) for m in kit.kept if isinstance(m[2], bytes)) * 2
    assert any("punch" in call for call in kit.disk.calls) == can_punch or kit.store.first > 1


def test_punching_gives_back_a_stretch_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_sweep, "PUNCH_BYTES", 2000)
    kit = filled(AckedKit(rule=replace(SMALL, segment_bytes=1 << 16)), 100)
    kit.roll()
    kit.group(b"g", b">")
    kit.give(b"g")
    kit.settle(b"g", range(30, 50))
    result = kit.sweep()
    (new,) = result.new
    assert new.dead_bytes > 6000
    kinds = [call.split()[0] for call in kit.disk.calls]
    at = kinds.index("overwrite")
    assert kinds[at : at + 4] == ["overwrite", "sync", "punch", "sync"]
    kit.check()
    assert read_all(kit.store).losses == [(30, 49, "settled", {b"a": 10, b"b": 10})]


def test_holes_count_too_in_a_copy_that_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a tar archive makes one: its files take what they are long."""
    monkeypatch.setattr(store_sweep, "PUNCH_BYTES", 2000)
    kit = filled(AckedKit(rule=replace(SMALL, segment_bytes=1 << 16)), 100)
    kit.roll()
    kit.group(b"g", b">")
    kit.give(b"g")
    kit.settle(b"g", range(30, 50))
    kit.sweep()
    for inode in kit.disk.names.values():
        inode.punched, inode.durable_punched = [], []
    kit.reopen()
    kit.check()
    assert kit.store.count(every, 1, kit.next) == 80
    thin = [name for name in kit.disk.names if name.endswith(".thin")]
    assert len(thin) == 1
    # It goes with its segment, or at a start without it.
    kit.settle(b"g", range(1, 101))
    kit.sweep()
    kit.sweep()
    assert [name for name in kit.disk.names if name.endswith(".thin")] == []
    kit.disk.write_file(thin[0], b"")
    kit.reopen()
    assert thin[0] not in kit.disk.names


def test_reset_and_ttl_give_their_space_back() -> None:
    kit = AckedKit(rule=StoreRule(segment_bytes=4096))
    for number in range(40):
        kit.commit((b"a", b"x" * (400 + number)), (b"b", [b"y" * 300, b"ttl", b"5s"]))
    kit.commit((b"a", b""), flags="r")
    kit.roll()
    before = kit.store.bytes
    kit.sweep()
    half = kit.store.bytes
    assert half < before * 0.7
    told = read_all(kit.store)
    assert [m for m in told.messages if m[1] == b"b"] == [m for m in kit.kept if m[1] == b"b"]
    assert told.losses == [] or all(not counts for *_, counts in told.losses), "the RESET's event says it"
    kit.now_ns += 10 * 10**9
    kit.sweep()
    assert kit.store.bytes < before * 0.2
    assert read_all(kit.store, wanted=every).messages == [m for m in kit.kept if m[2] == b""]
    assert kit.sweep().gone == []


@pytest.mark.parametrize("retain", ["limits", "acked"])
@pytest.mark.parametrize("again", [False, True])
def test_what_a_reset_removed_leaves_the_segment_that_is_written_too(
    monkeypatch: pytest.MonkeyPatch, retain: Literal["limits", "acked"], again: bool
) -> None:
    """Where everything is full nothing more comes to it that would close it."""
    monkeypatch.setattr(store_sweep, "PUNCH_BYTES", 2000)
    kit = AckedKit(rule=StoreRule(retain=retain))
    for _ in range(20):
        kit.commit(*[(b"a", b"x" * 100)] * 3, (b"b", b"y"))
    if again:
        kit.sweep()
        kit.reopen()
    assert not kit.sweep().roll
    kit.commit((b"a", b""), flags="r")
    assert kit.sweep().roll
    kit.roll()
    before = kit.store.bytes
    kit.sweep()
    assert kit.store.bytes < before * 0.6, "heads of records, and what each segment begins with, are a third"
    assert not kit.sweep().roll
    assert [message[1] for message in read_all(kit.store).messages].count(b"b") == 20


@pytest.mark.parametrize("retain", ["limits", "acked"])
def test_a_message_outlives_its_ttl_while_a_group_has_it_out(retain: Literal["limits", "acked"]) -> None:
    kit = AckedKit(rule=StoreRule(segment_bytes=4096, retain=retain))
    kit.group(b"g", b"jobs")
    kit.commit((b"jobs", [b"important", b"ttl", b"5s"]))
    kit.give(b"g")
    for _ in range(40):
        kit.commit((b"cache", [b"y" * 300, b"ttl", b"5s"]))
    kit.roll()
    kit.now_ns += 10 * 10**9
    kit.sweep()
    assert [message[1] for message in read_all(kit.store).messages] == [b"jobs"], "it may be given back, and buried"
    kit.settle(b"g", [1])
    kit.now_ns += 60 * 10**9
    kit.sweep()
    assert read_all(kit.store).messages == []


def test_what_was_not_looked_at_yet_joins_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a start so many segments a second are looked at; one of the others may hold what has outlived its ttl."""
    kit = AckedKit(rule=StoreRule(segment_bytes=4096))
    kit.group(b"g", b"jobs")
    for _ in range(60):
        kit.commit((b"jobs", [b"x" * 300, b"ttl", b"5s"]))
    kit.give(b"g")
    kit.roll()
    kit.now_ns += 10 * 10**9
    monkeypatch.setattr(store_sweep, "_NEW_SEGMENTS", 0)
    monkeypatch.setattr(Segment, "rewritten", True)
    sweeper = kit.store._trimmer.sweeper
    monkeypatch.setattr(sweeper, "_rule", StoreRule(segment_bytes=1 << 20))
    kit.sweep()
    assert len(read_all(kit.store).messages) == 60


def test_readers_within_a_stretch_while_it_is_punched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stands in it finds the old records or the hole, never damage; also by seeking and after it has landed."""
    monkeypatch.setattr(store_sweep, "PUNCH_BYTES", 2000)
    for budget in (1, 400, 5000):
        for wanted in (every, only(b"rare")):
            kit = AckedKit(rule=replace(SMALL, segment_bytes=1 << 16))
            for number in range(120):
                kit.commit((b"rare" if number % 10 == 0 else b"a", b"%04d" % number + b"." * 300))
            kit.roll()
            kit.group(b"g", b">")
            kit.give(b"g")
            kit.settle(b"g", range(20, 100))
            cursors = [Cursor(start) for start in (1, 19, 20, 33, 60, 99, 100, 101)]
            for cursor in cursors:
                kit.store.read(cursor, wanted, kit.next, budget, True)
            result = kit.store.trim(kit.store.expired(kit.now_ns, Claims(kit.groups)))
            assert result.gone != []
            for cursor in cursors[::2]:
                go_through(kit, cursor, wanted)
            kit.store.trimmed(result)
            for cursor in cursors[1::2]:
                go_through(kit, cursor, wanted)


def go_through(kit: AckedKit, cursor: Cursor, wanted: Callable[[bytes], bool]) -> None:
    """Read to the end: everything wanted is there, and nothing is told as damage."""
    start, told = cursor.offset, []
    while cursor.offset < kit.next:
        chunk = kit.store.read(cursor, wanted, kit.next, 500, True)
        assert chunk is not None
        for record in chunk.records:
            if isinstance(record, Hole):
                assert record.reason == "settled"
            else:
                told += [offset for offset in record.offsets() if offset >= start]
    topics = {message[0]: message[1] for message in kit.kept}
    assert [o for o in told if not 20 <= o < 100 and wanted(topics[o])] == [
        o for o in range(start, kit.next) if not 20 <= o < 100 and wanted(topics[o])
    ]


def test_an_active_segment_is_closed_when_somebody_waits_and_that_helps() -> None:
    kit = filled(AckedKit(rule=replace(SMALL, max_bytes=1 << 14, segment_bytes=1 << 14, full="block")), 120)
    kit.group(b"g", b">").next = 60
    assert not kit.sweep(asked=True).roll, "most of what is in the active one is wanted"
    kit.groups[b"g"].next = 119
    result = kit.sweep(asked=False)
    assert not result.roll
    assert kit.sweep(asked=True).roll
    assert not kit.sweep(asked=True).roll, "nothing has changed since"
    roll = kit.store.begin(0, kit.next, 1, kit.now_ns)
    kit.store.write(roll, [])
    kit.store.landed([], roll, None)
    kit.sweep()
    assert kit.store.bytes < 3000
    kit.check()


def test_caps_of_a_store_that_holds_publishers_back_drop_nothing() -> None:
    rule = StoreRule(segment_bytes=4096, max_bytes=1 << 14, retain="acked", full="reject")
    kit = filled(AckedKit(rule=rule), 100)
    kit.group(b"g", b"a")
    kit.sweep(asked=True)
    kit.check()
    assert read_all(kit.store).losses == []
    dropping = filled(AckedKit(rule=replace(rule, full="drop")), 100)
    dropping.group(b"g", b"a")
    dropping.sweep()
    assert [reason for _, _, reason, _ in read_all(dropping.store).losses] == ["trimmed"]


def test_a_rewrite_waits_for_room() -> None:
    rule = replace(SMALL, max_bytes=1 << 14, full="reject")
    kit = filled(AckedKit(rule=rule), 60)
    kit.disk.can_punch = False
    kit.group(b"g", b">")
    kit.give(b"g")
    kit.settle(b"g", [n for n in range(1, 50) if n % 4])
    assert kit.store.bytes > rule.max_bytes
    kit.sweep()
    assert [call for call in kit.disk.calls if call.startswith("rename")] == [
        call for call in kit.disk.calls if call.endswith(".idx") and call.startswith("rename")
    ]
    kit.settle(b"g", range(1, 30))
    kit.sweep()
    kit.sweep()
    kit.check()
    assert kit.store.bytes < 12_000


def test_hole_segments_become_one() -> None:
    kit = filled(AckedKit(), 100)
    kit.group(b"g", b">")
    kit.give(b"g")
    for upto in (30, 50, 70, 90):
        kit.settle(b"g", range(5, upto))
        kit.sweep()
    kit.sweep()
    kit.check()
    assert kit.store.segments <= 4


def test_pinned_bytes() -> None:
    kit = filled(AckedKit(), 60)
    kit.commit((b"other", b"x"))
    kit.group(b"g", b"a")
    kit.sweep()
    every_byte = kit.store.bytes
    assert pinned_bytes([kit.store], only(b"a"), 1) == every_byte
    assert 0 < pinned_bytes([kit.store], only(b"a"), 40) < every_byte / 2
    assert pinned_bytes([kit.store], only(b"none"), 1) == 0
    plain = Kit()
    plain.commit((b"a", b"x"))
    assert pinned_bytes([plain.store], every, 1) == 0


def test_small_segments_become_one() -> None:
    kit = AckedKit(rule=replace(SMALL, segment_bytes=8192))
    kit.group(b"g", b">")
    for _ in range(12):
        filled(kit, 30)
        kit.give(b"g")
        kit.settle(b"g", [m[0] for m in kit.kept if m[0] % 29])
        kit.sweep()
    kit.sweep()
    kit.check()
    assert kit.store.segments <= 8


def test_what_is_settled_leaves_the_segment_that_is_written_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is worth closing a segment for."""
    monkeypatch.setattr(store_sweep, "PUNCH_BYTES", 2000)
    kit = AckedKit(rule=replace(SMALL, segment_bytes=1 << 20))
    kit.group(b"g", b">")
    filled(kit, 5)
    kit.give(b"g")
    kit.settle(b"g", range(1, 6))
    assert not kit.sweep().roll, "too little"
    filled(kit, 5)
    kit.give(b"g")
    kit.settle(b"g", range(6, 10))
    assert not kit.sweep().roll, "one is wanted"
    kit.settle(b"g", [10])
    assert kit.sweep().roll
    before = kit.store.bytes
    kit.commit((b"a", b"x"))
    kit.sweep()
    kit.sweep()
    kit.check()
    assert kit.store.bytes < before / 4
    assert read_all(kit.store).offsets == [11]
