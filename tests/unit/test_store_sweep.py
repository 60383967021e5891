"""What groups have settled, a RESET removed or a ttl ended goes from the middle of a store; what is left is exact."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pytest

from busd.rules.group_records import GroupState
from busd.rules.wanted import Claims
from busd.words.settings import StoreRule
from busd.world import store_sweep
from busd.world.store_trim import Trimmed
from tests.support.store_kit import Kit, Message, every, only, read_all

SMALL = StoreRule(segment_bytes=4096, retain="acked")


@dataclass
class AckedKit(Kit):
    """A store with groups."""

    rule: StoreRule = field(default_factory=lambda: SMALL)
    groups: dict[bytes, GroupState] = field(default_factory=dict)

    def group(self, name: bytes, *patterns: bytes) -> GroupState:
        """A new group that has settled nothing."""
        state = self.groups[name] = GroupState(patterns, 0, 1, 0)
        return state

    def sweep(self, asked: bool = False) -> Trimmed:
        """Let retention act once."""
        result = self.store.trim(self.store.expired(self.now_ns, Claims(self.groups), asked))
        assert result.error is None
        self.store.trimmed(result)
        return result

    def settle(self, group: bytes, offsets: Iterable[int]) -> None:
        """The group has settled these of what it was given."""
        for offset in offsets:
            self.groups[group].unsettled.drop(offset, offset)

    def give(self, group: bytes) -> None:
        """Everything so far is out."""
        state = self.groups[group]
        for offset, topic, _ in self.kept:
            if offset >= state.next and Claims(self.groups).covers.of(topic).count(group):
                state.unsettled.put(offset, offset, 1)
        state.next = self.next

    @property
    def wanted(self) -> list[Message]:
        """What some group has not settled, or no group covers."""
        claims = Claims(self.groups)
        found = []
        for message in self.kept:
            claim = claims.claim(message[1])
            if claim is None or claim.has(message[0], message[0]):
                found.append(message)
        return found

    def check(self) -> None:
        """What is wanted is there once and in order, the rest is there or counted; so after a restart, too."""
        for restarted in (False, True):
            if restarted:
                self.reopen()
                assert self.store.report == []
            tale = read_all(self.store, budget_bytes=700)
            told = set(tale.offsets)
            assert [message for message in tale.messages if message in self.wanted] == self.wanted
            counted: dict[bytes, int] = {}
            for hole in tale.holes:
                assert hole.counts is not None
                for topic, count in hole.counts.items():
                    counted[topic] = counted.get(topic, 0) + count
            gone = [message for message in self.kept if message[0] not in told]
            assert {topic: count for topic, count in counted.items() if count} == by_topic(gone)
            live = {topic: state.live for topic, state in self.store.topics.items() if state.live}
            assert live == by_topic(tale.messages)
            for start in range(1, self.next, 7):
                left = [m for m in tale.messages if m[0] >= start and m[1] == b"a"]
                assert self.store.count_kept(only(b"a"), start, self.next) == len(left)
                assert read_all(self.store, start, only(b"a")).messages == left


def by_topic(messages: list[Message]) -> dict[bytes, int]:
    """How many of each."""
    counts: dict[bytes, int] = {}
    for _, topic, _ in messages:
        counts[topic] = counts.get(topic, 0) + 1
    return counts


def filled(kit: AckedKit, count: int = 60, size: int = 300) -> AckedKit:
    """So many messages on topics a and b, in several segments."""
    for number in range(count):
        kit.commit((b"ab"[number % 2 : number % 2 + 1], b"%04d" % number + b"." * size))
    return kit


def test_nothing_goes_while_a_group_wants_it() -> None:
    kit = filled(AckedKit())
    kit.group(b"g", b">")
    assert kit.sweep().gone == []
    kit.give(b"g")
    assert kit.sweep().gone == []
    kit.check()
    assert [m[0] for m in kit.wanted] == list(range(1, 61))


def test_what_everybody_has_settled_goes_from_the_front() -> None:
    kit = filled(AckedKit())
    kit.group(b"g", b">").next = 40
    kit.group(b"h", b"b").next = 20
    kit.sweep()
    kit.check()
    # h is at 20: from there on what is on b is kept for it.
    assert kit.store.first in (14, 15, 16, 17, 18, 19, 20)
    kit.groups[b"h"].next = 60
    kit.sweep()
    kit.sweep()
    kit.check()
    assert kit.store.first > 30


def test_what_no_group_covers_stays() -> None:
    kit = filled(AckedKit())
    kit.group(b"g", b"a").next = 100
    kit.sweep()
    kit.check()
    told = read_all(kit.store)
    assert [m for m in told.messages if m[1] == b"b"] == [m for m in kit.kept if m[1] == b"b"]


def test_a_stuck_message_keeps_little() -> None:
    kit = filled(AckedKit(), 120)
    kit.group(b"g", b">")
    kit.give(b"g")
    kit.settle(b"g", [n for n in range(1, 121) if n not in (33, 77)])
    before = kit.store.bytes
    kit.sweep()
    kit.check()
    assert kit.store.bytes < before / 4
    assert {33, 77} <= set(read_all(kit.store).offsets)
    assert {hole.reason for hole in read_all(kit.store).holes} == {"settled", "trimmed"}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("can_punch", [True, False])
def test_any_order_of_settling(seed: int, can_punch: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random batches, groups and acknowledgements against the list of what was kept."""
    monkeypatch.setattr(store_sweep, "PUNCH_BYTES", 700)
    rng = random.Random(seed)
    kit = AckedKit(rule=replace(SMALL, segment_bytes=8192))
    kit.disk.can_punch = can_punch
    kit.group(b"g", b">")
    kit.group(b"h", rng.choice([b"a", b"b.>", b">"]))
    for _ in range(8):
        for _ in range(rng.randint(5, 30)):
            topics = [rng.choice([b"a", b"b.c", b"d"]) for _ in range(rng.choice([1, 1, 5]))]
            kit.commit(*[(topic, b"x" * rng.choice([3, 300])) for topic in topics], step=rng.choice([1, 2]))
        for name in kit.groups:
            if rng.random() < 0.7:
                kit.give(name)
                share = rng.choice([0.5, 0.95, 1])
                kit.settle(name, [m[0] for m in kit.kept if rng.random() < share])
        kit.sweep(asked=rng.random() < 0.3)
        kit.check()
    assert kit.store.bytes < sum(len(b"%s" % m[2]) for m in kit.kept if isinstance(m[2], bytes)) * 2
    assert any("punch" in call for call in kit.disk.calls) == can_punch or kit.store.first > 1


