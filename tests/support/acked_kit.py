"""A store with groups: what they want, and whether exactly that is there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from busd.rules.group_records import GroupState
from busd.rules.wanted import Claims
from busd.words.settings import StoreRule
from busd.world.trim_work import Trimmed
from tests.support.store_kit import Kit, Message, only, read_all

SMALL = StoreRule(segment_bytes=4096, retain="acked")


@dataclass
class AckedKit(Kit):
    """A store with groups."""

    rule: StoreRule = field(default_factory=lambda: SMALL)
    groups: dict[bytes, GroupState] = field(default_factory=dict)
    claims: Claims | None = None
    # From how many places `check` reads: every so many offsets.
    step: int = 7

    def group(self, name: bytes, *patterns: bytes) -> GroupState:
        """A new group that has settled nothing."""
        state = self.groups[name] = GroupState(patterns, 0, 1, 0)
        return state

    def sweep(self, asked: bool = False) -> Trimmed:
        """Let retention act once."""
        if self.claims is None or not self.claims.still(self.groups):
            self.claims = Claims(self.groups, self.claims)
        result = self.store.trim(self.store.expired(self.now_ns, self.claims, asked))
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
        """What some group has not settled, or no group covers; and no RESET removed."""
        claims = Claims(self.groups if self.rule.retain == "acked" else {})
        found = []
        for message in self.data:
            claim = claims.claim(message[1])
            if claim is None or claim.has(message[0], message[0]):
                found.append(message)
        return found

    @property
    def data(self) -> list[Message]:
        """What was kept above the last RESET, without control records (which have no payload)."""
        topics = self.store.topics
        return [message for message in self.kept if message[2] != b"" and message[0] > topics[message[1]].floor]

    def check(self) -> None:
        """What is wanted is there once and in order, the rest is there or counted; so after a restart, too."""
        for restarted in (False, True):
            if restarted:
                self.reopen()
                assert self.store.report == []
            tale = read_all(self.store, budget_bytes=700)
            told, wanted = set(tale.offsets), self.wanted
            offsets = {message[0] for message in wanted}
            assert [message for message in tale.messages if message[0] in offsets] == wanted
            assert {message[0] for message in self.kept} >= told
            counted: dict[bytes, int] = {}
            for hole in tale.holes:
                assert hole.counts is not None
                for topic, count in hole.counts.items():
                    counted[topic] = counted.get(topic, 0) + count
            gone = by_topic([message for message in self.data if message[0] not in told])
            # What a RESET removed, its event says; it may also be in a count.
            most = by_topic([message for message in self.kept if message[0] not in told and message[2] != b""])
            assert all(gone.get(topic, 0) <= counted.get(topic, 0) <= most.get(topic, 0) for topic in counted | gone)
            live = {topic: state.live for topic, state in self.store.topics.items() if state.live}
            assert live == by_topic([message for message in self.data if message[0] in told])
            for start in range(1, self.next, self.step):
                left = [m for m in tale.messages if m[0] >= start and m[1] == b"a"]
                data = [m for m in left if m[2] != b""]
                assert self.store.count(only(b"a"), start, self.next) == len(data)
                assert read_all(self.store, start, only(b"a")).messages == left


def by_topic(messages: list[Message]) -> dict[bytes, int]:
    """How many of each."""
    counts: dict[bytes, int] = {}
    for _, topic, _ in messages:
        counts[topic] = counts.get(topic, 0) + 1
    return counts
