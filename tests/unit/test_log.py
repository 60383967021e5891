"""The log: one sequence, group commit, the horizon, and what a failing disk may and may not do to them."""

from __future__ import annotations

import pytest

from busd.broker.ports import Outcome
from busd.rules.record import Batch, Hole
from busd.words.requests import Publish
from busd.words.settings import Settings, settings_from
from busd.world.disk import DiskFailed, DiskFull
from tests.support.log_kit import LogKit

TWO_STORES = settings_from({"store": [{"match": "jobs.>", "name": "jobs"}]})
PER_TOPIC = settings_from({"store": [{"match": "own.>", "name": "own-{topic}"}]})


def test_offsets_rise_in_the_order_of_arrival_over_all_stores() -> None:
    kit = LogKit(TWO_STORES)
    kit.committer.hold = True
    for topic, payload in ((b"a", b"1"), (b"jobs.x", b"2"), (b"a", b"3"), (b"jobs.y", b"4")):
        kit.publish(topic, payload)
    kit.committer.hold = False
    kit.committer.release()
    kit.runtime.run()
    assert kit.answers == [1, 2, 3, 4]
    expected = [(1, b"a", b"1"), (2, b"jobs.x", b"2"), (3, b"a", b"3"), (4, b"jobs.y", b"4")]
    assert kit.seen == expected
    assert kit.messages() == expected
    assert kit.messages(b"a") == [expected[0], expected[2]]


def test_nothing_is_visible_and_nothing_answered_before_it_is_decided() -> None:
    kit = LogKit()
    kit.committer.hold = True
    kit.publish(b"a", b"1")
    assert (kit.answers, kit.seen, kit.log.horizon, kit.read()) == ([], [], 1, [])
    kit.committer.release()
    assert (kit.answers, kit.log.horizon) == ([1], 2)


def test_one_commit_takes_what_waits_and_one_is_in_flight() -> None:
    kit = LogKit()
    kit.committer.hold = True
    kit.publish(b"a", b"1")
    for number in range(5):
        kit.publish(b"b", b"%d" % number)
    assert kit.committer.submitted == 1
    kit.settle()
    assert kit.committer.submitted == 2
    assert kit.answers == [1, 2, 3, 4, 5, 6]


def test_a_commit_begins_before_the_steps_of_replays_that_wait() -> None:
    kit = LogKit()
    before = kit.runtime.firsts
    kit.publish(b"a", b"1")
    assert kit.runtime.firsts == before + 1


def test_kept_counts_messages_since_the_start() -> None:
    kit = LogKit(TWO_STORES)
    kit.publish(b"a", b"1", b"2")
    kit.publish(b"jobs.x", b"3")
    kit.publish(b"a", b"", kind="eof")
    kit.disk.fail_all = {"append"}
    kit.publish(b"a", b"refused")
    kit.disk.fail_all = set()
    assert kit.log.kept == 3
    kit.reset(b"a")
    assert kit.log.kept == 3
    after = kit.crash()
    assert after.log.kept == 0
    after.publish(b"a", b"4")
    assert after.log.kept == 1


def test_congested_while_more_waits_than_one_commit_takes() -> None:
    kit = LogKit()
    kit.committer.hold = True
    kit.publish(b"a", b"x")
    assert not kit.log.congested
    kit.publish(b"a", b"y" * 300_000)
    assert kit.log.congested
    kit.committer.release()
    assert not kit.log.congested


@pytest.mark.parametrize(
    ("kind", "failure", "code"),
    [("append", DiskFull("f:0: no space"), "FULL"), ("append", DiskFailed("f:0: I/O error"), "DISK")],
)
def test_a_write_that_fails_is_answered_and_leaves_everything_else_as_it_was(
    kind: str, failure: Exception, code: str
) -> None:
    kit = LogKit()
    kit.publish(b"a", b"before")
    kit.disk.failure = failure
    kit.disk.fail_all = {kind}
    kit.publish(b"a", b"lost")
    assert kit.answers == [1, code]
    assert kit.messages() == [(1, b"a", b"before")]
    kit.disk.fail_all = set()
    kit.publish(b"a", b"after")
    if code == "FULL":
        assert kit.answers == [1, "FULL", 2], "offset 2 is nowhere, the disk is believed again"
        assert kit.messages() == [(1, b"a", b"before"), (2, b"a", b"after")]
        assert kit.crash().messages() == kit.messages()


