"""One member: its window, its LIMIT and WITHIN, its formats, its way out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from busd.words.errors import BusError
from busd.words.settings import Limits
from tests.support.groups import S, heard, member, publish, say
from tests.support.memory_server import MemoryServer


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


def test_limit_ends_when_all_it_gave_is_settled(server: MemoryServer) -> None:
    publish(server, "a", "b", "c")
    worker = member(server, "LIMIT 2 WINDOW 5")
    assert worker.first == ["MSG jobs 1 a", "MSG jobs 2 b"]
    assert say(worker, "ACK 2") == [":1"]
    assert say(worker, "ACK 1") == [":1", "END limit next=3"]
    assert say(worker, "SUB jobs GROUP g")[1] == "MSG jobs 3 c"


def test_within_ends_when_nothing_is_out(server: MemoryServer) -> None:
    idle = member(server, "WITHIN 5s")
    publish(server, "a")
    assert heard(idle) == ["MSG jobs 1 a"]
    server.runtime.advance(5 * S)
    publish(server, "b")
    assert heard(idle) == []
    assert say(idle, "ACK 1") == [":1", "END time next=2"]


def test_unsub_and_half_close_give_back_at_once(server: MemoryServer) -> None:
    publish(server, "a", "b")
    one = member(server)
    two = member(server)
    assert say(one, "UNSUB", "ACK 1") == [
        "+OK",
        "-GROUP this connection is in no group; SUB … GROUP g joins one",
    ]
    two.end_of_input()
    assert two.closed
    three = member(server, "WINDOW 5")
    assert three.first == ["MSG jobs 1.2 a", "MSG jobs 2.2 b"]


def test_formats_of_further_deliveries(server: MemoryServer) -> None:
    publish(server, "a")
    worker = member(server, "FORMAT json")
    assert '"offset":1,' in worker.first[0]
    found = say(worker, "NACK 1 DELAY 0s")
    assert '"offset":1,"token":"1.2","try":2' in found[0]


def test_a_member_that_does_not_read_costs_its_outbox_and_holds_up_nobody() -> None:
    server = MemoryServer(Limits(outbox_bytes=4096))
    stuck = member(server, "WINDOW 1000")
    stuck.stuck = True
    other = member(server, "WINDOW 1000")
    publish(server, *["x" * 400 for _ in range(60)])
    assert stuck.buffered() <= 4096
    got = heard(other)
    assert len(got) + stuck.buffered() // 400 == 60
    stuck.stuck = False
    stuck.take(1 << 20)
    server.runtime.run()
    assert len(got) + len(heard(stuck)) == 60


def test_what_one_read_gave_is_written_only_when_it_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    server = MemoryServer()
    publish(server, "a", "b")
    notes: list[Callable[[], None]] = []
    monkeypatch.setattr(server.log, "note", lambda lines, done: notes.append(done))
    worker = server.connect()
    assert say(worker, "SUB jobs GROUP g WINDOW 2") == ["+OK next=1 epoch=1"]
    assert notes
    while notes:
        notes.pop(0)()
    assert heard(worker) == ["MSG jobs 1 a", "MSG jobs 2 b"]


def test_a_stop_ends_it_and_what_was_out_is_marked_at_the_next_start(server: MemoryServer) -> None:
    publish(server, "a")
    worker = member(server)
    server.broker.stop()
    assert heard(worker) == ["END closed next=2"]
    assert member(MemoryServer(log=server.log)).first == ["MSG jobs 1.2 a"]


def test_drain_gives_nothing_more_and_ends_when_all_is_settled(server: MemoryServer) -> None:
    publish(server, "a", "b", "c")
    worker = member(server, "WINDOW 2 TRIES 1")
    assert say(worker, "UNSUB DRAIN", "ACK 1", "PING") == ["+OK", ":1", "PONG"]
    publish(server, "d")
    assert heard(worker) == []
    assert say(worker, "ACK 2") == [":1", "END drained next=3"]
    assert say(worker, "UNSUB DRAIN") == ["-GROUP this connection is in no group; SUB … GROUP g joins one"]
    assert member(server, "WINDOW 5").first == ["MSG jobs 3 c", "MSG jobs 4 d"]


def test_drain_with_nothing_out_ends_at_once(server: MemoryServer) -> None:
    worker = member(server)
    assert say(worker, "UNSUB DRAIN") == ["+OK", "END drained next=1"]
    assert say(worker, "UNSUB all") == ["-ARG UNSUB takes DRAIN or nothing, not 'all'"]


@pytest.mark.parametrize(("options", "said", "reason"), [("", "UNSUB DRAIN", "drained"), ("LIMIT 1", "PING", "limit")])
def test_a_member_that_only_waits_for_what_is_out_ends_at_a_seek(
    server: MemoryServer, options: str, said: str, reason: str
) -> None:
    publish(server, "a", "b")
    worker = member(server, options)
    say(worker, said)
    assert say(server.connect(), "SEEK g 2") == ["+OK next=2"]
    assert heard(worker) == [f"END {reason} next=2"]


def test_limit_ends_also_when_the_last_ack_could_not_be_kept(server: MemoryServer) -> None:
    publish(server, "a")
    worker = member(server, "LIMIT 1")
    server.log.hold = True
    say(worker, "ACK 1")
    server.log.commit(BusError("FULL", "no room"))
    assert heard(worker) == ["-FULL no room", "END limit next=2"]
    server.log.hold = False
    assert member(server).first == ["MSG jobs 1.2 a"]
