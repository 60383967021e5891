"""busd.rules.resp_runs: the shortcuts take what they should take, and stop where they should stop."""

from __future__ import annotations

import pytest

from busd.rules.resp import RespDecoder
from busd.rules.resp_runs import alone, publishes, whole_arguments
from busd.words.requests import Publish
from busd.words.settings import Limits

LIMITS = Limits(payload_bytes=5000)


def resp(*arguments: bytes) -> bytes:
    """One command as it is sent."""
    return b"*%d\r\n" % len(arguments) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in arguments])


T = resp(b"PUB", b"t", b"x")
U = resp(b"PUB", b"news.eu", b"")
LONG = resp(b"PUB", b"t", b"x" * 5000)
LOWER = resp(b"pub", b"t", b"x")
TOO_LONG = resp(b"PUB", b"t", b"x" * 5001)
BAD = resp(b"PUB", b"a..b", b"x")
SNEAKY = resp(b"PUB", b"t", b"\r\n" + T[:-2])
PING = resp(b"PING")
EMPTY = resp(b"PUB", b"t", b"")


@pytest.mark.parametrize("data", [T, U, LONG, LOWER, EMPTY, resp(b"PUB", b"t", b"\r\n"), resp(b"PUB", b"t" * 200, T)])
def test_a_command_alone_is_what_the_parser_makes_of_it(data: bytes) -> None:
    plain = RespDecoder(LIMITS)
    # What comes byte by byte takes no shortcut.
    (request,) = [request for at in range(len(data)) for request in plain.feed(data[at : at + 1])]
    assert alone(data, LIMITS) == request
    assert RespDecoder(LIMITS).feed(data) == [request]


