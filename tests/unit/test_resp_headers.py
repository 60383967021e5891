"""busd.rules.resp_headers: the columns give what each command by itself gives, and most commands go through them."""

from __future__ import annotations

import pytest

from busd.rules import resp, resp_headers
from busd.rules.resp import RespDecoder
from busd.words.commands import build_request
from busd.words.requests import Publish, Request
from busd.words.settings import Limits
from tests.support.flat import flat

SMALL = Limits(payload_bytes=40, line_bytes=300, headers=3, header_bytes=60)
NUMBER = 50


def command(*arguments: bytes) -> bytes:
    """As clients write it."""
    return b"*%d\r\n" % len(arguments) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in arguments])


def decode(commands: list[bytes], limits: Limits = SMALL) -> list[object]:
    """Through the shortcut; checked against each command by itself."""
    alone: list[Request] = []
    for one in commands:
        alone += RespDecoder(limits).feed(one)
    found = flat(RespDecoder(limits).feed(b"".join(commands)))
    assert found == flat(alone)
    return found


def plainly(commands: list[bytes], monkeypatch: pytest.MonkeyPatch, limits: Limits = SMALL) -> int:
    """How many commands go through the grammar; all is as it says."""
    expected = decode(commands, limits)
    built: list[bytes] = []

    def build(verb: bytes, args: list[bytes], limits: Limits) -> Request:
        built.append(verb)
        return build_request(verb, args, limits)

    monkeypatch.setattr(resp, "build_request", build)
    assert flat(RespDecoder(limits).feed(b"".join(commands))) == expected
    return len(built)


PAYLOADS = [b"", b"x", b"\r\n", b"\r\n$1\r\nk", b"*5\r\n$3\r\nPUB\r\n", b"\r\n*5\r\n$3\r\nPUB\r\n$1\r\nt", b"x" * 40]


@pytest.mark.parametrize("verb", [b"PUB", b"pub"])
@pytest.mark.parametrize(
    "headers",
    [
        [b"unit", b"C"],
        [b"host", b"a", b"sent", b"17"],
        [b"k", b"with blanks \t and %d"],
        [b"id", b"7", b"key", "grün".encode(), b"ttl", b"5s"],
    ],
)
def test_commands_with_headers_do_not_go_one_by_one(
    headers: list[bytes], verb: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = [command(verb, b"t.%d" % (n % 3), PAYLOADS[n % 2], *headers) for n in range(NUMBER)]
    assert plainly(commands, monkeypatch) == 0
    (run,) = RespDecoder(SMALL).feed(b"".join(commands))
    assert isinstance(run, Publish)
    assert run.items == [[PAYLOADS[n % 2], *headers] for n in range(NUMBER)]
    assert (run.headers, run.ids) == (True, b"id" in headers)


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("value", [b"", b"C", b"$1", b"*5"])
def test_payloads_may_hold_anything(payload: bytes, value: bytes) -> None:
    commands = [command(b"PUB", b"t", payload, b"k", b"v%d" % n, b"l", value) for n in range(NUMBER)]
    assert len(decode(commands)) == NUMBER


ODD = [
    command(b"PING"),
    command(b"PUB", b"t", b"x"),
    command(b"PUB", b"t"),
    command(b"PUB", b"t", b"x", b"k"),
    command(b"PUB", b"t", b"x", b"l", b"v"),
    command(b"PUB", b"t", b"x", b"k", b"v", b"l", b"w"),
    command(b"PUB", b"t", b"x", b"k", b"v", b"k", b"w"),
    command(b"PUB", b"t", b"x", *[b"k", b"v"] * 4),
    command(b"PUB", b"a..b", b"x", b"k", b"v"),
    command(b"PUB", b"", b"x", b"k", b"v"),
    command(b"PUB", b"t", b"x" * 41, b"k", b"v"),
    command(b"PUB", b"t", b"x", b"k", b"v" * 60),
    command(b"PUB", b"t", b"x", b"k", b"v" * 400),
    command(b"PUB", b"t", b"x", b"k", b"a\r\nb"),
    command(b"PUB", b"t", b"x", b"k", b"\0"),
    command(b"PUB", b"t", b"x", b"k", b"\xc3"),
    command(b"PUB", b"t", b"x", b"k.l", b"v"),
    command(b"PUB", b"t", b"x", b"", b"v"),
    command(b"PUB", b"t", b"x", b"id", b""),
    command(b"PUB", b"t", b"x", b"sent", b"now"),
    command(b"PUB", b"t", b"x", b"ttl", b"0s"),
    command(b"pub", b"t", b"x", b"k", b"v"),
    b"\r\n",
    b"*0\r\n",
]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("place", [0, 1, 25, 50])
def test_a_command_among_others_means_what_it_means_alone(odd: bytes, place: int) -> None:
    commands = [command(b"PUB", b"t", b"x", b"k", b"%d" % n) for n in range(NUMBER)]
    assert len(decode([*commands[:place], odd, *commands[place:]])) >= NUMBER
    decode([odd] * NUMBER)
    decode([odd, commands[0]] * NUMBER)


def test_one_in_doubt_leaves_the_others_to_the_shortcut(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = [command(b"PUB", b"t", b"x", b"k", b"%d" % n) for n in range(1000)]
    commands[500] = command(b"PUB", b"t", b"x", b"k", b"\0")
    commands[800] = command(b"PING")
    assert plainly(commands, monkeypatch) < 5


def test_the_first_in_doubt_is_found_by_halving(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = []
    run = resp_headers._run

    def counted(rows: list[list[bytes]], names: tuple[bytes, ...], limits: Limits) -> Publish | None:
        looked_at.append(len(rows))
        return run(rows, names, limits)

    monkeypatch.setattr(resp_headers, "_run", counted)
    for place in (0, 1, 500, 990):
        commands = [command(b"PUB", b"t", b"x", b"k", b"%d" % n) for n in range(1000)]
        commands[place] = command(b"PUB", b"t", b"x", b"l", b"v")
        looked_at.clear()
        decode(commands)
        assert len(looked_at) < 50
        assert sum(looked_at) < 6 * len(commands)


@pytest.mark.parametrize("wrong", [b"$01", b"$2", b"$0", b"+1", b"$-1"])
def test_a_length_that_is_none_is_the_end(wrong: bytes) -> None:
    good = command(b"PUB", b"t", b"x", b"k", b"v")
    for at in range(5):
        parts = good.split(b"\r\n")
        parts[1 + 2 * at] = wrong
        data = good * 8 + b"\r\n".join(parts) + good * 8
        plain = RespDecoder(SMALL)
        alone = [request for start in range(len(data)) for request in plain.feed(data[start : start + 1])]
        assert flat(RespDecoder(SMALL).feed(data)) == flat(alone)


def test_cut_anywhere() -> None:
    data = b"".join([command(b"PUB", b"t", PAYLOADS[n % 7], b"k", b"%d" % n) for n in range(8)])
    whole = flat(RespDecoder(SMALL).feed(data))
    assert len(whole) == 8
    for at in range(len(data)):
        decoder = RespDecoder(SMALL)
        assert flat(decoder.feed(data[:at]) + decoder.feed(data[at:])) == whole
