"""Reading the ids that a log holds: from where, in steps, whatever the clock says."""

from __future__ import annotations

import pytest

from busd.broker.dedup_load import Load
from busd.broker.ports import Piece
from busd.rules.dedup import Window
from busd.rules.record import Batch
from busd.words.requests import Item, Publish
from busd.words.units import NS_PER_S
from tests.support.fake_log import FakeLog
from tests.support.memory_server import FakeRuntime

SPAN = 600 * NS_PER_S


class Kit:
    """A log that is filled, and a window to be filled from it."""

    def __init__(self, ids: int = 1000) -> None:
        self.runtime = FakeRuntime()
        self.log = FakeLog(self.runtime.now_ns, piece_batches=1)
        self.window = Window(ids, SPAN)
        self.done = 0

    def publish(self, *items: Item, topic: bytes = b"t") -> None:
        """A batch."""
        headers = any(isinstance(item, list) for item in items)
        self.log.append(Publish(topic, list(items), 1, headers=headers), lambda outcome: None)

    def load(self) -> Load:
        """Begin."""
        load = Load(self.log, self.runtime, self.window, SPAN, self._finished)
        load.begin()
        return load

    def _finished(self) -> None:
        self.done += 1

    def find(self, message_id: bytes, topic: bytes = b"t") -> int | None:
        """What the window says now."""
        return self.window.find(topic, message_id, self.runtime.monotonic_ns())


def test_ids_are_read_with_their_age() -> None:
    kit = Kit()
    kit.publish([b"p", b"id", b"old"])
    kit.runtime.advance(SPAN // 2)
    kit.publish(b"x", [b"p", b"id", b"new"])
    kit.load()
    kit.runtime.run()
    assert kit.done == 1
    assert (kit.find(b"old"), kit.find(b"new")) == (1, 3)
    kit.runtime.advance(SPAN // 2)
    assert (kit.find(b"old"), kit.find(b"new")) == (None, 3)


def test_what_is_too_old_is_not_read() -> None:
    kit = Kit()
    kit.publish([b"p", b"id", b"a"])
    kit.runtime.advance(2 * SPAN)
    kit.publish(b"x")
    kit.load()
    kit.runtime.run()
    assert len(kit.window) == 0
    assert kit.done == 1


def test_time_that_the_server_was_down_does_not_count() -> None:
    kit = Kit()
    kit.publish([b"p", b"id", b"a"])
    # Down for a week, or a clock that says so: nobody can tell which.
    kit.runtime.time_ns += 7 * 86_400 * NS_PER_S
    kit.load()
    kit.runtime.run()
    assert kit.find(b"a") == 1


def test_it_takes_one_piece_a_turn() -> None:
    kit = Kit()
    for number in range(3):
        kit.publish([b"p", b"id", b"%d" % number])
    kit.load()
    for expected in (1, 2, 3):
        kit.runtime.turn()
        assert len(kit.window) == expected
    assert kit.done == 1


def test_batches_without_headers_are_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = Kit()
    kit.publish(b"x")
    kit.publish([b"p", b"id", b"a"])
    looked: list[int] = []
    items = Batch.items

    def looking(batch: Batch) -> list[Item]:
        looked.append(batch.first)
        return items(batch)

    monkeypatch.setattr(Batch, "items", looking)
    kit.load()
    kit.runtime.run()
    assert looked == [2]


def test_several_topics_in_one_batch() -> None:
    kit = Kit()
    run = Publish([b"t", b"u", b"t"], [[b"p", b"id", b"a"], [b"p", b"id", b"a"], b"x"], 1, headers=True)
    kit.log.append(run, lambda outcome: None)
    kit.load()
    kit.runtime.run()
    assert (kit.find(b"a"), kit.find(b"a", b"u")) == (1, 2)


def test_what_comes_after_the_start_is_not_its_matter() -> None:
    kit = Kit()
    kit.publish(b"x")
    kit.load()
    kit.publish([b"p", b"id", b"a"])
    kit.runtime.run()
    assert kit.find(b"a") is None
    assert kit.done == 1


def test_a_read_that_fails_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = Kit()
    faults: list[Exception] = []
    monkeypatch.setattr(kit.runtime, "fault", faults.append)
    kit.publish([b"p", b"id", b"a"])

    def fails(cursor: object, wanted: object, budget_bytes: int, done: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(kit.log, "read", fails)
    kit.load()
    kit.runtime.run()
    assert kit.done == 1
    assert [str(fault) for fault in faults] == ["no"]


def test_a_fault_in_a_thread_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = Kit()
    faults: list[Exception] = []
    monkeypatch.setattr(kit.runtime, "fault", faults.append)
    kit.publish([b"p", b"id", b"a"])
    monkeypatch.setattr(kit.log, "offset_at", lambda time_ns, done: done(OSError("no")))
    kit.load()
    assert (kit.done, len(faults)) == (1, 1)


def test_a_stop_ends_it_in_silence() -> None:
    kit = Kit()
    kit.publish([b"p", b"id", b"a"])
    load = kit.load()
    load.stop()
    kit.runtime.run()
    assert (kit.done, len(kit.window)) == (0, 0)


def test_a_piece_that_comes_after_the_stop_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = Kit()
    kit.publish([b"p", b"id", b"a"])
    late: list[object] = []
    monkeypatch.setattr(kit.log, "read", lambda cursor, wanted, budget_bytes, done: late.append(done))
    load = kit.load()
    kit.runtime.run()
    load.stop()
    for done in late:
        done(Piece(list(kit.log.records), kit.log.horizon))  # type: ignore[operator]
    assert kit.done == 0
