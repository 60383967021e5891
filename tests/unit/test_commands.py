"""busd.words.commands: the table, and what each verb makes of its arguments in both dialects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busd.words import requests as rq
from busd.words.commands import COMMANDS, HOUSEKEEPING, INFO_SECTIONS, build_line_request, build_request
from busd.words.errors import ERRORS
from busd.words.settings import Limits
from busd.words.units import Base, Position

LIMITS = Limits(payload_bytes=10, line_bytes=60, headers=2, header_bytes=20, in_flight=100)
NACK = rq.Nack((3, 1), 5 * 10**9, b"no disk")
# A good command of every verb; None where the dialect has none.
GOOD: dict[str, tuple[bytes | None, list[bytes] | None, rq.Request]] = {
    "PUB": (b"PUB t a b", [b"PUB", b"t", b"a b"], rq.Publish(b"t", [b"a b"], 3)),
    "EPUB": (rb"EPUB t a\nb", None, rq.Publish(b"t", [b"a\nb"], 3)),
    "HPUB": (b"HPUB t k=v :ab", None, rq.Publish(b"t", [[b"ab", b"k", b"v"]], 4, headers=True)),
    "MPUB": (None, [b"MPUB", b"t", b"a", b""], rq.Publish(b"t", [b"a", b""], 1, answers="first")),
    "SUB": (b"SUB a,b LAST 2 FORMAT raw", None, rq.Subscribe((b"a", b"b"), last=2, format="raw")),
    "READ": (b"READ a FORMAT json", None, rq.Read((b"a",), format="json")),
    "UNSUB": (b"UNSUB", [b"UNSUB"], rq.Unsub()),
    "ACK": (b"ACK ..3 17.2", [b"ACK", b"..3", b"17.2"], rq.Ack([(17, 2)], (3, 1))),
    "NACK": (b"NACK 3 delay 5s no  disk", [b"NACK", b"3", b"DELAY", b"5s", b"no disk"], NACK),
    "TOUCH": (b"TOUCH 3 4.2", [b"TOUCH", b"3", b"4.2"], rq.Touch([(3, 1), (4, 2)])),
    "SEEK": (b"SEEK g 7", [b"SEEK", b"g", b"7"], rq.Seek(b"g", Position(Base.OFFSET, 7))),
    "FORGET": (b"FORGET g", [b"FORGET", b"g"], rq.Forget(b"g")),
    "GROUPS": (b"GROUPS a,b", [b"GROUPS", b"a,b"], rq.Groups((b"a", b"b"))),
    "RESET": (b"RESET a.>,b", [b"RESET", b"a.>,b"], rq.Reset((b"a.>", b"b"))),
    "EOF": (b"EOF t", [b"EOF", b"t"], rq.Publish(b"t", [b""], 0, kind="eof")),
    "TOPICS": (b"TOPICS a.*", [b"TOPICS", b"a.*"], rq.Topics((b"a.*",))),
    "INFO": (b"INFO Log", [b"INFO", b"LOG"], rq.Info("log")),
    "CONNS": (b"CONNS", [b"CONNS"], rq.Conns()),
    "HELP": (b"HELP pub", [b"HELP", b"Pub"], rq.Help("PUB")),
    "PING": (b"PING hi", [b"PING", b"hi"], rq.Ping(b"hi")),
    "HELLO": (b"HELLO", [b"HELLO"], rq.Hello()),
    "AUTH": (b"AUTH web secret", [b"AUTH", b"web", b"secret"], rq.Auth(b"web", b"secret")),
    "QUIET": (b"QUIET off", [b"QUIET", b"OFF"], rq.Quiet(False)),
    "QUIT": (b"QUIT", [b"QUIT"], rq.Quit()),
}
# These differ between the dialects in what they make, not in whether they exist.
RESP_ONLY_GOOD: list[tuple[list[bytes], rq.Request]] = [
    ([b"SUB", b"a", b"FROM", b"1"], rq.Subscribe((b"a",), start=Position(Base.OFFSET, 1), format="msg")),
    ([b"SUB", b"a", b"FORMAT", b"batch"], rq.Subscribe((b"a",), format="batch")),
    ([b"READ", b"a"], rq.Read((b"a",), format="msg")),
    ([b"PUB", b"t", b"x", b"k", b"v"], rq.Publish(b"t", [[b"x", b"k", b"v"]], 3, headers=True)),
    ([b"SUB", b"a", b"GROUP", b"g"], rq.Subscribe((b"a",), format="msg", group=b"g")),
    ([b"PING"], rq.Ping()),
    ([b"HELLO", b"2"], rq.Hello(2)),
    ([b"HELLO", b"3", b"setname", b"auth"], rq.Hello(3)),
    ([b"HELLO", b"3", b"auth", b"u", b"p", b"setname", b"x"], rq.Hello(3, rq.Auth(b"u", b"p"))),
    ([b"HELLO", b"2", b"setname", b"x", b"AUTH", b"u", b"p"], rq.Hello(2, rq.Auth(b"u", b"p"))),
    ([b"AUTH", b"p"], rq.Auth(b"", b"p")),
    ([b"CLIENT", b"SETINFO", b"LIB-VER", b"1"], rq.Housekeeping()),
    ([b"select", b"0"], rq.Housekeeping()),
    ([b"COMMAND", b"DOCS"], rq.Housekeeping(empty=True)),
    ([b"CONFIG", b"GET", b"save"], rq.Housekeeping(empty=True)),
    ([b"ECHO", b"hi"], rq.Ping(b"hi")),
]
MEMBER = rq.Subscribe((b"a",), group=b"g", window=9, wait_ns=5 * 10**9, tries=3)
INLINE_ONLY_GOOD: list[tuple[bytes, rq.Request]] = [
    (b"PUB t", rq.Publish(b"t", [b""], 0)),
    (b"PUB t ", rq.Publish(b"t", [b""], 0)),
    (b" \tpub\t t  x ", rq.Publish(b"t", [b" x "], 3)),
    (b"PUB t a\0\r\x0b", rq.Publish(b"t", [b"a\0\r\x0b"], 4)),
    (b"EPUB t", rq.Publish(b"t", [b""], 0)),
    (b"HPUB t : x ", rq.Publish(b"t", [b" x "], 3)),
    (b"SUB\ta \t LIMIT\t1 ", rq.Subscribe((b"a",), limit=1)),
    (b"SUB a GROUP g WINDOW 9 WAIT 5s TRIES 3", MEMBER),
    (b"GROUPS", rq.Groups((b">",))),
    (b"TOPICS", rq.Topics((b">",))),
    (b"INFO", rq.Info()),
    (b"HELP", rq.Help()),
    (b"PING", rq.Ping()),
    (b"QUIET", rq.Quiet()),
]


def line(raw: bytes) -> rq.Request:
    """The request of a line that is not empty."""
    request = build_line_request(raw, b"\n", LIMITS)
    assert request is not None
    return request


def resp(arguments: list[bytes]) -> rq.Request:
    """The request of a RESP command."""
    return build_request(arguments[0], arguments[1:], LIMITS)


def with_eol(request: rq.Request, eol: bytes) -> rq.Request:
    """The same request, asked with this line end."""
    request.eol = eol
    return request


def error_of(request: rq.Request) -> tuple[str, str]:
    """Code and text of a Bad."""
    assert isinstance(request, rq.Bad)
    return request.error.code, request.error.text


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_verb_makes_its_request(verb: str) -> None:
    inline, array, request = GOOD[verb]
    assert inline is not None or array is not None
    if inline is not None:
        assert build_line_request(inline, b"\r\n", LIMITS) == with_eol(request, b"\r\n")
        assert line(inline.lower() if verb != "INFO" else inline) == with_eol(request, b"\n")
    if array is not None:
        assert resp(array) == with_eol(request, b"\r\n")
        assert resp([array[0].lower(), *array[1:]]) == request


@pytest.mark.parametrize(("array", "request_"), RESP_ONLY_GOOD)
def test_resp(array: list[bytes], request_: rq.Request) -> None:
    assert resp(array) == with_eol(request_, b"\r\n")


@pytest.mark.parametrize(("raw", "request_"), INLINE_ONLY_GOOD)
def test_inline(raw: bytes, request_: rq.Request) -> None:
    assert line(raw) == with_eol(request_, b"\n")


@pytest.mark.parametrize("verb", COMMANDS)
def test_usage_begins_with_the_verb_and_says_something(verb: str) -> None:
    command = COMMANDS[verb]
    assert command.usage.split()[0] == verb
    assert command.summary
    assert "\n" not in command.usage + command.summary


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_verb_exists_in_one_dialect_and_is_refused_clearly_in_the_other(verb: str) -> None:
    """A verb without arguments: whatever else is wrong with it, PROTO means that it is not of this dialect."""
    inline, array = line(verb.encode()), resp([verb.encode()])
    refused = [one for one in (inline, array) if isinstance(one, rq.Bad) and one.error.code == "PROTO"]
    assert len(refused) == (verb in ("EPUB", "HPUB", "MPUB"))
    assert not any(isinstance(one, rq.Bad) and one.unknown for one in (inline, array))


def test_what_to_do_instead_is_said() -> None:
    assert error_of(resp([b"HPUB", b"t", b"x"])) == (
        "PROTO",
        "HPUB is for inline connections; in RESP PUB takes any bytes and headers",
    )
    assert error_of(line(b"mpub t a")) == ("PROTO", "MPUB needs RESP arrays; inline, send a PUB line for each payload")


@pytest.mark.parametrize("verb", HOUSEKEEPING)
def test_what_only_redis_clients_ask_is_unknown_inline(verb: str) -> None:
    request = line(verb.encode())
    assert isinstance(request, rq.Bad)
    assert request.unknown
    assert verb not in COMMANDS


TOPIC = "is not a topic: tokens of A-Z a-z 0-9 _ - joined by dots, 200 bytes at most"


@pytest.mark.parametrize(
    ("raw", "code", "text"),
    [
        (b"NOSUCH x", "UNKNOWN", "no command 'NOSUCH'; HELP lists them"),
        (b"\xff\xfe\0", "UNKNOWN", r"no command '\xff\xfe\x00'; HELP lists them"),
        (b"PING\x0b", "UNKNOWN", r"no command 'PING\x0b'; HELP lists them"),
        (b"\x0bPUB t x", "UNKNOWN", r"no command '\x0bPUB'; HELP lists them"),
        (b"\r", "UNKNOWN", r"no command '\r'; HELP lists them"),
        (b"PUB", "TOPIC", f"'' {TOPIC}"),
        (b"PUB a\tb", "TOPIC", rf"'a\tb' {TOPIC}"),
        (b"PUB t " + b"x" * 11, "TOOBIG", "a payload of 11 bytes; the limit is 10"),
        (b"EPUB t \\x", "ARG", r"a lone backslash at byte 0 of the payload; escapes are \\ \n \r \t \0nnn"),
        (b"EPUB t " + b"\\n" * 11, "TOOBIG", "a payload of 11 bytes; the limit is 10"),
        (b"EPUB a..b x", "TOPIC", f"'a..b' {TOPIC}"),
        (b"HPUB t k=v", "ARG", "the payload is missing: HPUB topic name=value … :payload"),
        (b"HPUB a..b k", "TOPIC", f"'a..b' {TOPIC}"),
        (b"HPUB t :" + b"x" * 11, "TOOBIG", "a payload of 11 bytes; the limit is 10"),
        (b"HELLO 3", "PROTO", "HELLO chooses a version of RESP; this connection is inline, say HELLO alone"),
        (b"SUB a " + b" " * 60 + b"LIMIT 1", "TOOBIG", "a line of 73 bytes; without a payload the limit is 60"),
        (b"PING a b", "ARG", "PING takes one argument at most, not 2"),
        (b"PING " + b"x" * 11, "TOOBIG", "a payload of 11 bytes; the limit is 10"),
        (b"EOF", "ARG", "EOF takes one topic, not 0 arguments"),
        (b"EOF a b", "ARG", "EOF takes one topic, not 2 arguments"),
        (b"EOF a..b", "TOPIC", f"'a..b' {TOPIC}"),
        (b"RESET", "ARG", "RESET takes one pattern, not 0 arguments"),
        (
            b"RESET _.",
            "PATTERN",
            "'_.' is not a pattern: a topic, where * stands for one token and a final > for the rest",
        ),
        (b"SUB a GROUP g WINDOW 101", "LIMIT", "WINDOW 101; the limit is 100"),
        (b"ACK x", "ARG", "'x' is not a token like 17 or 17.2"),
        (b"TOPICS a b", "ARG", "TOPICS takes one argument at most, not 2"),
        (b"INFO disk", "ARG", f"INFO has no section 'disk'; known are {', '.join(INFO_SECTIONS)}"),
        (b"HELP \xff", "ARG", r"HELP knows no command '\xff'; HELP alone lists them"),
        (b"QUIET maybe", "ARG", "QUIET takes ON or OFF, not 'maybe'"),
        (b"QUIT now", "ARG", "QUIT takes no arguments"),
        (b"UNSUB a", "ARG", "UNSUB takes DRAIN or nothing, not 'a'"),
        (b"CONNS a", "ARG", "CONNS takes no arguments"),
    ],
)
def test_bad_lines(raw: bytes, code: str, text: str) -> None:
    request = build_line_request(raw, b"\r\n", LIMITS)
    assert isinstance(request, rq.Bad)
    assert (request.error.code, request.error.text) == (code, text)
    assert request.unknown is (code == "UNKNOWN")
    assert request.eol == b"\r\n"


@pytest.mark.parametrize(
    ("array", "code", "text"),
    [
        ([b""], "UNKNOWN", "no command ''; HELP lists them"),
        ([b"XADD", b"t"], "UNKNOWN", "no command 'XADD'; HELP lists them"),
        ([b"PUB"], "ARG", "PUB takes a topic, a payload and pairs of header name and value"),
        ([b"PUB", b"t"], "ARG", "PUB takes a topic, a payload and pairs of header name and value"),
        ([b"PUB", b"t", b"x", b"k"], "ARG", "PUB takes a topic, a payload and pairs of header name and value"),
        ([b"PUB", b"a..b", b"x"], "TOPIC", f"'a..b' {TOPIC}"),
        ([b"PUB", b"t", b"x" * 11], "TOOBIG", "a payload of 11 bytes; the limit is 10"),
        (
            [b"PUB", b"t", b"x", b"ttl", b"1"],
            "ARG",
            "the header ttl: '1' is not a duration like 250ms 5s 10m 2h 7d",
        ),
        ([b"MPUB", b"t"], "ARG", "MPUB takes a topic and at least one payload"),
        ([b"MPUB", b"t", b"x", b"y" * 11], "TOOBIG", "a payload of 11 bytes; the limit is 10"),
        ([b"MPUB", b"_t", b"x"], "TOPIC", "'_t' begins with _, which is for the system's own topics"),
        ([b"HELLO", b"4"], "PROTO", "HELLO takes 2 or 3, not '4'"),
        ([b"HELLO", b"3", b"AUTH", b"u"], "ARG", "HELLO takes 2 or 3, then AUTH user token and SETNAME name"),
        (
            [b"HELLO", b"3", b"AUTH", b"u", b"p", b"AUTH", b"u", b"p"],
            "ARG",
            "HELLO takes 2 or 3, then AUTH user token and SETNAME name",
        ),
        ([b"HELLO", b"3", b"SETNAME"], "ARG", "HELLO takes 2 or 3, then AUTH user token and SETNAME name"),
        ([b"HELLO", b"3", b"x", b"y"], "ARG", "HELLO takes 2 or 3, then AUTH user token and SETNAME name"),
        # The token itself is in no error.
        ([b"AUTH"], "ARG", "AUTH takes a token, or a user and a token, not 0 arguments"),
        ([b"AUTH", b"u", b"secret", b"x"], "ARG", "AUTH takes a token, or a user and a token, not 3 arguments"),
        ([b"ECHO", b"x" * 11], "TOOBIG", "a payload of 11 bytes; the limit is 10"),
    ],
)
def test_bad_arrays(array: list[bytes], code: str, text: str) -> None:
    request = resp(array)
    assert error_of(request) == (code, text)
    assert isinstance(request, rq.Bad)
    assert request.unknown is (code == "UNKNOWN")
    assert request.eol == b"\r\n"


@pytest.mark.parametrize("raw", [b"", b" ", b"\t \t"])
def test_an_empty_line_asks_nothing(raw: bytes) -> None:
    assert build_line_request(raw, b"\n", LIMITS) is None


VERBS = st.sampled_from([*(verb.encode() for verb in (*COMMANDS, *HOUSEKEEPING)), b"x", b""])
WORDS = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"t", b"FROM", b"FORMAT", b"raw", b"1", b"SLOW", b"drop", b"k=v", b":x", b"3"]),
)


@given(VERBS, st.lists(WORDS, max_size=6))
def test_nothing_raises(verb: bytes, words: list[bytes]) -> None:
    for request in (resp([verb, *words]), build_line_request(b" ".join([verb, *words]), b"\n", LIMITS)):
        assert not isinstance(request, rq.Bad) or request.error.code in ERRORS


def test_the_items_of_a_run_are_its_own() -> None:
    array = [b"MPUB", b"t", b"a"]
    request = resp(array)
    assert isinstance(request, rq.Publish)
    request.items.append(b"b")
    assert array == [b"MPUB", b"t", b"a"]
