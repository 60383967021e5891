"""The checked walk: every kind of flaw, where it goes on, and what it refuses to believe."""

from __future__ import annotations

from busd.rules.record import Batch, CleanStop, Hole, frame_clean_stop, frame_hole
from busd.rules.scan import WINDOW_BYTES, Flaw, Found, Read, resume, sound, walk
from busd.rules.segment_index import SegmentIndex
from tests.support.store_kit import batch_of

START = 50


def log(count: int = 5, size: int = 40) -> tuple[list[bytes], SegmentIndex]:
    """Records of one message each, offsets from 1, and their index; positions begin at START."""
    records, index = [], SegmentIndex(START, 0)
    for offset in range(1, count + 1):
        batch = batch_of([(b"a", b"x" * size)], offset, offset - 1, offset - 1)
        records.append(batch.record)
        index.add(index.end, len(batch.record), batch)
    return records, index


def reading(data: bytes) -> Read:
    """Reads of a file whose first START bytes are something else."""
    data = b"." * START + data
    return lambda at, length: data[at : at + length]


def steps_of(data: bytes, index: SegmentIndex | None = None, prev: int = 0) -> list[str]:
    """The walk in short: `2` for the batch at offset 2, flaws with what they say."""
    told = []
    for step in walk(reading(data), START, START + len(data), prev, index):
        if isinstance(step, Flaw):
            told.append(f"{step.kind} {step.first}-{step.last}" + (" on" if step.resume is not None else ""))
        elif isinstance(step.record, Batch):
            told.append(str(step.record.first))
        else:
            told.append(type(step.record).__name__)
    return told


