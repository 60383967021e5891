"""One blocking membership of a group on a connection of its own: the loop around `group_stream.GroupStream`.

Invariants:
1. Acknowledgements are gathered while there is something to work on, for 50 ms at most after the one before.
2. Answers are read when the next message is asked for, and by `flush` and `close`.
3. After a lost connection it joins again, after growing pauses; what came by the old one comes again.
4. Who waits for a time only gets away in time, also while it joins: the next call goes on where this one was.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Self

from busd_client.address import Address
from busd_client.backoff import Backoff
from busd_client.deliveries import Batch, Deliveries, Delivery, GroupEvent, GroupPart
from busd_client.events import BusdError, ConnectionLost, End, EndOfStream, Gap, Reset
from busd_client.group_stream import GroupStream, GroupWish, deliveries_of, taken_apart
from busd_client.sync_socket import open_socket

_READ_BYTES = 262_144
# An acknowledgement waits no longer than this for others, if the one before went that long ago or longer.
_GATHER_S = 0.05
# How long `close` waits for the answers to the last acknowledgements; a commit on a bad day takes one or two.
_CLOSE_S = 5.0
# Time for an attempt to connect, however little is left: with less than a few ways there and back none would succeed.
_CONNECT_S = 0.25
# The same for a record of TLS of which a part is there.
_TLS_S = 0.001
# Gaps that are remembered for who does not look at every event.
_GAPS = 100


class GroupSubscription:
    """Deliveries of a group, to be acknowledged; made by `Client.subscribe(…, group=…)`.

        with busd.subscribe("jobs.>", group="g", window=100) as jobs:
            for job in jobs.acked():        # each is acknowledged when the next is asked for
                ...

    The same names as in `busd_client.aio_group`.  For one thread at a time.  Leaving a loop leaves it open, for what is
    in hand; closing it, by `with`, gives back the rest at once.
    """

    def __init__(
        self,
        address: Address,
        wish: GroupWish,
        reconnect: bool = True,
        on_lost: Callable[[OSError], None] | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        self._address = address
        self._stream = GroupStream(wish, self._gather)
        self._reconnect = reconnect
        self._on_lost = on_lost
        # Called before every attempt to connect.
        self._before = before
        self._backoff = Backoff(random.random)
        self._sock: socket.socket | None = None
        self._broken: ConnectionLost | None = None
        self._early: list[GroupPart] = []
        self._sent_s = 0.0
        self._joined = False
        # While it joins again: when the next attempt may begin, by the clock that only rises.
        self._again_s: float | None = None
        self._closed = False
        self.gaps: deque[Gap] = deque(maxlen=_GAPS)

    @property
    def ended(self) -> End | None:
        """The END, once it came."""
        return self._stream.ended

    @property
    def epoch(self) -> int:
        """The server's epoch when it accepted the subscription."""
        return self._stream.epoch

    @property
    def settled(self) -> int:
        """Deliveries that the server said it settled."""
        return self._stream.settled

    @property
    def stale(self) -> int:
        """Deliveries that were acknowledged, given back or touched too late; others have them now."""
        return self._stream.stale

    @property
    def open(self) -> int:
        """Deliveries of the present connection that are neither done nor given back."""
        return self._stream.ledger.open

    def start(self) -> int:
        """Join now; returns where the group stands: everything of it below is settled.  The iteration does it, too.

        Raises:
            OSError: nobody is there.
            BusdError: it was refused.
        """
        self._join(None)
        return self._stream.accepted

    def _join(self, give_up_s: float | None) -> bool:
        """False when that was not done in time."""
        while not self._stream.live and self._stream.ended is None:
            try:
                if self._sock is None and not self._connected(give_up_s):
                    return False
                parts = self._received(give_up_s)
            except BaseException:
                self._hang_up()
                raise
            if parts is None:
                return False
            self._early += parts
        self._joined, self._again_s = True, None
        return True

    def _connected(self, give_up_s: float | None) -> bool:
        """Connect and ask to join; False when that was not done in time."""
        if self._before is not None:
            self._before()
        try:
            self._sock = open_socket(self._address, None if give_up_s is None else max(_CONNECT_S, _left_s(give_up_s)))
        except TimeoutError as error:
            if give_up_s is None or not _too_late(error):
                raise
            return False
        self._sock.settimeout(None)
        self._broken = None
        self._sock.sendall(self._stream.opening(time.monotonic_ns(), self._address.token))
        return True

    def more(self, timeout_s: float | None = None) -> list[GroupPart]:
        """What comes next, as `parts` gives it; empty when the subscription is over, or nothing came in this time.

        Connecting again is part of that time, but for a quarter of a second that an attempt may take at any rate.
        Raises as `parts`.
        """
        give_up_s = None if timeout_s is None else time.monotonic() + timeout_s
        if not self._joined and not self._join(give_up_s):
            return []
        while not self._closed:
            parts, self._early = self._early, []
            if parts:
                return parts
            if self._stream.ended is not None:
                break
            if self._again_s is not None:
                if not self._joined_again(give_up_s):
                    break
                continue
            try:
                self._stream.check()
                self._send()
                received = self._received(give_up_s)
            except OSError as error:
                self._recover(error)
                continue
            if received is None:
                break
            self._early = received
        return []

    def parts(self) -> Iterator[list[GroupPart]]:
        """What came, a read at a time, first deliveries in runs: for those who handle thousands at once.

        Raises:
            BusdError: it was refused, or the server broke the protocol.
            ConnectionLost: the connection ended and `reconnect` is off.
            OSError: the first attempt to connect failed.
        """
        # Not in a `finally`: what was given out may still be acknowledged after a loop was left.
        while parts := self.more():
            yield parts
        self.close()

    def __iter__(self) -> Iterator[GroupEvent]:
        for parts in self.parts():
            yield from taken_apart(parts)

    def acked(self) -> Iterator[Delivery]:
        """Messages; each is acknowledged when the next is asked for.  The one at which a loop is left is not."""
        for parts in self.parts():
            for part in parts:
                if isinstance(part, Deliveries):
                    for delivery in part.messages():
                        yield delivery
                        delivery.ack()
                elif isinstance(part, Delivery):
                    yield part
                    part.ack()
                else:
                    self._note(part)

    def batches(self) -> Iterator[Batch]:
        """Messages in lists, as they came; `ack` of a list is for all in it."""
        for parts in self.parts():
            for part in parts:
                if not isinstance(part, Deliveries | Delivery):
                    self._note(part)
            if batch := Batch(deliveries_of(parts)):
                yield batch

    def acked_batches(self) -> Iterator[Batch]:
        """The same; each is acknowledged when the next is asked for."""
        for batch in self.batches():
            yield batch
            batch.ack()

    def drain(self) -> None:
        """Take no more: what is in hand may be settled, then the iteration ends.  For workers that stop."""
        if self._stream.live:
            self._stream.drain()
        else:
            self._closed = True

    def flush(self, *, strict: bool = False) -> None:
        """Wait until what was acknowledged, given back or touched so far is answered.

        Args:
            strict: raise Stale when some of it came too late, since the last `flush`.

        Raises:
            BusdError: it could not be kept; what is not settled comes again.
            ConnectionLost: the connection ended before the answers, now or since the last `flush`; what was not settled
                comes again.
        """
        ledger = self._stream.ledger
        self._send()
        try:
            while not ledger.closed and ledger.unanswered:
                self._early += self._receive()
        except ConnectionLost as error:
            # Nothing more is read of it: the ledger would not know what came.
            self._broken = error
            ledger.close(told=True)
            raise
        ledger.check(strict)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Tell what is acknowledged, give back the rest, hang up; the iteration ends.

        What an answer says is not raised here; `flush` does that.
        """
        self._closed = True
        try:
            if self._sock is not None and self._stream.live:
                self._sock.settimeout(_CLOSE_S)
                with contextlib.suppress(Exception):
                    self.flush()
        finally:
            self._hang_up()

    def _note(self, event: Gap | EndOfStream | Reset) -> None:
        if isinstance(event, Gap):
            self.gaps.append(event)

    def _gather(self, now: bool) -> None:
        if now or time.monotonic() - self._sent_s > _GATHER_S:
            self._send()

    def _send(self) -> None:
        if self._sock is None or self._broken is not None or not self._stream.live:
            return
        try:
            if told := self._stream.ledger.commands():
                self._sent_s = time.monotonic()
                self._sock.sendall(told)
        except OSError as error:
            # For who asks next: `ack` says nothing of it.
            self._broken = ConnectionLost.by(error)
        except BaseException:
            self._broken = ConnectionLost("it was interrupted in the middle of a command")
            raise

    def _received(self, give_up_s: float | None) -> list[GroupPart] | None:
        """What came; None when nothing did in time."""
        # Also without a limit: who is interrupted while it waits here has missed nothing.
        if not self._readable(None if give_up_s is None else _left_s(give_up_s)):
            return None
        sock = self._sock
        if give_up_s is None or not isinstance(sock, ssl.SSLSocket):
            return self._receive()
        # What can be read may be less than a record, or nothing that TLS gives on.
        sock.settimeout(max(_TLS_S, _left_s(give_up_s)))
        try:
            return self._receive()
        except TimeoutError as error:
            if not _too_late(error):
                raise
            return None
        finally:
            sock.settimeout(None)

    def _readable(self, timeout_s: float | None) -> bool:
        if self._sock is None or self._broken is not None:
            return True
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return True
        # Not select: it takes no descriptor above 1023.
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(None if timeout_s is None else timeout_s * 1_000))

    def _receive(self) -> list[GroupPart]:
        if self._broken is not None:
            raise self._broken
        if self._sock is None:
            raise ConnectionLost("there is no connection")
        self._stream.check()
        try:
            data = self._sock.recv(_READ_BYTES)
            parts = self._stream.feed(data)
        except (BusdError, ConnectionLost):
            raise
        except OSError as error:
            if isinstance(error, TimeoutError) and _too_late(error):
                raise
            raise ConnectionLost.by(error) from None
        except BaseException:
            self._broken = ConnectionLost("it was interrupted while it was read")
            raise
        if not data:
            raise ConnectionLost("the server closed the connection")
        if self._stream.live:
            self._backoff.reset()
        return parts

    def _recover(self, error: OSError) -> None:
        """Begin to join again, or raise what made it necessary."""
        self._hang_up()
        self._stream.lost(time.monotonic_ns())
        if self._closed or self._stream.ended is not None:
            return
        if not self._reconnect:
            raise error
        if self._on_lost is not None:
            self._on_lost(error)
        self._again_s = time.monotonic() + self._backoff.next_s()

    def _joined_again(self, give_up_s: float | None) -> bool:
        """Join again; False when that was not done in time."""
        while (again_s := self._again_s) is not None and not self._closed and self._stream.ended is None:
            if give_up_s is not None and give_up_s < again_s:
                time.sleep(_left_s(give_up_s))
                return False
            time.sleep(_left_s(again_s))
            try:
                if not self._join(give_up_s):
                    return False
            except OSError:
                self._hang_up()
                self._stream.lost(time.monotonic_ns())
                self._again_s = time.monotonic() + self._backoff.next_s()
        return True

    def _hang_up(self) -> None:
        if self._sock is not None:
            self._sock.close()
        self._sock = None
        self._stream.ledger.close()
        # Deliveries of a lost connection come again.
        self._early = [part for part in self._early if not isinstance(part, Deliveries | Delivery)]


def _left_s(until_s: float) -> float:
    return max(0.0, until_s - time.monotonic())


def _too_late(error: TimeoutError) -> bool:
    """It was the time given; the kernel's own, for a peer that is gone, has a number."""
    return error.errno is None
