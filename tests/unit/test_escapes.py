r"""busd.words.escapes: any bytes as one line and back, with the escapes of `printf %b`."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from busd.words.errors import BusError
from busd.words.escapes import escape, needs_escape, unescape

PAIRS = [
    (b"", b""),
    (b"plain", b"plain"),
    (b"a b\tc", b"a b\tc"),
    (b"a\nb", rb"a\nb"),
    (b"a\r\n", rb"a\r\n"),
    (b"\0", rb"\0000"),
    (b"\x007", rb"\00007"),
    (b"\\n", rb"\\n"),
    (b"\\", rb"\\"),
    (b" a ", rb"\0040a\0040"),
    (b"\ta\t", rb"\0011a\0011"),
    (b" ", rb"\0040"),
    (b"  ", rb"\0040\0040"),
    (b"\xff\x80", b"\xff\x80"),
    (b"\x0b\x0c", b"\x0b\x0c"),
]


@pytest.mark.parametrize(("payload", "text"), PAIRS)
def test_there_and_back(payload: bytes, text: bytes) -> None:
    assert escape(payload) == text
    assert unescape(text) == payload


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        (rb"\t", b"\t"),
        (rb"\0101", b"A"),
        (rb"\0377", b"\xff"),
        (rb"\07", b"\7"),
        (rb"\0018", b"\x018"),
        (rb"\01234", b"S4"),
    ],
)
def test_escapes_that_are_read_and_never_written(text: bytes, payload: bytes) -> None:
    assert unescape(text) == payload


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"ab\\", r"a lone backslash at byte 2 of the payload; escapes are \\ \n \r \t \0nnn"),
        (rb"\a", r"a lone backslash at byte 0 of the payload; escapes are \\ \n \r \t \0nnn"),
        (rb"\x41", r"a lone backslash at byte 0 of the payload; escapes are \\ \n \r \t \0nnn"),
        (rb"\101", r"a lone backslash at byte 0 of the payload; escapes are \\ \n \r \t \0nnn"),
        (rb"\0", r"a lone backslash at byte 0 of the payload; escapes are \\ \n \r \t \0nnn"),
        (rb"\\\8", r"a lone backslash at byte 2 of the payload; escapes are \\ \n \r \t \0nnn"),
        (rb"x\0400", "an octal escape above 0377 at byte 1 of the payload"),
    ],
)
def test_bad_escapes(text: bytes, error: str) -> None:
    with pytest.raises(BusError) as caught:
        unescape(text)
    assert (caught.value.code, caught.value.text) == ("ARG", error)


@given(st.binary())
@example(b" \n")
@example(b"\t")
def test_any_bytes(payload: bytes) -> None:
    text = escape(payload)
    assert unescape(text) == payload
    assert not needs_escape(text)


@given(st.binary())
@example(b"a ")
def test_what_needs_no_escape_survives_a_shell_as_it_is(payload: bytes) -> None:
    alone = not set(payload) & set(b"\r\n\0") and payload.strip(b" \t") == payload
    assert needs_escape(payload) is not alone
