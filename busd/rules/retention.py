"""When a segment is closed, and which segments have to go: decisions over plain facts.

Caps act by whole segments, oldest first, and never on the active one; so segments are closed early enough that a cap
is exceeded by a quarter and a commit at most.  Where `full` is not drop, caps of bytes and messages refuse what is
new, and drop nothing.  Pure: no files, no clock.  Invariants:
1. What is dropped is a prefix of the sealed segments.
2. Time only drops what is old by the server's own receive times; 0 means no cap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from busd.rules.segment_index import MAX_SEGMENT_BYTES
from busd.words.settings import StoreRule

_NS_PER_S = 1_000_000_000
_NS_PER_DAY = 86_400 * _NS_PER_S
# An age of seconds must not close a segment, with its two syncs, many times a second.
_SHORTEST_SPAN_NS = _NS_PER_S


@dataclass(slots=True, frozen=True)
class ActiveFacts:
    """The active segment.  `oldest_ns`, `newest_ns`: receive times of its first and last message; 0 when empty."""

    size_bytes: int
    messages: int
    oldest_ns: int
    newest_ns: int


@dataclass(slots=True, frozen=True)
class SealedFacts:
    """A sealed segment.  No message in it is younger than `newest_ns`."""

    size_bytes: int
    messages: int
    newest_ns: int


def plain_bytes(rule: StoreRule) -> int:
    """Up to which size a segment is never closed; 0 where more than its size counts.

    To ask for all facts takes a tenth of a small commit.
    """
    if (rule.max_messages and rule.full == "drop") or rule.max_age_ns or rule.rotate_at_s is not None:
        return 0
    return min(rule.segment_bytes, MAX_SEGMENT_BYTES)


def must_roll(rule: StoreRule, active: ActiveFacts, size_bytes: int, now_ns: int) -> bool:
    """True when `size_bytes` more should go to a new segment; an empty one (oldest_ns 0) is never closed."""
    if not active.oldest_ns:
        return False
    if active.size_bytes + size_bytes > min(rule.segment_bytes, MAX_SEGMENT_BYTES):
        return True
    if rule.max_messages and rule.full == "drop" and active.messages >= max(1, rule.max_messages // 4):
        return True
    if rule.max_age_ns:
        span_ns = max(rule.max_age_ns // 4, _SHORTEST_SPAN_NS)
        if active.oldest_ns + span_ns <= now_ns or is_old(rule, active, now_ns):
            return True
    return rule.rotate_at_s is not None and active.oldest_ns < last_rotation_ns(rule.rotate_at_s, now_ns)


def is_old(rule: StoreRule, active: ActiveFacts, now_ns: int) -> bool:
    """True when every message of the active segment is older than the rule allows."""
    return bool(rule.max_age_ns and active.newest_ns and active.newest_ns + rule.max_age_ns <= now_ns)


def last_rotation_ns(rotate_at_s: int, now_ns: int) -> int:
    """The latest moment not after `now_ns` at which it was this time of day (UTC)."""
    at_ns = rotate_at_s * _NS_PER_S
    return (now_ns - at_ns) // _NS_PER_DAY * _NS_PER_DAY + at_ns


def drop_count(
    rule: StoreRule, sealed: Sequence[SealedFacts], active: ActiveFacts, kept_bytes: int, now_ns: int
) -> int:
    """How many of the sealed segments (oldest first) have to go.

    `kept_bytes`: what is kept whatever the caps say (survivors of keep_last); it counts, and cannot be dropped here.
    """
    size_bytes = kept_bytes + active.size_bytes + sum(one.size_bytes for one in sealed)
    messages = active.messages + sum(one.messages for one in sealed)
    count = 0
    drop = rule.full == "drop"
    for one in sealed:
        if not (
            (drop and rule.max_bytes and size_bytes > rule.max_bytes)
            # A commit is in one segment whole, and may be more than the cap: the newest stay all the same.
            or (drop and rule.max_messages and messages - one.messages >= rule.max_messages)
            or (rule.max_age_ns and one.newest_ns + rule.max_age_ns <= now_ns)
        ):
            break
        size_bytes -= one.size_bytes
        messages -= one.messages
        count += 1
    return count


def survivors(counts: Sequence[int], later: int, keep_last: int) -> list[int]:
    """Of one topic's entries in a segment (messages in each, oldest first): how many of each are among the last.

    `later`: messages of the topic behind this segment.  The newest of an entry survive.
    """
    left = max(0, keep_last - later)
    kept = [0] * len(counts)
    for number in range(len(counts) - 1, -1, -1):
        if left <= 0:
            break
        kept[number] = min(left, counts[number])
        left -= kept[number]
    return kept


def merge_count(sizes_bytes: Sequence[int], limit_bytes: int) -> int:
    """How many of these neighbours go into one rewritten segment: one at least, more only within the limit."""
    total = sizes_bytes[0]
    for count, size in enumerate(sizes_bytes[1:], 1):
        total += size
        if total > limit_bytes:
            return count
    return len(sizes_bytes)


def merge_groups(sizes_bytes: Sequence[int], limit_bytes: int) -> list[int]:
    """How many neighbours go into each rewritten segment so that none exceeds the limit by more than its last part."""
    groups: list[int] = []
    at = 0
    while at < len(sizes_bytes):
        groups.append(merge_count(sizes_bytes[at:], limit_bytes))
        at += groups[-1]
    return groups
