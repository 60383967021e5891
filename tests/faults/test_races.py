"""Fault 24: RESET and retention race replays and open cursors: nothing stale, nobody stuck, every loss named."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time

import pytest

from tests.conftest import Cases, MakeServer
from tests.support.server import ServerProcess, read_lines

ROUNDS = 12
# A loaded machine may let every reader keep up for a while.
MOST_ROUNDS = 60
BURST = 250


class Reader(threading.Thread):
    """Replays from the start, slowly, until `end`; judged afterwards."""

    def __init__(self, server: ServerProcess, slowness_s: float) -> None:
        super().__init__(daemon=True)
        self.slowness_s = slowness_s
        self.data = bytearray()
        self.ended = False
        self._connection = server.connect(60)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        self._connection.sendall(b"SUB t FROM first SLOW spill\n")

    def run(self) -> None:
        """Read."""
        with self._connection, contextlib.suppress(TimeoutError):
            while not self.data.endswith(b" end\n"):
                piece = self._connection.recv(1 << 15)
                assert piece, "closed before the end"
                self.data += piece
                time.sleep(self.slowness_s)
            self.ended = True


def judge(data: bytes, sent: dict[int, bytes]) -> tuple[int, int]:
    """Every offset once: a message, or within a GAP or below a RESET; what came is what was sent.  (GAPs, RESETs)."""
    begin, *lines = data.splitlines()
    assert begin.startswith(b"+OK next="), begin
    expected, reset_at, gaps, resets = int(begin[9:].split(b" ")[0]), 0, 0, 0
    for line in lines:
        kind, *words = line.split(b" ", 5)
        if kind == b"GAP":
            first, last, count, reason = int(words[1]), int(words[2]), words[3], words[4]
            assert reason == b"trimmed", line
            assert last >= expected, line
            there = [n for n in range(max(first, expected), last + 1) if n in sent]
            assert count == b"?" or int(count) <= len(there), line
            expected, gaps = max(expected, last + 1), gaps + 1
        elif kind == b"RESET":
            assert int(words[1]) >= expected, line
            reset_at, expected, resets = int(words[1]), int(words[1]) + 1, resets + 1
        else:
            assert kind == b"MSG", line
            offset = int(words[1])
            assert offset > reset_at, "from before a RESET that was told"
            assert offset >= expected, line
            skipped = [n for n in range(expected, offset) if n in sent]
            assert skipped == [], f"{skipped[:5]} were neither delivered nor named"
            assert line == b"MSG t %d %b" % (offset, sent[offset]), line[:80]
            expected = offset + 1
    return gaps, resets


@pytest.mark.timeout(120)
def test_replays_beside_retention_and_reset(make_server: MakeServer, cases: Cases) -> None:
    server = make_server("--segment-bytes", "128k", "--max-bytes", "1M", "--sync", "never")
    sent: dict[int, bytes] = {}
    readers: list[Reader] = []
    with server.connect(60) as publisher:

        def publish(payloads: list[bytes]) -> None:
            publisher.sendall(b"".join(b"PUB t %b\n" % payload for payload in payloads))
            for payload, answer in zip(payloads, read_lines(publisher, len(payloads)), strict=True):
                sent[int(answer[1:])] = payload

        for number in range(MOST_ROUNDS):
            if number >= ROUNDS and any(b"\nGAP " in reader.data for reader in readers):
                break
            publish([b"%d-%d %b" % (number, one, b"x" * 4000) for one in range(BURST)])
            readers += [Reader(server, slowness_s) for slowness_s in (0.0, 0.04)]
            for reader in readers[-2:]:
                reader.start()
            if number % 3 == 2:
                publisher.sendall(b"RESET t\n")
                assert read_lines(publisher, 1)[0].startswith(b":")
        publish([b"end"])
    gaps = resets = 0
    for reader in readers:
        reader.join(60)
        assert reader.ended, f"stuck behind {bytes(reader.data[-80:])!r}"
        more_gaps, more_resets = judge(bytes(reader.data), sent)
        gaps, resets = gaps + more_gaps, resets + more_resets
        cases.add()
    assert gaps, "nothing was trimmed under a reader"
    assert resets, "nothing was removed under a reader"
    assert re.search(rb"Traceback", server.log().encode()) is None
