"""The users file on disk, and who is at the other end of a socket.

Invariants:
1. A file that others could have changed, or that everybody can read, is not used.
2. A file that cannot be used changes nothing when it is read again: the users stay who they were.
"""

from __future__ import annotations

import errno
import grp
import ipaddress
import os
import pwd
import socket
import stat
import struct
import tomllib

from busd.rules.access import Identity
from busd.rules.users import BadUsers, Peer, Users, users_from

_CREDENTIALS = struct.Struct("=iII")
# All groups of a peer; the socket module has no name for it.  Linux 4.13 and later, so far one number everywhere but
# on PA-RISC and SPARC, where the answer is an error and the primary group is all that is known.
_SO_PEERGROUPS = 59
# As much as getsockopt of Python takes: 256 groups.  A process of more is a stranger.
_GROUPS_BYTES = 1024
_LOCAL = Peer("loopback")
_REMOTE = Peer("remote")


class UsersFile:
    """The users by a file; a Door (see busd.broker.gate)."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._users = read_users(path)

    def reload(self) -> None:
        """Read it again.

        Raises:
            BadUsers: it cannot be used; nothing has changed.
        """
        self._users = read_users(self.path)

    def known(self, name: bytes, token: bytes) -> Identity | None:
        """See Door."""
        return self._users.known(name, token)

    def renewed(self, identity: Identity) -> Identity | None:
        """See Door."""
        return self._users.renewed(identity)

    def of_peer(self, peer: Peer) -> Identity | None:
        """Who that is by the connection alone; None for a stranger."""
        return self._users.of_peer(peer)


def read_users(path: str) -> Users:
    """The users of a file.

    Raises:
        BadUsers: it cannot be read, is not private, or says what cannot be used.
    """
    try:
        with open(path, "rb") as file:
            check_private(path, os.fstat(file.fileno()))
            table = tomllib.load(file)
        return users_from(table, user_number, group_number)
    except OSError as error:
        raise BadUsers(f"{path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadUsers(f"{path}: {error}") from None
    except BadUsers as error:
        raise BadUsers(f"{path}: {error}") from None


def user_number(name: str) -> int:
    """The number of an account; KeyError when there is none of that name."""
    return pwd.getpwnam(name).pw_uid


def group_number(name: str) -> int:
    """The number of a group of accounts; KeyError when there is none of that name."""
    return grp.getgrnam(name).gr_gid


def check_private(path: str, found: os.stat_result) -> None:
    """Nobody but its owner (root, or who we run as) may write the file, and not everybody read it.

    Raises:
        BadUsers: it is otherwise.
    """
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o027:
        raise BadUsers(f"others may read or change it (mode {mode:04o}); chmod 600 {path}, or 640 for a group to read")
    if found.st_uid not in (0, os.geteuid()):
        raise BadUsers(f"it belongs to the account {found.st_uid}; it has to be root's, or of the one busd runs as")


def peer_of(sock: socket.socket, address: object) -> Peer:
    """What a connected socket tells of its other end.

    Args:
        address: of the peer, as the socket names it; for TCP.
    """
    if sock.family != socket.AF_UNIX:
        host = str(address[0]) if isinstance(address, tuple) else ""
        return _LOCAL if is_loopback(host) else _REMOTE
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, gid = _CREDENTIALS.unpack(credentials)
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError as error:
        if error.errno == errno.ERANGE:
            # A rule for one of its groups may be there to allow less than those behind it.
            return _REMOTE
        raw = b""
    groups = struct.unpack(f"{len(raw) // 4}I", raw[: len(raw) // 4 * 4])
    return Peer("unix", uid, frozenset((gid, *groups)))


def is_loopback(host: str) -> bool:
    """True for an address of this machine's loopback, also as IPv6 writes one of IPv4."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
