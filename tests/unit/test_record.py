"""The record format: golden bytes, so that one changed byte names the field that broke; and what parse refuses."""

from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busd.rules import column as columns
from busd.rules import items as items_module
from busd.rules import record as record_module
from busd.rules.column import MAX_TOPICS, Column
from busd.rules.envelope import BadRecord, envelope, peek
from busd.rules.items import UNEVEN, Item
from busd.rules.record import Batch, CleanStop, Hole, frame, frame_clean_stop, frame_hole, glance, parse, parse_batch
from tests.unit.test_segment_opening import OPENING

# Written by hand.  Each value of a field is one that occurs nowhere else in its record.
BATCH = (
    b"+B a2b2d110 0000000104 71 3 1700000000000000005 64 52 h jobs.a,news 010 2,7\r\n"
    b"*3\r\n$5\r\nhello\r\n*3\r\n$2\r\nhi\r\n$3\r\nkey\r\n$2\r\nk1\r\n$0\r\n\r\n"
)
PLAIN = b"+B d7ce9610 0000000036 9 2 17 8 6 - t\r\n*2\r\n$1\r\nx\r\n$3\r\nabc\r\n"
ALONE = b"+B 00a0aba1 0000000029 9 1 17 8 6 - t\r\n*1\r\n$3\r\nabc\r\n"
HOLE = b"+H 26fd742d 0000000033 12 19 11 4096 trimmed a:3,b.c:4\r\n"
STOP = b"+C e65df3f0 0000000029 900 899 1700000000000000011\r\n"


def fixed(record: bytes) -> bytes:
    """The record with length and CRC as they must be: what the golden text leaves to arithmetic."""
    rest = b"%010d" % (len(record) - 23) + record[22:]
    return b"%b%08x %b" % (record[:3], crc32(rest), rest)


def test_golden_texts_have_the_right_length_and_crc() -> None:
    for golden in (BATCH, PLAIN, ALONE, HOLE, OPENING, STOP):
        assert golden == fixed(golden)


def test_golden_batch_field_by_field() -> None:
    batch = parse(BATCH)
    assert isinstance(batch, Batch)
    assert batch.first == 71
    assert batch.n == 3
    assert batch.time_ns == 1700000000000000005
    assert batch.prev == 64
    assert batch.synced == 52
    assert batch.flags == "h"
    assert batch.topics == (b"jobs.a", b"news")
    assert batch.column == b"010"
    assert batch.steps == (2, 7)
    assert batch.items() == [b"hello", [b"hi", b"key", b"k1"], b""]
    assert batch.record == BATCH
    assert batch.last == 80
    assert list(batch.offsets()) == [71, 73, 80]
    assert batch.payloads() == [b"hello", b"hi", b""]
    assert [batch.topic_of(n) for n in range(3)] == [b"jobs.a", b"news", b"jobs.a"]
    assert list(batch.counts()) == [2, 1]
    assert not batch.control


def test_golden_batch_is_what_frame_writes() -> None:
    items: list[Item] = [b"hello", [b"hi", b"key", b"k1"], b""]
    batch = frame(71, 1700000000000000005, 64, 52, "h", (b"jobs.a", b"news"), b"010", (2, 7), items)
    assert batch.record == BATCH
    assert frame(9, 17, 8, 6, "-", (b"t",), None, None, [b"x", b"abc"]).record == PLAIN
    alone = frame(9, 17, 8, 6, "-", (b"t",), None, None, [b"abc"])
    assert (alone.record, alone.record[alone.body_at :], alone.even) == (ALONE, b"*1\r\n$3\r\nabc\r\n", 3)
    assert frame(9, 17, 8, 6, "e", (b"t",), None, None, [b""]).control


def test_golden_hole() -> None:
    hole = Hole(12, 19, 11, 4096, "trimmed", {b"a": 3, b"b.c": 4})
    assert parse(HOLE) == hole
    assert frame_hole(hole) == HOLE
    for other in (Hole(1, 1, 0, 0, "corrupt", None), Hole(1, 1, 0, 0, "corrupt", {})):
        assert parse(frame_hole(other)) == other


