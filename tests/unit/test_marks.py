"""Ends of stream, RESETs and losses, as the members of a group hear of them."""

from __future__ import annotations

import pytest

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
