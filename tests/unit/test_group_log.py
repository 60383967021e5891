"""groups.log as a file and in the commit: what is written when, what is answered when, and what a full disk changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from busd.rules.group_records import (
    GroupState,
    States,
    frame_lines,
    line_done,
    line_gone,
    line_new,
    line_out,
    line_seek,
    read_groups,
)
from busd.rules.record import Batch
from busd.words.errors import BusError
from busd.words.settings import Settings, settings_from
from busd.world import group_log
from busd.world.disk import DiskFailed, DiskFull
from busd.world.reserve import PIECE_BYTES, RESERVE_BYTES
from tests.support.log_kit import LogKit
from tests.support.memory_disk import MemoryDisk

PATH = "busd-data/groups.log"
RESERVE = "busd-data/reserve"
NEVER = settings_from({"sync": "never"})
FULL = DiskFull("f:0: No space left on device")


@dataclass
class Told:
    """What callbacks said, in order: a name, and an error's code where there was one."""

    all: list[str] = field(default_factory=list)

    def note(self, name: str = "note") -> Callable[[], None]:
        """For `note`."""
        return lambda: self.all.append(name)

    def sink(self, name: str = "ok") -> Callable[[BusError | None], None]:
        """For `settle`."""
        return lambda error: self.all.append(name if error is None else error.code)


def new(group: bytes = b"g") -> bytes:
    """A group of everything, from the beginning."""
    return line_new(group, (b">",), 0, 1, 7)


def out(first: int, last: int, tries: int = 1, group: bytes = b"g") -> bytes:
    """Given out, everything before `first` as well."""
    return line_out(group, last + 1, tries, [(first, last)])


def done(first: int, last: int, group: bytes = b"g") -> bytes:
    """Settled."""
    return line_done(group, [(first, last)])


def kit_with(*notes: bytes, settings: Settings | None = None, disk: MemoryDisk | None = None) -> LogKit:
    """A log with the group `g` and these notes."""
    kit = LogKit(settings or Settings(), disk or MemoryDisk())
    kit.log.settle([new()], lambda error: None)
    kit.runtime.run()
    for line in notes:
        kit.log.note([line], lambda: None)
    return kit


def on_disk(kit: LogKit) -> States:
    """What a restart would find."""
    return read_groups(kit.disk.contents()[PATH]).states


def spans(kit: LogKit) -> list[tuple[int, int, int]]:
    """What is not settled, of `g`."""
    return list(kit.log.groups[b"g"].unsettled)


# When.


def test_a_note_is_written_in_the_call_and_not_synced() -> None:
    kit, told = kit_with(), Told()
    calls = len(kit.disk.calls)
    kit.log.note([out(1, 5)], told.note())
    assert told.all == ["note"]
    assert spans(kit) == [(1, 5, 1)]
    assert kit.disk.calls[calls:] == [f"append {PATH}"]
    assert on_disk(kit) == kit.log.groups


@pytest.mark.parametrize("sync", ["always", "interval", "never"])
def test_a_settlement_is_answered_when_it_is_as_durable_as_the_policy_says(sync: str) -> None:
    kit, told = kit_with(out(1, 5), settings=settings_from({"sync": sync})), Told()
    kit.committer.hold = True
    calls = len(kit.disk.calls)
    kit.log.settle([done(1, 3)], told.sink())
    assert told.all == []
    kit.runtime.run()
    if sync == "always":
        assert (told.all, spans(kit)) == ([], [(1, 5, 1)])
        kit.committer.release()
    assert (told.all, spans(kit)) == (["ok"], [(4, 5, 1)])
    assert on_disk(kit) == kit.log.groups
    expected = [f"append {PATH}"] + [f"sync {PATH}"] * (sync == "always")
    assert kit.disk.calls[calls:] == expected, "one write, one sync, and no store is touched"