def test_golden_clean_stop() -> None:
    stop = CleanStop(900, 899, 1700000000000000011)
    assert parse(STOP) == stop
    assert frame_clean_stop(stop) == STOP


def read_one(data: bytes) -> object:
    """The record at the start, as a reader takes it."""
    size = peek(data)[1]
    if size > len(data):
        raise BadRecord("short", "more than there is")
    return parse(data[:size])


@pytest.mark.parametrize("golden", [BATCH, PLAIN, HOLE, OPENING, STOP])
def test_every_flipped_bit_is_seen(golden: bytes) -> None:
    for at in range(len(golden)):
        for bit in range(8):
            data = bytearray(golden)
            data[at] ^= 1 << bit
            with pytest.raises(BadRecord):
                read_one(bytes(data))


@pytest.mark.parametrize(
    ("kind", "fields", "body"),
    [
        ("B", b"9 2 17 9 6 - t", b"*2\r\n$0\r\n\r\n$0\r\n\r\n"),  # first is not above prev
        ("B", b"9 0 17 8 6 - t", b"*0\r\n"),  # no message
        ("B", b"9 2 17 8 6 - a,b 0", b""),  # a column of another length
        ("B", b"9 2 17 8 6 - a,b 02", b""),  # a column that names a third topic
        ("B", b"9 2 17 8 6 - a,b 0/", b""),  # a column below the first topic
        ("B", b"9 2 17 8 6 - a,b 0\xc4", b""),  # a column that is no UTF-8
        ("B", b"9 2 17 8 6 - %b 0" % b",".join([b"t%d" % number for number in range(300)]) + b"\xc5\x9c", b""),  # 301st
        ("B", b"9 2 17 8 6 - %b 00" % b",".join([b"t%d" % number for number in range(2001)]), b""),  # too many topics
        ("B", b"9 2 17 8 6 - t 1,1", b""),  # too many steps
        ("B", b"9 2 17 8 6 - t 0", b""),  # offsets that do not rise
        ("B", b"9 2 17 8 6 - t 1 1", b""),  # something more
        ("B", b"9 x 17 8 6 - t", b""),
        ("B", b"9", b""),
        ("H", b"9 8 7 0 trimmed -", b""),  # ends before it begins
        ("H", b"9 10 9 0 trimmed -", b""),
        ("H", b"9 10 8 -1 trimmed -", b""),
        ("S", b"1 main 1 1", b""),
        ("C", b"1", b""),
        ("I", b"", b""),  # a page of an index is no record of a log
    ],
)
def test_valid_checksums_over_nonsense(kind: str, fields: bytes, body: bytes) -> None:
    with pytest.raises(BadRecord) as caught:
        parse(envelope(kind, fields, body))
    assert caught.value.reason == "form"


def test_bodies_that_do_not_hold_what_the_line_says() -> None:
    for body in (b"*1\r\n$1\r\nx\r\n", b"$1\r\nx\r\n", b"*2\r\n$1\r\nx\r\n", b"nonsense\r\n"):
        batch = parse(envelope("B", b"9 2 17 8 6 - t", body))
        assert isinstance(batch, Batch)
        with pytest.raises(BadRecord):
            batch.items()


payloads = st.binary(max_size=30) | st.sampled_from([b"", b"\r\n", b"+B 00000000 ", b"x" * 5000])
items = st.lists(payloads | st.lists(payloads, min_size=3, max_size=5).filter(lambda x: len(x) % 2 == 1), min_size=1)


