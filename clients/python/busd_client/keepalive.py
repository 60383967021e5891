"""Find out that the other side is gone without a word."""

from __future__ import annotations

import contextlib
import socket

# Found after IDLE + COUNT * INTERVAL seconds.
_TIMES = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))


def keep_alive(sock: socket.socket) -> None:
    """Let TCP probe an idle connection, and send small commands at once; a Unix socket needs neither."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _TIMES:
            # Not every system has them; then its own, longer times hold.
            with contextlib.suppress(AttributeError, OSError):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
