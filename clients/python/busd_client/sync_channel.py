"""A channel between processes: unbounded in length, bounded in memory, kept in a directory; for blocking code.

    sender, receiver = channel("jobs", "/var/spool/app")
    sender.send(b"hello")          # here
    for value in receiver: ...     # and there, or later

Many senders, in any processes, and one receiver.  Invariants:
1. `send` returns: the value is taken, and leaves in order while this process lives.  `flush` returns: the server has
   all of them, as its sync policy says.  `send` raises Full: it was not taken.
2. A value leaves the disk when the receiver asks for the next one, or calls `done`; before that it comes again.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from busd_client import wire
from busd_client.channel_core import AGAIN_S, Full, Incoming, Outgoing, receiver_wish
from busd_client.channel_place import Place, Stay
from busd_client.events import BusdError, ConnectionLost
from busd_client.stream import COMING_BACK
from busd_client.sync_group import GroupSubscription
from busd_client.sync_socket import Connection, greeted

# The end is asked for at least for so long, however little time `close` was given.
_END_S = 1.0
# The thread ends at once, unless it waits for a server to start or to take its connection.
_THREAD_S = 5.0


def channel(
    name: str, directory: str | Path, *, max_bytes: int | None = None, sync: str = "interval"
) -> tuple[Sender, Receiver]:
    """Both ends of a channel; use the one you need.  A server is started in the directory when there is none.

    Args:
        name: as a topic.
        directory: where it lives; short, for the path of a socket has 107 bytes.
        max_bytes: of its files, for senders to be told Full; None for no limit.  With whoever starts the server.
        sync: its policy.  `interval`, the default, loses nothing when a process or busd dies, and at most the last
            second when the power fails; `always` waits for the disk and loses nothing then, either.

    Raises:
        ValueError: a name or path that cannot be used.
        OSError: the server does not start.
    """
    place = Place(Path(directory), name, max_bytes, sync)
    place.ensure()
    return Sender(place), Receiver(place)


class Sender:
    """The end to put values in; for any threads.  Made by `channel`."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._stay = Stay(place)
        self._outgoing = Outgoing()
        self._changed = threading.Condition()
        self._failure: Exception | None = None
        self._closed = False
        self._thread: threading.Thread | None = None
        # That of the thread, while it may wait for an answer.
        self._connection: Connection | None = None

    def send(self, value: bytes) -> None:
        """Take a value, to be sent; waits only while 1 MiB or 10,000 of them are under way.

        Raises:
            Full: there is no room; it was not taken, and may be sent again later.
            ValueError: it is too large, or the sender is closed.
            BusdError: the channel has failed.
            OSError: the server does not start.
        """
        with self._changed:
            self._usable()
            while not self._outgoing.roomy and self._outgoing.full is None:
                self._changed.wait()
                self._usable()
            self._outgoing.check()
            self._outgoing.take(value)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"busd-{self._place.name}", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all values taken are kept.

        Raises:
            Full: there is no room for some; they stay here and are sent when there is.
            ValueError: the sender is closed.
            BusdError: the channel has failed.
            OSError: the server does not start.
        """
        with self._changed:
            while self._outgoing and self._outgoing.full is None:
                self._usable()
                self._changed.wait()
            self._usable()
            self._outgoing.check()

    def close(self, *, end: bool = True, wait_s: float = 30.0) -> None:
        """Send what is left, and the end: the receiver stops behind the last value.

        Args:
            end: False when other senders go on.
            wait_s: how long it may wait for room, and for answers.

        Raises:
            Full: there was none; its `values` are what could not be sent, and the end was not sent.
            BusdError: the channel has failed.
            OSError: the server does not start.
        """
        if self._closed:
            return
        give_up_s = time.monotonic() + wait_s
        try:
            with self._changed:
                while self._outgoing and self._failure is None:
                    left_s = give_up_s - time.monotonic()
                    if left_s <= 0:
                        raise Full(f"no room, or no answer, for {wait_s} s", self._outgoing.values())
                    self._changed.wait(left_s)
                self._usable()
            if end:
                self._end(give_up_s)
        finally:
            with self._changed:
                self._closed = True
                if self._connection is not None:
                    self._connection.break_off()
                self._changed.notify_all()
            if self._thread is not None:
                self._thread.join(_THREAD_S)
            self._stay.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        # A sender that fails half-way has not said all.
        self.close(end=kind is None)

    def _usable(self) -> None:
        if self._closed:
            raise ValueError("the sender is closed")
        self._stay.begin()
        if self._failure is not None:
            raise self._failure

    def _end(self, give_up_s: float) -> None:
        while True:
            left_s = max(_END_S, give_up_s - time.monotonic())
            self._place.ensure(left_s)
            with (
                contextlib.suppress(OSError),
                contextlib.closing(greeted(self._place.address, left_s)) as connection,
            ):
                answer = connection.ask(wire.command("EOF", self._place.name))
                if not (isinstance(answer, BusdError) and answer.code in ("FULL", *COMING_BACK)):
                    wire.check_integer(answer)
                    return
            if time.monotonic() > give_up_s:
                raise Full("no room, or no answer, for the end")
            time.sleep(AGAIN_S)

    def _run(self) -> None:
        """The thread: one command after another."""
        connection: Connection | None = None
        outgoing, changed = self._outgoing, self._changed
        try:
            while True:
                with changed:
                    while not outgoing and not self._closed:
                        changed.wait()
                    if self._closed:
                        return
                    command = outgoing.command(self._place.name)
                connection = connection or self._connect()
                try:
                    answer = connection.ask(command)
                except ConnectionLost:
                    # Whether it was kept is not known, so it is sent again.
                    connection.close()
                    connection = None
                    continue
                if isinstance(answer, BusdError) and answer.code in COMING_BACK:
                    connection.close()
                    connection = None
                    continue
                with changed:
                    again = outgoing.answered(answer)
                    changed.notify_all()
                    if not again and not self._closed:
                        changed.wait(AGAIN_S)
        except Exception as error:
            with changed:
                self._failure = error
                changed.notify_all()
        finally:
            if connection is not None:
                connection.close()

    def _connect(self) -> Connection:
        while not self._closed:
            self._place.ensure()
            # It may have stopped again since.
            with contextlib.suppress(OSError):
                connection = Connection(self._place.address, None)
                with self._changed:
                    self._connection = connection
                    if self._closed:
                        connection.break_off()
                connection.greet(self._place.address.token)
                return connection
        raise ConnectionLost("the sender was closed here")


class Receiver:
    """The end to take values from: iterate over it, or `receive`.  For one thread.  Made by `channel`."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._stay = Stay(place)
        self._incoming = Incoming()
        self._subscription: GroupSubscription | None = None
        self._closed = False

    def receive(self, timeout_s: float | None = None) -> bytes:
        """The next value; the one before is done.

        Raises:
            EOFError: the senders have said that it is the end.
            TimeoutError: nothing came in this time.
            Busy: the channel has another receiver.
            OSError: the server does not start.
        """
        give_up_s = None if timeout_s is None else time.monotonic() + timeout_s
        subscription = self._joined()
        self._incoming.done()
        while not self._incoming.ready:
            if self._incoming.at_end():
                raise EOFError(f"the channel {self._place.name} has ended")
            parts = subscription.more(None if give_up_s is None else max(0.0, give_up_s - time.monotonic()))
            if not parts:
                self._check()
                raise TimeoutError(f"nothing came in {timeout_s} s")
            self._incoming.add(parts)
        return self._incoming.next()

    def done(self) -> None:
        """The value received last is dealt with, and leaves the disk; `receive` says so of the one before, too."""
        self._incoming.done()
        if self._subscription is not None:
            with contextlib.suppress(ConnectionLost):
                self._subscription.flush()

    def __iter__(self) -> Iterator[bytes]:
        with contextlib.suppress(EOFError):
            while True:
                yield self.receive()

    def close(self) -> None:
        """Leave; the value received last comes again unless it is done."""
        if self._closed:
            return
        self._closed = True
        if self._subscription is not None:
            self._subscription.close()
        self._place.release()
        self._stay.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self) -> None:
        if self._closed:
            raise ValueError("the receiver is closed")
        self._stay.begin()

    def _joined(self) -> GroupSubscription:
        self._check()
        if self._subscription is None:
            self._place.claim()
            self._place.ensure()
            wish, place = receiver_wish(self._place.name), self._place
            self._subscription = GroupSubscription(place.address, wish, before=lambda: place.ensure(0))
        return self._subscription
