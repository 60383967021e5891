"""Topics of which nothing is left are forgotten, and what is said of those that stay or come back is exact."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pytest

from busd.rules.segment_opening import Opening
from busd.words.settings import StoreRule, settings_from
from busd.world.disk import DiskFailed, DiskFull
from busd.world.roll import Memory
from busd.world.store import Store
from tests.support.acked_kit import AckedKit, by_topic
from tests.support.log_kit import LogKit
from tests.support.store_kit import Message, every, only, open_store, read_all

LOW = 1 << 62
CAPPED = StoreRule(segment_bytes=4096, max_bytes=16_384)
ACKED = StoreRule(segment_bytes=4096, retain="acked")


@dataclass
class ForgetfulKit(AckedKit):
    """A store that always thinks that its topics are many, and what it should know: of each topic the offset of its
    last RESET, and of its last record what kind that is."""

    floors: dict[bytes, int] = field(default_factory=dict)
    lasts: dict[bytes, tuple[int, str]] = field(default_factory=dict)
    forgot: int = 0

    def reopen(self) -> Store:
        super().reopen()
        self.store.memory = Memory(lambda: True, lambda: LOW)
        return self.store

    def note(self, topic: bytes, flags: str) -> None:
        """One record of a topic."""
        batch = self.commit((topic, b"" if flags != "-" else b"x" * 200), flags=flags)
        self.lasts[topic] = batch.last, flags
        if flags == "r":
            self.floors[topic] = batch.last

    def pass_by(self, count: int, prefix: bytes = b"t") -> None:
        """So many topics, each with one message, and what does not fit goes."""
        for number in range(count):
            self.note(b"%b%d" % (prefix, number), "-")
        self.trim()

    def sweep_and_roll(self) -> None:
        """As every second."""
        known = len(self.store.topics)
        self.sweep()
        if self.store._must_roll:
            self.roll()
        self.forgot += known - len(self.store.topics)

    @property
    def above(self) -> list[Message]:
        """What was kept above the last RESET, without control records."""
        return [m for m in self.kept if m[2] != b"" and m[0] > self.floors.get(m[1], 0)]

    def check_exact(self, rng: random.Random) -> None:
        """See the module."""
        store = self.store
        tale = read_all(store, budget_bytes=rng.choice([300, 5000]))
        there = {message[0] for message in tale.messages}
        left = [message for message in self.above if message[0] in there]
        states = dict(store.topics)
        assert {topic: state.live for topic, state in states.items() if state.live} == by_topic(left)
        for topic, (last, flags) in self.lasts.items():
            if last >= store.first:
                assert (states[topic].last, states[topic].ended) == (last, flags == "e")
                floor = self.floors.get(topic, 0)
                # Below all that is kept it hides nothing, and may be forgotten with the topic that came back.
                assert states[topic].floor in ({floor} if floor >= store.first else {floor, 0})
            elif topic in states:
                assert (states[topic].last, states[topic].live) == (last, 0)
        for topic in rng.sample([*self.lasts], min(6, len(self.lasts))):
            start = rng.randint(1, self.next)
            wanted = only(topic)
            mine = [message[0] for message in left if message[1] == topic]
            assert store.count(only(topic), start, self.next) == len(
                [m for m in tale.messages if m[1] == topic and m[0] >= start and m[2] != b""]
            )
            n = rng.choice([1, 2, 9])
            assert store.nth_last(topic, n, self.next) == (mine[-n:][0] if mine else self.next)
            self.check_losses(read_all(store, start, wanted).losses, start, topic, there)

    def check_losses(
        self,
        losses: list[tuple[int, int, str, dict[bytes, int] | None]],
        start: int,
        topic: bytes,
        there: set[int],
    ) -> None:
        """What a reader of a topic is told is exact, or that nobody knows."""
        gone = [m for m in self.kept if m[1] == topic and m[0] >= start and m[0] not in there and m[2] != b""]
        if not gone:
            assert all(counts is None for *_, counts in losses)
            return
        counted = [counts for *_, counts in losses]
        if all(m[0] <= self.floors.get(topic, 0) for m in gone):
            # Its event says so.
            return
        assert counted, (start, topic, gone)
        if None not in counted:
            most = len(gone)
            least = len([m for m in gone if m[0] > self.floors.get(topic, 0)])
            assert least <= sum(sum((counts or {}).values()) for counts in counted) <= most


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("rule", [CAPPED, ACKED], ids=["capped", "acked"])
def test_what_stays_and_what_comes_back_is_exact(seed: int, rule: StoreRule) -> None:
    rng = random.Random(seed)
    kit = ForgetfulKit(rule=rule)
    if rule is ACKED:
        kit.group(b"g", b">")
    sizes = []
    for step in range(600):
        low = step // 8
        number = rng.randint(low, low + 5) if rng.random() < 0.93 else rng.randint(0, low)
        flags = rng.choices("-er", [20, 1, 2])[0]
        kit.note(b"t%d" % number, flags)
        if rng.random() < 0.06:
            if rule is ACKED:
                kit.give(b"g")
                kit.settle(b"g", [m[0] for m in kit.kept if rng.random() < 0.97])
            kit.sweep_and_roll()
        if rng.random() < 0.03:
            if rng.random() < 0.5:
                kit.close()
            kit.reopen()
            assert kit.store.report == []
        if step % 20 == 0:
            kit.check_exact(rng)
            sizes.append(len(kit.store.topics))
    assert kit.forgot > 40, "or else this tests nothing"
    assert max(sizes) < 100


def names_in_newest(store: Store) -> set[bytes]:
    """The topics that the newest segment's opening names."""
    return set(store._shelf.topics(store._shelf.segments[-1], True) or {})


