"""The files of segments that are read while their names go."""

from __future__ import annotations

import threading

import pytest

from busd.rules.segment_opening import TopicLine
from busd.rules.topic_state import TopicTable
from busd.world.disk import File
from busd.world.store import Trim
from tests.support.store_kit import Kit, read_all


def test_a_reader_that_comes_late_does_not_keep_what_is_gone() -> None:
    """It works on the segments that it took; what it loads of them is its own."""
    kit = Kit()
    for _ in range(4):
        kit.commit((b"a", b"x"))
        kit.roll()
    shelf, segments = kit.store._shelf, kit.store._shelf.segments
    result = kit.store.trim([Trim(segments[:2])])
    kit.store.trimmed(result)
    assert result.gone == list(segments[:2])
    for number, segment in enumerate(segments[:2]):
        segment.index = segment.topics = None
        assert shelf.index(segments, number, True) is not None
        assert shelf.topics(segment, True) is not None
    assert shelf.index(segments, 2, True) is not None
    assert not set(result.gone) & shelf.cache._weights.keys()
    assert segments[2] in shelf.cache._weights


def test_what_goes_may_hold_a_topic_that_nothing_is_known_of() -> None:
    """It stood in an opening that is damaged now."""
    kit = Kit()
    for topic in (b"a", b"b", b"a"):
        kit.commit((topic, b"x"))
        kit.roll()
    kit.store.topics = TopicTable()
    kit.store.topics.load({b"a": TopicLine(2, 3, 0, 0, False)})
    segments = kit.store._shelf.segments
    kit.store.trimmed(kit.store.trim([Trim(segments[:2])]))
    assert kit.store.topics[b"a"].live == 1
    assert [message[:2] for message in read_all(kit.store).messages] == [(3, b"a")]


def test_a_segment_that_is_removed_while_a_reader_opens_it_can_be_read() -> None:
    kit = Kit()
    for _ in range(4):
        kit.commit((b"a", b"x"))
        kit.roll()
    shelf, segment = kit.store._shelf, kit.store._shelf.segments[0]
    segment.file = None
    open_file, trimmers = kit.disk.open, list[threading.Thread]()

    def remove() -> None:
        shelf.pin(segment)
        kit.disk.remove(segment.path)

    def open_slowly(path: str, writable: bool = False) -> File:
        # The trimmer has all the time it wants, between a reader's look at the segment and its opening the file.
        if not trimmers:
            trimmers.append(threading.Thread(target=remove))
            trimmers[0].start()
            trimmers[0].join(0.05)
        return open_file(path, writable)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kit.disk, "open", open_slowly)
        file = shelf.file(segment, True)
    trimmers[0].join()
    assert not kit.disk.exists(segment.path)
    assert file is not None
    assert file is shelf.file(segment, False)
    assert file.read(0, 2) == b"+S"
