"""busd.words.groups: names, tokens, and the arguments of ACK, NACK, TOUCH, SEEK, FORGET, GROUPS."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busd.words.errors import BusError
from busd.words.groups import (
    MAX_REASON_BYTES,
    check_group,
    format_token,
    parse_ack,
    parse_forget,
    parse_groups,
    parse_nack,
    parse_seek,
    parse_token,
    parse_tokens,
    parse_touch,
)
from busd.words.requests import Ack, Forget, Groups, Nack, Request, Seek, Token, Touch
from busd.words.units import FIRST, MAX_OFFSET, NEXT

TOKENS = st.tuples(st.integers(1, MAX_OFFSET), st.integers(1, 999_999_999))
NO_TOKENS = [
    b"",
    b"0",
    b"00",
    b"-1",
    b"+1",
    b"1_0",
    b" 1",
    b"1 ",
    b"1.",
    b".1",
    b"1.0",
    b"1.2.3",
    b"..1",
    b"1e3",
    b"%d" % (MAX_OFFSET + 1),
    b"9" * 20,
    b"1." + b"9" * 10,
    "٣".encode(),
    b"x",
    b"*",
]


@pytest.mark.parametrize("name", [b"g", b"A-Z_09", b"-", b"_g", b"x" * 64])
def test_names(name: bytes) -> None:
    assert check_group(name) == name


@pytest.mark.parametrize("name", [b"", b"a.b", b"a b", b"*", b">", b"a,b", b"g\n", "ä".encode(), b"x" * 65])
def test_what_is_no_name(name: bytes) -> None:
    with pytest.raises(BusError, match=r"^ARG '.*' is not a group's name: A-Z a-z 0-9 _ -, 64 bytes at most$"):
        check_group(name)


@pytest.mark.parametrize(
    ("raw", "token"),
    [(b"17", (17, 1)), (b"17.2", (17, 2)), (b"17.1", (17, 1)), (b"007", (7, 1)), (b"%d" % MAX_OFFSET, (MAX_OFFSET, 1))],
)
def test_tokens(raw: bytes, token: Token) -> None:
    assert parse_token(raw) == token
    assert parse_tokens([raw]) == [token]


@given(st.lists(TOKENS, max_size=5))
def test_a_token_is_read_as_it_was_written(tokens: list[Token]) -> None:
    raws = [format_token(token) for token in tokens]
    assert [parse_token(raw) for raw in raws] == tokens
    assert parse_tokens(raws) == tokens
    assert all((b"." in raw) is (tries > 1) for raw, (_, tries) in zip(raws, tokens, strict=True))


@pytest.mark.parametrize("raw", NO_TOKENS)
@pytest.mark.parametrize("others", [[], [b"1"], [b"1.2"]])
def test_what_is_no_token(raw: bytes, others: list[bytes]) -> None:
    with pytest.raises(BusError) as caught:
        parse_tokens([*others, raw])
    assert caught.value.code == "ARG"
    assert caught.value.text.endswith(" is not a token like 17 or 17.2")


@pytest.mark.parametrize(
    ("parse", "line", "request_"),
    [
        (parse_ack, b"1 2 3.4", Ack([(1, 1), (2, 1), (3, 4)])),
        (parse_ack, b"..7", Ack([], (7, 1))),
        (parse_ack, b"..7.2 9", Ack([(9, 1)], (7, 2))),
        (parse_nack, b"7.2", Nack((7, 2))),
        (parse_nack, b"7 no disk", Nack((7, 1), None, b"no disk")),
        (parse_nack, b"7 delay 5s", Nack((7, 1), 5 * 10**9)),
        (parse_nack, b"7 DELAY 0s DELAY x", Nack((7, 1), 0, b"DELAY x")),
        (parse_nack, b"7 no DELAY 5s", Nack((7, 1), None, b"no DELAY 5s")),
        (parse_nack, b"7 " + b"x" * MAX_REASON_BYTES, Nack((7, 1), None, b"x" * MAX_REASON_BYTES)),
        (parse_touch, b"1 2.2", Touch([(1, 1), (2, 2)])),
        (parse_seek, b"g FIRST", Seek(b"g", FIRST)),
        (parse_seek, b"g next", Seek(b"g", NEXT)),
        (parse_forget, b"g", Forget(b"g")),
        (parse_groups, b"", Groups((b">",))),
        (parse_groups, b"a,*", Groups((b"a", b"*"))),
    ],
)
def test_commands(parse: Callable[[list[bytes]], Request], line: bytes, request_: Request) -> None:
    assert parse(line.split()) == request_


@pytest.mark.parametrize(
    ("parse", "args", "text"),
    [
        (parse_ack, [], "ARG ACK takes tokens: ACK token …, or ACK ..token for that one and all sent before it"),
        (parse_ack, [b".."], "ARG '' is not a token like 17 or 17.2"),
        (parse_ack, [b"1", b"..2"], "ARG '..2' is not a token like 17 or 17.2"),
        (parse_nack, [], "ARG NACK takes a token: NACK token [DELAY dur] [reason]"),
        (parse_nack, [b"..7"], "ARG '..7' is not a token like 17 or 17.2"),
        (parse_nack, [b"7", b"DELAY"], "ARG DELAY takes a value"),
        (parse_nack, [b"7", b"DELAY", b"x"], "ARG 'x' is not a duration like 250ms 5s 10m 2h 7d"),
        (parse_nack, [b"7", b"a\nb"], "ARG the reason holds CR, LF or NUL"),
        (parse_nack, [b"7", b"\xff"], "ARG the reason is not UTF-8"),
        (parse_nack, [b"7", b"x" * 500, b"y" * 500], "ARG a reason of 1001 bytes; it may have 1000"),
        (parse_touch, [], "ARG TOUCH takes tokens: TOUCH token …"),
        (parse_touch, [b"..7"], "ARG '..7' is not a token like 17 or 17.2"),
        (parse_seek, [b"g"], "ARG SEEK takes a group and a position, not 1 arguments"),
        (parse_seek, [b"g", b"soon"], "POS 'soon' is not a position: an offset from 1, first, next, end, "),
        (parse_seek, [b"a.b", b"1"], "ARG 'a.b' is not a group's name"),
        (parse_forget, [], "ARG FORGET takes one group, not 0 arguments"),
        (parse_forget, [b"*"], "ARG '*' is not a group's name"),
        (parse_groups, [b"a", b"b"], "ARG GROUPS takes one argument at most, not 2"),
        (parse_groups, [b"a."], "PATTERN 'a.' is not a pattern"),
    ],
)
def test_bad_commands(parse: Callable[[list[bytes]], Request], args: list[bytes], text: str) -> None:
    with pytest.raises(BusError) as caught:
        parse(args)
    assert str(caught.value).startswith(text)
