"""The table of topics against a plain model: what batches, losses and trimming do to it, one at a time and by index."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busd.rules.segment_index import SegmentIndex
from busd.rules.segment_opening import Opening, TopicLine
from busd.rules.topic_state import TopicState, TopicTable
from tests.support.store_kit import batch_of
from tests.support.topic_model import lose_plainly, note_plainly

NAMES = [b"a", b"b", b"c.d", b"e"]


def lines_of(table: TopicTable) -> dict[bytes, TopicLine]:
    """What is read from the opening of a segment."""
    return Opening("main", 1, 1, 0, 0, 1, 1, 0, 0, table.lines()).topics()


def loaded(lines: dict[bytes, TopicLine]) -> TopicTable:
    """A table that a segment opening describes."""
    table = TopicTable()
    table.load(lines)
    return table


def test_messages_count_and_reopen() -> None:
    table = TopicTable()
    assert table.note(batch_of([(b"a", b""), (b"b", b""), (b"a", b"")], 1, 0, 0)) == ([0, 1], [2, 1])
    assert table == {b"a": TopicState(2, 2, 3), b"b": TopicState(1, 1, 2)}
    ids, counts = table.note(batch_of([(b"a", b"")], 4, 3, 0, flags="e"))
    assert (list(ids), list(counts)) == ([0], [0])
    assert table[b"a"] == TopicState(2, 2, 4, ended=True)
    ids, counts = table.note(batch_of([(b"a", b"")], 5, 4, 0))
    assert (list(ids), list(counts)) == ([0], [1])
    assert table[b"a"] == TopicState(3, 3, 5)


def test_an_end_is_undone_by_a_message_among_others() -> None:
    table = TopicTable()
    table.note(batch_of([(b"a", b""), (b"b", b"")], 1, 0, 0, flags="e"))
    table.note(batch_of([(b"b", b""), (b"c", b"")], 3, 2, 0))
    assert {topic: state.ended for topic, state in table.items()} == {b"a": True, b"b": False, b"c": False}


def test_a_reset_removes_what_was_and_ends_an_end() -> None:
    table = loaded({b"a": TopicLine(7, 90, 0, 0, True)})
    table.set_live(b"a", 5)
    assert table[b"a"] == TopicState(7, 5, 90, ended=True)
    table.note(batch_of([(b"a", b"5"), (b"b", b"0")], 100, 90, 0, flags="r"))
    assert table[b"a"] == TopicState(7, 0, 100, 100, False, 7)
    assert table[b"b"] == TopicState(0, 0, 101, 101, False, 0)
    assert (table.reset, table.floor_of(b"a"), table.floor_of(b"never")) == (101, 100, 0)
    table.note(batch_of([(b"a", b"")], 102, 101, 0))
    assert table[b"a"] == TopicState(8, 1, 102, 100, False, 7)


def test_sparse_offsets() -> None:
    table = TopicTable()
    table.note(batch_of([(b"a", b""), (b"b", b""), (b"b", b"")], 10, 0, 0, step=5))
    assert {topic: state.last for topic, state in table.items()} == {b"a": 10, b"b": 20}


def test_what_was_lost_is_counted_but_not_alive() -> None:
    table = loaded({b"a": TopicLine(3, 30, 0, 0, False)})
    assert table.add_lost({b"a": 2, b"b": 4}, 25) == 6
    assert table == {b"a": TopicState(5, 3, 30), b"b": TopicState(4, 0, 25)}


def test_which_have_messages_and_which_are_at_their_end() -> None:
    table = loaded({b"gone": TopicLine(7, 90, 0, 0, True), b"there": TopicLine(2, 91, 0, 0, False)})
    table.set_live(b"gone", 0)
    table.note(batch_of([(b"ended", b"")], 92, 91, 0))
    table.note(batch_of([(b"ended", b"")], 93, 92, 0, flags="e"))
    assert (table.with_messages(), sorted(table.ended())) == ([b"there", b"ended"], [b"ended", b"gone"])
    assert [table.live_of(name) for name in (b"gone", b"there", b"ended", b"never")] == [0, 2, 1, 0]
    rows = [table.rows(lambda name: name != b"there", range(lo, min(lo + 2, 3))) for lo in (0, 2)]
    assert rows == [[(b"gone", 0, 90, True)], [(b"ended", 1, 93, True)]]


def test_asking_makes_no_topic() -> None:
    table = TopicTable()
    table.note(batch_of([(b"a", b"")], 1, 0, 0))
    assert (b"b" in table, table.get(b"b"), table.floor_of(b"b")) == (False, None, 0)
    with pytest.raises(KeyError):
        table[b"b"]
    assert (len(table), list(table)) == (1, [b"a"])


STEPS = st.one_of(
    st.tuples(st.just("-"), st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(1, 3)),
    st.tuples(
        st.sampled_from("er"), st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True), st.integers(1, 3)
    ),
    st.tuples(st.just("lost"), st.lists(st.integers(0, 3), max_size=3), st.integers(1, 3)),
    st.tuples(st.just("trimmed"), st.lists(st.integers(0, 3), max_size=2), st.integers(0, 3)),
    st.tuples(st.just("restart"), st.just([0]), st.just(1)),
)


@given(st.lists(STEPS, max_size=25))
def test_the_table_is_as_a_plain_dictionary_would_be(steps: list[tuple[str, list[int], int]]) -> None:
    """Whatever comes: messages of one topic or several, ends, RESETs, losses, trimming, an opening read back."""
    table, plain, last = TopicTable(), dict[bytes, TopicState](), 0
    for kind, places, number in steps:
        names = [NAMES[place] for place in places]
        if kind == "lost":
            counts = dict.fromkeys(names, number)
            table.add_lost(counts, last)
            lose_plainly(plain, counts, last)
        elif kind == "trimmed":
            for name in filter(plain.__contains__, names):
                plain[name] = replace(plain[name], live=min(number, plain[name].count))
                table.set_live(name, plain[name].live)
        elif kind == "restart":
            table = loaded(lines_of(table))
            plain = {name: replace(one, live=one.count - one.dead) for name, one in plain.items()}
        else:
            batch = batch_of([(name, b"") for name in names], last + number, last, 0, flags=kind, step=number)
            ids, counted = table.note(batch)
            note_plainly(plain, batch)
            assert [table.numbers.names[one] for one in ids] == list(batch.topics)
            assert list(counted) == [0 if kind in "er" else names.count(topic) for topic in batch.topics]
            last = batch.last
    assert table == plain
    assert list(table) == table.numbers.names
    assert sorted(table) == sorted(plain)
    assert table.live == sum(state.live for state in plain.values())
    assert table.reset == max((state.floor for state in plain.values()), default=0)
    assert {name: table.floor_of(name) for name in NAMES if table.floor_of(name)} == {
        name: state.floor for name, state in plain.items() if state.floor
    }
    assert lines_of(table) == {
        name: TopicLine(one.count, one.last, one.floor, one.dead, one.ended) for name, one in plain.items()
    }


@pytest.mark.parametrize("seed", range(20))
def test_the_index_tells_the_same_as_the_batches(seed: int) -> None:
    rng = random.Random(seed)
    before = {b"a": TopicLine(4, 3, 0, 0, False), b"quiet": TopicLine(1, 2, 0, 0, False)}
    slow, fast = loaded(before), loaded(before)
    index, batches, last = SegmentIndex(0, 5), [], 5
    for number in range(40):
        messages = [(rng.choice([b"a", b"b", b"c"]), b"") for _ in range(rng.randint(1, 4))]
        flags = rng.choice("----er")
        batch = batch_of(messages, last + rng.randint(1, 3), last, 0, flags=flags, step=rng.choice([1, 2]))
        batches.append(batch)
        index.add(number, 1, batch)
        slow.note(batch)
        last = batch.last
    fast.note_index(index, batches.__getitem__)
    assert fast == slow


def test_a_topic_that_a_thread_can_find_has_its_place_in_every_column() -> None:
    table, failures, stop = TopicTable(), list[str](), threading.Event()

    def read() -> None:
        while not stop.is_set():
            names = list(table)
            newest = names[-40:]
            states = [table.get(name) for name in newest]
            if None in states or len(table) < len(names) or any(table.floor_of(name) for name in newest):
                failures.append(f"{len(names)} names")
            if table.lines().count(b"\r\n") < len(names):
                failures.append(f"{len(names)} lines")

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for at in range(0, 4000, 20):
        table.note(batch_of([(b"t%d" % number, b"") for number in range(at, at + 20)], at + 1, at, 0))
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert (len(table), table.live) == (4000, 4000)