def test_a_failed_sync_latches_the_store_and_only_that() -> None:
    kit = LogKit(TWO_STORES)
    kit.publish(b"a", b"1")
    kit.publish(b"jobs.x", b"2")
    kit.disk.failure = DiskFailed("f:0: fdatasync: I/O error")
    kit.disk.fail_all = {"sync"}
    kit.publish(b"a", b"lost")
    kit.disk.fail_all = set()
    kit.publish(b"a", b"refused")
    kit.publish(b"jobs.x", b"kept")
    assert kit.answers == [1, 2, "DISK", "DISK", 4]
    assert kit.messages() == [(1, b"a", b"1"), (2, b"jobs.x", b"2"), (4, b"jobs.x", b"kept")]
    assert dict(kit.log.info()["server"])["health"] != "ok"
    after = kit.crash()
    assert after.messages() == kit.messages(), "nothing that was answered with an error comes back"


def test_answers_of_a_commit_in_which_one_store_failed() -> None:
    kit = LogKit(TWO_STORES)
    kit.publish(b"a", b"1")
    kit.publish(b"jobs.x", b"2")
    kit.committer.hold = True
    kit.publish(b"a", b"3")
    for topic in (b"a", b"jobs.x", b"a"):
        kit.publish(topic, b"next")
    kit.committer.hold = False
    number = len(kit.disk.calls)
    kit.disk.failure = DiskFull("f:0: no space")
    kit.committer.hold = True
    kit.committer.release()
    kit.disk.fail_at = number + len(kit.disk.calls) - number
    kit.committer.hold = False
    kit.committer.release()
    kit.runtime.run()
    kept = [answer for answer in kit.answers if isinstance(answer, int)]
    assert kept == sorted(kept)
    assert [offset for offset, _, _ in kit.messages()] == kept


def test_reset_removes_what_was_there_also_in_the_same_commit() -> None:
    kit = LogKit()
    kit.publish(b"t", b"1", b"2")
    kit.committer.hold = True
    kit.publish(b"other", b"x")
    kit.publish(b"t", b"3")
    outcomes = kit.reset(b"t")
    kit.settle()
    (outcome,) = outcomes
    assert outcome.removed == 3
    topic = kit.log.topic(b"t")
    assert topic is not None
    assert (topic.live, topic.floor) == (0, outcome.first)
    assert kit.log.floors == {b"t": outcome.first}
    assert kit.crash().log.floors == kit.log.floors


def test_eof_is_a_state_that_survives_and_that_a_message_ends() -> None:
    kit = LogKit()
    kit.publish(b"t", b"x")
    kit.publish(b"t", b"", kind="eof")
    for known in (kit, kit.crash()):
        topic = known.log.topic(b"t")
        assert topic is not None
        assert topic.ended
    kit.publish(b"t", b"y")
    topic = kit.log.topic(b"t")
    assert topic is not None
    assert not topic.ended


def test_a_log_for_each_topic() -> None:
    kit = LogKit(PER_TOPIC)
    for number in range(6):
        kit.publish(b"own.%d" % (number % 3), b"%d" % number)
    assert kit.disk.listdir(f"{kit.settings.data}/logs") == ["main", "own-own.0", "own-own.1", "own-own.2"]
    assert [payload for _, _, payload in kit.messages()] == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert [payload for _, _, payload in kit.crash().messages(b"own.1")] == [b"1", b"4"]


def test_after_a_changed_rule_old_messages_are_read_where_they_lie() -> None:
    kit = LogKit()
    kit.publish(b"jobs.x", b"old")
    kit.stop()
    later = LogKit(TWO_STORES, kit.disk)
    later.publish(b"jobs.x", b"new")
    assert later.messages(b"jobs.x") == [(1, b"jobs.x", b"old"), (2, b"jobs.x", b"new")]
    topic = later.log.topic(b"jobs.x")
    assert topic is not None
    assert topic.live == 2


