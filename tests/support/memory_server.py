"""The broker without sockets, disk or clock: sessions over wires in memory, time as a number."""

from __future__ import annotations

import heapq
import tomllib
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any

from busd.broker.broker import Broker
from busd.broker.gate import Gate
from busd.broker.intake import Unfinished
from busd.broker.session import Session
from busd.broker.turnstile import Turnstile
from busd.rules.access import Identity
from busd.rules.parts import Parts
from busd.rules.replies import Pairs, Row
from busd.rules.users import Peer, Users, users_from
from busd.words.settings import Limits
from tests.support.fake_log import FakeLog

START_NS = 1_795_248_000_000_000_000


class FakeRuntime:
    """A Runtime whose turns and time move when `run` and `advance` say so.  `firsts`, `steps`: how many were asked."""

    def __init__(self) -> None:
        self.time_ns = 0
        self.breaths = self.firsts = self.steps = 0
        self._soon: list[Callable[[], None]] = []
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()
        self._cancelled: set[int] = set()

    def now_ns(self) -> int:
        """See Runtime."""
        return START_NS + self.time_ns

    def monotonic_ns(self) -> int:
        """See Runtime."""
        return self.time_ns

    def soon(self, call: Callable[[], None]) -> None:
        """See Runtime."""
        self._soon.append(call)

    def first(self, call: Callable[[], None]) -> None:
        """See Runtime."""
        self.firsts += 1
        self._soon.append(call)

    def step(self, call: Callable[[], None]) -> None:
        """See Runtime."""
        self.steps += 1
        self._soon.append(call)

    def later(self, delay_ns: int, call: Callable[[], None]) -> Callable[[], None]:
        """See Runtime."""
        number = next(self._numbers)
        heapq.heappush(self._timers, (self.time_ns + delay_ns, number, call))
        return lambda: self._cancelled.add(number)

    @property
    def timers(self) -> int:
        """Calls that are still to come, unless cancelled."""
        return sum(number not in self._cancelled for _, number, _ in self._timers)

    def in_thread(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """See Runtime: a turn later."""

        def both() -> None:
            try:
                result = work()
            except Exception as error:
                result = error
            done(result)

        self._soon.append(both)

    def fault(self, error: Exception) -> None:
        """See Runtime: no test expects one."""
        raise error

    @property
    def hurried(self) -> bool:
        """Threads here take no time."""
        return False

    def breathe(self) -> None:
        """See Runtime."""
        self.breaths += 1

    def turn(self) -> bool:
        """One turn of the loop; False when there was nothing to do."""
        calls, self._soon = self._soon, []
        for call in calls:
            call()
        return bool(calls)

    def run(self) -> None:
        """Turns until nothing is left to do."""
        while self.turn():
            pass

    def advance(self, ns: int) -> None:
        """Let time pass; timers fire in order."""
        end = self.time_ns + ns
        while self._timers and self._timers[0][0] <= end:
            self.time_ns, number, call = heapq.heappop(self._timers)
            if number not in self._cancelled:
                call()
            self.run()
        self.time_ns = end
        self.run()


class MemoryConnection:
    """A Wire in memory and the peer at its other end.

    `stuck`: the peer takes nothing, so the outbox fills; `take` lets it take some.
    """

    def __init__(self, server: MemoryServer, gate: Gate) -> None:
        self.closed = False
        # What came right behind the +OK of its SUB … GROUP.
        self.first: list[str] = []
        self.reading = True
        self.stuck = False
        self._server = server
        self._out = bytearray()
        self._queued = bytearray()
        self._low = 0
        self._over = False
        self._held: list[bytes] = []
        self._ended = False
        self.session = Session(server.broker, self, server, server.limits, gate)

    # The peer.

    def send(self, data: bytes) -> None:
        """Bytes to the server; then turns until nothing is left to do."""
        self._held.append(data)
        self._feed()

    def end_of_input(self) -> None:
        """Half-close."""
        self._ended = True
        self._feed()

    def received(self) -> bytes:
        """What came since the last call."""
        found = bytes(self._out)
        self._out.clear()
        return found

    def take(self, size: int) -> None:
        """A stuck peer takes so many bytes after all."""
        self._out += self._queued[:size]
        del self._queued[:size]
        if self._over and len(self._queued) <= self._low:
            self._over = False
            self.session.drained()
        self._server.runtime.run()

    def drop(self) -> None:
        """The connection is lost."""
        self.session.lost()
        self._server.connections_open.remove(self)

    # Wire.

    def write(self, data: bytes | Parts, events: int = 1) -> None:
        """See Outbox."""
        assert all(type(piece) is bytes for piece in (data.pieces if isinstance(data, Parts) else [data])), (
            "only immutable bytes go to a transport"
        )
        data = bytes(data)
        if self.stuck:
            self._queued += data
            self._over = self._over or len(self._queued) > self._low
        else:
            self._out += data

    def buffered(self) -> int:
        """See Outbox."""
        return len(self._queued)

    def bound(self, low_bytes: int) -> None:
        """See Outbox."""
        self._low = low_bytes
        self._over = self._over or len(self._queued) > self._low

    def pause_reading(self) -> None:
        """See Wire."""
        assert self.reading, "paused twice"
        self.reading = False

    def resume_reading(self) -> None:
        """See Wire."""
        assert not self.reading, "resumed twice"
        self.reading = True
        self._server.runtime.soon(self._feed)

    def close(self) -> None:
        """See Wire."""
        self.closed = True

    def _feed(self) -> None:
        while self._held and self.reading and not self.closed:
            self.session.received(self._held.pop(0), self._server.runtime.monotonic_ns())
            self._server.runtime.run()
        if self._ended and not self._held:
            self.session.end_of_input()
        self._server.runtime.run()


def users_of(text: str) -> Users:
    """The users of a file's text; one account has a name."""
    accounts = {"www-data": 33}
    return users_from(tomllib.loads(text), accounts.__getitem__, accounts.__getitem__)


class MemoryServer:
    """A Host and everything behind it; with the `log` of another one it is that server after a kill.

    `users`: the text of a users file; everybody is a stranger then, but for the peers that it lets in.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        log: FakeLog | None = None,
        users: str = "",
        runtime: FakeRuntime | None = None,
        **log_options: Any,
    ) -> None:
        self.users = users_of(users) if users else None
        self.limits = limits or Limits()
        self.runtime = runtime or FakeRuntime()
        self.log = log or FakeLog(self.runtime.now_ns, **log_options)
        self.broker = Broker(self.log, self.runtime, self.limits)
        self.log.visible = self.broker.visible
        self.connections_open: list[MemoryConnection] = []
        self.unfinished = Unfinished(self.limits.unfinished_bytes)
        self.costly = Turnstile(self.runtime).ask

    # Door, for the gates.

    def known(self, name: bytes, token: bytes) -> Identity | None:
        """See Door."""
        assert self.users is not None
        return self.users.known(name, token)

    def of_peer(self, peer: Peer) -> Identity | None:
        """See Door."""
        assert self.users is not None
        return self.users.of_peer(peer)

    def renewed(self, identity: Identity) -> Identity | None:
        """See Door."""
        assert self.users is not None
        return self.users.renewed(identity)

    def read_users(self, users: str) -> None:
        """The users file is another now, and read again."""
        self.users = users_of(users)
        for connection in list(self.connections_open):
            connection.session.renew()
        self.runtime.run()

    def connect(self, peer: Peer | None = None) -> MemoryConnection:
        """A new connection."""
        gate = Gate(self if self.users is not None else None, peer, self.limits.unauthenticated_ns)
        connection = MemoryConnection(self, gate)
        self.connections_open.append(connection)
        return connection

    def advance(self, ns: int) -> None:
        """Let time pass."""
        self.runtime.advance(ns)
        for connection in self.connections_open:
            connection.session.expire(self.runtime.monotonic_ns())

    def identity(self) -> Pairs:
        """See Host."""
        return [("server", "busd"), ("version", "test")]

    def connections(self) -> Iterator[list[Row]]:
        """See Host."""
        yield [(str(number), [("peer", "memory")]) for number, _ in enumerate(self.connections_open, 1)]

    def info(self) -> Mapping[str, Pairs]:
        """See Host."""
        clients: Pairs = [("connections", len(self.connections_open))]
        return {"server": [("version", "test")], "health": [("status", "ok")], "clients": clients}
