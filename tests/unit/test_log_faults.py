"""Faults of busd itself in the midst of a commit: whoever it met is answered, nothing is half kept, and all go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from busd.rules.clock import ReceiveClock
from busd.rules.group_records import line_done, line_new, line_out
from busd.rules.topic_state import TopicTable
from busd.words.errors import BusError
from busd.words.requests import Publish
from busd.words.settings import Settings, settings_from
from busd.world import group_log, log, works
from busd.world.group_log import GroupLog
from busd.world.meta import MetaFile
from busd.world.room import Room
from busd.world.store import Store
from busd.world.stores import Stores
from busd.world.waiting import Waiting
from tests.support.log_kit import LogKit

NEVER = settings_from({"sync": "never"})
JOBS = {"store": [{"match": "jobs.>", "name": "jobs"}]}
TWO_STORES = settings_from(JOBS)
TWO_UNSYNCED = settings_from({"sync": "never", **JOBS})
CAPPED = settings_from({"main": {"max_messages": 5, "full": "reject"}})
SECOND_NS = 1_000_000_000


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what was reported, of every log in the test."""
    found: list[str] = []
    monkeypatch.setattr(
        "tests.support.memory_server.FakeRuntime.fault", lambda self, error: found.append(type(error).__name__)
    )
    return found