@pytest.mark.parametrize("budget", [1, 100, 300, 1 << 16])
def test_stores_are_read_in_offset_order_in_pieces_of_any_size(budget: int) -> None:
    kit = LogKit(TWO_STORES)
    for number in range(40):
        kit.committer.hold = number % 7 != 0
        kit.publish((b"a", b"jobs.x", b"jobs.y")[number % 3], b"%d" % number, b"+")
    kit.committer.hold = False
    kit.committer.release()
    kit.runtime.run()
    offsets = [offset for offset, _, _ in kit.messages(budget=budget)]
    assert offsets == list(range(1, 81))
    later = [offset for offset, _, _ in kit.messages(start=33, budget=budget) if offset >= 33]
    assert later == list(range(33, 81))


def test_cold_data_is_read_in_a_thread() -> None:
    kit = LogKit(TWO_STORES)
    kit.publish(b"a", b"1")
    kit.publish(b"jobs.x", b"2")
    kit.disk.cold = True
    assert [offset for offset, _, _ in kit.messages()] == [1, 2]


def test_the_cap_refuses_and_reading_goes_on() -> None:
    kit = LogKit(settings_from({"limits": {"total_bytes": "2k"}}))
    kit.log.start()
    kit.runtime.run()
    while not kit.answers or isinstance(kit.answers[-1], int):
        kit.publish(b"t", b"x" * 200)
    assert kit.answers[-1] == "FULL"
    kept = [answer for answer in kit.answers if isinstance(answer, int)]
    assert [offset for offset, _, _ in kit.messages()] == kept


def test_the_cap_counts_what_a_commit_has_under_way() -> None:
    kit = LogKit(settings_from({"limits": {"total_bytes": "2k"}}))
    kit.log.start()
    kit.runtime.run()
    kit.committer.hold = True
    room_bytes = 2048 - kit.log.health.used_bytes
    for _ in range(10):
        kit.publish(b"t", b"x" * 400)
    assert kit.answers.count("FULL") == 10 - room_bytes // 400
    kit.settle()
    assert len(kit.answers) == 10


def test_too_many_topics_are_refused_and_known_ones_go_on() -> None:
    kit = LogKit(settings_from({"limits": {"topics": 2}}))
    for topic in (b"a", b"b", b"c", b"a"):
        kit.publish(topic, b"x")
    assert kit.answers == [1, 2, "LIMIT", 3]


def test_a_topic_counts_once_something_of_it_is_kept() -> None:
    kit = LogKit(settings_from({"limits": {"topics": 2, "total_bytes": "10k"}}))
    kit.log.start()
    kit.publish(b"a", b"x")
    kit.publish(b"b", b"x" * 20_000)
    kit.disk.fail_all = {"append"}
    kit.publish(b"c", b"x")
    assert kit.answers == [1, "FULL", "FULL"]
    assert dict(kit.log.info()["log"])["topics"] == 1
    kit.disk.fail_all = set()
    for topic in (b"d", b"e", b"d"):
        kit.publish(topic, b"x")
    assert kit.answers[3:] == [2, "LIMIT", 3]
    assert dict(kit.log.info()["log"])["topics"] == 2


def test_a_topic_under_way_counts_until_it_is_refused() -> None:
    kit = LogKit(settings_from({"limits": {"topics": 2}}))
    kit.committer.hold = True
    kit.publish(b"a", b"x")
    kit.publish(b"b", b"x")
    kit.publish(b"c", b"x")
    assert kit.answers == ["LIMIT"]
    kit.committer.release(1)
    kit.runtime.run()
    kit.disk.fail_all = {"append"}
    kit.settle()
    assert kit.answers == ["LIMIT", 1, "FULL"]
    kit.disk.fail_all = set()
    kit.committer.hold = False
    kit.publish(b"c", b"x")
    assert isinstance(kit.answers[-1], int)
    assert dict(kit.log.info()["log"])["topics"] == 2


