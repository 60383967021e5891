"""Faults 5, 6, 7: every call of a server's life to the disk fails once, and kinds of calls fail for a while.

Whatever fails: an answer is given, what was answered is there after a restart, what was refused is not, and where the
disk is only full the server goes on without a restart.
"""

from __future__ import annotations

import pytest

from busd.world.disk import DiskFailed, DiskFull
from busd.world.reserve import RESERVE_BYTES
from tests.conftest import Cases
from tests.support.life import Life, make_small
from tests.support.log_kit import LogKit
from tests.support.memory_disk import MemoryDisk
from tests.support.power import DEPTH

FULL = DiskFull("f:0: No space left on device")
FAILED = DiskFailed("f:0: Input/output error")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """See make_small."""
    make_small(monkeypatch)


def kept_payloads(life: Life, disk: MemoryDisk) -> set[bytes]:
    """Payloads of the messages that a restart finds."""
    kit = LogKit(life.kit.settings, disk, "boot-1")
    return {payload for _, _, payload in kit.messages()}


@pytest.mark.timeout(3600 if DEPTH > 1 else 120)
@pytest.mark.parametrize("error", [FULL, FAILED], ids=["full", "failed"])
def test_each_call_fails_once(error: Exception, cases: Cases) -> None:
    step = 1 if DEPTH > 1 else 7
    latched = healed = 0
    number = 0
    while True:
        life = Life("always")
        life.disk.failure, life.disk.fail_at, life.disk.short_bytes = error, number, number % 40
        begun = False
        while not begun:
            try:
                life.start()
                begun = True
            except (DiskFull, DiskFailed):
                # It could not start: the next start can.
                assert len(life.disk.calls) > number
                life.disk.release()
        life.live(started=True)
        calls = life.disk.calls
        if number >= len(calls):
            break
        where = f"call {number} ({calls[number]}) failed"
        if life.kit.log.health.failed:
            assert error is FAILED or calls[number].startswith(("sync", "truncate", "sync_dir", "remove")), where
            latched += 1
        elif life.refused:
            healed += 1
        refused = {payload for _, payload in life.refused if payload}
        assert not refused & kept_payloads(life, life.disk.copy()), where
        life.now().check(life.disk.copy(), where)
        if not life.kit.log.health.failed:
            assert [code for code, _ in life.refused if code not in ("FULL", "DISK")] == [], where
        cases.add()
        number += step
    assert cases.count > 30
    assert healed if error is FULL else latched


def test_an_offset_is_not_given_twice_when_the_floor_could_not_be_raised() -> None:
    """The disk was full at the moment at which the floor of meta had to rise; later a power cut takes the tail."""
    life = Life("never")
    life.start()
    life.kit.publish(b"t", b"x")
    while life.kit.log.horizon < 12:
        life.kit.publish(b"t", b"x")
    life.disk.fail_all = {"create"}
    while "FULL" not in life.kit.answers:
        life.kit.publish(b"t", b"x")
    life.disk.fail_all = set()
    for _ in range(60):
        life.kit.publish(b"t", b"x")
    given = max(answer for answer in life.kit.answers if isinstance(answer, int))
    after = LogKit(life.kit.settings, life.disk.crash(99, "lost"), "boot-2")
    after.publish(b"t", b"y")
    (answer,) = after.answers
    assert isinstance(answer, int)
    assert answer > given


@pytest.mark.parametrize("reserve", [True, False])
@pytest.mark.parametrize("clean", [True, False])
def test_full_at_the_start(clean: bool, reserve: bool) -> None:
    """Reading and acknowledging go on, publishing as soon as there is room; no restart is needed for it."""
    life = Life("always")
    life.start()
    life.publish(b"jobs.a", 4)
    if clean:
        life.kit.stop()
    life.disk.release()
    if not reserve:
        life.disk.delete("busd-data/reserve")
    life.disk.room_bytes = 100
    life.start()
    assert [payload for _, _, payload in life.kit.messages()] == list(life.sent)
    if reserve:
        life.acknowledge(life.jobs()[:2])
        assert len(life.settled) == 2
    life.disk.room_bytes = 0
    life.publish(b"jobs.a")
    life.publish(b"b")
    assert [code for code, _ in life.refused] == ["FULL", "FULL"]
    assert dict(life.kit.log.info()["server"])["health"] != "ok"
    life.disk.room_bytes = None
    life.publish(b"jobs.a")
    assert len(life.refused) == 2
    assert dict(life.kit.log.info()["server"])["health"] == "ok"
    life.now().check(life.disk.copy(), "after it was full at the start")
    life.kit.stop()
    again = LogKit(life.kit.settings, life.disk, "boot-2")
    assert again.opened.report == []


def test_full_at_the_stop() -> None:
    life = Life("always")
    life.start()
    life.publish(b"a", 3)
    life.disk.room_bytes = 0
    life.kit.stop()
    life.disk.room_bytes = None
    life.now().check(life.disk, "after a stop on a full disk")


@pytest.mark.timeout(600 if DEPTH > 1 else 60)
def test_a_disk_of_any_size_fills_up_and_heals(cases: Cases) -> None:
    """The life of a server on a disk that has room for so many bytes more, until the stop: then there is room again."""
    for room in range(0, 60_000, 400 if DEPTH > 1 else 4_000):
        life = Life("always")
        life.start()
        life.disk.room_bytes = room
        life.live(started=True, stop=False)
        where = f"room for {room} bytes: {life.refused[:3]}"
        assert {code for code, _ in life.refused} <= {"FULL"}, where
        assert not life.kit.log.health.failed, where
        life.now().check(life.disk.copy(), where)
        life.disk.room_bytes = None
        refused = len(life.refused)
        life.publish(b"jobs.a")
        life.acknowledge(life.jobs()[-1:])
        assert len(life.refused) == refused, where
        life.now().check(life.disk.copy(), where)
        cases.add()


def test_reset_makes_room_on_a_disk_that_is_full_to_the_last_byte() -> None:
    """There is no room for its record, nor for a file: the reserve has a piece for it, dead segments are punched."""
    life = Life("always")
    life.start()
    while not (reserve := life.disk.contents().get("busd-data/reserve")):
        life.tick()
    assert len(reserve) == RESERVE_BYTES
    life.publish(b"jobs.a", 60)
    life.disk.room_bytes = 0
    life.publish(b"jobs.a")
    life.reset(b"jobs.a")
    assert [code for code, _ in life.refused] == ["FULL", "FULL"]
    life.reset(b"jobs.a")
    assert b"jobs.a" in life.resets
    for _ in range(5):
        life.tick()
    assert life.kit.log.stores.open["jobs"].bytes < 12_000
    life.publish(b"jobs.a", 20)
    assert len(life.refused) == 2
