"""Taking connections: each is counted once, from when it is accepted until it has a session or is gone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, cast

import pytest

from busd.world.accept import Acceptor
from busd.world.journal import Seldom


class Socket:
    """A listening socket at which so many wait, or one that was accepted."""

    def __init__(self, waiting: int = 0) -> None:
        self.waiting = waiting
        self.sent = b""
        self.closed = False

    def fileno(self) -> int:
        """See socket."""
        return 5

    def accept(self) -> tuple[Socket, str]:
        """See socket."""
        if not self.waiting:
            raise BlockingIOError
        self.waiting -= 1
        return Socket(), ""

    def setblocking(self, flag: bool) -> None:
        """See socket."""

    def send(self, data: bytes) -> None:
        """See socket."""
        self.sent += data

    def shutdown(self, how: int) -> None:
        """See socket."""

    def recv(self, size: int) -> bytes:
        """See socket."""
        return b""

    def close(self) -> None:
        """See socket."""
        self.closed = True


class Task:
    """What was given to the loop, a step at a time."""

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self._work = work
        self._over = False
        self._done: list[Callable[[Task], None]] = []

    def add_done_callback(self, call: Callable[[Task], None]) -> None:
        """See Task of asyncio."""
        self._done.append(call)

    def step(self) -> None:
        """On to where it waits next, or to its end."""
        try:
            if not self._over:
                self._work.send(None)
        except StopIteration:
            self._over = True
            for call in self._done:
                call(self)

    def close(self) -> None:
        """It goes no further."""
        self._work.close()


class Turn:
    """To be waited for: the next step."""

    def __await__(self) -> Any:
        yield


class Loop:
    """The part of a loop that accepting needs.  `broken`: what connections fail with."""

    def __init__(self) -> None:
        self.ready: Callable[[], None] = lambda: None
        self.tasks: list[Task] = []
        self.broken: Exception | None = None

    def add_reader(self, fd: int, call: Callable[[], None]) -> None:
        """See asyncio."""
        self.ready = call

    def create_task(self, work: Coroutine[Any, Any, None]) -> Task:
        """See asyncio."""
        self.tasks.append(Task(work))
        return self.tasks[-1]

    async def connect_accepted_socket(self, make: Callable[[], Any], sock: Socket, **tls: Any) -> None:
        """See asyncio: the protocol is told, and the task goes on in a later turn."""
        protocol = make()
        await Turn()
        if self.broken is not None:
            raise self.broken
        protocol.connection_made(None)
        await Turn()


class Door:
    """An acceptor with eight places, as the server has them."""

    def __init__(self, loop: Loop) -> None:
        self.loop, self.sock, self.open = loop, Socket(), 0

        def refusal() -> str:
            return "full" if self.open + self.acceptor.under_way >= 8 else ""

        seldom = Seldom(lambda: 0.0)
        self.acceptor = Acceptor(cast(socket.socket, self.sock), lambda: Arriving(self), refusal, seldom)

    def knock(self, count: int) -> int:
        """So many come; how many of them were taken."""
        before = len(self.loop.tasks)
        self.sock.waiting = count
        self.loop.ready()
        return len(self.loop.tasks) - before

    def turn(self) -> None:
        """Every task goes a step."""
        for task in self.loop.tasks:
            task.step()


class Arriving(asyncio.Protocol):
    """A connection that tells its acceptor when it has its session."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def connection_made(self, transport: object) -> None:
        """See asyncio."""
        self._door.open += 1
        self._door.acceptor.arrived(self)


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    loop = Loop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    yield Door(loop)
    for task in loop.tasks:
        task.close()


def test_a_connection_takes_one_place_from_the_first_turn_on(door: Door) -> None:
    assert door.knock(4) == 4
    for _ in range(4):
        assert door.open + door.acceptor.under_way == 4
        door.turn()
    assert (door.open, door.acceptor.under_way) == (4, 0)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_there_is_room_up_to_the_limit_in_whatever_turn_they_come(door: Door, turns: int) -> None:
    door.knock(4)
    for _ in range(turns):
        door.turn()
    assert door.knock(6) == 4


def test_one_that_fails_on_its_way_gives_its_place_back(door: Door) -> None:
    door.loop.broken = OSError("it left")
    assert door.knock(9) == 8
    door.turn()
    assert door.knock(1) == 0
    door.turn()
    assert (door.open, door.acceptor.under_way) == (0, 0)
    assert door.knock(9) == 8
