"""A segment made smaller: what survives is unchanged, what does not is counted, and the chain holds."""

from __future__ import annotations

import random

import pytest

from busd.rules.envelope import BadRecord
from busd.rules.items import Item
from busd.rules.record import Batch, Hole, parse
from busd.rules.rewrite import Survivors, rewrite
from busd.rules.scan import Flaw, walk
from tests.support.store_kit import batch_of

pytestmark = pytest.mark.usefixtures("column_kind")

Message = tuple[int, int, bytes, Item]


def told(batches: list[Batch]) -> list[Message]:
    """(offset, time, topic, item) of all messages."""
    return [
        (offset, batch.time_ns, batch.topic_of(number), batch.items()[number])
        for batch in batches
        for number, offset in enumerate(batch.offsets())
    ]


def run(records: list[Batch | Hole], keep: dict[int, Survivors], prev: int = 0) -> list[Batch | Hole]:
    """Rewrite; `keep` by first offset, all else goes.  The result must pass the checked walk."""
    out = list(rewrite(records, lambda batch: keep.get(batch.first, False), prev, "trimmed"))
    data = b"".join(out)
    steps = list(walk(lambda at, length: data[at : at + length], 0, len(data), prev))
    assert [step for step in steps if isinstance(step, Flaw)] == []
    found = [parse(record) for record in out]
    assert all(isinstance(record, Batch | Hole) for record in found)
    return found  # type: ignore[return-value]


def holes(records: list[Batch | Hole]) -> list[tuple[int, int, str, dict[bytes, int] | None]]:
    """What the holes say."""
    return [(r.first, r.last, r.reason, r.counts) for r in records if isinstance(r, Hole)]


ONE = batch_of([(b"a", b"1"), (b"a", b"2"), (b"a", b"3")], 1, 0, 0)
TWO = batch_of([(b"a", b"4"), (b"b", [b"5", b"k", b"v"]), (b"a", b"6")], 4, 3, 3, now_ns=2000)
END = batch_of([(b"b", b"")], 7, 6, 6, flags="e")


def test_everything_goes() -> None:
    out = run([ONE, TWO, END], {})
    assert holes(out) == [(1, 7, "trimmed", {b"a": 5, b"b": 1})]
    assert len(out) == 1


def test_everything_stays_verbatim() -> None:
    out = list(rewrite([ONE, TWO, END], lambda batch: True, 0, "trimmed"))
    assert out == [ONE.record, TWO.record, END.record]
    marked = list(rewrite([ONE, TWO, END], lambda batch: b"\1" * batch.n, 0, "trimmed"))
    assert marked == out


def test_whole_batches_between_holes_stay_verbatim() -> None:
    out = list(rewrite([ONE, TWO, END], lambda batch: batch is TWO, 0, "trimmed"))
    assert out[1] == TWO.record
    assert holes(run([ONE, TWO, END], {4: True})) == [(1, 3, "trimmed", {b"a": 3}), (7, 7, "trimmed", {})]


def test_parts_of_a_batch_are_framed_again() -> None:
    out = run([ONE, TWO], {1: b"\0\0\1", 4: b"\1\1\0"})
    assert holes(out) == [(1, 2, "trimmed", {b"a": 2}), (6, 6, "trimmed", {b"a": 1})]
    kept = [record for record in out if isinstance(record, Batch)]
    assert told(kept) == [(3, 1000, b"a", b"3"), (4, 2000, b"a", b"4"), (5, 2000, b"b", [b"5", b"k", b"v"])]
    assert [batch.synced for batch in kept] == [0, 3]
    assert kept[0].topics == (b"a",)


def test_a_removed_message_between_survivors_is_named() -> None:
    out = run([TWO], {4: b"\1\0\1"}, prev=3)
    assert [type(record) for record in out] == [Batch, Hole, Batch]
    assert holes(out) == [(5, 5, "trimmed", {b"b": 1})]
    assert [record.topics for record in out if isinstance(record, Batch)] == [(b"a",), (b"a",)]
    assert [record.column for record in out if isinstance(record, Batch)] == [None, None]


def test_offsets_that_were_never_there_cut_nothing() -> None:
    sparse = batch_of([(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"a", b"4")], 10, 9, 9, step=5)
    out = run([sparse], {10: b"\1\1\1\0"}, prev=9)
    assert holes(out) == [(25, 25, "trimmed", {b"a": 1})]
    assert isinstance(out[0], Batch)
    assert out[0].steps == (5, 5)
    assert list(out[0].offsets()) == [10, 15, 20]