def test_settlements_and_messages_share_a_commit_and_its_answers_keep_their_order() -> None:
    kit, told = kit_with(out(1, 5)), Told()
    seen: list[list[Batch]] = []
    kit.log.visible = seen.append
    kit.committer.hold = True
    kit.publish(b"t", b"first")
    kit.log.settle([done(1, 1)], told.sink("one"))
    kit.publish(b"t", b"second")
    kit.log.settle([], told.sink("nothing to keep"))
    kit.log.settle([done(2, 2)], told.sink("two"))
    submitted = kit.committer.submitted
    calls = len(kit.disk.calls)
    kit.committer.release()
    assert told.all == ["one", "nothing to keep", "two"]
    assert kit.answers == [1, 2]
    assert kit.committer.submitted == submitted + 1
    assert kit.disk.calls[calls:].count(f"sync {PATH}") == 1
    assert [len(batches) for batches in seen] == [1, 1]


def test_a_commit_of_settlements_alone_makes_waiters_look() -> None:
    kit, told = kit_with(), Told()
    seen: list[list[Batch]] = []
    kit.log.visible = seen.append
    kit.log.settle([], told.sink())
    kit.runtime.run()
    assert (told.all, seen) == (["ok"], [[]])


def test_nothing_to_settle_syncs_nothing() -> None:
    kit, told = kit_with(out(1, 2)), Told()
    calls, submitted = len(kit.disk.calls), kit.committer.submitted
    kit.log.settle([], told.sink())
    kit.runtime.run()
    kit.publish(b"t", b"x")
    assert told.all == ["ok"]
    assert kit.committer.submitted == submitted + 1
    assert f"sync {PATH}" not in kit.disk.calls[calls:]


def test_deliveries_before_a_settlement_are_written_before_it() -> None:
    kit, told = kit_with(), Told()
    kit.log.settle([out(1, 4), done(1, 2)], told.sink())
    assert spans(kit) == [(1, 4, 1)], "the delivery is a note"
    kit.runtime.run()
    assert (told.all, spans(kit)) == (["ok"], [(3, 4, 1)])


def test_a_note_passes_a_settlement_under_way_but_not_one_that_makes_a_group() -> None:
    kit, told = kit_with(out(1, 4)), Told()
    kit.committer.hold = True
    kit.log.settle([done(1, 2)], told.sink("done"))
    kit.runtime.run()
    kit.log.note([out(5, 6)], told.note("passed"))
    kit.log.settle([new(b"h")], told.sink("new"))
    kit.log.note([out(1, 1, group=b"h")], told.note("behind"))
    kit.log.note([out(7, 7)], told.note("behind too"))
    assert told.all == ["passed"]
    kit.committer.release()
    kit.runtime.run()
    kit.committer.release()
    assert told.all == ["passed", "done", "new", "behind", "behind too"]
    assert on_disk(kit) == kit.log.groups
    assert spans(kit) == [(3, 7, 1)]
    assert list(kit.log.groups[b"h"].unsettled) == [(1, 1, 1)]


def test_moving_and_forgetting() -> None:
    kit, told = kit_with(out(1, 9)), Told()
    kit.log.settle([line_seek(b"g", 4)], told.sink("seek"))
    kit.log.note([out(4, 5)], told.note())
    kit.log.settle([line_gone(b"g")], told.sink("gone"))
    kit.runtime.run()
    assert told.all == ["seek", "note", "gone"]
    assert kit.log.groups == on_disk(kit) == {}


# A slow disk.


def slow_disk(kit: LogKit, ns: int) -> None:
    """Every append takes so long."""
    step = kit.disk.step

    def slow(kind: str, path: str) -> None:
        kit.runtime.time_ns += ns if kind == "append" else 0
        step(kind, path)

    kit.disk.step = slow  # type: ignore[method-assign]


