"""busd_client.deliveries: what a ledger tells the server, and when."""

from __future__ import annotations

import pytest
from busd_client import wire
from busd_client.deliveries import Batch, Delivery, Ledger, delivery_of
from busd_client.events import BusdError, ConnectionLost, Message, Stale
from hypothesis import given
from hypothesis import strategies as st


def ledger(hasty: int = 1000) -> tuple[Ledger, list[bool]]:
    told: list[bool] = []
    return Ledger(told.append, hasty), told


def given_out(one: Ledger, *offsets: int, tries: int = 1) -> list[Delivery]:
    """Deliveries of topic t with these offsets."""
    token = b"%d" if tries == 1 else b"%%d.%d" % tries
    return [delivery_of([b"MSG", b"t", token % offset, 7, b"p"], one) for offset in offsets]


def said(one: Ledger) -> list[list[bytes]]:
    """The commands that are due."""
    return wire.Replies().feed(one.commands())


def test_what_a_delivery_tells() -> None:
    one, _ = ledger()
    first = delivery_of([b"MSG", b"t", 17, 7, b"p"], one)
    second = delivery_of([b"MSG", b"t", b"17.2", 7, b"p", b"key", b"k"], one)
    assert (first.token, first.tries, second.token, second.tries) == ("17", 1, "17.2", 2)
    assert second.message == Message("t", 17, 7, b"p", {"key": "k"})
    assert not second.lost


@pytest.mark.parametrize("words", [[b"MSG", b"t"], [b"MSG", b"t", b"x", 7, b"p"], [b"MSG", 3, b"1", 7, b"p"]])
def test_what_is_no_delivery(words: list[bytes | int]) -> None:
    with pytest.raises(BusdError, match="PROTO"):
        delivery_of(words, ledger()[0])


def test_in_order_one_token_says_it_all() -> None:
    one, told = ledger()
    for delivery in given_out(one, 3, 5, 9):
        delivery.ack()
    assert said(one) == [[b"ACK", b"..9"]]
    assert told == [False, False, False]
    assert said(one) == []


def test_out_of_order_each_is_named() -> None:
    one, _ = ledger()
    a, b, c, d = given_out(one, 1, 2, 3, 4)
    c.ack()
    b.ack()
    assert said(one) == [[b"ACK", b"3", b"2"]]
    a.ack()
    assert said(one) == [[b"ACK", b"..1"]]
    d.ack()
    assert said(one) == [[b"ACK", b"..4"]]


def test_what_is_swept_is_not_named_again() -> None:
    one, _ = ledger()
    a, b, c = given_out(one, 1, 2, 3)
    b.ack()
    a.ack()
    c.ack()
    assert said(one) == [[b"ACK", b"..3"]]


def test_what_is_given_back_is_not_swept() -> None:
    one, told = ledger()
    a, b, c = given_out(one, 1, 2, 3)
    a.ack()
    c.ack()
    b.nack("5s", "no\nluck")
    b.ack()
    assert said(one) == [[b"NACK", b"2", b"DELAY", b"5000ms", b"no luck"], [b"ACK", b"..1", b"3"]]
    assert told == [False, False, True]


def test_a_batch_whose_last_was_given_back() -> None:
    one, _ = ledger()
    batch = Batch(given_out(one, 1, 2, 3))
    batch[2].nack()
    batch.ack()
    batch.ack()
    assert said(one) == [[b"NACK", b"3"], [b"ACK", b"..2"]]
    assert one.open == 0


def test_a_batch_behind_something_open() -> None:
    one, _ = ledger()
    given_out(one, 1)
    batch = Batch(given_out(one, 2, 3, tries=2))
    batch.ack()
    assert said(one) == [[b"ACK", b"2.2", b"3.2"]]
    assert one.open == 1


def test_a_batch_put_together_by_hand() -> None:
    one, _ = ledger()
    a, _, c = given_out(one, 1, 2, 3)
    Batch([a, c]).ack()
    Batch().ack()
    assert said(one) == [[b"ACK", b"..1", b"3"]]


def test_a_quarter_of_a_window_does_not_wait() -> None:
    one, told = ledger(2)
    a, b, _ = given_out(one, 1, 2, 3)
    a.ack()
    b.ack()
    assert told == [False, True]


def test_touches_go_together_and_not_for_what_is_done() -> None:
    one, _ = ledger()
    a, b, c = given_out(one, 1, 2, 3)
    a.ack()
    for delivery in (a, b, c):
        delivery.touch()
    assert said(one) == [[b"TOUCH", b"2", b"3"], [b"ACK", b"..1"]]


def test_many_tokens_take_several_commands() -> None:
    one, _ = ledger()
    given_out(one, 1)
    for delivery in given_out(one, *range(2, 2002)):
        delivery.ack()
    assert [len(words) for words in said(one)] == [1001, 1001]


def test_a_long_reason_is_cut_between_characters() -> None:
    one, _ = ledger()
    (a,) = given_out(one, 1)
    a.nack(reason="x" + "é" * 1000 + "\0")
    ((_, _, reason),) = said(one)
    assert reason.decode() == "x" + "é" * 499


