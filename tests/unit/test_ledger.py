"""How many messages of a store are not settled: against the plain way of counting them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busd.rules import column as columns
from busd.rules.group_records import GroupState, States, apply, line_done, line_out, line_seek
from busd.rules.ledger import Ledger, lowest
from busd.rules.record import Batch, frame
from busd.rules.wanted import Claim, Covers

pytestmark = pytest.mark.usefixtures("column_kind")


def batch(first: int, topics: list[bytes], steps: tuple[int, ...] | None = None, flags: str = "-") -> Batch:
    """One message for each of the topics."""
    letters = dict.fromkeys(topics)
    names = tuple(letters)
    column = columns.make(letters, [(topics, len(topics))]) if len(names) > 1 else None
    return frame(first, 1, first - 1, 0, flags, names, column, steps, [b"p"] * len(topics))


def group(*patterns: bytes, next_offset: int = 1) -> GroupState:
    """A group."""
    return GroupState(patterns, 0, next_offset, 1)


def unsettled(ledger: Ledger, states: States, floor: int = 0) -> int:
    """The question, for groups as they are."""
    covers = Covers({name: state.patterns for name, state in states.items()})

    def claim_of(topic: bytes) -> Claim | None:
        cover = covers.of(topic)
        return Claim([states[name] for name in cover]) if cover else None

    return ledger.unsettled(claim_of, lambda topic: floor)


def test_what_no_group_covers_counts() -> None:
    ledger = Ledger()
    ledger.add(batch(1, [b"a", b"b", b"a"]))
    assert unsettled(ledger, {}) == 3
    assert unsettled(ledger, {b"g": group(b"a", next_offset=9)}) == 1


def test_control_records_do_not_count() -> None:
    ledger = Ledger()
    ledger.add(batch(1, [b"a"], flags="e"))
    ledger.add(batch(2, [b"a"], flags="r"))
    assert unsettled(ledger, {}) == 0


def test_what_is_out_counts_until_it_is_settled() -> None:
    ledger, states = Ledger(), {b"g": group(b">")}
    ledger.add(batch(1, [b"a"] * 10))
    assert unsettled(ledger, states) == 10
    apply(states, line_out(b"g", 6, 1, [(1, 5)]))
    assert unsettled(ledger, states) == 10
    apply(states, line_done(b"g", [(2, 3)]))
    assert unsettled(ledger, states) == 8
    apply(states, line_done(b"g", [(1, 1), (4, 5)]))
    assert unsettled(ledger, states) == 5
    assert len(ledger) == 5


def test_offsets_of_other_stores_do_not_count() -> None:
    ledger, states = Ledger(), {b"g": group(b">", next_offset=1)}
    ledger.add(batch(1, [b"a"] * 3, (4, 4)))
    apply(states, line_out(b"g", 7, 1, [(1, 6)]))
    assert unsettled(ledger, states) == 3
    apply(states, line_done(b"g", [(5, 5)]))
    assert unsettled(ledger, states) == 2


def test_settled_is_what_every_group_has_settled() -> None:
    states = {b"g": group(b"a"), b"h": group(b">")}
    ledger = Ledger()
    ledger.add(batch(1, [b"a", b"b", b"a", b"b"]))
    apply(states, line_out(b"g", 4, 1, [(1, 1), (3, 3)]))
    apply(states, line_done(b"g", [(1, 1), (3, 3)]))
    assert unsettled(ledger, states) == 4
    apply(states, line_out(b"h", 5, 1, [(1, 4)]))
    apply(states, line_done(b"h", [(1, 2)]))
    assert unsettled(ledger, states) == 2


def test_a_group_that_stands_far_back_on_another_topic_holds_nothing() -> None:
    states = {b"g": group(b"a", next_offset=4), b"idle": group(b"b")}
    ledger = Ledger()
    ledger.add(batch(1, [b"a"] * 3))
    assert unsettled(ledger, states) == 0


def test_what_is_below_the_floor_is_gone() -> None:
    ledger = Ledger()
    ledger.add(batch(1, [b"a"] * 5))
    assert unsettled(ledger, {}, floor=4) == 2
    assert not ledger.stale


def test_many_out_at_once_are_counted_by_spans() -> None:
    ledger, states = Ledger(), {b"g": group(b">")}
    ledger.add(batch(1, [b"a"] * 200))
    apply(states, line_out(b"g", 151, 1, [(1, 150)]))
    apply(states, line_done(b"g", [(number, number) for number in range(2, 150, 2)]))
    assert unsettled(ledger, states) == 200 - 74


def test_a_group_that_goes_back_behind_what_is_known_makes_it_stale() -> None:
    ledger, states = Ledger(), {b"g": group(b">", next_offset=6)}
    ledger.add(batch(1, [b"a"] * 10))
    assert unsettled(ledger, states) == 5
    assert not ledger.stale
    apply(states, line_seek(b"g", 3))
    assert unsettled(ledger, states) == 5
    assert ledger.stale


def test_what_begins_in_the_middle_of_a_log_knows_nothing_below() -> None:
    ledger = Ledger(5)
    ledger.add(batch(5, [b"a"] * 2))
    assert unsettled(ledger, {b"g": group(b">", next_offset=5)}) == 2
    assert not ledger.stale
    unsettled(ledger, {b"g": group(b">", next_offset=4)})
    assert ledger.stale


def test_the_lowest_of_a_claim() -> None:
    states: States = {b"g": group(b">")}
    apply(states, line_out(b"g", 6, 1, [(2, 3)]))
    assert lowest(Claim(list(states.values()))) == 2
    assert lowest(Claim([group(b">", next_offset=4)])) == 4


TOPICS = [b"a", b"b", b"c"]
PATTERNS = [(b"a",), (b"a", b"b"), (b">",)]


@settings(max_examples=60)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("publish"), st.lists(st.sampled_from(TOPICS), min_size=1, max_size=5), st.integers(0, 2)),
            st.tuples(st.just("out"), st.integers(0, 2), st.integers(1, 6)),
            st.tuples(st.just("done"), st.integers(0, 2), st.integers(0, 40)),
        ),
        max_size=25,
    )
)
def test_it_counts_as_one_would_message_by_message(steps: list[tuple[str, object, int]]) -> None:
    names = [b"g0", b"g1", b"g2"]
    states = {name: group(*patterns) for name, patterns in zip(names, PATTERNS, strict=True)}
    covers = Covers({name: state.patterns for name, state in states.items()})
    ledger, messages, horizon = Ledger(), [], 1
    settled: dict[bytes, set[int]] = {name: set() for name in names}
    for verb, what, number in steps:
        if verb == "publish":
            assert isinstance(what, list)
            first = horizon + number
            ledger.add(batch(first, what))
            messages += [(first + at, topic) for at, topic in enumerate(what)]
            horizon = first + len(what)
            continue
        assert isinstance(what, int)
        name = names[what]
        state = states[name]
        mine = [offset for offset, topic in messages if name in covers.of(topic)]
        if verb == "out":
            given_out = [offset for offset in mine if offset >= state.next][:number]
            if given_out:
                apply(states, line_out(name, given_out[-1] + 1, 1, [(offset, offset) for offset in given_out]))
        elif mine and (offset := mine[number % len(mine)]) < state.next:
            apply(states, line_done(name, [(offset, offset)]))
            settled[name].add(offset)
        expected = sum(not all(offset in settled[name] for name in covers.of(topic)) for offset, topic in messages)
        assert unsettled(ledger, states) == expected
        assert not ledger.stale
