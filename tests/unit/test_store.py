"""One store: commit, read, roll, look up, trim; against a model that is a plain list."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import pytest

from busd.rules.record import Batch, Hole
from busd.words.settings import StoreRule
from busd.world import store_telling
from busd.world.store import Cursor, TopicState
from busd.world.store_pieces import RECORD_BYTES, Pieces
from tests.support.store_kit import Kit, Message, every, only, open_store, read_all
from tests.support.topic_model import note_plainly

pytestmark = pytest.mark.usefixtures("column_kind")

SMALL = StoreRule(segment_bytes=4096)
TOPICS = [b"a", b"b", b"c.d", b"rare"]


def random_kit(seed: int, rule: StoreRule, commits: int = 120) -> tuple[Kit, random.Random]:
    """Commits of random size, topics, steps, headers; some ends of stream and RESETs; some restarts."""
    rng = random.Random(seed)
    kit = Kit(rule=rule)
    for number in range(commits):
        kit.now_ns += rng.choice([0, 0, 1, 100])
        kit.next += rng.choice([0, 0, 0, 1, 7])
        topics = TOPICS if number % 40 == 0 else TOPICS[:3]
        if rng.random() < 0.7:
            topics = [rng.choice(topics)]
        dice = rng.random()
        if dice < 0.04:
            kit.commit((rng.choice(topics), b""), flags="e")
        elif dice < 0.06:
            kit.commit((rng.choice(topics), b"0"), flags="r")
        else:
            size = rng.choice([0, 3, 60, 400])
            count = rng.choice([1, 1, 2, 5, 20])
            items: list[tuple[bytes, bytes | list[bytes]]] = [
                (rng.choice(topics), b"%d." % n + b"x" * size) for n in range(count)
            ]
            if rng.random() < 0.2:
                items = [(topic, [b"p", b"k", b"v"]) for topic, _ in items]
            kit.commit(*items, step=rng.choice([1, 1, 1, 3]))
        if rng.random() < 0.03:
            if rng.random() < 0.5:
                kit.close()
            kit.reopen()
            assert kit.store.report == []
    return kit, rng


@pytest.mark.parametrize("seed", range(12))
def test_reading_gives_what_was_committed(seed: int) -> None:
    kit, rng = random_kit(seed, SMALL)
    ends = [record.last + 1 for record in records(kit)]
    for _ in range(25):
        kit.disk.cold = rng.random() < 0.3
        topics = rng.sample(TOPICS, rng.randint(0, 3)) or None
        wanted = only(*topics) if topics else every
        start, horizon = sorted((rng.randint(1, kit.next), rng.randint(1, kit.next)))
        # A horizon never cuts a batch: take the end of one.
        horizon = max(end for end in (start, *ends, kit.next) if end <= max(horizon, start))
        tale = read_all(kit.store, start, wanted, horizon=horizon, budget_bytes=rng.choice([1, 200, 3000, 1 << 20]))
        assert tale.losses == []
        assert tale.messages == [m for m in kit.kept if start <= m[0] < horizon and wanted(m[1])]


@pytest.mark.parametrize("seed", range(6))
def test_reading_while_it_grows(seed: int) -> None:
    """A cursor that is at the end goes on from there, over rolls, in either mode."""
    rng = random.Random(seed)
    kit = Kit(rule=SMALL)
    cursors = {topic: Cursor(1) for topic in TOPICS}
    seen: dict[bytes, list[int]] = {topic: [] for topic in TOPICS}
    for _ in range(150):
        for _ in range(rng.randint(0, 30)):
            kit.commit((rng.choice(TOPICS), b"x" * rng.choice([1, 300])))
        for topic, cursor in cursors.items():
            while True:
                chunk = kit.store.read(cursor, only(topic), kit.next, 500, rng.random() < 0.5)
                if chunk is None:
                    continue
                for record in chunk.records:
                    assert isinstance(record, Batch)
                    seen[topic] += record.offsets()
                if chunk.done:
                    break
    for topic in TOPICS:
        assert seen[topic] == [offset for offset, name, _ in kit.kept if name == topic]


@pytest.mark.parametrize("seed", range(8))
def test_lookups_agree_with_the_list(seed: int) -> None:
    kit, rng = random_kit(seed, SMALL)
    store = kit.store
    controls = control_offsets(kit)
    data = [message for message in kit.kept if message[0] not in controls]
    for _ in range(40):
        lo, hi = sorted((rng.randint(1, kit.next), rng.randint(1, kit.next)))
        wanted = only(*rng.sample(TOPICS, 2))
        assert store.count(wanted, lo, hi) == sum(lo <= offset < hi and wanted(topic) for offset, topic, _ in data)
        topic, n = rng.choice(list(store.topics)), rng.choice([1, 2, 5, 40, 10_000])
        floor = store.topics[topic].floor
        of_topic = [offset for offset, name, _ in data if name == topic and floor < offset < hi]
        assert store.nth_last(topic, n, hi) == (of_topic[-n:][0] if of_topic else hi)
    times = batch_times(kit)
    for time_ns in range(990, kit.now_ns + 3, 7):
        expected = min([first for first, at in times if at >= time_ns], default=store.last + 1)
        assert store.offset_at(time_ns) == expected
    assert store.nth_last(b"never", 3, 77) == 77


def control_offsets(kit: Kit) -> set[int]:
    """Offsets of control records."""
    return {offset for record in records(kit) if record.control for offset in record.offsets()}


def batch_times(kit: Kit) -> list[tuple[int, int]]:
    """First offset and time of every batch."""
    return [(record.first, record.time_ns) for record in records(kit)]


def records(kit: Kit) -> list[Batch]:
    """All batches."""
    cursor = Cursor(1)
    found: list[Batch] = []
    while True:
        chunk = kit.store.read(cursor, every, kit.next, 1 << 20, True)
        assert chunk is not None
        found += [record for record in chunk.records if isinstance(record, Batch)]
        if chunk.done:
            return found


@pytest.mark.parametrize("seed", range(8))
def test_states_survive_a_restart(seed: int) -> None:
    kit, _ = random_kit(seed, SMALL)
    expected: dict[bytes, TopicState] = {}
    for record in records(kit):
        note_plainly(expected, record)
    assert kit.store.topics == expected
    kit.reopen()
    assert kit.store.topics == expected
    assert kit.store._index.pairs.numbers is kit.store.topics.numbers, "what was found goes by the numbers of the table"
    kit.close()
    kit.reopen()
    assert kit.store.topics == expected
    assert kit.store.total == sum(state.count for state in expected.values())
    assert (kit.store.synced, kit.store.report) == (kit.store.last, [])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("keep_last", [0, 1, 3])
def test_trimming_loses_nothing_without_a_word(seed: int, keep_last: int) -> None:
    """Every reader gets each message or has it in an exact count, whatever was trimmed, also when it starts within."""
    rule = replace(SMALL, max_bytes=16384, keep_last=keep_last)
    kit, rng = random_kit(seed, rule, 60)
    for _ in range(6):
        for _ in range(20):
            kit.commit(*[(rng.choice(TOPICS[:3]), b"x" * 200) for _ in range(rng.choice([1, 4]))])
        kit.trim()
        for restarted in (False, True):
            if restarted:
                kit.reopen()
                assert kit.store.report == []
            tale = read_all(kit.store, budget_bytes=700)
            check_exact(kit, tale.messages, tale.holes)
            if keep_last:
                check_survivors(kit, tale.messages, keep_last)
            start = rng.randint(1, kit.next)
            late = read_all(kit.store, start, only(b"a"))
            assert late.messages == [m for m in tale.messages if m[0] >= start and m[1] == b"a"]
            gone = [m for m in kit.kept if m[0] >= start and m[1] == b"a" and m not in late.messages]
            covered = {offset for hole in late.holes for offset in range(hole.first, hole.last + 1)}
            unheard = [m for m in gone if m[0] not in covered]
            assert all(m[2] in (b"", b"0") for m in unheard), "only control records go without a word"
    assert kit.store.bytes <= 16384 + 4096 + (8192 if keep_last else 0)
    kit.trim()
    assert kit.store.bytes == sum(map(len, kit.disk.contents().values()))
    assert kit.store.first > 1 or keep_last


def check_exact(kit: Kit, told: list[Message], holes: list[Hole]) -> None:
    """Told and counted together are what was kept, but for what a RESET removed: of that its event may tell alone."""
    gone = [message for message in kit.kept if message not in told]
    counted: dict[bytes, int] = {}
    for hole in holes:
        assert hole.reason in ("trimmed", "settled")
        assert hole.counts is not None
        for topic, count in hole.counts.items():
            counted[topic] = counted.get(topic, 0) + count
    for topic, state in kit.store.topics.items():
        # Control records of the random log are recognised by their payloads.
        data = [m for m in gone if m[1] == topic and m[2] not in (b"", b"0")]
        assert len([m for m in data if m[0] > state.floor]) <= counted.get(topic, 0) <= len(data)
    live = {topic: state.live for topic, state in kit.store.topics.items()}
    floors = {topic: state.floor for topic, state in kit.store.topics.items()}
    readable: dict[bytes, int] = dict.fromkeys(live, 0)
    for offset, topic, item in told:
        if item not in (b"", b"0") and offset > floors[topic]:
            readable[topic] += 1
    assert live == readable


def check_survivors(kit: Kit, told: list[Message], keep_last: int) -> None:
    """The last messages of every topic are there."""
    for topic, state in kit.store.topics.items():
        data = [m for m in kit.kept if m[1] == topic and m[0] > state.floor and m[2] not in (b"", b"0")]
        assert [m for m in data[-keep_last:] if m not in told] == []
        if state.ended:
            assert (state.last, topic, b"") in told


def test_a_reader_that_was_trimmed_away_goes_on_behind_its_hole() -> None:
    kit = Kit(rule=replace(SMALL, max_bytes=16384))
    cursor = Cursor(1)
    for _ in range(80):
        kit.commit((b"a", b"x" * 300), (b"b", b"y"))
        if kit.next < 20:
            assert kit.store.read(cursor, every, kit.next, 1 << 20, True) is not None
    at = cursor.offset
    kit.trim()
    chunk = kit.store.read(cursor, only(b"a"), kit.next, 1, True)
    assert chunk is not None
    hole = chunk.records[0]
    assert isinstance(hole, Hole)
    # It starts in the middle of the log's life, so the count is not known.
    assert (hole.first, hole.last, hole.reason, hole.counts) == (at, kit.store.first - 1, "trimmed", None)
    nothing = read_all(kit.store, at, only(b"other"))
    assert (nothing.messages, nothing.holes) == ([], [])


def test_a_deleted_segment_can_still_be_read_by_who_has_it() -> None:
    kit = Kit(rule=replace(SMALL, max_bytes=16384))
    for _ in range(80):
        kit.commit((b"a", b"x" * 300))
    cursor = Cursor(1)
    first = kit.store.read(cursor, every, kit.next, 900, True)
    assert first is not None
    result = kit.store.trim(kit.store.expired(kit.now_ns))
    # Files are gone, the loop does not know yet.
    second = kit.store.read(cursor, every, kit.next, 900, True)
    assert second is not None
    assert second.records[0].first == first.records[-1].last + 1
    kit.store.trimmed(result)
    third = kit.store.read(cursor, every, kit.next, 900, True)
    assert third is not None
    assert third.records[0].first == second.records[-1].last + 1
    assert isinstance(third.records[0], Hole)


def test_what_has_not_landed_is_not_read() -> None:
    kit = Kit()
    kit.commit((b"a", b"one"))
    batch = kit.frame([(b"a", b"two")])
    kit.store.write(None, [batch.record])
    assert read_all(kit.store, horizon=100).messages == kit.kept
    kit.store.landed([batch], None, None)
    assert read_all(kit.store, horizon=100).offsets == [1, 2]
    assert kit.store.synced == 1
    assert read_all(kit.store, horizon=2).offsets == [1]


def test_a_batch_larger_than_the_budget_is_read_whole() -> None:
    kit = Kit()
    kit.commit((b"a", b"x" * 100_000))
    kit.commit((b"a", b"y"))
    tale = read_all(kit.store, budget_bytes=1)
    assert tale.messages == kit.kept
    assert tale.chunks >= 2


def test_cold_files_are_for_a_thread() -> None:
    kit = Kit()
    kit.commit((b"a", b"x"))
    kit.disk.cold = True
    cursor = Cursor(1)
    assert kit.store.read(cursor, every, kit.next, 100, False) is None
    assert cursor == Cursor(1)
    chunk = kit.store.read(cursor, every, kit.next, 100, True)
    assert chunk is not None
    assert len(chunk.records) == 1


def test_rare_topics_are_read_by_index_without_the_rest() -> None:
    kit = Kit()
    for number in range(400):
        kit.commit((b"rare" if number % 100 == 50 else b"often", b"x" * 1000))
    read = 0
    original = kit.store._active.file
    assert original is not None
    plain = original.read

    def counted(at: int, length: int) -> bytes:
        nonlocal read
        read += length
        return plain(at, length)

    original.read = counted  # type: ignore[method-assign]
    tale = read_all(kit.store, wanted=only(b"rare"), budget_bytes=1 << 16, may_block=True)
    assert len(tale.messages) == 4
    assert read < 10_000


def test_rolls_by_size_time_of_day_and_caps() -> None:
    day = 86_400 * 10**9
    kit = Kit(rule=StoreRule(rotate_at_s=3600), now_ns=10 * day)
    kit.commit((b"a", b"x"))
    kit.now_ns += 3599 * 10**9
    kit.commit((b"a", b"x"))
    assert kit.store.segments == 1
    kit.now_ns += 10**9
    kit.commit((b"a", b"x"))
    assert kit.store.segments == 2
    kit.commit((b"a", b"x"))
    assert kit.store.segments == 2
    by_count = Kit(rule=StoreRule(max_messages=8))
    for _ in range(40):
        by_count.commit((b"a", b"x"))
        by_count.trim()
    assert by_count.store.segments <= 5
    assert by_count.store.topics[b"a"].live <= 8


def test_an_old_active_segment_is_closed_at_the_idle_tick_and_goes() -> None:
    kit = Kit(rule=StoreRule(max_age_ns=1000), now_ns=10**9)
    kit.commit((b"a", b"x"))
    kit.now_ns += 1000
    assert [trim for trim in kit.store.expired(kit.now_ns) if trim.segments] == []
    roll = kit.store.begin(0, kit.next, 1, kit.now_ns)
    assert roll is not None
    kit.store.write(roll, [])
    kit.store.landed([], roll, None)
    kit.now_ns += 1000
    kit.trim()
    assert kit.store.segments == 1
    assert read_all(kit.store).losses == [(1, 1, "trimmed", {b"a": 1})]
    assert kit.store.topics[b"a"].live == 0
    # An empty segment is not closed again and again.
    assert kit.store.begin(0, kit.next, 1, kit.now_ns + 10**12) is None


def test_a_higher_epoch_is_a_hole_that_stays() -> None:
    kit = Kit()
    kit.commit((b"a", b"kept"))
    kit.disk = kit.disk.copy()
    kit.epoch, kit.next = 2, 100
    kit.reopen()
    for _ in range(2):
        assert kit.store.last == 99
        assert read_all(kit.store).losses == [(2, 99, "unsynced", None)]
        assert read_all(kit.store, 50).losses == [(50, 99, "unsynced", None)]
        assert read_all(kit.store, 100).losses == []
        assert kit.store.count(every, 1, 100) == 1
        kit.close()
        kit.reopen()
    kit.next = 100
    kit.commit((b"a", b"goes on"))
    kit.reopen()
    tale = read_all(kit.store, budget_bytes=1 << 20)
    assert tale.messages == kit.kept
    assert tale.losses == [(2, 99, "unsynced", None)]


def test_an_epoch_without_a_loss_is_no_hole() -> None:
    kit = Kit(epoch=1)
    kit.epoch = 2
    kit.reopen()
    kit.commit((b"a", b"one"))
    kit.epoch = 3
    kit.reopen()
    kit.commit((b"a", b"two"))
    # Other stores took the offsets up to 99.
    kit.store = open_store(kit.disk, epoch=3, next_offset=100)
    tale = read_all(kit.store, horizon=100)
    assert (tale.messages, tale.losses) == (kit.kept, [])


def test_trimmed_counts_are_unknown_once_something_was_lost_uncounted() -> None:
    kit = Kit(rule=replace(SMALL, max_bytes=16384))
    kit.commit((b"a", b"kept"))
    kit.epoch, kit.next = 2, 100
    kit.reopen()
    for _ in range(60):
        kit.commit((b"a", b"x" * 500))
    kit.trim()
    assert kit.store.first > 100
    assert read_all(kit.store).losses == [(1, kit.store.first - 1, "trimmed", None)]
    kit.reopen()
    assert read_all(kit.store).losses == [(1, kit.store.first - 1, "trimmed", None)]


def test_index_pages_are_saved_while_it_grows() -> None:
    kit = Kit()
    for _ in range(1030):
        kit.commit((b"a", b"x"), (b"b", b"y"))
    index = next(data for path, data in kit.disk.contents().items() if path.endswith(".idx"))
    assert index.count(b"+I ") == 1
    kit.reopen()
    for _ in range(1030):
        kit.commit((b"c", b"x"))
    kit.close()
    index = next(data for path, data in kit.disk.contents().items() if path.endswith(".idx"))
    assert index.count(b"+I ") >= 3
    kit.reopen()
    assert read_all(kit.store, wanted=only(b"c"), budget_bytes=1 << 16).offsets == list(range(2061, 3091))
    assert read_all(kit.store, budget_bytes=1 << 20).messages == kit.kept


def test_readers_in_threads_beside_a_writer() -> None:
    kit = Kit(rule=replace(SMALL, max_bytes=16384))
    failures: list[BaseException] = []
    stop = threading.Event()

    def reader(topic: bytes) -> None:
        try:
            cursor, last = Cursor(1), 0
            while not stop.is_set():
                chunk = kit.store.read(cursor, only(topic), kit.store.last + 1, 700, True)
                assert chunk is not None
                for record in chunk.records:
                    assert record.first > last, (record, last)
                    assert not isinstance(record, Hole) or record.reason == "trimmed", record
                    last = record.last
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=reader, args=(topic,)) for topic in TOPICS[:3]]
    for thread in threads:
        thread.start()
    rng = random.Random(1)
    for number in range(600):
        kit.commit((rng.choice(TOPICS[:3]), b"x" * rng.choice([1, 200])))
        if number % 50 == 0:
            kit.trim()
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_memory_of_the_index_is_bounded() -> None:
    kit = Kit()
    for _ in range(2000):
        kit.commit((b"a", b"x"))
    index = kit.store._index
    assert index.weight_bytes() <= 52 * 2000 + 1000


def test_the_active_segment_is_never_taken_from_memory() -> None:
    """However many sealed segments are looked at with a cache of two, and also when it is the only one left."""
    kit = Kit(rule=replace(SMALL, max_bytes=16384))
    for _ in range(60):
        kit.commit((b"a", b"x" * 300), (b"b", b"y"))
    for _ in range(3):
        assert kit.store.count(only(b"a"), 2, kit.next) == 59
        assert kit.store.nth_last(b"b", 55, kit.next) == 12
        assert read_all(kit.store, 3).losses == []
        kit.commit((b"c", b"goes on"))
    kit.trim()
    kit.reopen()
    for _ in range(3):
        assert read_all(kit.store, may_block=True).losses[0][0] == 1
        kit.commit((b"a", b"goes on"))


@pytest.mark.parametrize("keep_last", [0, 1])
def test_lookups_between_trim_and_trimmed(keep_last: int) -> None:
    """Names are gone or stand for other files, and the loop does not know yet: what was there is still read."""
    kit = Kit(rule=replace(SMALL, max_bytes=16384, keep_last=keep_last))
    kit.commit((b"rare", b"kept"))
    for _ in range(80):
        kit.commit((b"a", b"x" * 300), (b"b", b"y"))
    kit.reopen()
    result = kit.store.trim(kit.store.expired(kit.now_ns))
    assert result.gone != []
    assert read_all(kit.store).messages == kit.kept
    assert read_all(kit.store).losses == []
    assert kit.store.count(only(b"a"), 1, kit.next) == 80
    assert kit.store.nth_last(b"b", 80, kit.next) == 3
    kit.store.trimmed(result)
    assert [reason for _, _, reason, _ in read_all(kit.store).losses] == ["trimmed"]


def test_what_has_to_go_is_found_where_all_that_is_left_was_written_anew() -> None:
    """The newest file is gone, by hand or with the disk."""
    kit = Kit(rule=replace(SMALL, max_age_ns=5, keep_last=1))
    kit.commit((b"rare", b"kept"))
    for _ in range(20):
        kit.commit((b"a", b"x" * 300))
    kit.roll()
    kit.now_ns += 10
    kit.trim()
    kit.close()
    newest = max(name for name in kit.disk.names if name.endswith(".log"))
    kit.disk.remove(newest)
    store = open_store(kit.disk, kit.rule, now_ns=kit.now_ns)
    assert [segment.rewritten for segment in store._shelf.segments] == [True]
    assert not any(trim.segments for trim in store.expired(kit.now_ns + 10))


def test_an_index_with_much_to_turn_round_is_not_asked_on_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_telling, "TURN_PAIRS", 10)
    kit = Kit()
    for _ in range(20):
        kit.commit((b"a", b"x"), (b"b", b"x"))
    store = kit.store
    cursor = Cursor(1)
    assert store.read(cursor, only(b"b"), kit.next, 100, False) is None
    found = store.read(cursor, only(b"b"), kit.next, 100, True)
    assert found is not None
    assert store._index.waiting_pairs == 0
    assert store.read(cursor, only(b"b"), kit.next, 100, False) is not None


def test_a_step_takes_so_many_small_records_and_reads_no_part_of_one_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs about as much as a large one: 256 KiB of them would hold the loop for 25 ms."""
    kit = Kit()
    for at in range(200):
        kit.commit((b"a", b"%d" % at))
    fetched: list[tuple[int, int]] = []
    fetch = Pieces.fetch

    def noted(step: Pieces, at: int, length: int) -> memoryview:
        fetched.append((at, length))
        return fetch(step, at, length)

    monkeypatch.setattr(Pieces, "fetch", noted)
    for wanted in (every, only(b"a")):
        fetched.clear()
        cursor = Cursor(1)
        sizes = []
        while (chunk := kit.store.read(cursor, wanted, kit.next, 256 << 10, True)) is not None and chunk.records:
            sizes.append(len(chunk.records))
        assert sum(sizes) == 200
        assert max(sizes) <= (256 << 10) // RECORD_BYTES
        assert [at for at, _ in fetched[1:]] == [at + length for at, length in fetched[:-1]]


def test_the_record_that_uses_up_the_budget_needs_no_read_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = Kit()
    for _ in range(12):
        kit.commit((b"a", b"x" * 50_000))
    fetched: list[int] = []
    fetch = Pieces.fetch

    def noted(step: Pieces, at: int, length: int) -> memoryview:
        fetched.append(length)
        return fetch(step, at, length)

    monkeypatch.setattr(Pieces, "fetch", noted)
    cursor = Cursor(1)
    chunks = [kit.store.read(cursor, every, kit.next, budget, False) for budget in (256 << 10, 1, 140_000)]
    assert [None if chunk is None else len(chunk.records) for chunk in chunks] == [6, 1, 3]
    assert len(fetched) == 3
    # Nor does what was read stand in the buffer of the read.
    records = [record for chunk in chunks if chunk is not None for record in chunk.records]
    assert all(isinstance(record, Batch) and record.items() == [b"x" * 50_000] for record in records)
