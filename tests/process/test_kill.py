"""kill -9 in the middle of traffic, again and again on one data directory, and then the promises.

After every restart: what was answered is there, where the answer said; what a reader saw is there; nothing is there
that nobody sent; each publisher's messages stand in the order sent; no offset ever names two messages.

BUSD_KILL_ROUNDS sets the number of kills for each policy (10).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.conftest import Cases, MakeServer
from tests.support.server import ServerProcess

ROUNDS = int(os.environ.get("BUSD_KILL_ROUNDS", "10"))
# Small, so that files end and begin while we kill.
SEGMENT_BYTES = "256k"
BURST = 200
# Messages read back at once, at most.
PAGE = 200_000
# A kill comes this long after the publishers began: within the first commits, or some hundred later.
MIN_LIFE_S, MAX_LIFE_S = 0.02, 0.4
# For each restart, and a second for each round.
TIMEOUT_S = 120 + 5 * ROUNDS


@dataclass(slots=True)
class Publisher:
    """One connection's worth of messages, each with a payload that says whose and which.

    `burst`: how many are sent before the answers are read; 1 is one by one.
    """

    name: str
    burst: int
    chance: random.Random
    sent: list[tuple[bytes, bytes]] = field(default_factory=list)
    answered: dict[int, int] = field(default_factory=dict)

    def run(self, server: ServerProcess) -> None:
        """Publish until the connection breaks."""
        with contextlib.suppress(OSError, EOFError), server.connect() as connection:
            # As the lines come: an answer that is read counts, also if the next one never comes.
            answers = connection.makefile("rb")
            while True:
                begin = len(self.sent)
                self.sent += [self._message(begin + i) for i in range(self.burst)]
                connection.sendall(b"".join(b"PUB %b %b\n" % message for message in self.sent[begin:]))
                for number in range(begin, begin + self.burst):
                    line = answers.readline()
                    if not line.endswith(b"\n"):
                        return
                    assert line.startswith(b":"), line
                    self.answered[int(line[1:])] = number

    def _message(self, number: int) -> tuple[bytes, bytes]:
        topic = b"k.%d" % self.chance.randrange(5)
        return topic, b"%b %d .%b" % (self.name.encode(), number, b"x" * self.chance.randrange(200))


@dataclass(slots=True)
class Watcher:
    """A reader of everything; what it saw must never be taken back."""

    start: int
    seen: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    problems: list[bytes] = field(default_factory=list)

    def run(self, server: ServerProcess) -> None:
        """Read until the connection breaks."""
        with contextlib.suppress(OSError), server.connect() as connection:
            connection.sendall(b"SUB k.> FROM %d\n" % self.start)
            for line in connection.makefile("rb"):
                kind, *words = line.rstrip(b"\n").split(b" ", 3)
                if kind == b"MSG" and line.endswith(b"\n"):
                    self.seen[int(words[1])] = (words[0], words[2])
                elif not line.startswith(b"+OK") and line.endswith(b"\n"):
                    self.problems.append(line)


Kept = dict[int, tuple[bytes, bytes]]


def pages(server: ServerProcess, start: int) -> Iterator[tuple[Kept, int]]:
    """The messages from an offset on, piece by piece, each with the next offset; anything but messages is a failure."""
    end = b""
    while not end.startswith(b"END end "):
        lines = server.ask(b"READ k.> FROM %d LIMIT %d\n" % (start, PAGE), 60).splitlines()
        end = lines.pop()
        assert end.startswith((b"END end next=", b"END limit next=")), end
        found: Kept = {}
        last = start - 1
        for line in lines:
            kind, topic, offset, payload = line.split(b" ", 3)
            assert kind == b"MSG", line
            assert int(offset) > last, f"offset {int(offset)} behind {last}"
            last = int(offset)
            found[last] = (topic, payload)
        start = int(end.rpartition(b"=")[2])
        yield found, start


def stored(server: ServerProcess, start: int) -> tuple[Kept, int]:
    """All of them, and the next offset."""
    found: Kept = {}
    after = start
    for page, following in pages(server, start):
        found |= page
        after = following
    return found, after


class Digest:
    """What a long run of messages was, in little memory."""

    def __init__(self) -> None:
        self.count = 0
        self._hash = hashlib.sha256()

    def add(self, found: Kept) -> None:
        """More messages, in order."""
        self.count += len(found)
        self._hash.update(b"".join([b"%d %b %b\n" % (offset, *message) for offset, message in found.items()]))

    def value(self) -> bytes:
        """Differs when any message, offset or topic does."""
        return self._hash.digest()


@contextlib.contextmanager
def running(publishers: list[Publisher], watcher: Watcher, server: ServerProcess) -> Iterator[None]:
    """All of them at work; joined at the end."""
    works = [*(one.run for one in publishers), watcher.run]
    threads = [threading.Thread(target=work, args=(server,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("policy", ["always", "interval"])
def test_kill_9_takes_nothing_that_was_answered(policy: str, make_server: MakeServer, cases: Cases) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    server = make_server("--sync", policy, "--segment-bytes", SEGMENT_BYTES)
    known, everything = Digest(), Digest()
    begin, given, answered, seen = 1, 0, 0, 0
    for number in range(ROUNDS):
        publishers = [
            Publisher(f"{number}-{name}", burst, random.Random(chance.random()))
            for name, burst in (("a", 1), ("b", 1), ("c", BURST), ("d", BURST))
        ]
        watcher = Watcher(begin)
        with running(publishers, watcher, server):
            time.sleep(chance.uniform(MIN_LIFE_S, MAX_LIFE_S))
            server.kill()
        server.start()
        cases.add()
        found, after = stored(server, begin)
        check(publishers, watcher, found, given)
        assert after > max(found, default=begin - 1)
        known.add(found)
        answered += sum(len(one.answered) for one in publishers)
        seen += len(watcher.seen)
        given = max([given, *found, *watcher.seen, *(max(one.answered, default=0) for one in publishers)])
        begin = after
    for page, _ in pages(server, 1):
        everything.add(page)
    assert everything.value() == known.value(), "an offset names another message than it did, or none"
    print(f"{known.count} kept, {answered} answered, {seen} seen")
    assert min(answered, seen) > ROUNDS, "nothing was tested"


def check(publishers: list[Publisher], watcher: Watcher, found: Kept, given: int) -> None:
    """One round's promises; `given` is the highest offset of the rounds before."""
    assert watcher.problems == []
    assert min(found, default=given + 1) > given, "an offset was given twice"
    assert {offset: found.get(offset) for offset in watcher.seen} == watcher.seen, "seen, and not kept"
    for one in publishers:
        kept = {offset: one.sent[number] for offset, number in one.answered.items()}
        assert {offset: found.get(offset) for offset in kept} == kept, f"answered to {one.name}, and not kept"
        mine = [message for message in found.values() if message[1].startswith(one.name.encode() + b" ")]
        # In the order sent, without a hole: a run of what was sent, from its beginning.
        assert mine == one.sent[: len(mine)], f"messages of {one.name} are not those it sent, in order"
    names = tuple(one.name.encode() + b" " for one in publishers)
    strangers = [message for message in found.values() if not message[1].startswith(names)]
    assert strangers == [], "messages that nobody sent"


