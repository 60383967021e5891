"""Groups: who may join, what they get, moving and forgetting them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from busd.broker.desk import Desk
from busd.rules.column import MAX_TOPICS
from busd.rules.record import Batch
from busd.words.errors import BusError
from busd.words.patterns import Wanted
from busd.words.settings import Limits
from tests.support.groups import S, heard, member, publish, say
from tests.support.memory_server import MemoryServer


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


def test_seek_moves_and_makes_tokens_stale(server: MemoryServer) -> None:
    publish(server, "a", "b", "c")
    worker = member(server, "WINDOW 2")
    other = server.connect()
    assert say(other, "SEEK g 3") == ["+OK next=3"]
    assert heard(worker) == ["MSG jobs 3 c"]
    assert say(worker, "ACK 1", "ACK 3") == ["-STALE n=0 first=1", ":1"]
    assert say(other, "SEEK g first") == ["+OK next=1"]
    assert heard(worker) == ["MSG jobs 1 a", "MSG jobs 2 b"]
    assert say(other, "SEEK h 1", "SEEK g 99") == [
        "-GROUP there is no group h; GROUPS lists them",
        "-POS 99 is beyond the end; the next offset is 4",
    ]


def test_forget_waits_for_the_members_to_leave(server: MemoryServer) -> None:
    publish(server, "a")
    worker = member(server)
    other = server.connect()
    assert say(other, "FORGET g") == ["-GROUP g has 1 member; they have to leave first"]
    assert say(worker, "UNSUB") == ["+OK"]
    assert say(other, "FORGET g", "FORGET g", "GROUPS") == [
        "+OK",
        "-GROUP there is no group g; GROUPS lists them",
        "*0",
    ]
    assert member(server).first == ["MSG jobs 1 a"]


def test_patterns_and_tries_are_the_groups_own(server: MemoryServer) -> None:
    member(server, "TRIES 3", pattern="jobs.>")
    client = server.connect()
    assert say(client, "SUB jobs.a GROUP g") == ["-GROUP g reads jobs.>"]
    assert say(client, "SUB jobs.> GROUP g TRIES 4") == [
        "-GROUP g was made with TRIES 3; leave TRIES out, or FORGET it first"
    ]
    assert say(client, "SUB jobs.> GROUP g") == ["+OK next=1 epoch=1"]


def test_tries_on_dead_letters_are_refused(server: MemoryServer) -> None:
    assert say(server.connect(), "SUB _dead.> GROUP d TRIES 3")[0].startswith("-ARG ")


def test_a_new_group_starts_at_first_and_gives_one_at_a_time(server: MemoryServer) -> None:
    publish(server, "a", "b", "c")
    worker = server.connect()
    assert say(worker, "SUB jobs GROUP g") == ["+OK next=1 epoch=1", "MSG jobs 1 a"]
    assert say(worker, "ACK 1") == [":1", "MSG jobs 2 b"]
    assert say(worker, "ACK 2", "ACK 2") == [":1", "MSG jobs 3 c", "-STALE n=0 first=2"]


def test_a_second_start_marks_what_was_out_and_repeats_nothing_settled() -> None:
    first = MemoryServer()
    publish(first, *"abcd")
    worker = member(first, "WINDOW 3")
    say(worker, "ACK 2")
    second = MemoryServer(log=first.log)
    again = member(second, "WINDOW 9")
    assert again.first == ["MSG jobs 1.2 a", "MSG jobs 3.2 c", "MSG jobs 4.2 d"]


def test_a_reader_that_only_listens_disturbs_nobody(server: MemoryServer) -> None:
    eavesdropper = server.connect()
    say(eavesdropper, "SUB jobs")
    worker = member(server)
    publish(server, "a", "b")
    assert heard(eavesdropper) == ["MSG jobs 1 a", "MSG jobs 2 b"]
    assert heard(worker) == ["MSG jobs 1 a"]
    assert say(worker, "ACK 1") == [":1", "MSG jobs 2 b"]


def test_members_share_and_groups_each_get_everything(server: MemoryServer) -> None:
    one, two = member(server, "WINDOW 10"), member(server, "WINDOW 10")
    other = member(server, "WINDOW 10", group="h")
    publish(server, *"abcdef")
    first, second = heard(one), heard(two)
    assert len(first) == len(second) == 3
    assert sorted(first + second) == [f"MSG jobs {n} {c}" for n, c in enumerate("abcdef", 1)]
    assert heard(other) == [f"MSG jobs {n} {c}" for n, c in enumerate("abcdef", 1)]


def test_a_member_that_joins_while_its_group_is_forgotten_makes_a_new_one(server: MemoryServer) -> None:
    publish(server, "a", "b")
    say(member(server, "WINDOW 2"), "ACK 2", "UNSUB")
    server.log.hold = True
    other, worker = server.connect(), server.connect()
    assert say(other, "FORGET g") == []
    assert say(worker, "SUB jobs GROUP g") == []
    assert say(server.connect(), "FORGET g", "SEEK g 1")[0] == "-GROUP there is no group g; GROUPS lists them"
    server.log.commit()
    assert heard(other) == ["+OK"]
    server.log.commit()
    assert heard(worker) == ["+OK next=1 epoch=1", "MSG jobs 1 a"]
    assert say(worker, "ACK 1") == ["MSG jobs 2 b"]
    server.log.commit()
    assert heard(worker) == [":1"]
    assert server.log.groups[b"g"].settled == 2


def test_a_group_that_could_not_be_forgotten_goes_on(server: MemoryServer) -> None:
    publish(server, "a", "b")
    say(member(server, "WINDOW 2"), "ACK 1", "UNSUB")
    server.log.hold = True
    other, worker = server.connect(), server.connect()
    say(other, "FORGET g")
    say(worker, "SUB jobs GROUP g")
    server.log.commit(BusError("FULL", "no room"))
    assert heard(other) == ["-FULL no room"]
    assert heard(worker) == ["+OK next=3 epoch=1", "MSG jobs 2.2 b"]


def test_a_member_that_joins_while_its_group_is_moved_is_moved_too(server: MemoryServer) -> None:
    publish(server, "a", "b", "c")
    say(member(server, "WINDOW 3"), "ACK ..3")
    again = MemoryServer(log=server.log)
    again.log.hold = True
    other, worker = again.connect(), again.connect()
    assert say(other, "SEEK g first") == []
    assert say(worker, "SUB jobs GROUP g WINDOW 2") == ["+OK next=4 epoch=1"]
    again.log.commit()
    assert heard(other) == ["+OK next=1"]
    assert heard(worker) == ["MSG jobs 1 a", "MSG jobs 2 b"]
    state = again.log.groups[b"g"]
    assert (state.next, list(state.unsettled)) == (3, [(1, 2, 1)])


def test_of_two_moves_the_second_counts(server: MemoryServer) -> None:
    publish(server, *"abcd")
    worker = member(server)
    server.log.hold = True
    say(server.connect(), "SEEK g 4")
    say(server.connect(), "SEEK g 2")
    server.log.commit()
    assert heard(worker) == ["MSG jobs 2 b"]
    state = server.log.groups[b"g"]
    assert (state.next, list(state.unsettled)) == (3, [(2, 2, 1)])


def test_unsub_right_behind_the_sub_that_makes_the_group_leaves_it(server: MemoryServer) -> None:
    publish(server, "a")
    server.log.hold = True
    worker, draining = server.connect(), server.connect()
    say(worker, "SUB jobs GROUP g", "UNSUB")
    say(draining, "SUB jobs GROUP g", "UNSUB DRAIN")
    server.log.commit()
    assert heard(worker) == ["+OK next=1 epoch=1", "+OK"]
    assert heard(draining) == ["+OK next=1 epoch=1", "+OK", "END drained next=1"]
    assert say(server.connect(), "GROUPS")[1].startswith("g patterns=jobs members=0 in_flight=0 ")


def test_the_oldest_is_found_behind_messages_of_others(server: MemoryServer) -> None:
    for n in range(9):
        publish(server, "x", topic=f"other{n}")
    publish(server, "a")
    server.advance(5 * S)
    member(server)
    assert " lag=1 oldest_ms=5000 " in say(server.connect(), "GROUPS")[1]


@pytest.mark.parametrize("late", [False, True])
def test_a_fault_of_the_log_is_told_and_leaves_the_list_of_groups_its_rows(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    publish(server, "a")
    member(server)
    member(server, group="h")
    faults: list[Exception] = []
    monkeypatch.setattr(server.runtime, "fault", faults.append)

    def fail(*args: Any) -> None:
        if not late:
            raise OSError("the file is gone")
        server.runtime.soon(lambda: args[-1](OSError("the file is gone")))

    with monkeypatch.context() as patch:
        patch.setattr(server.log, "read", fail)
        rows = say(server.connect(), "GROUPS", "PING")
    assert [row.split()[0] for row in rows] == ["*2", "g", "h", "PONG"]
    assert [" lag=1 oldest_ms=0 " in row for row in rows[1:3]] == [True, True]
    assert len(faults) == 2
    with monkeypatch.context() as patch:
        patch.setattr(server.log, "count", lambda wanted, position, done: done(OSError("the file is gone")))
        assert " lag=? " in say(server.connect(), "GROUPS")[1]
    assert len(faults) == 4


def test_a_reset_of_many_topics_is_one_look_at_what_groups_have_read(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(MAX_TOPICS + 1):
        publish(server, "x", topic=f"t.{number}")
    worker = member(server, pattern="t.>")
    looks: list[None] = []
    removed = Desk.removed

    def look(desk: Desk) -> None:
        looks.append(None)
        removed(desk)

    monkeypatch.setattr(Desk, "removed", look)
    assert say(server.connect(), "RESET >") == [f":{MAX_TOPICS + 1}"]
    assert sum("r" in record.flags for record in server.log.records if isinstance(record, Batch)) > 1
    assert len(looks) == 1
    publish(server, "y", topic="t.7")
    said = say(worker, "ACK 1")
    assert sum(line.startswith("RESET t.") for line in said) == MAX_TOPICS + 1
    assert [line for line in said if not line.startswith("RESET ")] == [":1", f"MSG t.7 {2 * MAX_TOPICS + 3} y"]


def test_groups_that_are_being_made_count_for_the_limit() -> None:
    server = MemoryServer(Limits(groups=2))
    server.log.hold = True
    clients = [server.connect() for _ in range(5)]
    at_once = [say(client, f"SUB jobs GROUP g{number}") for number, client in enumerate(clients)]
    refused = ["-LIMIT there are 2 groups; FORGET one that is not needed"]
    assert at_once == [[]] * 2 + [refused] * 3
    # To one that is being made already others may come.
    second = server.connect()
    say(second, "SUB jobs GROUP g1")
    server.log.commit()
    assert [heard(client) for client in clients[:2]] == [["+OK next=1 epoch=1"]] * 2
    assert heard(second) == ["+OK next=1 epoch=1"]
    assert list(server.log.groups) == [b"g0", b"g1"]


def test_groups_that_look_for_their_beginning_at_once_are_no_more_than_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = MemoryServer(Limits(groups=2))
    publish(server, "a")
    looking: list[Callable[[], None]] = []

    def offset_at(time_ns: int, done: Callable[[int], None]) -> None:
        looking.append(lambda: done(1))

    monkeypatch.setattr(server.log, "offset_at", offset_at)
    clients = [server.connect() for _ in range(4)]
    for number, client in enumerate(clients):
        say(client, f"SUB jobs GROUP g{number} FROM -5m")
    server.log.hold = True
    for found in looking:
        found()
    server.log.commit()
    assert [heard(client)[0][:6] for client in clients] == ["+OK ne", "+OK ne", "-LIMIT", "-LIMIT"]
    assert len(server.log.groups) == 2


def test_a_group_that_could_not_be_made_leaves_its_place() -> None:
    server = MemoryServer(Limits(groups=1))
    server.log.hold = True
    one, two = server.connect(), server.connect()
    say(one, "SUB jobs GROUP g")
    server.log.commit(BusError("FULL", "no room"))
    assert heard(one) == ["-FULL no room"]
    say(two, "SUB jobs GROUP h")
    server.log.commit()
    assert heard(two) == ["+OK next=1 epoch=1"]


def test_lag_is_of_one_moment_however_long_the_count_takes(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, "a", "b")
    worker = server.connect()
    counts: list[Callable[[], None]] = []
    count = server.log.count

    def later(wanted: Wanted, position: int, done: Callable[[int | None], None]) -> None:
        count(wanted, position, lambda total: counts.append(lambda: done(total)))

    server.log.count = later  # type: ignore[method-assign]
    monkeypatch.setattr(server.log, "count", later)
    say(worker, "SUB jobs GROUP g", "UNSUB")
    asked = server.connect()
    say(asked, "GROUPS g")
    # What comes now is of another moment: it is given out, acknowledged and published.
    say(worker, "SUB jobs GROUP g WINDOW 3", "ACK 1.2", "PUB jobs c")
    while counts:
        counts.pop()()
        server.runtime.run()
    (row,) = heard(asked)[1:]
    assert row.startswith("g patterns=jobs members=0 in_flight=0 delayed=0 settled=1 next=2 lag=2 oldest_ms=0 ")
    say(worker, "GROUPS g")
    while counts:
        counts.pop()()
        server.runtime.run()
    assert " in_flight=2 delayed=0 settled=2 next=4 lag=2 " in heard(worker)[-1]
