"""A commit and its thread: whatever a disk does, every commit is decided, and none is called kept that is not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import cast

import pytest

from busd.broker.ports import Outcome
from busd.words.errors import BusError
from busd.words.requests import Publish
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


@pytest.mark.parametrize(("sync_ns", "commits"), [(1_000_000, 1 + 16), (10_000_000, 1 + 4)])
def test_while_a_sync_takes_long_a_commit_takes_more(sync_ns: int, commits: int) -> None:
    """4 MB behind a first commit: by quarters of a megabyte, or by whole ones."""
    kit = LogKit()
    step = kit.disk.step

    def slow(kind: str, path: str) -> None:
        step(kind, path)
        if kind == "sync":
            kit.runtime.time_ns += sync_ns

    kit.disk.step = slow  # type: ignore[method-assign]
    kit.committer.hold = True
    for _ in range(1 + 16):
        kit.publish(b"a", b"x" * (1 << 18))
    kit.committer.submitted = 1
    kit.settle()
    assert kit.answers == list(range(1, 18))
    assert kit.committer.submitted == commits


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
    assert told == ["away 1", "work", "away 0", "away -1", "done", "answered"]


@pytest.mark.parametrize("fails", [False, True])
def test_the_disk_is_at_the_next_commit_while_one_is_answered_and_answers_keep_their_order(fails: bool) -> None:
    """Whatever becomes of the first of them."""
    kit = LogKit()
    kit.publish(b"a", b"0")
    kit.committer.hold, begun = True, kit.committer.submitted
    at_disk: list[tuple[int, int]] = []

    def told(outcome: Outcome) -> None:
        at_disk.append((outcome.first, kit.committer.submitted - begun))
        kit.answers.append("FULL" if outcome.errors else outcome.first)

    for payload in (b"1", b"2" * 20_000, b"3" * 20_000):
        kit.log.append(Publish(b"a", [payload], len(payload)), told)
        kit.runtime.run()
    assert (kit.committer.submitted - begun, kit.log.horizon) == (1, 2), "the others wait for the first"
    kit.disk.failure, kit.disk.fail_all = DiskFull("f:0: no space"), {"append"} if fails else set()
    kit.committer.release(1)
    kit.disk.fail_all = set()
    assert (at_disk, kit.committer.handed_over) == ([(2, 2)], 1), "submitted before the first was answered"
    assert kit.log.horizon == (2 if fails else 3), "and not shown yet"
    kit.committer.release()
    assert kit.answers == ([1, "FULL", 2, 3] if fails else [1, 2, 3, 4])
    assert [offset for offset, *_ in kit.seen] == ([1, 2, 3] if fails else [1, 2, 3, 4])
    assert kit.crash().messages() == kit.seen


def test_a_fault_in_beginning_the_next_commit_leaves_the_answers_of_the_one_decided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kit = LogKit()
    kit.committer.hold = True
    kit.publish(b"a", b"1")
    kit.publish(b"a", b"2" * 40_000)
    faults: list[Exception] = []
    monkeypatch.setattr(kit.runtime, "fault", faults.append)

    def too_large(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("busd.world.works.frame", too_large)
    kit.committer.release()
    kit.runtime.run()
    # A connection tells them in its order.
    assert (kit.answers, kit.seen, kit.log.idle) == (["INTERNAL", 1], [(1, b"a", b"1")], True)
    assert [type(fault) for fault in faults] == [MemoryError]


def test_what_is_written_on_the_loop_is_not_answered_before_what_came_first() -> None:
    """With `interval` the thread has only what begins a segment; what comes behind that is written here."""
    kit = LogKit(settings_from({"sync": "interval", "main": {"segment_bytes": "4k"}}))
    kit.committer.hold = True
    kit.publish(b"a", b"x" * 4000)
    kit.publish(b"a", b"y" * 4000)
    kit.publish(b"a", b"2")
    assert kit.answers == [1], "the second begins a segment, and the thread has it"
    kit.settle()
    assert (kit.answers, [offset for offset, *_ in kit.seen]) == ([1, 2, 3], [1, 2, 3])
    assert kit.committer.handed_over == 0


def test_little_that_waits_begins_a_turn_later_and_takes_along_what_comes_until_then() -> None:
    kit = LogKit()
    kit.committer.hold = True
    kit.publish(b"a", b"1")
    kit.publish(b"a", b"2")
    kit.committer.release()
    assert (kit.answers, kit.committer.submitted, kit.committer.handed_over) == ([1], 1, 0)
    kit.publish(b"a", b"3")
    assert kit.committer.submitted == 2
    kit.committer.release()
    assert kit.answers == [1, 2, 3], "one commit for both"
    assert kit.log.idle


def test_a_thread_takes_up_what_it_is_handed_before_the_caller_goes_on() -> None:
    began: list[int] = []
    thread = CommitThread(cast(asyncio.AbstractEventLoop, NoLoop()), lambda count: None, lambda: None)
    for number in range(100):
        thread.submit(partial(began.append, number), lambda: None)
        thread.hand_over()
    thread.close()
    assert began == list(range(100))


def test_a_thread_that_cannot_take_it_up_is_waited_for_a_moment_only() -> None:
    free, done = threading.Event(), threading.Event()
    thread = CommitThread(cast(asyncio.AbstractEventLoop, NoLoop()), lambda count: None, lambda: None)
    thread.submit(lambda: assert_set(free), lambda: None)
    thread.hand_over()
    thread.submit(done.set, lambda: None)
    thread.hand_over()
    assert not done.is_set(), "came back although the thread is at something else"
    free.set()
    thread.close()
    assert done.is_set()


def assert_set(event: threading.Event) -> None:
    """Wait until it is set."""
    assert event.wait(10)


class NoLoop:
    """A loop that nobody turns."""

    def call_soon_threadsafe(self, call: Callable[[Callable[[], None]], None], done: Callable[[], None]) -> None:
        """See asyncio; kept nowhere."""


@pytest.mark.parametrize("sync", ["always", "never"])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_message_too_large_for_what_is_left_of_the_disk_takes_no_other_with_it(at: int, sync: str) -> None:
    kit = LogKit(settings_from({"sync": sync}))
    kit.committer.hold = True
    kit.publish(b"a", b"0")
    payloads = [b"1", b"2", b"3"]
    payloads[at] = b"x" * 5000
    for payload in payloads:
        kit.log.append(Publish(b"a", [payload], len(payload)), kit._decided)
    told: list[tuple[BusError | None, int]] = []
    kit.committer.release(1)
    kit.disk.room_bytes = 2000
    kit.runtime.run()
    # Under way in a thread: what comes now waits for all of it.
    if sync == "always":
        kit.log.settle([], lambda error: told.append((error, len(kit.answers))))
    kit.settle()
    kept = [answer for answer in kit.answers if isinstance(answer, int)]
    assert [isinstance(answer, int) for answer in kit.answers] == [True, *[number != at for number in range(3)]]
    assert kit.answers[1 + at] == "FULL"
    assert kept == sorted(kept), "in the order of arrival"
    expected = [
        (offset, b"a", payload)
        for offset, payload in zip(kept, [b"0", *payloads[:at], *payloads[at + 1 :]], strict=True)
    ]
    assert kit.messages() == kit.crash().messages() == expected
    assert told == ([(None, 4)] if sync == "always" else [])
    kit.disk.room_bytes = None
    kit.publish(b"a", b"after")
    kit.settle()
    assert isinstance(kit.answers[-1], int)


def test_a_disk_that_is_full_to_the_last_byte_is_asked_three_times_at_most() -> None:
    kit = LogKit()
    kit.committer.hold = True
    kit.publish(b"a", b"0")
    for number in range(50):
        kit.publish(b"a", b"%d" % number)
    kit.committer.release(1)
    kit.runtime.run()
    begun = kit.committer.submitted
    kit.disk.fail_all = {"append"}
    kit.settle()
    assert kit.answers == [1, *["FULL"] * 50]
    assert kit.committer.submitted - begun <= 3
    kit.disk.fail_all = set()
    kit.publish(b"a", b"after")
    kit.settle()
    assert kit.messages()[1:] == [(kit.answers[-1], b"a", b"after")]