@given(
    items=items,
    topics=st.sampled_from([1, 2, 78, 79, 208, 209, MAX_TOPICS]) | st.integers(1, MAX_TOPICS),
    sparse=st.booleans(),
    data=st.data(),
)
def test_round_trip_and_glance_agrees_with_parse(
    items: list[Item], topics: int, sparse: bool, data: st.DataObject
) -> None:
    names = tuple(b"t%d" % n for n in range(topics))
    column: Column | None = None
    if topics > 1:
        own = [names[data.draw(st.integers(0, topics - 1))] for _ in items]
        column = columns.make(dict.fromkeys(names), [(own, len(own))])
    steps = tuple(data.draw(st.integers(1, 9)) for _ in items[1:]) if sparse and len(items) > 1 else None
    flags = "h" if any(isinstance(item, list) for item in items) else "-"
    batch = frame(10, 20, 5, 4, flags, names, column, steps, items)
    again = parse(batch.record)
    assert isinstance(again, Batch)
    assert again.items() == items
    fields = ("first", "n", "time_ns", "prev", "synced", "flags", "topics", "column", "steps", "body_at")
    assert [getattr(again, name) for name in fields] == [getattr(batch, name) for name in fields]
    facts = glance(batch.record)
    assert facts is not None
    assert facts[:5] == (len(batch.record), 10, batch.last, 5, batch.body_at - 2)
    assert facts[5][9] == b",".join(names)
    same = parse_batch(batch.record, facts)
    assert same.items() == items
    assert [getattr(same, name) for name in fields] == [getattr(batch, name) for name in fields]
    with pytest.raises(BadRecord, match="crc"):
        parse_batch(batch.record[:-1] + b"x", facts)
    assert glance(batch.record[: batch.body_at - 1]) is None


def test_a_batch_of_many_topics_is_what_it_was_with_few() -> None:
    """Golden: two bytes for a character from the 81st topic on, and nothing else."""
    names = tuple(b"%d" % number for number in range(82))
    column = columns.make(dict.fromkeys(names), [([b"0", b"79", b"80", b"81"], 4)])
    batch = frame(9, 17, 8, 6, "-", names, column, (1, 2, 1), [b"", b"", b"", b""])
    assert b" %b 0\x7f\xc2\x80\xc2\x81 1,2,1\r\n*4\r\n" % b",".join(names) in batch.record
    assert frame(9, 17, 8, 6, "-", names, column, (1, 2, 1), batch.items(), b",".join(names)).record == batch.record
    assert list(batch.counts()) == [1, *[0] * 78, 1, 1, 1]
    assert list(batch.lasts()) == [9, *[13] * 78, 10, 12, 13]
    assert [batch.last_of(topic) for topic in (b"0", b"79", b"80", b"81")] == [9, 10, 12, 13]
    assert [batch.topic_of(at) for at in range(4)] == [b"0", b"79", b"80", b"81"]


def test_glance_is_for_batches() -> None:
    for other in (HOLE, OPENING, STOP, b"", b"\0" * 40, BATCH.replace(b"2,7\r", b"2,,\r")):
        assert glance(other) is None
    # Also where steps say how many there are.
    assert glance(b"+B 00000000 0000000010 1 2!1000 7 0 0 - a,b 01 1\r\n") is None
    # Damage may be a number of more digits than Python reads.
    for part in (b" 1 ", b" 1 1 1 "):
        assert glance(b"+B 00000000 0000000010" + part[:-2] + b"9" * 5000 + b" 1 1 0 0 - a\r\n") is None


@pytest.mark.parametrize(("number", "known", "looks"), [(63, 9, 0), (64, 9, 1), (255, UNEVEN, 0), (256, UNEVEN, 1)])
@pytest.mark.parametrize("last", [b"x" * 9, b"x" * 8])
def test_whether_payloads_are_of_one_size_is_looked_at_once_and_where_it_saves_time(
    number: int, known: int, looks: int, last: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    if known != UNEVEN and len(last) != known:
        known, looks = UNEVEN, int(number >= 256)
    asked: list[int] = []
    genuine = items_module.even_items

    def noted(record: bytes, body_at: int, n: int, size: int) -> tuple[int, ...]:
        asked.append(n)
        return genuine(record, body_at, n, size)

    monkeypatch.setattr(record_module, "even_items", noted)
    payloads: list[Item] = [*([b"x" * 9] * (number - 1)), last]
    batch = parse(frame(1, 5, 0, 0, "-", (b"t",), None, None, payloads).record)
    assert isinstance(batch, Batch)
    batch.even = known
    assert batch.items() == payloads
    assert len(asked) == looks
    assert bool(batch.evenly()) == (last == b"x" * 9)
    assert len(asked) == 1
