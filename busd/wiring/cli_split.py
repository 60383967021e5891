"""How a stream of bytes becomes messages: by a delimiter, as it is read, or as one.  Pure.

Invariants:
1. Joined again (with the delimiter where there is one) the messages are the input, byte for byte; but a delimiter at
   the very end ends the last message and begins none.
2. What is held is one unfinished message, of at most `limit_bytes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

# More than any server takes by default (1M); it only keeps endless input without a delimiter from filling the memory.
LIMIT_BYTES = 64 << 20
# One MPUB: as much as the server commits at once, and few enough messages that it stays far below its command limit.
GROUP_BYTES = 262_144
GROUP_MESSAGES = 10_000


class TooLong(ValueError):
    """A message is longer than can be held."""


class Splitter(Protocol):
    """Takes what was read, gives messages."""

    def feed(self, data: bytes) -> list[bytes]:
        """Messages that are whole now."""

    def finish(self) -> list[bytes]:
        """What is left at the end of the input."""


class _Held:
    """The beginning of a message whose end has not come."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._chunks: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit_bytes:
            raise TooLong(f"a message of more than {self._limit_bytes} bytes; --block N sends long input in pieces")
        self._chunks.append(data)

    def take(self) -> bytes:
        whole = b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        return whole


class Delimited:
    """Messages end at a delimiter of one byte; the last one also at the end of the input."""

    def __init__(self, delimiter: bytes, limit_bytes: int = LIMIT_BYTES) -> None:
        self._delimiter = delimiter
        self._held = _Held(limit_bytes)

    def feed(self, data: bytes) -> list[bytes]:
        """See Splitter.

        Raises:
            TooLong: no delimiter in the last `limit_bytes`.
        """
        messages = data.split(self._delimiter)
        rest = messages.pop()
        if messages:
            messages[0] = self._held.take() + messages[0]
        self._held.add(rest)
        return messages

    def finish(self) -> list[bytes]:
        """See Splitter."""
        rest = self._held.take()
        return [rest] if rest else []


class AsRead:
    """Each read is a message: for binary streams, where waiting for more would only add delay."""

    def feed(self, data: bytes) -> list[bytes]:
        """See Splitter."""
        return [data]

    def finish(self) -> list[bytes]:
        """See Splitter."""
        return []


class Whole:
    """The input is one message, also an empty one."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._held = _Held(limit_bytes)

    def feed(self, data: bytes) -> list[bytes]:
        """See Splitter.

        Raises:
            TooLong: more than `limit_bytes`.
        """
        self._held.add(data)
        return []

    def finish(self) -> list[bytes]:
        """See Splitter."""
        return [self._held.take()]


def groups(messages: list[bytes]) -> Iterator[list[bytes]]:
    """The messages in order, in groups for one command each."""
    if len(messages) <= GROUP_MESSAGES and sum(map(len, messages)) <= GROUP_BYTES:
        if messages:
            yield messages
        return
    group: list[bytes] = []
    size = 0
    for message in messages:
        if group and (len(group) >= GROUP_MESSAGES or size + len(message) > GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(message)
        size += len(message)
    yield group