def flipped(data: bytes, at: int) -> bytes:
    """One bit changed."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_a_sound_log() -> None:
    records, index = log()
    stop = frame_clean_stop(CleanStop(6, 5, 1))
    hole = frame_hole(Hole(6, 9, 5, 30, "trimmed", None)) + b"\0" * 30
    assert steps_of(b"".join([*records, stop, hole])) == ["1", "2", "3", "4", "5", "CleanStop", "Hole"]
    assert sound(reading(b"".join(records)), START, index)


def test_records_larger_than_the_window() -> None:
    records, index = log(3, size=WINDOW_BYTES)
    assert steps_of(b"".join(records)) == ["1", "2", "3"]
    assert sound(reading(b"".join(records)), START, index)


def test_behind_a_damaged_payload_it_goes_on_by_structure() -> None:
    records, _ = log()
    records[2] = flipped(records[2], len(records[2]) - 10)
    assert steps_of(b"".join(records)) == ["1", "2", "crc 3-3 on", "4", "5"]


def test_behind_a_damaged_frame_it_goes_on_by_index_only() -> None:
    records, index = log()
    dollar = records[2].index(b"$40") + 1
    records[2] = flipped(records[2], dollar)
    assert steps_of(b"".join(records)) == ["1", "2", "crc 3-None"]
    assert steps_of(b"".join(records), index) == ["1", "2", "crc 3-3 on", "4", "5"]
    records[3] = bytes(len(records[3]))
    assert steps_of(b"".join(records), index) == ["1", "2", "crc 3-4 on", "5"]


def test_an_index_that_points_anywhere_is_not_followed() -> None:
    records, index = log()
    records[2] = bytes(len(records[2]))
    wrong = SegmentIndex(START, 0)
    for number in range(5):
        wrong.add(index.positions[number] + 1, 40, batch_of([(b"a", b"")], number + 1, number, 0))
    assert steps_of(b"".join(records), wrong) == ["1", "2", "form 3-None"]
    # Right position, another offset.
    other = SegmentIndex(START, 0)
    for number in range(5):
        other.add(index.positions[number], 40, batch_of([(b"a", b"")], number + 11, number + 10, 0))
    other.skip(0, 0)
    assert steps_of(b"".join(records), other) == ["1", "2", "form 3-None"]


def test_the_end_of_the_index_is_a_place_to_go_on_too() -> None:
    records, index = log()
    records[4] = bytes(len(records[4]))
    stop = frame_clean_stop(CleanStop(6, 5, 1))
    assert steps_of(b"".join([*records, stop]), index) == ["1", "2", "3", "4", "form 5-5 on", "CleanStop"]
    more = batch_of([(b"a", b"")], 6, 5, 5).record
    assert steps_of(b"".join([*records, more]), index) == ["1", "2", "3", "4", "form 5-5 on", "6"]
    unchained = batch_of([(b"a", b"")], 9, 8, 5).record
    assert steps_of(b"".join([*records, unchained]), index) == ["1", "2", "3", "4", "form 5-None"]


def test_missing_and_doubled() -> None:
    records, _ = log()
    assert steps_of(b"".join(records[:2] + records[3:])) == ["1", "2", "missing 3-3", "4", "5"]
    assert steps_of(b"".join(records[:3] + records[1:])) == ["1", "2", "3", "doubled 2-0", "doubled 3-0", "4", "5"]
    assert steps_of(b"".join(records[2:])) == ["missing 1-2", "3", "4", "5"]


def test_a_torn_end_claims_nothing_even_with_a_record_in_its_payload() -> None:
    records, _ = log(2)
    bait = batch_of([(b"a", b"forged")], 9, 8, 8).record
    torn = batch_of([(b"a", bait), (b"a", b"y" * 50)], 3, 2, 2).record
    data = b"".join(records)
    for size in range(1, len(torn)):
        flaw = list(walk(reading(data + torn[:size]), START, START + len(data) + size, 0))[-1]
        assert isinstance(flaw, Flaw)
        assert (flaw.kind, flaw.first, flaw.resume, flaw.synced, flaw.claims) == ("short", 3, None, 0, 0), size


def test_what_stands_behind_a_broken_prefix_counts_as_a_trace_only() -> None:
    records, _ = log()
    records[1] = b"?" + records[1][1:]
    data = b"".join(records)
    steps = list(walk(reading(data), START, START + len(data), 0))
    assert isinstance(steps[-1], Flaw)
    assert (steps[-1].resume, steps[-1].synced, steps[-1].claims) == (None, 4, 5)
    far = batch_of([(b"a", b"")], 1 << 50, (1 << 50) - 1, (1 << 50) - 1).record
    steps = list(walk(reading(records[0] + b"?" * 50 + far), START, START + len(records[0]) + 50 + len(far), 0))
    assert isinstance(steps[-1], Flaw)
    assert (steps[-1].synced, steps[-1].claims) == (0, 0), "no log jumps that far"


def test_openings_and_pages_do_not_belong_into_the_middle() -> None:
    records, index = log(2)
    assert steps_of(records[0] + index.page() + records[1]) == ["1", "form 2-None"]


def test_resume_of_a_good_record_is_nothing() -> None:
    records, index = log()
    read = reading(b"".join(records))
    assert resume(read, START, index.end, 0, index) is None
    flaw = resume(reading(flipped(b"".join(records), 30)), START, index.end, 0, index)
    assert flaw is not None
    assert (flaw.first, flaw.last, flaw.resume) == (1, 1, index.positions[1])


def test_sound_wants_every_byte() -> None:
    records, index = log(3)
    data = b"".join(records)
    for at in range(len(data)):
        assert not sound(reading(flipped(data, at)), START, index), at
    for size in range(len(data)):
        assert not sound(reading(data[:size]), START, index)


def test_sound_allows_clean_stops_between_and_nothing_else() -> None:
    first, third = batch_of([(b"a", b"")], 1, 0, 0), batch_of([(b"a", b"")], 2, 1, 1)
    for between, expected in (
        (frame_clean_stop(CleanStop(2, 1, 1)), True),
        (b"", True),
        (frame_hole(Hole(5, 5, 1, 0, "trimmed", None)), False),
        (b"zeros" * 10, False),
    ):
        index = SegmentIndex(START, 0)
        index.add(START, len(first.record), first)
        index.add(START + len(first.record) + len(between), len(third.record), third)
        assert sound(reading(first.record + between + third.record), START, index) is expected
    hole = Hole(1, 5, 0, 20, "trimmed", None)
    data = frame_hole(hole) + b"\0" * 20
    index = SegmentIndex(START, 0)
    index.add(START, len(data), hole)
    assert sound(reading(data), START, index)


def test_a_disk_that_cannot_read_is_a_flaw() -> None:
    steps = list(walk(lambda at, length: b"", 0, 100, 0))
    assert [(step.kind, step.first) for step in steps if isinstance(step, Flaw)] == [("short", 1)]
    assert not [step for step in steps if isinstance(step, Found)]
