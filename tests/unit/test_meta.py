"""data/meta: what it says survives, and what is not ours is refused."""

from __future__ import annotations

import pytest

from busd.rules.checksum import crc32
from busd.world.disk import DiskFull
from busd.world.meta import FLOOR_STEP, Meta, MetaFile, WrongFormat, load_meta, raised, save_meta
from tests.support.memory_disk import MemoryDisk


def test_what_is_saved_is_loaded_also_after_a_power_cut() -> None:
    disk = MemoryDisk()
    disk.makedirs("data")
    assert load_meta(disk, "data/meta") is None
    old = Meta(3, "boot", 77, "interval", clean=False)
    save_meta(disk, "data/meta", old)
    assert load_meta(disk, "data/meta") == old
    new = Meta(4, "boot", 99, "never", clean=True, since=70)
    save_meta(disk, "data/meta", new)
    found = {load_meta(crashed, "data/meta") for _, crashed in disk.crashes()}
    assert found == {new}


def test_a_line_that_is_not_known_is_passed_over_and_a_new_one_may_be_missing() -> None:
    """So an earlier version reads what a later one wrote, and this one what an earlier one did."""
    disk = MemoryDisk()
    text = Meta(3, "boot", 77, "interval", clean=False, since=70).text().rpartition(b"crc ")[0]
    for line, since in ((b"", 1), (b"since 70\nlater 5\n", 70)):
        other = text.replace(b"since 70\n", line)
        assert other != text
        disk.set_contents("data/meta", b"%bcrc %08x\n" % (other, crc32(other)))
        assert load_meta(disk, "data/meta") == Meta(3, "boot", 77, "interval", clean=False, since=since)


@pytest.mark.parametrize("number", range(4))
def test_a_save_that_fails_leaves_the_old_one_or_the_new_one(number: int) -> None:
    disk = MemoryDisk()
    disk.makedirs("data")
    save_meta(disk, "data/meta", Meta(epoch=1))
    disk.fail_at = len(disk.calls) + number
    with pytest.raises(DiskFull, match="No space"):
        save_meta(disk, "data/meta", Meta(epoch=2))
    for _, crashed in disk.crashes():
        found = load_meta(crashed, "data/meta")
        assert found is not None
        assert found.epoch in (1, 2)


@pytest.mark.parametrize("text", [b"", b"hello", b"format one\n", b"format 1\nepoch x\n", b"\xff\xfe", b"format 3\n"])
def test_a_file_that_is_not_ours_is_refused_by_name(text: bytes) -> None:
    disk = MemoryDisk()
    disk.set_contents("data/meta", text)
    with pytest.raises(WrongFormat, match="data/meta"):
        load_meta(disk, "data/meta")


def test_the_floor_is_raised_in_good_time() -> None:
    meta = Meta(floor=FLOOR_STEP)
    assert raised(meta, 1) is None
    assert raised(meta, FLOOR_STEP // 2) is None
    higher = raised(meta, FLOOR_STEP // 2 + 1)
    assert higher is not None
    assert higher.floor == FLOOR_STEP // 2 + 1 + FLOOR_STEP


def test_every_flipped_bit_is_told() -> None:
    """A floor or an epoch that is too low would give an offset twice."""
    disk = MemoryDisk()
    text = Meta(3, "b-1", 4_194_381, "interval", clean=False).text()
    for at in range(len(text)):
        for bit in range(8):
            disk.set_contents("data/meta", text[:at] + bytes([text[at] ^ 1 << bit]) + text[at + 1 :])
            with pytest.raises(WrongFormat, match="data/meta"):
                load_meta(disk, "data/meta")
    for size in range(len(text)):
        disk.set_contents("data/meta", text[:size])
        with pytest.raises(WrongFormat, match="data/meta"):
            load_meta(disk, "data/meta")


def test_a_floor_that_could_not_be_raised_is_raised_with_the_next_message() -> None:
    disk = MemoryDisk()
    disk.makedirs("data")
    file = MetaFile(disk, "data/meta", Meta(floor=1))
    write = file.due(10, True)
    assert write is not None
    disk.fail_all = {"create"}
    with pytest.raises(DiskFull):
        write()
    disk.fail_all = set()
    assert file.meta.floor == 1
    again = file.due(10, True)
    assert again is not None
    again()
    found = load_meta(disk, "data/meta")
    assert found is not None
    assert found.floor == file.meta.floor == 10 + FLOOR_STEP
    assert file.due(11, True) is None


def test_what_is_owed_is_due_once_something_is_published() -> None:
    disk = MemoryDisk()
    disk.makedirs("data")
    file = MetaFile(disk, "data/meta", Meta(floor=FLOOR_STEP, epoch=4), owes=True)
    assert file.due(1, False) is None
    write = file.due(1, True)
    assert write is not None
    write()
    found = load_meta(disk, "data/meta")
    assert found is not None
    assert found.epoch == 4
    assert file.due(1, True) is None


def test_a_stop_that_cannot_be_noted_is_a_crash() -> None:
    disk = MemoryDisk()
    disk.makedirs("data")
    save_meta(disk, "data/meta", Meta(clean=False))
    disk.fail_all = {"create"}
    for clean in (True, False):
        MetaFile(disk, "data/meta", Meta(clean=False)).close(7, clean)
    disk.fail_all = set()
    assert load_meta(disk, "data/meta") == Meta(clean=False)


def test_a_stop_with_a_store_that_failed_notes_how_far_offsets_were_told() -> None:
    disk = MemoryDisk()
    disk.makedirs("data")
    MetaFile(disk, "data/meta", Meta(clean=False, since=3, floor=100)).close(7, clean=False)
    assert load_meta(disk, "data/meta") == Meta(clean=False, since=7, floor=100)
