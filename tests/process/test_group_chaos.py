"""Groups while workers and broker are killed (-9) again and again: nothing lost, repeats say so, keys in order.

BUSD_CHAOS_MESSAGES sets how many messages (10,000), BUSD_CHAOS_KILLS how many kills, about one in four of the broker
(12); BUSD_CHAOS_SEED what a failed run printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.support import group_worker
from tests.support.group_journal import Journal, check, token_of
from tests.support.server import ServerProcess, read_lines
from tests.support.tools import until

MESSAGES = int(os.environ.get("BUSD_CHAOS_MESSAGES", "10000"))
KILLS = int(os.environ.get("BUSD_CHAOS_KILLS", "12"))
SEED = int(os.environ.get("BUSD_CHAOS_SEED", "0")) or random.SystemRandom().getrandbits(32)
BURST = 200
TOPICS, KEYS = 4, 20
# Between two kills.
MIN_LIFE_S, MAX_LIFE_S = 0.05, 0.3
BROKER_SHARE = 0.25
WORKERS = 4
TIMEOUT_S = 60 + MESSAGES / 200 + 2 * KILLS


@dataclass(slots=True)
class Publisher:
    """Sends numbered messages in bursts until all are answered; after a lost connection again, by the same ids.

    `allowed`: how many it may have sent, so that there is traffic from the first kill to the last.
    """

    messages: list[tuple[bytes, bytes, bytes]]
    allowed: int
    answered: dict[int, int] = field(default_factory=dict)
    resent: int = 0
    stop: bool = False

    def run(self, server: ServerProcess) -> None:
        """All of them."""
        while len(self.answered) < len(self.messages) and not self.stop:
            with contextlib.suppress(OSError, EOFError), server.connect() as connection:
                while (begin := len(self.answered)) < len(self.messages) and not self.stop:
                    count = min(BURST, len(self.messages) - begin, self.allowed - begin)
                    if count <= 0:
                        time.sleep(0.005)
                        continue
                    self.resent += count
                    connection.sendall(b"".join(map(self._line, range(begin, begin + count))))
                    for number, line in enumerate(read_lines(connection, count), begin):
                        assert line.startswith(b":"), line
                        self.answered[number] = int(line[1:])
                    self.resent -= count
            time.sleep(0.02)

    def _line(self, number: int) -> bytes:
        topic, key, payload = self.messages[number]
        steer = b"key=" + key + b" " if key else b""
        return b"HPUB %b id=%d %b:%b\n" % (topic, number, steer, payload)


def messages(chance: random.Random, count: int) -> list[tuple[bytes, bytes, bytes]]:
    """Topic, key (a third has one), payload, which names all of it."""
    made = []
    for number in range(count):
        topic, key = b"c.%d" % chance.randrange(TOPICS), b""
        if chance.randrange(3) == 0:
            key = b"%d" % chance.randrange(KEYS)
        payload = b"%d %b%b .%b" % (number, topic, b" key=" + key if key else b"", b"x" * chance.randrange(100))
        made.append((topic, key, payload))
    return made


@dataclass(slots=True)
class Lossy:
    """A reader that nobody waits for and that waits for nobody; joins again at the end after a lost connection."""

    stop: bool = False
    connection: socket.socket | None = None
    seen: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    problems: list[bytes] = field(default_factory=list)

    def run(self, server: ServerProcess) -> None:
        """Until told to stop."""
        while not self.stop:
            with contextlib.suppress(OSError), server.connect() as self.connection:
                self.connection.sendall(b"SUB c.>\n")
                self._read(self.connection.makefile("rb"))
            time.sleep(0.02)

    def _read(self, lines: Iterator[bytes]) -> None:
        last = 0
        for line in lines:
            kind, *words = line.rstrip(b"\n").split(b" ", 3)
            if kind == b"MSG" and line.endswith(b"\n"):
                offset = int(words[1])
                if offset <= last or self.seen.get(offset, (words[0], words[2])) != (words[0], words[2]):
                    self.problems.append(line)
                last = offset
                self.seen[offset] = (words[0], words[2])
            elif kind not in (b"+OK", b"GAP") and line.endswith(b"\n"):
                self.problems.append(line)


class Team:
    """The workers of one group."""

    def __init__(self, server: ServerProcess, group: str, seed: int, options: list[str]) -> None:
        self.group = group
        self._server = server
        self._chance = random.Random(seed)
        self._words = ["SUB", "c.>", "GROUP", group, *options]
        self._processes: list[subprocess.Popen[bytes]] = []
        self.kills = 0

    def journal(self, number: int) -> Path:
        """Where a worker writes."""
        return self._server.base / f"journal-{self.group}-{number}"

    def start(self) -> None:
        """All of them."""
        self._processes = [self._worker(number) for number in range(WORKERS)]

    def kill_one(self) -> None:
        """-9 for one, and another in its place, which goes on in the same journal."""
        number = self._chance.randrange(WORKERS)
        self._end(self._processes[number])
        self._processes[number] = self._worker(number)
        self.kills += 1

    def close(self) -> None:
        """The end of all."""
        for process in self._processes:
            self._end(process)

    def result(self) -> Journal:
        """What they wrote."""
        found = Journal()
        found.read(path for number in range(WORKERS) if (path := self.journal(number)).exists())
        return found

    def _worker(self, number: int) -> subprocess.Popen[bytes]:
        # -I and -S: nothing of any installation, and a start of 20 ms.
        command = [sys.executable, "-ISB", group_worker.__file__, self._server.address, str(self.journal(number))]
        seed = str(self._chance.getrandbits(32))
        return subprocess.Popen([*command, seed, *self._words], stdin=subprocess.PIPE)

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


@contextlib.contextmanager
def at_work(publisher: Publisher, lossy: Lossy, teams: list[Team], server: ServerProcess) -> Iterator[threading.Thread]:
    """All of them, with the publisher's thread; at the end the workers are killed and the threads are over."""
    threads = [threading.Thread(target=one.run, args=(server,), daemon=True) for one in (publisher, lossy)]
    for thread in threads:
        thread.start()
    try:
        for team in teams:
            team.start()
        yield threads[0]
    finally:
        for team in teams:
            team.close()
        publisher.stop = lossy.stop = True
        if lossy.connection is not None:
            # It is waiting for more.
            with contextlib.suppress(OSError):
                lossy.connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            # As long as a read may take, when it was just connecting.
            thread.join(25)
            assert not thread.is_alive(), "a thread does not end"


