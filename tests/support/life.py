"""The whole life of a server in memory: what it is asked, what it promises, and whether a disk keeps that.

Messages in three stores, acknowledgements, new segments, retention by cap, by keep_last and by what groups have settled
(deleting, rewriting, punching), RESET, end of stream, snapshots of groups.log, the floor of meta, a clean stop: each of
them several times within four hundred calls to the disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from busd.broker.ports import Outcome
from busd.rules.group_records import line_done, line_out
from busd.rules.record import Hole
from busd.words.errors import BusError
from busd.words.settings import settings_from
from busd.words.units import NS_PER_S
from busd.world import group_log, meta, store_sweep
from tests.support.log_kit import LogKit, flat
from tests.support.memory_disk import MemoryDisk

RULES = {
    "main": {"segment_bytes": "4k", "max_bytes": "16k"},
    "store": [
        {"match": "jobs.>", "name": "jobs", "segment_bytes": "4k", "retain": "acked", "groups": ["g"]},
        {"match": "state.>", "name": "state", "segment_bytes": "4k", "max_bytes": "16k", "keep_last": 1},
    ],
}
Message = tuple[bytes, bytes]


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What usually takes megabytes or millions of messages happens within a few."""
    monkeypatch.setattr(group_log, "COMPACT_BYTES", 600)
    monkeypatch.setattr(group_log, "COMPACT_TIMES", 2)
    monkeypatch.setattr(store_sweep, "PUNCH_BYTES", 1000)
    monkeypatch.setattr(meta, "FLOOR_STEP", 24)


