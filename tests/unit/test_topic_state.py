"""What a batch does to the states of its topics, one at a time and by index."""

from __future__ import annotations

import random

import pytest

from busd.rules.segment_index import SegmentIndex
from busd.rules.topic_state import TopicState, add_lost, note, note_index, state_of
from tests.support.store_kit import batch_of


def test_messages_count_and_reopen() -> None:
    topics: dict[bytes, TopicState] = {}
    assert note(topics, batch_of([(b"a", b""), (b"b", b""), (b"a", b"")], 1, 0, 0)) == 3
    assert topics == {b"a": TopicState(2, 2, 3), b"b": TopicState(1, 1, 2)}
    assert note(topics, batch_of([(b"a", b"")], 4, 3, 0, flags="e")) == 0
    assert topics[b"a"] == TopicState(2, 2, 4, ended=True)
    note(topics, batch_of([(b"a", b"")], 5, 4, 0))
    assert topics[b"a"] == TopicState(3, 3, 5)


def test_a_reset_removes_what_was_and_ends_an_end() -> None:
    topics = {b"a": TopicState(7, 5, 90, ended=True)}
    assert note(topics, batch_of([(b"a", b"5"), (b"b", b"0")], 100, 90, 0, flags="r")) == 0
    assert topics[b"a"] == TopicState(7, 0, 100, 100, False, 7)
    assert topics[b"b"] == TopicState(0, 0, 101, 101, False, 0)
    note(topics, batch_of([(b"a", b"")], 102, 101, 0))
    assert topics[b"a"] == TopicState(8, 1, 102, 100, False, 7)


def test_sparse_offsets() -> None:
    topics: dict[bytes, TopicState] = {}
    note(topics, batch_of([(b"a", b""), (b"b", b""), (b"b", b"")], 10, 0, 0, step=5))
    assert {topic: state.last for topic, state in topics.items()} == {b"a": 10, b"b": 20}


def test_an_opening_line_there_and_back() -> None:
    state = TopicState(9, 4, 70, 50, True, 5)
    assert state_of(state.line()) == state


def test_what_was_lost_is_counted_but_not_alive() -> None:
    topics = {b"a": TopicState(3, 3, 30)}
    assert add_lost(topics, {b"a": 2, b"b": 4}, 25) == 6
    assert topics == {b"a": TopicState(5, 3, 30), b"b": TopicState(4, 0, 25)}


@pytest.mark.parametrize("seed", range(20))
def test_the_index_tells_the_same_as_the_batches(seed: int) -> None:
    rng = random.Random(seed)
    base = {b"a": TopicState(4, 4, 3), b"quiet": TopicState(1, 1, 2)}
    slow, fast = base, {topic: state_of(state.line()) for topic, state in base.items()}
    index, batches, last = SegmentIndex(0, 5), [], 5
    for number in range(40):
        messages = [(rng.choice([b"a", b"b", b"c"]), b"") for _ in range(rng.randint(1, 4))]
        flags = rng.choice("----er")
        batch = batch_of(messages, last + rng.randint(1, 3), last, 0, flags=flags, step=rng.choice([1, 2]))
        batches.append(batch)
        index.add(number, 1, batch)
        note(slow, batch)
        last = batch.last
    note_index(fast, index, batches.__getitem__)
    assert fast == slow
