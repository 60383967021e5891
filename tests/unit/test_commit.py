"""A commit and its thread: whatever a disk does, every commit is decided, and none is called kept that is not."""

from __future__ import annotations

import pytest

from busd.words.settings import settings_from
from busd.world.disk import DiskFailed, DiskFull
from tests.support.log_kit import LogKit

TWO_STORES = settings_from({"main": {"segment_bytes": "64k"}, "store": [{"match": "jobs.>", "name": "jobs"}]})


@pytest.mark.parametrize("failure", [DiskFull("f:0: no space"), OSError(9, "Bad file descriptor"), ValueError("ours")])
def test_a_sync_that_fails_in_whatever_way_is_told_and_latches(failure: Exception) -> None:
    kit = LogKit(TWO_STORES)
    kit.publish(b"a", b"1")
    kit.publish(b"jobs.x", b"2")
    kit.disk.failure, kit.disk.fail_all = failure, {"sync"}
    kit.publish(b"a", b"lost")
    kit.disk.fail_all = set()
    kit.publish(b"a", b"refused")
    kit.publish(b"jobs.x", b"4")
    assert kit.answers == [1, 2, "DISK", "DISK", 4]
    assert kit.log.stores.open["main"].failed
    assert kit.crash().messages() == [(1, b"a", b"1"), (2, b"jobs.x", b"2"), (4, b"jobs.x", b"4")]


def test_an_undo_that_fails_too_leaves_the_commit_decided() -> None:
    """The commit had begun a segment; its name could not even be taken back durably."""
    kit = LogKit(TWO_STORES)
    kit.publish(b"a", b"1")
    step, syncs = kit.disk.step, 0

    def failing(kind: str, path: str) -> None:
        nonlocal syncs
        step(kind, path)
        syncs += kind == "sync" and path.endswith("0002.log")
        if syncs > 1 and kind == "sync":
            raise DiskFailed(f"{path}:0: fdatasync: Input/output error")
        if syncs > 1 and kind == "sync_dir":
            raise FileNotFoundError(path)

    kit.disk.step = failing  # type: ignore[method-assign]
    kit.publish(b"a", b"x" * 70_000)
    assert syncs == 2, "one of the new segment, one of the commit"
    kit.disk.step = step  # type: ignore[method-assign]
    kit.publish(b"a", b"refused")
    kit.publish(b"jobs.x", b"3")
    assert kit.answers == [1, "DISK", "DISK", 3]
