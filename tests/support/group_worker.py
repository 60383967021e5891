"""A member of a group as a process of its own, made to be killed: works, acknowledges, and keeps a journal of it.

    python group_worker.py host:port journal seed SUB jobs.> GROUP g WINDOW 100 WAIT 500ms

Nothing but the standard library and the inline protocol, so that what it proves, it proves from outside.  It gives
some messages back, and now and then does nothing for longer than WAIT.  It joins again whenever its connection is
lost, and ends when its standard input does.  The journal, a line each, with the monotonic time in ns, which all
processes share:

    J time                         a connection was made; deliveries and tokens below are of this one
    D time token topic payload     delivered; written behind the read and before anything is acknowledged
    A time token,…                 acknowledged in one command; written before it is sent
    N time token                   given back; written before it is sent
    R time answer                  the answer to the oldest A or N that has none
    H time                         slept longer than WAIT
    X time line                    any other event
"""

from __future__ import annotations

import os
import random
import select
import socket
import sys
import time
from collections.abc import Sequence

# How often of 100 deliveries, pieces, connections: given back; token by token; lazy at some time.
_NACK, _SINGLE, _LAZY = 1, 20, 10
_READ_BYTES = 16_384


class Worker:
    """See the module."""

    def __init__(self, address: str, journal: str, seed: str, subscribe: Sequence[str]) -> None:
        host, _, port = address.rpartition(":")
        self._address = (host, int(port))
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._chance = random.Random(seed)
        self._subscribe = " ".join(subscribe).encode() + b"\n"
        self._lazy_s = _longer_than_wait_s(subscribe)

    def run(self) -> None:
        """Until killed, or until the end of standard input."""
        while True:
            try:
                with socket.create_connection(self._address, 5) as connection:
                    # A connection that ended must not be lingered for: it is to look as if cut.
                    connection.settimeout(None)
                    self._write(b"J %d" % time.monotonic_ns())
                    connection.sendall(self._subscribe)
                    self._member(connection)
            except OSError:
                pass
            self._look(0.02)

    def _member(self, connection: socket.socket) -> None:
        lazy_in = self._chance.randrange(50) if self._chance.randrange(100) < _LAZY else -1
        data = b""
        while True:
            self._look(None, connection)
            more = connection.recv(_READ_BYTES)
            if not more:
                return
            now = time.monotonic_ns()
            *lines, data = (data + more).split(b"\n")
            if tokens := self._note(lines, now):
                lazy_in -= 1
                if lazy_in == 0:
                    self._write(b"H %d" % now)
                    self._look(self._lazy_s)
                self._settle(connection, tokens)

    def _note(self, lines: Sequence[bytes], now_ns: int) -> list[bytes]:
        """Enter what came; returns the tokens of what was delivered."""
        tokens, entries = [], []
        for line in lines:
            if line.startswith(b"MSG "):
                _, topic, token, payload = line.split(b" ", 3)
                tokens.append(token)
                entries.append(b"D %d %b %b %b" % (now_ns, token, topic, payload))
            elif line.startswith((b":", b"-", b"+OK")) and not line.startswith(b"+OK next="):
                entries.append(b"R %d %b" % (now_ns, line))
            elif not line.startswith(b"+OK"):
                entries.append(b"X %d %b" % (now_ns, line))
        if entries:
            self._write(b"\n".join(entries))
        return tokens

    def _settle(self, connection: socket.socket, tokens: list[bytes]) -> None:
        chance = self._chance
        given_back = [token for token in tokens if chance.randrange(100) < _NACK]
        done = [token for token in tokens if token not in given_back]
        commands = [b"NACK %b DELAY %dms" % (token, chance.randrange(1, 50)) for token in given_back]
        entries = [b"N %d %b" % (time.monotonic_ns(), token) for token in given_back]
        single = chance.randrange(100) < _SINGLE
        groups = [[token] for token in done] if single else [done] if done else []
        for group in groups:
            entries.append(b"A %d %b" % (time.monotonic_ns(), b",".join(group)))
            # All before the last of a piece are settled or given back, so that a sweep means the same as the list.
            sweep = group is groups[-1] and len(group) > 1 and chance.randrange(2)
            commands.append(b"ACK " + (b".." + group[-1] if sweep else b" ".join(group)))
        self._write(b"\n".join(entries))
        connection.sendall(b"\n".join(commands) + b"\n")

    def _write(self, entries: bytes) -> None:
        os.write(self._journal, entries + b"\n")

    def _look(self, seconds: float | None, connection: socket.socket | None = None) -> None:
        """Wait so long, or for the connection; end when whoever started this is gone."""
        wanted = [sys.stdin.fileno(), *([connection.fileno()] if connection is not None else [])]
        ready, _, _ = select.select(wanted, [], [], seconds)
        if sys.stdin.fileno() in ready:
            os._exit(0)


def _longer_than_wait_s(subscribe: Sequence[str]) -> float:
    """Half as long again as WAIT, which is in ms here; nothing without it."""
    if "WAIT" not in subscribe:
        return 0.0
    return 1.5 * int(subscribe[subscribe.index("WAIT") + 1].removesuffix("ms")) / 1000


if __name__ == "__main__":
    Worker(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]).run()
