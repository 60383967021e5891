r"""The escapes of ESC lines and EPUB: a payload of any bytes as one line that `printf %b` turns back.

    \\ backslash   \n LF   \r CR   \t tab   \0nnn the byte with this octal number (three digits when written)

A blank at either end is written as \0040 or \0011, because `read -r` in a shell would take it away.
"""

from __future__ import annotations

import re

from busd.words.errors import BusError

_SPECIAL = re.compile(rb"[\\\n\r\0]")
_ESCAPED = {b"\\": rb"\\", b"\n": rb"\n", b"\r": rb"\r", b"\0": rb"\0000"}
_SEQUENCE = re.compile(rb"\\(\\|n|r|t|0[0-7]{1,3})?")
_PLAIN = {b"\\": b"\\", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def needs_escape(payload: bytes) -> bool:
    """True when the payload cannot stand verbatim at the end of a MSG line."""
    return (
        b"\n" in payload
        or b"\r" in payload
        or b"\0" in payload
        or payload[:1] in (b" ", b"\t")
        or payload[-1:] in (b" ", b"\t")
    )


def escape(payload: bytes) -> bytes:
    """The payload as one line without CR, LF, NUL or blanks at its ends; `unescape` gives it back."""
    text = _SPECIAL.sub(lambda match: _ESCAPED[match[0]], payload)
    if text[-1:] in (b" ", b"\t"):
        text = text[:-1] + b"\\0%03o" % text[-1]
    if text[:1] in (b" ", b"\t"):
        text = b"\\0%03o" % text[0] + text[1:]
    return text


def unescape(text: bytes) -> bytes:
    """What `escape` made the text from; also what `printf %b` would print for these escapes.

    Raises:
        BusError: ARG, at an escape that is none of them.
    """
    return _SEQUENCE.sub(_decode, text) if b"\\" in text else text


def _decode(match: re.Match[bytes]) -> bytes:
    sequence = match[1]
    if sequence is None:
        raise BusError(
            "ARG", rf"a lone backslash at byte {match.start()} of the payload; escapes are \\ \n \r \t \0nnn"
        )
    if sequence[:1] == b"0":
        value = int(sequence, 8)
        if value > 255:
            raise BusError("ARG", f"an octal escape above 0377 at byte {match.start()} of the payload")
        return bytes((value,))
    return _PLAIN[sequence]
