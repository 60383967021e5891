"""The server: listening sockets, connections, a look around once a second, a stop in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import busd
from busd.broker.broker import Broker
from busd.broker.gate import Gate
from busd.broker.intake import Unfinished
from busd.broker.session import Session
from busd.broker.turnstile import Turnstile
from busd.rules.replies import Pairs, Row
from busd.rules.users import BadUsers
from busd.words.settings import Settings
from busd.words.units import NS_PER_S
from busd.world.accept import Acceptor
from busd.world.busy_poll import BusyPoll, limit_ns
from busd.world.commit import CommitThread
from busd.world.connection import Connection
from busd.world.disk import Disk
from busd.world.health import Watch
from busd.world.journal import Seldom, events
from busd.world.runtime import LoopRuntime
from busd.world.sockets import identity, listen_tcp, listen_unix, unlink_own
from busd.world.start import Opened, open_log
from busd.world.tls import BadCertificate, tls_context
from busd.world.users import UsersFile

# TCP peers are looked at so often (seconds), a part of them each second.
_LOOK_EVERY = 10
# Connections told by CONNS in one turn of the loop: about a millisecond.
_ROWS = 256


def boot_id() -> str:
    """An id that changes with every start of the machine; empty where the system has none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def address_of(sock: socket.socket) -> str:
    """`host:port` of a listening socket."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(slots=True)
class _Listening:
    acceptor: Acceptor
    path: str = ""
    own: tuple[int, int] | None = None


class Server:
    """A broker on its sockets, for the running event loop.  `report`: what recovery found."""

    def __init__(self, settings: Settings, disk: Disk) -> None:
        self.settings = settings
        self.report: list[str] = []
        self.tcp_address = ""
        self.tls_address = ""
        self.unix_path = ""
        self._disk = disk
        self._users: UsersFile | None = None
        self._tls: ssl.SSLContext | None = None
        self._connections: dict[Connection, None] = {}
        # Those who had not said who they are when last looked at, the longest first.
        self._strangers: dict[Connection, None] = {}
        self._accepted = 0
        self._listening: list[_Listening] = []
        self._began_ns = time.monotonic_ns()
        self._tick: asyncio.TimerHandle | None = None
        self._ticks = 0
        self._seldom = Seldom(time.monotonic)
        self._all_gone: asyncio.Event = asyncio.Event()
        self.unfinished = Unfinished(settings.limits.unfinished_bytes)

    async def start(self) -> None:
        """Read users and certificate, open the log, then listen.

        Raises:
            BadUsers, BadCertificate: from the files that the settings name.
            Locked, WrongFormat, DiskFull, DiskFailed: from the data directory.
            BadAddress: from the sockets; the log is closed again.
        """
        loop = asyncio.get_running_loop()
        self._users = UsersFile(self.settings.users) if self.settings.users else None
        self._tls = tls_context(self.settings) if self.settings.tls else None
        self._runtime = LoopRuntime(loop)
        self._turnstile = Turnstile(self._runtime)
        poll_ns = limit_ns(self.settings.busy_poll_us, os.cpu_count())
        self._poll = BusyPoll(poll_ns, self._runtime, time.monotonic_ns, os.sched_yield)
        committer = CommitThread(loop, self._runtime.away, self._poll.answered)
        try:
            self._opened: Opened = await loop.run_in_executor(
                None, open_log, self._disk, self.settings, self._runtime, committer, boot_id()
            )
        except BaseException:
            committer.close()
            raise
        self._log = self._opened.log
        self.report = self._opened.report
        self._broker = Broker(self._log, self._runtime, self.settings.limits)
        self._log.visible = self._broker.visible
        self._log.room.on_room = self._broker.room
        try:
            self._listen()
        except BaseException:
            await self.stop()
            raise
        self._log.start()
        self._watch = Watch(self._log, committer, self._runtime.monotonic_ns, self._broker.unburied)
        self._look_around()

    async def reload(self) -> None:
        """Read users and certificate again.  What cannot be used stays as it was, and an event says why."""
        loop = asyncio.get_running_loop()
        if self._users is None and self._tls is None:
            events.info("nothing to read again", why="there are neither users nor a certificate")
        if self._users is not None:
            try:
                await loop.run_in_executor(None, self._users.reload)
            except BadUsers as error:
                events.error("users not read, they stay as they were", why=str(error))
            else:
                for connection in list(self._connections):
                    connection.renew()
                events.info("users read", file=self.settings.users)
        if self._tls is not None:
            try:
                self._tls = await loop.run_in_executor(None, tls_context, self.settings)
            except BadCertificate as error:
                events.error("certificate not read, it stays as it was", why=str(error))
            else:
                for listening in self._listening:
                    listening.acceptor.renew(self._tls)
                events.info("certificate read", file=self.settings.tls_cert)

    async def stop(self) -> bool:
        """Stop accepting; answer what was accepted; end subscriptions; close connections; close the log.

        Disk and peers are waited for half of the time that `stop` allows, the closing of the files the rest of it.
        False when the files were not closed by then: a thread still waits for the disk.
        """
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self.settings.stop_ns / NS_PER_S
        deadline = loop.time() + self.settings.stop_ns / NS_PER_S / 2
        for listening in self._listening:
            listening.acceptor.close()
            unlink_own(listening.path, listening.own)
        if self._tick is not None:
            self._tick.cancel()
        self._log.refuse()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle(), deadline - loop.time())
        self._broker.stop()
        for connection in list(self._connections):
            if connection.session is not None:
                connection.session.stop()
        if self._connections:
            try:
                await asyncio.wait_for(self._all_gone.wait(), max(0.1, deadline - loop.time()))
            except TimeoutError:
                for connection in list(self._connections):
                    connection.abort()
        try:
            await asyncio.wait_for(self._close_files(loop), max(0.1, end_s - loop.time()))
        except TimeoutError:
            return False
        return True

    async def _idle(self) -> None:
        """Until all that was accepted is decided."""
        while not self._log.idle:
            decided = asyncio.Event()
            self._log.on_idle = decided.set
            await decided.wait()

    async def _close_files(self, loop: asyncio.AbstractEventLoop) -> None:
        # A commit may be under way still, and what becomes of it is taken in by the loop: nothing closes beside that.
        await self._idle()
        self._runtime.stop()
        await loop.run_in_executor(None, self._runtime.close)
        # What those threads brought back is taken in before the log closes.
        await asyncio.sleep(0)
        await self._idle()
        await loop.run_in_executor(None, self._log.close)
        self._opened.lock.release()

    # Host, for the sessions.

    def costly(self, call: Callable[[], Iterator[None] | None]) -> None:
        """See Host."""
        self._turnstile.ask(call)

    def identity(self) -> Pairs:
        """See Host."""
        return [("server", "busd"), ("version", busd.__version__)]

    def connections(self) -> Iterator[list[Row]]:
        """See Host."""
        there = [*self._connections]
        for lo in range(0, len(there), _ROWS):
            yield self._rows(there[lo : lo + _ROWS])

    def _rows(self, some: Iterable[Connection]) -> list[Row]:
        rows: list[Row] = []
        for connection in some:
            session = connection.session
            if session is not None:
                facts: Pairs = [
                    ("peer", connection.peer),
                    ("dialect", session.dialect),
                    ("sub", session.subscription or "-"),
                    ("outbox", connection.buffered()),
                    ("user", session.gate.name),
                ]
                rows.append((str(connection.number), facts))
        return rows

    def info(self) -> Mapping[str, Pairs]:
        """See Host."""
        uptime_s = (time.monotonic_ns() - self._began_ns) // 1_000_000_000
        server: Pairs = [
            *self.identity()[1:],
            ("proto", 1),
            ("uptime_s", uptime_s),
            ("pid", os.getpid()),
            ("tcp", self.tcp_address),
            ("tls", self.tls_address),
            ("unix", self.unix_path),
        ]
        clients: Pairs = [("connections", len(self._connections))]
        return {"server": server, "health": self._watch.facts(), "clients": clients}

    # Connections.

    def _listen(self) -> None:
        settings = self.settings
        if settings.tcp:
            sock = listen_tcp(settings.tcp)
            self.tcp_address = address_of(sock)
            self._listening.append(_Listening(self._acceptor(sock)))
        if settings.tls:
            sock = listen_tcp(settings.tls)
            self.tls_address = address_of(sock)
            self._listening.append(_Listening(self._acceptor(sock, self._tls)))
        if settings.unix:
            sock = listen_unix(settings.unix, settings.unix_mode)
            self.unix_path = settings.unix
            own = identity(settings.unix)
            self._listening.append(_Listening(self._acceptor(sock), settings.unix, own))

    def _acceptor(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> Acceptor:
        return Acceptor(sock, self._connection, self._refusal, self._seldom, tls)

    def _refusal(self) -> str:
        """Why no more connections are taken, or nothing."""
        limit = self.settings.limits.connections
        under_way = sum(listening.acceptor.under_way for listening in self._listening)
        return f"{limit} connections are open; no more are taken" if len(self._connections) + under_way >= limit else ""

    def _connection(self) -> Connection:
        self._accepted += 1
        keep_alive_ns = self.settings.limits.keep_alive_ns
        return Connection(self._accepted, time.monotonic_ns, self._enter, self._leave, keep_alive_ns, self._poll.served)

    def _enter(self, connection: Connection) -> Session:
        self._connections[connection] = None
        for listening in self._listening:
            listening.acceptor.arrived(connection)
        self._all_gone.clear()
        session = Session(self._broker, connection, self, self.settings.limits, self._gate(connection))
        if session.gate.stranger:
            self._make_way(connection)
        return session

    def _make_way(self, newest: Connection) -> None:
        """Of strangers there are a quarter of all connections at most; then who has been one for longest goes.

        So who says at once who it is gets in, however many others say nothing.
        """
        most = max(1, self.settings.limits.connections // 4)
        if len(self._strangers) >= most:
            self._strangers = {one: None for one in self._strangers if one.session and one.session.gate.stranger}
        if len(self._strangers) >= most:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            assert oldest.session is not None
            oldest.session.gate.give_way()
            oldest.session.expire(time.monotonic_ns())
            # Its place is needed now; what it was told has gone to the kernel.
            oldest.abort()
        self._strangers[newest] = None

    def _gate(self, connection: Connection) -> Gate:
        users = self._users
        if users is None:
            return Gate()
        return Gate(users, connection.who(), self.settings.limits.unauthenticated_ns)

    def _leave(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        self._strangers.pop(connection, None)
        if not self._connections:
            self._all_gone.set()

    def _look_around(self) -> None:
        """Once a second: health, commands never finished, and peers that are gone."""
        # First, so that a fault below costs one look around and not all that would follow.
        self._tick = asyncio.get_running_loop().call_later(1.0, self._look_around)
        self._ticks += 1
        self._watch.look()
        now_ns = time.monotonic_ns()
        quiet = select.poll()
        watched: dict[int, Connection] = {}
        for connection in list(self._connections):
            if (connection.number + self._ticks) % _LOOK_EVERY < 2:
                # In two seconds running: once may be by chance.
                connection.look()
            session = connection.session
            if session is None:
                continue
            session.expire(now_ns)
            if session.half_closed and (fd := connection.fileno()) >= 0:
                quiet.register(fd, 0)
                watched[fd] = connection
        for fd, _ in quiet.poll(0) if watched else ():
            watched[fd].abort()
