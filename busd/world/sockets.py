"""Listening sockets: addresses in, sockets out; a Unix path is never stolen from a living server.

asyncio unlinks whatever stands at a path, so the binding is done here and asyncio gets the finished socket.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct

# sun_path holds 108 bytes with the closing NUL.
_MAX_PATH_BYTES = 107
# Connections that wait to be taken: with 4,096 a storm of them left 13 MB behind.
_BACKLOG = 1024


class BadAddress(Exception):
    """An address that cannot be listened on; the text says why and what would do."""


def split_address(text: str) -> tuple[str, int]:
    """`host:port` or `[host]:port` apart.

    Raises:
        BadAddress: it is neither.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise BadAddress(f"{text!r} is not an address like 127.0.0.1:7379 or [::1]:7379")
    return host.strip("[]"), int(port)


def listen_tcp(address: str) -> socket.socket:
    """A listening TCP socket.

    Raises:
        BadAddress: the address is wrong or taken.
    """
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        taken = "; another server listens there" if error.errno == errno.EADDRINUSE else ""
        raise BadAddress(f"cannot listen on {address}: {error.strerror or error}{taken}") from None
    sock.setblocking(False)
    return sock


def listen_unix(path: str, mode: int = 0o660) -> socket.socket:
    """A listening Unix socket of this mode.  A dead socket at the path is replaced, anything else is left alone.

    Raises:
        BadAddress: the path is too long, taken by a living server, or not a socket.
    """
    owner = owner_of(path)
    if owner:
        raise BadAddress(f"another server, process {owner}, listens on {path}")
    if owner == 0:
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_mask = os.umask(0o777 & ~mode)
    try:
        sock.bind(path)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise BadAddress(f"cannot listen on {path}: {error.strerror or error}") from None
    finally:
        os.umask(old_mask)
    sock.setblocking(False)
    return sock


def identity(path: str) -> tuple[int, int] | None:
    """Device and inode of what stands at a path, None when nothing does."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def unlink_own(path: str, own: tuple[int, int] | None) -> None:
    """Remove the socket's name, unless somebody else's stands there by now."""
    if own is not None and identity(path) == own:
        os.unlink(path)


def owner_of(path: str) -> int | None:
    """The process that listens at a path: 0 when what stands there is left over, None when nothing does.

    Raises:
        BadAddress: the path is too long, or what stands there is not a socket, or cannot be probed.
    """
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise BadAddress(f"the socket path {path} has more than {_MAX_PATH_BYTES} bytes; use a shorter one")
    try:
        mode = os.stat(path, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadAddress(f"cannot listen on {path}: {error.strerror or error}") from None
    if not stat.S_ISSOCK(mode):
        raise BadAddress(f"{path} exists and is not a socket; it was left alone")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return 0
        except OSError as error:
            raise BadAddress(f"{path} exists and cannot be probed: {error.strerror or error}") from None
        pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(pid)
