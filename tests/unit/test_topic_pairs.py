"""Pairs of entries and topics: in columns, and turned round by topic."""

from __future__ import annotations

import random
import threading
from array import array

import pytest

from busd.rules.topic_pairs import TopicPairs

Plain = list[dict[bytes, int]]


def filled(seed: int, entries: int = 200, topics: int = 30) -> tuple[TopicPairs, Plain]:
    """Random ones, and the same as a plain list by entry; some entries are holes."""
    rng = random.Random(seed)
    pairs, plain = TopicPairs(), []
    for _ in range(entries):
        some = {b"t%d" % rng.randrange(topics): rng.randrange(5) for _ in range(rng.randrange(6))}
        pairs.add(some, some.values())
        plain.append(some)
    return pairs, plain


def by_topic(plain: Plain) -> dict[bytes, list[tuple[int, int]]]:
    """Entry and messages of every topic."""
    found: dict[bytes, list[tuple[int, int]]] = {}
    for number, some in enumerate(plain):
        for topic, messages in some.items():
            found.setdefault(topic, []).append((number, messages))
    return found


def told(pairs: TopicPairs, entries: int) -> dict[bytes, list[tuple[int, int]]]:
    """The same of pairs."""
    view = pairs.by_topic(entries)
    return {topic: list(zip(one.numbers, one.counts, strict=True)) for topic, one in view.items()}


@pytest.mark.parametrize("seed", range(5))
def test_by_topic_tells_what_was_added_however_often_it_is_asked(seed: int) -> None:
    pairs, plain = filled(seed)
    for upto in (0, 1, 50, 50, 120, 200):
        assert pairs.waiting(200) == sum(map(len, plain)) - sum(len(one.numbers) for one in pairs.by_topic(0).values())
        assert told(pairs, upto) == by_topic(plain[:upto])
    assert pairs.waiting(200) == 0
    # Once more is turned round, it stays.
    assert told(pairs, 3) == by_topic(plain)
    assert (len(pairs), pairs.topics) == (sum(map(len, plain)), len(by_topic(plain)))


@pytest.mark.parametrize("seed", range(5))
def test_parts_and_copies_join_to_the_same(seed: int) -> None:
    pairs, plain = filled(seed)
    parted, copied = TopicPairs(), TopicPairs()
    for lo, hi in ((0, 1), (1, 77), (77, 77), (77, 200)):
        names, sizes, ids, counts = pairs.part(lo, hi)
        assert len(names) == len({topic for some in plain[lo:hi] for topic in some})
        parted.extend(names, sizes, ids, counts)
        copied.copy(pairs, lo, hi)
    assert told(parted, 200) == told(copied, 200) == by_topic(plain)
    assert parted.ends == copied.ends == pairs.ends


def test_a_part_that_contradicts_itself_changes_nothing() -> None:
    pairs, plain = filled(1)
    some = (array("I", [1]), array("I", [0]), array("I", [3]))
    for names, sizes, ids, counts in (
        ([b"a"], array("I", [2]), *some[1:]),
        ([b"a"], some[0], array("I", [1]), some[2]),
        ([b"a"], *some[:2], array("I", [3, 3])),
        ([], *some),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            pairs.extend(names, sizes, ids, counts)
    assert told(pairs, 200) == by_topic(plain)
    assert len(pairs.ends) == 200


def test_readers_in_threads_see_all_of_the_entries_that_they_know_of() -> None:
    pairs, plain = TopicPairs(), filled(3, 3000)[1]
    pairs.guard = threading.Lock()
    failures: list[int] = []
    stop = threading.Event()
    known = [0]

    def read() -> None:
        while not stop.is_set():
            entries = known[0]
            numbers = {n for one in list(pairs.by_topic(entries).values()) for n in one.numbers[:]}
            if not numbers >= {number for number in range(entries) if plain[number]}:
                failures.append(entries)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number, some in enumerate(plain):
        pairs.add(some, some.values())
        known[0] = number + 1
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert told(pairs, 3000) == by_topic(plain)
