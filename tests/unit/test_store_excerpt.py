"""One topic among many, read as excerpts: the same messages, the same losses, the same bytes as without them."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busd.rules.items import Item
from busd.words.settings import Limits, Settings, StoreRule
from tests.support.acked_kit import SMALL, AckedKit
from tests.support.log_kit import LogKit
from tests.support.memory_server import MemoryServer
from tests.support.store_kit import Kit, only, open_store, read_all

pytestmark = pytest.mark.usefixtures("column_kind")

TOPIC = b"t.7"
LATE = b"late"


def fill(kit: Kit, rnd: random.Random, batches: int = 12) -> list[int]:
    """Batches of all kinds, most of them plain and of many topics; one topic begins late.  Where they end."""
    ends = []
    for number in range(batches):
        topics = [b"t.%d" % topic for topic in range(rnd.choice([1, 12, 12, 30]))] + [LATE] * (number > batches // 2)
        even = rnd.random() < 0.6
        messages: list[tuple[bytes, Item]] = [
            (rnd.choice(topics), rnd.randbytes(7 if even else rnd.randrange(20))) for _ in range(rnd.randint(1, 80))
        ]
        kind = rnd.random()
        if kind < 0.1:
            messages[0] = messages[0][0], [b"payload", b"key", b"k"]
        if kind > 0.95:
            kit.commit((rnd.choice(topics), b""), flags="e")
        else:
            kit.commit(*messages, step=rnd.choice([1, 1, 1, 1, 2]))
        ends.append(kit.next)
        if rnd.random() < 0.2:
            kit.roll()
    return ends


def same(kit: Kit, rnd: random.Random, ends: list[int], may_block: bool = False) -> int:
    """Both ways tell the same, from several places and in steps of several sizes; how many excerpts there were."""
    excerpts = 0
    for topic in (TOPIC, LATE, b"t.1", b"nobody"):
        for start in (1, rnd.randint(1, kit.next), kit.next):
            # Readers see whole commits.
            horizon = rnd.choice([end for end in ends if end >= start] or [kit.next])
            budget = rnd.choice([1, 300, 5000, 1 << 20])
            tales = [
                read_all(
                    kit.store,
                    start,
                    only(topic),
                    horizon=horizon,
                    budget_bytes=budget,
                    may_block=may_block,
                    topic=asked,
                )
                for asked in (b"", topic)
            ]
            assert tales[0].messages == tales[1].messages
            # A piece may end elsewhere, and a loss that is told in two pieces be told in one.
            assert whole(tales[0].losses) == whole(tales[1].losses)
            assert tales[0].excerpts == 0
            excerpts += tales[1].excerpts
    return excerpts


Loss = tuple[int, int, str, dict[bytes, int] | None]


def whole(losses: list[Loss]) -> list[Loss]:
    """Losses of one kind that touch as one."""
    found: list[Loss] = []
    for loss in losses:
        if found and found[-1][1] + 1 == loss[0] and found[-1][2] == loss[2]:
            first, _, reason, before = found.pop()
            counts = None
            if before is not None and loss[3] is not None:
                counts = {name: before.get(name, 0) + loss[3].get(name, 0) for name in sorted({*before, *loss[3]})}
            loss = (first, loss[1], reason, counts)
        found.append(loss)
    return found


@given(st.integers(0, 1 << 32))
@settings(max_examples=20)
def test_excerpts_tell_the_same(seed: int) -> None:
    rnd = random.Random(seed)
    kit = Kit(rule=StoreRule(segment_bytes=1 << 16))
    ends = fill(kit, rnd)
    same(kit, rnd, ends)
    kit.reopen()
    same(kit, rnd, ends, may_block=True)


def test_excerpts_are_told_at_all() -> None:
    kit = Kit()
    rnd = random.Random(1)
    for _ in range(5):
        kit.commit(*[(b"t.%d" % rnd.randrange(12), b"%07d" % rnd.randrange(9)) for _ in range(200)])
    assert same(kit, rnd, [kit.next]) > 0


@given(st.integers(0, 1 << 32), st.data())
@settings(max_examples=30)
def test_damage_is_told_the_same(seed: int, data: st.DataObject) -> None:
    """Bytes flipped, zeroed, or cut off, anywhere in the log, with its indexes or without."""
    rnd = random.Random(seed)
    kit = Kit(rule=StoreRule(segment_bytes=1 << 16))
    ends = fill(kit, rnd, 8)
    kit.close()
    disk = kit.disk.copy()
    logs = sorted(path for path in disk.names if path.endswith(".log"))
    for _ in range(data.draw(st.integers(1, 3), "wounds")):
        path = data.draw(st.sampled_from(logs), "segment")
        whole_log = disk.contents()[path]
        at = data.draw(st.integers(0, max(0, len(whole_log) - 1)), "at")
        kind = data.draw(st.sampled_from(["flip", "zeros", "cut"]), "kind")
        if kind == "flip":
            wounded = whole_log[:at] + bytes([byte ^ 1 for byte in whole_log[at : at + 1]]) + whole_log[at + 1 :]
        elif kind == "zeros":
            wounded = whole_log[:at] + b"\0" * len(whole_log[at : at + 500]) + whole_log[at + 500 :]
        else:
            wounded = whole_log[:at]
        disk.set_contents(path, wounded)
    if data.draw(st.booleans(), "without indexes"):
        for path in [path for path in disk.names if path.endswith(".idx")]:
            disk.delete(path)
    kit.disk = disk
    kit.store = open_store(disk, kit.rule, next_offset=kit.next)
    same(kit, rnd, ends, may_block=True)


@pytest.mark.parametrize("can_punch", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_what_was_punched_is_told_the_same(seed: int, can_punch: bool) -> None:
    rnd = random.Random(seed)
    kit = AckedKit(rule=SMALL)
    kit.disk.can_punch = can_punch
    kit.group(b"g", b">")
    for _ in range(6):
        ends = fill(kit, rnd, 6)
        kit.give(b"g")
        kit.settle(b"g", [offset for offset, *_ in kit.kept if rnd.random() < 0.97])
        kit.sweep()
        same(kit, rnd, ends)
    assert kit.store.first > 1 or can_punch


COMMANDS = (
    b"SUB %b FROM first UNTIL end",
    b"SUB %b FROM first UNTIL end FORMAT raw",
    b"SUB %b FROM first UNTIL end FORMAT bytes",
    b"SUB %b FROM first UNTIL end FORMAT json",
    b"SUB %b FROM 1234 UNTIL 2345",
    b"SUB %b FROM first LIMIT 77 FORMAT line",
    b"SUB %b LAST 33 UNTIL end",
    b"SUB %b FROM 300 LIMIT 1 FORMAT raw",
)


@pytest.mark.parametrize("stuck", [0, 700, 5000])
@pytest.mark.parametrize("size", [None, 0, 60])
def test_readers_get_the_same_bytes(stuck: int, size: int | None) -> None:
    """Asked for a topic, or for that and one that is not there, which is never an excerpt; also by a slow reader."""
    rnd = random.Random(5)
    kit = LogKit()
    server = MemoryServer(Limits(outbox_bytes=4096), log=cast(Any, kit.log), runtime=kit.runtime)
    publisher = server.connect()
    for number in range(10):
        lines = []
        for _ in range(400):
            payload = bytes(rnd.choices(b"ab \\%", k=rnd.randrange(40) if size is None else size))
            lines.append(b"PUB t.%d %b\n" % (rnd.randrange(20), payload))
        if number == 6:
            lines.append(b"HPUB t.7 key=k :x\n")
        publisher.send(b"".join(lines))
        if number == 3:
            publisher.send(b"RESET t.7\n")
    assert b"-" not in publisher.received()
    for command in COMMANDS:
        told = []
        for patterns in (TOPIC, TOPIC + b",none"):
            reader = server.connect()
            reader.stuck = stuck > 0
            reader.send(command % patterns + b"\n")
            while reader._queued:
                reader.take(stuck)
            told.append(reader.received())
            reader.drop()
        assert told[0] == told[1]
        assert len(told[0]) > 100 or b"LIMIT 1 " in command or size == 0


def test_a_topic_that_lies_in_two_stores_is_told_in_order() -> None:
    """What came before it got a store of its own is in main, among others: records of two stores are no excerpts."""
    rnd = random.Random(3)
    kit = LogKit()
    for round_ in range(2):
        server = MemoryServer(log=cast(Any, kit.log), runtime=kit.runtime)
        publisher = server.connect()
        for _ in range(4):
            publisher.send(b"".join([b"PUB t.%d %d\n" % (rnd.randrange(20), rnd.randrange(99)) for _ in range(300)]))
        if round_ == 0:
            kit.stop()
            kit = LogKit(Settings(stores=(StoreRule(name="own", match=(TOPIC,)),)), kit.disk)
    told = []
    for patterns in (TOPIC, TOPIC + b",none"):
        reader = server.connect()
        reader.send(b"SUB %b FROM first UNTIL end\n" % patterns)
        told.append(reader.received())
    assert told[0] == told[1]
    assert told[0].count(b"MSG ") > 80
