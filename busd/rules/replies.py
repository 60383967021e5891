"""Answers as bytes, inline and RESP: one small encoder for each dialect, the same methods on both.

A table answer is a list of rows; a row is a name (maybe empty) and pairs of name and value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from busd.rules.formats import bulk
from busd.rules.numbers import lines
from busd.rules.parts import Parts
from busd.words.errors import BusError

Pairs = Sequence[tuple[str, str | int]]
Row = tuple[str, Pairs]


class Replies(Protocol):
    """Answers in one dialect; `eol` is the line end of the question."""

    def ok(self, eol: bytes, text: str = "") -> bytes:
        """Done, with a text behind it or without."""

    def error(self, eol: bytes, error: BusError) -> bytes:
        """`-CODE text`."""

    def numbers(self, eol: bytes, first: int, count: int) -> bytes:
        """An answer `:n` for each of `count` consecutive numbers."""

    def text(self, eol: bytes, payload: bytes, status: bool = False) -> bytes:
        """Bytes given back; `status`: a word of ours such as PONG."""

    def mapping(self, eol: bytes, pairs: Pairs) -> bytes:
        """Names and values."""

    def listing(self, eol: bytes, count: int) -> bytes:
        """The beginning of an answer that has so many rows."""

    def rows(self, eol: bytes, rows: Sequence[Row]) -> bytes:
        """Some of them, one a thing."""


class InlineReplies:
    """Lines."""

    def ok(self, eol: bytes, text: str = "") -> bytes:
        """See Replies."""
        return b"+OK%b%b" % (b" " + text.encode() if text else b"", eol)

    def error(self, eol: bytes, error: BusError) -> bytes:
        """See Replies."""
        return b"-%b %b%b" % (error.code.encode(), error.text.encode("utf-8", "backslashreplace"), eol)

    def numbers(self, eol: bytes, first: int, count: int) -> bytes:
        """See Replies."""
        return b":%d%b" % (first, eol) if count == 1 else lines(first, count, b":", eol)

    def text(self, eol: bytes, payload: bytes, status: bool = False) -> bytes:
        """See Replies."""
        return payload + eol

    def mapping(self, eol: bytes, pairs: Pairs) -> bytes:
        """See Replies."""
        return self.listing(eol, len(pairs)) + _lines(eol, [f"{name}={value}" for name, value in pairs])

    def listing(self, eol: bytes, count: int) -> bytes:
        """See Replies."""
        return b"*%d%b" % (count, eol)

    def rows(self, eol: bytes, rows: Sequence[Row]) -> bytes:
        """See Replies."""
        return _lines(
            eol, [" ".join(([name] if name else []) + [f"{k}={v}" for k, v in pairs]) for name, pairs in rows]
        )


def _lines(eol: bytes, texts: list[str]) -> bytes:
    return b"".join([text.encode() + eol for text in texts])


class RespReplies:
    """RESP2 until `version` is 3."""

    version = 2

    def ok(self, eol: bytes, text: str = "") -> bytes:
        """See Replies."""
        return b"+OK%b\r\n" % (b" " + text.encode() if text else b"")

    def error(self, eol: bytes, error: BusError) -> bytes:
        """See Replies."""
        return b"-%b %b\r\n" % (error.code.encode(), error.text.encode("utf-8", "backslashreplace"))

    def numbers(self, eol: bytes, first: int, count: int) -> bytes:
        """See Replies."""
        return b":%d\r\n" % first if count == 1 else lines(first, count, b":", b"\r\n")

    def text(self, eol: bytes, payload: bytes, status: bool = False) -> bytes:
        """See Replies."""
        return b"+%b\r\n" % payload if status else bulk(payload)

    def mapping(self, eol: bytes, pairs: Pairs) -> bytes:
        """See Replies."""
        head = b"%%%d\r\n" % len(pairs) if self.version == 3 else b"*%d\r\n" % (2 * len(pairs))
        return head + b"".join([bulk(name.encode()) + _value(value) for name, value in pairs])

    def listing(self, eol: bytes, count: int) -> bytes:
        """See Replies."""
        return b"*%d\r\n" % count

    def rows(self, eol: bytes, rows: Sequence[Row]) -> bytes:
        """See Replies.  The row's own name comes first, under `name`."""
        return b"".join([self.mapping(eol, [*([("name", name)] if name else []), *pairs]) for name, pairs in rows])


def _value(value: str | int) -> bytes:
    return b":%d\r\n" % value if isinstance(value, int) else bulk(value.encode())


class AnswerArray:
    """The outbox of a RESP READ: gathers elements until the whole answer is known."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._events = 0

    def write(self, data: bytes | Parts, events: int = 1) -> None:
        """See Outbox."""
        self._pieces.append(bytes(data))
        self._size += len(data)
        self._events += events

    def buffered(self) -> int:
        """See Outbox."""
        return self._size

    def bound(self, low_bytes: int) -> None:
        """See Outbox: a full answer ends, it does not wait."""

    def bytes(self) -> bytes:
        """The array; nothing of it is kept, for the session has this until its next READ."""
        pieces, self._pieces = self._pieces, []
        return b"*%d\r\n" % self._events + b"".join(pieces)
