"""The plan after a start: CLEAN, TORN or CORRUPT, what is cut, what is lost, and what the topics are."""

from __future__ import annotations

import pytest

from busd.rules.record import CleanStop, frame_clean_stop
from busd.rules.recovery import Plan, Verdict, plan
from busd.rules.segment_index import SegmentIndex
from busd.rules.topic_state import TopicState, TopicTable
from tests.support.store_kit import batch_of
from tests.unit.test_scan import START, flipped, log, reading

CLEAN, TORN, CORRUPT = Verdict.CLEAN, Verdict.TORN, Verdict.CORRUPT


def planned(data: bytes, hints: SegmentIndex | None = None) -> tuple[Plan, TopicTable]:
    """The plan for a segment that holds `data`."""
    topics = TopicTable()
    return plan(reading(data), START, START + len(data), 0, hints, topics), topics


def hints_of(index: SegmentIndex, synced: int = 0) -> SegmentIndex:
    """What is loaded from the pages of an index."""
    index.synced = synced
    loaded = SegmentIndex(START, 0)
    loaded.load(index.all_pages())
    return loaded


@pytest.mark.parametrize("hinted", [False, True])
def test_clean(hinted: bool) -> None:
    records, index = log()
    found, topics = planned(b"".join(records), hints_of(index) if hinted else None)
    assert (found.verdict, found.keep_bytes, found.last) == (CLEAN, index.end, 5)
    assert (found.flaws, found.lost, found.complete, found.messages) == ([], [], True, 5)
    assert found.pages_fit is hinted
    assert found.index.firsts == index.firsts
    assert topics == {b"a": TopicState(5, 5, 5)}
    assert found.stop is None


def test_a_clean_stop_at_the_end_is_told() -> None:
    records, _ = log(2)
    stop = CleanStop(3, 2, 1)
    found, _ = planned(b"".join(records) + frame_clean_stop(stop))
    assert (found.stop, found.index.synced) == (stop, 2)
    more = batch_of([(b"a", b"")], 3, 2, 2).record
    found, _ = planned(b"".join(records) + frame_clean_stop(stop) + more)
    assert (found.verdict, found.stop, found.last) == (CLEAN, None, 3)


@pytest.mark.parametrize("hinted", [False, True])
def test_a_cut_write_is_torn(hinted: bool) -> None:
    records, index = log(4)
    hints = hints_of(index) if hinted else None
    half = batch_of([(b"a", b"x" * 40)], 5, 4, 4).record[:-9]
    found, topics = planned(b"".join(records) + half, hints)
    assert (found.verdict, found.keep_bytes, found.last, found.lost) == (TORN, index.end, 4, [])
    assert found.pages_fit is hinted
    assert topics == {b"a": TopicState(4, 4, 4)}


def test_the_last_record_flipped_is_torn_unless_it_was_known_to_be_synced() -> None:
    records, index = log()
    data = flipped(b"".join(records), len(b"".join(records)) - 5)
    assert planned(data)[0].verdict is TORN
    assert planned(data, hints_of(index, synced=4))[0].verdict is TORN
    found, topics = planned(data, hints_of(index, synced=5))
    assert (found.verdict, found.lost, found.last, found.complete) == (CORRUPT, [(5, 5)], 5, True)
    assert found.keep_bytes == index.end
    stop = frame_clean_stop(CleanStop(6, 5, 1))
    assert planned(data + stop)[0].verdict is CORRUPT
    assert topics[b"a"].count == 4


def test_later_records_say_what_was_synced() -> None:
    records, _ = log()
    data = b"".join([records[0], flipped(records[1], len(records[1]) - 5), *records[2:]])
    found, topics = planned(data)
    assert (found.verdict, found.lost, found.keep_bytes) == (CORRUPT, [(2, 2)], START + len(data))
    assert found.index.unknown == [(2, 2)]
    assert not found.complete
    assert topics[b"a"].count == 4
    # Nothing was known to be synced: everything from there on goes.
    unsynced = [batch_of([(b"a", b"x" * 40)], offset, offset - 1, 0).record for offset in range(1, 6)]
    data = b"".join([unsynced[0], flipped(unsynced[1], len(unsynced[1]) - 5), *unsynced[2:]])
    found, topics = planned(data)
    assert (found.verdict, found.keep_bytes, found.last) == (TORN, START + len(unsynced[0]), 1)
    assert topics[b"a"].count == 1


def test_corrupt_in_the_middle_and_torn_at_the_end() -> None:
    records, index = log()
    hints = hints_of(index, synced=4)
    data = b"".join([records[0], flipped(records[1], 30), *records[2:], b"+B 0000"])
    found, _ = planned(data, hints)
    assert (found.verdict, found.keep_bytes, found.lost) == (CORRUPT, index.end, [(2, 2)])
    assert (found.complete, found.index.unknown) == (True, [])
    assert found.pages_fit


def test_a_log_shorter_than_what_was_synced_is_corrupt() -> None:
    records, index = log()
    found, _ = planned(b"".join(records[:3]), hints_of(index, synced=5))
    assert (found.verdict, found.lost, found.last) == (CORRUPT, [(4, 5)], 5)
    found, _ = planned(b"".join(records[:3]), hints_of(index, synced=3))
    assert (found.verdict, found.lost, found.last, found.pages_fit) == (CLEAN, [], 3, False)


def test_a_loss_whose_end_nobody_knows() -> None:
    records, _ = log()
    data = b"".join([records[0], b"?" * 100, *records[2:]])
    found, _ = planned(data)
    assert (found.verdict, found.lost, found.last, found.complete) == (CORRUPT, [(2, 5)], 5, False)


def test_a_missing_and_a_doubled_block_cut_nothing() -> None:
    records, _ = log()
    found, _ = planned(b"".join([records[0], *records[2:]]))
    assert (found.verdict, found.lost, found.keep_bytes) == (
        CORRUPT,
        [(2, 2)],
        START + sum(map(len, records)) - len(records[1]),
    )
    found, topics = planned(b"".join([*records, records[-1]]))
    assert (found.verdict, found.lost) == (CORRUPT, [])
    assert topics[b"a"].count == 5


def test_hints_that_disagree_with_the_log_are_dropped() -> None:
    records, index = log()
    other = SegmentIndex(START, 0)
    for number in range(5):
        other.add(index.positions[number], 10, batch_of([(b"other", b"")], number + 1, number, 0))
    other.skip(index.end, 0)
    found, topics = planned(b"".join(records[:2]) + records[2], other)
    assert not found.pages_fit
    assert list(topics) == [b"a"]
