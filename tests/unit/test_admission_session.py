"""Connections whose PUBs are held: in order, one after the other, without holding up who acknowledges."""

from __future__ import annotations

from busd.words.errors import BusError
from busd.words.settings import Limits
from busd.words.units import NS_PER_S
from tests.support.memory_server import MemoryConnection, MemoryServer


def full_server(room: int = 0, limits: Limits | None = None) -> MemoryServer:
    """A server whose store of the topics `t` and `t.…` has room for so many messages."""
    server = MemoryServer(limits)
    server.log.caps["t"] = room
    return server


def more_room(server: MemoryServer, messages: int = 1) -> None:
    """And the news of it."""
    server.log.caps["t"] += messages
    server.broker.room()
    server.runtime.run()


def payloads(server: MemoryServer) -> list[bytes]:
    """What is in the log, in its order."""
    return [payload for record in server.log.records for payload in record.payloads()]  # type: ignore[union-attr]


def numbers(producer: MemoryConnection) -> list[int]:
    """Offsets that were answered since the last time."""
    return [int(line[1:]) for line in producer.received().split()]


def test_a_thousand_PUBs_in_one_write_are_answered_as_room_comes() -> None:
    server = full_server(1)
    producer = server.connect()
    producer.send(b"".join(b"PUB t %d\n" % number for number in range(1, 1001)))
    answers = numbers(producer)
    while len(answers) < 1000:
        before = len(answers)
        more_room(server)
        answers += numbers(producer)
        assert len(answers) == before + 1
    assert answers == list(range(1, 1001))
    assert payloads(server) == [b"%d" % number for number in range(1, 1001)]
    assert server.runtime.timers == 0


def test_while_a_PUB_is_held_no_further_command_is_carried_out() -> None:
    server = full_server()
    producer = server.connect()
    producer.send(b"PUB t 1\n")
    producer.send(b"PUB other 2\nPING\n")
    assert producer.received() == b""
    more_room(server)
    assert producer.received() == b":1\n:2\nPONG\n"
    assert payloads(server) == [b"1", b"2"]


def test_a_held_connection_is_not_read_without_end() -> None:
    server = full_server()
    producer = server.connect()
    producer.send(b"PUB t 1\n")
    producer.send(b"PUB t 2\n")
    assert not producer.reading
    more_room(server, 2)
    assert producer.reading
    assert numbers(producer) == [1, 2]


def test_a_PUB_that_waited_too_long_is_refused_and_the_next_are_carried_out() -> None:
    server = full_server(1)
    producer = server.connect()
    producer.send(b"PUB t 1\nPUB t 2\nPUB other 3\n")
    assert producer.received() == b":1\n"
    server.advance(30 * NS_PER_S)
    assert producer.received() == b"-FULL t is full; waited 30s for room\n:2\n"


def test_who_hangs_up_publishes_no_more() -> None:
    server = full_server()
    producer = server.connect()
    producer.send(b"PUB t 1\nPUB t 2\n")
    producer.drop()
    more_room(server, 5)
    assert payloads(server) == []
    assert server.runtime.timers == 0


def test_who_half_closes_gets_the_answers_it_is_owed() -> None:
    server = full_server()
    producer = server.connect()
    producer.send(b"PUB t 1\n")
    producer.end_of_input()
    assert not producer.closed
    assert producer.session.half_closed
    more_room(server)
    assert producer.received() == b":1\n"
    assert producer.closed


def test_a_held_connection_is_watched_for_the_end_of_its_peer() -> None:
    server = full_server()
    producer = server.connect()
    assert not producer.session.half_closed
    producer.send(b"PUB t 1\n")
    assert producer.session.half_closed
    more_room(server)
    assert not producer.session.half_closed


def test_a_member_of_a_group_is_refused_and_its_acknowledgement_is_read() -> None:
    server = full_server(1)
    worker = server.connect()
    worker.send(b"SUB t GROUP g\n")
    server.connect().send(b"PUB t 1\n")
    assert worker.received() == b"+OK next=1 epoch=1\nMSG t 1 1\n"
    worker.send(b"PUB t 2\nACK 1\n")
    assert worker.received() == b"-FULL t is full\n:1\n"


def test_a_producer_goes_on_when_a_worker_on_another_connection_acknowledges() -> None:
    server = full_server(1)
    worker, producer = server.connect(), server.connect()
    worker.send(b"SUB t GROUP g\n")
    producer.send(b"PUB t 1\nPUB t 2\n")
    assert producer.received() == b":1\n"
    worker.received()
    worker.send(b"ACK 1\n")
    # The log would say so by itself; the one here is told.
    more_room(server)
    assert producer.received() == b":2\n"
    assert worker.received() == b":1\nMSG t 2 2\n"


