"""Retention by itself: once a second, and at once when somebody waits; over a whole log on a disk in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from busd.rules.group_records import line_done, line_new, line_out
from busd.words.errors import BusError
from busd.words.requests import Publish
from busd.words.settings import Settings, StoreRule, Sync
from busd.world.disk import DiskFull
from busd.world.store import Store
from busd.world.works import MUCH_UNSYNCED_BYTES
from tests.support.log_kit import LogKit

MS = 10**6
S = 10**9
RULE = StoreRule(
    "jobs", (b"jobs.>",), segment_bytes=16 << 10, max_bytes=64 << 10, retain="acked", groups=(b"g",), full="block"
)
PAYLOAD = b"x" * 1000


def full_kit() -> LogKit:
    """A store at its cap, nothing of it settled."""
    kit = LogKit(Settings(stores=(RULE,)))
    settle(kit, line_new(b"g", (b"jobs.>",), 0, 1, 1))
    while kit.log.admits(Publish(b"jobs.a", [PAYLOAD], 1000), 0):
        kit.publish(b"jobs.a", PAYLOAD)
    return kit


def settle(kit: LogKit, *lines: bytes) -> None:
    """Decide group records."""
    errors: list[BusError | None] = []
    kit.log.settle(list(lines), errors.append)
    kit.runtime.run()
    assert errors == [None]


def room(kit: LogKit) -> int:
    """For how many messages there is room."""
    return kit.log.admits(Publish(b"jobs.a", [PAYLOAD] * 100, 100_000), 0)


def test_a_poke_makes_room_at_once_and_says_so() -> None:
    kit = full_kit()
    last = kit.log.horizon - 1
    told: list[int] = []
    kit.log.room.on_room = lambda: told.append(room(kit))
    kit.log.make_room("jobs")
    kit.runtime.advance(100 * MS)
    assert room(kit) == 0
    assert told == []
    settle(kit, line_out(b"g", last + 1, 1, [(1, last)]), line_done(b"g", [(1, last - 1)]))
    kit.log.make_room("jobs")
    # The sealed ones go, then the active one is closed, and what is left of it is written anew.
    kit.runtime.advance(100 * MS)
    assert told
    assert told[-1] > 45
    assert kit.messages(b"jobs.a") == [(last, b"jobs.a", PAYLOAD)]
    files = sum(len(data) for path, data in kit.disk.contents().items() if "/jobs/" in path)
    assert files == kit.log.stores.open["jobs"].bytes < 3000


def test_pokes_are_answered_together() -> None:
    kit = full_kit()
    kit.runtime.advance(100 * MS)
    before = kit.runtime.timers
    for _ in range(1000):
        kit.log.make_room("jobs")
    assert kit.runtime.timers == before + 1
    kit.runtime.advance(100 * MS)
    kit.log.make_room("jobs")
    kit.log.refuse()
    kit.runtime.advance(10 * S)
    assert room(kit) == 0


def test_a_cap_is_kept_to_also_when_much_comes_within_a_second() -> None:
    """Waiting for the tick, a busy publisher would put a multiple of the cap on the disk."""
    kit = LogKit(Settings(main=StoreRule(segment_bytes=16 << 10, max_bytes=64 << 10)))
    kit.log.start()
    most = 0
    for _ in range(900):
        kit.publish(b"a", PAYLOAD)
        kit.runtime.advance(MS)
        most = max(most, kit.log.stores.open["main"].bytes)
    assert kit.log.stores.open["main"].first > 700
    # What comes until the next look, 20 ms at most, and a segment.
    assert most < (64 << 10) + (16 << 10) + 25 * 1100


def test_once_a_second_without_anybody_asking() -> None:
    kit = full_kit()
    last = kit.log.horizon - 1
    kit.log.start()
    settle(kit, line_out(b"g", last + 1, 1, [(1, last)]), line_done(b"g", [(1, last - 20)]))
    kit.runtime.advance(S)
    store = kit.log.stores.open["jobs"]
    assert last - 40 < store.first <= last - 19
    assert [message[0] for message in kit.messages(b"jobs.a")][-20:] == list(range(last - 19, last + 1))


def test_the_cap_holds_on_disk_while_a_rewrite_is_under_way() -> None:
    """Every third message is stuck: what is left is written anew, and at no moment is there more than the cap."""
    kit = full_kit()
    kit.disk.can_punch = False
    most = 0
    for _ in range(6):
        last = kit.log.horizon - 1
        stuck = [number for number in range(1, last + 1) if number % 30 == 0]
        lines = [line_out(b"g", last + 1, 1, [(1, last)]), line_done(b"g", [(n + 1, n + 29) for n in (0, *stuck)])]
        settle(kit, *lines)
        sizes = Sizes(kit)
        kit.log.make_room("jobs")
        kit.runtime.advance(200 * MS)
        sizes.look()
        most = max(most, sizes.most)
        while room(kit):
            kit.publish(b"jobs.a", PAYLOAD)
    assert RULE.max_bytes // 2 < most <= RULE.max_bytes


class Sizes:
    """What the files of the store take at each call to the disk."""

    def __init__(self, kit: LogKit) -> None:
        self.most = 0
        self._kit = kit
        disk, step = kit.disk, kit.disk.step

        def watched(kind: str, path: str) -> None:
            self.look()
            step(kind, path)

        disk.step = watched  # type: ignore[method-assign]

    def look(self) -> None:
        """Now."""
        names = self._kit.disk.names
        self.most = max(self.most, sum(len(inode.data) for path, inode in names.items() if "/jobs/" in path))


def test_a_disk_that_refuses_is_told_and_tried_again() -> None:
    kit = full_kit()
    last = kit.log.horizon - 1
    kit.log.start()
    settle(kit, line_out(b"g", last + 1, 1, [(1, last)]), line_done(b"g", [(1, last - 20)]))
    kit.disk.failure = DiskFull("disk:0: Read-only file system")
    kit.disk.fail_all = {"remove"}
    kit.runtime.advance(S)
    assert "Read-only" in str(dict(kit.log.info()["server"])["health"])
    kit.disk.fail_all = set()
    kit.runtime.advance(S)
    assert dict(kit.log.info()["server"])["health"] == "ok"
    assert kit.log.stores.open["jobs"].first > 10


def test_a_fault_costs_one_look_around_and_not_all_that_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under `interval` nothing would be synced any more."""
    kit = LogKit(Settings(sync="interval", stores=(RULE,)))
    kit.log.start()
    for name in ("_trim", "_roll", "_measure_cap"):
        with monkeypatch.context() as broken:
            broken.setattr(kit.log._upkeep, name, lambda: 1 // 0)
            with pytest.raises(ZeroDivisionError):
                kit.runtime.advance(S)
    kit.publish(b"a", b"x")
    main = kit.log.stores.open["main"]
    assert main.synced < main.last
    kit.runtime.advance(S)
    assert main.synced == main.last


@pytest.mark.parametrize("sync", ["interval", "never", "always"])
def test_much_is_synced_before_the_second_is_over(sync: Sync) -> None:
    kit = LogKit(Settings(sync=sync, stores=(RULE,)))
    kit.log.start()
    kit.runtime.run()
    kit.publish(b"jobs.a", b"x")
    main, jobs = kit.log.stores.open["main"], kit.log.stores.open["jobs"]
    message = b"x" * (MUCH_UNSYNCED_BYTES // 4)
    for _ in range(3):
        kit.publish(b"a", message)
    early = main.last
    assert main.synced == (early if sync == "always" else 0)
    kit.publish(b"a", message)
    # What came last was the reason for it.
    assert main.synced == (0 if sync == "never" else main.last)
    assert (jobs.synced == jobs.last) == (sync == "always"), "of that store alone"
    before = main.synced
    kit.publish(b"a", b"x")
    assert main.synced == (main.last if sync == "always" else before), "and not again at once"


def test_while_a_sync_is_under_way_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = LogKit(Settings(sync="interval"))
    main = kit.log.stores.open["main"]
    started: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []
    monkeypatch.setattr(kit.runtime, "in_thread", lambda work, done: started.append((work, done)))
    for _ in range(3):
        kit.publish(b"a", b"x" * (MUCH_UNSYNCED_BYTES + 1))
    assert len(started) == 1
    work, done = started.pop()
    done(work())
    # Of what was there when it began.
    assert main.synced == 1
    kit.publish(b"a", b"x" * (MUCH_UNSYNCED_BYTES + 1))
    assert len(started) == 1
    kit.log.refuse()
    work, done = started.pop()
    done(work())
    assert main.synced == 4
    main.synced = 0
    kit.log._upkeep.sync_soon(main)
    assert not started, "after a stop there is no other"


def test_a_second_is_over_while_much_is_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood into one store must not keep what others have from the disk."""
    kit = LogKit(Settings(sync="interval", stores=(RULE,)))
    kit.publish(b"jobs.a", b"x")
    main, jobs = kit.log.stores.open["main"], kit.log.stores.open["jobs"]
    started: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []
    monkeypatch.setattr(kit.runtime, "in_thread", lambda work, done: started.append((work, done)))
    monkeypatch.setattr(kit.log._upkeep, "_trim", lambda: None)
    monkeypatch.setattr(kit.log._upkeep, "_measure_cap", lambda: None)
    kit.publish(b"a", b"x" * (MUCH_UNSYNCED_BYTES + 1))
    kit.log._upkeep.start()
    assert len(started) == 1
    work, done = started.pop()
    done(work())
    assert (main.synced, jobs.synced) == (2, 0)
    work, done = started.pop()
    done(work())
    assert jobs.synced == 1
    assert not started, "and once"


def test_without_a_thread_for_an_early_sync_what_was_written_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = LogKit(Settings(sync="interval"))
    faults: list[Exception] = []
    monkeypatch.setattr(kit.runtime, "fault", faults.append)
    with monkeypatch.context() as broken:
        broken.setattr(kit.runtime, "in_thread", lambda work, done: 1 // 0)
        kit.publish(b"a", b"x" * (MUCH_UNSYNCED_BYTES + 1))
    assert kit.answers == [1]
    assert [type(fault) for fault in faults] == [ZeroDivisionError]
    kit.publish(b"a", b"x")
    assert kit.answers == [1, 2]
    assert kit.log.stores.open["main"].synced == 2


def test_without_a_thread_the_next_look_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """`can't start new thread`: what was not begun is not under way."""
    kit = full_kit()
    last = kit.log.horizon - 1
    kit.log.start()
    kit.runtime.run()
    settle(kit, line_out(b"g", last + 1, 1, [(1, last)]), line_done(b"g", [(1, last - 20)]))
    with monkeypatch.context() as broken:
        broken.setattr(kit.runtime, "in_thread", lambda work, done: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            kit.runtime.advance(S)
    assert kit.log.stores.open["jobs"].first == 1
    kit.runtime.advance(S)
    assert kit.log.stores.open["jobs"].first > last - 40


@pytest.mark.parametrize("seconds", [1, 5])
def test_a_ttl_ends_without_traffic(seconds: int) -> None:
    rule = StoreRule(segment_bytes=4 << 10)
    kit = LogKit(Settings(main=rule))
    for _ in range(20):
        item: list[bytes | list[bytes]] = [[PAYLOAD, b"ttl", b"3s"]]
        kit.log.append(Publish(b"a", item, 1000, headers=True), lambda outcome: None)
        kit.runtime.run()
    kit.log.start()
    before = kit.log.stores.total_bytes
    kit.runtime.advance(seconds * S)
    assert (kit.log.stores.total_bytes < before / 2) == (seconds > 3)


def test_a_fault_in_one_store_leaves_what_was_done_in_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = full_kit()
    faults: list[Exception] = []
    monkeypatch.setattr(kit.runtime, "fault", faults.append)

    def trim(*_: object) -> None:
        raise IndexError("a fault of busd")

    monkeypatch.setattr(type(kit.log.stores.open["main"]), "trim", _only_for("main", trim))
    last = kit.log.horizon - 1
    settle(kit, line_out(b"g", last + 1, 1, [(1, last)]), line_done(b"g", [(1, last)]))
    kit.log.make_room("jobs")
    kit.runtime.advance(200 * MS)
    assert room(kit) > 45
    assert faults
    assert all(isinstance(fault, IndexError) for fault in faults)


def _only_for(name: str, act: Callable[..., Any]) -> Callable[..., Any]:
    real = Store.trim

    def trim(store: Store, *arguments: Any) -> Any:
        return act() if store.name == name else real(store, *arguments)

    return trim
