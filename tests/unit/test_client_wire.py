"""busd_client.wire, address, backoff: bytes out, bytes in, without sockets."""

from __future__ import annotations

from itertools import pairwise

import pytest
from busd_client import wire
from busd_client.address import Address, choose_address, parse_address
from busd_client.backoff import FIRST_S, HIGHEST_S, Backoff
from busd_client.events import (
    BusdError,
    ConnectionLost,
    End,
    EndOfStream,
    Gap,
    Message,
    Reset,
)
from hypothesis import given
from hypothesis import strategies as st

from busd.words.commands import build_request
from busd.words.requests import Publish, Read, Request
from busd.words.settings import Limits
from busd.words.units import Base, Position


def request(data: bytes) -> Request:
    """What the server understands: its own grammar reads what the client wrote."""
    (words,) = wire.Replies().feed(data)
    return build_request(words[0], words[1:], Limits())


def test_publish_is_the_command_of_the_protocol() -> None:
    assert wire.publish("news.eu", b"hello") == b"*3\r\n$3\r\nPUB\r\n$7\r\nnews.eu\r\n$5\r\nhello\r\n"


def test_publish_takes_text_as_utf8() -> None:
    assert wire.publish("t", "ü").endswith(b"$2\r\n\xc3\xbc\r\n")


@given(st.binary(max_size=50))
def test_any_payload_arrives_as_it_is(payload: bytes) -> None:
    made = request(wire.publish("t", payload))
    assert isinstance(made, Publish)
    assert made.items == [payload]


def test_headers_follow_the_payload() -> None:
    made = request(wire.publish("t", b"p", {"unit": "C", "event": "5"}))
    assert isinstance(made, Publish)
    assert made.items == [[b"p", b"unit", b"C", b"event", b"5"]]


def test_publish_many_is_one_command() -> None:
    made = request(wire.publish_many("t", [b"a", "b", b""]))
    assert isinstance(made, Publish)
    assert (made.items, made.answers) == ([b"a", b"b", b""], "first")


def test_publish_many_of_nothing_is_refused_here() -> None:
    with pytest.raises(ValueError, match="at least one"):
        wire.publish_many("t", [])


def test_nothing_in_an_argument_becomes_a_command() -> None:
    words = wire.Replies().feed(wire.command("PUB", "t\r\n*1\r\n$4\r\nQUIT\r\n", "x"))
    assert words == [[b"PUB", b"t\r\n*1\r\n$4\r\nQUIT\r\n", b"x"]]


def test_read_carries_its_options() -> None:
    made = request(wire.read("a,b.>", start=7, limit=3, within=0.25))
    assert made == Read((b"a", b"b.>"), Position(Base.OFFSET, 7), None, 3, 250_000_000, "msg", eol=b"\r\n")


@pytest.mark.parametrize(
    ("value", "ns"), [(1.5, 1_500_000_000), ("250ms", 250_000_000), ("2h", 7_200_000_000_000), (0, 0)]
)
def test_durations(value: float | str, ns: int) -> None:
    assert wire.duration_ns(value) == ns


@pytest.mark.parametrize("value", [-1, "soon", "5"])
def test_what_is_no_duration(value: float | str) -> None:
    with pytest.raises(ValueError, match="duration"):
        wire.duration_ns(value)


def test_a_duration_is_never_shortened_on_the_wire() -> None:
    assert wire.milliseconds(1_000_001) == "2ms"


REPLIES = (
    b":5\r\n-FULL no room\r\n+OK next=1 epoch=2\r\n>3\r\n$3\r\nEND\r\n$3\r\nend\r\n:9\r\n%1\r\n$1\r\na\r\n:1\r\n_\r\n"
)


@given(st.lists(st.integers(0, len(REPLIES)), max_size=6))
def test_replies_are_the_same_however_they_are_split(cuts: list[int]) -> None:
    replies = wire.Replies()
    edges = [0, *sorted(cuts), len(REPLIES)]
    got = [reply for a, b in pairwise(edges) for reply in replies.feed(REPLIES[a:b])]
    error = got.pop(1)
    assert got == [5, b"OK next=1 epoch=2", [b"END", b"end", 9], {b"a": 1}, None]
    assert isinstance(error, BusdError)
    assert (error.code, error.text, str(error)) == ("FULL", "no room", "FULL no room")


def test_more_than_one_buffer_full_is_decoded_in_order() -> None:
    data = b"".join([b":%d\r\n" % number for number in range(30_000)])
    assert wire.Replies().feed(data) == list(range(30_000))


def test_what_is_not_resp_ends_the_connection() -> None:
    with pytest.raises(ConnectionLost, match="RESP"):
        wire.Replies().feed(b"HTTP/1.1 400 Bad Request\r\n")


