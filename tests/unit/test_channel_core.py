"""busd_client.channel_core: what is on its way out stays whole and in order, what comes in comes once."""

from __future__ import annotations

import pytest
from busd_client import wire
from busd_client.channel_core import BATCH_VALUES, MAX_VALUE_BYTES, WINDOW_VALUES, Incoming, Outgoing
from busd_client.deliveries import Ledger, delivery_of
from busd_client.events import BusdError, EndOfStream, Gap

FULL = BusdError("FULL", "no room")


def said(outgoing: Outgoing) -> list[bytes]:
    """The values of the next command."""
    ((verb, topic, *values),) = wire.Replies().feed(outgoing.command("t"))
    assert (verb, topic) == (b"MPUB", b"t")
    return list(values)


def holding(*values: bytes) -> Outgoing:
    outgoing = Outgoing()
    for value in values:
        outgoing.take(value)
    return outgoing


def test_values_leave_in_order_and_stay_until_they_are_kept() -> None:
    outgoing = holding(b"a", b"b")
    assert said(outgoing) == [b"a", b"b"]
    outgoing.take(b"c")
    assert (outgoing.answered(1), outgoing.values()) == (True, [b"c"])
    assert said(outgoing) == [b"c"]
    assert said(outgoing) == [b"c"]


def test_when_there_is_no_room_less_is_tried_and_then_waited() -> None:
    outgoing = holding(b"a", b"b", b"c", b"d")
    said(outgoing)
    assert outgoing.answered(FULL)
    assert said(outgoing) == [b"a", b"b"]
    assert outgoing.answered(FULL)
    assert said(outgoing) == [b"a"]
    assert not outgoing.answered(FULL)
    assert (len(outgoing), outgoing.full) == (4, FULL)
    assert said(outgoing) == [b"a"]
    assert outgoing.answered(7)
    assert outgoing.full is None
    assert said(outgoing) == [b"b", b"c"]


def test_commands_are_bounded() -> None:
    large = bytes(200_000)
    outgoing = holding(large, large, b"x")
    assert said(outgoing) == [large]
    outgoing.answered(1)
    assert said(outgoing) == [large, b"x"]
    many = holding(*[b""] * (BATCH_VALUES + 1))
    assert len(said(many)) == BATCH_VALUES


def test_it_takes_so_much_and_any_one_value() -> None:
    outgoing = holding(bytes(MAX_VALUE_BYTES))
    assert not outgoing.roomy
    said(outgoing)
    outgoing.answered(1)
    assert outgoing.roomy
    with pytest.raises(ValueError, match="at most 1048576 bytes"):
        outgoing.take(bytes(MAX_VALUE_BYTES + 1))
    assert not holding(*[b""] * WINDOW_VALUES).roomy


def test_other_errors_are_raised() -> None:
    outgoing = holding(b"a")
    said(outgoing)
    with pytest.raises(BusdError, match="TOPIC"):
        outgoing.answered(BusdError("TOPIC", "no"))
    assert outgoing.values() == [b"a"]


class Taken:
    """An Incoming with one connection at a time."""

    def __init__(self) -> None:
        self.incoming = Incoming()
        self.connect()

    def connect(self) -> None:
        self.ledger = Ledger(lambda now: None)

    def come(self, *tokens: bytes) -> None:
        self.incoming.add([delivery_of([b"MSG", b"t", token, 7, b"v" + token], self.ledger) for token in tokens])

    def told(self) -> list[list[bytes]]:
        return wire.Replies().feed(self.ledger.commands())


def test_the_one_before_is_done_when_the_next_is_taken() -> None:
    taken = Taken()
    taken.come(b"1", b"2")
    assert taken.incoming.next() == b"v1"
    assert taken.told() == []
    assert taken.incoming.next() == b"v2"
    assert taken.told() == [[b"ACK", b"..1"]]
    taken.incoming.done()
    taken.incoming.done()
    assert taken.told() == [[b"ACK", b"..2"]]
    assert not taken.incoming.ready


def test_what_comes_again_is_given_out_once() -> None:
    taken = Taken()
    taken.come(b"1", b"2", b"3", b"4")
    assert [taken.incoming.next() for _ in range(2)] == [b"v1", b"v2"]
    taken.ledger.close()
    taken.connect()
    # 1 was done, though the server does not know; 2 is in the caller's hands; 3 and 4 were not given out yet.
    taken.come(b"1.2", b"2.2", b"3.2", b"4.2")
    assert taken.told() == [[b"ACK", b"..1.2"]]
    assert [taken.incoming.next() for _ in range(2)] == [b"v3.2", b"v4.2"]
    taken.incoming.done()
    assert taken.told() == [[b"ACK", b"..4.2"]]


def test_the_end_comes_behind_the_last_value_and_once() -> None:
    taken = Taken()
    taken.come(b"1")
    taken.incoming.add([EndOfStream("t", 2), Gap("t", 3, 3, 1, "trimmed")])
    assert not taken.incoming.at_end()
    taken.incoming.next()
    assert taken.incoming.at_end()
    assert not taken.incoming.at_end()
    taken.incoming.add([EndOfStream("t", 4)])
    taken.come(b"5")
    taken.incoming.next()
    assert not taken.incoming.at_end()
