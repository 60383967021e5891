"""The window of ids: by number, by time, by topic."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from busd.rules.dedup import Window, ids_of
from busd.rules.items import Item

SPAN = 100


def test_ids_are_taken_from_the_headers() -> None:
    items: list[Item] = [[b"p", b"id", b"a"], b"id", [b"p", b"k", b"id"], [b"id", b"k", b"v", b"id", b"b"], [b"p"]]
    assert ids_of(items) == [b"a", b"", b"", b"b", b""]


def test_runs_without_an_id_have_none() -> None:
    assert ids_of([b"id", [b"id", b"k", b"id"]]) is None
    assert ids_of([[b"p", b"id", b""]]) is None
    assert ids_of([]) is None


@given(
    st.lists(
        st.sampled_from([b"p", [b"p", b"k", b"id"], [b"p", b"id", b"1"], [b"p", b"k", b"v", b"id", b""]]), max_size=6
    )
)
def test_ids_of_columns_are_those_of_each(items: list[Item]) -> None:
    each = [dict(zip(item[1::2], item[2::2], strict=True)).get(b"id", b"") if len(item) > 1 else b"" for item in items]
    assert ids_of(items) == (each if any(each) else None)
    for item, one in zip(items, each, strict=True):
        assert ids_of([item] * 3) == ([one] * 3 if one else None)


@given(
    st.sampled_from([1, 3, 8]),
    st.lists(st.tuples(st.sets(st.integers(0, 30), min_size=1, max_size=10), st.integers(0, 60)), max_size=20),
    st.booleans(),
)
def test_many_at_once_are_remembered_as_one_by_one(limit: int, runs: list[tuple[set[int], int]], topics: bool) -> None:
    each, whole = Window(limit, SPAN), Window(limit, SPAN)
    now, first = 0, 1
    for numbers, later in runs:
        now += later
        ids = [b"%d" % number for number in sorted(numbers)]
        column = [b"t%d" % (number % 2) for number in sorted(numbers)] if topics else [b"t"] * len(ids)
        new = not whole.has_any(column if topics else b"t", ids)
        assert new or any(one in whole._topics.get(topic, ()) for topic, one in zip(column, ids, strict=True))
        if new or topics:
            for offset, (topic, one) in enumerate(zip(column, ids, strict=True), first):
                each.put(topic, one, offset, now)
            whole.put_all(column if topics else b"t", ids, first, now)
        first += len(ids)
        for topic in (b"t", b"t0", b"t1"):
            found = [[window.find(topic, b"%d" % number, now) for number in range(31)] for window in (each, whole)]
            assert found[0] == found[1]
        assert len(whole) <= limit * (2 if topics else 1)


def test_what_is_too_old_makes_room_as_many_others_come() -> None:
    window = Window(1000, SPAN)
    for number in range(100):
        window.put(b"t", b"%d" % number, number + 1, 0)
    window.put_all(b"t", [b"n%d" % number for number in range(40)], 200, SPAN)
    assert len(window) == 100 - 80 + 40
    assert window.find(b"t", b"n39", SPAN) == 239


def test_an_id_is_known_for_the_span_and_not_longer() -> None:
    window = Window(10, SPAN)
    window.put(b"t", b"a", 7, 1000)
    assert window.find(b"t", b"a", 1000) == 7
    assert window.find(b"t", b"a", 1099) == 7
    assert window.find(b"t", b"a", 1100) is None


def test_topics_do_not_share_ids() -> None:
    window = Window(10, SPAN)
    window.put(b"t", b"a", 7, 0)
    assert window.find(b"u", b"a", 0) is None


def test_the_oldest_ids_go_when_there_are_too_many() -> None:
    window = Window(3, SPAN)
    for number in range(5):
        window.put(b"t", b"%d" % number, number + 1, number)
    assert [window.find(b"t", b"%d" % number, 5) for number in range(5)] == [None, None, 3, 4, 5]
    assert len(window) == 3


def test_what_is_too_old_makes_room_as_others_come() -> None:
    window = Window(1000, SPAN)
    for number in range(100):
        window.put(b"t", b"%d" % number, number + 1, 0)
    for number in range(100):
        window.put(b"t", b"n%d" % number, number + 200, SPAN + number // 50)
    assert len(window) == 100


def test_an_id_that_came_again_after_the_span_is_the_newer_message() -> None:
    window = Window(10, SPAN)
    window.put(b"t", b"a", 1, 0)
    window.put(b"t", b"b", 2, 0)
    window.put(b"t", b"a", 9, SPAN)
    assert window.find(b"t", b"a", 2 * SPAN - 1) == 9


def test_idle_topics_are_forgotten() -> None:
    window = Window(10, SPAN)
    window.put(b"idle", b"a", 1, 0)
    window.put(b"busy", b"a", 2, 0)
    window.put(b"busy", b"b", 3, 50)
    window.sweep(SPAN)
    assert list(window._topics) == [b"busy"]
    assert window.find(b"busy", b"b", SPAN) == 3
    window.sweep(SPAN + 50)
    assert not window._topics


Step = tuple[int, int, int]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5), st.integers(0, 60)), max_size=60))
def test_it_says_what_a_list_of_everything_says(steps: list[Step]) -> None:
    """Publishing only what is no duplicate, as a broker does."""
    window = Window(3, SPAN)
    kept: list[tuple[int, int, int, int]] = []
    now = 0
    for offset, (topic, name, later) in enumerate(steps, 1):
        now += later
        of_topic = [one for one in kept if one[0] == topic]
        expected = next((at for _, n, at, when in of_topic[-3:] if n == name and when + SPAN > now), None)
        assert window.find(b"t%d" % topic, b"%d" % name, now) == expected
        if expected is None:
            kept = [one for one in kept if one[:2] != (topic, name)] + [(topic, name, offset, now)]
            window.put(b"t%d" % topic, b"%d" % name, offset, now)
        if later > 50:
            window.sweep(now)
