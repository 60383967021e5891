"""What is held of commands that are not whole: counted over all connections, and who holds most pays."""

from __future__ import annotations

import pytest

from busd.words.settings import Limits
from tests.support.memory_server import MemoryConnection, MemoryServer
from tests.support.users import user

KIB = 1024
LIMITS = Limits(unfinished_bytes=64 * KIB, payload_bytes=256 * KIB, unfinished_ns=1_000)
BEGUN = {"inline": b"PUB t ", "resp": b"*3\r\n$3\r\nPUB\r\n$1\r\nt\r\n$200000\r\n"}


def begin(server: MemoryServer, dialect: str, size: int) -> MemoryConnection:
    """A connection that has sent so much of a message, and not its end."""
    connection = server.connect()
    connection.send(BEGUN[dialect])
    for _ in range(size // KIB):
        connection.send(b"x" * KIB)
    return connection


@pytest.mark.parametrize("dialect", BEGUN)
def test_who_holds_most_is_closed_and_told(dialect: str) -> None:
    server = MemoryServer(LIMITS)
    small, large = begin(server, dialect, 20 * KIB), begin(server, dialect, 40 * KIB)
    assert not large.closed
    other = begin(server, dialect, 10 * KIB)
    assert large.closed
    assert large.received().startswith(b"-LIMIT unfinished commands of all connections hold 65536 bytes")
    assert [small.closed, other.closed] == [False, False]
    assert server.unfinished.used_bytes < 64 * KIB


@pytest.mark.parametrize("dialect", BEGUN)
def test_one_alone_is_never_closed_for_it(dialect: str) -> None:
    server = MemoryServer(LIMITS)
    one = begin(server, dialect, 190 * KIB)
    assert not one.closed
    assert server.unfinished.used_bytes > 64 * KIB


def test_who_brings_the_last_byte_may_be_the_one() -> None:
    server = MemoryServer(LIMITS)
    begin(server, "inline", 20 * KIB)
    large = server.connect()
    # Its whole commands come first, in their order.
    large.send(b"PING\nPUB t " + b"x" * 60 * KIB)
    answers = large.received().splitlines()
    assert answers[0] == b"PONG"
    assert answers[1].startswith(b"-LIMIT")
    assert large.closed


def end_of_line(server: MemoryServer, one: MemoryConnection) -> None:
    one.send(b"\n")


def half_close(server: MemoryServer, one: MemoryConnection) -> None:
    one.end_of_input()


def drop(server: MemoryServer, one: MemoryConnection) -> None:
    one.drop()


def time_out(server: MemoryServer, one: MemoryConnection) -> None:
    server.advance(2_000)


@pytest.mark.parametrize("over", [end_of_line, half_close, drop, time_out])
def test_all_is_given_back(over: object) -> None:
    server = MemoryServer(LIMITS)
    one = begin(server, "inline", 20 * KIB)
    assert server.unfinished.used_bytes == 20 * KIB + len(BEGUN["inline"])
    assert callable(over)
    over(server, one)
    assert server.unfinished.used_bytes == 0


def test_arguments_are_counted_with_what_they_take_beside_their_bytes() -> None:
    server = MemoryServer(LIMITS)
    one = server.connect()
    one.send(b"*5000\r\n$4\r\nMPUB\r\n$1\r\nt\r\n" + b"$0\r\n\r\n" * 1000)
    assert server.unfinished.used_bytes > 40_000


def test_little_is_not_counted() -> None:
    server = MemoryServer(LIMITS)
    for _ in range(100):
        begin(server, "inline", 2 * KIB)
    assert server.unfinished.used_bytes == 0


def test_tls_at_the_wrong_address_is_told_and_closed_at_once() -> None:
    for users in ("", user("web")):
        one = MemoryServer(users=users).connect()
        # Without a line end, as most of them are.
        one.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x07" * 200)
        assert one.received().startswith(b"-UNKNOWN this is TLS, and this address is not")
        assert one.closed
