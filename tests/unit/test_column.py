"""The column: what it looks like in a record, what is refused, and every question against a plain list of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busd.rules import column as columns
from busd.rules.column import BASE, MAX_TOPICS, Column

# At each of these something changes: the last that is ASCII, the last that is bytes in memory, the most there may be.
EDGES = [2, 78, 79, 80, 81, 208, 209, MAX_TOPICS]


@st.composite
def numbers(draw: st.DrawFn) -> tuple[int, list[int]]:
    """How many topics there are, and of each message the number of its own."""
    count = draw(st.sampled_from(EDGES) | st.integers(2, MAX_TOPICS))
    some = st.integers(0, count - 1) | st.sampled_from([0, count - 1]) | st.integers(0, min(4, count - 1))
    return count, draw(st.lists(some, min_size=1, max_size=60))


def column_of(count: int, own: list[int]) -> Column:
    """The column of these numbers."""
    names = [b"t%d" % number for number in range(count)]
    return columns.make(dict.fromkeys(names), [([names[number] for number in own], len(own))])


@given(numbers())
def test_a_record_has_a_character_a_message(case: tuple[int, list[int]]) -> None:
    count, own = case
    column = column_of(count, own)
    text = "".join([chr(48 + number) for number in own]).encode()
    assert columns.encode(column) == text
    again = columns.decode(text, len(own), count)
    assert (again, type(again)) == (column, type(column))
    assert not set(text) & set(b" ,\r\n")


@given(numbers(), st.data())
def test_questions(case: tuple[int, list[int]], data: st.DataObject) -> None:
    count, own = case
    column = column_of(count, own)
    offsets = range(100, 100 + len(own))
    assert [code - BASE for code in columns.codes(column)] == own
    assert [columns.number_at(column, at) for at in range(len(own))] == own
    assert list(columns.counts(column, count)) == [own.count(number) for number in range(count)]
    places = {number: [at for at, one in enumerate(own) if one == number] for number in set(own)}
    lasts = columns.lasts(column, count, offsets)
    assert list(lasts) == [offsets[places.get(number, [len(own) - 1])[-1]] for number in range(count)]
    lo, hi = sorted((data.draw(st.integers(0, len(own))), data.draw(st.integers(0, len(own)))))
    for number in {0, count - 1, *own}:
        assert columns.last_place(column, number) == places.get(number, [-1])[-1]
        assert columns.places(column, number, lo, hi) == [at for at in places.get(number, []) if lo <= at < hi]
    wanted = sorted(data.draw(st.sets(st.sampled_from(own) | st.integers(0, count - 1), min_size=1)))
    marks, found = columns.selector(column, wanted, lo, hi)
    assert list(marks) == [int(number in wanted) for number in own[lo:hi]]
    assert found is None or found == [at for at in range(lo, hi) if own[at] in wanted]
    some = data.draw(st.lists(st.integers(0, len(own) - 1), min_size=1))
    assert columns.pick(column, some) == column_of(count, [own[at] for at in some])


@given(numbers())
def test_topics_that_are_left(case: tuple[int, list[int]]) -> None:
    count, own = case
    names = [b"t%d" % number for number in range(count)]
    topics, column = columns.narrowed(column_of(count, own), names)
    assert topics == tuple([names[number] for number in sorted(set(own))])
    if column is None:
        assert len(topics) == 1
    else:
        assert [topics[columns.number_at(column, at)] for at in range(len(own))] == [names[number] for number in own]
        assert columns.decode(columns.encode(column), len(own), len(topics)) == column


@pytest.mark.parametrize("count", EDGES)
def test_a_topic_each(count: int) -> None:
    straight = columns.straight(count)
    assert straight == column_of(count, list(range(count)))
    assert columns.counts(straight, count) == [1] * count
    assert columns.lasts(straight, count, range(7, 7 + count)) == range(7, 7 + count)
    turned = column_of(count, list(range(count))[::-1])
    assert columns.lasts(turned, count, range(count)) == list(range(count))[::-1]


@given(st.sampled_from([2, 60, 208, 209, 250, 700, MAX_TOPICS]), st.data())
def test_messages_that_mostly_have_a_topic_each(n: int, data: st.DataObject) -> None:
    own = list(range(n))
    for at in data.draw(st.lists(st.integers(1, n - 1), max_size=n // 3)):
        # Also of one that is there a third time, and of one that gives its own away.
        own[at] = own[data.draw(st.integers(0, at - 1))]
    names = [b"t%d" % number for number in own]
    offsets = data.draw(st.sampled_from([range(100, 100 + n), range(100, 100 + 3 * n, 3)]))
    found = columns.spread(names, offsets)
    letters = dict.fromkeys(names)
    assert found is not None
    topics, column, (counts, lasts) = found
    assert list(topics) == list(letters)
    made = columns.make(letters, [(names, n)])
    assert (column, type(column)) == (made, type(made))
    assert list(counts) == [names.count(name) for name in topics]
    assert dict(zip(topics, lasts, strict=True)) == dict(zip(names, offsets, strict=True))


@pytest.mark.parametrize("names", [[b"a", b"b", b"a", b"b"], [b"t%d" % at for at in range(MAX_TOPICS + 1)]])
def test_too_many_that_share_a_topic_or_too_many_messages_are_not_spread(names: list[bytes]) -> None:
    assert columns.spread(names, range(len(names))) is None


def test_a_topic_for_many_messages() -> None:
    for names in ([b"a", b"b"], [b"t%d" % number for number in range(300)]):
        parts: list[tuple[bytes | list[bytes], int]] = [(names[1], 3), ([names[0], names[-1]], 2)]
        column = columns.make(dict.fromkeys(names), parts)
        assert [code - BASE for code in columns.codes(column)] == [1, 1, 1, 0, len(names) - 1]


def test_few_of_many_are_looked_for_one_by_one() -> None:
    column = columns.straight(500)
    assert columns.selector(column, [3, 77], 0, 500)[1] == [3, 77]
    assert columns.selector(column, list(range(100)), 0, 500)[1] is None


@pytest.mark.parametrize("wanted", [range(300), range(1), range(50, 131)])
def test_looking_for_many_or_for_one_that_is_everywhere_is_given_up(wanted: range) -> None:
    """In a batch of tiny messages it took 100 ms, on the loop, where a look at each takes 2."""
    own = [0] * 4000 + [number % 1000 for number in range(16_000)]
    column = column_of(1000, own)
    assert columns.selector(column, wanted, 0, len(own)) == (bytes([number in wanted for number in own]), None)
    assert columns.selector(column, wanted, 100, 4100)[0] == bytes([number in wanted for number in own[100:4100]])


@pytest.mark.parametrize(
    ("field", "n", "count"),
    [
        (b"01", 3, 2),  # too short
        (b"0101", 3, 2),  # too long
        (b"02", 2, 2),  # a third topic
        (b"0/", 2, 2),  # below the first
        ("0ÿ".encode(), 2, 207),  # one topic too far, in bytes
        ("0Ā".encode(), 2, 208),  # in text
        ("0Ā".encode(), 2, 78),
        ("0Ā".encode(), 2, 2),
        ("0/ā".encode(), 3, 209 + 1),  # below the first, among wide ones
        ("0ā".encode(), 2, 209),  # one topic too far, among wide ones
        ("0\u07ff".encode(), 2, MAX_TOPICS - 1),
        ("0\u0800".encode(), 2, MAX_TOPICS),  # three bytes
        ("0\U00010000".encode(), 2, MAX_TOPICS),
        ("Ā0".encode(), 3, 300),  # as many bytes as messages, not as many characters
        (b"0\xc4", 2, 300),  # cut within a character
        (b"0\x80", 2, 300),  # no beginning of one
        (b"0\xc0\xb0", 2, 300),  # an ASCII character in two bytes
        (b"0\xed\xa0\x80", 2, MAX_TOPICS),  # half of a pair
        (b"0\xff", 2, 208),  # Latin-1 is how it is held, not how it is written
    ],
)
def test_what_is_no_column(field: bytes, n: int, count: int) -> None:
    with pytest.raises(ValueError, match=r"column|decode|encode"):
        columns.decode(field, n, count)


def test_the_most_topics_there_may_be() -> None:
    assert columns.decode(b"00", 2, MAX_TOPICS) == "00"
    with pytest.raises(ValueError, match="2001 topics; there are at most 2000"):
        columns.decode(b"00", 2, MAX_TOPICS + 1)
