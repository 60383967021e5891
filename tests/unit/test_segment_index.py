"""The index of a segment: questions against a plain list, pages on disk, damage to them."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from busd.rules.items import UNEVEN
from busd.rules.record import Batch, Hole, parse
from busd.rules.segment_index import PAGE_ENTRIES, PAGE_LOG_BYTES, SegmentIndex
from tests.support.store_kit import batch_of, every, only

TOPICS = [b"a", b"b", b"c"]
Entry = tuple[int, int, Batch | Hole]


def filled(seed: int, count: int = 60, page_each: int = 0) -> tuple[SegmentIndex, list[Entry], bytes]:
    """An index of random batches and some holes, the list of them, and its pages."""
    rng = random.Random(seed)
    index, entries, pages = SegmentIndex(100, 5), [], b""
    position, offset, prev, now_ns = 100, 6, 5, 1000
    for number in range(count):
        offset += rng.randint(0, 3)
        now_ns += rng.choice([0, 5])
        record: Batch | Hole
        if rng.random() < 0.1:
            record = Hole(offset, offset + 3, prev, rng.choice([0, 50]), "trimmed", {b"a": 2, b"z": 1})
            size = 40 + record.hop
        else:
            messages = [(rng.choice(TOPICS[: rng.randint(1, 3)]), b"x") for _ in range(rng.randint(1, 5))]
            record = batch_of(messages, offset, prev, prev, now_ns=now_ns, flags=rng.choice(["-", "-", "-", "e"]))
            size = len(record.record)
        index.add(position, size, record)
        entries.append((position, size, record))
        position, prev, offset = position + size, record.last, record.last + 1
        if page_each and number % page_each == page_each - 1:
            pages += index.page()
    pages += index.page()
    return index, entries, pages


def same(one: SegmentIndex, two: SegmentIndex) -> bool:
    """All that is asked of an index is equal."""
    names = ("positions", "firsts", "times", "holes", "end", "last", "synced", "messages", "start")
    return all(getattr(one, name) == getattr(two, name) for name in names) and {
        topic: (list(e.numbers), list(e.counts)) for topic, e in one.topics.items()
    } == {topic: (list(e.numbers), list(e.counts)) for topic, e in two.topics.items()}


@pytest.mark.parametrize("seed", range(10))
def test_questions(seed: int) -> None:
    index, entries, _ = filled(seed)
    records = [record for _, _, record in entries]
    assert len(index) == len(entries)
    assert (index.end, index.last) == (entries[-1][0] + entries[-1][1], records[-1].last)
    assert index.messages == sum(r.n for r in records if isinstance(r, Batch) and not r.control)
    for offset in range(records[-1].last + 3):
        expected = [number for number, record in enumerate(records) if record.first <= offset]
        assert index.number_at(offset) == (expected[-1] if expected else -1)
    for number, (position, size, _) in enumerate(entries):
        assert index.positions[number] == position
        assert index.end_of(number) == position + size
    for lo in range(0, 60, 7):
        for hi in range(lo, 61, 5):
            counts: dict[bytes, int] = {}
            for record in records[lo:hi]:
                if isinstance(record, Batch):
                    for number, topic in enumerate(record.topics):
                        counts[topic] = counts.get(topic, 0) + (0 if record.control else record.counts()[number])
            assert index.counts(every, lo, hi) == counts
            assert index.counts(only(b"b"), lo, hi) == {t: c for t, c in counts.items() if t == b"b"}
    totals = index.counts(every, 0, 60)
    holes = [record for record in records if isinstance(record, Hole)]
    for hole in holes:
        for topic, count in (hole.counts or {}).items():
            totals[topic] = totals.get(topic, 0) + count
    assert index.totals() == totals


def test_times() -> None:
    index = SegmentIndex(0, 0)
    for number, now_ns in enumerate((10, 10, 20, 30)):
        index.add(number * 50, 50, batch_of([(b"a", b"")], number + 1, number, 0, now_ns=now_ns))
    assert [index.number_at_time(at) for at in (0, 10, 11, 20, 30, 31)] == [0, 0, 2, 2, 3, 4]


def test_wanted_is_for_rare_topics_and_holes() -> None:
    index = SegmentIndex(0, 0)
    for number in range(100):
        topic = b"rare" if number in (10, 50, 90) else b"often"
        record: Batch | Hole = batch_of([(topic, b"")], number + 1, number, 0)
        if number == 30:
            record = Hole(number + 1, number + 1, number, 0, "trimmed", {})
        index.add(number * 50, 50, record)
    assert index.wanted(only(b"rare"), 0, 100) == [10, 30, 50, 90]
    assert index.wanted(only(b"rare"), 11, 90) == [30, 50]
    assert index.wanted(only(b"never"), 31, 100) == []
    assert index.wanted(only(b"often"), 0, 100) is None
    assert index.wanted(every, 0, 100) is None
    assert index.wanted(only(b"rare"), 88, 92) is None, "one of four is a quarter"


@pytest.mark.parametrize("page_each", [0, 1, 7])
@pytest.mark.parametrize("seed", range(5))
def test_pages_bring_it_all_back(seed: int, page_each: int) -> None:
    index, _, pages = filled(seed, page_each=page_each)
    loaded = SegmentIndex(100, 5)
    assert loaded.load(b"opening" + pages, 7) == 7 + len(pages)
    assert same(loaded, index)
    assert index.page() == b"", "nothing is written twice"
    again = SegmentIndex(100, 5)
    again.load(loaded.all_pages())
    assert same(again, index)


def test_growth_behind_loaded_pages_goes_into_the_next() -> None:
    index, entries, pages = filled(3)
    loaded = SegmentIndex(100, 5)
    loaded.load(pages)
    for one in (index, loaded):
        one.add(one.end, 60, batch_of([(b"new", b"x")], one.last + 1, one.last, one.last))
        one.skip(one.end, 44, one.last)
    more = index.page()
    assert more == loaded.page()
    third = SegmentIndex(100, 5)
    assert third.load(pages + more) == len(pages + more)
    assert same(third, index)
    assert third.end == entries[-1][0] + entries[-1][1] + 104


@pytest.mark.parametrize("damage", ["cut", "flip", "drop", "swap"])
def test_damaged_pages_end_the_index_there(damage: str) -> None:
    index, _, pages = filled(4, page_each=10)
    sizes = [len(page) for page in split(pages)]
    for at in range(0, len(pages), 3):
        data = bytearray(pages)
        if damage == "cut":
            del data[at:]
        elif damage == "flip":
            data[at] ^= 1
        else:
            parts = split(pages)
            number = at % (len(parts) - 1)
            parts[number : number + 2] = (
                parts[number + 1 :][:1] if damage == "drop" else parts[number : number + 2][::-1]
            )
            data = bytearray(b"".join(parts))
            at = sum(sizes[:number])
        loaded = SegmentIndex(100, 5)
        taken = loaded.load(bytes(data))
        whole = [sum(sizes[: n + 1]) for n in range(len(sizes)) if sum(sizes[: n + 1]) <= at]
        assert taken == (whole[-1] if whole else 0)
        assert len(loaded) == 10 * len(whole)
        assert loaded.firsts == index.firsts[: len(loaded)]


def split(pages: bytes) -> list[bytes]:
    """The pages one by one."""
    parts, at = [], 0
    while at < len(pages):
        size = 23 + int(pages[at + 12 : at + 22])
        parts.append(pages[at : at + size])
        at += size
    return parts


def test_pages_are_due_by_entries_and_by_bytes() -> None:
    index = SegmentIndex(0, 0)
    for number in range(PAGE_ENTRIES):
        assert not index.page_due()
        index.add(number * 50, 50, batch_of([(b"a", b"")], number + 1, number, 0))
    assert index.page_due()
    index.page()
    assert not index.page_due()
    index.add(index.end, PAGE_LOG_BYTES, batch_of([(b"a", b"")], index.last + 1, index.last, 0))
    assert index.page_due()


def test_pages_of_the_same_segment_are_adopted_and_others_are_not() -> None:
    saved, entries, _ = filled(6)
    half = entries[30][0]
    grown, _, _ = filled(6)
    assert grown.adopt_pages(saved, half)
    assert grown.page() != b"", "the other half is not in the file"
    assert not filled(7)[0].adopt_pages(saved, half)
    shorter, _, _ = filled(6, count=20)
    assert not shorter.adopt_pages(saved, half)


def test_what_is_unknown_is_not_known() -> None:
    index, entries, _ = filled(2)
    last = entries[-1][2].last
    assert index.knows(6, last)
    assert not index.knows(6, last + 1)
    index.unknown.append((20, 30))
    assert [index.knows(*span) for span in ((6, 19), (6, 20), (25, 26), (30, 40), (31, 40))] == [
        True,
        False,
        False,
        False,
        True,
    ]


def test_memory_is_about_forty_bytes_an_entry_of_one_topic() -> None:
    index = SegmentIndex(0, 0)
    for number in range(10_000):
        index.add(number * 50, 50, batch_of([(b"a", b"")], number + 1, number, 0))
    arrays = [index.positions, index.firsts, index.times, index.evens, index.pairs.ends]
    assert sum(len(array) * array.itemsize for array in arrays) == 28 * 10_000
    pairs = [index.pairs.ids, index.pairs.counts, index.topics[b"a"].numbers, index.topics[b"a"].counts]
    assert sum(len(array) * array.itemsize for array in pairs) == 16 * 10_000
    assert 44 * 10_000 <= index.weight_bytes() <= 54 * 10_000


def test_of_what_size_payloads_are_is_known_by_who_wrote_them_or_looked() -> None:
    index = SegmentIndex(0, 0)
    even = batch_of([(b"a", b"12"), (b"b", b"34")], 1, 0, 0)
    uneven = batch_of([(b"a", b"12"), (b"b", b"3")], 3, 2, 0)
    read = parse(even.record)
    assert isinstance(read, Batch)
    index.add(10, 50, even)
    index.add(60, 50, uneven)
    index.add(110, 50, Hole(5, 5, 4, 0, "trimmed", None))
    index.add(160, 50, replace(read, first=6))
    assert [index.even_at(at) for at in (10, 60, 110, 160, 0, 11, 200)] == [2, *[UNEVEN] * 6]
    index.note_even(160, 2)
    index.note_even(161, 2)
    assert [index.even_at(at) for at in (10, 60, 110, 160, 0, 11, 200)] == [2, UNEVEN, UNEVEN, 2, *[UNEVEN] * 3]
    thinned = index.thinned([(1, 3, Hole(3, 5, 2, 0, "trimmed", None))])
    assert [thinned.even_at(at) for at in (10, 60, 160)] == [2, UNEVEN, 2]
    loaded = SegmentIndex(0, 0)
    loaded.load(index.all_pages())
    assert [loaded.even_at(at) for at in (10, 60, 160)] == [UNEVEN] * 3
    assert len(loaded.evens) == len(loaded)