def test_after_a_slow_write_the_next_ones_go_through_the_thread_in_order() -> None:
    kit, told = kit_with(), Told()
    slow_disk(kit, 3_000_000)
    kit.log.note([out(1, 1)], told.note("at once"))
    slow_disk(kit, -3_000_000)
    kit.committer.hold = True
    kit.log.note([out(2, 2)], told.note("a"))
    kit.log.settle([done(1, 1)], told.sink("b"))
    kit.runtime.run()
    calls = len(kit.disk.calls)
    kit.log.note([out(3, 3)], told.note("c"))
    kit.log.settle([done(2, 2)], told.sink("d"))
    assert (told.all, kit.disk.calls[calls:]) == (["at once"], []), "the loop writes nothing while the thread may"
    kit.committer.release()
    assert told.all == ["at once", "a", "b", "c", "d"]
    assert spans(kit) == [(3, 3, 1)]
    assert on_disk(kit) == kit.log.groups
    kit.committer.hold = False
    for number in range(4, 110):
        kit.log.note([out(number, number)], told.note())
        kit.runtime.run()
    submitted = kit.committer.submitted
    kit.log.note([out(200, 200)], told.note("quick again"))
    assert (told.all[-1], kit.committer.submitted) == ("quick again", submitted)


# A full disk.


def test_without_room_a_settlement_is_refused_and_is_taken_when_there_is_some() -> None:
    kit, told = kit_with(out(1, 5)), Told()
    before = kit.disk.contents()[PATH]
    kit.disk.failure, kit.disk.short_bytes, kit.disk.fail_all = FULL, 9, {"append"}
    kit.log.settle([done(1, 2)], told.sink())
    kit.runtime.run()
    assert (told.all, spans(kit)) == (["FULL"], [(1, 5, 1)])
    assert kit.disk.contents()[PATH] == before, "cut back"
    assert "no room" in str(dict(kit.log.info()["server"])["health"])
    kit.disk.fail_all = set()
    kit.log.settle([done(1, 2)], told.sink())
    kit.runtime.run()
    assert (told.all, spans(kit)) == (["FULL", "ok"], [(3, 5, 1)])
    assert dict(kit.log.info()["server"])["health"] == "ok"
    assert on_disk(kit) == kit.log.groups


def test_deliveries_without_room_go_on_and_are_told_with_the_next_write() -> None:
    kit, told = kit_with(out(1, 5)), Told()
    kit.disk.failure, kit.disk.fail_all = FULL, {"append"}
    kit.log.note([out(6, 9)], told.note())
    kit.log.note([out(3, 3, 2), out(1, 1, group=b"nobody")], told.note())
    assert told.all == ["note", "note"]
    assert spans(kit) == [(1, 2, 1), (3, 3, 2), (4, 9, 1)]
    assert list(on_disk(kit)[b"g"].unsettled) == [(1, 5, 1)]
    kit.disk.fail_all = set()
    kit.log.settle([done(6, 9)], told.sink())
    kit.runtime.run()
    assert told.all[-1] == "ok"
    assert on_disk(kit) == kit.log.groups
    assert spans(kit) == [(1, 2, 1), (3, 3, 2), (4, 5, 1)]
    size = len(kit.disk.contents()[PATH])
    kit.log.note([out(10, 10)], told.note())
    assert len(kit.disk.contents()[PATH]) == size + len(frame_lines([out(10, 10)])), "told once"


def test_what_is_owed_does_not_undo_an_acknowledgement_on_its_way() -> None:
    kit, told = kit_with(out(1, 5)), Told()
    kit.committer.hold = True
    kit.log.settle([done(1, 3)], told.sink("acknowledged"))
    kit.runtime.run()
    kit.disk.failure, kit.disk.fail_all = FULL, {"append"}
    kit.log.note([out(6, 6)], told.note("without room"))
    kit.disk.fail_all = set()
    kit.log.note([out(7, 7)], told.note("with room again"))
    kit.committer.release()
    kit.runtime.run()
    kit.committer.release()
    kit.runtime.run()
    assert told.all == ["without room", "acknowledged", "with room again"]
    live = list(kit.log.groups[b"g"].unsettled)
    assert live == [(4, 7, 1)]
    assert list(kit.crash().log.groups[b"g"].unsettled) == live


