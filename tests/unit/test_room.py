"""Room in stores that hold publishers back: by messages, by bytes, while groups settle, over a restart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from busd.broker.ports import Outcome
from busd.rules.group_records import line_done, line_gone, line_new, line_out, line_seek
from busd.words.errors import BusError
from busd.words.requests import Item, Publish
from busd.words.settings import Settings, StoreRule
from busd.words.units import NS_PER_S
from busd.world.room import Room, _Account
from tests.support.log_kit import LogKit
from tests.support.memory_disk import MemoryDisk
from tests.support.memory_server import FakeRuntime

KIB = 1024


def jobs(**options: object) -> Settings:
    """A store `jobs` with a cap, beside main."""
    rule: dict[str, object] = {"name": "jobs", "match": (b"jobs.>",), "full": "reject", "retain": "acked", **options}
    return Settings(stores=(StoreRule(**rule),))  # type: ignore[arg-type]


def kit_of(**options: object) -> LogKit:
    """An open log with it."""
    return LogKit(jobs(**options))


def run_of(*items: Item, topic: bytes | list[bytes] = b"jobs.a", **options: object) -> Publish:
    """A run."""
    size = sum(len(item) for item in items)
    return Publish(topic, list(items), size, **options)  # type: ignore[arg-type]


def settle(kit: LogKit, *lines: bytes) -> None:
    """Group records, decided."""
    errors: list[BusError | None] = []
    kit.log.settle(list(lines), errors.append)
    kit.runtime.run()
    assert errors == [None]


def left(kit: LogKit, topic: bytes = b"jobs.a") -> int:
    """For how many small messages there is room."""
    return kit.log.admits(run_of(*[b"p"] * 1000, topic=topic), 0)


NEW = line_new(b"g", (b"jobs.>",), 0, 1, 1)


def test_without_such_a_rule_there_is_always_room() -> None:
    kit = LogKit(Settings(stores=(StoreRule(name="jobs", match=(b"jobs.>",), max_messages=1),)))
    kit.publish(b"jobs.a", b"1", b"2")
    assert not kit.log.room.on
    assert left(kit) == 1000
    assert kit.log.admits(run_of(b"1", b"2", b"3"), 1) == 2


def test_messages_count_from_when_they_are_taken() -> None:
    kit = kit_of(max_messages=5)
    assert left(kit) == 5
    kit.committer.hold = True
    kit.publish(b"jobs.a", b"1", b"2")
    assert left(kit) == 3
    kit.committer.release()
    kit.runtime.run()
    assert kit.answers == [1, 2]
    assert left(kit) == 3
    assert left(kit, b"other") == 1000


def test_what_could_not_be_kept_gives_its_room_back() -> None:
    kit = kit_of(max_messages=5)
    kit.publish(b"jobs.a", b"1")
    kit.disk.fail_all = {"append"}
    kit.publish(b"jobs.a", b"2", b"3")
    assert kit.answers == [1, "FULL", "FULL"]
    assert left(kit) == 4


def test_a_store_that_could_not_be_made_gives_its_room_back() -> None:
    kit = kit_of(max_messages=5)
    kit.disk.fail_all = {"create"}
    kit.publish(b"jobs.a", b"1", b"2")
    assert kit.answers == ["FULL", "FULL"]
    assert left(kit) == 5


def test_what_is_settled_makes_room() -> None:
    kit = kit_of(max_messages=3)
    settle(kit, NEW)
    kit.publish(b"jobs.a", b"1", b"2", b"3")
    assert left(kit) == 0
    settle(kit, line_out(b"g", 3, 1, [(1, 2)]))
    assert left(kit) == 0
    settle(kit, line_done(b"g", [(2, 2)]))
    assert left(kit) == 1
    settle(kit, line_done(b"g", [(1, 1)]))
    assert left(kit) == 2


@pytest.mark.parametrize("retain", ["acked", "limits"])
def test_a_run_that_has_no_room_is_counted_once(monkeypatch: pytest.MonkeyPatch, retain: str) -> None:
    """Counting looks at every topic; who is refused may ask thousands of times a second."""
    kit = kit_of(max_messages=3, max_bytes=64 * KIB, segment_bytes=4 * KIB, retain=retain)
    kit.publish(b"jobs.a", b"1", b"2", b"3")
    counted: list[str] = []
    recount = Room._recount

    def count(room: Room, account: _Account) -> None:
        counted.append(account.name)
        recount(room, account)

    monkeypatch.setattr(Room, "_recount", count)
    one = run_of(b"4")
    assert kit.log.admits(one, 0) == 0
    assert "3 messages" in kit.log.fullness(one, 0).error.text
    assert counted == ["jobs"]
    large = run_of(b"x" * 40 * KIB)
    kit.reset(b"jobs.a")
    kit.publish(b"jobs.a", b"x" * 30 * KIB)
    counted.clear()
    assert kit.log.admits(large, 0) == 0
    assert f"{64 * KIB} bytes" in kit.log.fullness(large, 0).error.text
    assert counted == ["jobs"], "that was the RESET's"


def test_what_no_group_covers_counts_as_kept() -> None:
    kit = kit_of(max_messages=3)
    settle(kit, line_new(b"g", (b"jobs.a",), 0, 1, 1))
    kit.publish(b"jobs.a", b"1")
    kit.publish(b"jobs.b", b"2")
    settle(kit, line_out(b"g", 2, 1, [(1, 1)]), line_done(b"g", [(1, 1)]))
    assert left(kit) == 2


def test_with_limits_what_is_kept_counts_and_a_reset_makes_room() -> None:
    kit = kit_of(max_messages=3, retain="limits")
    kit.publish(b"jobs.a", b"1", b"2")
    kit.publish(b"jobs.b", b"3")
    settle(kit, NEW, line_out(b"g", 4, 1, [(1, 3)]), line_done(b"g", [(1, 3)]))
    assert left(kit) == 0
    kit.reset(b"jobs.a")
    assert left(kit) == 2


def test_a_reset_makes_room_with_acked_too() -> None:
    kit = kit_of(max_messages=3)
    settle(kit, NEW)
    kit.publish(b"jobs.a", b"1", b"2")
    kit.publish(b"jobs.b", b"3")
    kit.reset(b"jobs.a")
    assert left(kit) == 2


def test_a_restart_counts_anew() -> None:
    kit = kit_of(max_messages=5)
    settle(kit, NEW)
    kit.publish(b"jobs.a", b"1", b"2", b"3", b"4")
    settle(kit, line_out(b"g", 4, 1, [(1, 3)]), line_done(b"g", [(1, 1), (3, 3)]))
    again = kit.crash()
    assert left(again) == 3
    again.publish(b"jobs.a", b"5")
    assert left(again) == 2


@pytest.mark.parametrize("full", ["reject", "block"])
def test_a_restart_counts_what_is_kept_where_groups_do_not_decide(full: str) -> None:
    kit = kit_of(max_messages=5, retain="limits", full=full)
    for number in range(4):
        kit.publish(b"jobs.a", b"%d" % number)
    again = kit.crash()
    # One by one: a run that seems too large is counted for anew.
    assert again.log.admits(run_of(b"5"), 0) == 1
    again.publish(b"jobs.a", b"5")
    assert again.log.admits(run_of(b"6"), 0) == 0
    assert again.crash().log.admits(run_of(b"6"), 0) == 0


def test_a_group_that_goes_back_counts_again_once_the_log_was_read() -> None:
    kit = kit_of(max_messages=4)
    settle(kit, NEW)
    kit.publish(b"jobs.a", b"1", b"2", b"3", b"4")
    settle(kit, line_out(b"g", 5, 1, [(1, 4)]), line_done(b"g", [(1, 4)]))
    assert left(kit) == 4
    called: list[int] = []
    kit.log.room.on_room = lambda: called.append(1)
    settle(kit, line_seek(b"g", 2))
    # What it knows in this moment is too little; it reads.
    left(kit)
    kit.publish(b"jobs.a", b"5")
    assert called == [1]
    assert left(kit) == 0


def settled_kit() -> LogKit:
    """Four messages, the cap, all of them settled; and a group of other messages."""
    kit = kit_of(max_messages=4)
    settle(kit, NEW)
    settle(kit, line_new(b"h", (b"other",), 0, 1, 1))
    kit.publish(b"jobs.a", b"1", b"2", b"3", b"4")
    settle(kit, line_out(b"g", 5, 1, [(1, 4)]), line_done(b"g", [(1, 4)]))
    assert left(kit) == 4
    return kit


def test_a_group_that_goes_back_while_another_goes_on_counts_again() -> None:
    kit = settled_kit()
    kit.log.note([line_out(b"h", 500, 0, [])], lambda: None)
    settle(kit, line_seek(b"g", 2))
    assert two_more(kit) == 1


def two_more(kit: LogKit) -> int:
    """How many of two messages fit, once the log was read again, if it had to be."""
    two = run_of(b"5", b"6")
    kit.log.admits(two, 0)
    kit.runtime.run()
    return kit.log.admits(two, 0)


def test_a_group_that_goes_back_and_gives_out_at_once_counts_again() -> None:
    kit = settled_kit()
    again = [line_out(b"g", 5, 1, [(2, 4)])]
    kit.log.settle([line_seek(b"g", 2)], lambda error: kit.log.note(again, lambda: None))
    kit.runtime.run()
    assert kit.log.groups[b"g"].next == 5
    assert two_more(kit) == 1


class HoldingRuntime(FakeRuntime):
    """Threads that begin when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.hold = False
        self._held: list[Callable[[], None]] = []

    def in_thread(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """See Runtime."""
        if self.hold:
            self._held.append(lambda: super(HoldingRuntime, self).in_thread(work, done))
        else:
            super().in_thread(work, done)

    def release(self) -> None:
        """Now."""
        self.hold = False
        for begin in self._held:
            begin()
        self.run()


def test_what_comes_before_the_log_is_read_again_counts_once() -> None:
    runtime = HoldingRuntime()
    kit = LogKit(jobs(max_messages=8), runtime=runtime)
    settle(kit, NEW)
    kit.publish(b"jobs.a", b"1", b"2", b"3", b"4")
    settle(kit, line_out(b"g", 5, 1, [(1, 4)]), line_done(b"g", [(1, 4)]))
    assert left(kit) == 8
    settle(kit, line_seek(b"g", 2))
    runtime.hold = True
    left(kit)
    kit.publish(b"jobs.a", b"5", b"6")
    runtime.release()
    assert left(kit) == 3


def test_a_group_that_is_forgotten_leaves_what_it_had_settled_to_the_cap() -> None:
    kit = kit_of(max_messages=4)
    settle(kit, NEW)
    kit.publish(b"jobs.a", b"1", b"2", b"3")
    settle(kit, line_out(b"g", 4, 1, [(1, 3)]), line_done(b"g", [(1, 3)]))
    assert left(kit) == 4
    settle(kit, line_gone(b"g"))
    left(kit)
    kit.runtime.run()
    assert left(kit) == 1


def test_runs_of_many_topics_fit_up_to_the_first_that_does_not() -> None:
    kit = kit_of(max_messages=2)
    topics = [b"x", b"jobs.a", b"x", b"jobs.b", b"x", b"jobs.a", b"x"]
    run = run_of(*[b"p"] * 7, topic=topics)
    assert kit.log.admits(run, 0) == 5
    assert kit.log.admits(run, 2) == 5
    assert kit.log.admits(run_of(b"p", b"p", topic=[b"x", b"y"]), 0) == 2


def test_a_log_for_each_topic_has_a_cap_for_each() -> None:
    kit = kit_of(name="jobs-{topic}", max_messages=2)
    kit.publish(b"jobs.a", b"1", b"2")
    assert (left(kit, b"jobs.a"), left(kit, b"jobs.b")) == (0, 2)
    run = run_of(*[b"p"] * 4, topic=[b"jobs.b", b"jobs.c", b"jobs.b", b"jobs.a"])
    assert kit.log.admits(run, 0) == 3


@pytest.mark.parametrize("full", ["reject", "drop"])
def test_stores_that_are_not_made_are_not_remembered(full: str) -> None:
    # Another rule has a cap.
    capped = StoreRule(name="jobs", match=(b"jobs",), full="reject", max_messages=1)
    each = StoreRule(name="each-{topic}", match=(b"each.>",), full=full, max_messages=2)  # type: ignore[arg-type]
    kit = LogKit(Settings(stores=(capped, each)))
    kit.publish(b"each.kept", b"1")
    accounts = kit.log.room._accounts
    known = set(accounts)
    kit.disk.fail_all = {"create"}
    for number in range(10):
        topic = b"each.%d" % number
        run = run_of(*[b"p"] * 3, topic=topic)
        assert kit.log.admits(run, 0) == (2 if full == "reject" else 3)
        assert left(kit, b"each.more.%d" % number) == (2 if full == "reject" else 1000)
        kit.publish(topic, b"1")
    assert kit.answers == [1, *["FULL"] * 10]
    assert set(accounts) == known <= {"main", "each-each.kept"}
    if full == "reject":
        assert kit.log.fullness(run, 2).store == "each-each.9"
        assert set(accounts) == known
        assert left(kit, b"each.kept") == 1


def test_what_is_on_its_way_to_a_store_that_is_not_made_counts_until_it_is_decided() -> None:
    kit = kit_of(name="jobs-{topic}", max_messages=5)
    kit.committer.hold = True
    kit.publish(b"jobs.a", b"1", b"2")
    kit.publish(b"jobs.a", b"3")
    kit.publish_all(b"jobs.a", b"jobs.b")
    assert (left(kit), left(kit, b"jobs.b")) == (1, 4)
    kit.disk.fail_all = {"create"}
    kit.committer.release(1)
    assert kit.answers == ["FULL", "FULL"]
    assert (left(kit), left(kit, b"jobs.b")) == (3, 4)
    kit.settle()
    assert kit.answers == ["FULL"] * 5
    assert (left(kit), left(kit, b"jobs.b")) == (5, 5)
    kit.disk.fail_all = set()
    kit.publish(b"jobs.a", b"4", b"5")
    assert left(kit) == 3
    kit.settle()
    assert left(kit) == 3
    assert kit.crash().log.admits(run_of(*[b"p"] * 5), 0) == 3


def test_bytes_count_with_what_is_on_its_way() -> None:
    # Of 22k, 6k are kept free for rewriting.
    kit = kit_of(max_bytes=22 * KIB, segment_bytes=4 * KIB)
    one = b"x" * 1000
    kit.publish(b"jobs.a", one)
    first = kit.log.admits(run_of(*[one] * 100), 0)
    assert first == 14
    kit.committer.hold = True
    kit.publish(b"jobs.a", *[one] * 5)
    assert kit.log.admits(run_of(*[one] * 100), 0) == first - 5
    kit.committer.hold = False
    kit.committer.release()
    kit.runtime.run()
    rest = kit.log.admits(run_of(*[one] * 100), 0)
    # The opening of a segment is counted when it is there.
    assert first - 6 <= rest <= first - 5
    for _ in range(20):
        if kit.log.admits(run_of(one), 0):
            kit.publish(b"jobs.a", one)
    assert 15 * KIB < kit.log.stores.open["jobs"].bytes <= 16 * KIB + 400
    assert kit.log.admits(run_of(one), 0) == 0
    assert kit.log.admits(run_of(one, one, topic=[b"x", b"jobs.b"]), 0) == 1


def test_the_names_of_many_topics_count_where_payloads_are_small() -> None:
    kit = kit_of(max_bytes=256 * KIB, segment_bytes=16 * KIB, retain="limits")
    kit.committer.hold = True
    sent = 0
    while sent < 4000:
        names = [b"jobs.%b.%d" % (b"n" * 180, number) for number in range(sent, sent + 200)]
        run = run_of(*[b"p"] * 200, topic=names)
        count = kit.log.admits(run, 0)
        if not count:
            break
        kit.publish_all(*names[:count])
        sent += count
    kit.committer.hold = False
    kit.settle()
    assert 200 < sent < 600
    assert kit.log.stores.open["jobs"].bytes <= 256 * KIB


def test_an_end_of_stream_is_no_message_but_takes_bytes() -> None:
    kit = kit_of(max_messages=1)
    kit.publish(b"jobs.a", b"1")
    assert kit.log.admits(run_of(b"", kind="eof"), 0) == 1
    kit.publish(b"jobs.a", b"", kind="eof")
    assert kit.log.fullness(run_of(b"2"), 0).error.code == "FULL"
    assert kit.log.admits(run_of(b"", topic=[b"jobs.a"], kind="reset"), 0) == 1


def test_the_refusal_names_the_store_the_cap_and_what_would_help() -> None:
    kit = kit_of(max_messages=1, full="block", full_wait_ns=5 * NS_PER_S)
    kit.publish(b"jobs.a", b"1")
    full = kit.log.fullness(run_of(b"2"), 0)
    assert (full.store, full.block, full.wait_ns, full.never) == ("jobs", True, 5 * NS_PER_S, False)
    text = "the store jobs is at its cap of 1 messages that are not settled; acknowledging makes room"
    assert full.error.text == text


def test_what_is_larger_than_the_cap_never_fits() -> None:
    kit = kit_of(max_bytes=22 * KIB, segment_bytes=4 * KIB, max_messages=3)
    assert kit.log.fullness(run_of(b"x" * 17 * KIB), 0).never
    assert not kit.log.fullness(run_of(b"x" * KIB), 0).never
    whole = run_of(*[b"p"] * 4, answers="first")
    assert kit.log.fullness(whole, 0).never
    assert not kit.log.fullness(run_of(*[b"p"] * 4), 0).never


def test_what_the_empty_store_cannot_take_never_fits() -> None:
    kit = kit_of(max_bytes=22 * KIB, segment_bytes=4 * KIB)
    settle(kit, NEW)
    kit.publish(b"jobs.a", b"x" * 12 * KIB)
    settle(kit, line_out(b"g", 2, 1, []))
    kit.log.make_room("jobs")
    kit.runtime.advance(60 * NS_PER_S)
    store = kit.log.stores.open["jobs"]
    assert store.first > store.last, "its files hold nothing"
    cap_bytes = store.rule.cap_bytes
    runs = [run_of(b"x" * size) for size in range(cap_bytes - 2 * KIB, cap_bytes)]
    refused = [run for run in runs if not kit.log.admits(run, 0)]
    assert 0 < len(refused) < len(runs)
    assert all(kit.log.fullness(run, 0).never for run in refused)


def test_the_refusal_of_what_never_fits_names_what_was_compared() -> None:
    kit = kit_of(max_bytes=22 * KIB, segment_bytes=4 * KIB, max_messages=3)
    text = "the store jobs takes 15552 bytes at once (max_bytes 22528, less what its files need); this takes 16394"
    assert kit.log.fullness(run_of(b"x" * 16 * KIB), 0).error.text == text
    whole = run_of(*[b"p"] * 4, answers="first")
    assert kit.log.fullness(whole, 0).error.text == "the store jobs takes 3 messages at most; this is 4"


def test_dead_letters_have_a_reserve_under_the_total_cap() -> None:
    kit = LogKit()
    kit.log.health.cap_bytes = kit.log.health.used_bytes + 1000
    kit.publish(b"t", b"x" * 1001)
    assert kit.answers == ["FULL"]
    kit.publish(b"_dead.g.t", b"x" * 1001)
    assert kit.answers == ["FULL", 1]
    outcomes: list[Outcome] = []
    mixed = Publish([b"_dead.g.t", b"t"], [b"x" * 100] * 2, 200)
    with pytest.raises(BusError, match="FULL"):
        kit.log.append(mixed, outcomes.append)
    assert outcomes == []


def test_nothing_is_counted_where_the_disk_is_new() -> None:
    kit = LogKit(jobs(max_messages=2), MemoryDisk())
    assert left(kit) == 2


def test_what_was_removed_without_being_settled_does_not_count() -> None:
    kit = kit_of(max_messages=3)
    settle(kit, NEW)
    kit.publish(b"jobs.a", b"1", b"2", b"3")
    assert left(kit) == 0
    # As retention leaves it when the ttl of two has run out.
    kit.log.stores.open["jobs"].topics.set_live(b"jobs.a", 1)
    assert left(kit) == 2