def test_a_held_MPUB_has_one_answer() -> None:
    server = full_server(1)
    producer = server.connect()
    producer.send(b"*4\r\n$4\r\nMPUB\r\n$1\r\nt\r\n$1\r\n1\r\n$1\r\n2\r\n*1\r\n$4\r\nPING\r\n")
    assert producer.received() == b""
    more_room(server)
    assert producer.received() == b":1\r\n+PONG\r\n"


def test_a_stop_answers_what_is_held() -> None:
    server = full_server()
    producer = server.connect()
    producer.send(b"PUB t 1\nPUB t 2\n")
    server.broker.stop()
    producer.session.stop()
    assert producer.received().startswith(b"-STOPPING ")
    assert producer.closed


def test_what_may_be_held_over_all_connections_is_bounded() -> None:
    server = full_server(limits=Limits(held_bytes=10))
    one, two = server.connect(), server.connect()
    one.send(b"PUB t 12345678\n")
    two.send(b"PUB t 12345678\n")
    assert one.received() == b""
    assert two.received().startswith(b"-FULL ")
    more_room(server, 2)
    assert one.received() == b":1\n"


def test_what_is_refused_is_not_held_any_more_when_the_next_PUB_asks() -> None:
    server = full_server(limits=Limits(held_bytes=10))
    producer = server.connect()
    producer.send(b"PUB t 12345678\n")
    producer.send(b"PUB t 87654321\n")
    server.advance(30 * NS_PER_S)
    assert producer.received() == b"-FULL t is full; waited 30s for room\n"
    more_room(server)
    assert producer.received() == b":1\n"


def test_QUIET_hears_only_of_what_was_refused() -> None:
    server = full_server(1)
    producer = server.connect()
    producer.send(b"QUIET\nPUB t 1\nPUB t 2\n")
    producer.received()
    server.advance(30 * NS_PER_S)
    assert producer.received() == b"-FULL t is full; waited 30s for room\n"


def test_INFO_counts_what_was_kept_and_what_was_refused() -> None:
    server = full_server(1)
    producer = server.connect()
    producer.send(b"PUB t 1\nPUB t 2\n")
    server.advance(30 * NS_PER_S)
    facts = dict(server.broker.info()["clients"])
    assert (facts["published"], facts["refused"]) == (1, 1)


def test_INFO_counts_what_was_kept_and_what_was_refused_for_whatever_reason() -> None:
    server = MemoryServer(hold=True)
    producer = server.connect()

    def counted(commands: bytes, error: BusError | None = None) -> tuple[int, int, int]:
        before = dict(server.broker.info()["clients"])
        producer.send(commands)
        server.log.commit(error)
        facts = dict(server.broker.info()["clients"])
        return tuple(int(facts[name]) - int(before[name]) for name in ("published", "refused", "duplicates"))  # type: ignore[return-value]

    assert counted(b"PUB t 1\nPUB t 2\n") == (2, 0, 0)
    assert counted(b"PUB t 1\nPUB t 2\nPUB u 3\n", BusError("FULL", "no room on the disk")) == (0, 3, 0)
    assert counted(b"PUB t 1\n", BusError("DISK", "it failed")) == (0, 1, 0)
    assert counted(b"HPUB t id=a :1\nHPUB t id=a :1\nHPUB t id=b :2\n") == (2, 0, 1)
    # Who sends the same is told the same.
    assert counted(b"HPUB t id=c :1\nHPUB t id=c :1\n", BusError("FULL", "no room")) == (0, 2, 1)
    assert counted(b"EOF t\n") == (0, 0, 0), "an end of stream is no message"
    assert counted(b"RESET t\n", BusError("FULL", "no room")) == (0, 0, 0)
    server.log.refuse = BusError("LIMIT", "too many topics")
    assert counted(b"PUB t 1\nPUB t 2\n") == (0, 2, 0)


def test_who_sent_a_duplicate_of_what_is_held_publishes_on_within_bounds() -> None:
    server = full_server()
    first, second = server.connect(), server.connect()
    first.send(b"HPUB t id=x :1\n")
    second.send(b"HPUB t id=x :2\n")
    for number in range(100):
        second.send(b"PUB other %d\n" % number)
    assert second.received() == b""
    assert len(payloads(server)) == 8
    assert not second.reading
    assert second.session.half_closed, "a peer that is gone must be found while it is not read"
    more_room(server)
    answers = numbers(second)
    # The duplicate has the offset of the first.
    assert answers[:9] == [9, *range(1, 9)]
    assert answers[9:] == list(range(10, 102))
    assert payloads(server)[9:] == [b"%d" % number for number in range(8, 100)]
    assert second.reading
