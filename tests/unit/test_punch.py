"""Holes in the files of a real file system, and what is done when a stop came in between."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from busd.rules.group_records import GroupState
from busd.rules.wanted import Claims
from busd.words.settings import StoreRule
from busd.world import real_disk
from busd.world.real_disk import RealDisk
from busd.world.reaper import STEP_BYTES
from busd.world.store import Store
from tests.support.acked_kit import SMALL, AckedKit
from tests.support.store_kit import batch_of, open_store, read_all

RULE = StoreRule(segment_bytes=4 << 20, retain="acked")


def filled(path: Path) -> Store:
    """A store with a sealed segment of about 3 MiB in batches of 64 KiB, and one message behind it."""
    store = open_store(RealDisk(), RULE, path=str(path))
    for number in range(48):
        batch = batch_of([(b"a", b"%03d" % number + b"." * 65_000)], store.last + 1, store.last, store.last)
        store.write(None, [batch.record])
        store.landed([batch], None, batch.last)
    roll = store.begin(1 << 30, store.last + 1, 1, 1000)
    store.write(roll, [])
    store.sync()
    store.landed([], roll, None)
    return store


def blocks(path: Path) -> int:
    """Bytes that the logs take on the disk."""
    return sum([os.stat(path / name).st_blocks * 512 for name in os.listdir(path) if name.endswith(".log")])


def test_punching_gives_blocks_back(tmp_path: Path) -> None:
    store = filled(tmp_path / "s")
    probe = RealDisk().open(str(next((tmp_path / "s").glob("*.log"))), patch=True)
    if not probe.punch(probe.size(), 1):
        pytest.skip("this file system cannot make holes")
    before = blocks(tmp_path / "s")
    # 20 of 48 are settled: too few for a rewrite.
    group = GroupState((b">",), 0, 100, 0)
    for offset in (*range(1, 10), *range(30, 49)):
        group.unsettled.put(offset, offset, 1)
    result = store.trim(store.expired(1000, Claims({b"g": group})))
    assert result.error is None
    store.trimmed(result)
    assert before - blocks(tmp_path / "s") > 19 * 65_000
    logs = [path.stat().st_size for path in (tmp_path / "s").glob("*.log")]
    assert abs(sum(logs) - before) < 65_000, "their sizes are as they were"
    for _ in range(2):
        tale = read_all(store, budget_bytes=1 << 18)
        assert tale.offsets == [*range(1, 10), *range(30, 49)]
        assert tale.losses == [(10, 29, "settled", {b"a": 20})]
        assert store.topics[b"a"].live == 28
        assert store.bytes < before - 19 * 65_000
        store = open_store(RealDisk(), RULE, path=str(tmp_path / "s"))
        assert store.report == []


def test_a_large_hole_is_made_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int] | str] = []

    def punch(_: int, at: int, length: int) -> bool:
        calls.append((at, length))
        return True

    monkeypatch.setattr(real_disk, "punch_hole", punch)
    monkeypatch.setattr(os, "fdatasync", lambda _: calls.append("sync"))
    path = tmp_path / "f"
    path.write_bytes(b"")
    file = RealDisk().open(str(path), patch=True)
    assert file.punch(7, 2 * STEP_BYTES + 3)
    assert calls == [(7, STEP_BYTES - 7), "sync", (STEP_BYTES, STEP_BYTES), "sync", (2 * STEP_BYTES, 10)]
    calls.clear()
    assert file.punch(STEP_BYTES, STEP_BYTES)
    assert calls == [(STEP_BYTES, STEP_BYTES)], "none is empty"
    monkeypatch.setattr(real_disk, "punch_hole", lambda *_: False)
    assert not file.punch(7, 2 * STEP_BYTES)


def test_a_punch_file_is_done_again_and_one_that_fits_nothing_goes() -> None:
    kit = AckedKit(rule=SMALL)
    for number in range(20):
        kit.commit((b"a", b"%d" % number + b"." * 300))
    name = next(path for path in kit.disk.names if path.endswith("01.log"))
    data = kit.disk.contents()[name]
    kit.disk.set_contents(name.replace(".log", ".punch"), b"not one of ours")
    kit.disk.set_contents("/data/logs/main/00000000000000000777.punch", b"of a segment that is gone")
    kit.reopen()
    assert kit.store.report == []
    assert [path for path in kit.disk.names if path.endswith(".punch")] == []
    assert kit.disk.contents()[name] == data
    assert read_all(kit.store).messages == kit.kept
