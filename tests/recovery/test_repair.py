"""`repair`: afterwards `verify` finds nothing, readers are told what they were told before, and nothing else changed.

Every byte of a small log is flipped, the log is cut at every byte, files are lost, doubled and swapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from busd.words.settings import StoreRule, settings_from
from busd.world.disk import DiskFailed
from busd.world.inspect import verify
from busd.world.meta import Meta, WrongFormat, load_meta, save_meta
from busd.world.repair import repair
from busd.world.store import NewerFormat
from tests.conftest import Cases
from tests.support.log_kit import LogKit
from tests.support.memory_disk import MemoryDisk
from tests.support.power import DEPTH
from tests.support.store_kit import PATH, Kit, Tale, open_store, read_all

TOPICS = (b"a", b"b", b"c")
FLOOR = 1000


def log_of(segments: int, per_segment: int, stop: bool) -> Kit:
    """Segments of batches of three messages, topics a b c; meta above them."""
    kit = Kit()
    save_meta(kit.disk, "/data/meta", Meta(floor=FLOOR, clean=stop))
    for number in range(segments):
        if number:
            kit.roll()
        for _ in range(per_segment):
            kit.commit(*[(topic, b"%d" % kit.next + b"." * 30) for topic in TOPICS])
    if stop:
        kit.close()
    return kit


def told(disk: MemoryDisk, kit: Kit) -> Tale:
    """What a reader of everything is told after a start."""
    store = open_store(disk, StoreRule(), next_offset=kit.next)
    return read_all(store, horizon=kit.next)


def logs(disk: MemoryDisk) -> list[str]:
    """Paths of the segments."""
    return sorted(path for path in disk.contents() if path.startswith(PATH) and path.endswith(".log"))


def check(kit: Kit, disk: MemoryDisk, where: str) -> None:
    """Repair a damaged disk."""
    before = told(disk.copy(), kit)
    originals = disk.contents()
    said = list(repair(disk, "/data", 2000))
    left = [str(one) for one in verify(disk, "/data") if one.bad]
    assert left == [], (where, said)
    after = told(disk, kit)
    assert after.messages == before.messages, (where, said)
    lost = {offset for lo, hi, _, _ in before.losses for offset in range(lo, hi + 1)}
    lost_now = {offset for lo, hi, _, _ in after.losses for offset in range(lo, hi + 1)}
    given = {offset for offset, _, _ in kit.kept}
    assert lost & given <= lost_now, (where, said, before.losses, after.losses)
    assert list(repair(disk, "/data", 2000)) == [], where
    # Whatever was changed is there as it was.
    kept = [data for path, data in disk.contents().items() if "/repaired/" in path or ".cut" in path]
    for path, data in originals.items():
        if path.endswith(".log") and not disk.contents().get(path, b"").startswith(data):
            assert data in kept or any(data.endswith(one) for one in kept), (where, path, said)
    store = open_store(disk, StoreRule(), next_offset=1)
    assert store.last + 1 >= max([offset for offset, _, _ in before.messages], default=0), where


def damaged(kit: Kit, bits: bool) -> Iterator[tuple[str, MemoryDisk]]:
    """Each byte of each segment flipped, and each segment cut there."""
    step = 1 if DEPTH > 1 else 11
    for path in logs(kit.disk):
        data = kit.disk.contents()[path]
        for at in range(0, len(data), step):
            disk = kit.disk.copy()
            if bits:
                disk.set_contents(path, data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
            else:
                disk.set_contents(path, data[:at])
            yield f"{path}:{at}", disk


@pytest.mark.timeout(1200 if DEPTH > 1 else 60)
@pytest.mark.parametrize("hints", [True, False], ids=["index", "no index"])
@pytest.mark.parametrize("bits", [True, False], ids=["flipped", "cut"])
def test_every_byte(bits: bool, hints: bool, cases: Cases) -> None:
    kit = log_of(3, 3, stop=True)
    for where, disk in damaged(kit, bits):
        if not hints:
            for path in [path for path in disk.contents() if path.endswith(".idx")]:
                disk.delete(path)
        check(kit, disk, where)
        cases.add()
    assert cases.count > 50


def zero_page(disk: MemoryDisk) -> None:
    path = logs(disk)[1]
    data = bytearray(disk.contents()[path])
    data[200:500] = bytes(300)
    disk.set_contents(path, bytes(data))


def swap(disk: MemoryDisk) -> None:
    one, two = logs(disk)[1:3]
    contents = disk.contents()
    disk.set_contents(one, contents[two])
    disk.set_contents(two, contents[one])


def lose_middle(disk: MemoryDisk) -> None:
    disk.delete(logs(disk)[1])


def empty_last(disk: MemoryDisk) -> None:
    path = logs(disk)[-1]
    disk.set_contents(path, b"")
    disk.delete(path.replace(".log", ".idx"))


def spoil_last(disk: MemoryDisk) -> None:
    path = logs(disk)[-1]
    disk.set_contents(path, b"?" * 40 + disk.contents()[path][40:])
    disk.delete(path.replace(".log", ".idx"))


def spoil_all(disk: MemoryDisk) -> None:
    for path in logs(disk):
        disk.set_contents(path, b"nothing of it is left")
        disk.delete(path.replace(".log", ".idx"))


def double_block(disk: MemoryDisk) -> None:
    path = logs(disk)[1]
    data = disk.contents()[path]
    at = data.index(b"\n+B", 300) + 1
    disk.set_contents(path, data[:at] + data[at : at + 200] + data[at:])


DAMAGES: dict[str, Callable[[MemoryDisk], None]] = {
    "a zeroed page": zero_page,
    "swapped segments": swap,
    "a lost segment": lose_middle,
    "an empty last segment": empty_last,
    "a spoilt last segment": spoil_last,
    "nothing readable": spoil_all,
    "a doubled block": double_block,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("stop", [True, False])
def test_large_damage(damage: str, stop: bool) -> None:
    kit = log_of(4, 5, stop)
    DAMAGES[damage](kit.disk)
    check(kit, kit.disk, damage)


def test_counts_stay_exact() -> None:
    kit = log_of(4, 5, True)
    lose_middle(kit.disk)
    before = told(kit.disk.copy(), kit)
    assert before.losses == [(16, 30, "corrupt", dict.fromkeys(TOPICS, 5))]
    list(repair(kit.disk, "/data", 2000))
    assert told(kit.disk, kit).losses == before.losses


def test_offsets_of_a_file_that_cannot_be_read_are_not_given_again() -> None:
    for damage in (spoil_last, spoil_all):
        kit = log_of(4, 5, stop=False)
        damage(kit.disk)
        list(repair(kit.disk, "/data", 2000))
        assert open_store(kit.disk, next_offset=1).last + 1 >= kit.next, damage


def lose_last(disk: MemoryDisk) -> None:
    path = logs(disk)[-1]
    disk.delete(path)
    disk.delete(path.replace(".log", ".idx"))


@pytest.mark.parametrize("damage", [spoil_last, empty_last, lose_last])
@pytest.mark.parametrize("mended", [True, False], ids=["repaired", "started"])
@pytest.mark.parametrize("stop", [True, False])
def test_the_newest_segment_is_lost_behind_one_that_was_merged(
    damage: Callable[[MemoryDisk], None], mended: bool, stop: bool
) -> None:
    """It covers offsets up to where the lost one began, also such as other stores have: what comes is behind them."""
    kit = Kit(rule=StoreRule(segment_bytes=4096, max_messages=1, keep_last=1))
    save_meta(kit.disk, "/data/meta", Meta(floor=FLOOR, clean=stop))
    for _ in range(3):
        for _ in range(3):
            kit.commit(*[(topic, b"%d" % kit.next + b"." * 30) for topic in TOPICS])
        # The next offsets are those of other stores.
        kit.next += 9
        kit.roll()
    kit.commit((b"a", b"lost"))
    lost = kit.next - 1
    kit.trim()
    assert [segment.head.until > segment.prev for segment in kit.store._shelf.segments] == [True, False]
    if stop:
        kit.close()
    damage(kit.disk)
    if mended:
        list(repair(kit.disk, "/data", 2000))
        assert [str(one) for one in verify(kit.disk, "/data") if one.kind != "hole" and one.bad] == []
        assert [str(one) for one in verify(kit.disk, "/data") if one.kind == "leftover"] == []
    kit.next = FLOOR
    for _ in range(2):
        store = kit.reopen()
        holes = [(hole.first, hole.last) for hole in read_all(store, horizon=kit.next).holes if hole.counts is None]
        assert any(first <= lost <= last for first, last in holes), holes
        kit.commit((b"b", b"new"))
        kit.roll()
        assert [m for m in read_all(store).messages if m[2] == b"new"] == [m for m in kit.kept if m[2] == b"new"]
        assert store.nth_last(b"b", 1, kit.next) == kit.next - 1


def test_a_whole_server_goes_on_after_it() -> None:
    kit = LogKit(settings_from({"main": {"segment_bytes": "4k"}}))
    for number in range(30):
        kit.publish(b"t", b"%d" % number + b"x" * 500)
    kit.stop()
    path = sorted(path for path in kit.disk.contents() if path.endswith(".log"))[1]
    data = bytearray(kit.disk.contents()[path])
    data[300] ^= 1
    kit.disk.set_contents(path, bytes(data))
    for name in ("meta", "groups.log"):
        data = bytearray(kit.disk.contents().get(f"busd-data/{name}") or b"not of busd")
        data[9] ^= 1
        kit.disk.set_contents(f"busd-data/{name}", bytes(data))
    said = "\n".join(repair(kit.disk, "busd-data", 2000))
    assert path in said
    assert "written anew: epoch 2" in said
    assert "busd-data/repaired/1: 2 files are kept here" in said
    again = LogKit(kit.settings, kit.disk, "boot-2")
    assert len(again.messages()) >= 22
    again.publish(b"t", b"goes on")
    (answer,) = again.answers
    assert isinstance(answer, int)
    assert answer > 30


def test_what_is_sound_is_not_touched() -> None:
    kit = log_of(3, 3, True)
    before, calls = kit.disk.contents(), len(kit.disk.calls)
    assert list(repair(kit.disk, "/data", 2000)) == []
    assert (kit.disk.contents(), len(kit.disk.calls)) == (before, calls)


def test_what_is_newer_is_refused_and_not_touched() -> None:
    kit = log_of(3, 3, True)
    newer = kit.disk.contents()["/data/meta"].replace(b"format 2", b"format 3")
    from zlib import crc32

    text = newer[: newer.index(b"crc ")]
    kit.disk.set_contents("/data/meta", b"%bcrc %08x\n" % (text, crc32(text)))
    before = kit.disk.contents()
    with pytest.raises(WrongFormat, match="format 3; this busd reads formats 1 to 2"):
        list(repair(kit.disk, "/data", 2000))
    assert kit.disk.contents() == before


def test_a_repair_that_fails_is_done_again(cases: Cases) -> None:
    """Every call to the disk fails once, and a power cut comes behind every one of them."""
    probe = log_of(4, 5, True)
    zero_page(probe.disk)
    expected = told(probe.disk.copy(), probe)
    number = 0
    while True:
        disk = probe.disk.copy()
        disk.failure, disk.fail_at = DiskFailed("x:0: Input/output error"), number
        try:
            list(repair(disk, "/data", 2000))
            if number >= len(disk.calls):
                break
        except DiskFailed:
            pass
        disk.fail_at = -1
        for found in [disk.copy(), *(cut for _, cut in disk.crashes())]:
            list(repair(found, "/data", 2000))
            assert [one for one in verify(found, "/data") if one.bad] == []
            tale = told(found, probe)
            assert (tale.messages, tale.losses) == (expected.messages, expected.losses), number
            cases.add()
        number += 1
    assert number > 8


def test_a_segment_of_a_newer_version_is_refused() -> None:
    from zlib import crc32

    kit = log_of(2, 2, True)
    path = logs(kit.disk)[0]
    data = kit.disk.contents()[path]
    end = data.index(b"+B")
    rest = data[12:end].replace(b" 2 main", b" 3 main", 1)
    kit.disk.set_contents(path, b"+S %08x %b" % (crc32(rest), rest) + data[end:])
    with pytest.raises(NewerFormat):
        list(repair(kit.disk, "/data", 2000))
    assert load_meta(kit.disk, "/data/meta") == Meta(floor=FLOOR)
