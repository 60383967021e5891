"""Positions on their way to offsets."""

from __future__ import annotations

import pytest

from busd.broker.opening import beyond, resolve, shared_encoder, unknown_group
from busd.words.units import FIRST, NEXT, Base, Position
from tests.support.groups import S, publish
from tests.support.memory_server import START_NS, MemoryServer


@pytest.fixture
def server() -> MemoryServer:
    server = MemoryServer()
    for payload in "abc":
        publish(server, payload)
        server.advance(10 * S)
    return server


@pytest.mark.parametrize(
    ("position", "offset"),
    [
        (FIRST, 1),
        (NEXT, 4),
        (Position(Base.OFFSET, 2), 2),
        (Position(Base.OFFSET, 99), 99),
        (Position(Base.TIME, START_NS + 10 * S), 2),
        (Position(Base.TIME, START_NS + 10 * S + 1), 3),
        (Position(Base.AGO, 10 * S), 3),
        (Position(Base.AGO, 3600 * S), 1),
        (Position(Base.AGO, 1), 4),
    ],
)
def test_every_kind_of_position(server: MemoryServer, position: Position, offset: int) -> None:
    found: list[int | Exception] = []
    resolve(server.broker.house, position, lambda topic: True, found.append)
    server.runtime.run()
    assert found == [offset]


def test_the_same_format_is_the_same_encoder() -> None:
    assert shared_encoder("line", b"\n", False) is shared_encoder("line", b"\n", False)
    assert shared_encoder("line", b"\n", False) is not shared_encoder("line", b"\r\n", False)


def test_errors_say_what_would_be_right() -> None:
    assert str(beyond(99, 4)) == "POS 99 is beyond the end; the next offset is 4"
    assert str(unknown_group(b"g")) == "GROUP there is no group g; GROUPS lists them"
