"""Selecting, merging, reframing: against lists of messages, whatever the shape of the batches."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busd.rules.column import MAX_TOPICS
from busd.rules.items import Item
from busd.rules.record import Batch, parse
from busd.rules.select import Selection, build, interleave, merge, of_topics, only, reframe, select, split

pytestmark = pytest.mark.usefixtures("column_kind")

TOPICS = [b"a", b"b", b"c"]


@dataclass(frozen=True)
class Row:
    """A message, the plain way."""

    offset: int
    topic: bytes
    item: tuple[bytes, ...]
    flags: str = "-"


def rows_of(batch: Batch) -> list[Row]:
    """All messages of a batch."""
    return [
        Row(
            offset,
            batch.topic_of(at),
            tuple(item) if isinstance(item, list) else (item,),
            batch.flags.strip("h") or "-",
        )
        for at, (offset, item) in enumerate(zip(batch.offsets(), batch.items(), strict=True))
    ]


def rows(selection: Selection | None) -> list[Row]:
    """What a selection means."""
    if selection is None:
        return []
    batch = selection.batch
    found = [
        Row(offset, topic, tuple(item) if isinstance(item, list) else (item,), batch.flags.strip("h") or "-")
        for offset, topic, item in zip(selection.offsets(), selection.topics(), selection.items(), strict=True)
    ]
    assert len(found) == selection.count > 0
    assert (selection.first, selection.last) == (found[0].offset, found[-1].offset)
    assert selection.whole is (selection.count == batch.n)
    column = selection.column()
    assert column is None or len(column) == selection.count
    return found


def batch_of(wanted: list[Row], time_ns: int = 7) -> Batch:
    """A batch of these."""
    headers = any(len(row.item) > 1 for row in wanted)
    flags = "h" if headers else wanted[0].flags
    items: list[Item] = [list(row.item) if len(row.item) > 1 else row.item[0] for row in wanted]
    return build([row.offset for row in wanted], [row.topic for row in wanted], items, time_ns, flags)


@st.composite
def batches(draw: st.DrawFn, dense: bool | None = None, topics: list[bytes] = TOPICS) -> Batch:
    """One batch of messages, dense or with holes, of one topic or several, with headers or without."""
    if draw(st.booleans()) if dense is None else dense:
        first, n = draw(st.integers(1, 50)), draw(st.integers(1, 12))
        offsets = list(range(first, first + n))
    else:
        offsets = sorted(draw(st.sets(st.integers(1, 60), min_size=1, max_size=12)))
    names = draw(st.lists(st.sampled_from(topics), min_size=len(offsets), max_size=len(offsets)))
    headers = draw(st.booleans())
    items = [
        (b"p%d" % offset, b"k", b"v") if headers and draw(st.booleans()) else (b"p%d" % offset,) for offset in offsets
    ]
    return batch_of([Row(*three) for three in zip(offsets, names, items, strict=True)])


wanted_sets = st.frozensets(st.sampled_from(TOPICS))
floors_of = st.dictionaries(st.sampled_from(TOPICS), st.integers(0, 70))


@settings(max_examples=60)
@given(batch=batches(), wanted=wanted_sets, lo=st.integers(0, 70), hi=st.integers(0, 70), floors=st.none() | floors_of)
def test_select_is_a_filter(
    batch: Batch, wanted: frozenset[bytes], lo: int, hi: int, floors: dict[bytes, int] | None
) -> None:
    found = select(batch, wanted.__contains__, lo, hi, floors)
    assert rows(found) == [
        row
        for row in rows_of(batch)
        if row.topic in wanted and lo <= row.offset < hi and row.offset >= (floors or {}).get(row.topic, 0)
    ]


@pytest.mark.parametrize("seed", range(40))
def test_select_among_many_topics(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.choice([78, 79, 208, 209, 400])
    own = [*range(count), *rng.choices(range(count), k=rng.randint(0, 30))]
    rng.shuffle(own)
    step = rng.choice([1, 3])
    batch = batch_of([Row(5 + step * at, b"t.%d" % number, (b"%d" % at,)) for at, number in enumerate(own)])
    wanted = frozenset(rng.sample(batch.topics, rng.choice([0, 1, 8, count - 1, count])))
    lo, hi = sorted((rng.randint(0, batch.last), rng.randint(0, batch.last + 2)))
    some = rng.sample(batch.topics, rng.randint(1, 9))
    floors = {topic: rng.randint(0, batch.last + 2) for topic in some} if seed % 3 else None
    everything = rows_of(batch)
    expected = [
        row
        for row in everything
        if row.topic in wanted and lo <= row.offset < hi and row.offset >= (floors or {}).get(row.topic, 0)
    ]
    found = select(batch, wanted.__contains__, lo, hi, floors)
    assert rows(found) == expected
    numbers = [number for number, topic in enumerate(batch.topics) if topic in wanted]
    assert rows(of_topics(batch, numbers)) == [row for row in everything if row.topic in wanted]
    if found is None:
        return
    taken = rng.randint(1, len(expected))
    assert rows(found.take(taken)) == expected[:taken]
    assert rows(found.drop(taken)) == expected[taken:]
    made = reframe(found)
    read = parse(made.record)
    assert isinstance(read, Batch)
    assert rows_of(read) == rows_of(made) == expected


@given(batch=batches(), wanted=wanted_sets, lo=st.integers(0, 70), count=st.integers(1, 15))
def test_take_is_a_slice(batch: Batch, wanted: frozenset[bytes], lo: int, count: int) -> None:
    found = select(batch, wanted.__contains__, lo)
    if found is not None:
        before = rows(found)
        assert rows(found.take(count)) == before[:count]
        assert rows(found) == before
        if count >= found.count:
            assert found.take(count) is found


@given(batch=batches(), wanted=wanted_sets, lo=st.integers(0, 70), count=st.integers(0, 15))
def test_drop_and_split_are_slices(batch: Batch, wanted: frozenset[bytes], lo: int, count: int) -> None:
    found = select(batch, wanted.__contains__, lo)
    if found is None:
        return
    before = rows(found)
    assert rows(found.drop(count)) == before[count:]
    if count:
        head, rest = split(found, count)
        assert rows(head) == before[:count]
        assert rows(rest) == before[count:]
        assert (rest is None) is (count >= len(before))
    assert rows(found) == before


@settings(max_examples=60)
@given(
    batch=batches(),
    offsets=st.sets(st.integers(1, 62), max_size=20).map(sorted)
    | st.builds(range, st.integers(1, 40), st.integers(1, 62)),
    floors=st.none() | floors_of,
)
def test_only_these_offsets(batch: Batch, offsets: list[int] | range, floors: dict[bytes, int] | None) -> None:
    assert rows(only(batch, offsets, floors)) == [
        row for row in rows_of(batch) if row.offset in offsets and row.offset >= (floors or {}).get(row.topic, 0)
    ]


def test_a_range_of_offsets_needs_no_selector() -> None:
    batch = batch_of([Row(at, TOPICS[at % 2], (b"x",)) for at in range(1, 9)])
    for offsets in (range(3, 6), [3, 4, 5]):
        found = only(batch, offsets)
        assert found is not None
        assert (found.start, found.stop, found.selector) == (2, 5, None)


@given(batch=batches(), wanted=wanted_sets, lo=st.integers(0, 70))
def test_a_reframed_selection_holds_nothing_else(batch: Batch, wanted: frozenset[bytes], lo: int) -> None:
    found = select(batch, wanted.__contains__, lo)
    if found is None:
        return
    made = reframe(found)
    assert rows_of(made) == rows(found)
    assert (made is batch) is found.whole
    read = parse(made.record)
    assert isinstance(read, Batch)
    assert rows_of(read) == rows(found)
    assert (read.time_ns, read.flags) == (batch.time_ns, batch.flags)


def test_nothing_is_copied_for_a_whole_batch() -> None:
    batch = batch_of([Row(at, b"a", (b"x",)) for at in range(1, 5)])
    found = select(batch, lambda topic: True)
    assert found is not None
    assert found.items() is batch.items()
    assert found.selector is None


def test_the_reset_at_a_floor_is_above_it() -> None:
    batch = batch_of([Row(5, b"a", (b"3",), "r")])
    assert rows(select(batch, lambda topic: True, floors={b"a": 5})) == rows_of(batch)
    assert select(batch, lambda topic: True, floors={b"a": 6}) is None


# Several stores.


@st.composite
def commits(draw: st.DrawFn) -> tuple[list[Row], list[Batch]]:
    """The messages of a commit or several, dealt over stores into batches that overlap; control records too."""
    count = draw(st.integers(1, 30))
    stores = draw(st.integers(1, 4))
    everything: list[Row] = []
    open_rows: dict[int, list[Row]] = {}
    found: list[Batch] = []
    offset = 0
    for _ in range(count):
        offset += draw(st.integers(1, 3))
        store = draw(st.integers(0, stores - 1))
        flags = draw(st.sampled_from("-----er"))
        row = Row(
            offset, b"t.%d" % store, (b"9" if flags == "r" else b"p", *draw(st.sampled_from([(), (b"k", b"v")]))), flags
        )
        if flags != "-":
            row = Row(row.offset, row.topic, row.item[:1], flags)
        everything.append(row)
        group = open_rows.setdefault(store, [])
        if group and (group[0].flags != flags or draw(st.integers(0, 3)) == 0):
            found.append(batch_of(group))
            group.clear()
        group.append(row)
    found += [batch_of(group) for group in open_rows.values()]
    return everything, draw(st.permutations(found))


@settings(max_examples=60)
@given(commit=commits())
def test_stores_interleave_in_the_order_of_offsets(commit: tuple[list[Row], list[Batch]]) -> None:
    everything, parts = commit
    made = interleave(parts)
    assert [row for batch in made for row in rows_of(batch)] == everything
    for batch in made:
        assert len({row.flags for row in rows_of(batch)}) == 1
        assert batch.control is (rows_of(batch)[0].flags != "-")
        read = parse(batch.record)
        assert isinstance(read, Batch)
        assert rows_of(read) == rows_of(batch)


def test_batches_that_do_not_overlap_are_left_as_they_are() -> None:
    parts = [batch_of([Row(at, b"a", (b"x",)), Row(at + 1, b"a", (b"x",))]) for at in (1, 3, 9)]
    assert interleave(parts[::-1]) == parts
    assert interleave([]) == []


def test_an_end_of_stream_among_many_messages_of_another_store_does_not_take_them_apart() -> None:
    rows = [Row(at, b"a", (b"x",)) for at in range(1, 1002) if at != 500]
    end = Row(500, b"b", (b"",), "e")
    made = interleave([batch_of(rows), batch_of([end])])
    assert [batch.n for batch in made] == [499, 1, 501]
    assert [row for batch in made for row in rows_of(batch)] == [*rows[:499], end, *rows[499:]]


@given(parts=st.lists(batches(dense=False, topics=[b"a"]), min_size=1, max_size=1), more=st.data())
def test_merge_sorts(parts: list[Batch], more: st.DataObject) -> None:
    taken = {row.offset for batch in parts for row in rows_of(batch)}
    others = sorted(more.draw(st.sets(st.integers(1, 80), max_size=20)) - taken)
    if others:
        parts.append(batch_of([Row(at, b"b", (b"q",)) for at in others], time_ns=9))
    made = merge([Selection(batch, 0, batch.n, None, batch.n) for batch in parts])
    expected = sorted((row for batch in parts for row in rows_of(batch)), key=lambda row: row.offset)
    assert [row for batch in made for row in rows_of(batch)] == expected
    assert {batch.time_ns for batch in made} == {9 if others else 7}


def test_merge_takes_selections_not_batches() -> None:
    batch = batch_of([Row(at, TOPICS[at % 2], (b"x",)) for at in range(1, 9)])
    some = select(batch, lambda topic: topic == b"a", 3)
    assert some is not None
    assert [row.offset for made in merge([some]) for row in rows_of(made)] == [4, 6, 8]


@pytest.mark.parametrize("count", [MAX_TOPICS, MAX_TOPICS + 1, 3000])
def test_a_merged_batch_names_no_more_topics_than_a_column_can(count: int) -> None:
    halves = [
        [Row(at, b"t.%d" % at, (b"x",)) for at in range(first, 2 * count, 2)][: MAX_TOPICS // 2] for first in (1, 2)
    ]
    wide = [batch_of(half) for half in halves]
    more = [Row(at, b"u.%d" % at, (b"x",)) for at in range(1000, 1000 + 3 * count, 3)]
    wide += [batch_of(more[at : at + MAX_TOPICS]) for at in range(0, len(more), MAX_TOPICS)]
    made = merge([Selection(batch, 0, batch.n, None, batch.n) for batch in wide])
    assert all(len(batch.topics) <= MAX_TOPICS for batch in made)
    assert sum(batch.n for batch in made) == sum(batch.n for batch in wide)
    offsets = [row.offset for batch in made for row in rows_of(batch)]
    assert offsets == sorted(offsets)


def test_build_writes_steps_only_where_offsets_are_not_dense() -> None:
    dense = build([4, 5, 6], [b"a"] * 3, [b"", b"", b""], 0, "-")
    assert (dense.steps, dense.column, dense.last) == (None, None, 6)
    sparse = build([4, 6, 9], [b"a", b"b", b"a"], [b"", b"", b""], 0, "-", synced=3, prev=2)
    assert (sparse.steps, sparse.topics, sparse.last) == ((2, 3), (b"a", b"b"), 9)
    assert [sparse.topic_of(at) for at in range(3)] == [b"a", b"b", b"a"]
    assert (sparse.synced, sparse.prev) == (3, 2)
