r"""What every record has around it: a kind, a checksum and a length, 23 bytes that tell where the next one begins.

    +<kind> <crc> <length> <fields…>\r\n<body>

See record.py, which knows the kinds.  Pure.
"""

from __future__ import annotations

import re

from busd.rules.checksum import crc32

PREFIX_BYTES = 23
# A length beyond this is damage, not a record: a batch is one command or 256 KiB of them.
MAX_RECORD_BYTES = 1 << 30

_PREFIX = re.compile(rb"\+([BHSCI]) ([0-9a-f]{8}) ([0-9]{10}) ")


class BadRecord(Exception):
    """The bytes are not a record.

    `reason`: `short` (cut off), `form` (not one at all), `crc` (one that was changed), `format` (a newer busd's).
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


def envelope(kind: str, fields: bytes, body: bytes = b"") -> bytes:
    """Any record: prefix, fields, CR LF, body."""
    rest = b"%010d %b\r\n" % (len(fields) + 2 + len(body), fields)
    return b"+%b %08x %b%b" % (kind.encode(), crc32(body, crc32(rest)), rest, body)


def peek(data: bytes | memoryview, at: int = 0) -> tuple[str, int]:
    """Kind and whole size in bytes of the record at `at`; 23 bytes are enough.  The hop of a hole is not in the size.

    Raises:
        BadRecord: `short` when there are fewer bytes, `form` when it is no prefix.
    """
    match = _PREFIX.match(data, at)
    if match is None:
        reason = "short" if len(data) - at < PREFIX_BYTES else "form"
        raise BadRecord(reason, "no record prefix")
    size = PREFIX_BYTES + int(match[3])
    if size > MAX_RECORD_BYTES:
        raise BadRecord("form", f"a length of {size} bytes")
    return match[1].decode(), size


def check(record: bytes) -> None:
    """Raises BadRecord unless the CRC of this one whole record holds."""
    if int(record[3:11], 16) != crc32(memoryview(record)[12:]):
        raise BadRecord("crc", "the checksum does not hold")
