"""redis-server (or valkey-server, which calls itself the same): streams with an append-only file."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.load import Counting, Sink, ask
from bench.machine import Cores
from bench.peers.base import Peer, resp
from bench.plan import WrongAnswer

COMMAND = "redis-server"
_FSYNC = {"interval": "everysec", "always": "always", "none": "everysec"}


def xadd(topic: bytes, payload: bytes) -> bytes:
    """`XADD topic * p payload`."""
    return b"*5\r\n$4\r\nXADD\r\n$%d\r\n%b\r\n$1\r\n*\r\n$1\r\np\r\n$%d\r\n%b\r\n" % (
        len(topic),
        topic,
        len(payload),
        payload,
    )


def with_field(topic: bytes, payload: bytes) -> bytes:
    """`XADD` with what busd's HPUB has as one header."""
    return resp("XADD", topic, "*", "p", payload, "unit", "C")


def with_fields(topic: bytes, payload: bytes) -> bytes:
    """`XADD` with what busd's HPUB has as three headers."""
    return resp("XADD", topic, "*", "p", payload, "host", "a", "level", "info", "sent", b"1795248000" + payload[:9])


class Redis(Peer):
    """Redis with an append-only file, unless the policy is `none`.

    Args:
        request: how a message is published.
    """

    system = "redis"

    def __init__(
        self,
        base: Path,
        cores: Cores,
        policy: str,
        settings: Sequence[str] = (),
        request: Callable[[bytes, bytes], bytes] = xadd,
    ) -> None:
        super().__init__(base, cores, policy, settings)
        self._request = request

    def command(self) -> list[str]:
        """Its defaults, but for what would spoil a round: no snapshots, no rewriting of the file beside the load, and
        no limits that would cut off a subscriber under it."""
        return [
            *[COMMAND, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.base), "--save", ""],
            *["--appendonly", "no" if self.policy == "none" else "yes", "--appendfsync", _FSYNC[self.policy]],
            *["--auto-aof-rewrite-percentage", "0", "--maxclients", "15000"],
            *["--client-output-buffer-limit", "pubsub", "0", "0", "0"],
            *self.settings,
        ]

    def ready(self, sock: socket.socket) -> bool:
        """See Peer; while it loads its file it answers an error."""
        return ask(sock, b"PING\r\n") == b"+PONG\r\n"

    def check_policy(self) -> None:
        """See Peer."""
        with self.connect() as sock:
            told = ask(sock, resp("CONFIG", "GET", "appendfsync") + resp("PING", "end"), b"$3\r\nend\r\n")
            told += ask(sock, resp("CONFIG", "GET", "appendonly") + resp("PING", "end"), b"$3\r\nend\r\n")
        on = b"no" if self.policy == "none" else b"yes"
        if f"\r\n{_FSYNC[self.policy]}\r\n".encode() not in told or b"\r\n%b\r\n" % on not in told:
            raise WrongAnswer(f"redis says {told!r}")

    def prepare(self, topics: Sequence[bytes]) -> None:
        """Streams begin with their first entry."""

    def publisher(self) -> socket.socket:
        """See Peer."""
        return self.connect()

    def publish(self, topic: bytes, payload: bytes) -> bytes:
        """See Peer; in the form that the constructor was given."""
        return self._request(topic, payload)

    def answers(self, count: int, alone: bool = True) -> Sink:
        """Ids, bulk strings: one dollar each."""
        return Counting(count, b"$", bad=b"ERR")

    def kept(self, topics: Sequence[bytes]) -> int:
        """See Peer: the sum of XLEN."""
        found = 0
        names = sorted(set(topics))
        with self.connect() as sock:
            for at in range(0, len(names), 1000):
                some = names[at : at + 1000]
                request = b"".join([resp("XLEN", name) for name in some]) + resp("PING", "end")
                told = ask(sock, request, b"$3\r\nend\r\n").split(b"\r\n")
                found += sum(int(line[1:]) for line in told if line.startswith(b":"))
        return found

    def tail(self, topic: bytes, count: int, number: int) -> bytes:
        """See Peer."""
        with self.connect() as sock:
            request = resp("XREVRANGE", topic, "+", "-", "COUNT", number) + resp("PING", "end")
            return ask(sock, request, b"$3\r\nend\r\n")

    # Entries with ids that are known beforehand, so that what a reader must get is, too.

    def preload(self, topic: bytes, number: int, payload: bytes) -> bytes:
        """`XADD` with the id `entry_id(number)`."""
        return resp("XADD", topic, entry_id(number), "p", payload)


def entry_id(number: int) -> bytes:
    """An id as Redis would make it in the year 2026."""
    return b"%d-0" % (1_780_000_000_000 + number)


def entry(number: int, payload: bytes) -> bytes:
    """How XRANGE answers an entry of `preload`."""
    return b"*2\r\n$15\r\n%b\r\n*2\r\n$1\r\np\r\n$%d\r\n%b\r\n" % (entry_id(number), len(payload), payload)
