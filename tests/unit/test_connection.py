"""busd.world.connection: how much of what comes a session is given in one turn of the loop."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any, cast

import pytest

from busd.world import connection as module
from busd.world.connection import Connection


class Transport:
    """As much of a transport as reading needs; `paused` as the connection left it."""

    def __init__(self) -> None:
        self.paused = False
        self.sock: SimpleNamespace | None = SimpleNamespace(family=socket.AF_UNIX)

    def get_extra_info(self, name: str) -> Any:
        """Of a Unix socket."""
        return self.sock if name == "socket" else ""

    def get_write_buffer_size(self) -> int:
        """Nothing was written."""
        return 0

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        """Not needed."""

    def is_closing(self) -> bool:
        """Never."""
        return False

    def pause_reading(self) -> None:
        """See asyncio."""
        self.paused = True

    def resume_reading(self) -> None:
        """See asyncio."""
        self.paused = False


class Session:
    """Notes what it is given."""

    dialect = "inline"

    def __init__(self) -> None:
        self.given: list[bytes] = []

    def received(self, data: bytes, now_ns: int) -> None:
        """See the real one."""
        self.given.append(data)


@pytest.mark.parametrize(
    ("data", "most"),
    [
        pytest.param(b"x" * 99 + b"\n", 1, id="a read as it is"),
        pytest.param(b"\n" * 3 * module._LINES, 3, id="many lines"),
        pytest.param((b"x" * 999 + b"\n") * 512, 2, id="what TLS kept back"),
        pytest.param((b"x" * 99 + b"\n") * 5200, 2, id="what TLS kept back, of shorter lines"),
        pytest.param(b"x" * 2 * module._READ_BYTES, 2, id="what TLS kept back, within a line"),
    ],
)
def test_a_turn_is_given_no_more_than_a_read_and_its_lines(data: bytes, most: int) -> None:
    session, transport = Session(), Transport()

    async def story() -> None:
        one = Connection(1, lambda: 0, lambda _: cast(Any, session), lambda _: None, 0, lambda _: None)
        one.connection_made(cast(Any, transport))
        one.data_received(data)
        for turn in range(1, most + 1):
            assert len(session.given) == turn
            assert transport.paused == (turn < most)
            await asyncio.sleep(0)

    asyncio.run(story())
    assert b"".join(session.given) == data
    assert max(map(len, session.given)) <= module._READ_BYTES
    assert max(piece.count(b"\n") for piece in session.given) <= module._LINES


def test_each_request_is_told_with_the_time_at_which_it_came() -> None:
    session, transport = Session(), Transport()
    told: list[tuple[int, int]] = []
    times = iter([5, 7])
    one = Connection(
        1,
        lambda: next(times),
        lambda _: cast(Any, session),
        lambda _: None,
        0,
        lambda ns: told.append((ns, len(session.given))),
    )
    one.connection_made(cast(Any, transport))
    one.data_received(b"PUB a b\n")
    one.data_received(b"PUB a c\n")
    assert told == [(5, 1), (7, 2)], "behind its answer"


def test_one_whose_socket_is_gone_can_be_looked_at() -> None:
    transport = Transport()
    one = Connection(1, lambda: 0, lambda _: cast(Any, Session()), lambda _: None, 0, lambda _: None)
    one.connection_made(cast(Any, transport))
    # As uvloop's TLS is for a turn, before it tells of the loss.
    transport.sock, one.peer = None, "192.0.2.1:7"
    one.look()
    assert one.fileno() == -1