def test_holes_grow_over_holes_of_their_kind_only() -> None:
    trimmed = Hole(1, 5, 0, 77, "trimmed", {b"a": 2})
    corrupt = Hole(6, 8, 5, 0, "corrupt", None)
    batch = batch_of([(b"a", b"x")], 9, 8, 8)
    unknown = Hole(10, 12, 9, 0, "trimmed", None)
    out = run([trimmed, corrupt, batch, unknown], {})
    assert holes(out) == [
        (1, 5, "trimmed", {b"a": 2}),
        (6, 8, "corrupt", None),
        (9, 9, "trimmed", {b"a": 1}),
        (10, 12, "trimmed", None),
    ]
    assert [record.hop for record in out if isinstance(record, Hole)] == [0] * 4


def test_the_callers_holes_are_not_changed() -> None:
    counts = {b"a": 2}
    run([Hole(1, 5, 0, 0, "trimmed", counts), batch_of([(b"a", b"x")], 6, 5, 5)], {})
    assert counts == {b"a": 2}


def test_marks_of_the_wrong_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 marks for 3 messages"):
        run([ONE], {1: b"\1\0"})


def test_a_body_that_lies_is_refused() -> None:
    bad = batch_of([(b"a", b"1"), (b"a", b"2")], 1, 0, 0)
    lying = Batch(1, 2, 1, 0, 0, "-", (b"a",), None, None, bad.record[:-4], bad.body_at)
    with pytest.raises(BadRecord):
        run([lying], {1: b"\1\0"})


@pytest.mark.parametrize("seed", range(40))
def test_told_and_counted_are_what_went_in(seed: int) -> None:
    rng = random.Random(seed)
    records: list[Batch | Hole] = []
    keep: dict[int, Survivors] = {}
    last = 0
    for _ in range(30):
        first = last + rng.randint(1, 3)
        if rng.random() < 0.1:
            records.append(Hole(first, first + 4, last, 0, "trimmed", {b"a": 3}))
        else:
            messages: list[tuple[bytes, Item]] = [
                (rng.choice([b"a", b"b", b"c"]), b"%d" % rng.randint(0, 9)) for _ in range(rng.randint(1, 8))
            ]
            batch = batch_of(messages, first, last, last, step=rng.choice([1, 2]))
            records.append(batch)
            some = bytes(rng.randint(0, 1) for _ in range(batch.n))
            choices: list[Survivors] = [True, False, some]
            keep[first] = rng.choice(choices)
        last = records[-1].last
    out = run(records, keep)
    batches = [record for record in records if isinstance(record, Batch)]
    expected: list[Message] = []
    gone: dict[bytes, int] = {}
    for batch in batches:
        marks = keep[batch.first]
        for number, message in enumerate(told([batch])):
            if marks is True or (marks is not False and marks[number]):
                expected.append(message)
            else:
                gone[message[2]] = gone.get(message[2], 0) + 1
    gone[b"a"] = gone.get(b"a", 0) + 3 * (len(records) - len(batches))
    assert told([record for record in out if isinstance(record, Batch)]) == expected
    counted: dict[bytes, int] = {}
    for record in out:
        if isinstance(record, Hole):
            for topic, count in (record.counts or {}).items():
                counted[topic] = counted.get(topic, 0) + count
    assert {t: c for t, c in counted.items() if c} == {t: c for t, c in gone.items() if c}
    # Doing it again with everything left changes nothing.
    assert [r.record for r in out if isinstance(r, Batch)] == [
        r.record for r in run(out, {r.first: True for r in out if isinstance(r, Batch)}) if isinstance(r, Batch)
    ]


@pytest.mark.parametrize("count", [78, 79, 208, 209, 900])
def test_batches_of_many_topics(count: int) -> None:
    rng = random.Random(count)
    own = [*range(count), *rng.choices(range(count), k=60)]
    rng.shuffle(own)
    batch = batch_of([(b"t.%d" % number, b"%d" % at) for at, number in enumerate(own)], 10, 9, 9)
    marks = bytes(rng.choices([0, 1], [1, 40], k=batch.n))
    out = run([batch], {10: marks}, prev=9)
    kept = [record for record in out if isinstance(record, Batch)]
    assert told(kept) == [message for message, mark in zip(told([batch]), marks, strict=True) if mark]
    assert all(set(one.topics) == {one.topic_of(at) for at in range(one.n)} for one in kept)
    gone = [b"t.%d" % number for number, mark in zip(own, marks, strict=True) if not mark]
    assert sorted(topic for *_, counts in holes(out) for topic in (counts or ())) == sorted(gone)
    ((_, _, _, counted),) = holes(run([batch], {}, prev=9))
    assert counted == {b"t.%d" % number: own.count(number) for number in range(count)}
