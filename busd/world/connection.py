"""One socket: the asyncio side of a session."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import cast

from busd.broker.session import Session
from busd.rules.parts import Parts
from busd.rules.users import Peer
from busd.world.peers import keep_alive, silent_ns, unacknowledged_bytes
from busd.world.users import peer_of

_LOGGER = logging.getLogger("busd")

# No read from a socket is longer (uvloop has one buffer of 250 KiB for all of them), but what TLS kept while nothing
# was read may be twice as much at once; a session is given no more than this in a turn.
_READ_BYTES = 256 * 1024
# More commands than this are not taken apart in one turn of the loop: a read of `x\n` would be 131,072 errors, 77 MB
# and 0.6 s.  Those of RESP have several lines each.
_LINES = 4096
_RESP_LINES = 4 * _LINES
# Counting the lines of every read would cost 4 % of publishing; looked at are some parts of it.
_SAMPLE_BYTES = 512
_SAMPLES = 4
# A peer that does not take its last bytes for this long is cut off.
_LINGER_S = 30.0
# How often to look whether it has: a peer acknowledges at once, or within 40 ms when it has nothing to say.
_LINGER_LOOK_S = 0.02


class Connection(asyncio.Protocol):
    """A Wire (see busd.broker.session) over a transport."""

    def __init__(
        self,
        number: int,
        clock: Callable[[], int],
        entered: Callable[[Connection], Session | None],
        left: Callable[[Connection], None],
        keep_alive_ns: int,
        served: Callable[[int], None],
    ) -> None:
        self.number = number
        self.peer = ""
        self.session: Session | None = None
        self._clock = clock
        self._served = served
        self._entered = entered
        self._left = left
        self._transport: asyncio.Transport | None = None
        # See Outbox; while there is a transport it is that one's, as every PUB asks for it twice.
        self.buffered: Callable[[], int] = _nothing
        self._low_bytes = -1
        # Bytes that came and are not given to the session yet, from `_at` on.
        self._rest = b""
        self._at = 0
        self._paused = False
        self._more_soon = False
        self._keep_alive_ns = keep_alive_ns
        self._silent = False
        self._peer_ended = False
        # Once it is closing: cuts it off, at the latest, whatever the peer does meanwhile.
        self._cut: asyncio.TimerHandle | None = None

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        # Not a check by class: uvloop's transports do not derive from asyncio's.
        self._transport = transport = cast(asyncio.Transport, transport)
        self.buffered = transport.get_write_buffer_size
        sock: socket.socket = transport.get_extra_info("socket")
        address = transport.get_extra_info("peername")
        if sock.family == socket.AF_UNIX:
            self.peer = "unix"
        else:
            self.peer = f"{address[0]}:{address[1]}" if address else "?"
            keep_alive(sock, self._keep_alive_ns)
        self.bound(32 * 1024)
        self.session = self._entered(self)

    def who(self) -> Peer:
        """What the connection itself tells of its other end."""
        assert self._transport is not None
        return peer_of(self._transport.get_extra_info("socket"), self._transport.get_extra_info("peername"))

    def renew(self) -> None:
        """The users were read again."""
        if self.session is not None:
            try:
                self.session.renew()
            except Exception:
                self._fault(self.session)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        session = self.session
        if session is None or self._cut is not None:
            return
        if self._rest or (len(data) > _LINES and _dense(data)):
            self._rest = self._rest[self._at :] + data
            self._at = 0
            self._more()
            return
        came_ns = self._clock()
        try:
            session.received(data, came_ns)
        except Exception:
            self._fault(session)
        self._served(came_ns)

    def _fault(self, session: Session) -> None:
        _LOGGER.exception("a fault of busd in the connection of %s", self.peer)
        session.failed()

    def _more(self) -> None:
        """Give the session as much of the rest as one turn of the loop may take; no more is read meanwhile."""
        self._more_soon = False
        session = self.session
        if self._open is None or session is None:
            self._rest, self._at = b"", 0
            return
        if self._paused:
            return
        lines = _LINES if session.dialect == "inline" else _RESP_LINES
        left = min(len(self._rest) - self._at, _READ_BYTES)
        there = self._rest.count(b"\n", self._at, self._at + left)
        end = self._at + (left if there <= lines else max(1, left * lines // there))
        piece, self._at = self._rest[self._at : end], end
        if end == len(self._rest):
            self._rest, self._at = b"", 0
        try:
            session.received(piece, self._clock())
        except Exception:
            self._fault(session)
        if (transport := self._open) is None or self._paused:
            return
        if self._rest:
            transport.pause_reading()
            self._soon_more()
        else:
            transport.resume_reading()

    def _soon_more(self) -> None:
        if not self._more_soon:
            self._more_soon = True
            asyncio.get_running_loop().call_soon(self._more)

    def eof_received(self) -> bool:
        """The peer sends no more; the transport stays open for what is owed."""
        self._peer_ended = True
        if self._cut is not None:
            return False
        if self.session is not None:
            self.session.end_of_input()
        # TLS has no half-close.
        return self._transport is not None and self._transport.can_write_eof()

    def resume_writing(self) -> None:
        """See asyncio: high and low water mark are the same."""
        if self.session is not None:
            self.session.drained()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._transport = None
        self.buffered = _nothing
        if self._cut is not None:
            self._cut.cancel()
        if self.session is not None:
            self.session.lost()
        self._left(self)
        # The session knows us: a circle would wait for the collector, which comes seldom (busd.wiring.serve).
        self.session = None

    # Wire.

    @property
    def _open(self) -> asyncio.Transport | None:
        """The transport, until nothing is said any more."""
        open_still = self._transport is not None and self._cut is None and not self._transport.is_closing()
        return self._transport if open_still else None

    def write(self, data: bytes | Parts, events: int = 1) -> None:
        """See Outbox."""
        # As `_open`; one call less for each answer.
        transport = self._transport
        if transport is not None and self._cut is None and not transport.is_closing():
            if isinstance(data, bytes):
                transport.write(data)
            else:
                transport.writelines(data.pieces)

    def bound(self, low_bytes: int) -> None:
        """See Outbox."""
        if self._transport is not None and low_bytes != self._low_bytes:
            self._low_bytes = low_bytes
            self._transport.set_write_buffer_limits(high=low_bytes, low=low_bytes)

    def pause_reading(self) -> None:
        """See Wire."""
        self._paused = True
        if (transport := self._open) is not None:
            transport.pause_reading()

    def resume_reading(self) -> None:
        """See Wire."""
        self._paused = False
        if self._rest:
            self._soon_more()
        elif (transport := self._open) is not None:
            transport.resume_reading()

    def close(self) -> None:
        """See Wire.

        A close over bytes that were not read is a reset, and a reset throws away what is still on its way to the peer:
        answers to what was kept.  So the peer's bytes are read and dropped until it has acknowledged all of ours (on a
        Unix socket nothing is on its way).
        """
        if self._transport is None or self._cut is not None or self._transport.is_closing():
            return
        self._cut = asyncio.get_running_loop().call_later(_LINGER_S, self.abort)
        if self._peer_ended or not self._transport.can_write_eof():
            self._transport.close()
            return
        try:
            self._transport.write_eof()
        except OSError:
            # It is gone already.
            self.abort()
            return
        self._transport.resume_reading()
        self._linger()

    def _linger(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        sock = self._transport.get_extra_info("socket")
        # None: as in `look`.
        if self.buffered() or (self.peer != "unix" and sock is not None and unacknowledged_bytes(sock)):
            asyncio.get_running_loop().call_later(_LINGER_LOOK_S, self._linger)
        else:
            self._transport.close()

    def look(self) -> None:
        """Now and then: cut off a TCP peer that has left what was sent to it unanswered for too long.

        Twice seen, because a peer that lives may be seen once between a question and its answer.
        """
        if self._transport is None or self.peer == "unix":
            return
        sock = self._transport.get_extra_info("socket")
        if sock is None:
            # TLS that was lost: connection_lost comes in the next turn.
            return
        silent = silent_ns(sock) > self._keep_alive_ns
        if silent and self._silent:
            self.abort()
        self._silent = silent

    def abort(self) -> None:
        """Cut it off, whatever is queued."""
        if self._transport is not None:
            self._transport.abort()

    def fileno(self) -> int:
        """The socket's descriptor, -1 when it is gone."""
        if self._transport is None:
            return -1
        sock: socket.socket | None = self._transport.get_extra_info("socket")
        return -1 if sock is None else sock.fileno()


def _nothing() -> int:
    return 0


def _dense(data: bytes) -> bool:
    """True when a read of more than `_LINES` bytes may hold more than one turn should take."""
    if len(data) > _READ_BYTES:
        return True
    step = (len(data) - _SAMPLE_BYTES) // (_SAMPLES - 1)
    few = _SAMPLE_BYTES * _LINES // _READ_BYTES
    return any(data.count(b"\n", at, at + _SAMPLE_BYTES) > few for at in range(0, _SAMPLES * step, step))
