"""A blocking socket that speaks RESP."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque

from busd_client import wire
from busd_client.address import Address
from busd_client.events import ConnectionLost
from busd_client.keepalive import keep_alive
from busd_client.tls import tls_of

_READ_BYTES = 262_144
# Time for the handshake of TLS when connecting has taken all there was: a few ways there and back.
_HANDSHAKE_S = 0.1


def open_socket(address: Address, timeout_s: float | None) -> socket.socket:
    """Connect, the handshake of TLS included, within this time for each address that the name has.

    Raises:
        OSError: nobody is there, or nobody to trust.
    """
    if not address.path:
        began_s = time.monotonic()
        sock = socket.create_connection((address.host, address.port), timeout_s)
        keep_alive(sock)
        context = tls_of(address)
        if context is None:
            return sock
        try:
            if timeout_s is not None:
                sock.settimeout(max(_HANDSHAKE_S, timeout_s - (time.monotonic() - began_s)))
            wrapped = context.wrap_socket(sock, server_hostname=address.host)
            wrapped.settimeout(timeout_s)
            return wrapped
        except BaseException:
            sock.close()
            raise
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        sock.connect(address.path)
    except BaseException:
        sock.close()
        raise
    return sock


class Connection:
    """Commands out, replies in.  Every OSError after connecting is a ConnectionLost."""

    def __init__(self, address: Address, timeout_s: float | None) -> None:
        self._sock = open_socket(address, timeout_s)
        self._replies = wire.Replies()
        self._early: deque[wire.Reply] = deque()

    def ask(self, data: bytes) -> wire.Reply:
        """Send one command and wait for its reply."""
        self.send(data)
        while not self._early:
            self._early.extend(self.receive())
        return self._early.popleft()

    def send(self, data: bytes) -> None:
        """Send bytes."""
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise ConnectionLost.by(error) from None

    def receive(self) -> list[wire.Reply]:
        """Wait for bytes; the replies that are whole now, maybe none."""
        try:
            data = self._sock.recv(_READ_BYTES)
        except OSError as error:
            raise ConnectionLost.by(error) from None
        if not data:
            raise ConnectionLost("the server closed the connection")
        return self._replies.feed(data)

    def greet(self, token: str) -> None:
        """Say HELLO and who this is; closed when that fails.

        Raises:
            ConnectionLost: there was no answer.
            BusdError: the server refuses, or is no busd.
        """
        try:
            wire.check_hello(self.ask(wire.hello(token)))
        except BaseException:
            self.close()
            raise

    def break_off(self) -> None:
        """Wake whoever waits for it, with ConnectionLost; from any thread."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up."""
        self._sock.close()


def greeted(address: Address, timeout_s: float | None) -> Connection:
    """Connect, say HELLO and who this is.

    Raises:
        OSError: nobody is there, or nobody to trust.
        BusdError: the server refuses, or is no busd.
    """
    connection = Connection(address, timeout_s)
    connection.greet(address.token)
    return connection
