"""The load: connections that send requests made beforehand and look at what comes back, as much as one core can.

Python runs for each block of requests and for each read, never for a message: requests are sent in blocks, answers
are counted by `bytearray.count`, streams are compared with the bytes they must be.  Knows no server: what to send
and what must come is given.

Invariants:
1. Every byte received goes through a sink, and a sink that was given anything else than it should raises WrongAnswer.
2. A lane never has more than `ahead` messages sent and unsettled.
3. Nothing waits for ever: when nothing comes for STALLED_S, that is an error.
"""

from __future__ import annotations

import select
import socket
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from bench.plan import WrongAnswer

# Requests in a block, and blocks under way on a connection: the same for every server.
BLOCK = 1000
AHEAD_BLOCKS = 16
READ_BYTES = 256 * 1024
# Restarts and large syncs take seconds; nothing here takes longer.
STALLED_S = 60.0
# nats-server asks clients whether they are there, between two messages; nobody counts on an answer within minutes.
NATS_PING = b"PING\r\n"


class Sink(Protocol):
    """Takes what a connection receives.  `left`: messages or answers that are still to come."""

    left: int
    got: int

    def feed(self, data: bytearray, size: int) -> None:
        """The first `size` bytes of `data` were received.  Raises WrongAnswer."""


class Counting:
    """Answers that cannot be foretold (ids with times in them): a marker of each is counted.

    Args:
        expected: how many answers there will be.
        marker: what `each` times is in an answer, never elsewhere.
        bad: what is in an error, and in no answer.
    """

    def __init__(self, expected: int, marker: bytes, each: int = 1, bad: bytes | None = None) -> None:
        self.left = expected
        self.got = 0
        self._expected = expected
        self._marker, self._each, self._bad = marker, each, bad
        self._seen = 0

    def feed(self, data: bytearray, size: int) -> None:
        """See Sink."""
        self._seen += data.count(self._marker, 0, size)
        self.got = self._seen // self._each
        self.left = self._expected - self.got
        if self._bad is not None and data.find(self._bad, 0, size) >= 0:
            raise WrongAnswer(f"an error among the answers: {bytes(data[:200])!r}")
        if self.left < 0:
            raise WrongAnswer(f"{-self.left} answers too many: {bytes(data[max(0, size - 200) : size])!r}")


@dataclass(frozen=True, slots=True)
class Stream:
    """Bytes that must come, known before they do.

    Args:
        data: all of them.
        messages: how many they are.
        ends: where in `data` every `per` messages end; for the flow of the load.
    """

    data: bytes
    messages: int
    ends: Sequence[int]
    per: int

    @classmethod
    def of(cls, items: Sequence[bytes], per: int = 100, head: bytes = b"", tail: bytes = b"") -> Stream:
        """Of the bytes of every message, with something before the first and behind the last."""
        pages = [b"".join(items[at : at + per]) for at in range(0, len(items), per)]
        ends = list(accumulate([len(head) + len(pages[0]), *map(len, pages[1:])]))
        return cls(b"".join([head, *pages, tail]), len(items), ends, per)


class Exactly:
    """A stream is compared, byte by byte, which also proves number, order and payloads."""

    def __init__(self, stream: Stream) -> None:
        self.left = stream.messages
        self.got = 0
        self._stream, self._expected = stream, stream.data
        self._at = 0
        self._held = b""

    def feed(self, data: bytearray, size: int) -> None:
        """See Sink."""
        with memoryview(data)[:size] as view:
            if not self._held and self._expected.startswith(view, self._at):
                self._at += size
            else:
                self._without_pings(bytes(view))
        messages = self._stream.messages
        if self._at == len(self._expected):
            self.left, self.got = 0, messages
        else:
            self.got = min(bisect_right(self._stream.ends, self._at) * self._stream.per, messages)
            # Also when only the tail is missing it is not done.
            self.left = max(messages - self.got, 1)

    def _without_pings(self, data: bytes) -> None:
        """The slow way: a question of nats-server, which may be cut by the end of a read, is not part of the stream."""
        data = (self._held + data).replace(NATS_PING, b"")
        for cut in range(len(NATS_PING)):
            body, tail = data[: len(data) - cut], data[len(data) - cut :]
            if NATS_PING.startswith(tail) and self._expected.startswith(body, self._at):
                self._at += len(body)
                self._held = tail
                return
        wanted = self._expected[self._at : self._at + len(data)]
        at = next((i for i, (a, b) in enumerate(zip(data, wanted, strict=False)) if a != b), len(wanted))
        place = f"byte {self._at + at} of {len(self._expected)}"
        raise WrongAnswer(f"{place}: {data[at : at + 80]!r} came instead of {wanted[at : at + 80]!r}")


class Filling:
    """Keeps everything until it ends with `end`; whoever made it looks at `data` when the clock has stopped."""

    def __init__(self, end: bytes, size_bytes: int) -> None:
        self.left = 1
        self.got = 0
        # Made before the clock runs, with every page touched: page faults would be the loader's time.
        self._buffer = bytearray(b"\1") * size_bytes
        self._end, self._size = end, 0

    @property
    def data(self) -> memoryview:
        """What came."""
        return memoryview(self._buffer)[: self._size]

    def feed(self, data: bytearray, size: int) -> None:
        """See Sink."""
        before, self._size = self._size, self._size + size
        if self._size > len(self._buffer):
            raise WrongAnswer(f"more than {len(self._buffer)} bytes came")
        with memoryview(data)[:size] as view:
            self._buffer[before : self._size] = view
        if self._buffer.endswith(self._end, max(0, self._size - len(self._end)), self._size):
            self.left, self.got = 0, 1


