"""A commit and its thread: whatever a disk does, every commit is decided, and none is called kept that is not."""

from __future__ import annotations

import asyncio

import pytest

from busd.words.settings import settings_from
from busd.world.commit import CommitThread
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


@pytest.mark.parametrize("failure", [DiskFull("f:0: no space"), OSError(5, "Input/output error")])
def test_a_store_that_knows_alone_that_it_failed_is_not_closed_clean(failure: Exception) -> None:
    """The write found no room, and could not be taken back: the next start must look at what stands there."""
    kit = LogKit(TWO_STORES)
    kit.publish(b"a", b"1")
    step = kit.disk.step

    def failing(kind: str, path: str) -> None:
        step(kind, path)
        if "/main/" in path and kind == "append":
            raise DiskFull(f"{path}:0: No space left on device")
        if "/main/" in path and kind == "truncate":
            raise failure

    kit.disk.step, kit.disk.short_bytes = failing, 5  # type: ignore[method-assign]
    kit.publish(b"a", b"refused")
    kit.disk.step = step  # type: ignore[method-assign]
    assert kit.answers == [1, "FULL"]
    assert kit.log.health.failed == {}
    kit.stop()
    assert b"clean no" in kit.disk.contents()[f"{kit.settings.data}/meta"]
    again = LogKit(TWO_STORES, kit.disk.copy())
    assert again.messages() == [(1, b"a", b"1")]
    assert again.opened.report, "the torn end was found"


def test_the_thread_is_told_to_be_back_behind_its_answers() -> None:
    told: list[str] = []

    async def story() -> None:
        decided = asyncio.Event()

        def back() -> None:
            told.append("answered")
            decided.set()

        thread = CommitThread(asyncio.get_running_loop(), lambda count: told.append(f"away {count}"), back)
        thread.submit(lambda: told.append("work"), lambda: told.append("done"))
        await decided.wait()
        thread.close()

    asyncio.run(story())
    assert told == ["away 1", "work", "away -1", "done", "answered"]