def test_what_is_owed_is_written_by_a_clean_stop() -> None:
    kit = kit_with(out(1, 5))
    kit.disk.failure, kit.disk.fail_all = FULL, {"append"}
    kit.log.note([out(6, 9)], lambda: None)
    kit.disk.fail_all = set()
    kit.stop()
    assert on_disk(kit) == kit.log.groups


def test_the_reserve_gives_room_to_group_records_alone_and_is_made_again() -> None:
    kit, told = kit_with(), Told()
    kit.log.start()
    kit.runtime.run()
    assert len(kit.disk.contents()[RESERVE]) == RESERVE_BYTES
    quota = sum(map(len, kit.disk.contents().values())) + 100
    step = kit.disk.step

    def limited(kind: str, path: str) -> None:
        step(kind, path)
        if kind == "append" and sum(map(len, kit.disk.contents().values())) > quota:
            raise FULL

    kit.disk.step = limited  # type: ignore[method-assign]
    for number in range(1, 41):
        kit.log.note([out(number, number)], told.note())
        kit.log.settle([done(number, number)], told.sink())
        kit.runtime.run()
    assert told.all == ["note", "ok"] * 40
    assert len(kit.disk.contents()[RESERVE]) == RESERVE_BYTES - PIECE_BYTES
    assert LogKit(kit.settings, kit.disk.copy()).log.groups == kit.log.groups
    kit.disk.step = step  # type: ignore[method-assign]
    kit.runtime.advance(1_000_000_000)
    assert len(kit.disk.contents()[RESERVE]) == RESERVE_BYTES


def test_no_reserve_is_made_where_it_would_fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = kit_with()
    monkeypatch.setattr(kit.disk, "usage", lambda path: (1 << 40, 1 << 20))
    kit.log.start()
    kit.runtime.run()
    assert RESERVE not in kit.disk.contents()
    monkeypatch.undo()
    kit.disk.failure, kit.disk.fail_all = FULL, {"create"}
    kit.runtime.advance(1_000_000_000)
    assert RESERVE not in kit.disk.contents()


def test_a_reserve_that_is_used_up_or_cannot_be_cut_gives_nothing() -> None:
    kit, told = kit_with(out(1, 9)), Told()
    kit.log.start()
    kit.runtime.run()
    kit.disk.failure, kit.disk.fail_all = FULL, {"append"}
    kit.log.settle([done(1, 1)], told.sink())
    kit.runtime.run()
    assert told.all == ["FULL"]
    assert kit.disk.contents()[RESERVE] == b"", "all of it was tried"
    kit.disk.fail_all = set()
    kit.runtime.advance(1_000_000_000)
    step = kit.disk.step

    def limited(kind: str, path: str) -> None:
        step(kind, path)
        if kind == "append" or (kind, path) == ("truncate", RESERVE):
            raise FULL

    kit.disk.step = limited  # type: ignore[method-assign]
    kit.log.settle([done(1, 1)], told.sink())
    kit.runtime.run()
    assert told.all == ["FULL", "FULL"]
    kit.disk.step = step  # type: ignore[method-assign]
    kit.log.settle([done(1, 1)], told.sink())
    kit.runtime.run()
    assert told.all[-1] == "ok"


# A disk that lies.


def test_after_a_failed_sync_acknowledgements_are_refused_and_deliveries_and_messages_go_on() -> None:
    kit, told = kit_with(out(1, 5)), Told()
    kit.disk.failure = DiskFailed("f:0: fdatasync: Input/output error")
    kit.disk.fail_at = len(kit.disk.calls) + 1
    kit.log.settle([done(1, 2)], told.sink())
    kit.runtime.run()
    assert kit.disk.calls[-2:] == [f"sync {PATH}", f"truncate {PATH}"]
    calls = len(kit.disk.calls)
    kit.log.settle([done(3, 3)], told.sink())
    kit.log.settle([], told.sink("in order"))
    kit.log.note([out(6, 6)], told.note())
    kit.runtime.run()
    assert told.all == ["DISK", "note", "DISK", "in order"]
    assert kit.disk.calls[calls:] == [], "it is never written again"
    assert spans(kit) == [(1, 5, 1)]
    assert "group records" in str(dict(kit.log.info()["server"])["health"])
    kit.publish(b"t", b"x")
    assert kit.answers == [1]
    again = kit.crash()
    assert list(again.log.groups[b"g"].unsettled) == [(1, 5, 1)], "nothing that was refused comes back"
    kit.stop()
    assert b"clean no" in kit.disk.contents()["busd-data/meta"]


