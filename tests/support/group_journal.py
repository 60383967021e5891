"""What the workers of a group wrote down (tests/support/group_worker.py), and whether that keeps the promises.

Everything is judged from outside, by what was sent and received and when; a line that a kill cut short is ignored.
Invariants of the judgement:
1. It is never stricter than the promises: only what was answered counts as settled for sure, only what was sent
   before something was received as earlier than that.
2. An entry was written before what it allows to happen, so a killed worker hides a delivery, never an acknowledgement.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Given:
    """One delivery; `connection` is unique over all workers of the group."""

    offset: int
    tries: int
    topic: bytes
    payload: bytes
    time_ns: int
    connection: int


@dataclass(slots=True)
class Told:
    """An ACK or a NACK: when it was sent, and what was answered (nothing when the connection was lost before)."""

    kind: bytes
    tokens: list[tuple[int, int]]
    sent_ns: int
    answer: bytes = b""

    @property
    def acted_on(self) -> int | None:
        """For how many tokens it did something; None without an answer.  Raises ValueError when it makes no sense."""
        if not self.answer:
            return None
        if self.answer.startswith(b"-STALE n="):
            return int(self.answer[9:].partition(b" ")[0])
        if self.kind == b"N":
            return 1 if self.answer == b"+OK" else int(self.answer)
        return int(self.answer.removeprefix(b":"))

    @property
    def good(self) -> bool:
        """Answered, and all of it was done."""
        return self.answer == (b":%d" % len(self.tokens) if self.kind == b"A" else b"+OK")


@dataclass(slots=True)
class Journal:
    """All workers of one group."""

    given: list[Given] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    others: list[bytes] = field(default_factory=list)
    connections: int = 0
    slept: int = 0

    def read(self, paths: Iterable[Path]) -> None:
        """Take in the journals of workers."""
        for path in paths:
            lines = path.read_bytes().split(b"\n")
            # Behind the last line end: cut by a kill, or nothing.
            self.enter(lines[:-1])

    def enter(self, lines: Iterable[bytes]) -> None:
        """Take in the lines of one worker."""
        waiting: list[Told] = []
        for line in lines:
            kind, time, *rest = line.split(b" ", 2)
            if kind == b"J":
                self.connections += 1
                waiting = []
            elif kind == b"D":
                token, topic, payload = rest[0].split(b" ", 2)
                self.given.append(Given(*token_of(token), topic, payload, int(time), self.connections))
            elif kind in b"AN":
                told = Told(kind, [token_of(token) for token in rest[0].split(b",")], int(time))
                self.told.append(told)
                waiting.append(told)
            elif kind == b"R" and not waiting:
                self.others.append(rest[0])
            elif kind == b"R":
                waiting.pop(0).answer = rest[0]
            elif kind == b"H":
                self.slept += 1
            else:
                self.others.append(rest[0] if rest else line)


def token_of(text: bytes) -> tuple[int, int]:
    """Offset and tries."""
    offset, _, tries = text.partition(b".")
    return int(offset), int(tries or 1)


Kept = Mapping[int, tuple[bytes, bytes]]


def check(journal: Journal, kept: Kept, key_of: Mapping[int, bytes], late: bool = False) -> dict[str, int]:
    """The promises of a group to which all of `kept` (offset: topic and payload) was given; returns figures.

    Args:
        late: WAIT is so short that workers may be too late, so that something is stale.

    Raises:
        AssertionError: one is broken.
    """
    assert journal.others == [], journal.others[:5]
    by_offset: dict[int, list[Given]] = defaultdict(list)
    for one in journal.given:
        by_offset[one.offset].append(one)
    strangers = [one for one in journal.given if kept.get(one.offset) != (one.topic, one.payload)]
    assert strangers == [], f"not what the log has: {strangers[:3]}"
    twice = [token for token, n in Counter((one.offset, one.tries) for one in journal.given).items() if n > 1]
    assert twice == [], f"a further delivery with the token of one before: {twice[:5]}"
    acknowledged: dict[int, int] = {}
    for told in journal.told:
        for offset, _ in told.tokens if told.kind == b"A" else ():
            acknowledged[offset] = min(told.sent_ns, acknowledged.get(offset, told.sent_ns))
    lost = sorted(set(kept) - set(acknowledged))
    assert lost == [], f"{len(lost)} were settled, and nobody acknowledged them: {lost[:5]}"
    sure = {token for told in journal.told if told.kind == b"A" and told.good for token in told.tokens}
    tries = {offset: max(one.tries for one in deliveries) for offset, deliveries in by_offset.items()}
    again = [token for token in sure if tries[token[0]] > token[1]]
    assert again == [], f"answered to be settled, and given out again: {again[:5]}"
    stale = [told for told in journal.told if told.answer and not told.good]
    assert late or not stale, stale[:3]
    for told in stale:
        # Each that was not acted on had been given to another, who then had a further delivery of it.
        further = sum(tries[offset] > number for offset, number in told.tokens)
        assert told.acted_on == len(told.tokens) - further, told
    _check_order(journal)
    _check_keys(by_offset, acknowledged, key_of)
    return {
        "deliveries": len(journal.given),
        "redeliveries": sum(one.tries > 1 for one in journal.given),
        "most tries": max(tries.values()),
        "settled for sure": len(sure),
        "acknowledged more than once": sum(len(told.tokens) for told in journal.told if told.kind == b"A")
        - len(acknowledged),
        "given back": sum(told.kind == b"N" for told in journal.told),
        "slept": journal.slept,
        "stale": sum(len(told.tokens) - (told.acted_on or 0) for told in stale),
        "connections": journal.connections,
    }


def _check_order(journal: Journal) -> None:
    """What was not given out before comes in the order of offsets, except what waited for its key."""
    last: dict[int, int] = {}
    for one in journal.given:
        if one.tries == 1 and b" key=" not in one.payload:
            assert one.offset > last.get(one.connection, 0), f"{one} behind {last[one.connection]}"
            last[one.connection] = one.offset


def _check_keys(
    by_offset: Mapping[int, list[Given]], acknowledged: Mapping[int, int], key_of: Mapping[int, bytes]
) -> None:
    """A message of a key is given out only when the one before it is settled, and that never again."""
    before: dict[bytes, int] = {}
    for offset, key in sorted(key_of.items()):
        earlier = before.get(key)
        before[key] = offset
        if earlier is None:
            continue
        first = min(by_offset[offset], key=lambda one: one.time_ns)
        told_ns = acknowledged[earlier]
        assert told_ns < first.time_ns, (
            f"{offset} of {key!r} came {told_ns - first.time_ns} ns before {earlier} was done"
        )
        behind = [
            one for one in by_offset[earlier] if one.connection == first.connection and one.time_ns > first.time_ns
        ]
        assert behind == [], f"{offset} of {key!r}, and then {behind[0]}"
