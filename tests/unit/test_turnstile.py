"""Costly questions: one a turn, in order, and nobody's fault stops those behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from busd.broker.turnstile import TURN, Turnstile
from busd.rules.replies import Row
from busd.words.settings import Limits
from busd.world.stores import PIECE
from tests.support.memory_server import FakeRuntime, MemoryServer


def test_one_a_turn_in_order() -> None:
    runtime = FakeRuntime()
    turnstile = Turnstile(runtime)
    said: list[int] = []
    for number in range(3):
        turnstile.ask(lambda number=number: said.append(number))  # type: ignore[misc]
    assert said == []
    for expected in ([0], [0, 1], [0, 1, 2]):
        runtime.turn()
        assert said == expected
    assert not runtime.turn()


def test_a_question_that_is_asked_by_an_answer_waits() -> None:
    runtime = FakeRuntime()
    turnstile = Turnstile(runtime)
    said: list[str] = []
    turnstile.ask(lambda: turnstile.ask(lambda: said.append("second")))
    runtime.turn()
    assert said == []
    runtime.turn()
    assert said == ["second"]


def test_what_has_many_pieces_lets_others_pass() -> None:
    runtime = FakeRuntime()
    turnstile = Turnstile(runtime)
    said: list[str] = []

    def long(name: str) -> Iterator[None]:
        for number in range(3):
            said.append(f"{name}{number}")
            yield
        said.append(name)

    turnstile.ask(lambda: long("a"))
    turnstile.ask(lambda: said.append("short"))
    turnstile.ask(lambda: long("b"))
    known = 0
    while runtime.turn():
        assert len(said) == known + 1, "one piece a turn"
        known += 1
    assert said == ["a0", "short", "b0", "a1", "b1", "a2", "b2", "a", "b"]


def test_a_fault_in_a_later_piece_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    server = MemoryServer(Limits())
    faults: list[Exception] = []
    monkeypatch.setattr(server.runtime, "fault", faults.append)

    def broken(patterns: tuple[bytes, ...]) -> Iterator[list[Row]]:
        yield []
        raise ZeroDivisionError

    one, other = server.connect(), server.connect()
    with monkeypatch.context() as patch:
        patch.setattr(server.broker, "topics", broken)
        one.send(b"TOPICS\nPING\n")
    assert one.received() == b"-INTERNAL a fault of busd; its log says more\n"
    assert one.closed
    assert [type(fault) for fault in faults] == [ZeroDivisionError]
    other.send(b"TOPICS\n")
    assert other.received() == b"*0\n"


def test_thousands_of_topics_are_told_in_pieces_and_as_one() -> None:
    server = MemoryServer(Limits())
    one, other = server.connect(), server.connect()
    names = [b"t.%d" % number for number in range(5 * PIECE)]
    one.send(b"".join([b"PUB %b x\n" % name for name in names]))
    one.received()
    one.session.received(b"TOPICS\nPING\n", 0)
    turns = 0
    while not (said := one.received()):
        # An event of its own subscription or an answer to others may come between two turns, never within the list.
        other.session.received(b"PING\n", 0)
        assert other.received() == b"PONG\n"
        assert server.runtime.turn()
        turns += 1
    server.runtime.run()
    assert turns >= 10
    lines = [b"%b messages=1 last=%d state=open" % (name, at) for at, name in enumerate(names, 1)]
    assert (said + one.received()).splitlines() == [b"*%d" % len(names), *sorted(lines), b"PONG"]


def test_who_leaves_between_two_pieces_is_let_go() -> None:
    server = MemoryServer(Limits())
    one, other = server.connect(), server.connect()
    other.send(b"".join([b"PUB t.%d x\n" % number for number in range(5 * PIECE)]))
    one.session.received(b"TOPICS\n", 0)
    server.runtime.turn()
    one.drop()
    turns = 0
    while server.runtime.turn():
        turns += 1
    assert turns < 5


def test_a_fault_stops_nobody_behind_it() -> None:
    faults: list[Exception] = []
    runtime = FakeRuntime()
    runtime.fault = faults.append  # type: ignore[method-assign, assignment]
    turnstile = Turnstile(runtime)
    said: list[str] = []
    turnstile.ask(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    turnstile.ask(lambda: said.append("next"))
    runtime.run()
    assert [type(fault) for fault in faults] == [ZeroDivisionError]
    assert said == ["next"]


def test_a_fault_in_a_question_ends_the_connection_that_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    server = MemoryServer(Limits())
    faults: list[Exception] = []
    monkeypatch.setattr(server.runtime, "fault", faults.append)
    one, other = server.connect(), server.connect()
    with monkeypatch.context() as patch:
        patch.setattr(server.log, "info", lambda: 1 / 0)
        one.send(b"INFO\nPING\n")
    assert one.received() == b"-INTERNAL a fault of busd; its log says more\n"
    assert one.closed
    assert [type(fault) for fault in faults] == [ZeroDivisionError]
    other.send(b"TOPICS\n")
    assert other.received() == b"*0\n"


def test_answers_keep_their_order_among_cheap_ones_and_messages() -> None:
    server = MemoryServer(Limits())
    one = server.connect()
    one.send(b"PING 1\nTOPICS\nPUB t x\nPING 2\nTOPICS\nPING 3\n")
    assert one.received() == b"1\n*0\n:1\n2\n*1\nt messages=1 last=1 state=open\n3\n"


def test_a_flood_of_questions_leaves_turns_to_others() -> None:
    server = MemoryServer(Limits())
    flood, other = server.connect(), server.connect()
    flood.session.received(b"INFO\n" * 1000, 0)
    other.session.received(b"PING\n", 0)
    assert other.received() == b"PONG\n"
    assert flood.received() == b""
    server.runtime.turn()
    assert flood.received().count(b"version=test") == 1


def test_who_leaves_before_the_answer_is_not_answered() -> None:
    server = MemoryServer(Limits())
    one = server.connect()
    one.session.received(b"INFO\n", 0)
    one.drop()
    server.runtime.run()
    assert one.received() == b""


def test_a_flood_of_anything_leaves_turns_to_others() -> None:
    for command in (b"PING\n", b"READ t\n", b"RESET none\n"):
        server = MemoryServer(Limits())
        flood, other = server.connect(), server.connect()
        flood.session.received(command * 4000, 0)
        before = flood.received().count(b"\n")
        assert 0 < before <= TURN
        other.session.received(b"PING\n", 0)
        assert other.received() == b"PONG\n"
        server.runtime.run()
        assert before + flood.received().count(b"\n") == 4000


def test_who_waits_for_a_turn_is_in_line_once_and_does_nothing_before_it() -> None:
    server = MemoryServer(Limits())
    flood, other = server.connect(), server.connect()
    flood.session.received(b"PING\n" * (TURN + 1), 0)
    assert flood.received() == b"PONG\n" * TURN
    for _ in range(3):
        # Whatever happens meanwhile, as when a PUB of it is answered or its outbox has room again.
        flood.session.drained()
    assert flood.received() == b""
    other.session.received(b"INFO\n", 0)
    server.runtime.turn()
    assert flood.received() == b"PONG\n"
    server.runtime.turn()
    assert other.received().count(b"version=test") == 1


def test_a_question_at_the_end_of_a_turn_is_one_place_in_line() -> None:
    server = MemoryServer(Limits())
    flood, other = server.connect(), server.connect()
    flood.session.received(b"PING\n" * (TURN - 1) + b"INFO\nPING\n", 0)
    other.session.received(b"INFO\n", 0)
    flood.received()
    server.runtime.turn()
    assert flood.received().endswith(b"PONG\n")
    server.runtime.turn()
    assert other.received().count(b"version=test") == 1