@pytest.mark.parametrize("failure", [DiskFailed("f:0: Input/output error"), OSError("whatever")])
def test_a_failed_write_latches_too(failure: Exception) -> None:
    kit, told = kit_with(out(1, 5)), Told()
    slow_disk(kit, 3_000_000)
    kit.log.note([out(6, 6)], lambda: None)
    kit.disk.failure, kit.disk.fail_all = failure, {"append"}
    kit.log.settle([done(1, 2)], told.sink())
    kit.log.note([out(7, 7)], told.note())
    kit.runtime.run()
    kit.disk.fail_all = set()
    kit.log.settle([done(1, 2)], told.sink())
    kit.runtime.run()
    assert told.all == ["DISK", "note", "DISK"]
    assert list(kit.crash().log.groups[b"g"].unsettled) == [(1, 6, 1)]


def test_a_cut_back_that_fails_latches() -> None:
    kit, told = kit_with(out(1, 5)), Told()
    kit.disk.failure, kit.disk.short_bytes, kit.disk.fail_all = FULL, 5, {"append", "truncate"}
    kit.log.settle([done(1, 2)], told.sink())
    kit.runtime.run()
    kit.disk.fail_all = set()
    kit.log.settle([done(1, 2)], told.sink())
    kit.runtime.run()
    assert told.all == ["DISK", "DISK"]


def test_a_fault_of_one_that_is_told_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    kit, told = kit_with(out(1, 5)), Told()
    faults: list[Exception] = []
    monkeypatch.setattr(kit.runtime, "fault", faults.append)

    def faulty(error: BusError | None = None) -> None:
        raise ZeroDivisionError

    kit.log.settle([done(1, 1)], faulty)
    kit.log.settle([done(2, 2)], told.sink())
    kit.log.note([b"nonsense g"], told.note())
    kit.log.note([], faulty)
    kit.runtime.run()
    assert told.all == ["note", "ok"]
    assert [type(fault).__name__ for fault in faults] == ["BadRecord", "ZeroDivisionError", "ZeroDivisionError"]


# Interval, and the end.


def test_interval_syncs_notes_within_a_second() -> None:
    kit = kit_with(settings=settings_from({"sync": "interval"}))
    kit.log.start()
    kit.log.note([out(1, 5)], lambda: None)
    assert kit.disk.crash(99, "lost").contents().get(PATH, b"") == b""
    kit.runtime.advance(1_000_000_000)
    assert read_groups(kit.disk.crash(99, "lost").contents()[PATH]).states == kit.log.groups
    calls = len(kit.disk.calls)
    kit.runtime.advance(3_000_000_000)
    assert f"sync {PATH}" not in kit.disk.calls[calls:], "nothing new, no sync"
    kit.disk.failure, kit.disk.fail_all = DiskFailed("f:0: Input/output error"), {"sync"}
    kit.log.note([out(6, 6)], lambda: None)
    kit.runtime.advance(1_000_000_000)
    assert "group records" in str(dict(kit.log.info()["server"])["health"])