@dataclass
class Life:
    """A server's log, what it was asked and what it has promised so far."""

    sync: str
    disk: MemoryDisk = field(default_factory=MemoryDisk)
    boot: str = "boot-1"
    sent: dict[bytes, bytes] = field(default_factory=dict)
    answered: dict[int, Message] = field(default_factory=dict)
    # Highest offset that anybody was shown, and the highest that is synced whatever the policy.
    given: int = 0
    synced: int = 0
    # Topics whose RESET was asked for, and the offset of the answer.
    resets: dict[bytes, int] = field(default_factory=dict)
    reset_asked: set[bytes] = field(default_factory=set)
    settled: set[int] = field(default_factory=set)
    asked: set[int] = field(default_factory=set)
    # What was answered with an error: its code, and the payload if it was a message.
    refused: list[tuple[str, bytes]] = field(default_factory=list)
    epoch: int = 1
    kit: LogKit = field(init=False)

    def start(self) -> None:
        """Open the log."""
        self.kit = LogKit(settings_from({**RULES, "sync": self.sync}), self.disk, self.boot)
        self.epoch = max(self.epoch, self.kit.log.epoch)
        self.kit.log.start()
        self.kit.runtime.run()

    def publish(self, topic: bytes, count: int = 1, size: int = 700, kind: str = "message") -> None:
        """Messages that nobody else sends; each in a commit of its own."""
        for _ in range(count):
            payload = b"" if kind == "eof" else b"%d.%b" % (len(self.sent) + 1, b"x" * size)
            if payload:
                self.sent[payload] = topic
            before = len(self.kit.answers)
            self.kit.publish(topic, payload, kind=kind)
            for answer in self.kit.answers[before:]:
                if isinstance(answer, str):
                    self.refused.append((answer, payload))
                    continue
                self.given = max(self.given, answer)
                if payload:
                    self.answered[answer] = (topic, payload)
        if self.sync == "always":
            self.synced = self.given

    def reset(self, topic: bytes) -> None:
        """RESET."""
        self.reset_asked.add(topic)
        try:
            for outcome in self.kit.reset(topic):
                self._reset_done(topic, outcome)
        except BusError as error:
            self.refused.append((error.code, b""))

    def _reset_done(self, topic: bytes, outcome: Outcome) -> None:
        if outcome.errors:
            self.refused += [(error.code, b"") for error in outcome.errors.values()]
            return
        self.resets[topic] = outcome.first
        self.given = max(self.given, outcome.first)

    def acknowledge(self, offsets: list[int]) -> None:
        """Give the group's messages out up to these, and settle these."""
        if not offsets:
            return
        log = self.kit.log
        ranges = [(offset, offset) for offset in offsets]
        begin, end = log.groups[b"g"].next, max(offsets) + 1
        given = [(offset, offset) for offset in self.jobs() if begin <= offset < end]
        log.note([line_out(b"g", max(begin, end), 1, given)], lambda: None)
        self.asked |= set(offsets)

        def decided(error: BusError | None) -> None:
            if error is not None:
                self.refused.append((error.code, b""))
            elif self.sync == "always":
                self.settled |= set(offsets)

        log.settle([line_done(b"g", ranges)], decided)
        self.kit.runtime.run()

    def jobs(self) -> list[int]:
        """The group's messages that are not settled, in order."""
        return sorted(n for n, (topic, _) in self.answered.items() if topic.startswith(b"jobs") and n not in self.asked)

    def tick(self) -> None:
        """A second: retention acts, `interval` syncs."""
        shown = self.given
        self.kit.runtime.advance(NS_PER_S)
        if self.sync == "interval":
            self.synced = shown

    def live(self, started: bool = False, stop: bool = True) -> None:
        """All of it, in an order in which everything happens."""
        if not started:
            self.start()
        self.publish(b"state.rare")
        self.publish(b"jobs.a", 9)
        self.publish(b"a", 12)
        self.acknowledge(self.jobs()[2:7])
        self.publish(b"jobs.b", 9)
        self.publish(b"state.often", 16)
        self.tick()
        self.acknowledge(self.jobs()[1:9:2])
        self.acknowledge(self.jobs()[3:7])
        self.tick()
        self.reset(b"a")
        self.publish(b"a")
        self.publish(b"jobs.a", 1, kind="eof")
        self.acknowledge(self.jobs()[:2])
        self.publish(b"jobs.c", 7)
        self.tick()
        self.acknowledge(self.jobs())
        self.tick()
        self.tick()
        if stop:
            self.kit.stop()
            self.synced = self.given

    @property
    def promises(self) -> tuple[int, ...]:
        """Differs when anything more was asked or promised."""
        counts = (len(self.sent), len(self.answered), len(self.settled), len(self.asked))
        return (*counts, len(self.resets), len(self.reset_asked), self.given, self.synced)

    def now(self) -> Life:
        """What was promised by now, to hold a disk against."""
        life = Life(self.sync, boot="boot-2", epoch=self.epoch, given=self.given, synced=self.synced)
        life.sent, life.answered = dict(self.sent), dict(self.answered)
        life.resets, life.reset_asked = dict(self.resets), set(self.reset_asked)
        life.settled, life.asked = set(self.settled), set(self.asked)
        return life

    def check(self, disk: MemoryDisk, where: str) -> None:
        """Open what a cut has left: the promises."""
        self.disk = disk
        self.start()
        log, where = self.kit.log, f"{where}\n{self.kit.opened.report}"
        records = self.kit.read()
        holes = [record for record in records if isinstance(record, Hole)]
        found = {offset: (topic, payload) for offset, topic, payload in flat(records)}
        reasons = {hole.reason for hole in holes}
        assert reasons <= ({"trimmed", "settled"} if self.sync == "always" else {"trimmed", "settled", "unsynced"}), (
            where
        )
        for offset, (topic, payload) in found.items():
            assert self.sent.get(payload) == topic, f"{offset} was never sent: {where}"
            assert self.answered.get(offset, (topic, payload)) == (topic, payload), f"{offset} is another: {where}"
        assert len({payload for _, payload in found.values()}) == len(found), f"twice: {where}"
        self._check_lost(found, holes, where)
        floors = log.floors
        assert all(floors.get(topic, 0) >= floor for topic, floor in self.resets.items() if floor <= self.synced), where
        assert set(floors) <= self.reset_asked, where
        state = log.groups[b"g"]
        settled = {n for n in self.asked if n < state.next and state.unsettled.get(n) is None}
        assert self.settled <= settled, f"acknowledged, and not: {where}"
        unasked = [n for n, (topic, _) in found.items() if topic.startswith(b"jobs") and n not in self.asked]
        assert [n for n in unasked if n < state.next and state.unsettled.get(n) is None] == [], (
            f"settled by none: {where}"
        )
        self.kit.publish(b"z", b"new")
        (answer,) = self.kit.answers
        assert isinstance(answer, int), where
        assert answer > self.given, f"offset {answer} again: {where}"
        again = LogKit(self.kit.settings, disk.copy(), "boot-2")
        after = {offset: (topic, payload) for offset, topic, payload in again.messages()}
        assert after == {**found, answer: (b"z", b"new")}, where

    def _check_lost(self, found: dict[int, Message], holes: list[Hole], where: str) -> None:
        """What was answered and is not there was removed by a RESET, settled, or is named: trimmed, with its count."""
        counted: dict[bytes, int] = {}
        for hole in holes:
            assert hole.counts is not None or self.sync != "always", where
            for topic, count in (hole.counts or {}).items():
                counted[topic] = counted.get(topic, 0) + count
        gone: dict[bytes, int] = {}
        for offset, (topic, payload) in self.answered.items():
            if found.get(offset) == (topic, payload) or topic in self.reset_asked:
                continue
            said = {hole.reason for hole in holes if hole.first <= offset <= hole.last}
            assert said, f"{offset} is missing: {where}"
            if topic.startswith(b"jobs"):
                assert offset in self.asked or "unsynced" in said, f"{offset} is not settled and gone: {where}"
            if said == {"unsynced"}:
                assert offset > self.synced, f"{offset} was synced: {where}"
                continue
            gone[topic] = gone.get(topic, 0) + 1
        if any(hole.counts is None for hole in holes):
            # Something was lost uncounted: nobody knows of what else there was less.
            return
        for topic, count in gone.items():
            assert counted.get(topic, 0) >= count, f"{topic!r}: {count} gone, {counted} told: {where}"
        for topic, count in counted.items():
            if topic not in self.reset_asked:
                assert count <= gone.get(topic, 0) + (topic == b"jobs.a"), (
                    f"{topic!r}: {gone} gone, {counted} told: {where}"
                )
