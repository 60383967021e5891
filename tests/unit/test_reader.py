"""Reads that wait for the disk: how many at a time, in what order, and what becomes of those that cannot begin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from busd.broker.ports import Piece
from busd.rules.record import Batch
from tests.support.log_kit import LogKit
from tests.support.memory_server import FakeRuntime

READERS = 100


class Threads(FakeRuntime):
    """Works are done when the test says so.  `refuses`: no thread can be had."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses = False
        self.begun: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []

    def in_thread(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """See Runtime."""
        if self.refuses:
            raise RuntimeError("can't start new thread")
        self.begun.append((work, done))

    def one_comes_back(self) -> None:
        """That which was begun first, and the loop takes it."""
        self.one_is_done()
        self.run()

    def one_is_done(self) -> None:
        """The loop has not come to it."""
        work, done = self.begun.pop(0)
        try:
            result = work()
        except OSError as error:
            result = error
        done(result)


class Kit:
    """A log that lies on a cold disk, a message in each of its batches, and readers that each want another one."""

    def __init__(self) -> None:
        self.threads = Threads()
        self.log = LogKit(runtime=self.threads)
        for number in range(1, READERS + 1):
            self.log.publish(b"t", b"%d" % number)
        self.log.disk.cold = True
        self.got: list[int | str] = []

    def ask(self, offset: int, more: int = 0) -> None:
        """Read the message at this offset, and when it is there so many behind it, one by one."""

        def done(piece: Piece | Exception) -> None:
            if isinstance(piece, Exception):
                self.got.append(str(piece))
                return
            (batch,) = piece.records
            assert isinstance(batch, Batch)
            assert batch.items() == [b"%d" % batch.first]
            self.got.append(batch.first)
            if more:
                self.ask(offset + 1, more - 1)

        self.log.log.read(self.log.log.cursor(offset), lambda topic: True, 1, done)


@pytest.fixture
def kit() -> Kit:
    return Kit()


def test_no_more_is_read_ahead_than_the_loop_takes(kit: Kit) -> None:
    """What a thread has read is held until the loop comes to it."""
    for offset in range(1, READERS + 1):
        kit.ask(offset)
    assert len(kit.threads.begun) == 8
    while kit.threads.begun:
        kit.threads.one_comes_back()
        # The threads have their next one; the last eight, none.
        assert len(kit.threads.begun) == min(8, READERS - len(kit.got))
    assert kit.got == list(range(1, READERS + 1))


def test_what_was_read_is_taken_as_steps_and_counts_until_then(kit: Kit) -> None:
    """All that came in a turn would be a long one."""
    for offset in range(1, 21):
        kit.ask(offset)
    for _ in range(8):
        kit.threads.one_is_done()
    assert (kit.got, kit.threads.begun) == ([], [])
    before = kit.threads.steps
    kit.threads.run()
    assert kit.got == list(range(1, 9))
    assert len(kit.threads.begun) == 8
    assert before == 8


def test_who_asks_while_others_wait_comes_behind_them(kit: Kit) -> None:
    for offset in range(1, 21):
        kit.ask(offset)
    kit.threads.one_comes_back()
    kit.ask(50)
    while kit.threads.begun:
        kit.threads.one_comes_back()
    assert kit.got == [*range(1, 21), 50]


def test_who_reads_on_comes_behind_those_that_wait(kit: Kit) -> None:
    for offset in range(1, READERS, 5):
        kit.ask(offset, more=1)
    while kit.threads.begun:
        kit.threads.one_comes_back()
        assert len(kit.threads.begun) <= 8
    assert kit.got == [*range(1, READERS, 5), *range(2, READERS, 5)]


def test_reads_that_fail_make_room_for_others(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    store = kit.log.log.stores.open["main"]

    def broken(*args: object, may_block: bool) -> None:
        if may_block:
            raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(store, "read", broken)
        for offset in range(1, 21):
            kit.ask(offset)
        while kit.threads.begun:
            kit.threads.one_comes_back()
    assert kit.got == 20 * ["[Errno 5] Input/output error"]
    for offset in range(1, 21):
        kit.ask(offset)
    while kit.threads.begun:
        kit.threads.one_comes_back()
    assert kit.got[20:] == list(range(1, 21))


def test_who_waits_for_a_thread_that_cannot_be_had_is_told(kit: Kit) -> None:
    for offset in range(1, 21):
        kit.ask(offset)
    kit.threads.refuses = True
    kit.threads.one_comes_back()
    assert kit.got == [1, *12 * ["can't start new thread"]]
    kit.threads.refuses = False
    while kit.threads.begun:
        kit.threads.one_comes_back()
    kit.ask(99)
    kit.threads.one_comes_back()
    assert kit.got[13:] == [*range(2, 9), 99]
