"""What is told of the health: while there is no room that is said all the time, and each change once."""

from __future__ import annotations

from typing import cast

import pytest

from busd.rules.group_records import line_new
from busd.rules.replies import Pairs
from busd.words.settings import Settings, settings_from
from busd.world import health
from busd.world.commit import CommitThread
from busd.world.disk import DiskFull
from busd.world.health import Watch
from tests.support.log_kit import LogKit

S = 10**9
TWO_STORES = settings_from({"store": [{"match": "jobs.>", "name": "jobs"}]})


class Idle:
    """A commit thread that waits for no disk."""

    def waited_ns(self) -> int:
        """See CommitThread."""
        return 0


class Told:
    """Events of health, in place of the journal."""

    def __init__(self, kit: LogKit, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[str] = []
        self.unburied: dict[bytes, str] = {}
        self._watch = Watch(kit.log, cast(CommitThread, Idle()), kit.runtime.monotonic_ns, self.unburied)
        monkeypatch.setattr(health, "events", self)

    def error(self, event: str, **facts: object) -> None:
        """See the journal."""
        self.said.append(event)

    warning = info = error

    def status(self) -> object:
        """What `busd health` is told, after a look around."""
        self._watch.look()
        return self.facts()[0][1]

    def facts(self) -> Pairs:
        """The section health."""
        return self._watch.facts()


def test_a_full_disk_is_told_once_whatever_else_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something small, or for another store, does fit between two refusals: that is no room."""
    kit = LogKit(TWO_STORES)
    told = Told(kit, monkeypatch)
    assert told.status() == "ok"
    step = kit.disk.step

    def full(kind: str, path: str) -> None:
        step(kind, path)
        if kind == "append" and "/main/" in path:
            raise DiskFull(f"{path}:0: No space left on device")

    kit.disk.step = full  # type: ignore[method-assign]
    for _ in range(5):
        kit.publish(b"a", b"x")
        assert told.status() == "failing"
        kit.publish(b"jobs.x", b"y")
        assert told.status() == "failing"
        kit.runtime.advance(2 * S)
    assert told.said == ["full"]
    kit.disk.step = step  # type: ignore[method-assign]
    kit.publish(b"a", b"x")
    kit.runtime.advance(7 * S)
    assert told.status() == "failing"
    kit.runtime.advance(3 * S)
    assert told.status() == "ok"
    assert told.said == ["full", "full is well again"]


def test_a_full_disk_is_told_as_long_as_nothing_fitted_since(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = LogKit()
    told = Told(kit, monkeypatch)
    kit.disk.fail_all = {"append"}
    kit.publish(b"a", b"x")
    kit.runtime.advance(60 * S)
    assert told.status() == "failing"


def test_a_group_a_new_store_and_the_cap_are_told_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    group, store, cap = LogKit(), LogKit(TWO_STORES), LogKit(Settings())
    group.disk.fail_all = {"append"}
    group.log.settle([line_new(b"g", (b">",), 0, 1, 1)], lambda error: None)
    group.runtime.run()
    store.disk.fail_all = {"create"}
    store.publish(b"jobs.x", b"y")
    cap.log.health.cap_bytes = cap.log.health.used_bytes + 100
    cap.publish(b"a", b"x" * 1000)
    for kit in (group, store, cap):
        told = Told(kit, monkeypatch)
        kit.disk.fail_all = set()
        kit.publish(b"a", b"fits")
        assert told.status() == "failing"
        kit.runtime.advance(11 * S)
        assert told.status() == "ok"


def test_dead_letters_that_cannot_be_kept_are_told_until_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(LogKit(), monkeypatch)
    assert told.status() == "ok"
    told.unburied[b"g"] = "LIMIT all 9 topics are there"
    for _ in range(3):
        assert told.status() == "degraded"
    assert dict(told.facts())["dead"] == (
        "dead letters cannot be kept, and are tried again; g: LIMIT all 9 topics are there"
    )
    told.unburied.update({b"h%d" % number: "FULL no room" for number in range(5)})
    text = str(dict(told.facts())["dead"])
    assert text.endswith("all 9 topics are there; h0: FULL no room; h1: FULL no room; 3 groups more")
    told.unburied.clear()
    assert told.status() == "ok"
    assert told.said == ["dead", "dead is well again"]