def test_the_next_opening_names_only_what_is_left() -> None:
    kit = ForgetfulKit(rule=CAPPED)
    for number in range(200):
        kit.note(b"t%d" % number, "-")
    assert len(kit.store.topics) == 200
    kit.trim()
    faded = kit.store.faded
    assert faded > 100
    kit.roll()
    assert (len(kit.store.topics), kit.store.faded) == (200 - faded, 0)
    assert names_in_newest(kit.store) == set(kit.store.topics)
    assert all(state.last >= kit.store.first for state in kit.store.topics.values())
    kit.reopen()
    assert len(kit.store.topics) == 200 - faded
    kit.trim()
    assert kit.store.faded == 0


def test_one_that_comes_back_is_counted_from_nothing_and_so_it_is_after_a_restart() -> None:
    kit = ForgetfulKit(rule=CAPPED)
    for _ in range(9):
        kit.note(b"back", "-")
    kit.pass_by(100)
    kit.roll()
    assert b"back" not in kit.store.topics
    for _ in range(2):
        kit.note(b"back", "-")
    for _ in range(2):
        assert (kit.store.topics[b"back"].count, kit.store.topics[b"back"].live) == (2, 2)
        assert kit.store.nth_last(b"back", 5, kit.next) == kit.next - 2
        kit.close()
        kit.reopen()


def test_a_reset_in_another_store_before_it_came_back_removes_nothing_of_it() -> None:
    kit = ForgetfulKit(rule=CAPPED)
    for _ in range(9):
        kit.note(b"back", "-")
    kit.pass_by(100)
    assert b"back" in (kit.store._shelf.topics(kit.store._shelf.segments[0], True) or {})
    kit.roll()
    kit.note(b"back", "-")
    kit.store.reset({b"back": kit.store.first + 1})
    state = kit.store.topics[b"back"]
    assert (state.live, state.dead, state.floor) == (1, 0, kit.store.first + 1)


def test_who_starts_before_is_told_that_nobody_knows_and_who_starts_behind_how_many() -> None:
    kit = ForgetfulKit(rule=CAPPED)
    kit.note(b"stays", "-")
    for number in range(100):
        kit.note(b"t%d" % number, "-")
        if number % 10 == 0:
            kit.note(b"stays", "-")
    kit.trim()
    kit.roll()
    kit.note(b"stays", "-")
    for number in range(80):
        kit.note(b"u%d" % number, "-")
        if number % 10 == 0:
            kit.note(b"stays", "-")
    kit.trim()
    (first, *_) = read_all(kit.store, 1, only(b"stays")).losses
    assert first == (1, kit.store.first - 1, "trimmed", None)
    head = kit.store._shelf.segments[0].head
    assert 1 < head.sure <= kit.store.first
    assert read_all(kit.store, kit.store.first, every).losses == []


def test_an_end_of_stream_and_a_reset_stay_as_long_as_their_records() -> None:
    kit = ForgetfulKit(rule=CAPPED)
    kit.note(b"ended", "e")
    kit.note(b"reset", "-")
    kit.note(b"reset", "r")
    kit.pass_by(30)
    kit.roll()
    assert kit.store.topics[b"ended"].ended
    assert kit.store.topics[b"reset"].floor == 3
    kit.pass_by(100, b"u")
    kit.roll()
    assert {b"ended", b"reset"}.isdisjoint(kit.store.topics)


def test_a_reset_stays_while_another_store_has_what_it_removed() -> None:
    kit = ForgetfulKit(rule=CAPPED)
    kit.store.memory = Memory(lambda: True, lambda: 3)
    kit.note(b"gone", "-")
    kit.note(b"gone", "r")
    kit.note(b"hidden", "-")
    kit.note(b"hidden", "r")
    kit.pass_by(100)
    kit.roll()
    assert kit.store.first > 4
    assert b"gone" not in kit.store.topics
    assert kit.store.topics[b"hidden"].floor == 4, "elsewhere offset 3 is kept"
    assert kit.store.topics.reset == 4


def faded_kit() -> ForgetfulKit:
    """A store whose next segment will forget most of its 100 topics."""
    kit = ForgetfulKit(rule=CAPPED)
    kit.pass_by(100)
    return kit


# Of a change of segments: sync, page, create, sync of the directory, append, sync, index.
CALLS = range(9)


