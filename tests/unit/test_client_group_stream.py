"""busd_client.group_stream: a membership over several connections."""

from __future__ import annotations

import pytest
from busd_client import wire
from busd_client.deliveries import Deliveries, Delivery
from busd_client.events import BusdError, ConnectionLost, End, EndOfStream, Gap, Reset
from busd_client.group_stream import GroupStream, GroupWish, deliveries_of, group_wish, taken_apart

from busd.words.commands import build_request
from busd.words.requests import Subscribe
from busd.words.settings import Limits
from busd.words.units import Base, Position
from tests.unit.test_client_stream import SECOND, batch, ok, push


def asked(stream: GroupStream, now_ns: int = 0) -> Subscribe:
    """The SUB that a new connection begins with, as the server understands it."""
    hello, words = wire.Replies().feed(stream.opening(now_ns))
    assert hello == [b"HELLO", b"3"]
    made = build_request(words[0], words[1:], Limits())
    assert isinstance(made, Subscribe)
    return made


def live(wish: GroupWish) -> GroupStream:
    stream = GroupStream(wish, lambda now: None)
    stream.opening(0)
    assert stream.feed(ok(4, 2)) == []
    assert (stream.live, stream.accepted, stream.epoch) == (True, 4, 2)
    return stream


def test_what_it_asks_for() -> None:
    stream = GroupStream(group_wish(["a", "b.>"], "g", "first", 5, 2, 100, "1m", 3), lambda now: None)
    expected = Subscribe(
        (b"a", b"b.>"), Position(Base.FIRST), limit=5, within_ns=2 * SECOND, format="batch", eol=b"\r\n",
        group=b"g", window=100, wait_ns=60 * SECOND, tries=3,
    )  # fmt: skip
    assert asked(stream) == expected
    assert asked(GroupStream(GroupWish("t", "g"), lambda now: None)) == Subscribe(
        (b"t",), format="batch", eol=b"\r\n", group=b"g"
    )


def test_first_deliveries_and_further_ones() -> None:
    stream = live(GroupWish("t", "g"))
    parts = stream.feed(batch(5, [b"a", [b"b", b"k", b"v"]], flags="h") + push(b"MSG", b"t", b"3.2", 9, b"c"))
    assert [type(part) for part in parts] == [Deliveries, Delivery]
    a, b, c = deliveries_of(parts)
    assert (a[:6], b[:6]) == (("t", 5, 7, b"a", {}, 1), ("t", 6, 7, b"b", {"k": "v"}, 1))
    assert c[:6] == ("t", 3, 9, b"c", {}, 2)
    assert [one.number for one in (a, b, c)] == [0, 1, 2]


def test_a_run_is_acknowledged_without_being_taken_apart() -> None:
    stream = live(GroupWish("t", "g"))
    (run,) = stream.feed(batch(5, [b"a", b"b"]))
    assert isinstance(run, Deliveries)
    run.ack()
    assert (len(run), [one.offset for one in run]) == (2, [5, 6])
    assert stream.ledger.commands() == wire.command("ACK", "..6")


def test_events_between() -> None:
    stream = live(GroupWish(">", "g"))
    data = push(b"GAP", b">", 2, 8, None, b"trimmed") + push(b"EOF", b"t", 9) + batch(10, [b"3"], flags="r")
    assert taken_apart(stream.feed(data)) == [Gap(">", 2, 8, None, "trimmed"), EndOfStream("t", 9), Reset("t", 10, 3)]
    assert stream.feed(push(b"END", b"closed", 1)) == []
    assert stream.ended is None
    assert stream.feed(push(b"END", b"limit", 11)) == []
    assert stream.ended == End("limit", 11)


def test_answers_come_between_deliveries() -> None:
    stream = live(GroupWish("t", "g"))
    deliveries_of(stream.feed(batch(1, [b"a"])))[0].ack()
    stream.ledger.commands()
    assert len(stream.feed(b":1\r\n" + batch(2, [b"b"]))) == 1
    assert stream.settled == 1


