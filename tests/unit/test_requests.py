"""busd.words.requests: what the two dialects share, and what not."""

from __future__ import annotations

from typing import get_args

from busd.words.errors import BusError
from busd.words.requests import BARE_FORMATS, INLINE_FORMATS, RESP_FORMATS, Bad, Format, Publish, Quit


def test_every_format_belongs_to_one_dialect() -> None:
    assert sorted(INLINE_FORMATS + RESP_FORMATS) == sorted(get_args(Format))
    assert set(BARE_FORMATS) <= set(INLINE_FORMATS)


def test_defaults() -> None:
    assert Quit().eol == b"\n"
    run = Publish(b"t", [b"x"], 1)
    assert (run.answers, run.kind, run.headers, run.eol) == ("each", "message", False, b"\n")


def test_an_error_does_not_keep_where_it_was_raised() -> None:
    """The frames would keep every byte of the read that it came in."""
    try:
        try:
            b"\xff".decode()
        except UnicodeDecodeError:
            raise BusError("ARG", "not UTF-8") from None
    except BusError as error:
        bad = Bad(error)
    assert bad.error.__traceback__ is None
    assert bad.error.__context__ is None