@pytest.mark.parametrize("call", CALLS)
def test_what_fails_forgets_nothing(call: int) -> None:
    kit = faded_kit()
    known = dict(kit.store.topics)
    kit.disk.fail_at = len(kit.disk.calls) + call
    roll = kit.store.begin(1 << 40, kit.next, 1, kit.now_ns)
    assert roll is not None
    try:
        kit.store.write(roll, [])
    except DiskFull:
        kit.disk.fail_at = -1
        assert dict(kit.store.topics) == known
        kit.roll()
    except DiskFailed:
        # A sync: nothing is written any more before a restart.
        kit.disk.fail_at = -1
        assert dict(kit.store.topics) == known
        kit.reopen()
        kit.trim()
        kit.roll()
    else:
        kit.store.landed([], roll, None)
    assert len(kit.store.topics) < len(known)
    kit.check_exact(random.Random(1))


def test_a_power_cut_at_any_call_forgets_all_or_nothing() -> None:
    seen = set()
    for call in CALLS:
        kit = faded_kit()
        kit.disk.fail_all = set()
        kit.disk.fail_at = len(kit.disk.calls) + call
        roll = kit.store.begin(1 << 40, kit.next, 1, kit.now_ns)
        with suppress(DiskFull, DiskFailed):
            kit.store.write(roll, [])
        for name, disk in kit.disk.crashes():
            crashed = open_store(disk, CAPPED, next_offset=kit.next, epoch=2)
            told = read_all(crashed)
            assert told.offsets == [m[0] for m in kit.kept if m[0] >= crashed.first], (call, name)
            live = {topic: state.live for topic, state in crashed.topics.items() if state.live}
            assert live == by_topic(told.messages)
            seen.add(len(crashed.topics))
    assert seen == {100, 100 - kit.store.faded}


def test_few_topics_are_not_forgotten() -> None:
    kit = ForgetfulKit(rule=CAPPED)
    kit.store.memory = Memory(lambda: False, lambda: LOW)
    kit.pass_by(100)
    kit.roll()
    assert len(kit.store.topics) == 100
    # Nor are those that are less than an eighth of all.
    kit = ForgetfulKit(rule=replace(CAPPED, max_bytes=65_536))
    while not (faded := kit.store.topics.faded(kit.store.first, lambda: LOW)):
        kit.note(b"t%d" % kit.next, "-")
        kit.trim()
    known = len(kit.store.topics)
    assert (kit.store.faded, faded < known / 8) == (0, True)
    kit.roll()
    assert len(kit.store.topics) == known


def test_a_start_reads_what_was_written() -> None:
    kit = ForgetfulKit(rule=CAPPED)
    kit.pass_by(100)
    kit.roll()
    head: Opening = kit.store._shelf.segments[-1].head
    store = open_store(kit.disk, CAPPED, next_offset=kit.next)
    assert store._shelf.segments[-1].head.sure == head.sure > 1
    assert store.blind


LIMIT = {"limits": {"topics": 40}, "main": {"segment_bytes": "64k", "max_bytes": "128k"}}


def seconds(kit: LogKit, count: int) -> None:
    """Let so many of them pass, with what upkeep does in them."""
    for _ in range(count):
        kit.runtime.advance(1_000_000_000)
        kit.settle()


def test_new_topics_find_room_for_ever() -> None:
    kit = LogKit(settings_from(LIMIT))
    kit.log.start()
    for number in range(600):
        kit.publish(b"reply.%d" % number, b"x" * 10_000)
        seconds(kit, 1)
    assert kit.answers == [*range(1, 601)]
    assert kit.log.stores.names <= 40
    kit = kit.crash()
    assert kit.log.stores.names <= 40


def test_at_the_limit_with_nothing_left_a_new_one_is_let_in() -> None:
    """By age everything goes, and no message of a known topic comes that would begin a segment."""
    settings = settings_from({"limits": {"topics": 40}, "main": {"max_age": "10s"}})
    kit = LogKit(settings)
    kit.log.start()
    for number in range(41):
        kit.publish(b"a.%d" % number, b"x")
    assert kit.answers == [*range(1, 41), "LIMIT"]
    seconds(kit, 60)
    assert kit.log.stores.open["main"].first == 41
    for number in range(200):
        kit.publish(b"b.%d" % number, b"x")
        seconds(kit, 1)
    assert kit.answers[41:] == [*range(41, 241)]


def test_a_topic_limit_is_one_still() -> None:
    kit = LogKit(settings_from(LIMIT))
    kit.log.start()
    for number in range(60):
        kit.publish(b"t.%d" % number, b"x")
        seconds(kit, 1)
    assert kit.answers == [*range(1, 41), *["LIMIT"] * 20]


def test_floors_of_forgotten_topics_are_forgotten_too() -> None:
    kit = LogKit(settings_from({"limits": {"topics": 40}, "main": {"max_age": "10s"}}))
    kit.log.start()
    for number in range(300):
        kit.publish(b"t.%d" % number, b"x")
        kit.reset(b"t.%d" % number)
        seconds(kit, 1)
    assert kit.answers == [*range(1, 600, 2)]
    assert len(kit.log.floors) < 80
