"""What a session says: one answer a message, errors in their places, silence under QUIET."""

from __future__ import annotations

import pytest

from busd.broker.ports import Outcome
from busd.broker.voice import Voice
from busd.rules.replies import RespReplies
from busd.words.errors import BusError
from busd.words.requests import Publish
from tests.support.memory_server import MemoryConnection, MemoryServer


@pytest.fixture
def wire() -> MemoryConnection:
    return MemoryServer().connect()


def run(count: int, first_only: bool = False) -> Publish:
    return Publish(b"t", [b"x"] * count, count, answers="first" if first_only else "each")


def test_an_answer_for_each_message_in_order(wire: MemoryConnection) -> None:
    voice = Voice(wire)
    voice.outcome(run(3), Outcome(7, 3, {}))
    voice.outcome(run(3), Outcome(10, 3, {1: BusError("FULL", "no room")}))
    voice.outcome(run(3), Outcome(13, 3, {}, offsets=[13, 2, 14]))
    assert wire.received() == b":7\n:8\n:9\n:10\n-FULL no room\n:12\n:13\n:2\n:14\n"


def test_one_answer_for_all(wire: MemoryConnection) -> None:
    voice = Voice(wire)
    voice.outcome(run(3, True), Outcome(7, 3, {}))
    voice.outcome(run(3, True), Outcome(10, 3, {2: BusError("DISK", "it failed")}))
    assert wire.received() == b":7\n-DISK it failed\n"


def test_quiet_leaves_errors_and_what_must_be_said(wire: MemoryConnection) -> None:
    voice = Voice(wire)
    voice.quiet = True
    voice.ok(b"\n")
    voice.number(b"\n", 4)
    voice.outcome(run(2), Outcome(1, 2, {1: BusError("FULL", "no room")}))
    voice.say(b"*0\n")
    assert wire.received() == b"-FULL no room\n*0\n"


def test_resp_and_nothing_after_hanging_up(wire: MemoryConnection) -> None:
    voice = Voice(wire)
    voice.replies = RespReplies()
    assert voice.version == 2
    voice.ok(b"\n", "next=4")
    voice.number(b"\n", 3)
    voice.hung_up = True
    voice.ok(b"\n")
    voice.error(BusError("ARG", "no"), b"\n")
    assert wire.received() == b"+OK next=4\r\n:3\r\n"


def writes_of(wire: MemoryConnection, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is written from now on, a piece a write."""
    written: list[bytes] = []
    monkeypatch.setattr(wire, "write", lambda data, events=1: written.append(data))
    return written


def test_answers_of_a_run_go_out_in_few_writes(wire: MemoryConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    written = writes_of(wire, monkeypatch)
    voice = Voice(wire)
    full, disk = BusError("FULL", "no room"), BusError("DISK", "it failed")
    voice.outcome(run(4), Outcome(1, 4, {1: full, 2: full, 3: disk}))
    assert written == [b":1\n-FULL no room\n-FULL no room\n-DISK it failed\n"]
    written.clear()
    voice.outcome(run(2500), Outcome(0, 2500, dict.fromkeys(range(2500), full)))
    assert b"".join(written) == b"-FULL no room\n" * 2500
    assert len(written) == 3
    written.clear()
    voice.error(disk, b"\r\n", times=2000)
    assert written == [b"-DISK it failed\r\n" * 1000] * 2
    written.clear()
    voice.quiet = True
    voice.outcome(run(3), Outcome(5, 3, {}, offsets=[9, 2, 4]))
    assert written == []


def test_a_run_that_is_refused_in_one_go_is_answered_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    server = MemoryServer()
    one = server.connect()
    server.log.refuse = BusError("FULL", "no room")
    written = writes_of(one, monkeypatch)
    one.send(b"PUB t x\n" * 300)
    assert written == [b"-FULL no room\n" * 300]


def test_what_ends_the_connection_is_said_once() -> None:
    server = MemoryServer()
    one = server.connect()
    server.log.refuse = BusError("STOPPING", "the server is going down; nothing was kept")
    one.send(b"PUB t x\n" * 3)
    assert one.received() == b"-STOPPING the server is going down; nothing was kept\n"
    assert one.closed
