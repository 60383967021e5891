"""Ends of stream, RESETs and losses, as the members of a group hear of them."""

from __future__ import annotations

import pytest

from busd.broker.seat import Seat
from busd.rules.record import Hole
from busd.words.settings import Limits
from tests.support.groups import S, heard, member, publish, say
from tests.support.memory_server import MemoryConnection, MemoryServer


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


@pytest.mark.parametrize(("of_others", "said"), [(False, ["GAP jobs 1 1 1 trimmed", "+OK"]), (True, ["+OK"])])
def test_what_was_out_and_went_as_settled_is_named_unless_a_reset_removed_it(
    server: MemoryServer, of_others: bool, said: list[str]
) -> None:
    """A SEEK may come to what is being given back to the disk just then."""
    publish(server, "a")
    publish(server, "b")
    worker = member(server, "WINDOW 2")
    server.log.trim(2, "settled")
    if of_others:
        server.log.records[0] = Hole(1, 1, 0, 0, "settled", {b"other": 1})
    assert say(worker, "NACK 1 DELAY 0s") == said
    assert server.log.groups[b"g"].settled == 2


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


def stalled(outbox_bytes: int = 4096, pattern: str = ">") -> tuple[MemoryServer, MemoryConnection]:
    """A member that does not read, and has half of its outbox full."""
    server = MemoryServer(Limits(outbox_bytes=outbox_bytes))
    worker = member(server, "WINDOW 1000", pattern)
    worker.stuck = True
    publish(server, *["x" * 400 for _ in range(outbox_bytes // 2 // 400 + 1)])
    assert outbox_bytes // 2 < worker.buffered() <= outbox_bytes
    return server, worker


def read_on(server: MemoryServer, worker: MemoryConnection) -> list[str]:
    """It reads again, a little at a time; what came that is no message."""
    while worker.buffered():
        worker.take(700)
    worker.stuck = False
    server.runtime.run()
    return [line for line in heard(worker) if not line.startswith("MSG ")]


def test_a_member_that_does_not_read_is_owed_ends_of_stream_and_costs_its_outbox() -> None:
    server, worker = stalled()
    other = server.connect()
    say(worker, "ACK ..6")
    before = worker.buffered()
    topics = [f"t.{number}" for number in range(150)]
    for _ in range(3):
        say(other, *(f"EOF {topic}" for topic in topics))
    assert worker.buffered() == before
    say(other, "PUB t.7 more")
    last = {f"EOF t.{number} {300 + 7 + number}" for number in range(150) if number != 7}
    assert sorted(read_on(server, worker)) == sorted([":6", *last])
    # Who keeps up is told each, and none is told twice.
    assert say(other, "EOF t.7") == [":458"]
    assert say(worker, "ACK 457") == [":1", "EOF t.7 458"]


def test_a_member_that_reads_slowly_has_never_more_than_its_outbox_of_ends() -> None:
    server = MemoryServer(Limits(outbox_bytes=4096))
    say(server.connect(), *(f"EOF t.{number}" for number in range(400)))
    worker = server.connect()
    worker.stuck = True
    say(worker, "SUB > GROUP g FROM next")
    most = 0
    while worker.buffered():
        most = max(most, worker.buffered())
        worker.take(100)
    assert 2048 < most <= 4096
    assert heard(worker)[1:] == [f"EOF t.{number} {number + 1}" for number in range(400)]


def test_resets_and_losses_that_a_member_does_not_read_are_bounded_and_none_is_silent() -> None:
    server, worker = stalled()
    other = server.connect()
    before = worker.buffered()
    for number in range(7, 207):
        say(other, f"PUB t {number}", "RESET t")
    assert worker.buffered() == before
    said = read_on(server, worker)
    *kept, gap = [line for line in said if line.startswith(("RESET ", "GAP "))]
    # A quarter of the outbox is kept word for word; the others lie in a gap of no message.
    assert kept == [f"RESET t {8 + 2 * number} 1" for number in range(len(kept))]
    assert 1000 < sum(len(line) + 1 for line in kept) <= 1024
    assert gap == f"GAP > {8 + 2 * len(kept)} 406 0 slow"
    say(other, "PUB t next", "RESET t")
    assert [line for line in heard(worker) if line.startswith("RESET ")] == ["RESET t 408 1"]


def test_losses_that_a_member_does_not_read_are_summed_by_reason() -> None:
    server, worker = stalled(pattern="jobs")
    (one,) = server.broker.opened
    assert isinstance(one, Seat)
    for number in range(10, 400, 2):
        one.lost(b"jobs", number, number, 1, "trimmed")
    one.lost(b"jobs", 500, 501, None, "corrupt")
    one.lost(b"jobs", 400, 402, 3, "trimmed")
    said = read_on(server, worker)
    gaps = [line.split()[2:] for line in said]
    assert gaps[-1] == ["500", "501", "?", "corrupt"]
    assert gaps[-2][1:2] == ["402"]
    trimmed = [(int(first), int(count)) for first, _, count, reason in gaps if reason == "trimmed"]
    assert sum(count for _, count in trimmed) == 195 + 3
    assert [first for first, _ in trimmed] == list(range(10, 10 + 2 * len(trimmed), 2))
    assert 990 < sum(len(line) + 1 for line in said[:-2]) <= 1024


@pytest.mark.parametrize("command", ["UNSUB", "UNSUB DRAIN"])
def test_what_a_member_is_owed_is_told_when_it_leaves(command: str) -> None:
    server, worker = stalled()
    say(server.connect(), "PUB t 7", "RESET t")
    said = ["+OK"] if command == "UNSUB" else [":6", "+OK", "END drained next=9"]
    if command != "UNSUB":
        say(worker, "ACK ..6")
    say(worker, command)
    found = read_on(server, worker)
    assert "RESET t 8 1" in found
    assert found[-1] == said[-1]
