"""The commands of groups and their answers, in both dialects."""

from __future__ import annotations

import pytest

from busd.words.errors import BusError
from tests.support.groups import heard, member, publish, say
from tests.support.memory_server import MemoryServer


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


def test_acknowledgements_are_pipelined_and_answered_in_order(server: MemoryServer) -> None:
    publish(server, *"abcdef")
    worker = member(server, "WINDOW 6")
    server.log.hold = True
    assert say(worker, "ACK 1", "ACK 9", "ACK 2 3 3", "PING") == []
    server.log.commit()
    server.runtime.run()
    assert heard(worker) == [":1", "-STALE n=0 first=9", "-STALE n=2 first=3", "PONG"]


def test_an_acknowledgement_that_could_not_be_kept_gives_it_out_again(server: MemoryServer) -> None:
    publish(server, "a")
    worker = member(server)
    server.log.hold = True
    say(worker, "ACK 1")
    server.log.commit(BusError("DISK", "it failed"))
    server.runtime.run()
    assert heard(worker) == ["-DISK it failed", "MSG jobs 1.2 a"]


def command(*words: str) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word.encode()) for word in words)


def test_resp_speaks_of_groups_as_inline_does(server: MemoryServer) -> None:
    publish(server, "a", "b")
    client = server.connect()
    client.send(command("HELLO", "3"))
    client.received()
    client.send(command("SUB", "jobs", "GROUP", "g", "WINDOW", "2"))
    found = client.received()
    assert found.startswith(b"+OK next=1 epoch=1\r\n>5\r\n$3\r\nMSG\r\n$4\r\njobs\r\n:1\r\n")
    client.send(command("NACK", "1", "DELAY", "0s", "not", "now"))
    assert b"\r\n$3\r\n1.2\r\n" in client.received()
    client.send(command("ACK", "1", "2"))
    assert client.received() == b"-STALE n=1 first=1\r\n"
    client.send(command("ACK", "..1.2"))
    assert client.received() == b":1\r\n"
    client.send(command("GROUPS", "g"))
    found = client.received()
    assert found.startswith(b"*1\r\n%14\r\n$4\r\nname\r\n$1\r\ng\r\n")
    assert b"$3\r\nlag\r\n:0\r\n" in found
    client.send(command("SEEK", "g", "first"))
    assert client.received().endswith(b"+OK next=1\r\n")


def test_commands_of_members_need_a_membership(server: MemoryServer) -> None:
    client = server.connect()
    say(client, "SUB jobs")
    refusal = "-GROUP this connection is in no group; SUB … GROUP g joins one"
    assert say(client, "ACK 1", "ACK ..1", "NACK 1", "TOUCH 1", "PING") == [refusal] * 4 + ["PONG"]


def test_quiet_is_quiet_about_what_went_well(server: MemoryServer) -> None:
    publish(server, "a", "b")
    worker = member(server, "WINDOW 2")
    assert say(worker, "QUIET", "ACK 1", "TOUCH 2", "ACK 1", "ACK 2") == ["-STALE n=0 first=1"]
