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
