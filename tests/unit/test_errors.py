"""busd.words.errors: the table of codes, and foreign bytes in texts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import busd
from busd.words.errors import ERRORS, BusError, quoted


def test_codes_are_words_that_stay() -> None:
    assert all(re.fullmatch(r"[A-Z]+", code) for code in ERRORS)
    assert [code for code, kind in ERRORS.items() if kind.fatal] == [
        "CUT",
        "SYNTAX",
        "TIMEOUT",
        "STOPPING",
        "INTERNAL",
    ]


def test_every_error_that_is_raised_has_a_code_of_the_table() -> None:
    """A code is looked up when the connection decides to hang up; a wrong one would fail only then."""
    used = set()
    for path in Path(busd.__file__).parent.rglob("*.py"):
        used |= set(re.findall(r'BusError\(\s*"([^"]*)"', path.read_text()))
    assert used <= set(ERRORS)
    assert {"UNKNOWN", "ARG", "TOPIC", "PATTERN", "POS", "TOOBIG", "LIMIT", "CUT", "PROTO", "SYNTAX"} <= used


def test_an_error_is_what_is_answered() -> None:
    error = BusError("POS", "9 is beyond the end")
    assert str(error) == "POS 9 is beyond the end"
    assert not error.fatal
    assert BusError("CUT", "").fatal


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "''"),
        (b"plain", "'plain'"),
        ("näh".encode(), "'näh'"),
        (b"a\r\n\0\x1b[", r"'a\r\n\x00\x1b['"),
        (b"\xff\xfe", r"'\xff\xfe'"),
        ("\u2028\u00a0".encode(), r"'\u2028\xa0'"),
        (b"x" * 60, "'" + "x" * 60 + "'"),
        (b"x" * 61, "'" + "x" * 60 + "…'"),
        (b"x" * 1_000_000, "'" + "x" * 60 + "…'"),
        (b"\0" * 16, "'" + r"\x00" * 15 + "…'"),
    ],
)
def test_quoted(raw: bytes, text: str) -> None:
    assert quoted(raw) == text


@given(st.binary(max_size=200), st.integers(1, 80))
def test_quoted_is_short_and_printable(raw: bytes, limit: int) -> None:
    text = quoted(raw, limit)
    assert text.isprintable()
    assert len(text) <= limit + len("'…'")
