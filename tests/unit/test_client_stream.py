"""busd_client.stream and pages: a subscription over several connections, a READ over several answers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from busd_client import wire
from busd_client.events import (
    BusdError,
    ConnectionLost,
    End,
    EndOfStream,
    Gap,
    Message,
    Reset,
)
from busd_client.stream import Part, Run, Stream, Wish, events_of

from busd.rules import record
from busd.rules.items import Item
from busd.words.commands import build_request
from busd.words.requests import Subscribe
from busd.words.settings import Limits
from busd.words.units import Base, Position

SECOND = 1_000_000_000
HELLO_REPLY = b"%1\r\n$6\r\nserver\r\n$4\r\nbusd\r\n"


def asked(stream: Stream, now_ns: int = 0) -> Subscribe:
    """The SUB that a new connection begins with, as the server understands it."""
    hello, words = wire.Replies().feed(stream.opening(now_ns))
    assert hello == [b"HELLO", b"3"]
    made = build_request(words[0], words[1:], Limits())
    assert isinstance(made, Subscribe)
    return made


def ok(following: int, epoch: int = 1) -> bytes:
    return HELLO_REPLY + b"+OK next=%d epoch=%d\r\n" % (following, epoch)


def push(*words: bytes | int | None) -> bytes:
    parts = [b">%d\r\n" % len(words)]
    for word in words:
        if word is None:
            parts.append(b"_\r\n")
        else:
            parts.append(b":%d\r\n" % word if isinstance(word, int) else b"$%d\r\n%b\r\n" % (len(word), word))
    return b"".join(parts)


def batch(
    first: int,
    items: Sequence[Item],
    topics: tuple[bytes, ...] = (b"t",),
    column: bytes | None = None,
    flags: str = "-",
    meant: tuple[int, int] | None = None,
) -> bytes:
    made = record.frame(first, 7, first - 1, 0, flags, topics, column, None, list(items))
    lowest, highest = meant or (first, made.last)
    return push(b"BATCH", lowest, highest, made.record)


def live(wish: Wish, following: int = 1) -> Stream:
    stream = Stream(wish)
    stream.opening(0)
    assert stream.feed(ok(following)) == []
    assert stream.live
    return stream


def test_it_says_hello_and_subscribes_in_one_go() -> None:
    wish = Wish("a,b.>", "first", None, "end", 5, 2 * SECOND, "spill")
    expected = Subscribe(
        (b"a", b"b.>"), Position(Base.FIRST), None, Position(Base.NEXT), 5, 2 * SECOND, "spill", "batch", eol=b"\r\n"
    )
    assert asked(Stream(wish)) == expected


def test_a_batch_is_messages() -> None:
    stream = live(Wish("t"))
    events = events_of(stream.feed(batch(5, [b"a", b"b"])))
    assert events == [Message("t", 5, 7, b"a"), Message("t", 6, 7, b"b")]
    assert stream.next == 7


def test_only_what_is_meant_of_a_batch() -> None:
    stream = live(Wish("t"))
    events = events_of(stream.feed(batch(5, [b"a", b"b", b"c", b"d"], meant=(6, 7))))
    assert [event.offset for event in events if isinstance(event, Message)] == [6, 7]
    assert stream.next == 8


def test_topics_of_a_batch_that_do_not_match_are_left_out() -> None:
    stream = live(Wish("x.*"))
    events = events_of(stream.feed(batch(5, [b"a", b"b", b"c"], (b"x.1", b"y"), b"010")))
    assert events == [Message("x.1", 5, 7, b"a"), Message("x.1", 7, 7, b"c")]


def test_a_batch_of_nothing_that_matches_is_nothing() -> None:
    stream = live(Wish("z"), 3)
    assert stream.feed(batch(5, [b"a"])) == []
    assert stream.next == 3


def test_headers_of_a_batch() -> None:
    stream = live(Wish("t"))
    (run,) = stream.feed(batch(5, [b"a", [b"b", b"k", b"v"]], flags="h"))
    assert isinstance(run, Run)
    assert run.payloads() == [b"a", b"b"]
    assert run.messages() == [Message("t", 5, 7, b"a"), Message("t", 6, 7, b"b", {"k": "v"})]


def test_a_run_knows_its_columns() -> None:
    stream = live(Wish(">"))
    (run,) = stream.feed(batch(5, [b"a", b"b", b"c"], (b"x", b"y"), b"010", meant=(6, 7)))
    assert isinstance(run, Run)
    assert (run.count, run.last, run.time_ns) == (2, 7, 7)
    assert (list(run.offsets()), run.topics(), run.payloads()) == ([6, 7], [b"y", b"x"], [b"b", b"c"])


def test_ends_and_resets_that_come_as_records() -> None:
    stream = live(Wish(">"))
    assert stream.feed(batch(5, [b""], flags="e")) == [EndOfStream("t", 5)]
    assert stream.feed(batch(6, [b"3"], flags="r")) == [Reset("t", 6, 3)]
    assert stream.next == 7


def test_other_pushes_are_events() -> None:
    stream = live(Wish(">"))
    data = push(b"MSG", b"t", 1, 9, b"p") + push(b"GAP", b">", 2, 8, None, b"slow") + push(b"RESET", b"t", 9, 4)
    assert stream.feed(data) == [Message("t", 1, 9, b"p"), Gap(">", 2, 8, None, "slow"), Reset("t", 9, 4)]
    assert stream.next == 10


def test_messages_of_another_store_may_stand_within_a_loss() -> None:
    """Who is cut off behind the GAP comes back at its beginning, and misses none of them."""
    stream = live(Wish(">"))
    stream.feed(push(b"GAP", b">", 1, 5000, None, b"trimmed"))
    assert stream.next == 1
    stream.feed(batch(2, [b"a"]))
    assert stream.next == 3
    stream.feed(push(b"GAP", b">", 2, 5000, None, b"unsynced") + push(b"GAP", b">", 9, 10, 1, b"corrupt"))
    assert stream.next == 9
    stream.feed(push(b"GAP", b">", 9, 20, 12, b"slow") + batch(15, [b"late"]))
    assert stream.next == 21


def test_end_is_the_end() -> None:
    stream = live(Wish("t", limit=1))
    parts = stream.feed(batch(5, [b"a"]) + push(b"END", b"limit", 6) + batch(6, [b"b"]))
    assert len(events_of(parts)) == 1
    assert stream.ended == End("limit", 6)


def test_a_server_that_stops_does_not_end_the_subscription() -> None:
    stream = live(Wish("t"))
    assert stream.feed(push(b"END", b"closed", 6)) == []
    assert stream.ended is None


def test_any_split_gives_the_same() -> None:
    data = ok(1) + batch(1, [b"a", b"b"]) + push(b"GAP", b"t", 3, 4, 2, b"slow") + batch(5, [b"c"])
    stream = Stream(Wish("t"))
    stream.opening(0)
    parts: list[Part] = []
    for at in range(len(data)):
        parts += stream.feed(data[at : at + 1])
    assert [type(event) for event in events_of(parts)] == [Message, Message, Gap, Message]


def test_it_goes_on_behind_the_last_message() -> None:
    stream = live(Wish("t", start="first"))
    stream.feed(batch(5, [b"a", b"b"]))
    stream.lost(0)
    assert not stream.live
    assert asked(stream).start == Position(Base.OFFSET, 7)


def test_it_goes_on_behind_a_gap() -> None:
    stream = live(Wish("t"))
    stream.feed(push(b"GAP", b"t", 5, 11, 3, b"slow"))
    assert asked(stream).start == Position(Base.OFFSET, 12)


def test_before_anything_came_it_goes_on_where_it_was_accepted() -> None:
    made = asked(live(Wish("t", start="-5m"), 40))
    assert made.start == Position(Base.OFFSET, 40)


def test_who_began_live_goes_on_dropping() -> None:
    assert asked(Stream(Wish("t"))).slow is None
    assert asked(live(Wish("t"), 40)).slow == "drop"


@pytest.mark.parametrize("wish", [Wish("t", start=1), Wish("t", until="end")])
def test_who_began_with_a_replay_goes_on_spilling(wish: Wish) -> None:
    assert asked(live(wish, 40)).slow is None


def test_the_wish_for_slow_readers_stays() -> None:
    assert asked(live(Wish("t", start=1, slow="drop"), 40)).slow == "drop"


def test_last_is_asked_again_only_while_nothing_came() -> None:
    stream = live(Wish("t", last=3), 5)
    assert (asked(stream).last, asked(stream).start) == (3, None)
    stream.feed(ok(5) + batch(5, [b"a"]))
    assert (asked(stream).last, asked(stream).start) == (None, Position(Base.OFFSET, 6))


def test_a_limit_counts_over_all_connections() -> None:
    stream = live(Wish("t", limit=5))
    stream.feed(batch(1, [b"a", b"b"]) + push(b"EOF", b"t", 3))
    assert asked(stream).limit == 3


def test_who_has_all_of_a_limit_needs_no_end() -> None:
    stream = live(Wish("t", limit=2, within_ns=1))
    stream.feed(batch(5, [b"a"]))
    stream.lost(0)
    assert stream.ended is None
    stream.opening(0)
    stream.feed(ok(6) + batch(6, [b"b"]))
    assert stream.ended is None
    stream.lost(1)
    assert stream.ended == End("limit", 7)


def test_time_runs_on_while_there_is_no_connection() -> None:
    stream = Stream(Wish("t", within_ns=10 * SECOND))
    assert asked(stream, 100 * SECOND).within_ns == 10 * SECOND
    stream.lost(104 * SECOND)
    assert asked(stream, 104 * SECOND).within_ns == 6 * SECOND
    stream.lost(109 * SECOND)
    assert stream.ended is None
    stream.lost(110 * SECOND)
    assert stream.ended == End("time", 1)


def test_the_end_of_a_topic_is_told_once() -> None:
    stream = live(Wish("t"), 9)
    assert stream.feed(push(b"EOF", b"t", 4)) == [EndOfStream("t", 4)]
    assert asked(stream).start == Position(Base.OFFSET, 9)
    assert stream.feed(ok(9) + push(b"EOF", b"t", 4)) == []
    assert stream.feed(push(b"EOF", b"t", 12)) == [EndOfStream("t", 12)]


def test_a_refusal_is_raised() -> None:
    stream = Stream(Wish("t", start=99))
    stream.opening(0)
    with pytest.raises(BusdError, match="POS 99 is beyond"):
        stream.feed(HELLO_REPLY + b"-POS 99 is beyond the end\r\n")


def test_a_server_on_its_way_down_is_a_lost_connection() -> None:
    stream = Stream(Wish("t"))
    stream.opening(0)
    with pytest.raises(ConnectionLost):
        stream.feed(b"-STOPPING the server is going down\r\n")


def test_what_came_before_an_error_is_given_out_first() -> None:
    stream = live(Wish("t"))
    assert len(stream.feed(batch(1, [b"a"]) + b"-INTERNAL a fault\r\n")) == 1
    with pytest.raises(BusdError, match="INTERNAL"):
        stream.feed(b"")
    with pytest.raises(BusdError, match="INTERNAL"):
        stream.lost(0)


def test_a_damaged_batch_is_asked_for_again() -> None:
    stream = live(Wish("t"))
    with pytest.raises(ConnectionLost, match="damaged"):
        stream.feed(batch(5, [b"aaaa"]).replace(b"aaaa", b"aaab"))
    assert asked(stream).start == Position(Base.OFFSET, 1)


@pytest.mark.parametrize("cut", [0, 10, 30])
def test_a_batch_that_is_cut_off_is_asked_for_again(cut: int) -> None:
    frame = record.frame(1, 7, 0, 0, "-", (b"t",), None, None, [b"a"]).record
    with pytest.raises(ConnectionLost, match="damaged"):
        live(Wish("t")).feed(push(b"BATCH", 1, 1, frame[:cut]))


@pytest.mark.parametrize("data", [push(b"BATCH", 1, 1, record.frame_clean_stop(record.CleanStop(1, 1, 1))), b":1\r\n"])
def test_what_is_not_the_protocol_is_an_error(data: bytes) -> None:
    with pytest.raises(BusdError, match="PROTO"):
        live(Wish("t")).feed(data)


def test_more_topics_than_are_remembered() -> None:
    stream = live(Wish(">"))
    for number in range(1, 16_500):
        stream._wanted(b"t%d" % number)
    assert len(stream._wanted._known) < 16_385
    assert stream._wanted(b"t1")
    assert not stream._wanted(b"_t1")