def test_answers_are_counted() -> None:
    one, _ = ledger()
    a, b, c = given_out(one, 1, 2, 3)
    a.ack()
    b.nack()
    c.touch()
    assert one.unanswered == 1
    one.commands()
    assert one.unanswered == 3
    replies = [b"OK", BusdError("STALE", "n=0 first=3"), 1]
    assert [one.answered(reply) for reply in replies] == [True, True, True]
    assert not one.answered(1)
    assert (one.settled, one.stale, one.unanswered) == (1, 1, 0)
    one.check(False)


def test_what_went_wrong_is_raised_once() -> None:
    one, _ = ledger()
    a, b, c, _, e = given_out(one, 1, 2, 3, 4, 5)
    for deliveries in ([a, b, e], [c]):
        Batch(deliveries).ack()
        one.commands()
    one.answered(BusdError("STALE", "n=1 first=1"))
    one.answered(BusdError("FULL", "no room"))
    with pytest.raises(BusdError, match="FULL"):
        one.check(True)
    with pytest.raises(Stale) as late:
        one.check(True)
    assert (late.value.count, late.value.first) == (2, "1")
    one.check(True)
    assert (one.settled, one.stale) == (1, 2)


def test_what_is_swept_may_be_stale_without_an_error() -> None:
    one, _ = ledger()
    Batch(given_out(one, 1, 2, 3)).ack()
    one.commands()
    one.answered(2)
    assert (one.settled, one.stale) == (2, 1)
    with pytest.raises(Stale, match=r"n=1 first=\?"):
        one.check(True)


def test_of_a_lost_connection_nothing_is_said() -> None:
    one, told = ledger()
    a, b = given_out(one, 1, 2)
    a.ack()
    one.close()
    b.ack()
    b.nack()
    b.touch()
    assert b.lost
    assert (one.commands(), told) == (b"", [False])


def test_answers_that_are_owed_when_it_is_closed_are_told_of_once() -> None:
    one, _ = ledger()
    a, b = given_out(one, 1, 2)
    a.ack()
    one.commands()
    one.close()
    one.close()
    b.ack()
    following, _ = ledger()
    following.take_over(one)
    one.check(True)
    with pytest.raises(ConnectionLost):
        following.check(False)
    following.check(True)


@pytest.mark.parametrize("what", ["gathered", "given back", "touched"])
def test_what_never_left_is_owed_as_well(what: str) -> None:
    one, _ = ledger()
    (a,) = given_out(one, 1)
    {"gathered": a.ack, "given back": a.nack, "touched": a.touch}[what]()
    one.close()
    with pytest.raises(ConnectionLost):
        one.check(False)


def test_nothing_is_owed_to_who_asked_for_nothing_or_was_told() -> None:
    answered, _ = ledger()
    given_out(answered, 1, 2)[0].ack()
    answered.commands()
    answered.answered(1)
    answered.drain()
    answered.close()
    answered.check(True)
    told, _ = ledger()
    given_out(told, 1)[0].ack()
    told.close(told=True)
    told.close()
    told.check(True)


def test_what_was_refused_or_stale_is_taken_over() -> None:
    one, _ = ledger()
    for delivery in given_out(one, 1, 2):
        delivery.nack()
    one.commands()
    one.answered(BusdError("FULL", "no room"))
    one.answered(BusdError("STALE", "n=0 first=2"))
    one.close()
    following, _ = ledger()
    following.take_over(one)
    with pytest.raises(BusdError, match="FULL"):
        following.check(True)
    with pytest.raises(Stale):
        following.check(True)


class Server:
    """What a server makes of the commands: which tokens are out, in the order in which they were sent."""

    def __init__(self, offsets: range) -> None:
        self.out = list(offsets)
        self.settled: set[int] = set()
        self.back: set[int] = set()

    def take(self, commands: list[list[bytes]]) -> None:
        for verb, *tokens in commands:
            if verb == b"NACK":
                self.out.remove(int(tokens[0]))
                self.back.add(int(tokens[0]))
                continue
            assert verb == b"ACK"
            for token in tokens:
                last = int(token.removeprefix(b".."))
                swept = [one for one in self.out if one <= last] if token.startswith(b"..") else [last]
                # A stale token would be an error of the client's.
                assert last in self.out
                self.settled.update(swept)
                self.out = [one for one in self.out if one not in swept]


@given(st.data())
def test_whatever_is_done_is_told_and_nothing_else(data: st.DataObject) -> None:
    one, _ = ledger()
    size = data.draw(st.integers(1, 12))
    server = Server(range(1, size + 1))
    still = given_out(one, *range(1, size + 1))
    acked: set[int] = set()
    back: set[int] = set()
    while data.draw(st.integers(0, 9)) and still:
        kind = data.draw(st.sampled_from(("ack", "nack", "run", "send")))
        at: int = data.draw(st.integers(0, len(still) - 1))
        if kind == "run":
            end: int = data.draw(st.integers(at + 1, len(still)))
            Batch(still[at:end]).ack()
            acked.update(delivery.offset for delivery in still[at:end])
            del still[at:end]
        elif kind == "send":
            server.take(said(one))
        else:
            delivery = still.pop(at)
            (acked if kind == "ack" else back).add(delivery.offset)
            delivery.ack() if kind == "ack" else delivery.nack()
    server.take(said(one))
    assert (server.settled, server.back, one.open) == (acked, back, len(still))
