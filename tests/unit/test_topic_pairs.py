"""Pairs of entries and topics: in columns, and turned round by topic."""

from __future__ import annotations

import random
import threading
from array import array

import pytest

from busd.rules.topic_pairs import TopicNumbers, TopicPairs

Plain = list[dict[bytes, int]]


def filled(
    seed: int, entries: int = 200, topics: int = 30, numbers: TopicNumbers | None = None
) -> tuple[TopicPairs, Plain]:
    """Random ones, and the same as a plain list by entry; some entries are holes."""
    rng = random.Random(seed)
    pairs, plain = TopicPairs(numbers), []
    for _ in range(entries):
        some = {b"t%d" % rng.randrange(topics): rng.randrange(5) for _ in range(rng.randrange(6))}
        pairs.add(pairs.numbers.of(some), some.values())
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


@pytest.mark.parametrize("others", [0, 40])
def test_totals_tell_what_the_view_by_topic_would_and_do_not_make_it(others: int) -> None:
    numbers = TopicNumbers()
    numbers.of([b"other%d" % number for number in range(others)])
    pairs, plain = filled(3, numbers=numbers)
    # A control record counts as one.
    wanted = {topic: sum(n or 1 for _, n in entries) for topic, entries in by_topic(plain).items()}
    assert (pairs.totals(), pairs.total(), pairs.different()) == (wanted, sum(wanted.values()), set(wanted))
    assert pairs.waiting(200) == len(pairs)
    nobody = TopicPairs(numbers)
    assert (nobody.totals(), nobody.total(), nobody.different()) == ({}, 0, set())


@pytest.mark.parametrize("seed", range(5))
def test_parts_and_copies_join_to_the_same(seed: int) -> None:
    pairs, plain = filled(seed)
    parted, copied = TopicPairs(), TopicPairs(pairs.numbers)
    for lo, hi in ((0, 1), (1, 77), (77, 77), (77, 200)):
        names, sizes, ids, counts = pairs.part(lo, hi)
        named = {topic for some in plain[lo:hi] for topic in some}
        assert (set(names) if len(ids) < 60 else named) == named <= set(names) == set(dict.fromkeys(names))
        parted.extend(names, sizes, ids, counts)
        copied.copy(pairs, lo, hi)
    assert told(parted, 200) == told(copied, 200) == by_topic(plain)
    assert parted.ends == copied.ends == pairs.ends


def shared(others: int) -> TopicNumbers:
    """Numbers that others have had dealt before, some of the same topics."""
    numbers = TopicNumbers()
    numbers.of([b"o%d" % number for number in range(others)] + [b"t7", b"t3"])
    return numbers


@pytest.mark.parametrize("others", [0, 40, 5000])
@pytest.mark.parametrize("seed", range(3))
def test_pairs_that_share_their_numbers_tell_of_their_own_topics_alone(seed: int, others: int) -> None:
    pairs, plain = filled(seed, numbers=shared(others))
    second, more = filled(seed + 50, topics=40, numbers=pairs.numbers)
    for some, told_of in ((pairs, plain), (second, more)):
        assert told(some, 200) == by_topic(told_of)
        parted = TopicPairs()
        for lo, hi in ((0, 90), (90, 200)):
            parted.extend(*some.part(lo, hi))
        assert told(parted, 200) == by_topic(told_of)
        assert len(by_topic(told_of)) <= some.topics <= len(some.numbers)
        assert len(by_topic(told_of)) <= parted.topics <= len(some.numbers)


def test_names_that_nobody_needs_take_no_more_room_than_the_pairs() -> None:
    for length in (5, 190):
        numbers = TopicNumbers()
        names = [(b"%d" % number).ljust(length, b"x") for number in range(1000)]
        numbers.of(names)
        pairs = TopicPairs(numbers)
        for _ in range(2000):
            pairs.add((3, 7), (1, 1))
        told_names = pairs.part(0, 2000)[0]
        assert told_names == (names if length == 5 else [names[3], names[7]])


@pytest.mark.parametrize("parts", [(), (0, 60), (0, 200), (30, 60)])
def test_topics_are_counted(parts: tuple[int, ...]) -> None:
    """About, and never as fewer: not all that the store has, where the segment has few."""
    pairs, plain = filled(4, numbers=shared(100_000))
    if parts:
        pairs.part(*parts)
    some = len(by_topic(plain))
    assert some <= pairs.topics <= len(pairs)
    assert pairs.topics == some or parts != (0, 200)
    told = pairs.topics
    pairs.part(0, 200)
    assert pairs.topics <= told, "nothing is counted twice"
    pairs.add(pairs.numbers.of([b"t1", b"new"]), [1, 1])
    assert some + 1 <= pairs.topics <= told + 2
    assert TopicPairs(pairs.numbers).topics == 0


@pytest.mark.parametrize("asked", [0, 70])
def test_other_numbers_change_nothing_that_is_told(asked: int) -> None:
    pairs, plain = filled(2)
    pairs.by_topic(asked)
    few = TopicNumbers()
    few.of(list(by_topic(plain))[1:])
    before = (pairs.numbers, list(pairs.ids))
    assert not pairs.renumber(few), "one topic is missing"
    assert (pairs.numbers, list(pairs.ids)) == before
    all_of_them = shared(10)
    all_of_them.of(sorted(by_topic(plain)))
    known = len(all_of_them)
    assert pairs.renumber(all_of_them)
    assert len(all_of_them) == known
    pairs.add(all_of_them.of([b"t1", b"late"]), [3, 4])
    plain.append({b"t1": 3, b"late": 4})
    assert told(pairs, 201) == by_topic(plain)


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
        pairs.add(pairs.numbers.of(some), some.values())
        known[0] = number + 1
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert told(pairs, 3000) == by_topic(plain)
