"""An outbox that can wait: what is written while it is held goes out as one write, which is one call of the system.

Invariants: nothing is reordered, and what waits counts as buffered.
"""

from __future__ import annotations

from busd.broker.ports import Outbox
from busd.rules.parts import Parts

# A call costs about as much as copying 64 KiB does; more is not worth waiting for, and the outbox would seem full.
_ENOUGH_BYTES = 16 * 1024


class Cork:
    """See the module."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._held = False
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._events = 0
        self._written = 0

    def write(self, data: bytes | Parts, events: int = 1) -> None:
        """See Outbox."""
        size_bytes = len(data)
        self._written += size_bytes
        if not self._held or (size_bytes >= _ENOUGH_BYTES and not self._pieces):
            self._outbox.write(data, events)
            return
        self._pieces.append(bytes(data))
        self._bytes += size_bytes
        self._events += events
        if self._bytes >= _ENOUGH_BYTES:
            self.flush()

    def buffered(self) -> int:
        """See Outbox."""
        return self._outbox.buffered() + self._bytes

    def hold(self) -> None:
        """Wait from now on, until there is enough for a call."""
        self._held, self._written = True, 0

    def release(self) -> int:
        """Write what waits, and wait no more; returns how many bytes were written since `hold`."""
        self._held = False
        self.flush()
        return self._written

    def flush(self) -> None:
        """Write what waits."""
        if not self._pieces:
            return
        pieces, events = self._pieces, self._events
        self._pieces, self._bytes, self._events = [], 0, 0
        self._outbox.write(pieces[0] if len(pieces) == 1 else b"".join(pieces), events)