@pytest.mark.parametrize("head", [b"*3\r\n$3\r\nPUB\r\n", T, T + T, b"*5\r\n$3\r\nPUB\r\n", T[:-5]])
@pytest.mark.parametrize("place", [0, 1, 5])
def test_a_payload_that_begins_as_a_command_does_is_one(head: bytes, place: int) -> None:
    payloads = [b"x"] * 6
    payloads[place] = head
    data = b"".join([resp(b"PUB", b"t", payload) for payload in payloads])
    for cut in (0, 1, len(data) // 2):
        decoder = RespDecoder(LIMITS)
        found = [*decoder.feed(data[:cut]), *decoder.feed(data[cut:])]
        assert [item for one in found if isinstance(one, Publish) for item in one.items] == payloads


@pytest.mark.parametrize(
    "data",
    [
        b"", T[:-1], T[:-2], T + T, T + b"\r", T + b"\r\n", b"\r\n" + T, TOO_LONG, BAD, PING,
        resp(b"PUB", b"t"), resp(b"PUB", b"t", b"x", b"k", b"v"), resp(b"HPUB", b"t", b"x"), resp(b"PUB", b"", b"x"),
        resp(b"PUB", b"t" * 201, b"x"), resp(b"PUB", b"a\rb", b"x"), T.replace(b"$1\r\nt", b"$2\r\nt"),
        T.replace(b"$1\r\nx", b"$2\r\nx"), T.replace(b"$1\r\nx", b"$01\r\nx"), T.replace(b"*3", b"*03"), T[:-2] + b"xx",
        EMPTY[:-1], EMPTY[:-2],
    ],
)  # fmt: skip
def test_of_anything_else_it_makes_nothing(data: bytes) -> None:
    assert alone(data, LIMITS) is None


@pytest.mark.parametrize("data", [T, U, LOWER, EMPTY, resp(b"PUB", b"t", b"\r\n")])
def test_a_command_in_two_reads_is_not_whole_before_the_second(data: bytes) -> None:
    for cut in range(1, len(data)):
        decoder = RespDecoder(LIMITS)
        assert (decoder.feed(data[:cut]), decoder.unfinished) == ([], True)
        assert len(decoder.feed(data[cut:])) == 1


def test_where_lines_are_short_the_parser_says_what_is_too_long() -> None:
    assert alone(T, Limits(line_bytes=64)) is None


@pytest.mark.parametrize(
    ("commands", "took"),
    [
        ([T], 1),
        ([T] * 5, 5),
        ([T, U] * 5, 10),
        ([U, T, T, T, U], 5),
        ([LOWER] * 3, 3),
        ([T, LONG, T], 3),
        ([T, T, T, PING, T], 2),
        ([T, U, T, PING, T], 2),
        ([T, T, T, LOWER], 2),
        ([T, U, T, BAD, T], 3),
        ([T, U, T, TOO_LONG, T], 3),
        ([T, T, TOO_LONG], 2),
        ([T, U, SNEAKY, T], 2),
        ([T, T, T, resp(b"PUB", b"t", b"x", b"k", b"v"), T], 2),
        ([T, U, T[:-1]], 2),
        ([T, T, T[:-2] + b"yz"], 2),
        ([T, T, T, T[:9]], 2),
        ([SNEAKY, T], 1),
        ([SNEAKY], 1),
        ([U, PING], 1),
        ([T, U, T.replace(b"$1\r\nt", b"$2\r\nt"), U, T], 2),
        ([T, U, U.replace(b"$0", b"$1"), U, T], 2),
        ([BAD], 0),
        ([BAD, T], 0),
        ([TOO_LONG], 0),
        ([PING, T], 0),
        ([T[:-1]], 0),
        ([T[:-2] + b"yz"], 0),
        ([T.replace(b"$1\r\nt", b"$2\r\nt")], 0),
        ([T.replace(b"$1\r\nt", b"$2\r\nt")] * 3, 0),
        ([T.replace(b"$1\r\nt", b"$2\r\nt"), T], 0),
    ],
)
def test_publishes(commands: list[bytes], took: int) -> None:
    before = b"anything"
    data = before + b"".join(commands)
    run, after, _ = publishes(data, len(before), LIMITS)
    assert after == len(before) + len(b"".join(commands[:took]))
    if took == 0:
        assert run is None
        return
    assert isinstance(run, Publish)
    assert b"".join(spelled(run)).upper() == b"".join(commands[:took]).upper()
    assert run.eol == b"\r\n"
    assert run.size_bytes >= sum(map(len, run.items))


@pytest.mark.parametrize(
    ("commands", "passed"),
    [([T], False), ([T, PING, T], False), ([BAD, T], False), ([PING], False), ([T, T], True), ([T, BAD, T], True)],
)
def test_a_pass_over_the_rest_is_admitted(commands: list[bytes], passed: bool) -> None:
    assert publishes(b"".join(commands), 0, LIMITS)[2] is passed


def spelled(run: Publish) -> list[bytes]:
    """The commands that a run is."""
    topics = [run.topics] * len(run.items) if isinstance(run.topics, bytes) else list(run.topics)
    return [
        resp(b"PUB", topic, bytes(item)) for topic, item in zip(topics, run.items, strict=True) if type(item) is bytes
    ]


def test_one_topic_is_told_once_even_where_others_might_have_been() -> None:
    run, _, _ = publishes(T * 3 + PING, 0, LIMITS)
    assert run is not None
    assert run.topics == b"t"


def test_without_room_for_a_topic_in_an_argument_nothing_is_taken() -> None:
    assert publishes(T * 3, 0, Limits(line_bytes=100)) == (None, 0, False)


ARGUMENTS = b"$1\r\na\r\n$0\r\n\r\n$5\r\nhello\r\n"


@pytest.mark.parametrize(
    ("data", "count", "arguments"),
    [
        (ARGUMENTS, 3, [b"a", b""]),
        (ARGUMENTS, 2, [b"a"]),
        (ARGUMENTS, 1, []),
        (ARGUMENTS, 9, [b"a", b""]),
        (ARGUMENTS + PING, 3, [b"a", b""]),
        (ARGUMENTS + b"$", 9, [b"a", b"", b"hello"]),
        (ARGUMENTS + b"$1", 9, [b"a", b"", b"hello"]),
        (ARGUMENTS[:9], 9, [b"a"]),
        (b"", 9, []),
        (b"+a\r\n$1\r\na\r\n", 9, []),
        (b"$01\r\na\r\n" + ARGUMENTS, 9, []),
        (b"$1\r\na\r\n$2\r\na\r\n" + ARGUMENTS, 9, [b"a"]),
        (b"$1\r\na\r\n$6\r\n\r\n$1\r\n\r\n" + ARGUMENTS, 9, [b"a"]),
        (b"$5000\r\n" + b"x" * 5000 + b"\r\n$1\r\na\r\n", 9, [b"x" * 5000]),
        (b"$1\r\na\r\n$5001\r\n" + b"x" * 5001 + b"\r\n$1\r\na\r\n", 9, [b"a"]),
    ],
)
def test_whole_arguments(data: bytes, count: int, arguments: list[bytes]) -> None:
    assert whole_arguments(b"*9\r\n" + data, 4, count, 5000) == (
        arguments,
        4 + len(b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in arguments])),
    )
