"""Dead letters: one for each message, with its reasons, also over a restart."""

from __future__ import annotations

import pytest

from busd.broker.ports import Sink
from busd.words.errors import BusError
from busd.words.requests import Publish
from tests.support.groups import S, member, publish, say
from tests.support.memory_server import MemoryConnection, MemoryServer


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


def test_dead_letter_after_tries_with_reason_and_tags(server: MemoryServer) -> None:
    say(server.connect(), "HPUB jobs colour=red ttl=5m :a")
    worker = member(server, "TRIES 2")
    say(worker, "NACK 1 DELAY 0s first")
    assert say(worker, "NACK 1.2 DELAY 0s broken pipe") == ["+OK"]
    reader = server.connect()
    found = say(reader, "READ _dead.> FORMAT json")
    assert '"topic":"_dead.g.jobs"' in found[0]
    headers = '{"id":"g:1","group":"g","tries":"2","reason":"broken pipe","offset":"1","colour":"red"}'
    assert headers in found[0]
    assert '"payload":"a"' in found[0]
    assert say(reader, "GROUPS")[1].startswith("g patterns=jobs members=1 in_flight=0 delayed=0 settled=2 next=2 lag=0")


def test_a_dead_letter_that_is_refused_is_tried_again(server: MemoryServer) -> None:
    publish(server, "a")
    worker = member(server, "TRIES 1")
    server.log.refuse = BusError("FULL", "no room")
    say(worker, "NACK 1")
    server.runtime.advance(3 * S)
    assert server.log.groups[b"g"].unsettled.count == 1
    server.log.refuse = None
    server.runtime.advance(S)
    assert server.log.groups[b"g"].unsettled.count == 0
    assert len(say(server.connect(), "READ _dead.>")) == 2


def test_many_that_are_refused_do_not_keep_the_others_from_being_kept(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, *(str(number) for number in range(200)), topic="jobs.a")
    publish(server, "last", topic="jobs.b")
    worker = member(server, "TRIES 1 WINDOW 500", "jobs.>")
    append = server.log.append

    def picky(run: Publish, sink: Sink) -> None:
        if b"_dead.g.jobs.a" in run.topics:
            raise FULL_OF_TOPICS
        append(run, sink)

    with monkeypatch.context() as patch:
        patch.setattr(server.log, "append", picky)
        say(worker, *(f"NACK {offset} bad" for offset in range(1, 202)))
        server.advance(8 * S)
        assert say(server.connect(), "READ _dead.>")[0].split()[1:] == ["_dead.g.jobs.b", "202", "last"]
        assert "all 9 topics are there" in server.broker.house.unburied[b"g"], "others that were kept change nothing"
    server.advance(3 * S)
    assert len(say(server.connect(), "READ _dead.>")) == 201 + 1
    assert not server.log.groups[b"g"].unsettled


def test_a_dead_letter_frees_its_key(server: MemoryServer) -> None:
    say(server.connect(), "HPUB jobs key=x :1", "HPUB jobs key=x :2")
    worker = member(server, "WINDOW 10 TRIES 1")
    assert sorted(say(worker, "NACK 1")) == ["+OK", "MSG jobs 2 2"]


def test_a_message_that_died_in_a_stop_gets_one_dead_letter() -> None:
    first = MemoryServer()
    publish(first, "a", "b")
    worker = member(first, "WINDOW 2 TRIES 1")
    first.log.append(Publish(b"_dead.g.jobs", [[b"a", b"id", b"g:1"]], 1, headers=True), lambda outcome: None)
    assert len(worker.first) == 2
    second = MemoryServer(log=first.log)
    member(second)
    second.runtime.run()
    dead = say(second.connect(), "READ _dead.>")
    assert [line.split()[:3] for line in dead[:-1]] == [["MSG", "_dead.g.jobs", "3"], ["MSG", "_dead.g.jobs", "4"]]
    assert second.log.groups[b"g"].unsettled.count == 0


def test_a_settlement_that_is_refused_is_tried_again_without_a_second_letter(server: MemoryServer) -> None:
    publish(server, "a")
    worker = member(server, "TRIES 1")
    server.log.hold = True
    say(worker, "NACK 1")
    server.log.commit()
    server.log.commit(BusError("FULL", "no room"))
    server.log.hold = False
    server.runtime.advance(2 * S)
    assert server.log.groups[b"g"].unsettled.count == 0
    assert len(say(server.connect(), "READ _dead.>")) == 2
    assert " dead=1 " in say(server.connect(), "GROUPS")[1]


def test_what_a_reset_took_is_no_dead_letter(server: MemoryServer) -> None:
    publish(server, "a")
    worker = member(server, "TRIES 1")
    other = server.connect()
    say(other, "RESET jobs")
    assert say(worker, "NACK 1") == ["RESET jobs 2 1", "+OK"]
    assert " lag=0 " in say(other, "GROUPS")[1]
    assert " dead=0 " in say(other, "GROUPS")[1]
    assert say(other, "READ _dead.>") == ["END end next=3"]


def test_a_letter_that_was_removed_does_not_stand_for_a_later_death() -> None:
    first = MemoryServer()
    publish(first, "a")
    say(member(first, "TRIES 1"), "NACK 1")
    other = first.connect()
    assert say(other, "RESET _dead.>", "SEEK g 1") == [":1", "+OK next=1"]
    second = MemoryServer(log=first.log)
    assert member(second).first == []
    assert "MSG _dead.g.jobs 4 a" in say(second.connect(), "READ _dead.>")


def test_after_a_seek_it_may_die_again(server: MemoryServer) -> None:
    publish(server, "a")
    worker = member(server, "TRIES 1")
    say(worker, "NACK 1")
    other = server.connect()
    say(other, "SEEK g 1")
    say(worker, "NACK 1 once more")
    assert len(say(other, "READ _dead.>")) == 3


FULL_OF_TOPICS = BusError("LIMIT", "all 9 topics are there")


def unkept() -> tuple[MemoryServer, MemoryConnection]:
    """Two messages have died, and their letters are refused."""
    server = MemoryServer()
    publish(server, "a", "b")
    worker = member(server, "WINDOW 2 TRIES 1")
    server.log.refuse = FULL_OF_TOPICS
    say(worker, "NACK 1", "NACK 2")
    server.runtime.advance(3 * S)
    assert server.broker.unburied == {b"g": "LIMIT all 9 topics are there"}
    return server, worker


def test_that_a_dead_letter_cannot_be_kept_is_told_as_long_as_it_cannot() -> None:
    server, _ = unkept()
    server.runtime.advance(60 * S)
    assert server.broker.unburied
    server.log.refuse = None
    server.runtime.advance(S)
    assert server.broker.unburied == {}
    assert " dead=2 " in say(server.connect(), "GROUPS")[1]


def test_that_a_dead_letter_could_not_be_decided_is_told_too(server: MemoryServer) -> None:
    publish(server, "a")
    worker = member(server, "TRIES 1")
    server.log.hold = True
    say(worker, "NACK 1")
    server.log.commit(BusError("DISK", "it is gone"))
    assert server.broker.unburied == {b"g": "DISK it is gone"}


@pytest.mark.parametrize("command", ["SEEK g next", "RESET jobs", "FORGET g"])
def test_it_is_not_told_any_more_when_nothing_is_to_be_buried(command: str) -> None:
    server, worker = unkept()
    server.log.refuse = None
    if command == "FORGET g":
        say(worker, "UNSUB")
    assert say(server.connect(), command)[0][0] in "+:"
    server.log.refuse = FULL_OF_TOPICS
    server.runtime.advance(2 * S)
    assert server.broker.unburied == {}
