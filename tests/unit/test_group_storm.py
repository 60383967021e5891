"""A group under everything at once, in memory: members come, go, forget, refuse; the log answers late; nothing is lost.

The order of each key holds throughout, and every further delivery is marked as one.  Nobody who has room waits for
what is there, whatever was removed from the log.
"""

from __future__ import annotations

import random

import pytest

from busd.rules.parts import Parts
from busd.rules.record import Batch, Hole
from tests.support.memory_server import MemoryConnection, MemoryServer

S = 1_000_000_000
KEYS = ("", "x", "y", "z")


class Storm:
    """A seeded sequence of mishaps over one group, and what its members saw."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.server = MemoryServer()
        self.publisher = self.server.connect()
        self.members: list[MemoryConnection] = []
        self.out: dict[MemoryConnection, list[str]] = {}
        self.published: dict[int, str] = {}
        self.settled: set[int] = set()
        self.tries: dict[int, int] = {}
        self.journal: list[tuple[MemoryConnection, bytes]] = []

    def publish(self) -> None:
        for _ in range(self.dice.randrange(1, 8)):
            key = self.dice.choice(KEYS)
            head = f"key={key} " if key else ""
            self.publisher.send(f"HPUB jobs.{self.dice.randrange(3)} {head}:m\n".encode())
            self.published[int(self.publisher.received()[1:])] = key

    def join(self) -> None:
        if len(self.members) < 4:
            member = self.server.connect()
            self.record(member)
            member.send(f"SUB jobs.> GROUP g WINDOW {self.dice.choice((1, 3, 20))} WAIT 10s\n".encode())
            self.members.append(member)

    def record(self, member: MemoryConnection) -> None:
        """Keep what is written to all of them in one order."""
        self.out[member] = []
        write = member.write

        def recorded(data: bytes | Parts, events: int = 1) -> None:
            self.journal.append((member, bytes(data)))
            write(data, events)

        member.write = recorded  # type: ignore[method-assign]

    def leave(self) -> None:
        if self.members:
            member = self.members.pop(self.dice.randrange(len(self.members)))
            self.hear()
            member.drop()
            del self.out[member]

    def hear(self) -> None:
        """Take in what the members were sent."""
        journal, self.journal = self.journal, []
        for member, data in journal:
            for line in data.decode().splitlines():
                if line.startswith("MSG "):
                    self.delivered(member, line.split()[2])
                else:
                    assert line[0] in "+:" or line.startswith("-STALE"), line

    def delivered(self, member: MemoryConnection, token: str) -> None:
        offset, _, times = token.partition(".")
        number, tries = int(offset), int(times or 1)
        assert number not in self.settled, f"{token} came after it was settled"
        assert tries == self.tries.get(number, 0) + 1, f"{token} is not marked as a further try"
        self.tries[number] = tries
        if member in self.out:
            self.out[member].append(token)
        key = self.published[number]
        if key:
            before = [one for one, other in self.published.items() if other == key and one < number]
            assert set(before) <= self.settled, f"{token} of {key} came before {before}"

    def ack(self) -> None:
        for member in self.members:
            self.hear()
            tokens = self.out[member]
            if not tokens:
                continue
            at = self.dice.randrange(len(tokens))
            through = self.dice.random() < 0.5
            chosen = tokens[: at + 1] if through else [tokens[at]]
            mark = ".." if through else ""
            self.out[member] = [token for token in tokens if token not in chosen]
            member.send(f"ACK {mark}{tokens[at]}\n".encode())
            self.note_settled(chosen)
            self.hear()

    def note_settled(self, tokens: list[str]) -> None:
        """The answer says how many; which were stale is seen from the group's state."""
        unsettled = self.server.log.groups[b"g"].unsettled
        self.settled |= {one for token in tokens if unsettled.get(one := int(token.split(".")[0])) is None}

    def nack(self) -> None:
        for member in self.members:
            self.hear()
            if self.out[member] and self.dice.random() < 0.3:
                token = self.out[member].pop(self.dice.randrange(len(self.out[member])))
                member.send(f"NACK {token} DELAY {self.dice.randrange(3)}s\n".encode())
                self.hear()

    def wait(self) -> None:
        self.server.runtime.advance(self.dice.choice((S // 2, 4 * S, 11 * S)))
        self.hear()

    def slow(self) -> None:
        """From now on the log answers in a later turn; or what was asked is answered."""
        log = self.server.log
        if log.slow_reads is None:
            log.slow_reads = []
            return
        waiting, log.slow_reads = log.slow_reads, None
        for answer in waiting:
            answer()
        self.server.runtime.run()

    def restart(self) -> None:
        """The server is killed and started on the same log."""
        if self.server.log.slow_reads is not None:
            return
        self.hear()
        log = self.server.log
        self.server = MemoryServer(log=log)
        self.members, self.out = [], {}
        self.publisher = self.server.connect()

    def finish(self) -> None:
        """A healthy member takes all that is left."""
        if self.server.log.slow_reads is not None:
            self.slow()
        while self.members:
            self.leave()
        self.join()
        for _ in range(400):
            self.wait()
            (member,) = self.members
            for token in self.out[member]:
                member.send(f"ACK {token}\n".encode())
            self.note_settled(self.out[member])
            self.out[member] = []
            self.hear()


@pytest.mark.parametrize("seed", range(40))
def test_nothing_is_lost_and_each_key_keeps_its_order(seed: int) -> None:
    storm = Storm(seed)
    steps = [storm.publish, storm.join, storm.leave, storm.ack, storm.ack, storm.nack, storm.wait, storm.slow]
    steps.append(storm.restart)
    for _ in range(60):
        storm.dice.choice(steps)()
    storm.finish()
    state = storm.server.log.groups.get(b"g")
    assert state is not None
    assert state.unsettled.count == 0
    assert storm.settled == set(storm.published)


class Removals(Storm):
    """The same over a log of which much goes: what is delivered is not looked at, but that it is."""

    def hear(self) -> None:
        """See Storm."""
        journal, self.journal = self.journal, []
        for member, data in journal:
            tokens = [line.split()[2] for line in data.decode().splitlines() if line.startswith("MSG ")]
            if member in self.out:
                self.out[member] += tokens

    def others(self) -> None:
        """A stretch that is not for the group."""
        for _ in range(self.dice.randrange(1, 12)):
            self.publisher.send(b"PUB other x\n")
        self.publisher.received()

    def reset(self) -> None:
        self.publisher.send(f"RESET jobs.{self.dice.choice(('0', '1', '2', '>'))}\n".encode())
        self.publisher.received()

    def trim(self) -> None:
        """The oldest go, once."""
        log = self.server.log
        last = log.records[len(log.records) // 2].last if log.records else 0
        if last and not any(isinstance(record, Hole) for record in log.records):
            log.trim(last + 1)

    def look(self) -> None:
        """Who has room has been given all that there is."""
        server = self.server
        # Large windows wait a moment for more room.
        server.runtime.advance(S // 1000)
        desk = server.broker._groups._desks.get(b"g")
        if desk is None or server.log.slow_reads is not None:
            return
        if any(seat.flight.count < seat.request.window for seat in desk.seats):
            assert not desk.group.anything_waits
            assert not desk.feed.entries
            there = [one.last for one in server.log.records if isinstance(one, Batch) and one.topics[0] != b"other"]
            assert desk.group.next > max(there, default=0)


@pytest.mark.parametrize("seed", range(60))
def test_nobody_who_has_room_waits_for_what_is_there(seed: int) -> None:
    storm = Removals(seed)
    steps = [storm.publish, storm.join, storm.leave, storm.ack, storm.ack, storm.nack, storm.wait, storm.slow]
    steps += [storm.restart, storm.others, storm.reset, storm.trim]
    for _ in range(60):
        storm.dice.choice(steps)()
        storm.look()
    storm.finish()
    assert storm.server.log.groups[b"g"].unsettled.count == 0
