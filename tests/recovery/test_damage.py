"""Larger damage: pages, blocks, segments and indexes that are gone, doubled, swapped or foreign."""

from __future__ import annotations

from zlib import crc32

import pytest

from busd.rules.envelope import peek
from busd.rules.record import parse
from busd.rules.segment_opening import frame_opening
from busd.words.settings import StoreRule
from busd.world.disk import DiskFailed
from busd.world.store import NewerFormat
from tests.support.log_kit import LogKit
from tests.support.memory_disk import MemoryDisk
from tests.support.store_kit import PATH, Kit, batch_of, every, only, open_store, read_all

TOPICS = (b"a", b"b", b"c")


def many_segments(count: int = 4, per_segment: int = 5, stop: bool = True) -> Kit:
    """Segments of equal batches: three messages each, topics a b c, 100 bytes."""
    kit = Kit()
    for number in range(count):
        if number:
            kit.roll()
        for _ in range(per_segment):
            kit.commit(*[(topic, b"%d" % kit.next + b"." * 100) for topic in TOPICS])
    if stop:
        kit.close()
    return kit


def logs(disk: MemoryDisk) -> list[str]:
    """Paths of the segments, oldest first."""
    return sorted(path for path in disk.contents() if path.endswith(".log"))


def index_of(path: str) -> str:
    """The index file beside a segment."""
    return path.replace(".log", ".idx")


def spans(data: bytes) -> list[tuple[int, int]]:
    """Where the records of a segment begin and end; the opening is the first."""
    found, at = [], 0
    while at < len(data):
        size = peek(data, at)[1]
        found.append((at, at + size))
        at += size
    return found


