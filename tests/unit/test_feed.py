"""What a group reads ahead: bounded, in order, without hole or repeat between the log and what is live."""

from __future__ import annotations

import pytest

from busd.broker.feed import AHEAD_BYTES, Entry, Feed, Fetched, entries_of, fetch
from busd.rules.select import Selection, build
from busd.words.patterns import matcher
from tests.support.groups import member, publish, say
from tests.support.memory_server import MemoryServer


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


def offsets(feed: Feed) -> list[int]:
    return [offset for entry in feed.entries if isinstance(entry, Entry) for offset in entry.selection.offsets()]


def whole(*items: bytes | list[bytes]) -> Selection:
    flags = "h" if any(isinstance(item, list) for item in items) else "-"
    batch = build(range(1, len(items) + 1), [b"t"] * len(items), list(items), 0, flags)
    return Selection(batch, 0, batch.n, None, batch.n)


def test_from_the_log_to_what_is_live_without_hole_or_repeat(server: MemoryServer) -> None:
    publish(server, *"abc")
    feed = Feed(server.broker.house, (b"jobs",), 2)
    while feed.position < server.log.horizon:
        feed.fill()
    feed.fill()
    publish(server, "d")
    publish(server, "other", topic="elsewhere")
    publish(server, "e")
    assert offsets(feed) == [2, 3, 4, 6]
    assert feed.position == 7
    feed.close()
    publish(server, "f")
    assert feed.position == 7


def test_it_stops_when_it_has_enough_and_goes_on_where_it_stopped(server: MemoryServer) -> None:
    feed = Feed(server.broker.house, (b"jobs",), 1)
    feed.fill()
    payload = "x" * 10_000
    for _ in range(80):
        publish(server, payload)
    held = offsets(feed)
    assert held == list(range(1, len(held) + 1))
    assert AHEAD_BYTES <= len(held) * 10_000 < AHEAD_BYTES + 20_000
    feed.fill()
    assert offsets(feed) == held, "enough is enough"
    seen: list[int] = []
    for _ in range(100):
        seen += offsets(feed)
        feed.entries.clear()
        feed.taken()
        feed.fill()
    assert seen == list(range(1, 81))


def test_an_answer_that_comes_after_it_was_moved_is_dropped(server: MemoryServer) -> None:
    publish(server, *"abcd")
    feed = Feed(server.broker.house, (b"jobs",), 1)
    ready: list[int] = []
    feed.ready = lambda: ready.append(len(feed.entries))
    server.log.slow_reads = []
    feed.fill()
    feed.fill()
    assert len(server.log.slow_reads) == 1
    feed.rewind(3)
    feed.fill()
    for answer in server.log.slow_reads:
        answer()
    assert offsets(feed) == [3, 4]
    assert ready == [len(feed.entries)]


def test_a_fault_is_told_and_the_next_try_reads_the_same(server: MemoryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, "a")
    feed = Feed(server.broker.house, (b"jobs",), 1)
    told: list[Exception] = []
    feed.failed = told.append

    def fail(*args: object) -> None:
        raise OSError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(server.log, "read", fail)
        feed.fill()
    assert len(told) == 1
    feed.fill()
    assert offsets(feed) == [1]


def test_steered_messages_stand_alone_and_tags_do_not() -> None:
    selection = whole(
        b"1", [b"2", b"tag", b"x"], [b"3", b"key", b"k"], [b"4", b"id", b"i"], [b"5", b"ttl", b"5s"], b"6"
    )
    entries = entries_of(selection, 2)
    assert [list(entry.selection.offsets()) for entry in entries] == [[1, 2], [3], [4], [5], [6]]
    assert [entry.steer is not None for entry in entries] == [False, True, False, True, False]
    assert {entry.tries for entry in entries} == {2}
    assert len(entries_of(whole(b"1", b"2"))) == 1


def test_fetch_says_what_is_there_and_what_is_not(server: MemoryServer) -> None:
    for payload in "abcdefgh":
        publish(server, payload)
    server.log.trim(3)
    found: list[Fetched | Exception] = []
    fetch(server.broker.house, lambda topic: True, [2, 3, 7], found.append)
    (first,) = found
    assert isinstance(first, Fetched)
    assert [list(one.offsets()) for one in first.found] == [[3]]
    assert first.missing == [2]
    assert [(hole.first, hole.last) for hole in first.holes] == [(1, 2)]
    assert first.upto <= 7


def test_fetch_finds_no_message_of_others_in_a_batch_they_share(server: MemoryServer) -> None:
    say(server.connect(), "PUB jobs a", "PUB other b", "PUB jobs c", "PUB other d", "PUB other e")
    for offsets, mine, theirs in (([1, 2, 3, 4], [1, 3], [2, 4]), ([2, 3, 5], [3], [2, 5]), ([2], [], [2])):
        found: list[Fetched | Exception] = []
        fetch(server.broker.house, matcher((b"jobs",)), offsets, found.append)
        (first,) = found
        assert isinstance(first, Fetched)
        assert [offset for one in first.found for offset in one.offsets()] == mine
        assert first.missing == theirs


def test_a_reset_of_all_that_was_read_ahead_makes_room_for_more(server: MemoryServer) -> None:
    big = "x" * 2 * AHEAD_BYTES
    publish(server, "a")
    worker = member(server)
    # All the room is taken by what is read ahead.
    publish(server, big, big)
    assert say(server.connect(), "RESET jobs") == [":3"]
    publish(server, "b")
    assert say(worker, "ACK 1") == [":1", "RESET jobs 4 3", "MSG jobs 5 b"]
