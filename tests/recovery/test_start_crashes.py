"""A start after a power cut that is itself ended before any of its calls to the disk, by a kill or by another cut.

The cut before it took messages that had been shown, in several stores.  However often a start is ended before it has
recorded that, the one that is not ended does: every store's readers hear of it, and no offset is given again.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from busd.rules.record import Hole
from busd.words.settings import settings_from
from busd.words.units import NS_PER_S
from tests.conftest import Cases
from tests.support.log_kit import LogKit
from tests.support.memory_disk import MemoryDisk
from tests.support.power_kit import CuttingDisk, PowerCut

SETTINGS = settings_from({"sync": "interval", "store": [{"match": "jobs.>", "name": "{topic}"}]})
# Of each topic an offset that was shown and is lost.
LOST = {b"a": 3, b"jobs.x": 4, b"jobs.y": 5}


def after_the_cut() -> MemoryDisk:
    """The disk as the power cut left it: two stores lost their newest message, one all it had."""
    kit = LogKit(SETTINGS)
    kit.log.start()
    kit.publish(b"jobs.x", b"kept")
    kit.publish(b"a", b"kept")
    kit.runtime.advance(NS_PER_S)
    assert kit.publish_all(*LOST) == list(LOST.values())
    return kit.disk.crash(99, "lost")


def ended(disk: MemoryDisk, call: int, boot: str) -> tuple[CuttingDisk, dict[int, bytes]] | None:
    """A start, and a message, that end before this call; what was answered by then.  None when they are over before."""
    cutting = CuttingDisk()
    for path, data in disk.contents().items():
        cutting.set_contents(path, data)
    cutting.stop_at = call
    answers = {offset: topic for topic, offset in LOST.items()}
    try:
        kit = LogKit(SETTINGS, cutting, boot)
        kit.log.start()
        kit.publish(b"jobs.x", b"new")
        answers |= {answer: b"jobs.x" for answer in kit.answers if isinstance(answer, int)}
        kit.runtime.advance(NS_PER_S)
        kit.publish(b"a", b"new")
    except PowerCut:
        return cutting, answers
    return None


def check(disk: MemoryDisk, boot: str, answers: dict[int, bytes], where: str) -> None:
    """What the next starts tell, and give."""
    for _ in range(2):
        kit = LogKit(SETTINGS, disk, boot)
        kit.log.start()
        for offset, topic in answers.items():
            holes = [(one.first, one.last) for one in kit.read(topic) if isinstance(one, Hole)]
            there = any(number == offset for number, _, _ in kit.messages(topic))
            assert there or any(first <= offset <= last for first, last in holes), (where, offset, topic, holes)
        kit.publish(b"jobs.y", b"newer")
        answer = kit.answers[-1]
        assert isinstance(answer, int), where
        assert answer > max(answers), where
        answers[answer] = b"jobs.y"
        kit.runtime.advance(NS_PER_S)
        disk = kit.disk.copy()


@pytest.mark.parametrize(
    ("boot", "left"),
    [
        ("boot-2", lambda disk: disk.copy()),
        ("boot-3", lambda disk: disk.crash(99, "lost")),
        ("boot-3", lambda disk: disk.crash(0, "lost")),
        ("boot-3", lambda disk: disk.crash(99, "torn")),
    ],
)
def test_a_start_that_is_ended_before_any_call(
    boot: str, left: Callable[[MemoryDisk], MemoryDisk], cases: Cases
) -> None:
    cut = after_the_cut()
    call = 0
    while (found := ended(cut, call, "boot-2")) is not None:
        disk, answers = found
        check(left(disk), boot, answers, f"before call {call} (behind {disk.calls[-1:]})")
        cases.add()
        call += 1
    assert cases.count > 20
