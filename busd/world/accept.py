"""Taking connections: as many as there are places and descriptors for; the others are told, and cost nothing.

Accepting is done here and not by asyncio, which takes all that wait at once, over any limit, and lets the ones that get
no descriptor go without a word.  Invariants:
1. The last RESERVED descriptors are never given to connections: the log needs some to go on.
2. A socket that is turned away is closed within the call.
3. When the system has none left, accepting pauses; nothing spins, and connections that are open go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from ssl import SSLContext

from busd.words.errors import BusError
from busd.world.descriptors import RESERVED, descriptor_limit
from busd.world.journal import Seldom

# More in one turn would keep the others waiting.
_AT_ONCE = 64
# A TLS handshake that takes longer is no client.
_HANDSHAKE_S = 10.0
# So many at once: each may cost a millisecond of the loop, and none has said a word that busd could judge it by.
_HANDSHAKES = 256
_PAUSE_S = 1.0


class Acceptor:
    """One listening socket.

    Args:
        sock: listening, not blocking; closed by `close`.
        make: makes the protocol of a connection.
        refusal: called before a connection is taken; why not, or nothing.
        seldom: where what a person should know is told.
        tls: for sockets that speak TLS.
    """

    def __init__(
        self,
        sock: socket.socket,
        make: Callable[[], asyncio.BaseProtocol],
        refusal: Callable[[], str],
        seldom: Seldom,
        tls: SSLContext | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._make = make
        self._refusal = refusal
        self._seldom = seldom
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way: set[asyncio.BaseProtocol] = set()
        self._resume: asyncio.TimerHandle | None = None
        self._descriptors = descriptor_limit()
        self._loop.add_reader(sock.fileno(), self._ready)

    @property
    def under_way(self) -> int:
        """Connections that were taken and have no session yet."""
        return len(self._under_way)

    def arrived(self, protocol: asyncio.BaseProtocol) -> None:
        """It has its session, if it is one of these: from now on it is counted there.

        Its task ends a turn or two later, and for that time it would be counted twice.
        """
        self._under_way.discard(protocol)

    def renew(self, tls: SSLContext) -> None:
        """From now on this, where it speaks TLS."""
        self._tls = tls if self._tls is not None else None

    def close(self) -> None:
        """Take no more; what was taken goes on."""
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()

    def _ready(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            sock.setblocking(False)
            why = self._refusal()
            if not why and sock.fileno() >= self._descriptors - RESERVED:
                # The lowest free number is given out, so this one tells how many are in use.
                why = f"{self._descriptors} descriptors are all the server may have; no more connections are taken"
            if not why and self._tls is not None and len(self._under_way) >= _HANDSHAKES:
                why = f"{_HANDSHAKES} TLS handshakes are under way; no more are begun"
            if why:
                self._seldom.warning("connection refused", why=why)
                turn_away(sock, why)
            else:
                protocol = self._make()
                self._under_way.add(protocol)
                task = self._loop.create_task(self._hand_over(sock, protocol))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _hand_over(self, sock: socket.socket, protocol: asyncio.BaseProtocol) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: protocol, sock, ssl=self._tls, ssl_handshake_timeout=_HANDSHAKE_S if self._tls else None
            )
        except OSError:
            # It left, or its TLS was none (SSLError is an OSError).
            sock.close()
        finally:
            self._under_way.discard(protocol)

    def _pause(self, error: OSError) -> None:
        self._seldom.warning("accepting paused", why=error.strerror or str(error))
        self._loop.remove_reader(self._sock.fileno())
        self._resume = self._loop.call_later(_PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        self._loop.add_reader(self._sock.fileno(), self._ready)


def turn_away(sock: socket.socket, why: str) -> None:
    """Tell the peer why, and close."""
    with contextlib.suppress(OSError):
        sock.send(f"-{BusError('LIMIT', why)}\n".encode())
        sock.shutdown(socket.SHUT_WR)
        # A close over unread bytes would be a reset, which may overtake what was told.
        sock.recv(1 << 16)
    sock.close()
