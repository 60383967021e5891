"""Bytes that lie in several places and go out as one.

Pure.  A stored batch is sent as it is, between a head and two bytes: joined, all of it would be copied for their sake.
"""

from __future__ import annotations


class Parts:
    """Of these `pieces`; `len` is the bytes of all, `bytes` joins them."""

    __slots__ = ("_size_bytes", "pieces")

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self._size_bytes = sum(map(len, pieces))

    def __len__(self) -> int:
        return self._size_bytes

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)