def settled(server: ServerProcess, groups: int) -> bool:
    """Nothing is left to any group."""
    lines = server.ask(b"GROUPS\n").splitlines()
    return lines[0] == b"*%d" % groups and all(b" lag=0 " in line for line in lines[1:])


def stored(server: ServerProcess) -> dict[int, tuple[bytes, bytes]]:
    """What the log has, by offset: topic and payload; a hole may be in front."""
    lines = server.ask(b"READ c.>\n", 60).splitlines()
    rows = [line.split(b" ", 3) for line in lines if line.startswith(b"MSG ")]
    assert [line.split(b" ")[0] for line in lines if not line.startswith(b"MSG ")][-1:] == [b"END"]
    return {int(offset): (topic, payload) for _, topic, offset, payload in rows}


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("retain", ["limits", "acked"])
def test_nothing_is_lost_whoever_is_killed(retain: str, make_configured: MakeServer) -> None:
    print(f"BUSD_CHAOS_SEED={SEED}")
    chance = random.Random(SEED)
    server = make_configured(f'sync = "always"\n[main]\nretain = "{retain}"\nsegment_bytes = "256k"\n')
    # Both groups are there before the first message, as nothing has to wait for a group that is not.
    server.ask(b"SUB c.> GROUP wide\n")
    server.ask(b"SUB c.> GROUP narrow\n")
    publisher = Publisher(messages(chance, MESSAGES), MESSAGES // (KILLS + 1))
    lossy = Lossy()
    teams = [
        Team(server, "wide", chance.getrandbits(32), ["WINDOW", "1000"]),
        Team(server, "narrow", chance.getrandbits(32), ["WINDOW", "20", "WAIT", "500ms"]),
    ]
    began, broker_kills = time.monotonic(), 0
    with at_work(publisher, lossy, teams, server) as publishing:
        for number in range(KILLS):
            time.sleep(chance.uniform(MIN_LIFE_S, MAX_LIFE_S))
            # The first is the broker's whatever the dice say.
            if number == 0 or chance.random() < BROKER_SHARE:
                server.kill()
                server.start()
                broker_kills += 1
            else:
                chance.choice(teams).kill_one()
            publisher.allowed = MESSAGES * (number + 2) // (KILLS + 1)
        until(lambda: not publishing.is_alive(), "all is published", TIMEOUT_S)
        assert len(publisher.answered) == MESSAGES, "the publisher died"
        until(lambda: settled(server, len(teams)), "all is settled", TIMEOUT_S)
        took_s = time.monotonic() - began
    # By the ids each message is kept once, where its answer said, in the order sent.
    kept = {publisher.answered[number]: (topic, said) for number, (topic, _, said) in enumerate(publisher.messages)}
    assert list(kept) == sorted(kept)
    assert len(kept) == MESSAGES
    found = stored(server)
    assert found == {offset: kept[offset] for offset in found}
    assert (retain == "acked") == (len(found) < MESSAGES), f"{len(found)} of {MESSAGES} are still there"
    assert lossy.problems == []
    assert lossy.seen.items() <= kept.items()
    keys = {publisher.answered[number]: key for number, (_, key, _) in enumerate(publisher.messages) if key}
    print(f"{MESSAGES} messages, {took_s:.1f} s, broker killed {broker_kills} times")
    print(f"{publisher.resent} messages sent again by their ids, the lossy reader saw {len(lossy.seen)}")
    for team in teams:
        figures = check(team.result(), kept, keys, late=team.group == "narrow")
        print(f"group {team.group}, {team.kills} workers killed: {figures}")
        assert figures["redeliveries"] > 0, "nothing was tested"


def test_what_was_answered_to_be_acknowledged_never_comes_again(make_server: MakeServer) -> None:
    """One ACK, one answer, one kill: the shortest way to forget one."""
    server = make_server("--sync", "always")
    assert server.ask(b"".join(b"PUB t %d\n" % number for number in range(1, 41))).count(b"\n") == 40
    tries = dict.fromkeys(range(1, 41), 0)
    done = 0
    while done < 40:
        with server.connect() as connection:
            connection.sendall(b"SUB t GROUP g WINDOW 20\n")
            _, *lines = read_lines(connection, 1 + min(20, 40 - done))
            assert [token_of(line.split(b" ")[2])[0] for line in lines] == list(range(done + 1, done + 1 + len(lines)))
            connection.sendall(b"ACK " + b" ".join(line.split(b" ")[2] for line in lines[:5]) + b"\n")
            # The next messages may come before the answer.
            while not (line := read_lines(connection, 1)[0]).startswith(b":"):
                lines.append(line)
            server.kill()
            assert line == b":5", line
        for one in lines:
            offset, number = token_of(one.split(b" ")[2])
            assert number > tries[offset], f"{offset} was given out {tries[offset]} times, and says {number}"
            tries[offset] = number
        done += 5
        server.start()
    assert server.ask(b"READ t GROUP g\n") == b"END end next=41\n"


def test_dead_letters_are_kept_once_whenever_the_broker_is_killed(make_server: MakeServer) -> None:
    print(f"BUSD_CHAOS_SEED={SEED}")
    chance = random.Random(SEED)
    server = make_server("--sync", "always")
    count = 400
    server.ask(b"".join(b"PUB t %d\n" % number for number in range(1, count + 1)))
    for _ in range(5):
        worker = threading.Thread(target=fail, args=(server, b"SUB t GROUP g WINDOW 7 TRIES 2\n"), daemon=True)
        worker.start()
        time.sleep(chance.uniform(0.01, 0.1))
        server.kill()
        worker.join(20)
        assert not worker.is_alive()
        server.start()
    with server.connect() as connection:
        give_back(connection, b"SUB t GROUP g WINDOW 100\n", lambda: settled(server, 1))
    letters = server.ask(b"READ _dead.g.t FORMAT json\n").splitlines()[:-1]
    ids = [json.loads(line)["headers"]["id"] for line in letters]
    assert sorted(ids) == sorted(f"g:{offset}" for offset in range(1, count + 1))
    assert [json.loads(line)["payload"] for line in letters] == [one.partition(":")[2] for one in ids]


def fail(server: ServerProcess, subscribe: bytes) -> None:
    """A worker that fails at everything until its broker dies."""
    with contextlib.suppress(OSError), server.connect() as connection:
        give_back(connection, subscribe, lambda: False)


def give_back(connection: socket.socket, subscribe: bytes, done: Callable[[], bool]) -> None:
    """Give back all that comes, until it is done or the connection is lost."""
    connection.settimeout(0.1)
    connection.sendall(subscribe)
    data = b""
    while True:
        try:
            more = connection.recv(65_536)
        except TimeoutError:
            if done():
                return
            continue
        if not more:
            return
        *lines, data = (data + more).split(b"\n")
        tokens = [line.split(b" ", 3)[2] for line in lines if line.startswith(b"MSG ")]
        connection.sendall(b"".join(b"NACK %b DELAY 1ms it failed\n" % token for token in tokens))


def journal(*lines: str) -> Journal:
    """One worker's, its times counted from 1."""
    found = Journal()
    found.enter([f"{line[0]} {at}{line[1:]}".encode() for at, line in enumerate(lines, 1)])
    return found


GOOD = ["J", "D 1 t a key=k", "A 1", "R :1", "D 2 t b key=k", "N 2", "R +OK", "J", "D 2.2 t b key=k", "A 2.2", "R :1"]


@pytest.mark.parametrize(
    ("at", "lines", "said"),
    [
        (8, ["D 2 t b key=k"], "with the token of one before"),
        (9, ["A 1"], "nobody acknowledged them"),
        (8, ["D 2.2 t c"], "not what the log has"),
        (10, ["R :1", "D 2.3 t b key=k"], "answered to be settled, and given out again"),
        (10, ["R :2"], "answer=b':2'"),
        (10, ["R -STALE n=0 first=2.2"], "answer=b'-STALE n=0 first=2.2'"),
        (3, [], "answer=b'+OK'"),
        (2, ["X GAP t 1 1 1 trimmed"], "GAP"),
    ],
)
def test_the_judge_sees_what_is_wrong(at: int, lines: list[str], said: str) -> None:
    kept, keys = {1: (b"t", b"a key=k"), 2: (b"t", b"b key=k")}, {1: b"k", 2: b"k"}
    assert check(journal(*GOOD), kept, keys)["redeliveries"] == 1
    with pytest.raises(AssertionError, match=re.escape(said)):
        check(journal(*GOOD[:at], *lines, *GOOD[at + 1 :]), kept, keys)


def test_the_judge_sees_a_key_out_of_order_and_a_message_out_of_order() -> None:
    kept = {1: (b"t", b"a"), 2: (b"t", b"b")}
    backwards = journal("J", "D 2 t b", "A 2", "R :1", "D 1 t a", "A 1", "R :1")
    with pytest.raises(AssertionError, match="behind 2"):
        check(backwards, kept, {})
    kept = {1: (b"t", b"a key=k"), 2: (b"t", b"b key=k")}
    early = journal("J", "D 1 t a key=k", "D 2 t b key=k", "A 1,2", "R :2")
    with pytest.raises(AssertionError, match="before 1 was done"):
        check(early, kept, {1: b"k", 2: b"k"})
    back = journal("J", "D 1 t a key=k", "A 1", "D 2 t b key=k", "D 1.2 t a key=k", "A 1.2,2")
    with pytest.raises(AssertionError, match="and then Given"):
        check(back, kept, {1: b"k", 2: b"k"})


def test_the_judge_wants_another_delivery_of_what_was_stale() -> None:
    kept = {1: (b"t", b"a")}
    slow = ["J", "D 1 t a", "A 1", "R -STALE n=0 first=1"]
    assert check(journal(*slow, "D 1.2 t a", "A 1.2", "R :1"), kept, {}, late=True)["stale"] == 1
    with pytest.raises(AssertionError, match="STALE"):
        check(journal(*slow), kept, {}, late=True)