def test_a_torn_tail_is_cut_and_told(make_server: MakeServer) -> None:
    """Half a record at the end of the log, as a crash in the middle of a write leaves it."""
    server = make_server()
    assert server.ask(b"PUB t one\nPUB t two\n") == b":1\n:2\n"
    server.kill()
    (segment,) = sorted(server.data.rglob("*.log"))[-1:]
    with open(segment, "ab") as file:
        file.write(b"+B 0123abcd 0000000065 3 2 17952480")
    server.start()
    assert "recovered" in server.log_of_this_start()
    assert server.ask(b"READ t\nPUB t three\n").splitlines()[:2] == [b"MSG t 1 one", b"MSG t 2 two"]
    told = server.ask(b"READ t FROM 3\n").splitlines()
    assert [line.split(b" ")[-1] for line in told[:-1]] == [b"three"]
    server.kill()
    server.start()
    assert [line[:5] for line in server.ask(b"READ t\n").splitlines()] == [b"MSG t"] * 3 + [b"END e"]


def test_answers_come_after_the_sync_and_before_the_kill(make_server: MakeServer) -> None:
    """One message, one answer, one kill: the shortest way to lose something."""
    server = make_server()
    for number in range(1, 6):
        with server.connect() as connection:
            connection.sendall(b"PUB t %d\n" % number)
            answer = connection.recv(100)
            server.kill()
            assert answer.startswith(b":")
            with contextlib.suppress(ConnectionError):
                assert connection.recv(100) == b""
        server.start()
        told = server.ask(b"READ t\n").splitlines()
        assert [line.split(b" ")[-1] for line in told[:-1]] == [b"%d" % i for i in range(1, number + 1)]


def test_the_port_is_free_at_once(make_server: MakeServer) -> None:
    """A restart after a crash must not wait for connections that the kernel still remembers."""
    server = make_server()
    port = server.port
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"PING\n")
        assert connection.recv(10) == b"PONG\n"
        server.kill()
        server.start()
    assert server.port == port