def test_a_clean_stop_keeps_everything_and_refuses_what_comes_too_late() -> None:
    kit, told = kit_with(out(1, 5)), Told()
    kit.committer.hold = True
    kit.log.settle([done(1, 2)], told.sink("taken"))
    kit.runtime.run()
    assert not kit.log.idle
    kit.log.refuse()
    kit.log.settle([done(3, 3)], told.sink("late"))
    kit.log.settle([], told.sink("in order"))
    kit.committer.release()
    kit.runtime.run()
    assert told.all == ["taken", "STOPPING", "in order"]
    assert kit.log.idle
    kit.log.note([out(6, 7)], told.note())
    kit.log.close()
    kit.opened.lock.release()
    assert b"clean yes" in kit.disk.contents()["busd-data/meta"]
    again = LogKit(kit.settings, kit.disk.crash(0, "lost"))
    assert again.opened.report == []
    assert list(again.log.groups[b"g"].unsettled) == [(3, 7, 1)]


def test_a_clean_stop_writes_what_still_waits() -> None:
    kit = kit_with()
    slow_disk(kit, 3_000_000)
    kit.log.note([out(1, 1)], lambda: None)
    kit.log.note([out(2, 2)], lambda: None)
    kit.log.close()
    assert list(on_disk(kit)[b"g"].unsettled) == [(1, 2, 1)]


# Opening.


def test_a_torn_end_is_cut_kept_and_told() -> None:
    kit = kit_with(out(1, 5))
    disk = kit.disk.copy()
    whole = disk.contents()[PATH]
    disk.set_contents("busd-data/groups.cut", b"older")
    disk.set_contents(PATH, whole + frame_lines([done(1, 5)])[:-3])
    again = LogKit(kit.settings, disk)
    assert again.log.groups == kit.log.groups
    assert disk.contents()[PATH] == whole
    assert disk.contents()["busd-data/groups.cut.1"] == frame_lines([done(1, 5)])[:-3]
    assert [line.split(":")[0] for line in again.opened.report] == [PATH, "busd-data/groups.cut.1"]
    assert LogKit(kit.settings, disk.copy()).opened.report == []


def test_damage_is_told_made_up_for_and_written_anew() -> None:
    kit = kit_with(out(1, 5), out(6, 9))
    disk = kit.disk.copy()
    data = bytearray(disk.contents()[PATH])
    data[len(frame_lines([new()])) + 30] ^= 1
    disk.set_contents(PATH, bytes(data))
    again = LogKit(kit.settings, disk)
    assert list(again.log.groups[b"g"].unsettled) == [(1, 5, 0), (6, 9, 1)]
    assert any("corrupt" in line for line in again.opened.report)
    assert disk.contents()["busd-data/groups.cut"] == bytes(data)
    after = LogKit(kit.settings, disk.copy())
    assert after.opened.report == []
    assert after.log.groups == again.log.groups


def test_damage_on_a_full_disk_is_read_around_at_every_start() -> None:
    kit = kit_with(out(1, 5), out(6, 9))
    data = bytearray(kit.disk.contents()[PATH])
    data[len(frame_lines([new()])) + 30] ^= 1
    for torn in (b"", b"+G torn"):
        disk = kit.disk.copy()
        disk.set_contents(PATH, bytes(data) + torn)
        step = disk.step

        def limited(kind: str, path: str, step: Callable[[str, str], None] = step) -> None:
            step(kind, path)
            if kind == "create" and "groups" in path:
                raise FULL

        disk.step = limited  # type: ignore[method-assign]
        again = LogKit(kit.settings, disk)
        assert list(again.log.groups[b"g"].unsettled) == [(1, 5, 0), (6, 9, 1)]
        assert sum("No space" in line for line in again.opened.report) == 2
        assert disk.contents()[PATH] == bytes(data)


def test_groups_that_rules_declare_begin_where_their_store_begins() -> None:
    kit = LogKit()
    kit.publish(b"jobs.x", b"old")
    kit.stop()
    table = {"main": {"groups": ["all"]}, "store": [{"match": "jobs.>", "name": "jobs", "groups": ["g", "h"]}]}
    settings = settings_from(table)
    again = LogKit(settings, kit.disk)
    assert again.opened.report == []
    assert {name: (state.patterns, state.next, state.tries) for name, state in again.log.groups.items()} == {
        b"all": ((b">",), 1, 0),
        b"g": ((b"jobs.>",), 1, 0),
        b"h": ((b"jobs.>",), 1, 0),
    }
    assert set(again.log.declared) == {b"all", b"g", b"h"}
    durable = LogKit(settings, again.disk.crash(0, "lost"))
    assert durable.log.groups == again.log.groups
    changed = settings_from({"store": [{"match": "other.>", "name": "jobs", "groups": ["g"]}]})
    later = LogKit(changed, again.disk.copy())
    assert later.log.groups == again.log.groups
    assert [line for line in later.opened.report if "declared" in line] != []