def one_settled_one_stale() -> tuple[GroupStream, Delivery]:
    """Of three messages one is acknowledged, one came too late, and the third is still out."""
    stream = live(GroupWish("t", "g"))
    a, b, c = deliveries_of(stream.feed(batch(1, [b"a", b"b", b"c"])))
    a.ack()
    stream.ledger.commands()
    stream.feed(b":1\r\n")
    b.touch()
    stream.ledger.commands()
    stream.feed(b"-STALE n=0 first=2\r\n")
    return stream, c


def test_counts_survive_a_connection_and_tokens_do_not() -> None:
    stream, c = one_settled_one_stale()
    stream.lost(0)
    c.ack()
    stream.opening(0)
    assert stream.ledger.commands() == b""
    assert (c.lost, stream.settled, stream.stale) == (True, 1, 1)


def test_who_hangs_up_before_it_is_lost_keeps_the_counts() -> None:
    stream, c = one_settled_one_stale()
    c.ack()
    stream.ledger.close()
    stream.lost(0)
    stream.opening(0)
    assert (stream.settled, stream.stale) == (1, 1)
    with pytest.raises(ConnectionLost):
        stream.ledger.check(False)


def test_limit_and_time_count_over_connections() -> None:
    stream = live(GroupWish("t", "g", limit=3, within_ns=5 * SECOND))
    stream.feed(batch(1, [b"a"]) + push(b"MSG", b"t", b"9.2", 9, b"c"))
    stream.lost(SECOND)
    made = asked(stream, 2 * SECOND)
    assert (made.limit, made.within_ns) == (1, 3 * SECOND)
    stream.lost(5 * SECOND)
    assert stream.ended == End("time", 0)
    full = live(GroupWish("t", "g", limit=1))
    full.feed(batch(1, [b"a"]))
    full.lost(0)
    assert full.ended == End("limit", 0)


def test_it_is_over_when_all_topics_have_ended() -> None:
    stream = live(GroupWish("a,b", "g", until_eof=True))
    stream.feed(push(b"EOF", b"a", 1) + push(b"MSG", b"a", b"2.2", 9, b"x") + push(b"EOF", b"b", 3))
    assert stream.ended is None
    stream.feed(batch(4, [b"x"], (b"b",)) + push(b"EOF", b"a", 5))
    assert stream.ended is None
    assert stream.feed(push(b"EOF", b"b", 6)) == [EndOfStream("b", 6)]
    assert stream.ended == End("eof", 7)
    with pytest.raises(ValueError, match="patterns"):
        group_wish("a.*", "g", until_eof=True)


def test_an_end_told_again_is_no_news() -> None:
    stream = live(GroupWish("a", "g"))
    stream.feed(push(b"EOF", b"a", 1))
    stream.lost(0)
    stream.opening(0)
    assert stream.feed(ok(2) + push(b"EOF", b"a", 1)) == []


def test_refusals() -> None:
    stream = GroupStream(GroupWish("t", "g"), lambda now: None)
    stream.opening(0)
    with pytest.raises(BusdError, match="GROUP g reads"):
        stream.feed(ok(1)[: -len(b"+OK next=1 epoch=1\r\n")] + b"-GROUP g reads u\r\n")
    with pytest.raises(ConnectionLost, match="STOPPING"):
        live(GroupWish("t", "g")).feed(b"-STOPPING soon\r\n")
    with pytest.raises(BusdError, match="PROTO"):
        live(GroupWish("t", "g")).feed(b":1\r\n")


def test_what_came_before_an_error_is_given_out() -> None:
    stream = live(GroupWish("t", "g"))
    assert len(stream.feed(batch(1, [b"a"]) + b"-SLOW too slow\r\n")) == 1
    with pytest.raises(BusdError, match="SLOW"):
        stream.feed(b"")
    with pytest.raises(BusdError, match="SLOW"):
        stream.lost(0)


def test_any_split_gives_the_same() -> None:
    data = ok(1) + batch(1, [b"a", b"b"]) + push(b"MSG", b"t", b"7.3", 9, b"c") + push(b"EOF", b"t", 8)
    stream = GroupStream(GroupWish("t", "g"), lambda now: None)
    stream.opening(0)
    events = [event for at in range(len(data)) for event in taken_apart(stream.feed(data[at : at + 1]))]
    assert [type(event) for event in events] == [Delivery, Delivery, Delivery, EndOfStream]
