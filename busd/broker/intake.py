"""What comes in on a connection: the dialect, whole commands out, and what a command that is not whole may cost.

Knows no socket and no clock.  Invariants:
1. A command that was begun is whole within `unfinished_ns`, or the connection is told and closed; time in which it was
   not read from does not count.
2. Of a stranger, who has not said who it is, no more than STRANGER_BYTES are ever taken in, a line at a time: what
   stands behind its AUTH in the same read is read as what it is by then.
3. What all connections together hold of commands that are not whole stays below `unfinished_bytes`: when it would not,
   the connection that holds most is told and closed, whoever brought the last byte.  One alone is never closed so.
"""

from __future__ import annotations

from collections.abc import Callable

from busd.rules.inline import InlineDecoder
from busd.rules.resp import RespDecoder
from busd.words.errors import BusError
from busd.words.requests import Bad, Request
from busd.words.settings import Limits
from busd.words.units import NS_PER_S

# So little is not counted: it bounds itself by the number of connections, and most reads end within a command.
_SMALL_BYTES = 4096

# A few AUTH and HELLO, mistakes included, and nothing that could cost memory.
STRANGER_BYTES = 4096

# So a client of TLS begins: a handshake, version 3.
_TLS = b"\x16\x03"


class Unfinished:
    """What all connections hold of commands that are not whole."""

    def __init__(self, limit_bytes: int) -> None:
        self.used_bytes = 0
        self._limit_bytes = limit_bytes
        self._held: dict[Intake, int] = {}

    def hold(self, intake: Intake, size_bytes: int) -> None:
        """It holds so much now.  Whoever holds most is closed while all is too much, perhaps within this call."""
        self.used_bytes += size_bytes - self._held.pop(intake, 0)
        if size_bytes:
            self._held[intake] = size_bytes
        while self.used_bytes > self._limit_bytes and len(self._held) > 1:
            largest = max(self._held, key=self._held.__getitem__)
            self.used_bytes -= self._held.pop(largest)
            text = f"unfinished commands of all connections hold {self._limit_bytes} bytes, this one most of them"
            largest.give_up(BusError("LIMIT", f"{text}; send it again, whole"))


class Intake:
    """One connection's input.

    `silent`: there has been none.  `read_bytes`: the last of it.  `counts`: `charge` has something to do.  `closing`:
    told of the answer after which it closes.
    """

    def __init__(self, limits: Limits, unfinished: Unfinished, closing: Callable[[Bad], None]) -> None:
        self._limits = limits
        self._unfinished = unfinished
        self._closing = closing
        self._decoder: InlineDecoder | RespDecoder | None = None
        self._since_ns: int | None = None
        self._charged = False
        self._strange_bytes = 0
        self.silent = True
        self.read_bytes = 0
        self.counts = False

    def begin(self, data: bytes) -> bool:
        """The first bytes choose the dialect; True for RESP."""
        self.silent = False
        resp = data[:1] == b"*"
        self._decoder = RespDecoder(self._limits) if resp else InlineDecoder(self._limits)
        if data.startswith(_TLS):
            # It would wait for an answer, and we for the end of its line.
            self.give_up(BusError("UNKNOWN", "this is TLS, and this address is not; the setting tls makes one that is"))
        return resp

    def feed(self, data: bytes, now_ns: int, waiting: bool) -> list[Request]:
        """Commands that became whole; once they are taken `charge` is to be called, if `counts`.

        Args:
            now_ns: by the monotonic clock.
            waiting: whether commands before these wait still; then what is begun is begun now.
        """
        decoder = self._decoder
        if decoder is None:
            return []
        self.read_bytes = len(data)
        requests = decoder.feed(data)
        self.counts = self._charged or not decoder.clean
        if decoder.clean or not decoder.unfinished:
            self._since_ns = None
        elif self._since_ns is None or requests or waiting:
            self._since_ns = now_ns
        return requests

    def feed_stranger(self, data: bytes, now_ns: int, take: Callable[[list[Request]], bool]) -> None:
        """The same for one who has not said who it is.

        Args:
            take: carries requests out; True as long as it is a stranger, and is listened to.
        """
        at = 0
        strange = True
        while at < len(data) and strange:
            # Commands become whole at the end of a line only, those of RESP too.
            after = data.find(b"\n", at) + 1 or len(data)
            self._strange_bytes += after - at
            if self._strange_bytes > STRANGER_BYTES:
                self.give_up(
                    BusError("AUTH", f"more than {STRANGER_BYTES} bytes before authentication; say AUTH first")
                )
                return
            strange = take(self.feed(data[at:after], now_ns, False))
            at = after
        if at < len(data):
            take(self.feed(data[at:], now_ns, False))
            self.charge()

    def charge(self) -> None:
        """Count what is held; somebody may be closed for it within this call, perhaps this connection."""
        held_bytes = self._decoder.held_bytes if self._decoder is not None else 0
        if held_bytes > _SMALL_BYTES or self._charged:
            self._charged = held_bytes > _SMALL_BYTES
            self._unfinished.hold(self, held_bytes if self._charged else 0)

    def end(self) -> Bad | None:
        """The input has ended; the answer to a command that is not whole."""
        cut = self._decoder.end() if self._decoder is not None else None
        self.forget()
        return cut

    def expire(self, now_ns: int, paused: bool) -> None:
        """Look whether a command was begun too long ago; while `paused` it could not go on."""
        if self._since_ns is None:
            return
        if paused:
            self._since_ns = now_ns
        elif now_ns - self._since_ns > self._limits.unfinished_ns:
            seconds = self._limits.unfinished_ns // NS_PER_S
            self.give_up(BusError("TIMEOUT", f"a command was begun and not finished within {seconds}s"))

    def give_up(self, error: BusError) -> None:
        """Hold nothing any more and have the connection closed."""
        self.forget()
        self._closing(Bad(error, closes=True))

    def forget(self) -> None:
        """Nothing comes any more: hold nothing."""
        self._since_ns = None
        if self._charged:
            self._charged = False
            self._unfinished.hold(self, 0)
        self._decoder = None
