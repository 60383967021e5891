"""Find out that the other side is gone without a word, and let it find out the same of us."""

from __future__ import annotations

import contextlib
import socket
import struct

_TCP = (socket.AF_INET, socket.AF_INET6)
# Found after IDLE + COUNT * INTERVAL seconds.
_TIMES = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))


def keep_alive(sock: socket.socket) -> None:
    """Let TCP probe an idle connection, and send small commands at once; a Unix socket needs neither."""
    if sock.family in _TCP:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _TIMES:
            # Not every system has them; then its own, longer times hold.
            with contextlib.suppress(AttributeError, OSError):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def leave_at_once(sock: socket.socket) -> None:
    """Have the end of this socket, also by the death of the process, told by RST instead of FIN.

    For subscriptions over TCP: there FIN means "no more commands, go on streaming", and a quiet server would keep the
    subscription for minutes.  Nothing of ours is lost: we send nothing behind the SUB.
    """
    if sock.family in _TCP:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
