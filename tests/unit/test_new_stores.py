"""Stores that are made with the first message for them: what becomes of it, and of others, where that cannot be."""

from __future__ import annotations

import pytest

from busd.broker.ports import Outcome
from busd.words.requests import Publish
from busd.words.settings import settings_from
from busd.world import descriptors
from busd.world.disk import DiskFull
from tests.support.log_kit import LogKit

OWN = {"store": [{"match": ">", "name": "s-{topic}"}]}
JOBS = {"store": [{"match": "jobs.>", "name": "s-{topic}"}]}


def with_file(**settings: object) -> LogKit:
    """A log where a file lies in the place of the store of jobs.bad."""
    kit = LogKit(settings_from({**JOBS, **settings}))
    kit.disk.set_contents(f"{kit.settings.data}/logs/s-jobs.bad", b"mine")
    return kit


@pytest.mark.parametrize("sync", ["always", "never"])
def test_a_store_that_cannot_be_made_takes_nobody_else_with_it(sync: str) -> None:
    kit = with_file(sync=sync)
    assert kit.publish_all(b"plain", b"jobs.bad", b"plain", b"jobs.good") == [1, "DISK", 2, 3]
    kit.publish(b"jobs.bad", b"alone")
    kit.publish(b"plain", b"after")
    assert kit.answers[4:] == ["DISK", 4], "no offset was dealt to what was refused"
    expected = [(1, b"plain", b"plain"), (2, b"plain", b"plain"), (3, b"jobs.good", b"jobs.good")]
    assert kit.messages() == [*expected, (4, b"plain", b"after")]
    kit.disk.delete(f"{kit.settings.data}/logs/s-jobs.bad")
    kit.publish(b"jobs.bad", b"as the text promised")
    assert kit.answers[-1] == 5
    assert dict(kit.log.info()["server"])["health"] == "ok"
    assert kit.crash().messages() == kit.messages()


def test_each_store_has_an_error_of_its_own_and_the_text_is_true() -> None:
    kit = with_file()
    outcomes: list[Outcome] = []
    runs = [
        Publish([b"plain", b"jobs.bad", b"jobs.new"], [b"", b"", b""], 0),
        Publish(b"jobs.bad", [b"1", b"2"], 2),
        Publish(b"plain", [b"1", b"2"], 2, answers="first"),
    ]
    kit.disk.failure = DiskFull("logs/s-jobs.new: No space left on device")
    # Making it begins with the removal of an index, whose failure is no matter.
    kit.disk.fail_at = len(kit.disk.calls) + 1
    for run in runs:
        kit.log.append(run, outcomes.append)
    kit.runtime.run()
    told = {outcome.count if outcome.errors else 0: outcome for outcome in outcomes}
    assert {at: error.code for at, error in told[3].errors.items()} == {1: "DISK", 2: "FULL"}
    assert (told[3].offsets, told[0].first) == ([1, 0, 0], 2)
    texts = {error.text for error in (*told[2].errors.values(), told[3].errors[1])}
    assert len(texts) == 1
    assert texts.pop().endswith("File exists; nothing was kept, the next message tries to make the store again")
    assert "No space left" in kit.log.health.full
    kit.publish(b"jobs.new", b"x")
    assert (kit.answers, kit.log.health.full) == ([4], "")


def test_what_waits_for_room_is_counted_without_what_was_refused() -> None:
    kit = with_file(main={"max_messages": 3, "full": "reject"})
    for _ in range(5):
        kit.publish_all(b"jobs.bad", b"plain")
    assert kit.answers == ["DISK", 1, "DISK", 2, "DISK", 3, "DISK", 4, "DISK", 5]
    account = kit.log.room._account("main")
    assert account is not None
    assert (account.waiting, account.waiting_bytes, account.bound) == (0, 0, 5)


def test_what_has_one_answer_is_kept_as_a_whole_or_not_at_all() -> None:
    kit = with_file()
    outcomes: list[Outcome] = []
    kit.log.append(Publish([b"plain", b"jobs.bad"], [b"", b""], 0, answers="first"), outcomes.append)
    kit.runtime.run()
    assert [error.code for error in outcomes[0].errors.values()] == ["DISK", "DISK"]
    assert kit.messages() == []


def test_stores_leave_descriptors_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "descriptor_limit", lambda: 64)
    kit = LogKit(settings_from(OWN))
    told: list[Outcome] = []
    topics = [b"t%d" % number for number in range(20)]
    # Main is one of the eight.
    assert kit.publish_all(*topics) == [*range(1, 8), *["LIMIT"] * 13]
    assert kit.publish_all(b"t9", b"t1", b"t8") == ["LIMIT", 8, "LIMIT"]
    kit.log.append(Publish(b"t9", [b""], 0), told.append)
    kit.runtime.run()
    text = told[0].errors[0].text
    assert text.startswith("there are 8 stores and no more can be made: each takes 2 of 64 descriptors")
    assert kit.log.stores.open.keys() == {"main", *(f"s-t{number}" for number in range(7))}
    assert len(kit.disk.listdir(f"{kit.settings.data}/logs")) == 8
    assert dict(kit.log.info()["log"])["topics"] == 7
    assert kit.committer.submitted == 3, "no thread is asked for what cannot be made"
    assert len(kit.crash().log.stores.open) == 8, "the next start has enough"


@pytest.mark.parametrize("limit", [64, 200, 1024, 4096, 65536, 1 << 30])
@pytest.mark.parametrize("connections", [1, 100, 10_000])
def test_descriptors_are_shared_between_stores_and_connections(limit: int, connections: int) -> None:
    most = descriptors.most_stores(limit, connections)
    assert most >= 1
    assert descriptors.needed(most) <= limit
    left = limit - descriptors.RESERVED - most * descriptors.STORE_DESCRIPTORS
    assert left >= min(connections, (limit - descriptors.RESERVED) // 2)


def test_with_too_few_there_is_one_store() -> None:
    assert descriptors.most_stores(20, 100) == 1
