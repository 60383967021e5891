"""Ends of stream, RESETs and losses, as the members of a group hear of them."""

from __future__ import annotations

import pytest

from busd.rules.record import Hole
from tests.support.groups import S, heard, member, publish, say
from tests.support.memory_server import MemoryServer


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


def test_end_of_stream_reaches_every_member_when_all_before_it_is_settled(server: MemoryServer) -> None:
    publish(server, "a", "b")
    one, two = member(server), member(server)
    say(server.connect(), "EOF jobs")
    assert say(one, "ACK 1") == [":1"]
    assert heard(two) == []
    assert say(two, "ACK 2") == [":1", "EOF jobs 3"]
    assert heard(one) == ["EOF jobs 3"]
    late = member(server)
    assert late.first == ["EOF jobs 3"]
    publish(server, "c")
    assert heard(one) + heard(two) + heard(late) == ["MSG jobs 4 c"]
    assert member(server).first == []


def test_reset_removes_what_waits_and_is_told(server: MemoryServer) -> None:
    publish(server, "a", "b", "c")
    worker = member(server)
    other = server.connect()
    assert say(other, "RESET jobs") == [":3"]
    publish(server, "d")
    assert say(worker, "ACK 1") == [":1", "RESET jobs 4 3", "MSG jobs 5 d"]
    assert say(worker, "NACK 5 DELAY 0s") == ["MSG jobs 5.2 d", "+OK"]
    say(other, "RESET jobs")
    assert say(worker, "NACK 5.2 DELAY 0s") == ["RESET jobs 6 1", "+OK"]
    assert server.log.groups[b"g"].unsettled.count == 0


def test_loss_before_the_group_got_it_is_named(server: MemoryServer) -> None:
    publish(server, "a")
    publish(server, "b")
    publish(server, "c")
    server.log.trim(3)
    worker = server.connect()
    assert say(worker, "SUB jobs GROUP g FROM 1") == ["+OK next=1 epoch=1", "GAP jobs 1 2 2 trimmed", "MSG jobs 3 c"]


def test_loss_of_what_was_out_is_named_and_settled(server: MemoryServer) -> None:
    publish(server, "a")
    publish(server, "b")
    worker = member(server, "WINDOW 2")
    server.log.trim(2)
    assert say(worker, "NACK 1 DELAY 0s", "ACK 2") == ["GAP jobs 1 1 1 trimmed", "+OK", ":1"]
    assert server.log.groups[b"g"].settled == 3


def test_end_of_stream_that_a_seek_passes_is_told(server: MemoryServer) -> None:
    publish(server, "a", "b")
    worker = member(server)
    other = server.connect()
    say(other, "EOF jobs")
    assert heard(worker) == []
    say(other, "SEEK g next")
    assert heard(worker) == ["EOF jobs 3"]


def test_end_of_stream_is_told_when_what_was_before_it_is_kept_as_settled(server: MemoryServer) -> None:
    publish(server, "a")
    worker = member(server)
    say(server.connect(), "EOF jobs")
    server.log.hold = True
    assert say(worker, "ACK 1") == []
    server.log.commit()
    assert heard(worker) == [":1", "EOF jobs 2"]


def test_what_a_reset_removed_is_settled_when_its_turn_would_come(server: MemoryServer) -> None:
    other = server.connect()
    say(other, "HPUB jobs delay=10s :later", "HPUB jobs key=k :1", "HPUB jobs key=k :2")
    worker = member(server, "WINDOW 9")
    assert worker.first == ["MSG jobs 2 1"]
    say(other, "RESET jobs", "EOF jobs")
    assert " lag=3 " in say(other, "GROUPS")[1]
    assert say(worker, "ACK 2") == ["RESET jobs 4 3", ":1"]
    assert " lag=1 " in say(other, "GROUPS")[1]
    server.advance(10 * S)
    assert heard(worker) == ["EOF jobs 5"]
    assert " lag=0 " in say(other, "GROUPS")[1]


def spanned() -> MemoryServer:
    """Two stores in one sequence, of one of which all is gone: a hole 1 … 9 over jobs 2, 4, 6, 8."""
    server = MemoryServer(piece_batches=100)
    for number in range(1, 10):
        publish(server, str(number), topic="jobs" if number % 2 == 0 else "metrics")
    left = [batch for batch in server.log.records if batch.first % 2 == 0]
    server.log.records = [Hole(1, 9, 0, 0, "trimmed", {b"metrics": 5}), *left]
    return server


def test_a_hole_of_one_store_takes_no_message_of_another() -> None:
    server = spanned()
    worker = server.connect()
    assert say(worker, "SUB jobs,metrics GROUP g FROM 1") == [
        "+OK next=1 epoch=1",
        "GAP jobs,metrics 1 9 5 trimmed",
        "MSG jobs 2 2",
    ]
    assert server.log.groups[b"g"].next == 3
    assert say(worker, "ACK 2", "UNSUB") == [":1", "MSG jobs 4 4", "+OK"]
    # The hole was told; what it reaches over is still to come.
    again = member(server, pattern="jobs,metrics")
    assert again.first == ["MSG jobs 4.2 4"]
    assert say(again, "ACK 4.2", "ACK 6", "ACK 8") == [":1", "MSG jobs 6 6", ":1", "MSG jobs 8 8", ":1"]
    group = server.log.groups[b"g"]
    assert (group.settled, group.next, group.unsettled.count) == (10, 10, 0)


def test_a_hole_over_what_is_not_settled_may_be_told_again_after_a_restart() -> None:
    server = spanned()
    worker = member(server, "FROM 1", "jobs,metrics")
    say(worker, "ACK 2", "ACK 4")
    later = MemoryServer(log=server.log)
    assert member(later, "WINDOW 9", "jobs,metrics").first == [
        "MSG jobs 6.2 6",
        "GAP jobs,metrics 7 9 ? trimmed",
        "MSG jobs 8 8",
    ]


def test_holes_of_two_stores_are_each_named() -> None:
    server = spanned()
    server.log.records[1] = Hole(1, 3, 0, 0, "trimmed", {b"jobs": 1})
    worker = member(server, "WINDOW 9 FROM 1", "jobs,metrics")
    assert worker.first == [
        "GAP jobs,metrics 1 9 5 trimmed",
        "GAP jobs,metrics 1 3 1 trimmed",
        "MSG jobs 4 4",
        "MSG jobs 6 6",
        "MSG jobs 8 8",
    ]


def test_a_seek_back_tells_a_hole_again() -> None:
    server = spanned()
    worker = member(server, "FROM 1", "jobs,metrics")
    say(server.connect(), "SEEK g 1")
    assert heard(worker) == ["GAP jobs,metrics 1 9 5 trimmed", "MSG jobs 2 2"]


def test_what_was_out_is_named_once_though_holes_of_two_stores_reach_over_it() -> None:
    server = spanned()
    worker = member(server, "WINDOW 9 FROM 1", "jobs,metrics")
    server.log.records = [
        Hole(1, 9, 0, 0, "trimmed", {b"metrics": 5}),
        Hole(2, 4, 0, 0, "trimmed", {b"jobs": 2}),
        *server.log.records[3:],
    ]
    assert say(worker, "NACK 4 DELAY 0s", "NACK 6 DELAY 0s") == [
        "GAP jobs,metrics 4 4 1 trimmed",
        "+OK",
        "MSG jobs 6.2 6",
        "+OK",
    ]
