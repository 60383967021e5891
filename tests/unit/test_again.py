"""What came back, read again: gone meanwhile, moved meanwhile, nobody there to take it."""

from __future__ import annotations

import pytest

from tests.support.groups import heard, member, publish, say
from tests.support.memory_server import MemoryServer


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.mark.parametrize("leaves", [False, True])
def test_when_nothing_is_left_of_what_came_back_new_messages_go_out(server: MemoryServer, leaves: bool) -> None:
    publish(server, "a")
    one = member(server)
    other = member(server) if leaves else one
    say(server.connect(), "RESET jobs")
    if leaves:
        say(other, "UNSUB")
        publish(server, "b")
        one.drop()
        assert member(server).first == ["MSG jobs 3 b"]
    else:
        publish(server, "b")
        assert say(one, "NACK 1 DELAY 0s") == ["RESET jobs 2 1", "MSG jobs 3 b", "+OK"]
    assert server.log.groups[b"g"].settled == 3


def answer(server: MemoryServer) -> None:
    """What was to be read is read, and all that follows."""
    reads, server.log.slow_reads = server.log.slow_reads or [], None
    for read in reads:
        read()
    server.runtime.run()


@pytest.mark.parametrize("what", ["SEEK g next", "RESET jobs", "nothing"])
def test_a_read_that_comes_late_counts_for_what_is_still_to_come(server: MemoryServer, what: str) -> None:
    publish(server, "a", "b")
    worker = member(server, "WINDOW 2")
    server.log.slow_reads = []
    assert say(worker, "NACK 1 DELAY 0s") == ["+OK"]
    if what != "nothing":
        said = say(server.connect(), what)
        assert said[0] in ("+OK next=3", ":2")
    publish(server, "c")
    answer(server)
    expected = {"SEEK g next": ["MSG jobs 3 c"], "RESET jobs": ["RESET jobs 3 2", "MSG jobs 4 c"]}
    assert heard(worker) == expected.get(what, ["MSG jobs 1.2 a"])


def test_what_is_being_read_when_the_last_member_leaves_is_for_the_next_one(server: MemoryServer) -> None:
    publish(server, "a", "b")
    worker = member(server, "WINDOW 2")
    server.log.slow_reads = []
    say(worker, "NACK 1 DELAY 0s")
    worker.drop()
    answer(server)
    assert server.log.groups[b"g"].unsettled.count == 2
    assert member(server, "WINDOW 2").first == ["MSG jobs 1.2 a", "MSG jobs 2.2 b"]


def test_a_reset_takes_what_is_held_for_a_member_without_room(server: MemoryServer) -> None:
    publish(server, "a", "b", "c")
    one, two = member(server, "WINDOW 3"), member(server)
    one.drop()
    server.runtime.run()
    assert heard(two) == ["MSG jobs 1.2 a"]
    assert say(server.connect(), "RESET jobs") == [":3"]
    assert server.log.groups[b"g"].unsettled.count == 1
    publish(server, "d")
    assert say(two, "ACK 1.2") == ["RESET jobs 4 3", ":1", "MSG jobs 5 d"]