def spoil(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, passes: int = 0) -> Callable[[], None]:
    """From the call after so many on there is no memory for it; the answer lets it work again."""
    genuine = getattr(place, name)
    left = passes

    def spoiled(*args: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise MemoryError
        return genuine(*args, **options)

    monkeypatch.setattr(place, name, spoiled)
    return lambda: monkeypatch.setattr(place, name, genuine)


def clients(kit: LogKit) -> list[str]:
    """A list in which the outcome of settlements comes."""
    told: list[str] = []
    kit.log.settle([line_new(b"g", (b">",), 0, 1, 7)], lambda error: told.append(code_of(error)))
    kit.runtime.run()
    assert told.pop() == "ok"
    return told


def code_of(error: BusError | None) -> str:
    """The code of what was answered."""
    return "ok" if error is None else error.code


# While it begins.

BEGINNINGS = [(works, "frame"), (Store, "begin"), (MetaFile, "due"), (ReceiveClock, "stamp")]
# Of several runs alone.
BEGINNINGS_OF_SEVERAL = [*BEGINNINGS, (works, "seal"), (works, "work_of"), (Stores, "missing")]


@pytest.mark.parametrize("settings", [TWO_STORES, TWO_UNSYNCED])
@pytest.mark.parametrize(
    ("place", "name", "together"),
    [(*place, False) for place in BEGINNINGS] + [(*place, True) for place in BEGINNINGS_OF_SEVERAL],
)
def test_a_fault_while_a_commit_begins_is_answered_and_the_next_goes_on(
    settings: Settings, place: Any, name: str, together: bool, monkeypatch: pytest.MonkeyPatch, faults: list[str]
) -> None:
    kit = LogKit(settings)
    kit.publish(b"a", b"before")
    mend = spoil(monkeypatch, place, name)
    for payloads in ((b"lost", b"too"), (b"lost as well",)):
        if together:
            kit.log.append(Publish(b"a", list(payloads), sum(map(len, payloads))), kit._decided)
        else:
            kit.publish(b"a", *payloads)
    kit.runtime.run()
    assert kit.answers == [1, "INTERNAL", "INTERNAL", "INTERNAL"]
    assert set(faults) == {"MemoryError"}
    assert together or len(faults) > 1
    mend()
    kit.publish(b"a", b"after")
    assert kit.answers[4:] == [2], "no offset was used up"
    assert kit.log.idle
    assert kit.messages() == kit.crash().messages() == [(1, b"a", b"before"), (2, b"a", b"after")]


def test_a_fault_while_a_store_is_made_is_answered(monkeypatch: pytest.MonkeyPatch, faults: list[str]) -> None:
    kit = LogKit(TWO_STORES)
    mend = spoil(monkeypatch, kit.committer, "submit")
    kit.publish(b"jobs.x", b"lost")
    mend()
    kit.publish(b"jobs.x", b"kept")
    assert (kit.answers, faults, kit.log.idle) == (["INTERNAL", 1], ["MemoryError"], True)


def test_what_groups_have_to_say_is_written_beside_a_fault_of_the_messages(
    monkeypatch: pytest.MonkeyPatch, faults: list[str]
) -> None:
    kit = LogKit()
    told = clients(kit)
    spoil(monkeypatch, works, "frame", passes=1)
    kit.committer.hold = True
    kit.publish(b"a", b"1")
    kit.publish(b"a", b"lost")
    kit.log.note([line_out(b"g", 6, 1, [(1, 5)])], lambda: None)
    kit.log.settle([line_done(b"g", [(1, 2)])], lambda error: told.append(code_of(error)))
    kit.settle()
    assert (kit.answers, told, faults) == ([1, "INTERNAL"], ["ok"], ["MemoryError"])
    assert kit.crash().log.groups[b"g"].unsettled == kit.log.groups[b"g"].unsettled


def test_a_fault_of_group_records_is_answered_and_messages_are_kept(
    monkeypatch: pytest.MonkeyPatch, faults: list[str]
) -> None:
    kit = LogKit()
    told = clients(kit)
    kit.log.note([line_out(b"g", 6, 1, [(1, 5)])], lambda: None)
    mend = spoil(monkeypatch, GroupLog, "frame")
    kit.committer.hold = True
    kit.publish(b"a", b"1")
    # It must not pass the one that moves the group, so it waits for the commit, too.
    kit.log.settle([line_new(b"h", (b">",), 0, 1, 7)], lambda error: told.append(code_of(error)))
    kit.log.note([line_out(b"g", 10, 1, [(6, 9)])], lambda: told.append("note"))
    kit.log.settle([], lambda error: told.append(code_of(error)))
    kit.settle()
    assert (kit.answers, told, faults) == ([1], ["INTERNAL", "note", "ok"], ["MemoryError"])
    assert b"h" not in kit.log.groups
    mend()
    kit.log.note([line_out(b"g", 11, 1, [(10, 10)])], lambda: told.append("written"))
    kit.runtime.run()
    assert told[3:] == ["written"]
    found = kit.crash().log.groups[b"g"]
    assert list(found.unsettled) == list(kit.log.groups[b"g"].unsettled), "what was owed came with the next write"
    assert found.next == 11


def test_a_commit_that_cannot_be_handed_over_is_carried_out(monkeypatch: pytest.MonkeyPatch, faults: list[str]) -> None:
    kit = LogKit()
    mend = spoil(monkeypatch, kit.committer, "submit")
    kit.publish(b"a", b"1")
    mend()
    kit.publish(b"a", b"2")
    assert (kit.answers, faults, kit.log.idle) == ([1, 2], ["MemoryError"], True)


def test_what_cannot_be_taken_waits_and_is_taken_later(monkeypatch: pytest.MonkeyPatch, faults: list[str]) -> None:
    kit = LogKit()
    mend = spoil(monkeypatch, Waiting, "take")
    kit.publish(b"a", b"1")
    assert (kit.answers, faults) == ([], ["MemoryError"]), "not again and again"
    mend()
    kit.runtime.advance(SECOND_NS)
    assert (kit.answers, kit.log.idle) == ([1], True)


def test_a_segment_that_cannot_be_begun_leaves_the_commits_their_way(
    monkeypatch: pytest.MonkeyPatch, faults: list[str]
) -> None:
    kit = LogKit(settings_from({"main": {"rotate_at": "00:00"}}))
    kit.publish(b"a", b"1")
    kit.runtime.advance(48 * 3600 * SECOND_NS)
    spoil(monkeypatch, kit.committer, "submit")
    kit.log.roll()
    assert faults == ["MemoryError"]
    assert (kit.log.idle, kit.log.stores.open["main"].segments) == (True, 2)


# While it is decided.


@pytest.mark.parametrize("settings", [TWO_STORES, TWO_UNSYNCED])
@pytest.mark.parametrize("passes", [0, 1])
def test_a_store_that_is_taken_in_by_half_is_given_up_and_nothing_of_it_comes_back(
    settings: Settings, passes: int, monkeypatch: pytest.MonkeyPatch, faults: list[str]
) -> None:
    kit = LogKit(settings)
    kit.publish(b"a", b"1")
    kit.publish(b"jobs.x", b"2")
    kit.committer.hold = True
    mend = spoil(monkeypatch, TopicTable, "note", passes)
    # Two batches: what is larger than one stands in its own.
    kit.publish(b"a", b"x" * 200_000, b"y" * 200_000)
    kit.settle()
    mend()
    kit.publish(b"a", b"not before a restart")
    kit.publish(b"jobs.x", b"kept")
    kit.settle()
    assert kit.answers == [1, 2, "DISK", "DISK", "DISK", 5]
    assert faults == ["MemoryError"]
    assert "MemoryError" in str(dict(kit.log.info()["server"])["health"])
    assert kit.messages() == kit.crash().messages() == [(1, b"a", b"1"), (2, b"jobs.x", b"2"), (5, b"jobs.x", b"kept")]


def test_a_new_segment_that_is_taken_in_by_half_is_taken_back(
    monkeypatch: pytest.MonkeyPatch, faults: list[str]
) -> None:
    kit = LogKit(settings_from({"main": {"segment_bytes": "64k"}}))
    kit.publish(b"a", b"x" * 60_000)
    mend = spoil(monkeypatch, TopicTable, "note")
    kit.publish(b"a", b"y" * 60_000)
    mend()
    assert (kit.answers, faults) == ([1, "DISK"], ["MemoryError"])
    after = kit.crash()
    assert after.messages() == kit.messages() == [(1, b"a", b"x" * 60_000)]
    after.publish(b"a", b"after")
    assert isinstance(after.answers[0], int)


@pytest.mark.parametrize(
    ("place", "name", "told"),
    [(Room, "decided", 1), (GroupLog, "take", 1), (works, "error_of", "INTERNAL"), (log, "interleave", 1)],
)
def test_a_fault_while_a_commit_is_decided_is_answered_and_the_next_goes_on(
    place: Any, name: str, told: int | str, monkeypatch: pytest.MonkeyPatch, faults: list[str]
) -> None:
    kit = LogKit(CAPPED)
    settled = clients(kit)
    before = kit.log.horizon
    mend = spoil(monkeypatch, place, name)
    if name == "error_of":
        kit.disk.fail_all = {"append"}
    kit.committer.hold = True
    kit.publish(b"a", b"1")
    kit.log.settle([line_done(b"g", [(1, 1)])] if name == "take" else [], lambda error: settled.append(code_of(error)))
    kit.settle()
    mend()
    kit.disk.fail_all = set()
    assert before == 1
    assert kit.answers == [told]
    kit.publish(b"a", b"2")
    kit.settle()
    # Of what there was no room for nothing is anywhere, its offset included.
    assert (kit.answers, settled, kit.log.idle) == ([told, 2 if told == 1 else 1], ["ok"], True)
    assert "MemoryError" in faults or name == "interleave"


def test_a_reset_whose_floor_cannot_be_noted_is_answered(monkeypatch: pytest.MonkeyPatch, faults: list[str]) -> None:
    kit = LogKit()
    kit.publish(b"a", b"1")

    class Spoilt(dict[bytes, int]):
        def update(self, *_: object, **__: object) -> None:
            raise MemoryError

    monkeypatch.setattr(kit.log, "floors", Spoilt())
    (outcome,) = kit.reset(b"a")
    assert [error.code for error in outcome.errors.values()] == ["INTERNAL"]
    assert faults == ["MemoryError"]
    kit.publish(b"a", b"2")
    assert (kit.answers, kit.log.idle) == ([1, 3], True)


def test_a_snapshot_that_cannot_be_begun_costs_nothing_but_space(
    monkeypatch: pytest.MonkeyPatch, faults: list[str]
) -> None:
    monkeypatch.setattr(group_log, "COMPACT_BYTES", 100)
    monkeypatch.setattr(group_log, "COMPACT_TIMES", 1)
    kit = LogKit(NEVER)
    told = clients(kit)
    mend = spoil(monkeypatch, GroupLog, "begin_snapshot")
    for number in range(1, 20):
        kit.log.settle([line_done(b"g", [(number, number)])], lambda error: told.append(code_of(error)))
        kit.runtime.run()
    assert (told, kit.log.idle) == (["ok"] * 19, True)
    assert set(faults) == {"MemoryError"}
    mend()
    for number in range(20, 40):
        kit.log.settle([line_done(b"g", [(number, number)])], lambda error: told.append(code_of(error)))
        kit.runtime.run()
    assert kit.crash().log.groups.keys() == {b"g"}
    assert len(kit.disk.contents()["busd-data/groups.log"]) < 300, "the next one was"
