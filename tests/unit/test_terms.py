"""What a subscription was asked for: READ of what a group has not settled."""

from __future__ import annotations

import pytest

from tests.support.groups import member, publish, say
from tests.support.memory_server import MemoryServer


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


def test_read_of_a_group_shows_what_it_has_not_settled_and_takes_nothing(server: MemoryServer) -> None:
    publish(server, *"abcde")
    worker = member(server, "WINDOW 4")
    say(worker, "ACK 1", "ACK 3", "UNSUB")
    reader = server.connect()
    left = ["MSG jobs 2 b", "MSG jobs 4 d", "MSG jobs 5 e", "END end next=6"]
    assert say(reader, "READ jobs GROUP g") == left
    assert say(reader, "READ jobs GROUP g FROM 3 LIMIT 1") == ["MSG jobs 4 d", "END limit next=5"]
    assert say(reader, "READ jobs GROUP nobody") == ["-GROUP there is no group nobody; GROUPS lists them"]
    assert say(reader, "READ jobs GROUP g") == left
