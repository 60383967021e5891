"""Questions to a log over several stores: how much is left to read from a place on, and the newest time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from busd.words.settings import settings_from
from tests.support.log_kit import LogKit
from tests.support.store_kit import every, only

TWO_STORES = settings_from({"store": [{"match": "jobs.>", "name": "jobs"}]})
TRIMMED = settings_from({"main": {"segment_bytes": "4k", "max_messages": 30, "keep_last": 2}})
TOPICS = (b"a", b"jobs.x", b"jobs.y", b"b")


def count(kit: LogKit, wanted: Callable[[bytes], bool], position: int) -> int | None:
    """The answer, which comes in a later turn."""
    answers: list[int | None] = []
    kit.log.count(wanted, position, answers.append)
    assert answers == []
    kit.runtime.run()
    (answer,) = answers
    return answer


def readable(kit: LogKit, wanted: Callable[[bytes], bool], position: int) -> int:
    """The same by reading everything."""
    floors = kit.log.floors
    found = kit.messages(start=position)
    return sum(offset >= max(position, floors.get(topic, 0)) and wanted(topic) for offset, topic, _ in found)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=25), st.integers(1, 40))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
def test_counts_are_what_a_reader_would_find(steps: list[tuple[int, int]], position: int) -> None:
    kit = LogKit(TWO_STORES)
    for number, what in steps:
        topic = TOPICS[number]
        if what == 0:
            kit.reset(topic)
        elif what == 1:
            kit.publish(topic, b"", kind="eof")
        else:
            kit.committer.hold = what == 2
            kit.publish(topic, *[b"x"] * (what - 1))
    kit.committer.hold = False
    kit.committer.release()
    kit.runtime.run()
    for wanted in (every, only(b"a"), only(b"jobs.x", b"b"), only(b"none")):
        assert count(kit, wanted, position) == readable(kit, wanted, position)
        assert count(kit, wanted, 1) == readable(kit, wanted, 1)


def test_what_retention_took_is_not_counted() -> None:
    kit = LogKit(TRIMMED)
    kit.log.start()
    for number in range(150):
        kit.publish(b"abc"[number % 3 :][:1] if number else b"rare", b"%03d" % number + b"x" * 200)
        kit.runtime.advance(100_000_000)
    assert kit.log.first(every) == 1, "the rare one outlives trimming"
    for again in (kit, kit.crash()):
        for wanted in (every, only(b"rare"), only(b"a", b"b"), only(b"rare", b"c")):
            for position in (1, 2, 50, 120, 140, 151):
                assert count(again, wanted, position) == readable(again, wanted, position)
    assert count(kit, only(b"rare"), 1) == 1


def test_a_place_beyond_the_end_and_a_log_without_messages() -> None:
    kit = LogKit(TWO_STORES)
    assert count(kit, every, 1) == 0
    assert kit.log.newest_ns == 0
    kit.publish(b"a", b"1")
    assert (count(kit, every, 1), count(kit, every, 2), count(kit, every, 99)) == (1, 0, 0)
    assert kit.log.newest_ns == kit.runtime.now_ns()
    assert (kit.log.store_of(b"a"), kit.log.store_of(b"jobs.x")) == ("main", "jobs")


def test_nobody_knows_what_a_damaged_log_holds() -> None:
    kit = LogKit()
    for number in range(6):
        kit.publish(b"t", b"%d" % number)
    disk = kit.disk.copy()
    path = f"{kit.settings.data}/logs/main/{1:020d}.log"
    data = bytearray(disk.contents()[path])
    at = data.index(b"+B")
    data[at + 3 : at + 200] = b"?" * 197
    disk.set_contents(path, bytes(data))
    for name in [name for name in disk.contents() if name.endswith(".idx")]:
        disk.delete(name)
    after = LogKit(kit.settings, disk)
    assert count(after, every, 1) is None
    after.publish(b"t", b"new", b"newer")
    offset = after.answers[0]
    assert isinstance(offset, int)
    assert (count(after, every, offset), count(after, every, 1)) == (2, None)


@pytest.mark.parametrize("sync", ["always", "never"])
def test_INFO_tells_up_to_where_all_is_synced_whatever_stores_are_empty(sync: str) -> None:
    kit = LogKit(settings_from({"sync": sync, "store": [{"match": "a", "name": "a"}, {"match": "b", "name": "b"}]}))

    def synced() -> object:
        return dict(kit.log.info()["log"])["synced"]

    assert synced() == 0
    for topic in (b"a", b"b", b"a"):
        kit.publish(topic, b"x")
    assert synced() == (3 if sync == "always" else 0)