def test_what_is_tried_again_for_lack_of_room_counts_until_it_is_decided() -> None:
    kit = LogKit(settings_from({"limits": {"topics": 3}}))
    kit.committer.hold = True
    kit.publish(b"a", b"0")

    def more(outcome: Outcome) -> None:
        kit.answers.append(outcome.first)
        for topic in (b"d", b"e"):
            kit.publish(topic, b"x")

    kit.log.append(Publish(b"a", [b"1"], 1), more)
    kit.publish(b"b", b"x" * 5000)
    kit.publish(b"c", b"3")
    kit.committer.release(1)
    kit.runtime.run()
    kit.disk.room_bytes = 2000
    kit.settle()
    assert [answer if isinstance(answer, str) else "kept" for answer in kit.answers] == [
        "kept", "kept", "LIMIT", "LIMIT", "FULL", "kept",
    ]  # fmt: skip
    assert dict(kit.log.info()["log"])["topics"] == 2
    kit.publish(b"d", b"x")
    kit.settle()
    assert isinstance(kit.answers[-1], int)


@pytest.mark.parametrize("together", [True, False])
def test_topics_beyond_the_limit_are_refused_one_by_one(together: bool) -> None:
    kit = LogKit(settings_from({"limits": {"topics": 5}}))
    topics = [b"t%d" % number for number in range(8)]
    for some in [topics] if together else [[topic] for topic in topics]:
        kit.publish_all(*some)
    assert kit.answers == [1, 2, 3, 4, 5, "LIMIT", "LIMIT", "LIMIT"]
    assert kit.publish_all(b"t7", b"t0", b"t6", b"t1") == ["LIMIT", 6, "LIMIT", 7]
    assert [topic for _, topic, _ in kit.messages()] == [*topics[:5], b"t0", b"t1"]


def test_a_store_that_failed_takes_no_others_of_the_same_read_with_it() -> None:
    kit = LogKit(TWO_STORES)
    kit.publish_all(b"a", b"jobs.x")
    kit.log.health.failed["jobs"] = "gone"
    assert kit.publish_all(b"a", b"jobs.x", b"jobs.y", b"a") == [3, "DISK", "DISK", 4]
    assert kit.publish_all(b"jobs.x", b"jobs.y") == ["DISK", "DISK"]
    kit.log.health.failed["main"] = "gone, too"
    assert kit.publish_all(b"a", b"jobs.x") == ["DISK", "DISK"]


def test_last_floors_and_times() -> None:
    kit = LogKit(TWO_STORES)
    for number in range(9):
        kit.runtime.time_ns += 1_000_000_000
        kit.publish((b"a", b"jobs.x", b"b")[number % 3], b"%d" % number)
    floors: list[dict[bytes, int]] = []
    kit.log.last_floors(lambda topic: topic != b"b", 2, floors.append)
    offsets: list[int] = []
    start_ns = kit.runtime.now_ns() - kit.runtime.time_ns
    for seconds in (0, 5, 9, 10):
        kit.log.offset_at(start_ns + seconds * 1_000_000_000, offsets.append)
    kit.runtime.run()
    assert floors == [{b"a": 4, b"jobs.x": 5}]
    assert offsets == [1, 5, 9, 10]


def test_a_clean_stop_and_a_kill_go_on_where_they_were() -> None:
    kit = LogKit()
    kit.publish(b"t", b"1", b"2")
    killed = kit.crash()
    kit.stop()
    clean = LogKit(kit.settings, kit.disk)
    for after in (killed, clean):
        assert after.opened.report == []
        after.publish(b"t", b"3")
        assert after.answers == [3]
        assert after.log.epoch == 1
        assert [offset for offset, _, _ in after.messages()] == [1, 2, 3]