@pytest.mark.parametrize("hello", [{b"server": b"busd", b"next": 4}, [b"server", b"busd", b"next", 4]])
def test_hello_as_map_and_as_list(hello: object) -> None:
    assert wire.check_hello(hello) == {"server": "busd", "next": 4}


def test_a_redis_is_recognised() -> None:
    with pytest.raises(BusdError, match="no busd: 'redis'"):
        wire.check_hello({b"server": b"redis"})


@pytest.mark.parametrize("check", [wire.check_hello, wire.check_integer, wire.check_done, wire.pairs, wire.accepted])
def test_every_check_raises_the_servers_error(check: object) -> None:
    assert callable(check)
    with pytest.raises(BusdError, match="LIMIT too many"):
        check(BusdError("LIMIT", "too many"))


def test_a_number_is_expected() -> None:
    assert wire.check_integer(7) == 7
    with pytest.raises(BusdError, match="PROTO a number"):
        wire.check_integer(b"OK")


def test_accepted_reads_next_and_epoch() -> None:
    assert wire.accepted(b"OK next=12 epoch=3") == (12, 3)
    with pytest.raises(BusdError, match="PROTO"):
        wire.accepted(b"OK")


@pytest.mark.parametrize(
    "rows",
    [
        [[b"topic", b"a", b"messages", 1]],
        [[b"a", b"messages", 1]],
        [{b"topic": b"a", b"messages": 1}],
    ],
)
def test_topics_in_any_shape(rows: object) -> None:
    assert wire.table(rows) == [{"topic": "a", "messages": 1}]


@pytest.mark.parametrize(
    ("words", "event"),
    [
        ([b"MSG", b"t", 1, 9, b"p"], Message("t", 1, 9, b"p")),
        ([b"MSG", b"t", 1, 9, b"p", b"k", b"v"], Message("t", 1, 9, b"p", {"k": "v"})),
        ([b"GAP", b"a.>,b", 3, 9, 4, b"slow"], Gap("a.>,b", 3, 9, 4, "slow")),
        ([b"GAP", b"a", 3, 9, None, b"corrupt"], Gap("a", 3, 9, None, "corrupt")),
        ([b"EOF", b"t", 5], EndOfStream("t", 5)),
        ([b"RESET", b"t", 5, 2], Reset("t", 5, 2)),
        ([b"END", b"limit", 6], End("limit", 6)),
    ],
)
def test_events(words: list[object], event: object) -> None:
    assert wire.event(words) == event


@pytest.mark.parametrize("words", [[], [b"NEW", 1], [b"MSG", b"t", 1], [b"EOF", b"t"], [1, 2], [b"GAP", b"a", 1, 2]])
def test_what_is_no_event(words: list[object]) -> None:
    with pytest.raises(BusdError, match="PROTO an event"):
        wire.event(words)


def test_times_of_a_message_come_from_its_headers() -> None:
    message = Message("t", 1, 9, b"", {"event": "17", "sent": "18"})
    assert (message.event_ns, message.sent_ns) == (17, 18)
    assert (Message("t", 1, 9, b"").event_ns, Message("t", 1, 9, b"", {"sent": "x"}).sent_ns) == (None, None)


@pytest.mark.parametrize(
    ("text", "address", "written"),
    [
        ("localhost:1", Address("localhost", 1), "localhost:1"),
        ("localhost", Address("localhost", 7379), "localhost:7379"),
        (":99", Address("127.0.0.1", 99), "127.0.0.1:99"),
        ("[::1]:7", Address("::1", 7), "[::1]:7"),
        ("unix:/run/b", Address(path="/run/b"), "unix:/run/b"),
        ("unix:b", Address(path="b"), "unix:b"),
        ("./b", Address(path="./b"), "unix:./b"),
    ],
)
def test_addresses(text: str, address: Address, written: str) -> None:
    assert parse_address(text) == address
    assert str(address) == written


@pytest.mark.parametrize("text", ["", "a:b", "a:70000", "a:0", "::1", "unix:", "/" + 107 * "x"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|port|path"):
        parse_address(text)


def test_an_address_is_chosen_by_argument_variable_default() -> None:
    environ = {"BUSD_ADDRESS": "b:2"}
    assert choose_address("a:1", environ) == Address("a", 1)
    assert choose_address(None, environ) == Address("b", 2)
    assert choose_address(None, {}) == Address("127.0.0.1", 7379)


def test_pauses_double_up_to_the_highest_and_begin_again() -> None:
    backoff = Backoff(lambda: 1.0)
    delays = [backoff.next_s() for _ in range(10)]
    assert delays[:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert delays[-1] == HIGHEST_S
    backoff.reset()
    assert backoff.next_s() == FIRST_S


def test_chance_takes_up_to_half_of_a_pause() -> None:
    assert Backoff(lambda: 0.0).next_s() == FIRST_S / 2
