"""One blocking subscription on a connection of its own: the loop around `stream.Stream`.

Invariants: as in `aio_subscription`.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator
from typing import Self

from busd_client.address import Address
from busd_client.backoff import Backoff
from busd_client.events import ConnectionLost, End, Event
from busd_client.keepalive import leave_at_once
from busd_client.stream import Part, Stream, Wish, events_of
from busd_client.sync_socket import open_socket

_READ_BYTES = 262_144


class Subscription:
    """Iterate over it for events, over `batches()` for lists of them; made by `Client.subscribe`.

    `ended` tells the END (reason and next offset) once the iteration is over.
    """

    def __init__(
        self, address: Address, wish: Wish, reconnect: bool, on_lost: Callable[[OSError], None] | None
    ) -> None:
        self._address = address
        self._stream = Stream(wish)
        self._reconnect = reconnect
        self._on_lost = on_lost
        self._backoff = Backoff(random.random)
        self._sock: socket.socket | None = None
        self._early: list[Part] = []
        self._closed = False

    @property
    def ended(self) -> End | None:
        """The END, once it came."""
        return self._stream.ended

    @property
    def next(self) -> int | None:
        """Where it goes on after a lost connection: behind everything that was read; None before `start`.

        That is behind the list that `batches` gave last, but may be far behind the last event of a loop over events:
        who left such a loop goes on at that one's `offset` + 1.
        """
        return self._stream.next

    @property
    def epoch(self) -> int:
        """The server's epoch when it accepted the subscription; higher after a power cut that took messages."""
        return self._stream.epoch

    def start(self) -> int:
        """Subscribe now; returns the first offset that will be considered.  The iteration does it, too.

        Raises:
            OSError: nobody is there.
            BusdError: it was refused.
        """
        while not self._stream.live and self._stream.ended is None:
            try:
                if self._sock is None:
                    self._sock = open_socket(self._address, None)
                    leave_at_once(self._sock)
                    self._sock.sendall(self._stream.opening(time.monotonic_ns(), self._address.token))
                self._early += self._receive()
            except BaseException:
                self._hang_up()
                raise
        return self._stream.accepted

    def parts(self) -> Iterator[list[Part]]:
        """What came, a read at a time, with messages in runs: for those who handle thousands at once.

        Raises:
            BusdError: it was refused, or the server broke the protocol.
            ConnectionLost: the connection ended and `reconnect` is off.
            OSError: the first attempt to connect failed.
        """
        self.start()
        try:
            while True:
                parts, self._early = self._early, []
                if parts:
                    yield parts
                if self._closed or self._stream.ended is not None:
                    return
                try:
                    self._early = self._receive()
                except OSError as error:
                    self._recover(error)
        finally:
            self.close()

    def batches(self) -> Iterator[list[Event]]:
        """Events in lists, as they came: faster than one by one.  Raises as `parts`."""
        for parts in self.parts():
            yield events_of(parts)

    def __iter__(self) -> Iterator[Event]:
        for parts in self.parts():
            yield from events_of(parts)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; the iteration ends."""
        self._closed = True
        self._hang_up()

    def _receive(self) -> list[Part]:
        if self._sock is None:
            raise ConnectionLost("there is no connection")
        self._stream.check()
        try:
            data = self._sock.recv(_READ_BYTES)
        except OSError as error:
            raise ConnectionLost.by(error) from None
        if not data:
            raise ConnectionLost("the server closed the connection")
        parts = self._stream.feed(data)
        if self._stream.live:
            self._backoff.reset()
        return parts

    def _recover(self, error: OSError) -> None:
        """Connect again, or raise what made it necessary."""
        self._hang_up()
        self._stream.lost(time.monotonic_ns())
        if self._closed or self._stream.ended is not None:
            return
        if not self._reconnect:
            raise error
        if self._on_lost is not None:
            self._on_lost(error)
        while not self._closed and self._stream.ended is None:
            time.sleep(self._backoff.next_s())
            try:
                self.start()
                return
            except OSError:
                self._hang_up()
                self._stream.lost(time.monotonic_ns())

    def _hang_up(self) -> None:
        if self._sock is not None:
            self._sock.close()
        self._sock = None