@pytest.mark.parametrize("sync", ["interval", "never"])
def test_a_power_cut_without_sync_raises_the_epoch_and_names_the_loss(sync: str) -> None:
    kit = LogKit(settings_from({"sync": sync}))
    kit.publish(b"t", b"shown")
    assert kit.answers == [1]
    after = LogKit(kit.settings, kit.disk.crash(99, "lost"), "boot-2")
    assert after.log.epoch == 2
    after.publish(b"t", b"next")
    offset = after.answers[0]
    assert isinstance(offset, int)
    assert offset > 1, "an offset that was shown is not given again"
    holes = [record for record in after.read() if isinstance(record, Hole)]
    assert [(hole.reason, hole.counts) for hole in holes] == [("unsynced", None)]
    assert (holes[0].first, holes[0].last) == (1, offset - 1)


def test_a_power_cut_under_always_takes_nothing() -> None:
    kit = LogKit()
    kit.publish(b"t", b"1")
    kit.publish(b"t", b"2")
    for name, disk in kit.disk.crashes():
        after = LogKit(kit.settings, disk, "boot-2")
        assert after.messages() == [(1, b"t", b"1"), (2, b"t", b"2")], name
        after.publish(b"t", b"3")
        assert after.answers == [3], name
        assert after.log.epoch == 1, name


def test_interval_syncs_within_a_second_without_traffic() -> None:
    kit = LogKit(settings_from({"sync": "interval"}))
    kit.log.start()
    kit.publish(b"t", b"x")
    synced = LogKit(kit.settings, kit.disk.crash(99, "lost"), kit.boot)
    assert synced.messages() == []
    kit.runtime.advance(1_000_000_000)
    synced = LogKit(kit.settings, kit.disk.crash(99, "lost"), kit.boot)
    assert synced.messages() == [(1, b"t", b"x")]
    assert dict(kit.log.info()["log"])["synced"] == 1


def test_retention_acts_by_itself_and_the_loss_is_counted() -> None:
    rules = {"main": {"segment_bytes": "4k", "max_messages": 20}}
    kit = LogKit(settings_from(rules))
    kit.log.start()
    for number in range(120):
        kit.publish(b"ab"[number % 2 :][:1], b"%03d" % number + b"x" * 200)
        kit.runtime.advance(100_000_000)
    records = kit.read(b"a")
    assert isinstance(records[0], Hole)
    first = next(record for record in records if isinstance(record, Batch))
    assert records[0].reason == "trimmed"
    assert records[0].last == first.first - 1 or records[0].last == first.prev
    assert records[0].counts is not None
    kept = [offset for offset, _, _ in kit.messages(b"a")]
    assert records[0].counts.get(b"a", 0) == 60 - len(kept)
    assert 10 <= len(kept) < 40
    again = kit.crash().read(b"a")
    assert isinstance(again[0], Hole)
    assert again[0].counts == records[0].counts


def test_a_second_server_is_told_who_has_it() -> None:
    from busd.world.disk import Locked

    kit = LogKit()
    with pytest.raises(Locked):
        LogKit(kit.settings, kit.disk)
    kit.stop()
    LogKit(kit.settings, kit.disk)


def test_unknown_format_is_refused() -> None:
    from busd.world.meta import WrongFormat

    kit = LogKit(Settings())
    kit.disk.set_contents(f"{kit.settings.data}/meta", b"format 99\n")
    with pytest.raises(WrongFormat, match="format 99"):
        kit.crash()


def test_a_read_that_fails_is_told_and_not_swallowed() -> None:
    kit = LogKit()
    kit.publish(b"t", b"x")
    kit.disk.cold = True
    fault = RuntimeError("a fault")

    def broken(*args: object, **options: object) -> None:
        if options.get("may_block"):
            raise fault

    kit.log.stores.open["main"].read = broken  # type: ignore[method-assign]
    told: list[object] = []
    kit.log.read(kit.log.cursor(1), lambda topic: True, 1 << 16, told.append)
    kit.runtime.run()
    assert told == [fault]


def test_a_segment_is_begun_at_its_time_of_day_without_traffic() -> None:
    kit = LogKit(settings_from({"main": {"rotate_at": "08:30"}}))
    kit.log.start()
    kit.publish(b"t", b"x")
    kit.runtime.advance(29 * 60 * 1_000_000_000)
    assert kit.log.stores.open["main"].segments == 1, "08:29"
    kit.runtime.advance(2 * 60 * 1_000_000_000)
    assert kit.log.stores.open["main"].segments == 2, "08:31"
    kit.publish(b"t", b"y")
    assert kit.messages() == kit.crash().messages() == [(1, b"t", b"x"), (2, b"t", b"y")]


