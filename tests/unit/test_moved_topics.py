"""Topics that lie in several stores, because a rule for them came or went: to who asks they are one topic."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from busd.rules.record import Hole
from busd.words.requests import Publish
from busd.words.settings import Settings, settings_from
from tests.support.log_kit import LogKit
from tests.support.store_kit import every, only

JOBS = {"store": [{"match": "jobs.>", "name": "jobs"}]}
TOPICS = (b"jobs.x", b"jobs.y", b"a")


def restarted(kit: LogKit, settings: Settings) -> LogKit:
    """The same log after a clean stop and with other rules."""
    kit.stop()
    return LogKit(settings, kit.disk)


def moved(**main: object) -> LogKit:
    """Five messages of jobs.x are in main, from where a rule has moved it."""
    kit = LogKit(settings_from({"main": main}))
    kit.publish(b"jobs.x", b"1", b"2", b"3", b"4", b"5")
    return restarted(kit, settings_from({"main": main, **JOBS}))


def last(kit: LogKit, wanted: Callable[[bytes], bool], count: int) -> dict[bytes, int]:
    """Where the last n of each topic begin."""
    answers: list[dict[bytes, int]] = []
    kit.log.last_floors(wanted, count, answers.append)
    kit.runtime.run()
    (answer,) = answers
    return answer


def live(kit: LogKit, topic: bytes) -> int:
    """How many messages of a topic there are, as everybody says who is asked."""
    found = kit.log.topic(topic)
    rows = {row[0]: row[1] for rows in kit.log.topics(every) for row in rows}
    assert (found.live if found is not None else 0) == rows.get(topic, 0)
    return rows.get(topic, 0)


def test_the_last_ones_are_those_of_all_stores() -> None:
    kit = moved()
    kit.publish(b"jobs.x", b"", kind="eof")
    assert last(kit, every, 3) == {b"jobs.x": 3}
    kit.publish(b"jobs.x", b"7")
    assert [last(kit, every, n)[b"jobs.x"] for n in (1, 2, 3, 6, 9)] == [7, 5, 4, 1, 1]


@pytest.mark.parametrize("again", [lambda kit: kit, LogKit.crash, lambda kit: restarted(kit, kit.settings)])
def test_a_reset_is_one_in_every_store(again: Callable[[LogKit], LogKit]) -> None:
    kit = moved()
    kit.publish(b"jobs.x", b"6")
    assert [outcome.removed for outcome in kit.reset(b"jobs.x")] == [6]
    kit = again(kit)
    assert live(kit, b"jobs.x") == 0
    assert sum(store.topics.live for store in kit.log.stores.open.values()) == 0
    assert last(kit, every, 3) == {b"jobs.x": kit.log.horizon}
    assert [outcome.removed for outcome in kit.reset(b"jobs.x")] == [0]


def test_what_a_reset_removes_elsewhere_gives_its_room_back() -> None:
    kit = moved(max_messages=5, full="reject")
    run = Publish(b"other", [b"x"] * 6, 6)
    assert kit.log.admits(run, 0) == 0
    kit.reset(b"jobs.x")
    assert kit.log.admits(run, 0) == 5


def test_what_a_reset_removes_elsewhere_gives_its_space_back_and_is_no_loss() -> None:
    main = {"segment_bytes": "64k"}
    kit = LogKit(settings_from({"main": main}))
    for _ in range(40):
        kit.publish(b"jobs.x", b"x" * 10_000)
    kit = restarted(kit, settings_from({"main": main, **JOBS}))
    kit.log.start()
    before = kit.log.stores.open["main"].bytes
    kit.reset(b"jobs.x")
    kit.runtime.advance(2_000_000_000)
    kit.settle()
    assert kit.log.stores.open["main"].bytes < before // 2
    for one in (kit, kit.crash()):
        assert [record for record in one.read(b"jobs.x") if isinstance(record, Hole)] == []


STEPS = st.tuples(st.sampled_from(["put", "put", "put", "eof", "reset", "rules", "kill", "roll"]), st.integers(0, 2))


@given(st.lists(STEPS, max_size=25), st.integers(1, 4), st.booleans())
@hypothesis_settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=150)
def test_rules_that_come_and_go_change_nothing_for_who_reads(
    steps: list[tuple[str, int]], count: int, trimming: bool
) -> None:
    main = {"segment_bytes": "4k", "max_messages": 12, "keep_last": 2} if trimming else {"segment_bytes": "4k"}
    rules = [settings_from({"main": main}), settings_from({"main": main, **JOBS})]
    kit = LogKit(rules[0])
    kit.log.start()
    kept: dict[bytes, list[int]] = {}
    for what, number in steps:
        topic = TOPICS[number]
        if what == "put":
            kit.publish(topic, *[b"x" * 500] * (number + 1))
            offsets = [answer for answer in kit.answers[-number - 1 :] if isinstance(answer, int)]
            kept.setdefault(topic, []).extend(offsets)
        elif what == "eof":
            kit.publish(topic, b"", kind="eof")
        elif what == "reset":
            before = live(kit, topic)
            assert [outcome.removed for outcome in kit.reset(topic)] == [before]
            kept[topic] = []
        elif what == "roll":
            kit.runtime.advance(2_000_000_000)
            kit.settle()
        else:
            settings = rules[number % 2] if what == "rules" else kit.settings
            kit = restarted(kit, settings) if what == "rules" else kit.crash()
            kit.log.start()
        floors = kit.log.floors
        found = [(offset, name) for offset, name, _ in kit.messages() if offset > floors.get(name, 0)]
        for name in TOPICS:
            here = [offset for offset, one in found if one == name]
            assert live(kit, name) == len(here)
            assert set(here) <= set(kept.get(name, []))
            assert trimming or here == kept.get(name, [])
            if name in last(kit, every, count):
                expected = here[-count:][0] if here else kit.log.horizon
                assert last(kit, only(name), count) == {name: expected}