def test_punching_gives_back_a_stretch_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_sweep, "PUNCH_BYTES", 2000)
    kit = filled(AckedKit(rule=replace(SMALL, segment_bytes=1 << 16)), 100)
    kit.roll()
    kit.group(b"g", b">")
    kit.give(b"g")
    kit.settle(b"g", range(30, 50))
    result = kit.sweep()
    (new,) = result.new
    assert new.dead_bytes > 6000
    kinds = [call.split()[0] for call in kit.disk.calls]
    at = kinds.index("overwrite")
    assert kinds[at : at + 4] == ["overwrite", "sync", "punch", "sync"]
    kit.check()
    assert read_all(kit.store).losses == [(30, 49, "settled", {b"a": 10, b"b": 10})]


def test_reset_and_ttl_give_their_space_back() -> None:
    kit = AckedKit(rule=StoreRule(segment_bytes=4096))
    for number in range(40):
        kit.commit((b"a", b"x" * (400 + number)), (b"b", [b"y" * 300, b"ttl", b"5s"]))
    kit.commit((b"a", b""), flags="r")
    kit.roll()
    before = kit.store.bytes
    kit.sweep()
    half = kit.store.bytes
    assert half < before * 0.7
    told = read_all(kit.store)
    assert [m for m in told.messages if m[1] == b"b"] == [m for m in kit.kept if m[1] == b"b"]
    assert told.losses == [] or all(not counts for *_, counts in told.losses), "the RESET's event says it"
    kit.now_ns += 10 * 10**9
    kit.sweep()
    assert kit.store.bytes < before * 0.2
    assert read_all(kit.store, wanted=every).messages == [m for m in kit.kept if m[2] == b""]
    assert kit.sweep().gone == []