def test_info_counts_groups() -> None:
    kit = kit_with()
    log = dict(kit.log.info()["log"])
    assert (log["groups"], log["groups_bytes"]) == (1, len(kit.disk.contents()[PATH]))


# A smaller file.


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots become due early."""
    monkeypatch.setattr(group_log, "COMPACT_BYTES", 2000)


def work_through(kit: LogKit, first: int, last: int, told: Told) -> None:
    """Give out and settle one by one."""
    for number in range(first, last + 1):
        kit.log.note([out(number, number)], told.note())
        kit.log.settle([done(number, number)], told.sink())
        kit.runtime.run()


@pytest.mark.usefixtures("small")
def test_the_file_stays_small_and_nothing_is_lost() -> None:
    kit, told = kit_with(), Told()
    sizes = []
    for number in range(1, 200):
        work_through(kit, number, number, told)
        sizes.append(len(kit.disk.contents()[PATH]))
        assert on_disk(kit) == kit.log.groups
        assert kit.log.info()["log"][-1] == ("groups_bytes", sizes[-1])
    assert max(sizes) < 2300
    assert sum(after < before for before, after in pairwise(sizes)) >= 5
    assert told.all == ["note", "ok"] * 199
    assert kit.crash().opened.report == []


@pytest.mark.usefixtures("small")
def test_what_comes_while_a_snapshot_is_made_is_in_the_new_file() -> None:
    kit, told = kit_with(settings=NEVER), Told()
    kit.committer.hold = True
    submitted = kit.committer.submitted
    while len(kit.disk.contents()[PATH]) <= 2000:
        kit.log.note([out(len(told.all) + 1, len(told.all) + 1)], told.note())
    kit.log.note([out(1000, 1003)], told.note("beside it"))
    kit.runtime.run()
    assert PATH + ".tmp" in kit.disk.contents()
    assert kit.committer.submitted == submitted + 1
    kit.log.note([out(2000, 2000)], told.note("behind it"))
    kit.log.settle([done(1000, 1001)], told.sink("behind it too"))
    assert told.all[-1] == "beside it"
    kit.committer.release()
    kit.runtime.run()
    assert told.all[-2:] == ["behind it", "behind it too"]
    assert spans(kit)[1:] == [(1002, 1003, 1), (2000, 2000, 1)]
    assert on_disk(kit) == kit.log.groups
    assert len(kit.disk.contents()[PATH]) < 1000
    assert PATH + ".tmp" not in kit.disk.contents()


@pytest.mark.usefixtures("small")
def test_no_snapshot_is_begun_while_something_is_written_and_not_decided() -> None:
    kit, told = kit_with(out(1, 5)), Told()
    kit.committer.hold = True
    kit.log.settle([done(1, 2)], told.sink())
    kit.runtime.run()
    number = 6
    while len(kit.disk.contents()[PATH]) <= 2000:
        kit.log.note([out(number, number)], told.note())
        number += 1
    kit.log.note([out(number, number)], told.note())
    kit.runtime.run()
    kit.committer.hold = False
    kit.committer.release()
    kit.runtime.run()
    assert told.all[-1] == "ok"
    assert len(kit.disk.contents()[PATH]) < 1000
    assert on_disk(kit) == kit.log.groups
    assert spans(kit) == [(3, number, 1)]


@pytest.mark.usefixtures("small")
def test_no_snapshot_is_begun_by_who_is_answered_before_the_others_are() -> None:
    """It would lack what they settled, which stands in the file that it replaces."""
    kit, told = kit_with(out(1, 5)), Told()

    def answered(error: BusError | None) -> None:
        assert error is None
        number = 6
        while len(kit.disk.contents()[PATH]) <= 2000:
            kit.log.note([out(number, number)], told.note())
            number += 1
        kit.log.note([out(number, number)], told.note())

    kit.log.settle([done(1, 2)], answered)
    kit.log.settle([done(4, 4)], told.sink())
    kit.runtime.run()
    # What replaces the file comes with the commit after.
    kit.log.settle([done(5, 5)], told.sink())
    kit.runtime.run()
    assert told.all[-1] == "ok"
    assert len(kit.disk.contents()[PATH]) < 1000
    assert on_disk(kit) == kit.log.groups
    assert spans(kit)[0] == (3, 3, 1)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("call", ["create", "append", "sync", "rename", "sync_dir"])
@pytest.mark.parametrize("failure", [FULL, DiskFailed("f:0: Input/output error")])
def test_a_snapshot_that_fails_costs_nothing_but_later_space(call: str, failure: Exception) -> None:
    kit, told = kit_with(settings=NEVER), Told()
    step = kit.disk.step

    def failing(kind: str, path: str) -> None:
        step(kind, path)
        if kind == call and (path.endswith(".tmp") or kind in ("rename", "sync_dir")):
            raise failure

    kit.disk.step = failing  # type: ignore[method-assign]
    work_through(kit, 1, 100, told)
    latched = call == "sync_dir"
    # Behind a rename that may not be durable nothing can be kept any more.
    assert ("DISK" in told.all) == latched
    assert (str(dict(kit.log.info()["server"])["health"]) != "ok") == latched
    assert on_disk(kit) == kit.log.groups
    kit.disk.step = step  # type: ignore[method-assign]
    work_through(kit, 101, 200, told)
    assert on_disk(kit) == kit.log.groups
    if not latched:
        assert told.all == ["note", "ok"] * 200
        assert len(kit.disk.contents()[PATH]) < 2300
        assert PATH + ".tmp" not in kit.disk.contents()


@pytest.mark.usefixtures("small")
def test_a_snapshot_that_comes_when_the_log_stops_is_not_taken() -> None:
    kit, told = kit_with(settings=NEVER), Told()
    while f"create {PATH}.tmp" not in kit.disk.calls:
        kit.log.note([out(len(told.all) + 1, len(told.all) + 1)], told.note())
        due = len(kit.disk.contents()[PATH]) > 2000
        if due:
            kit.log.refuse()
        kit.runtime.run()
    assert kit.log.idle
    assert PATH + ".tmp" not in kit.disk.contents()
    kit.log.close()
    assert on_disk(kit) == kit.log.groups


@pytest.mark.usefixtures("small")
def test_a_large_file_is_made_smaller_at_the_start() -> None:
    kit = kit_with()
    kit.disk.set_contents(PATH, kit.disk.contents()[PATH] + b"".join(frame_lines([out(n, n)]) for n in range(1, 90)))
    again = kit.crash()
    assert len(again.disk.contents()[PATH]) < 200
    assert list(again.log.groups[b"g"].unsettled) == [(1, 89, 1)]
    full = kit.disk.copy()
    full.failure, full.fail_at = FULL, 5
    while True:
        # Whichever call fails, either it does not start, or nothing is lost.
        try:
            found = LogKit(kit.settings, full)
        except DiskFull:
            full = full.copy()
            full.failure, full.fail_at = FULL, len(full.calls) + 7
            continue
        assert list(found.log.groups[b"g"].unsettled) == [(1, 89, 1)]
        break


def test_a_state_that_is_copied_stays() -> None:
    state = GroupState((b">",), 0, 9, 1)
    state.unsettled.put(1, 5, 1)
    copy = state.copy()
    state.unsettled.drop(2, 3)
    assert list(copy.unsettled) == [(1, 5, 1)]
    assert copy.unsettled.count == 5
