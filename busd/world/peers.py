"""Peers that vanished: a TCP connection whose other machine is gone says nothing, for ever.

Two cases.  Nothing is on its way to the peer: keep-alive asks it.  Something is: then keep-alive does not ask, and the
retransmissions give up after a quarter of an hour only, so they are looked at here.  TCP_USER_TIMEOUT would do both,
and would also cut off a reader that lives and does not read for so long (measured, Linux 6), which is promised its
place.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios

from busd.words.settings import MAX_KEEP_ALIVE_S, MIN_KEEP_ALIVE_S
from busd.words.units import NS_PER_S

# struct tcp_info: tcpi_retransmits and tcpi_probes, unanswered by now; tcpi_last_ack_recv, ms.
_RETRANSMITS_AT, _PROBES_AT, _LAST_ACK_AT, _INFO_BYTES = 2, 3, 56, 60
_PROBES = 3


def keep_alive(sock: socket.socket, within_ns: int) -> None:
    """Have the kernel find a TCP peer that is gone within this time, in seconds, from 3 to 45,000: asked after about
    two thirds of it, then three times (twice, when three do not fit)."""
    within_s = min(max(MIN_KEEP_ALIVE_S, within_ns // NS_PER_S), MAX_KEEP_ALIVE_S)
    pause_s = max(1, within_s // 9)
    probes = min(_PROBES, within_s - 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", within_s - probes * pause_s),
        ("TCP_KEEPINTVL", pause_s),
        ("TCP_KEEPCNT", probes),
    ):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def silent_ns(sock: socket.socket) -> int:
    """For how long a TCP peer has left unanswered what was sent to it; 0 when nothing is unanswered.

    A peer that lives answers also when it has no room: a moment later this is 0.
    """
    if not hasattr(socket, "TCP_INFO"):
        return 0
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    if len(info) < _INFO_BYTES or not (info[_RETRANSMITS_AT] or info[_PROBES_AT]):
        return 0
    silent_ms: int = struct.unpack_from("=I", info, _LAST_ACK_AT)[0]
    return silent_ms * 1_000_000


def unacknowledged_bytes(sock: socket.socket) -> int:
    """Bytes (and the end) that the kernel has and the peer's kernel has not acknowledged; 0 where nobody can tell."""
    try:
        return int(struct.unpack("=i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    except OSError:
        return 0
