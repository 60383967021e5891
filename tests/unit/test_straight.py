"""The usual commit, straight: what it does is what the general way does, and of what is not usual it keeps away."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from busd.rules.group_records import line_new
from busd.rules.topic_state import TopicTable
from busd.words.requests import Publish
from busd.words.settings import Settings, settings_from
from busd.world.disk import DiskFailed, DiskFull
from busd.world.straight import Straight
from tests.support.log_kit import LogKit

JOBS = {"store": [{"match": "jobs.>", "name": "jobs"}]}
UNSYNCED = settings_from({"sync": "never"})
KINDS = {
    "never": UNSYNCED,
    "interval": settings_from({"sync": "interval"}),
    "short segments": settings_from({"sync": "interval", "main": {"segment_bytes": "4k"}}),
    "few topics": settings_from({"sync": "never", "limits": {"topics": 2}}),
    "two stores": settings_from({"sync": "never", **JOBS}),
    "a cap": settings_from({"sync": "never", "limits": {"total_bytes": "20k"}}),
}
TOPICS = [b"a", b"b", b"jobs.x", b"c"]


def some_run(chance: random.Random) -> Publish:
    """A run as it may come: mostly a single message."""
    topic = chance.choice(TOPICS)
    kind = chance.choice(["one"] * 6 + ["large", "several", "mixed", "headed", "first", "eof", "reset"])
    payload = b"%d" % chance.getrandbits(40)
    if kind == "several":
        return Publish(topic, [payload] * 3, 3 * len(payload))
    if kind == "mixed":
        return Publish([topic, b"a"], [payload, b"1"], len(payload) + 1)
    if kind == "headed":
        return Publish(topic, [[payload, b"k", b"v"]], len(payload) + 2, headers=True)
    if kind == "first":
        return Publish(topic, [payload, b""], len(payload), answers="first")
    if kind == "eof":
        return Publish(topic, [b""], 0, kind="eof")
    if kind == "reset":
        return Publish([topic], [b""], 0, kind="reset", answers="first")
    if kind == "large":
        payload *= chance.choice([200, 9000])
    return Publish(topic, [payload], len(payload))


class Both:
    """Two logs with the same story: one of them never goes straight."""

    def __init__(self, settings: Settings) -> None:
        self.kits = LogKit(settings), LogKit(settings)
        self.kits[1].log._straight._on = False

    def publish(self, runs: list[Publish]) -> None:
        """In one turn, to each."""
        for kit in self.kits:
            for run in runs:
                copy = Publish(run.topics, list(run.items), run.size_bytes, run.headers, kind=run.kind)
                copy.answers = run.answers
                try:
                    kit.log.append(copy, kit._decided)
                except Exception as error:
                    kit.answers.append(str(error))
            kit.runtime.run()

    def told(self) -> list[Any]:
        """All that can be seen of each: answers, what was shown, what is known, what lies on the disk."""
        return [
            (
                kit.answers, kit.seen, kit.log.horizon, kit.log.idle, kit.log.kept, kit.log.floors, kit.log.info(),
                [*kit.log.topics(lambda topic: True)], kit.log.stores.version, kit.log._waiting.pending_bytes,
                kit.log._waiting.pending_names, kit.committer.submitted, kit.runtime.timers, kit.disk.calls,
                kit.disk.contents(),
            )
            for kit in self.kits
        ]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_what_it_does_is_what_the_general_way_does(kind: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    both = Both(KINDS[kind])
    genuine, straight = Straight.commit, []

    def counted(self: Straight, *of: Any) -> Any:
        work = genuine(self, *of)
        straight.append(work is not None)
        return work

    monkeypatch.setattr(Straight, "commit", counted)
    for step in range(60):
        if step > 20 and not chance.randrange(6):
            # What fails is written no more, so that comes late.
            failure = (DiskFailed if step > 50 else DiskFull)("f:0: trouble")
            short_bytes, ahead = chance.choice([0, 7]), chance.randrange(3)
            for kit in both.kits:
                kit.disk.failure, kit.disk.short_bytes = failure, short_bytes
                kit.disk.fail_at = len(kit.disk.calls) + ahead
        both.publish([some_run(chance) for _ in range(chance.choice([1, 1, 1, 2, 3]))])
        for kit in both.kits:
            kit.runtime.advance(1_000_000)
        one, other = both.told()
        assert one == other
    # Where topics are few their names are looked up soon.
    assert sum(straight) >= (0 if kind == "few topics" else 8)
    one, other = both.kits
    assert one.crash().messages() == other.crash().messages() == one.messages()


@pytest.mark.parametrize("payload", [b"x", b"x" * 60_000])
def test_what_cannot_be_taken_in_is_answered_as_ever(payload: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    both = Both(UNSYNCED)
    both.publish([Publish(b"a", [b"before"], 6)])
    for kit in both.kits:
        monkeypatch.setattr(kit.runtime, "fault", lambda error: None)
    with monkeypatch.context() as broken:
        broken.setattr(TopicTable, "note", lambda self, batch: 1 // 0)
        both.publish([Publish(b"a", [payload], len(payload))])
    both.publish([Publish(b"a", [b"after"], 5)])
    one, other = both.told()
    assert one == other
    assert both.kits[0].answers[:2] == [1, "DISK"]


def publish(kit: LogKit) -> None:
    """One message."""
    kit.publish(b"a", b"x")


def slow(kit: LogKit) -> None:
    """A write has just kept the loop waiting."""
    kit.log._pace.took(10**9)


def settle(kit: LogKit) -> None:
    """A group is being made."""
    kit.log.settle([line_new(b"g", (b">",), 0, 1, 7)], lambda error: None)


def too_many(kit: LogKit) -> None:
    """Topics beyond the limit are refused: from now on names are looked up."""
    kit.publish_all(b"a", b"b")


def no_room(kit: LogKit) -> None:
    """A store could not be made for the last commit."""
    kit.log._new_stores.full = "no room"


ONE_TOPIC = settings_from({"sync": "never", "limits": {"topics": 1}})
CAPPED = settings_from({"sync": "never", "main": {"max_messages": 5, "full": "reject"}})
USUAL = [(UNSYNCED, publish, True), (settings_from({"sync": "always"}), publish, False)]
UNUSUAL = [(CAPPED, publish), (UNSYNCED, slow), (UNSYNCED, settle), (ONE_TOPIC, too_many), (UNSYNCED, no_room)]


@pytest.mark.parametrize(("settings", "before", "usual"), [*USUAL, *((*case, False) for case in UNUSUAL)])
def test_of_what_is_not_usual_it_keeps_away(
    settings: Settings, before: Callable[[LogKit], None], usual: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = LogKit(settings)
    before(kit)
    known = len(kit.answers)
    general: list[object] = []
    genuine = kit.log._decided

    def noted(*of: Any, **more: Any) -> None:
        general.append(of)
        genuine(*of, **more)

    monkeypatch.setattr(kit.log, "_decided", noted)
    publish(kit)
    assert len(kit.answers) == known + 1
    assert usual is not bool(general)
