"""Which store takes a topic, and which settings an existing one gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from busd.words.settings import settings_from
from busd.world.disk import DiskFailed, DiskFull
from busd.world.real_disk import RealDisk
from busd.world.stores import Stores
from tests.support.memory_disk import MemoryDisk

RULES = settings_from(
    {
        "store": [
            {"match": "jobs.urgent.>", "name": "urgent", "keep_last": 1},
            {"match": ["jobs.>", "work.*"], "name": "jobs", "keep_last": 2},
            {"match": "own.>", "name": "log-{topic}", "keep_last": 3},
        ]
    }
)


def stores() -> Stores:
    """Stores on an empty disk, with the rules above."""
    found = Stores(MemoryDisk(), "data/logs", RULES)
    found.load(1, 1, 0)
    return found


def test_the_first_rule_that_matches_takes_a_topic() -> None:
    routes = stores()
    for topic, name in (
        (b"jobs.urgent.x", "urgent"),
        (b"jobs.urgent", "jobs"),
        (b"work.a", "jobs"),
        (b"work.a.b", "main"),
        (b"own.a-b.c", "log-own.a-b.c"),
        (b"else", "main"),
    ):
        assert routes.route(topic) == name
        assert routes.route(topic) == name, "the second answer comes from a cache"


def test_a_topic_too_long_for_a_directory_goes_to_main() -> None:
    rules = settings_from({"store": [{"match": "_dead.>,t.>", "name": "own-{topic}"}]})
    routes = Stores(MemoryDisk(), "data/logs", rules)
    routes.load(1, 1, 0)
    assert routes.route(b"t." + b"x" * 198) == "own-t." + "x" * 198
    assert routes.route(b"_dead." + b"x" * 245) == "own-_dead." + "x" * 245
    assert routes.route(b"_dead." + b"x" * 246) == "main"


def test_a_store_on_disk_gets_the_rule_that_made_it() -> None:
    routes = stores()
    for name, keep_last in (("urgent", 1), ("jobs", 2), ("log-own.x", 3), ("left-over", 0), ("main", 0)):
        assert routes.create(name, 1, 1, 0).rule.keep_last == keep_last


@pytest.mark.parametrize("name", ["{topic}", "a{topic}", "{topic}t"])
def test_a_store_whose_name_looks_like_one_of_a_topic_keeps_its_own_rule(name: str) -> None:
    rules = [
        {"match": "metrics.>", "name": name, "keep_last": 1},
        {"match": "audit.>", "name": "audit", "keep_last": 2},
    ]
    found = Stores(MemoryDisk(), "data/logs", settings_from({"store": rules}))
    found.load(1, 1, 0)
    for store, keep_last in (("audit", 2), (name.replace("{topic}", "metrics.x"), 1), ("other", 0), ("account", 0)):
        assert found.create(store, 1, 1, 0).rule.keep_last == keep_last


def test_what_lies_there_is_opened_also_without_a_rule() -> None:
    disk = MemoryDisk()
    first = Stores(disk, "data/logs", RULES)
    first.load(1, 1, 0)
    first.add(first.create("jobs", 1, 1, 0))
    second = Stores(disk.copy(), "data/logs", settings_from({}))
    second.load(1, 1, 0)
    assert sorted(second.open) == ["jobs", "main"]
    assert second.route(b"jobs.x") == "main"


def test_a_store_that_lost_something_uncounted_may_hold_any_topic_of_its_rule() -> None:
    """A reader must hear of the loss, though nobody knows any more that there was such a topic."""
    first = stores()
    first.add(first.create("jobs", 1, 1, 0))
    first.add(first.create("log-own.x", 1, 1, 0))
    later = Stores(first._disk, "data/logs", RULES)
    later.load(2, 50, 0)

    def holding(*topics: bytes) -> list[str]:
        return [store.name for store in later.holding(lambda topic: topic in topics)]

    assert holding(b"own.x") == ["jobs", "log-own.x", "main"]
    assert holding(b"jobs.a") == ["jobs", "main"]
    assert [store.name for store in first.holding(lambda topic: True)] == []


def test_what_is_no_store_is_left_alone_and_named() -> None:
    disk = MemoryDisk()
    disk.makedirs("data/logs/lost+found")
    disk.makedirs("data/logs/empty")
    disk.set_contents("data/logs/notes", b"mine")
    disk.set_contents("data/logs/backup/photo.jpg", b"mine")
    found = Stores(disk, "data/logs", RULES)
    found.load(1, 1, 0)
    assert sorted(found.open) == ["main"]
    assert [line.split(":")[0] for line in found.report] == [
        f"data/logs/{name}" for name in ("backup", "lost+found", "notes")
    ]
    assert disk.listdir("data/logs/empty") == disk.listdir("data/logs/lost+found") == []
    assert disk.listdir("data/logs/backup") == ["photo.jpg"]


def test_a_link_to_nowhere_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "old").symlink_to(tmp_path / "gone")
    found = Stores(RealDisk(), str(tmp_path), RULES)
    found.load(1, 1, 0)
    assert sorted(found.open) == ["main"]
    assert [line.split(":")[0] for line in found.report] == [f"{tmp_path}/old"]


@pytest.mark.parametrize("kind", ["create", "sync_dir", "append", "sync"])
def test_a_store_that_cannot_be_made_leaves_nothing_behind(kind: str) -> None:
    found = stores()
    disk = found._disk
    assert isinstance(disk, MemoryDisk)
    disk.fail_all = {kind}
    with pytest.raises(DiskFull):
        found.create("jobs", 1, 1, 0)
    disk.fail_all = set()
    assert disk.listdir("data/logs") == ["main"]
    assert found.create("jobs", 1, 1, 0).name == "jobs"
    disk.set_contents("data/logs/urgent", b"a file")
    with pytest.raises(DiskFailed):
        found.create("urgent", 1, 1, 0)
    assert disk.listdir("data/logs") == ["jobs", "main", "urgent"], "what was there is not ours to remove"


def test_a_start_with_more_stores_than_descriptors_says_what_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    found = stores()
    for number in range(10):
        found.add(found.create(f"log-own.{number}", 1, 1, 0))
    monkeypatch.setattr("busd.world.stores.descriptor_limit", lambda: 69)
    again = Stores(found._disk, "data/logs", RULES)
    with pytest.raises(DiskFull, match=r"the 11 stores here take two descriptors each, the server 70 in all.*have 69"):
        again.load(1, 1, 0)
    monkeypatch.setattr("busd.world.stores.descriptor_limit", lambda: 70)
    again.load(1, 1, 0)
    assert len(again.open) == 11
