"""busd_client.pages: a READ over several answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from busd_client import wire
from busd_client.events import BusdError, EndOfStream, Gap, Message, ReadResult, Reset
from busd_client.pages import Pages, last_of_each

from busd.words.commands import build_request
from busd.words.requests import Read
from busd.words.settings import Limits
from busd.words.units import Base, Position

SECOND = 1_000_000_000


def answer(offsets: Sequence[int], reason: str, following: int, topic: bytes = b"t") -> list[list[object]]:
    messages: list[list[object]] = [[b"MSG", topic, offset, 7, b"%d" % offset] for offset in offsets]
    return [*messages, [b"END", reason.encode(), following]]


def next_read(pages: Pages) -> Read:
    assert pages.command is not None
    (words,) = wire.Replies().feed(pages.command)
    made = build_request(words[0], words[1:], Limits())
    assert isinstance(made, Read)
    return made


def offsets(result: ReadResult) -> list[int]:
    return [message.offset for message in result]


def test_a_read_of_one_answer() -> None:
    pages = Pages("t", 1)
    page = pages.page(answer([1, 2], "end", 3))
    assert (offsets(page), page.next, page.reason, pages.command) == ([1, 2], 3, "end", None)


def test_a_read_goes_on_where_an_answer_was_full_but_no_further_than_its_end() -> None:
    pages = Pages("t", 1)
    whole = [pages.page(answer([1, 2], "limit", 3))]
    assert pages.needs_end
    pages.end_at({b"server": b"busd", b"next": 5})
    assert not pages.needs_end
    assert next_read(pages).start == Position(Base.OFFSET, 3)
    whole.append(pages.page(answer([3], "limit", 4)))
    assert not pages.needs_end
    whole.append(pages.page(answer([4, 5, 6], "limit", 7)))
    assert pages.command is None
    joined = pages.join(iter(whole))
    assert (offsets(joined), joined.next, joined.reason) == ([1, 2, 3, 4], 5, "end")


def test_a_limit_is_the_callers() -> None:
    pages = Pages("t", limit=3)
    first = pages.page(answer([1, 2], "limit", 3))
    pages.end_at({b"server": b"busd", b"next": 9})
    assert next_read(pages).limit == 1
    second = pages.page(answer([3], "limit", 4))
    assert pages.command is None
    joined = pages.join(iter([first, second]))
    assert (offsets(joined), joined.reason) == ([1, 2, 3], "limit")


def test_last_of_each_topic_also_over_pages() -> None:
    pages = Pages("a,b", last=1)
    first = pages.page(answer([4], "limit", 5, b"a"))
    pages.end_at({b"server": b"busd", b"next": 9})
    second = pages.page([*answer([5, 6], "end", 9, b"b")])
    assert offsets(pages.join(iter([first, second]))) == [4, 6]


def test_last_of_each_keeps_the_order() -> None:
    messages = [Message(topic, offset, 0, b"") for offset, topic in enumerate("abab", 1)]
    assert [message.offset for message in last_of_each(messages, 1)] == [3, 4]
    assert last_of_each(messages, 2) == messages


def test_what_is_no_message_stands_apart() -> None:
    pages = Pages("t")
    reply = [[b"GAP", b"t", 1, 2, 2, b"trimmed"], [b"RESET", b"t", 3, 1], [b"EOF", b"t", 4], *answer([], "end", 5)]
    page = pages.page(reply)
    assert (list(page), page.gaps, page.resets, page.ends) == (
        [],
        [Gap("t", 1, 2, 2, "trimmed")],
        [Reset("t", 3, 1)],
        [EndOfStream("t", 4)],
    )
    joined = pages.join(iter([page]))
    assert (joined.gaps, joined.resets, joined.ends) == (page.gaps, page.resets, page.ends)


def test_a_refused_read_raises() -> None:
    with pytest.raises(BusdError, match="PATTERN"):
        Pages("!").page(BusdError("PATTERN", "'!' is not a pattern"))


def test_joining_takes_any_iterator() -> None:
    def none() -> Iterator[ReadResult]:
        return iter(())

    assert Pages("t").join(none()) == []


def test_a_server_that_stops_is_not_the_end() -> None:
    pages = Pages("t", 1, group="g")
    whole = [pages.page(answer([1, 2], "closed", 3))]
    assert pages.needs_end
    pages.end_at({b"server": b"busd", b"next": 5})
    made = next_read(pages)
    assert (made.start, made.within_ns, made.group) == (Position(Base.OFFSET, 3), None, b"g")
    whole.append(pages.page(answer([3, 4], "end", 5)))
    joined = pages.join(iter(whole))
    assert (offsets(joined), joined.next, joined.reason) == ([1, 2, 3, 4], 5, "end")
    full = Pages("t", 1, limit=1)
    assert (full.page(answer([1], "closed", 2)).reason, full.command) == ("limit", None)


def test_a_first_message_is_waited_for_the_rest_of_the_time() -> None:
    pages = Pages("t", "next", within=5, now_ns=SECOND)
    pages.page(answer([], "closed", 3), 3 * SECOND)
    made = next_read(pages)
    assert (made.start, made.within_ns) == (Position(Base.OFFSET, 3), 3 * SECOND)
    assert not pages.needs_end, "what comes is above what is there now"
    pages.page(answer([], "closed", 3), 9 * SECOND)
    assert next_read(pages).within_ns == 0
    pages.page(answer([3], "closed", 4), 9 * SECOND)
    assert (next_read(pages).within_ns, pages.needs_end) == (None, True)


def test_the_last_of_each_are_asked_for_again_when_none_came() -> None:
    pages = Pages("t", last=2)
    pages.page(answer([], "closed", 9))
    made = next_read(pages)
    assert (made.start, made.last) == (None, 2)


def test_a_right_that_is_taken_away_is_not_the_end() -> None:
    with pytest.raises(BusdError, match="DENIED") as told:
        Pages("t", 1).page(answer([1, 2], "denied", 3))
    assert told.value.code == "DENIED"
