"""What both channels share and no socket is needed for: what is on its way out, and what was taken in.

    sender     Outgoing: values that were taken and are not known to be kept
    receiver   Incoming: messages in order, each once, though a lost connection brings some again

Pure.  Invariants:
1. Values leave in the order in which they were taken: one command at a time, all of it kept or nothing.
2. No value is dropped: it is kept by the server, or still here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

from busd_client import wire
from busd_client.deliveries import Deliveries, Delivery, GroupPart
from busd_client.events import BusdError, EndOfStream
from busd_client.group_stream import GroupWish

# The group that the receiver is the one member of.
GROUP = "receiver"

# One command: a commit's worth; it has to stay below `command_bytes` of the server (2 MiB).
BATCH_BYTES = 262_144
BATCH_VALUES = 2_000
# What the server takes as one payload.
MAX_VALUE_BYTES = 1 << 20
# Taken and not yet kept, over all: enough to fill the next command while one is under way.
WINDOW_BYTES = 1 << 20
WINDOW_VALUES = 10_000
# While the channel is full, how often it is asked again whether there is room.
AGAIN_S = 0.05
# Messages under way to the receiver; what is not asked for stays in the socket.
WINDOW = 1_000
# A receiver may take its time: when it dies, the server knows at once.
WAIT_NS = 24 * 3600 * 1_000_000_000


def receiver_wish(name: str) -> GroupWish:
    """What the receiver of a channel asks the server for."""
    return GroupWish(name, GROUP, window=WINDOW, wait_ns=WAIT_NS)


class Full(Exception):
    """The channel holds as much as it may; what was to be sent was not taken.

    `values`: those that had been taken before and could not be kept either, when `close` gave up on them.
    """

    def __init__(self, text: str, values: Iterable[bytes] = ()) -> None:
        super().__init__(text)
        self.values = list(values)


class Busy(Exception):
    """The channel has a receiver already; there is one for each."""


class Outgoing:
    """Values taken by `send`.  `full`: why the server refused the last command, None when it did not."""

    def __init__(self) -> None:
        self._values: deque[bytes] = deque()
        self._bytes = 0
        self._sent = 0
        self._most = BATCH_VALUES
        self.full: BusdError | None = None

    def __len__(self) -> int:
        return len(self._values)

    @property
    def roomy(self) -> bool:
        """True when another value may be taken.  A value alone may be of any size."""
        return not self._values or (self._bytes < WINDOW_BYTES and len(self._values) < WINDOW_VALUES)

    def check(self) -> None:
        """See whether the server had room the last time.

        Raises:
            Full: it had not.
        """
        if self.full is not None:
            raise Full(self.full.text)

    def values(self) -> list[bytes]:
        """Those that are not known to be kept, in order."""
        return list(self._values)

    def take(self, value: bytes) -> None:
        """Take a value.

        Raises:
            ValueError: it is larger than 1 MiB.
        """
        if len(value) > MAX_VALUE_BYTES:
            raise ValueError(f"a value has at most {MAX_VALUE_BYTES} bytes, this one {len(value)}")
        self._values.append(value)
        self._bytes += len(value)

    def command(self, topic: str) -> bytes:
        """The next command; there must be a value.  The same values again when the one before was not answered."""
        size = 0
        chosen: list[bytes] = []
        for value in islice(self._values, self._most):
            size += len(value)
            if chosen and size > BATCH_BYTES:
                break
            chosen.append(value)
        self._sent = len(chosen)
        return wire.publish_many(topic, chosen)

    def answered(self, reply: wire.Reply) -> bool:
        """The answer to the last command; False when there is no room now, so that the next one should wait.

        Raises:
            BusdError: it was refused for another reason, which will not go away.
        """
        if isinstance(reply, BusdError) and reply.code == "FULL":
            self.full = reply
            # Some of them may fit.
            self._most = max(1, self._sent // 2)
            return self._sent > 1
        wire.check_integer(reply)
        for _ in range(self._sent):
            self._bytes -= len(self._values.popleft())
        self._most = min(2 * self._most, BATCH_VALUES)
        self.full = None
        return True


class Incoming:
    """Messages that were received."""

    def __init__(self) -> None:
        self._waiting: deque[Delivery] = deque()
        self._hand: Delivery | None = None
        self._last = 0
        self._eof = False

    def at_end(self) -> bool:
        """True, once for each time that the senders say so, when everything before was given out."""
        if self._waiting:
            return False
        at_end, self._eof = self._eof, False
        return at_end

    @property
    def ready(self) -> bool:
        """True when `next` has something."""
        return bool(self._waiting)

    def add(self, parts: Iterable[GroupPart]) -> None:
        """What came.  The server says that a stream has ended when everything before is acknowledged."""
        for part in parts:
            if isinstance(part, EndOfStream):
                self._eof = True
            elif isinstance(part, Deliveries | Delivery):
                self._eof = False
                for delivery in part if isinstance(part, Deliveries) else (part,):
                    self._add(delivery)

    def next(self) -> bytes:
        """The next value; `ready` must be True.  The one before is acknowledged."""
        self.done()
        self._hand = self._waiting.popleft()
        self._last = self._hand.offset
        return self._hand.payload

    def done(self) -> None:
        """The value given out last is dealt with."""
        hand, self._hand = self._hand, None
        if hand is not None:
            hand.ack()

    def _add(self, delivery: Delivery) -> None:
        if delivery.offset > self._last:
            while self._waiting and self._waiting[-1].offset >= delivery.offset:
                # It came by a connection that is lost, and so did those behind it: they come again.
                self._waiting.pop()
            self._waiting.append(delivery)
        elif self._hand is not None and self._hand.offset == delivery.offset:
            # The caller has it; the new token is the good one.
            self._hand = delivery
        else:
            delivery.ack()
