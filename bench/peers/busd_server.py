"""busd of this checkout."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.load import Counting, Exactly, Sink, Stream, ask
from bench.machine import Cores
from bench.peers.base import Peer, resp
from bench.plan import WrongAnswer

ROOT = Path(__file__).resolve().parents[2]


def inline(topic: bytes, payload: bytes) -> bytes:
    """`PUB` as a line."""
    return b"PUB %b %b\n" % (topic, payload)


def as_resp(topic: bytes, payload: bytes) -> bytes:
    """`PUB` as a RESP array."""
    return b"*3\r\n$3\r\nPUB\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(topic), topic, len(payload), payload)


def with_header(topic: bytes, payload: bytes) -> bytes:
    """`HPUB` with one tag."""
    return b"HPUB %b unit=C :%b\n" % (topic, payload)


def with_headers(topic: bytes, payload: bytes) -> bytes:
    """`HPUB` with two tags and a time that is another for each message."""
    return b"HPUB %b host=a level=info sent=1795248000%b :%b\n" % (topic, payload[:9], payload)


def as_resp_with_header(topic: bytes, payload: bytes) -> bytes:
    """`PUB` as a RESP array, with one tag."""
    return resp("PUB", topic, payload, "unit", "C")


class Busd(Peer):
    """`python -m busd serve`.

    Args:
        request: how a message is published.
    """

    system = "busd"

    def __init__(
        self,
        base: Path,
        cores: Cores,
        policy: str,
        settings: Sequence[str] = (),
        request: Callable[[bytes, bytes], bytes] = inline,
    ) -> None:
        super().__init__(base, cores, policy, settings)
        self._request = request
        self._eol = b"\r\n" if request in (as_resp, as_resp_with_header) else b"\n"

    def command(self) -> list[str]:
        """See Peer."""
        places = ["--tcp", f"127.0.0.1:{self.port}", "--data", str(self.base / "busd-data")]
        return [sys.executable, "-m", "busd", "serve", *places, "--sync", self.policy, *self.settings]

    def environment(self) -> dict[str, str]:
        """This checkout's code; more connections than the default, which the benchmark's own would use up.

        Python keeps what it compiles, as it does where busd is installed, whatever it was told for others: without
        that each start takes half a second longer.
        """
        return super().environment() | {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'clients' / 'python'}",
            "PYTHONDONTWRITEBYTECODE": "",
            "BUSD_LIMITS_CONNECTIONS": "20000",
        }

    def ready(self, sock: socket.socket) -> bool:
        """See Peer."""
        return ask(sock, b"PING\n") == b"PONG\n"

    def check_policy(self) -> None:
        """See Peer."""
        found = self._listed(b"INFO server\n", rb"^sync=(\S+)$")
        if found != [self.policy.encode()]:
            raise WrongAnswer(f"busd says sync={found}")

    def prepare(self, topics: Sequence[bytes]) -> None:
        """Topics begin with their first message."""

    def publisher(self) -> socket.socket:
        """See Peer."""
        return self.connect()

    def publish(self, topic: bytes, payload: bytes) -> bytes:
        """See Peer; in the form that the constructor was given."""
        return self._request(topic, payload)

    def answers(self, count: int, alone: bool = True) -> Sink:
        """Offsets: the lone publisher of a new server gets 1, 2, 3 …"""
        if alone:
            return Exactly(Stream.of([b":%d%b" % (offset, self._eol) for offset in range(1, count + 1)]))
        return Counting(count, b":", bad=b"-")

    def kept(self, topics: Sequence[bytes]) -> int:
        """See Peer: the sum over TOPICS."""
        return sum(map(int, self._listed(b"TOPICS\n", rb"^\S+ messages=(\d+) ")))

    def tail(self, topic: bytes, count: int, number: int) -> bytes:
        """See Peer; of a topic that has all offsets."""
        with self.connect() as sock:
            first = count - number + 1
            return ask(sock, b"READ %b FROM %d LIMIT %d\nPING end\n" % (topic, first, number), b"\nend\n")

    def subscriber(self, command: bytes, window_bytes: int = 0) -> socket.socket:
        """A connection with this subscription, its `+OK` received; for formats that have one."""
        sock = self.connect(window_bytes)
        sock.sendall(command)
        told = b""
        # Byte by byte: what follows the line belongs to the stream.
        while not told.endswith(b"\n"):
            told += sock.recv(1)
        if not told.startswith(b"+OK"):
            raise WrongAnswer(f"{command!r}: {told!r}")
        return sock

    def resp3(self) -> socket.socket:
        """A connection that speaks RESP3, with nothing left to receive."""
        sock = self.connect()
        # The answer to HELLO is a map of any size; that to PING tells where it ends.
        ask(sock, resp("HELLO", 3) + resp("PING", "hello"), b"$5\r\nhello\r\n")
        return sock

    def _listed(self, command: bytes, pattern: bytes) -> list[bytes]:
        """The first group of every line of a list that matches."""
        with self.connect() as sock:
            sock.sendall(command)
            sock.shutdown(socket.SHUT_WR)
            told = b""
            while piece := sock.recv(1 << 18):
                told += piece
        return re.findall(pattern, told, re.M)
