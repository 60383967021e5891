"""Messages of one topic cut out of batches: what `parse` and `select` find, or nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from busd.rules.excerpt import Excerpt, Excerpter
from busd.rules.items import Item
from busd.rules.record import Batch, Hole, frame_hole, glance, parse
from busd.rules.select import build, select
from busd.words.units import MAX_OFFSET

TOPIC = b"t.7"


def batch(n: int, topics: int, seed: int = 1, size: int | None = 9, first: int = 100, flags: str = "-") -> Batch:
    """Messages of topics at random; `size` None: of any size."""
    rnd = random.Random(seed)
    names = [b"t.%d" % rnd.randrange(topics) for _ in range(n)]
    items: list[Item] = [rnd.randbytes(rnd.randrange(30) if size is None else size) for _ in names]
    return build(range(first, first + n), names, items, 1000, flags, prev=first - 1)


def expected(record: bytes) -> tuple[list[int], list[Item]]:
    """Offsets and payloads of TOPIC, the long way."""
    found = parse(record)
    assert isinstance(found, Batch)
    selection = select(found, TOPIC.__eq__)
    return ([], []) if selection is None else (list(selection.offsets()), selection.items())


def taken(records: list[Batch | Hole]) -> tuple[list[int], list[Item]]:
    """The same of excerpts."""
    offsets: list[int] = []
    payloads: list[Item] = []
    for record in records:
        assert isinstance(record, Excerpt)
        assert (record.first, record.last, record.n) == (record.offsets()[0], record.offsets()[-1], len(record.items()))
        offsets += record.offsets()
        payloads += record.items()
    return offsets, payloads


def take(excerpter: Excerpter, record: bytes, lo: int, hi: int, last: int, found: list[Batch | Hole]) -> bool:
    """As the reader of a store does it."""
    facts = glance(record)
    return facts is not None and excerpter.take(record, facts, lo, hi, last, found)


@st.composite
def records(draw: st.DrawFn) -> Batch:
    """Batches of all kinds, most of them plain."""
    n = draw(st.integers(1, 60))
    names = draw(st.lists(st.sampled_from([b"t.%d" % number for number in range(12)] + [b"t", b"t.77"]), min_size=n))[
        :n
    ]
    sizes = draw(st.one_of(st.just(st.just(5)), st.just(st.integers(0, 12))))
    texts = st.one_of(st.binary(max_size=12), st.sampled_from([b"\r\n$5\r\nabcde", b"$5\r\n", b",t.7,"]))
    items: list[Item] = [
        (text * 3 + b"......")[:size] for text, size in draw(st.lists(st.tuples(texts, sizes), min_size=n))[:n]
    ]
    flags = draw(st.sampled_from(["-", "-", "-", "h", "e", "r"]))
    if flags == "h":
        items[0] = [b"payload", b"key", b"k"]
    first = draw(st.integers(1, 5000))
    step = draw(st.sampled_from([1, 1, 1, 2]))
    return build(range(first, first + step * n, step), names, items, 1000, flags, prev=first - 1)


@given(records())
@example(batch(300, 12))
@example(batch(300, 12, size=None))
@example(batch(1500, 700))
@example(batch(60, 200))
def test_what_is_taken_is_what_is_selected(made: Batch) -> None:
    found: list[Batch | Hole] = []
    if take(Excerpter(TOPIC), made.record, 0, MAX_OFFSET, made.prev, found):
        assert taken(found) == expected(made.record)
    else:
        assert found == []


@pytest.mark.parametrize("size", [None, 0, 1, 100])
@pytest.mark.parametrize("topics", [8, 20, 79, 80, 81, 150, 600, 1999])
def test_what_is_plain_is_taken(topics: int, size: int | None) -> None:
    """Else the test above would say nothing."""
    made = batch(600, topics, size=size)
    found: list[Batch | Hole] = []
    assert take(Excerpter(TOPIC), made.record, 0, MAX_OFFSET, made.prev, found)
    assert taken(found) == expected(made.record)


@given(st.data())
def test_damage_is_never_taken(data: st.DataObject) -> None:
    """A change of any byte is found, or changes nothing of what is read."""
    made = batch(60, 12)
    at = data.draw(st.integers(0, len(made.record) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != made.record[at]))
    changed = made.record[:at] + bytes((value,)) + made.record[at + 1 :]
    found: list[Batch | Hole] = []
    if take(Excerpter(TOPIC), changed, 0, MAX_OFFSET, made.prev, found):
        # The checksum itself may be written in capitals, say.
        assert 3 <= at < 11
        assert taken(found) == expected(made.record)
    else:
        assert found == []


@given(st.integers(0, 2000))
def test_what_is_cut_off_is_not_taken(length: int) -> None:
    made = batch(60, 12)
    found: list[Batch | Hole] = []
    assert not take(Excerpter(TOPIC), made.record[: min(length, len(made.record) - 1)], 0, 1 << 60, 1, found)
    assert found == []


def test_only_a_batch_that_follows_and_lies_within_bounds_is_taken() -> None:
    made = batch(60, 12, first=100)
    cases = {
        (0, 160, 99): True,
        (100, 160, 99): True,
        (100, 160, 100): False,
        (101, 1000, 99): False,
        (0, 159, 99): False,
        # Something between the one read before and this one is missing.
        (0, 160, 98): False,
    }
    for (lo, hi, last), good in cases.items():
        found: list[Batch | Hole] = []
        assert take(Excerpter(TOPIC), made.record, lo, hi, last, found) == bool(found) == good


def test_other_records_and_much_of_a_batch_are_not_taken() -> None:
    excerpter, found = Excerpter(TOPIC), list[Batch | Hole]()
    hole = frame_hole(Hole(1, 9, 0, 0, "trimmed", {TOPIC: 3}))
    one_topic = build(range(1, 9), [TOPIC] * 8, [b"x"] * 8, 1000, "-")
    much = build(range(1, 9), [TOPIC, b"other"] * 4, [b"x"] * 8, 1000, "-")
    others = [batch(60, 12, first=1, flags=flags).record for flags in ("h", "e", "r")]
    steps = build(range(1, 120, 2), [TOPIC, *[b"a", b"b"] * 29, b"c"], [b"x"] * 60, 1000, "-")
    # Nothing has the checksum 0.
    short = b"+B 00000000 -000000011 1 10 1000 0 0 - t.7,a 0111111111\r\n*2\r\n"
    garbage = (short, short.replace(b" 0111111111", b" 1111111111"), b"", b"\r\n", b"+B a b c d e f g h i j\r\n")
    for record in (hole, one_topic.record, much.record, steps.record, *others, *garbage):
        assert not take(excerpter, record, 0, MAX_OFFSET, 0, found)
    assert found == []


def test_an_excerpt_spans_batches_and_ends_when_it_is_large() -> None:
    excerpter, found = Excerpter(TOPIC), list[Batch | Hole]()
    for number in range(12):
        made = batch(300, 20, seed=number, size=1000, first=100 + 300 * number)
        assert take(excerpter, made.record, 0, MAX_OFFSET, made.prev, found)
    sizes = [record.size_bytes for record in found if isinstance(record, Excerpt)]
    assert len(sizes) > 2
    assert all(size > 64 * 1024 for size in sizes[:-1])
    assert max(sizes) < 96 * 1024
    hole = Hole(100 + 3600, 100 + 3600, 0, 0, "corrupt", None)
    found.append(hole)
    made = batch(300, 20, first=3701)
    assert take(excerpter, made.record, 0, MAX_OFFSET, made.prev, found)
    assert found[-2] is hole


def test_an_excerpt_is_selected_from_like_any_batch() -> None:
    made = batch(300, 12)
    found: list[Batch | Hole] = []
    assert take(Excerpter(TOPIC), made.record, 0, MAX_OFFSET, made.prev, found)
    excerpt = found[0]
    assert isinstance(excerpt, Excerpt)
    for lo, hi, floors in ((0, MAX_OFFSET, None), (150, 300, None), (150, 300, {TOPIC: 200}), (0, 400, {TOPIC: 500})):
        ours, theirs = (select(one, TOPIC.__eq__, lo, hi, floors) for one in (excerpt, made))
        if ours is None or theirs is None:
            assert ours is theirs
            continue
        assert list(ours.offsets()) == list(theirs.offsets())
        assert ours.items() == theirs.items()
        assert list(ours.take(2).offsets()) == list(theirs.take(2).offsets())
        rest, others = ours.drop(3), theirs.drop(3)
        assert rest is not None
        assert others is not None
        assert rest.items() == others.items()
        assert ours.topics() == theirs.topics()
    assert (excerpt.counts(), excerpt.lasts()) == ((excerpt.n,), (excerpt.last,))
