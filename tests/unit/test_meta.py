"""data/meta: what it says survives, and what is not ours is refused."""

from __future__ import annotations

import pytest

from busd.world.meta import FLOOR_STEP, Meta, WrongFormat, load_meta, raised, save_meta
from tests.support.memory_disk import MemoryDisk


def test_what_is_saved_is_loaded_also_after_a_power_cut() -> None:
    disk = MemoryDisk()
    disk.makedirs("data")
    assert load_meta(disk, "data/meta") is None
    old = Meta(3, "boot", 77, "interval", clean=False)
    save_meta(disk, "data/meta", old)
    assert load_meta(disk, "data/meta") == old
    new = Meta(4, "boot", 99, "never", clean=True)
    save_meta(disk, "data/meta", new)
    found = {load_meta(crashed, "data/meta") for _, crashed in disk.crashes()}
    assert found == {new}


@pytest.mark.parametrize("number", range(4))
def test_a_save_that_fails_leaves_the_old_one_or_the_new_one(number: int) -> None:
    disk = MemoryDisk()
    disk.makedirs("data")
    save_meta(disk, "data/meta", Meta(epoch=1))
    disk.fail_at = len(disk.calls) + number
    with pytest.raises(Exception, match="No space"):
        save_meta(disk, "data/meta", Meta(epoch=2))
    for _, crashed in disk.crashes():
        found = load_meta(crashed, "data/meta")
        assert found is not None
        assert found.epoch in (1, 2)


@pytest.mark.parametrize("text", [b"", b"hello", b"format one\n", b"format 1\nepoch x\n", b"\xff\xfe", b"format 2\n"])
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
