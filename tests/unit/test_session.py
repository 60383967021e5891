"""A connection's conversation: answers in order, bounded, never dropped, and when it is closed."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busd.broker.ports import Outcome
from busd.words.errors import BusError
from busd.words.requests import Publish
from busd.words.settings import Limits
from tests.support.memory_server import MemoryConnection, MemoryServer

FULL = BusError("FULL", "no room")
DISK = BusError("DISK", "it failed")


def command(*words: bytes | str) -> bytes:
    """A RESP command."""
    raw = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in raw)


def replies(data: bytes) -> list[Any]:
    """RESP answers; nothing may be left over."""
    reader = hiredis.Reader(notEnoughData=Ellipsis)
    reader.feed(data)
    found = []
    while (reply := reader.gets()) is not Ellipsis:
        found.append(reply)
    assert not reader.has_data()
    return found


def resp3(server: MemoryServer) -> MemoryConnection:
    """A connection that said HELLO 3."""
    connection = server.connect()
    connection.send(command("HELLO", "3"))
    connection.received()
    return connection


# The order of answers.

lines = st.sampled_from([b"PUB a x", b"PUB b y", b"EOF a", b"PING %d", b"PUB a..b x", b"NOSUCH", b"UNSUB", b"HELP PUB"])
moves = st.tuples(st.integers(0, 2), st.lists(lines, min_size=1, max_size=6))


def answer_to(line: bytes) -> list[bytes]:
    """What a line must be answered by; nothing for those that are appended, which depends on the disk."""
    if line.startswith(b"PING"):
        return [line[5:]]
    return {
        b"UNSUB": [b"+OK"],
        b"HELP PUB": [b"*1", b"PUB topic payload: append a message"],
        b"NOSUCH": [b"-UNKNOWN no command 'NOSUCH'; HELP lists them"],
        b"PUB a..b x": [b"-TOPIC 'a..b' is not a topic: tokens of A-Z a-z 0-9 _ - joined by dots, 200 bytes at most"],
    }.get(line, [])


@settings(max_examples=80, deadline=None)
@given(script=st.lists(st.one_of(moves, st.sampled_from(["commit", "lose"])), max_size=16))
def test_answers_come_in_the_order_of_the_commands(script: list[Any]) -> None:
    """Several sessions, commits held back: what is answered matches the commands one for one."""
    server = MemoryServer(hold=True)
    sessions = [server.connect() for _ in range(3)]
    sent: list[list[bytes]] = [[], [], []]
    for session in sessions:
        session.send(b"PING\n")
        session.received()
    for move in [*script, *["commit"] * 60]:
        if isinstance(move, str):
            server.log.commit(DISK if move == "lose" else None)
            server.runtime.run()
            continue
        number, block = move
        made = [line % at if b"%" in line else line for at, line in enumerate(block, len(sent[number]))]
        sent[number] += made
        sessions[number].send(b"".join(line + b"\n" for line in made))
    for number, session in enumerate(sessions):
        got = session.received().splitlines()
        offsets = [int(line[1:]) for line in got if line.startswith(b":")]
        assert offsets == sorted(set(offsets))
        for line in sent[number]:
            expected = answer_to(line)
            if expected:
                here, got = got[: len(expected)], got[len(expected) :]
                assert here == expected
            else:
                kept = got.pop(0)
                assert kept.startswith(b":") or kept == b"-DISK it failed"
        assert got == []


@pytest.mark.parametrize("data", [b"PUB a 1\nPING\nPUB a 2\n", b"PUB a 1\nbad\nPUB a 2\n"])
def test_a_command_waits_until_the_publishes_before_it_are_answered(data: bytes) -> None:
    server = MemoryServer(hold=True)
    one = server.connect()
    one.send(b"PING\n")
    one.received()
    one.send(data)
    assert one.received() == b""
    assert not one.reading
    server.log.commit()
    server.runtime.run()
    first, *between = one.received().splitlines()
    assert first == b":1"
    assert len(between) == 1
    server.log.commit()
    server.runtime.run()
    assert one.received() == b":2\n"
    assert one.reading


def test_a_refused_publish_is_answered_in_its_place() -> None:
    server = MemoryServer(hold=True)
    one = server.connect()
    one.send(b"PUB a 1\n")
    server.log.refuse = FULL
    one.send(b"PUB a 2\r\nPUB a 3\r\nPING\r\n")
    server.log.refuse = None
    one.send(b"PUB a 4\n")
    assert one.received() == b""
    server.log.commit()
    server.runtime.run()
    assert one.received() == b":1\n-FULL no room\r\n-FULL no room\r\nPONG\r\n"
    server.log.commit()
    assert one.received() == b":2\n"


def test_a_refused_MPUB_is_one_error_and_so_is_a_lost_one() -> None:
    server = MemoryServer(hold=True)
    one = server.connect()
    server.log.refuse = FULL
    one.send(command("MPUB", "a", "1", "2", "3"))
    server.log.refuse = None
    one.send(command("MPUB", "a", "1", "2", "3") + command("PUB", "a", "4"))
    server.log.commit(DISK)
    one.send(command("MPUB", "a", "5", "6"))
    server.log.commit()
    assert one.received() == b"-FULL no room\r\n-DISK it failed\r\n-DISK it failed\r\n:5\r\n"


def test_messages_of_one_run_may_share_no_fate() -> None:
    """With several stores a commit may fail for some messages of a run only."""
    server = MemoryServer(hold=True)
    one = server.connect()
    one.send(b"PUB a 1\nPUB b 2\nPUB a 3\n")
    ((run, sink),) = server.log._waiting
    assert isinstance(run, Publish)
    sink(Outcome(7, 3, {1: DISK}))
    assert one.received() == b":7\n-DISK it failed\n:9\n"


def test_a_lost_commit_leaves_no_gap_for_readers() -> None:
    server = MemoryServer(hold=True)
    reader, writer = server.connect(), server.connect()
    reader.send(b"SUB a\n")
    for error in (None, DISK, None):
        writer.send(b"PUB a x\nPUB a y\n")
        server.log.commit(error)
    assert writer.received() == b":1\n:2\n-DISK it failed\n-DISK it failed\n:5\n:6\n"
    assert reader.received() == b"+OK next=1 epoch=1\nMSG a 1 x\nMSG a 2 y\nMSG a 5 x\nMSG a 6 y\n"
    reader.send(b"UNSUB\nREAD a FROM 3\n")
    assert reader.received() == b"+OK\nMSG a 5 x\nMSG a 6 y\nEND end next=7\n"


def test_what_is_lost_with_a_RESET_was_not_removed() -> None:
    server = MemoryServer()
    one = server.connect()
    one.send(b"PUB a 1\nPUB a 2\n")
    server.log.hold = True
    one.send(b"RESET a\n")
    server.log.commit(DISK)
    server.runtime.run()
    one.send(b"READ a\n")
    assert one.received() == b":1\n:2\n-DISK it failed\nMSG a 1 1\nMSG a 2 2\nEND end next=4\n"


def test_a_PUB_behind_a_RESET_is_answered_behind_it_though_it_is_known_at_once() -> None:
    server = MemoryServer()
    one = server.connect()
    one.send(b"HPUB t id=known :x\nPUB t z\n")
    server.log.hold = True
    one.send(b"RESET t\nHPUB t id=known :x\nPUB t y\n")
    assert one.received() == b":1\n:2\n"
    server.log.commit()
    server.runtime.run()
    server.log.commit()
    assert one.received() == b":2\n:1\n:4\n"


def test_a_refused_RESET_is_answered_and_blocks_nothing() -> None:
    server = MemoryServer()
    one = server.connect()
    one.send(b"PUB a 1\n")
    server.log.refuse = FULL
    one.send(b"RESET a\nPING\n")
    assert one.received() == b":1\n-FULL no room\nPONG\n"


# Line ends and dialects.


def test_answers_end_as_their_lines_did() -> None:
    server = MemoryServer()
    one = server.connect()
    one.send(b"PING\r\nPING\nPUB a 1\r\nPUB a 2\nREAD a FROM 2\r\nbad\r\nHELLO\r\nUNSUB\r\n")
    got = one.received()
    assert got.startswith(b"PONG\r\nPONG\n:1\r\n:2\nMSG a 2 2\r\nEND end next=3\r\n-UNKNOWN no command 'bad'; ")
    assert got.count(b"\n") - got.count(b"\r\n") == 2


def test_events_end_as_the_SUB_line_did() -> None:
    server = MemoryServer()
    one = server.connect()
    one.send(b"SUB a\r\nPUB a 1\n")
    assert one.received() == b"+OK next=1 epoch=1\r\n:1\nMSG a 1 1\r\n"


def test_the_first_byte_decides_for_good() -> None:
    server = MemoryServer()
    inline, resp = server.connect(), server.connect()
    assert inline.session.dialect == "-"
    inline.send(b"PING\n*1\r\n$4\r\nPING\r\n")
    assert inline.session.dialect == "inline"
    assert inline.received().startswith(b"PONG\n-UNKNOWN no command '*1'; HELP lists them\r\n")
    resp.send(command("PING") + b"PING\r\n")
    assert resp.session.dialect == "resp2"
    assert resp.received().startswith(b"+PONG\r\n-SYNTAX ")
    assert resp.closed


def test_hello_switches_between_versions() -> None:
    server = MemoryServer()
    one = server.connect()
    one.send(command("HELLO"))
    (flat,) = replies(one.received())
    assert flat[:6] == [b"server", b"busd", b"version", b"test", b"proto", 2]
    one.send(command("HELLO", "3"))
    (mapping,) = replies(one.received())
    assert mapping == {b"server": b"busd", b"version": b"test", b"proto": 3, b"epoch": 1, b"next": 1}
    assert one.session.dialect == "resp3"
    one.send(
        command("HELLO", "2") + command("SUB", "a") + command("HELLO", "4") + command("HELLO", "3", "AUTH", "u", "p")
    )
    flat, refused, unknown, users = replies(one.received())
    assert isinstance(flat, list)
    assert [str(error).split()[0] for error in (refused, unknown, users)] == ["PROTO", "PROTO", "AUTH"]
    assert one.session.dialect == "resp2"


def test_the_version_stays_under_a_subscription() -> None:
    server = MemoryServer()
    one = resp3(server)
    one.send(command("SUB", "a") + command("HELLO", "2") + command("UNSUB") + command("HELLO", "2"))
    ok, busy, left, flat = replies(one.received())
    assert ok == b"OK next=1 epoch=1"
    assert str(busy).startswith("BUSY ")
    assert left == b"OK"
    assert isinstance(flat, list)


def test_redis_clients_can_set_up_a_connection() -> None:
    server = MemoryServer()
    one = server.connect()
    one.send(command("CLIENT", "SETINFO", "LIB-NAME", "x") + command("SELECT", "0") + command("COMMAND", "DOCS"))
    one.send(command("CONFIG", "GET", "save") + command("ECHO", "hi") + command("PING", "yo") + command("PING"))
    assert replies(one.received()) == [b"OK", b"OK", [], [], b"hi", b"yo", b"PONG"]


# Opening, busy, refused.


@pytest.mark.parametrize(
    "words", [b"SUB t FROM 9", b"READ t FROM 9", b"SUB t FROM 9 FORMAT raw", b"READ t FROM 9 FORMAT raw"]
)
def test_after_a_refusal_the_connection_goes_on(words: bytes) -> None:
    server = MemoryServer()
    one = server.connect()
    one.send(words + b"\nPING\nREAD t\nSUB t\n")
    text = b"-POS 9 is beyond the end; the next offset is 1\n"
    assert one.received() == text + b"PONG\nEND end next=1\n+OK next=1 epoch=1\n"
    assert not one.closed
    assert one.reading
    assert len(server.broker.opened) == 1


def test_after_a_refused_READ_in_RESP_the_connection_goes_on() -> None:
    server = MemoryServer()
    one = server.connect()
    one.send(command("READ", "t", "FROM", "9") + command("READ", "t"))
    refused, answer = replies(one.received())
    assert str(refused).startswith("POS 9")
    assert answer == [[b"END", b"end", 1]]


def test_a_second_subscription_is_refused_and_the_first_stays() -> None:
    server = MemoryServer()
    one = server.connect()
    one.send(b"SUB a\nSUB b\nREAD a\nPUB b 1\nPUB a 2\n")
    busy = b"-BUSY this connection has a subscription; UNSUB ends it\n"
    got = one.received()
    assert got.startswith(b"+OK next=1 epoch=1\n" + busy + busy)
    assert sorted(got.splitlines()[3:]) == [b":1", b":2", b"MSG a 2 2"]


def test_nothing_of_a_subscription_comes_after_the_answer_to_UNSUB() -> None:
    server = MemoryServer()
    server.log.slow_reads = []
    one, other = server.connect(), server.connect()
    other.send(b"PUB a 1\nPUB a 2\nPUB a 3\n")
    one.send(b"SUB a FROM 1\nUNSUB\n")
    server.log.slow_reads.pop()()
    server.runtime.run()
    other.send(b"PUB a 4\n")
    assert one.received() == b"+OK next=1 epoch=1\n+OK\n"
    one.send(b"UNSUB\nSUB a\n")
    assert one.received() == b"+OK\n+OK next=5 epoch=1\n"
    assert one.session.subscription == "a"


def test_a_subscription_that_was_left_leaves_nothing_behind() -> None:
    server = MemoryServer()
    one = server.connect()
    for words in (b"SUB a,b.*\nUNSUB\n", b"SUB a FORMAT raw\nUNSUB\n", b"READ a\n", b"SUB a UNTIL end\n"):
        one.send(words)
    assert not server.broker.opened
    assert not server.broker.fanout.audiences
    assert server.broker.fanout._index.find(b"a") == ()
    assert not one.closed
    assert one.session.subscription == ""


# READ.


def publish(server: MemoryServer, *payloads: bytes, topic: bytes = b"t") -> None:
    """One batch."""
    one = server.connect()
    one.send(b"".join(b"PUB %b %b\n" % (topic, payload) for payload in payloads))
    one.drop()


def test_READ_waits_for_a_first_message() -> None:
    server = MemoryServer()
    one = server.connect()
    one.send(b"READ t WITHIN 1s\nPING\n")
    publish(server, b"x", topic=b"other")
    assert one.received() == b""
    publish(server, b"1", b"2")
    publish(server, b"3")
    assert one.received() == b"MSG t 2 1\nMSG t 3 2\nEND end next=4\nPONG\n"
    server.advance(2_000_000_000)
    assert one.received() == b""


@pytest.mark.parametrize("piece_batches", [1, 2, 5])
@pytest.mark.parametrize("words", [b"READ t WITHIN 1s", b"READ t WITHIN 1s LIMIT 1", b"READ t LAST 2 WITHIN 1s"])
def test_READ_that_waits_misses_nothing_that_lands_while_it_looks(words: bytes, piece_batches: int) -> None:
    server = MemoryServer(piece_batches=piece_batches)
    for _ in range(3):
        publish(server, b"x", topic=b"other")
    server.log.slow_reads = []
    one = server.connect()
    one.send(words + b"\n")
    publish(server, b"1")
    publish(server, b"2")
    while server.log.slow_reads:
        server.log.slow_reads.pop()()
        server.runtime.run()
    publish(server, b"3")
    assert one.received() in (
        b"MSG t 4 1\nEND end next=5\n",
        b"MSG t 4 1\nMSG t 5 2\nEND end next=6\n",
        b"MSG t 4 1\nEND limit next=5\n",
    )


def test_READ_within_ends_by_the_clock_and_says_where() -> None:
    server = MemoryServer()
    publish(server, b"x", topic=b"other")
    one = server.connect()
    one.send(b"READ t WITHIN 20ms\n")
    server.advance(19_999_999)
    assert one.received() == b""
    server.advance(1)
    assert one.received() == b"END time next=2\n"
    assert server.broker.fanout.enter((b"t",)).users == 1


def test_READ_does_not_wait_when_there_is_something() -> None:
    server = MemoryServer()
    publish(server, b"1", b"2")
    one = server.connect()
    one.send(b"READ t FROM 2 WITHIN 1h\nREAD t FROM 3 WITHIN 1h\n")
    assert one.received() == b"MSG t 2 2\nEND end next=3\n"
    publish(server, b"3")
    assert one.received() == b"MSG t 3 3\nEND end next=4\n"


def test_READ_ends_where_the_end_was_when_it_was_asked() -> None:
    server = MemoryServer(piece_batches=1)
    publish(server, b"1")
    publish(server, b"2")
    server.log.slow_reads = []
    one = server.connect()
    one.send(b"READ t\n")
    publish(server, b"3")
    while server.log.slow_reads:
        server.log.slow_reads.pop()()
        server.runtime.run()
    assert one.received() == b"MSG t 1 1\nMSG t 2 2\nEND end next=3\n"


@pytest.mark.parametrize(("form", "got"), [(b"raw", b"1\n2\n"), (b"bytes", b"12")])
def test_READ_in_a_bare_format_ends_by_closing(form: bytes, got: bytes) -> None:
    server = MemoryServer()
    publish(server, b"1", b"2")
    one = server.connect()
    one.send(b"READ t FORMAT %b\nPING\n" % form)
    assert one.received() == got
    assert one.closed


def test_READ_in_RESP_counts_every_element() -> None:
    server = MemoryServer(piece_batches=1)
    publish(server, b"1", b"2")
    publish(server, b"3")
    one = server.connect()
    one.send(
        command("EOF", "t") + command("PUB", "t", b"\r\n", "k", "v") + command("RESET", "b") + command("PUB", "b", "x")
    )
    one.send(command("RESET", "b"))
    one.received()
    server.log.trim(3)
    for version in ("2", "3"):
        one.send(command("HELLO", version))
        one.received()
        one.send(command("READ", "t,b", "FROM", "1"))
        (answer,) = replies(one.received())
        assert [event[0] for event in answer] == [b"GAP", b"MSG", b"EOF", b"MSG", b"RESET", b"END"]
        assert answer[0] == [b"GAP", b"t,b", 1, 2, 2, b"trimmed"]
        assert answer[3][:3] + answer[3][4:] == [b"MSG", b"t", 5, b"\r\n", b"k", b"v"]
        assert answer[-2:] == [[b"RESET", b"b", 7, 1], [b"END", b"end", 8]]
        one.send(command("READ", "t", "FROM", "2"))
        (answer,) = replies(one.received())
        assert answer[0] == [b"GAP", b"t", 2, 2, None, b"trimmed"]


def test_READ_in_RESP_is_bounded_and_says_where_to_go_on() -> None:
    server = MemoryServer(Limits(outbox_bytes=500), piece_batches=1)
    sizes = [10, 100, 900, 0, 0, 300, 300, 50, 700]
    for at in range(0, len(sizes), 3):
        publish(server, *(b"x" * size for size in sizes[at : at + 3]))
    one = server.connect()
    position, got = 1, []
    for _ in range(20):
        one.send(command("READ", "t", "FROM", str(position)))
        data = one.received()
        (answer,) = replies(data)
        *messages, end = answer
        assert len(data) <= 500 + 60 or len(messages) <= 2
        got += [len(message[4]) for message in messages]
        position = end[2]
        if end[1] == b"end":
            break
        assert end[1] == b"limit"
        assert messages
    assert got == sizes
    assert position == 10


def test_READ_within_in_RESP_answers_once() -> None:
    server = MemoryServer()
    one = server.connect()
    one.send(command("READ", "t", "WITHIN", "1s") + command("READ", "t", "WITHIN", "1s") + command("PING"))
    publish(server, b"1")
    (answer, again, pong) = replies(one.received())
    assert [event[0] for event in answer] == [b"MSG", b"END"]
    assert again == answer
    assert pong == b"PONG"
    one.send(command("READ", "u", "WITHIN", "1s"))
    server.advance(1_000_000_000)
    assert replies(one.received()) == [[[b"END", b"time", 2]]]


def test_pushes_carry_what_the_document_says() -> None:
    server = MemoryServer()
    one = resp3(server)
    one.send(command("SUB", "t"))
    publish(server, b"1")
    other = server.connect()
    other.send(command("PUB", "t", "2", "unit", "C") + command("EOF", "t") + command("RESET", "t"))
    got = replies(one.received())
    assert got[0] == b"OK next=1 epoch=1"
    assert all(isinstance(push, list) for push in got[1:])
    assert [push[:3] for push in got[1:]] == [
        [b"MSG", b"t", 1],
        [b"MSG", b"t", 2],
        [b"EOF", b"t", 3],
        [b"RESET", b"t", 4],
    ]
    assert got[2][4:] == [b"2", b"unit", b"C"]
    assert got[4][3] == 2


# Reading from the socket, or not.


def test_a_session_that_waits_is_not_read_from() -> None:
    server = MemoryServer(hold=True)
    one = server.connect()
    one.send(b"PUB a 1\nPING\n")
    one.send(b"PING 2\nPING 3\n")
    assert not one.reading
    assert len(one.session._queue) == 1
    server.log.commit()
    server.runtime.run()
    assert one.received() == b":1\nPONG\n2\n3\n"
    assert one.reading


def test_publishers_are_not_read_from_while_the_disk_is_behind() -> None:
    server = MemoryServer(hold=True)
    one, other = server.connect(), server.connect()
    one.send(b"PUB a 1\n")
    server.log.congested = True
    one.send(b"PUB a 2\n")
    other.send(b"PING\n")
    assert not one.reading
    assert not other.reading
    one.send(b"PUB a 3\n")
    server.log.congested = False
    server.log.commit()
    server.runtime.run()
    assert one.reading
    assert other.reading
    server.log.commit()
    assert one.received() == b":1\n:2\n:3\n"
    assert other.received() == b"PONG\n"


def test_a_session_paused_for_its_queue_hears_of_the_end_of_congestion() -> None:
    server = MemoryServer(hold=True)
    one = server.connect()
    one.send(b"PUB a 1\nPING\n")
    server.log.congested = True
    server.log.commit()
    assert one.received() == b":1\nPONG\n"
    assert not one.reading
    server.log.congested = False
    server.broker.visible([])
    server.runtime.run()
    assert one.reading


def test_a_peer_that_takes_no_answers_is_not_read_from() -> None:
    limits = Limits(outbox_bytes=10_000)
    server = MemoryServer(limits)
    one = server.connect()
    one.stuck = True
    for _ in range(100):
        one.send(b"HELP\n" * 100)
    assert not one.reading
    # One answer more than the outbox holds, whatever was asked in one read.
    assert one.buffered() <= limits.outbox_bytes + 4_000
    assert len(one.session._queue) <= 100
    total = 0
    while one.buffered():
        one.take(1_000)
        total += len(one.received())
    assert one.reading
    one.stuck = False
    one.send(b"HELP\n")
    assert total == 10_000 * len(one.received())


def test_short_questions_with_long_answers_are_answered_in_order() -> None:
    server = MemoryServer(Limits(outbox_bytes=1_000))
    one = server.connect()
    one.stuck = True
    asked = b"".join(b"PING %d\nHELP\n" % number for number in range(50))
    one.send(asked)
    one.end_of_input()
    assert not one.closed
    got = b""
    while one.buffered():
        one.take(700)
        got += one.received()
    assert [int(line) for line in got.splitlines() if line.isdigit()] == list(range(50))
    assert one.closed


# Ends.


def test_half_close_is_no_goodbye() -> None:
    server = MemoryServer(hold=True)
    one = server.connect()
    one.send(b"PUB a 1\nPING\n")
    one.end_of_input()
    assert not one.closed
    assert one.session.half_closed
    server.log.commit()
    server.runtime.run()
    assert one.received() == b":1\nPONG\n"
    assert one.closed


def test_half_closed_with_a_subscription_it_streams_on() -> None:
    server = MemoryServer()
    one = server.connect()
    one.send(b"SUB t LIMIT 2\n")
    one.end_of_input()
    publish(server, b"1")
    assert not one.closed
    publish(server, b"2")
    assert one.received() == b"+OK next=1 epoch=1\nMSG t 1 1\nMSG t 2 2\nEND limit next=3\n"
    assert one.closed


def test_half_closed_while_a_READ_waits() -> None:
    server = MemoryServer()
    one = server.connect()
    one.send(b"READ t WITHIN 1s\n")
    one.end_of_input()
    assert not one.closed
    server.advance(1_000_000_000)
    assert one.received() == b"END time next=1\n"
    assert one.closed


@pytest.mark.parametrize("sent", [b"", b"PING\n", b"\n"])
def test_nothing_owed_is_closed_at_once(sent: bytes) -> None:
    server = MemoryServer()
    one = server.connect()
    if sent:
        one.send(sent)
    one.end_of_input()
    assert one.closed


def test_a_cut_command_is_answered_after_those_before_it() -> None:
    server = MemoryServer(hold=True)
    one, two = server.connect(), server.connect()
    one.send(b"PUB a 1\nPUB a 2")
    one.end_of_input()
    two.send(command("PUB", "a", "1") + b"*2\r\n$4\r\nPI")
    two.end_of_input()
    server.log.commit()
    server.runtime.run()
    assert one.received() == b":1\n-CUT the input ended within a line; it was not carried out\n"
    assert two.received() == b":2\r\n-CUT the input ended within a command; it was not carried out\r\n"
    assert one.closed
    assert two.closed


def test_an_unfinished_command_times_out() -> None:
    server = MemoryServer(Limits(unfinished_ns=1_000))
    one, two = server.connect(), server.connect()
    one.send(b"PUB a hal")
    two.send(b"PING\n")
    server.advance(1_000)
    assert not one.closed
    one.send(b"f")
    server.advance(1)
    assert one.received() == b"-TIMEOUT a command was begun and not finished within 0s\n"
    assert one.closed
    assert not two.closed


def test_a_command_begun_later_has_its_own_time() -> None:
    server = MemoryServer(Limits(unfinished_ns=1_000))
    one = server.connect()
    one.send(b"PING 1\nPI")
    server.advance(900)
    one.send(b"NG 2\nPI")
    server.advance(900)
    assert one.received() == b"1\n2\n"
    assert not one.closed
    one.send(b"NG 3\n")
    server.advance(10_000)
    assert not one.closed


def test_a_time_out_comes_after_the_answers_that_are_owed() -> None:
    server = MemoryServer(Limits(unfinished_ns=1_000), hold=True)
    one = server.connect()
    one.send(b"PUB a 1\nPUB a 2")
    server.advance(2_000)
    assert one.received() == b""
    assert not one.closed
    server.log.commit()
    server.runtime.run()
    assert one.received() == b":1\n-TIMEOUT a command was begun and not finished within 0s\n"
    assert one.closed
    server.advance(2_000)
    assert one.received() == b""


def test_a_command_cannot_time_out_while_it_is_not_read_from() -> None:
    server = MemoryServer(Limits(unfinished_ns=1_000), hold=True)
    one = server.connect()
    one.send(b"PUB a 1\nPING\nPUB a 2")
    assert not one.reading
    server.advance(900)
    server.advance(900)
    server.log.commit()
    server.runtime.run()
    server.advance(900)
    one.send(b"\n")
    server.log.commit()
    assert one.received() == b":1\nPONG\n:2\n"
    assert not one.closed


def test_only_the_first_line_closes_for_its_unknown_command() -> None:
    server = MemoryServer()
    one, two, three = server.connect(), server.connect(), server.connect()
    one.send(b"\n  \nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert one.received() == b"-UNKNOWN no command 'GET'; HELP lists them\r\n"
    assert one.closed
    two.send(b"PUB .x y\nGET / HTTP/1.1\n")
    assert two.received().count(b"\n") == 2
    assert not two.closed
    three.send(command("NOSUCH"))
    assert not three.closed


@pytest.mark.parametrize(
    "request_line",
    ["GET / HTTP/1.1", f"POST /{'a' * 5000} HTTP/1.1", "PING / HTTP/1.1", "HELP / HTTP/1.1", "PUB /t HTTP/1.1"],
)
@pytest.mark.parametrize("whole", [True, False])
def test_nothing_of_a_body_that_a_browser_sends_is_carried_out(request_line: str, whole: bool) -> None:
    server = MemoryServer()
    one = server.connect()
    data = f"{request_line}\r\nHost: localhost:7379\r\nOrigin: null\r\n\r\nPUB t evil\r\nRESET >\r\n".encode()
    for piece in [data] if whole else [data[at : at + 1] for at in range(len(data))]:
        one.send(piece)
    assert one.closed
    assert server.broker.horizon == 1


def test_after_a_fatal_error_nothing_is_carried_out() -> None:
    server = MemoryServer()
    one = server.connect()
    one.send(command("PUB", "a", "1") + b"*x\r\n" + command("PUB", "a", "2"))
    assert one.received().startswith(b":1\r\n-SYNTAX ")
    assert one.closed
    assert server.broker.horizon == 2


def test_quit_is_answered_and_the_rest_is_not_carried_out() -> None:
    server = MemoryServer(hold=True)
    one = server.connect()
    one.send(b"PUB a 1\nQUIT\nPUB a 2\n")
    assert one.received() == b""
    server.log.commit()
    server.runtime.run()
    assert one.received() == b":1\n+OK\n"
    assert one.closed
    assert server.broker.horizon == 2


def test_quiet_leaves_errors_and_what_was_asked_to_be_read() -> None:
    server = MemoryServer()
    one = server.connect()
    one.send(b"QUIET\nPUB t 1\nPUB t 2\nEOF u\nRESET u\nPUB .t 3\nUNSUB\nREAD t\nSUB t FROM 2\nPUB t 3\nUNSUB\n")
    assert one.received().splitlines() == [
        b"-TOPIC '.t' is not a topic: tokens of A-Z a-z 0-9 _ - joined by dots, 200 bytes at most",
        b"MSG t 1 1",
        b"MSG t 2 2",
        b"END end next=4",
        b"MSG t 2 2",
        b"MSG t 4 3",
    ]
    one.send(b"QUIET off\nPUB t 4\nQUIET\nQUIT\n")
    assert one.received() == b"+OK\n:5\n"
    assert one.closed


def test_quiet_still_answers_what_was_lost() -> None:
    server = MemoryServer(hold=True)
    one = server.connect()
    one.send(b"QUIET\nPUB t 1\nPUB t 2\n")
    server.log.commit(DISK)
    assert one.received() == b"-DISK it failed\n-DISK it failed\n"


def test_stopping_answers_what_was_accepted_and_ends_what_streams() -> None:
    server = MemoryServer(hold=True)
    one, two, three = server.connect(), server.connect(), resp3(server)
    one.send(b"PUB a 1\nPING\n")
    two.send(b"SUB a\n")
    three.send(command("READ", "a", "WITHIN", "1h"))
    server.broker.stop()
    for connection in (one, two, three):
        connection.session.stop()
    assert not one.closed
    assert two.received() == b"+OK next=1 epoch=1\nEND closed next=1\n"
    assert replies(three.received()) == [[[b"END", b"closed", 1]]]
    assert two.closed
    assert three.closed
    server.log.commit()
    server.runtime.run()
    assert one.received() == b":1\n"
    assert one.closed


def test_stopping_refuses_a_subscription_that_is_not_open_yet() -> None:
    server = MemoryServer()
    server.log.last_floors = lambda wanted, count, done: None  # type: ignore[method-assign]
    one = server.connect()
    one.send(b"SUB a LAST 1\n")
    server.broker.stop()
    assert one.received() == b"-STOPPING the server is going down\n"
    assert one.closed
    assert not server.broker.opened


def test_a_lost_connection_costs_nothing_more() -> None:
    server = MemoryServer(hold=True)
    for words in (b"SUB a\n", b"READ a WITHIN 1h\n", b"PUB a 1\nSUB a\n", b"SUB a UNTIL @2030-01-01\n"):
        one = server.connect()
        one.send(words)
        one.received()
        one.drop()
        server.log.commit()
        server.runtime.run()
        assert not server.broker.opened
        assert one.received() == b""
    assert not server.broker.fanout.audiences


def test_lost_while_a_position_is_looked_up() -> None:
    server = MemoryServer()
    waiting: list[Any] = []
    server.log.offset_at = lambda time_ns, done: waiting.append(done)  # type: ignore[method-assign]
    for words in (b"SUB a FROM -5m\n", b"SUB a UNTIL @2030-01-01\n"):
        one = server.connect()
        one.send(words)
        one.drop()
        waiting.pop()(1)
        server.advance(200 * 365 * 86_400 * 1_000_000_000)
        assert one.received() == b""
    assert not server.broker.opened


def test_a_bare_format_is_closed_when_what_is_owed_was_answered() -> None:
    server = MemoryServer()
    publish(server, b"1")
    server.log.hold = True
    server.log.slow_reads = []
    one = server.connect()
    one.send(b"SUB t FROM 1 LIMIT 1 FORMAT raw\nPUB u x\n")
    server.log.slow_reads.pop()()
    server.runtime.run()
    assert one.received() == b"1\n"
    assert not one.closed
    server.log.commit()
    server.runtime.run()
    assert one.received() == b":2\n"
    assert one.closed


def test_errors_of_a_bare_SUB_are_said() -> None:
    server = MemoryServer()
    one = server.connect()
    one.send(b"SUB a..b FORMAT raw\nSUB t FORMAT raw SLOW drop\nSUB t FORMAT raw\n")
    assert [line.split()[0] for line in one.received().splitlines()] == [b"-PATTERN", b"-ARG"]
    publish(server, b"x")
    assert one.received() == b"x\n"


@pytest.mark.parametrize(("patterns", "ends"), [(b"t", True), (b"t,u", False), (b"*", False), (b"t,v", True)])
def test_a_bare_format_ends_when_all_its_topics_have(patterns: bytes, ends: bool) -> None:
    server = MemoryServer(piece_batches=1)
    one = server.connect()
    one.send(b"PUB v x\nEOF v\nPUB t 1\nEOF t\nPUB t 2\nEOF t\nPUB u 3\n")
    live = server.connect()
    one.send(b"UNSUB\n")
    live.send(b"SUB %b FROM 1 FORMAT raw\n" % patterns)
    assert live.closed is ends
    late = server.connect()
    late.send(b"SUB %b FORMAT raw\n" % patterns)
    assert late.closed is ends
    assert late.received() == b""
    one.send(b"EOF u\n")
    assert live.closed is (patterns != b"*")
    assert live.received().splitlines().count(b"2") == 1


def test_faults_close_the_connection_that_had_them() -> None:
    server = MemoryServer()
    one, two = server.connect(), server.connect()
    one.send(b"SUB a\n")
    two.send(b"SUB a\n")
    one.received()
    one.session.failed()
    assert one.received() == b"-INTERNAL a fault of busd; its log says more\n"
    assert one.closed
    publish(server, b"1", topic=b"a")
    assert two.received().endswith(b"MSG a 1 1\n")


@pytest.mark.parametrize("command", [b"PUB a 2\n", b"EOF a\n"])
def test_a_publish_that_met_a_fault_is_told_so_and_then_the_connection_closes(command: bytes) -> None:
    server = MemoryServer(hold=True)
    one, two = server.connect(), server.connect()
    one.send(b"PUB a 1\n")
    server.log.commit()
    one.send(command)
    two.send(b"PUB a 3\n")
    server.log.commit(BusError("INTERNAL", "a fault of busd"))
    assert (one.received(), one.closed) == (b":1\n-INTERNAL a fault of busd\n", True)
    assert (two.received(), two.closed) == (b"-INTERNAL a fault of busd\n", True)
    three = server.connect()
    three.send(b"PUB a 4\n")
    server.log.commit()
    assert three.received() == b":4\n"
