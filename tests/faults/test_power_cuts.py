"""Faults 1 and 2: a power cut before every call to the disk in the life of a whole server, left in every way there is.

The life: messages in three stores, acknowledgements, new segments, retention by cap, by keep_last and by what groups
have settled (deleting, rewriting, punching), RESET, end of stream, snapshots of groups.log, the floor of meta, a clean
stop.  After each cut the promises of protocol.md: what was answered is there or named with its exact count; nothing is
there that nobody sent; no offset is given twice; what was acknowledged stays so; it starts without hands, twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import Cases
from tests.support.life import Life, make_small
from tests.support.log_kit import LogKit
from tests.support.memory_disk import MemoryDisk
from tests.support.power import DEPTH, Enumeration


class Killed(BaseException):
    """kill -9: no code runs behind it."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """See make_small."""
    make_small(monkeypatch)


@contextmanager
def watching(disk: MemoryDisk, seen: Callable[[str], None]) -> Iterator[None]:
    """`seen` before every call to the disk, until it finds something."""
    plain = disk.step
    # Raised behind the story: within it, busd would take it for an error of the disk.
    problems: list[Exception] = []

    def step(kind: str, path: str) -> None:
        if not problems:
            try:
                seen(f"{kind} {path}")
            except Exception as problem:
                problems.append(problem)
        plain(kind, path)

    disk.step = step  # type: ignore[method-assign]
    try:
        yield
    finally:
        disk.step = plain  # type: ignore[method-assign]
        if problems:
            raise problems[0]


@pytest.mark.timeout(7200 if DEPTH > 1 else 120)
@pytest.mark.parametrize("sync", ["always", "interval", "never"])
def test_a_power_cut_before_every_call(sync: str, cases: Cases) -> None:
    life = Life(sync)
    enumeration = Enumeration(250) if sync == "always" else Enumeration(500, 10)

    def seen(call: str) -> None:
        for said, disk in enumeration.cuts(life.disk, life.promises):
            life.now().check(disk, f"before call {len(life.disk.calls)} ({call}): {said}")
            cases.add()

    with watching(life.disk, seen):
        life.live()
    for said, disk in enumeration.cuts(life.disk, life.promises):
        life.now().check(disk, f"at the end: {said}")
        cases.add()
    assert life.refused == []
    kinds = {call.split(" ")[0] for call in life.disk.calls}
    assert kinds >= {"create", "append", "sync", "sync_dir", "rename", "remove", "overwrite", "punch"}
    # Enumerated: a story that shrank would hide what is not tried any more.
    assert cases.count > 100


def killed_at(call: int, sync: str) -> Life | None:
    """A life that kill -9 ended before this call; None when it is over before."""
    life = Life(sync)
    plain = life.disk.step

    def step(kind: str, path: str) -> None:
        if len(life.disk.calls) == call:
            raise Killed
        plain(kind, path)

    life.disk.step = step  # type: ignore[method-assign]
    try:
        life.live()
    except Killed:
        life.disk.step = plain  # type: ignore[method-assign]
        life.disk.release()
        return life
    return None


@pytest.mark.timeout(7200 if DEPTH > 1 else 120)
@pytest.mark.parametrize("sync", ["always", "interval"])
def test_a_power_cut_after_a_kill(sync: str, cases: Cases) -> None:
    """What the killed server wrote is there and not durable: the next one makes it so before it promises anything."""
    step = 1 if DEPTH > 1 else 17
    enumeration = Enumeration(30, 30)
    call = 0
    while (life := killed_at(call, sync)) is not None:
        life.start()
        # What had not been answered may be there; now it is shown, so it must stay.
        life.answered.update({offset: (topic, payload) for offset, topic, payload in life.kit.messages()})
        life.given = max([life.given, *life.answered])
        life.publish(b"a", 2)
        life.publish(b"jobs.a", 2)
        life.acknowledge(life.jobs()[:2])
        life.tick()
        life.publish(b"b")
        for said, disk in enumeration.cuts(life.disk, (call, life.promises)):
            life.now().check(disk, f"killed before call {call} ({life.disk.calls[call]}), then: {said}")
            cases.add()
        call += step
    assert cases.count > 40


def test_a_kill_within_a_stop_and_then_a_power_cut() -> None:
    """The mark of a clean stop is written and not synced when the kill comes: it must not be believed to be."""
    life = Life("interval")
    life.start()
    life.publish(b"a", 3)
    plain = life.disk.step

    def step(kind: str, path: str) -> None:
        if kind == "sync" and path.endswith(".log"):
            raise Killed
        plain(kind, path)

    life.disk.step = step  # type: ignore[method-assign]
    with pytest.raises(Killed):
        life.kit.stop()
    life.disk.step = plain  # type: ignore[method-assign]
    life.disk.release()
    life.sync = "always"
    life.start()
    shown = life.kit.messages()
    assert len(shown) == 3
    after = LogKit(life.kit.settings, life.disk.crash(0, "lost"), "boot-2")
    assert after.messages() == shown