def test_offsets_that_may_have_been_given_out_are_not_given_again() -> None:
    kit = LogKit()
    kit.publish(b"t", b"kept")
    kit.publish(b"t", b"torn")
    disk = kit.disk.copy()
    path = f"{kit.settings.data}/logs/main/{1:020d}.log"
    disk.set_contents(path, disk.contents()[path][:-5])
    after = LogKit(kit.settings, disk)
    after.publish(b"t", b"new")
    assert after.messages()[0] == (1, b"t", b"kept")
    offset = after.answers[0]
    assert isinstance(offset, int)
    assert offset > 2
    assert any(".cut" in line for line in after.opened.report)


@pytest.mark.parametrize("kind", ["create", "append"])
def test_a_fault_that_is_no_error_of_the_disk_is_answered_and_the_commits_go_on(kind: str) -> None:
    kit = LogKit(settings_from({"main": {"segment_bytes": "64k"}, "store": [{"match": "jobs.>", "name": "jobs"}]}))
    kit.publish(b"jobs.x", b"1")
    kit.publish(b"a", b"2")
    kit.disk.failure, kit.disk.fail_all = FileNotFoundError("somebody removed logs/main"), {kind}
    kit.publish(b"a", b"x" * 70_000)
    kit.disk.fail_all = set()
    kit.publish(b"a", b"not before a restart")
    kit.publish(b"jobs.x", b"5")
    assert kit.answers == [1, 2, "DISK", "DISK", 4]
    assert kit.messages() == [(1, b"jobs.x", b"1"), (2, b"a", b"2"), (4, b"jobs.x", b"5")]


def test_a_fault_beyond_the_log_does_not_stop_the_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = LogKit()
    faults: list[Exception] = []
    monkeypatch.setattr(kit.runtime, "fault", faults.append)
    monkeypatch.setattr(kit.log, "visible", lambda batches: 1 // 0)
    kit.publish(b"a", b"1")
    kit.publish(b"a", b"2")
    assert kit.answers == [1, 2]
    assert list(map(type, faults)) == [ZeroDivisionError] * 2


def test_time_does_not_fall_over_a_restart_with_a_clock_behind() -> None:
    kit = LogKit()
    kit.runtime.time_ns = 7200 * 1_000_000_000
    kit.publish(b"t", b"x")
    after = kit.crash()
    assert after.runtime.time_ns == 0, "two hours behind"
    after.publish(b"t", b"y")
    times = [record.time_ns for record in after.read() if isinstance(record, Batch)]
    assert len(times) == 2
    assert times == sorted(times)


def test_a_store_that_cannot_be_opened_refuses_its_messages_and_wakes_who_waits() -> None:
    kit = LogKit(PER_TOPIC)
    woken: list[int] = []
    kit.log.visible = lambda batches: woken.append(len(batches))
    kit.disk.failure = DiskFull("d: no space")
    kit.disk.fail_all = {"create"}
    kit.publish(b"own.x", b"lost")
    assert (kit.answers, woken) == (["FULL"], [0])
    kit.disk.fail_all = set()
    kit.publish(b"own.x", b"kept")
    assert kit.messages() == [(1, b"own.x", b"kept")], "no offset was dealt to what was refused"


def test_at_the_cap_of_the_data_directory_a_reset_makes_room() -> None:
    kit = LogKit(settings_from({"limits": {"total_bytes": "200k"}, "main": {"segment_bytes": "32k"}}))
    kit.log.start()
    while "FULL" not in kit.answers:
        kit.publish(b"t", b"x" * 100)
    (outcome,) = kit.reset(b"t")
    assert (outcome.errors, outcome.removed) == ({}, len(kit.answers) - 1)
    for _ in range(5):
        kit.runtime.advance(1_000_000_000)
        kit.settle()
    kit.publish(b"t", b"x")
    assert isinstance(kit.answers[-1], int)