class Lane:
    """One connection of the load.

    Args:
        sock: connected, all that was asked before is answered.
        sink: for what comes.
        blocks: what to send; `per_block` messages each.
        ahead: how many messages may be under way; 0: a block is sent once the messages it counts have settled.
        settled: how many are not under way any more; the sink's count unless given.
    """

    def __init__(
        self,
        sock: socket.socket,
        sink: Sink,
        blocks: Sequence[bytes] = (),
        per_block: int = BLOCK,
        ahead: int = AHEAD_BLOCKS * BLOCK,
        settled: Callable[[], int] | None = None,
    ) -> None:
        self.sock = sock
        self.sink = sink
        self._blocks, self._per_block = blocks, per_block
        self._ahead = ahead
        self._settled = settled
        self._next = 0
        self._unsent = memoryview(b"")
        sock.setblocking(False)

    @property
    def sends(self) -> bool:
        """There is something left to send."""
        return bool(self._unsent) or self._next < len(self._blocks)

    @property
    def done(self) -> bool:
        """Everything was sent and everything came."""
        return self.sink.left == 0 and not self.sends

    def receive(self, buffer: bytearray) -> None:
        """What there is, at most a buffer full.  Raises WrongAnswer, also when the server hangs up before its time."""
        try:
            size = self.sock.recv_into(buffer)
        except BlockingIOError:
            return
        if size:
            self.sink.feed(buffer, size)
        elif not self.done:
            raise WrongAnswer(f"the server hung up; {self.sink.left} messages were still to come")

    def send(self) -> bool:
        """As much as may be under way and the kernel takes; True when the kernel takes no more."""
        while True:
            if not self._unsent:
                if self._next == len(self._blocks):
                    return False
                settled = self.sink.got if self._settled is None else self._settled()
                if (self._next + 1) * self._per_block - settled > self._ahead:
                    return False
                self._unsent = memoryview(self._blocks[self._next])
                self._next += 1
            try:
                sent = self.sock.send(self._unsent)
            except BlockingIOError:
                return True
            self._unsent = self._unsent[sent:]


def drive(lanes: Sequence[Lane], until: Callable[[], bool] | None = None) -> None:
    """Send and receive on all lanes until each is done (or until `until` says so, asked once a turn).

    Raises:
        WrongAnswer: something came that should not, or nothing comes any more.
    """
    by_number = {lane.sock.fileno(): lane for lane in lanes}
    buffer = bytearray(READ_BYTES)
    sending = [lane for lane in lanes if lane.sends]
    waiting: set[int] = set()
    undone = {number for number, lane in by_number.items() if not lane.done}
    with select.epoll() as epoll:
        for number in by_number:
            epoll.register(number, select.EPOLLIN)
        while undone and not (until is not None and until()):
            for lane in sending:
                full, number = lane.send(), lane.sock.fileno()
                if full != (number in waiting):
                    epoll.modify(number, select.EPOLLIN | (select.EPOLLOUT if full else 0))
                    (waiting.add if full else waiting.discard)(number)
                if lane.done:
                    undone.discard(number)
            sending = [lane for lane in sending if lane.sends]
            if not undone:
                break
            events = epoll.poll(STALLED_S)
            if not events:
                raise WrongAnswer(f"nothing came for {STALLED_S:.0f} s; {len(undone)} connections are not done")
            for number, event in events:
                if event & ~select.EPOLLOUT:
                    lane = by_number[number]
                    lane.receive(buffer)
                    if lane.done and number in undone:
                        undone.discard(number)
                        # What comes behind its last byte is nobody's here; closed peers would wake us for ever.
                        epoll.unregister(number)


def ask(sock: socket.socket, request: bytes, end: bytes = b"\n") -> bytes:
    """One request on a blocking socket, and what comes until that ends the answer."""
    sock.sendall(request)
    return answer(sock, end)


def answer(sock: socket.socket, end: bytes = b"\n") -> bytes:
    """What comes until `end`.

    Raises:
        WrongAnswer: the server hung up before.
    """
    data = b""
    while not data.endswith(end):
        piece = sock.recv(READ_BYTES)
        if not piece:
            raise WrongAnswer(f"the server hung up behind {data[-80:]!r}")
        data += piece
    return data


def round_trips(sock: socket.socket, requests: Sequence[bytes], end: bytes = b"\n") -> list[int]:
    """Nanoseconds of each, one after the other, each sent when the one before is answered."""
    times_ns = []
    clock, send, receive = time.perf_counter_ns, sock.sendall, sock.recv
    for request in requests:
        before = clock()
        send(request)
        data = receive(4096)
        while not data.endswith(end):
            more = receive(4096)
            if not more:
                raise WrongAnswer("the server hung up")
            data += more
        times_ns.append(clock() - before)
        if data[:1] == b"-":
            raise WrongAnswer(f"an error: {data!r}")
    return times_ns


def percentile(times_ns: Sequence[int], part: float) -> float:
    """In µs; the value that `part` of the times do not exceed."""
    ordered = sorted(times_ns)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] / 1e3