@pytest.mark.parametrize("budget", [1, 300, 1 << 20])
@pytest.mark.parametrize("hints", [True, False])
def test_a_zeroed_page_in_a_sealed_segment_is_one_hole(hints: bool, budget: int) -> None:
    kit = many_segments()
    path = logs(kit.disk)[1]
    data = bytearray(kit.disk.contents()[path])
    (start, _), (_, end) = spans(bytes(data))[2:4]
    data[start + 10 : end - 10] = bytes(end - start - 20)
    kit.disk.set_contents(path, bytes(data))
    if not hints:
        kit.disk.delete(index_of(path))
    store = open_store(kit.disk, next_offset=kit.next)
    assert store.report == [], "sealed segments are trusted at the start"
    tale = read_all(store, budget_bytes=budget)
    # Batches 2 and 3 of the segment (offsets 19…24) are hit.  Without the index nothing leads on behind them.
    last = 24 if hints else 30
    assert tale.losses == [(19, last, "corrupt", dict.fromkeys(TOPICS, (last - 18) // 3))]
    assert tale.messages == [message for message in kit.kept if not 19 <= message[0] <= last]
    # A second reader, one that starts within, and one that wants one topic hear the same.
    assert read_all(store, budget_bytes=budget).losses == tale.losses
    assert read_all(store, 19, only(b"b")).losses == [(19, last, "corrupt", {b"b": (last - 18) // 3})]
    within = read_all(store, 20, only(b"b"))
    assert [(first, to) for first, to, _, _ in within.losses] == [(20, last)]
    assert within.losses[0][3] is None, "how much of a batch is before 20, nobody knows"
    assert read_all(store, 19, only(b"nothing")).losses == []


def test_a_sector_that_cannot_be_read_is_a_hole() -> None:
    kit = many_segments()
    path = logs(kit.disk)[2]
    batches = spans(kit.disk.contents()[path])[1:]
    sector = -(-batches[1][0] // 512) * 512
    store = open_store(kit.disk, next_offset=kit.next)
    kit.disk.unreadable.append((path, sector, sector + 512))
    tale = read_all(store, budget_bytes=1 << 20, may_block=True)
    hit = [number for number, (start, end) in enumerate(batches) if start < sector + 512 and end > sector]
    first, last = 31 + 3 * hit[0], 31 + 3 * hit[-1] + 2
    assert tale.losses == [(first, last, "corrupt", dict.fromkeys(TOPICS, len(hit)))]
    assert tale.messages == [message for message in kit.kept if not first <= message[0] <= last]


@pytest.mark.parametrize("sector", range(0, 8192, 512))
@pytest.mark.parametrize("newest", [True, False])
@pytest.mark.parametrize("indexed", [True, False])
def test_a_sector_that_cannot_be_read_at_a_start_costs_no_more_than_what_is_in_it(
    sector: int, newest: bool, indexed: bool
) -> None:
    kit = Kit(rule=StoreRule(segment_bytes=8192))
    for number in range(40):
        kit.commit((b"t", b"%d" % number + b"." * 500))
    path = logs(kit.disk)[-1 if newest else 1]
    data = kit.disk.contents()[path]
    if sector >= len(data):
        return
    kit.disk.unreadable.append((path, sector, sector + 512))
    if not indexed:
        kit.disk.delete(index_of(path))
    hit = [number for number, (start, end) in enumerate(spans(data)) if start < sector + 512 and end > sector]
    if 0 in hit and (newest or not indexed):
        # The opening, and no copy of it that what stands behind could be believed by.
        return
    store = open_store(kit.disk, next_offset=kit.next)
    head = int(path[-24:-4])
    gone = {head + number - 1 for number in hit if number}
    told = read_all(store, may_block=True)
    assert gone <= set(range(head, head + len(spans(data)) - 1))
    kept = {message[0] for message in told.messages}
    if newest or not indexed:
        # Behind the damage a file that was not synced may end, and nothing leads on in one without an index.
        assert set(range(1, min(gone))) <= kept
        assert newest or set(range(head + len(spans(data)) - 1, 41)) <= kept
        return
    assert kept == set(range(1, 41)) - gone
    assert sum(hole.last - hole.first + 1 for hole in told.holes) == len(gone)


@pytest.mark.parametrize("last_segment", [False, True])
def test_a_doubled_block_is_passed_over(last_segment: bool) -> None:
    kit = many_segments(stop=False)
    path = logs(kit.disk)[-1 if last_segment else 1]
    data = kit.disk.contents()[path]
    start, end = spans(data)[3]
    kit.disk.set_contents(path, data[:end] + data[start:end] + data[end:])
    kit.disk.delete(index_of(path))
    store = open_store(kit.disk, next_offset=kit.next)
    tale = read_all(store)
    assert (tale.messages, tale.losses) == (kit.kept, [])
    assert bool(store.report) is last_segment


@pytest.mark.parametrize("last_segment", [False, True])
def test_a_block_that_is_missing_is_a_hole(last_segment: bool) -> None:
    kit = many_segments(stop=False)
    number = 3 if last_segment else 1
    path = logs(kit.disk)[number]
    data = kit.disk.contents()[path]
    (start, _), (_, end) = spans(data)[2:4]
    kit.disk.set_contents(path, data[:start] + data[end:])
    store = open_store(kit.disk, next_offset=kit.next)
    first = 1 + number * 15 + 3
    tale = read_all(store)
    assert [(lo, hi, reason) for lo, hi, reason, _ in tale.losses] == [(first, first + 5, "corrupt")]
    assert tale.messages == [message for message in kit.kept if not first <= message[0] <= first + 5]
    assert bool(store.report) is last_segment


def test_swapped_segments_are_not_served_and_named() -> None:
    kit = many_segments()
    one, two = logs(kit.disk)[1:3]
    contents = kit.disk.contents()
    kit.disk.set_contents(one, contents[two])
    kit.disk.set_contents(two, contents[one])
    store = open_store(kit.disk, next_offset=kit.next)
    assert len(store.report) == 2
    tale = read_all(store)
    assert tale.losses == [(16, 45, "corrupt", dict.fromkeys(TOPICS, 10))]
    assert tale.messages == [message for message in kit.kept if not 16 <= message[0] <= 45]


def test_a_missing_middle_segment_is_a_hole_with_exact_counts() -> None:
    kit = many_segments()
    kit.disk.delete(logs(kit.disk)[1])
    store = open_store(kit.disk, next_offset=kit.next)
    tale = read_all(store, wanted=only(b"a", b"c"))
    assert tale.losses == [(16, 30, "corrupt", {b"a": 5, b"c": 5})]
    assert tale.offsets == [offset for offset, topic, _ in kit.kept if topic != b"b" and not 16 <= offset <= 30]
    # The orphaned index goes.
    assert [path for path in kit.disk.contents() if path.endswith(f"{16:020d}.idx")] == []


@pytest.mark.parametrize("size", [0, 40])
def test_an_unfinished_last_segment_is_taken_back(size: int) -> None:
    kit = many_segments(stop=False)
    data = kit.disk.contents()[logs(kit.disk)[0]]
    kit.disk.set_contents(f"{PATH}/{kit.next:020d}.log", data[:size])
    kit.store = open_store(kit.disk, next_offset=kit.next)
    assert "never finished" in " ".join(kit.store.report)
    kit.commit((b"a", b"goes on"))
    tale = read_all(kit.store)
    assert (tale.messages, tale.losses) == (kit.kept, [])


def test_a_damaged_opening_is_replaced_by_the_copy_in_the_index() -> None:
    for number in range(4):
        kit = many_segments()
        path = logs(kit.disk)[number]
        data = bytearray(kit.disk.contents()[path])
        data[30] ^= 1
        kit.disk.set_contents(path, bytes(data))
        store = open_store(kit.disk, next_offset=kit.next)
        tale = read_all(store)
        assert (tale.messages, tale.losses) == (kit.kept, [])
        assert [line for line in store.report if "the copy in the index is used" in line]
        assert store.count(every, 1, kit.next) == len(kit.kept)
        assert {state.count for state in store.topics.values()} == {20}


@pytest.mark.parametrize("left", [0, 1, 40])
def test_offsets_of_a_segment_that_is_shorter_than_its_opening_are_not_given_again(left: int) -> None:
    """Also after a kill, and however often the start behind it is killed before it has given one."""
    kit = LogKit()
    kit.publish(b"t", b"1", b"2", b"3")
    disk = kit.disk.copy()
    path = f"{kit.settings.data}/logs/main/{1:020d}.log"
    disk.set_contents(path, disk.contents()[path][:left])
    for _ in range(3):
        after = LogKit(kit.settings, disk)
        assert after.log.horizon > 3
        disk = after.disk.copy()
    after.publish(b"t", b"new")
    assert after.answers == [after.log.horizon - 1]
    assert after.crash().messages() == after.messages() == [(after.answers[0], b"t", b"new")]


def test_without_a_copy_a_segment_with_a_damaged_opening_is_one_hole() -> None:
    for number in range(4):
        kit = many_segments()
        path = logs(kit.disk)[number]
        data = bytearray(kit.disk.contents()[path])
        data[30] ^= 1
        kit.disk.set_contents(path, bytes(data))
        kit.disk.delete(index_of(path))
        kit.store = store = open_store(kit.disk, next_offset=kit.next)
        first, last = number * 15 + 1, number * 15 + 15
        tale = read_all(store, horizon=kit.next)
        assert tale.messages == [message for message in kit.kept if not first <= message[0] <= last]
        assert [(lo, reason) for lo, _, reason, _ in tale.losses] == [(first, "corrupt")]
        if number < 3:
            # The next opening has the counts.
            assert tale.losses[0][1:] == (last, "corrupt", dict.fromkeys(TOPICS, 5))
        else:
            assert tale.losses[0][3] is None
        kit.kept = tale.messages
        kit.commit((b"a", b"goes on"))
        assert read_all(kit.store).messages == kit.kept


def test_an_index_is_only_a_hint() -> None:
    kit = many_segments()
    whole = kit.disk.contents()
    for path in [path for path in whole if path.endswith(".idx")]:
        for size in range(0, len(whole[path]), 11):
            for damage in ("cut", "flip"):
                disk = kit.disk.copy()
                data = bytearray(whole[path])
                if damage == "cut":
                    del data[size:]
                else:
                    data[size] ^= 4
                disk.set_contents(path, bytes(data))
                store = open_store(disk, next_offset=kit.next)
                tale = read_all(store, wanted=only(b"b"))
                assert tale.losses == [], (path, size, damage)
                assert tale.messages == [message for message in kit.kept if message[1] == b"b"], (path, size, damage)
                assert store.nth_last(b"c", 12, kit.next) == 27


def test_the_index_of_another_segment_is_not_believed() -> None:
    kit = many_segments()
    paths = logs(kit.disk)
    contents = kit.disk.contents()
    for path, other in zip(paths, [*paths[1:], paths[0]], strict=True):
        kit.disk.set_contents(index_of(path), contents[index_of(other)])
    store = open_store(kit.disk, next_offset=kit.next)
    assert read_all(store, 20, only(b"a")).offsets == list(range(22, 61, 3))


def test_foreign_files_are_left_alone_and_named() -> None:
    kit = many_segments()
    kit.disk.set_contents(f"{PATH}/notes.txt", b"mine")
    kit.disk.set_contents(f"{PATH}/12.log", b"mine too")
    store = open_store(kit.disk, next_offset=kit.next)
    assert len(store.report) == 2
    assert kit.disk.contents()[f"{PATH}/notes.txt"] == b"mine"
    assert read_all(store).messages == kit.kept


def test_a_newer_format_is_refused_and_untouched() -> None:
    kit = many_segments()
    path = logs(kit.disk)[2]
    data = kit.disk.contents()[path]
    opening = parse(data[: peek(data)[1]])
    record = frame_opening(opening)  # type: ignore[arg-type]
    rest = record[12:].replace(b" 2 main", b" 3 main", 1)
    kit.disk.set_contents(path, b"+S %08x %b" % (crc32(rest), rest) + data[len(record) :])
    before = kit.disk.contents()
    with pytest.raises(NewerFormat, match=r"format 3; this busd reads formats 1 to 2"):
        open_store(kit.disk, next_offset=kit.next)
    assert kit.disk.contents() == before


def test_a_payload_full_of_records_is_never_taken_for_the_log() -> None:
    """The damaged length leads into a payload that holds valid records, chained as they would have to be."""
    kit = Kit()
    kit.commit((b"a", b"first"))
    # Valid records that claim to follow the batch that holds them, each synced and in order.
    forged = batch_of([(b"a", b"forged")], 3, 2, 2).record
    kit.commit((b"a", forged * 40))
    kit.commit((b"a", b"after"))
    path = logs(kit.disk)[0]
    data = kit.disk.contents()[path]
    start, _ = spans(data)[2]
    kit.disk.delete(index_of(path))
    for at in range(start + 12, start + 22):
        for digit in b"0123456789":
            if data[at] != digit:
                changed = bytearray(data)
                changed[at] = digit
                disk = kit.disk.copy()
                disk.set_contents(path, bytes(changed))
                store = open_store(disk, next_offset=kit.next)
                tale = read_all(store, horizon=kit.next)
                assert tale.messages == kit.kept[:1], (at, digit)
                assert [hole.first for hole in tale.holes] == [2]


def test_losing_a_disk_while_reading_is_not_the_end() -> None:
    kit = many_segments()
    store = open_store(kit.disk, next_offset=kit.next)
    path = logs(kit.disk)[0]
    kit.disk.unreadable.append((path, 0, 1 << 30))
    tale = read_all(store, may_block=True)
    assert tale.offsets == list(range(16, 61))
    assert [(lo, hi, reason) for lo, hi, reason, _ in tale.losses] == [(1, 15, "corrupt")]
    kit.disk.unreadable.clear()
    with pytest.raises(DiskFailed):
        kit.disk.create(path)
