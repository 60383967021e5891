"""What a member has out, against a model with an object a message."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busd.rules.flight import Chunk, Flight


def offsets_of(chunks: list[Chunk]) -> list[int]:
    return [offset for chunk in chunks for offset in chunk.offsets]


def flight_of(*chunks: Chunk) -> Flight:
    flight = Flight()
    for chunk in chunks:
        flight.add(chunk)
    return flight


def test_a_token_is_offset_and_try() -> None:
    flight = flight_of(Chunk(range(1, 6), 1, seq=1), Chunk([8], 2, seq=2), Chunk([10, 12], 3, seq=3))
    assert flight.take((8, 1)) is None
    assert flight.take((10, 1)) is None
    assert flight.take((6, 1)) is None
    assert flight.count == 8
    for token in ((3, 1), (8, 2), (12, 3)):
        taken = flight.take(token)
        assert taken is not None
        assert (list(taken.offsets), taken.tries) == ([token[0]], token[1])
        assert flight.take(token) is None
    assert sorted(offsets_of(flight.drain())) == [1, 2, 4, 5, 10]
    assert flight.count == 0


def test_through_means_sent_before_not_lower() -> None:
    flight = flight_of(Chunk(range(5, 9), 1, seq=1), Chunk([2], 2, seq=2), Chunk([3, 4], 2, seq=3))
    assert offsets_of(flight.take_through((6, 1)) or []) == [5, 6]
    assert offsets_of(flight.take_through((2, 2)) or []) == [7, 8, 2]
    assert flight.take_through((2, 2)) is None
    assert offsets_of(flight.take_through((4, 2)) or []) == [3, 4]


def test_touched_keeps_its_place_in_the_order_of_sending() -> None:
    flight = flight_of(Chunk(range(1, 4), 1, seq=1, deadline_ns=10), Chunk(range(4, 7), 1, seq=2, deadline_ns=10))
    assert flight.touch((2, 1), 30)
    assert not flight.touch((9, 1), 30)
    assert flight.count == 6
    assert offsets_of(flight.overdue(10)) == [1, 3, 4, 5, 6]
    assert flight.deadline_ns == 30
    assert offsets_of(flight.take_through((2, 1)) or []) == [2]


def test_acknowledged_from_the_front_a_chunk_stays_one() -> None:
    flight = flight_of(Chunk(range(1, 100_001), 1, seq=1))
    for offset in range(1, 1001):
        assert flight.take((offset, 1)) is not None
    assert len(list(flight._all())) == 1


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 5), st.integers(1, 3)),
        st.tuples(st.just("take"), st.integers(1, 30), st.integers(1, 3)),
        st.tuples(st.just("through"), st.integers(1, 30), st.integers(1, 3)),
        st.tuples(st.just("touch"), st.integers(1, 30), st.integers(1, 3)),
        st.tuples(st.just("overdue"), st.integers(0, 40), st.just(0)),
    ),
    max_size=25,
)


@given(OPERATIONS)
@settings(max_examples=200, deadline=None)
def test_it_does_what_a_list_of_messages_would_do(operations: list[tuple[str, int, int]]) -> None:
    flight = Flight()
    model: list[tuple[int, int, int, int]] = []  # offset, try, serial, deadline; in the order of sending
    step = 2 if len(operations) % 2 else 1
    following, serial = 1, 0
    for name, number, tries in operations:
        if name == "send":
            serial += 1
            offsets: range | list[int] = range(following, following + number * step, step)
            if step == 1 and number == 1:
                offsets = list(offsets)
            following += number * step
            flight.add(Chunk(offsets, tries, serial, serial))
            model += [(offset, tries, serial, serial) for offset in offsets]
        elif name == "take":
            found = [one for one in model if one[:2] == (number, tries)]
            taken = flight.take((number, tries))
            assert (taken is not None) == bool(found)
            model = [one for one in model if one not in found]
        elif name == "through":
            at = next((n for n, one in enumerate(model) if one[:2] == (number, tries)), None)
            through = flight.take_through((number, tries))
            assert (through is None) == (at is None)
            if at is not None and through is not None:
                assert offsets_of(through) == [one[0] for one in model[: at + 1]]
                model = model[at + 1 :]
        elif name == "touch":
            at = next((n for n, one in enumerate(model) if one[:2] == (number, tries)), None)
            assert flight.touch((number, tries), 100) == (at is not None)
            if at is not None:
                model[at] = (*model[at][:3], 100)
        else:
            late = [one for one in model if one[3] <= number]
            assert offsets_of(flight.overdue(number)) == [one[0] for one in late]
            model = [one for one in model if one not in late]
        assert flight.count == len(model)
        assert flight.deadline_ns == min((one[3] for one in model), default=None)
    assert offsets_of(flight.drain()) == [one[0] for one in model]


def test_tokens_of_further_deliveries_that_are_out_no_more_cost_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    flight = flight_of(Chunk(range(1, 2001), 2, seq=1))
    for offset in range(1, 2001, 2):
        assert flight.take((offset, 2)) is not None
    looks: list[int] = []

    def looked(chunk: Chunk, offset: int) -> int:
        looks.append(offset)
        return -1

    monkeypatch.setattr(Chunk, "find", looked)
    assert [flight.take((offset, 2)) for offset in range(1, 2001, 2)] == [None] * 1000
    assert flight.take_through((1, 2)) is None
    assert looks == []


def test_further_deliveries_are_found_between_each_other() -> None:
    flight = flight_of(Chunk([1, 4, 7, 9], 2, seq=2), Chunk([2, 5, 8], 3, seq=1), Chunk([3, 6], 2, seq=3))
    assert offsets_of(flight.take_through((4, 2)) or []) == [2, 5, 8, 1, 4]
    assert flight.take((7, 2)) is not None
    assert flight.take((3, 3)) is None
    assert flight.take((9, 2)) is not None
    assert flight.take((6, 2)) is not None
    assert offsets_of(flight.drain()) == [3]
