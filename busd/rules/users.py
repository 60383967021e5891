"""Who there is: users with a token, and peers who need none; from a plain mapping (TOML), checked, immutable.

    [user.web]
    token = "sha256:<salt>:<hash>"          as `busd user add` writes it
    pub = ["orders.>"]
    sub = ["orders.*.eu"]
    [[peer]]
    uid = 33                                or gid = 33, unix = true, loopback = true
    sub = [">"]

Knows no file and no socket.  Invariants:
1. A token is nowhere: only its salted hash is, and no error or text shows even that.
2. A name that is unknown costs what a wrong token costs, and both are answered alike.
3. The first peer rule that fits counts.

A token is 256 random bits.  No list of likely ones can be tried against its hash, so a fast hash does; a slow one would
only let strangers burn the server's time.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from busd.rules.access import RIGHTS, Identity, Rights
from busd.words.errors import BusError
from busd.words.topics import is_topic, parse_patterns

# Tokens have 43 characters; what is much longer is none, and not worth hashing.
MAX_TOKEN_BYTES = 256
MAX_NAME_BYTES = 64
# What Redis clients say when they were given no name.
RESERVED = "default"
_SALT_BYTES = 16

PeerKind = Literal["uid", "gid", "unix", "loopback"]
Lookup = Callable[[str], int]


class BadUsers(ValueError):
    """A users file that cannot be used; the text says where and what would be right."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What the connection itself tells: a process of this machine by its Unix socket, or an address.

    Args:
        kind: `unix`, `loopback` or `remote`.
        uid: of the process, None where it is not known.
        gids: its groups.
    """

    kind: Literal["unix", "loopback", "remote"]
    uid: int | None = None
    gids: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class _Token:
    salt: bytes
    digest: bytes

    def fits(self, secret: bytes) -> bool:
        return hmac.compare_digest(_digest(self.salt, secret[:MAX_TOKEN_BYTES]), self.digest)


# No text is known that has this digest.
_NOBODY = _Token(bytes(_SALT_BYTES), bytes(hashlib.sha256().digest_size))


@dataclass(frozen=True, slots=True)
class _Rule:
    kind: PeerKind
    number: int
    identity: Identity

    def fits(self, peer: Peer) -> bool:
        if self.kind == "uid":
            return peer.uid == self.number
        if self.kind == "gid":
            return self.number in peer.gids
        return peer.kind == self.kind


class Users:
    """See the module."""

    def __init__(self, users: Mapping[bytes, tuple[_Token, Identity]], rules: Sequence[_Rule]) -> None:
        self._users = users
        self._rules = rules

    def known(self, name: bytes, token: bytes) -> Identity | None:
        """The user of that name, when that is its token."""
        found = self._users.get(name)
        fits = (found[0] if found is not None else _NOBODY).fits(token)
        return found[1] if found is not None and fits and len(token) <= MAX_TOKEN_BYTES else None

    def of_peer(self, peer: Peer) -> Identity | None:
        """Who that is by the connection alone."""
        return next((rule.identity for rule in self._rules if rule.fits(peer)), None)

    def renewed(self, identity: Identity) -> Identity | None:
        """The user of the same name, when that has the same token; None when there is nobody."""
        user = self._users.get(identity.name.encode())
        return user[1] if user is not None and user[1].proof == identity.proof else None


def token_record(secret: str, salt: bytes) -> str:
    """What is kept of a token.  `salt`: 16 random bytes."""
    return f"sha256:{salt.hex()}:{_digest(salt, secret.encode()).hex()}"


def check_name(name: str) -> str:
    """The name, when a user may have it.

    Raises:
        BadUsers: it may not.
    """
    raw = name.encode("utf-8", "surrogateescape")
    if not is_topic(raw) or b"." in raw or len(raw) > MAX_NAME_BYTES:
        raise BadUsers(f"{name!r} is not a user's name: A-Z a-z 0-9 _ -, {MAX_NAME_BYTES} characters at most")
    if name == RESERVED:
        raise BadUsers(f"{RESERVED} is what Redis clients say without a name; take another")
    return name


def check_patterns(value: object, right: str) -> tuple[bytes, ...]:
    """The patterns of a right, from a text or a list of texts.

    Raises:
        BadUsers: there is one that is none, or that nobody could use.
    """
    found: list[bytes] = []
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, str):
            raise BadUsers(f"{one!r} is not a pattern; write patterns in quotes")
        try:
            found += parse_patterns(one.encode("utf-8", "surrogateescape"))
        except BusError as error:
            raise BadUsers(error.text) from None
        if right == "pub" and one.startswith("_"):
            raise BadUsers(f"{one!r} names topics of the system's own; nobody publishes there")
    return tuple(found)


def users_from(table: Mapping[str, object], uid_of: Lookup, gid_of: Lookup) -> Users:
    """Users from a parsed TOML file.

    Args:
        uid_of, gid_of: the number of an account's, or a group's, name; KeyError when there is none.

    Raises:
        BadUsers: it says something that cannot be used.
    """
    if unknown := [key for key in table if key not in ("user", "peer")]:
        raise BadUsers(f"{unknown[0]} is not known; there are [user.NAME] and [[peer]]")
    users: dict[bytes, tuple[_Token, Identity]] = {}
    for name, entry in _mapping(table.get("user", {}), "[user.NAME]").items():
        with _within(f"[user.{name}]"):
            users[name.encode()] = _user(name, entry)
    rules: list[_Rule] = []
    entries = table.get("peer", [])
    if not isinstance(entries, list):
        raise BadUsers("peer is written [[peer]], once for each rule")
    for number, entry in enumerate(entries, 1):
        with _within(f"[[peer]] {number}"):
            rules.append(_rule(entry, {"uid": uid_of, "gid": gid_of}))
    return Users(users, rules)


def _user(name: str, entry: object) -> tuple[_Token, Identity]:
    check_name(name)
    table = _mapping(entry, "it")
    _only(table, ("token", *RIGHTS))
    record = table.get("token")
    parts = record.split(":") if isinstance(record, str) else []
    try:
        kind, salt, digest = parts
        token = _Token(bytes.fromhex(salt), bytes.fromhex(digest))
    except ValueError:
        kind = ""
    if kind != "sha256" or len(token.salt) != _SALT_BYTES or len(token.digest) != len(_NOBODY.digest):
        raise BadUsers("token is not sha256:<salt>:<hash>; `busd user add` makes tokens and writes that")
    return token, Identity(name, _rights(table), str(record))


def _rule(entry: object, lookups: Mapping[str, Lookup]) -> _Rule:
    table = _mapping(entry, "it")
    kinds: tuple[PeerKind, ...] = ("uid", "gid", "unix", "loopback")
    _only(table, (*kinds, *RIGHTS))
    chosen = [kind for kind in kinds if kind in table]
    if len(chosen) != 1:
        raise BadUsers(f"say exactly one of {', '.join(kinds)}, not {len(chosen)}")
    (kind,) = chosen
    value = table[kind]
    number, name = 0, str(kind)
    if kind in ("unix", "loopback"):
        if value is not True:
            raise BadUsers(f"{kind} takes true; without it there is no such rule")
    else:
        number = _number(value, kind, lookups[kind])
        name = f"{kind}:{number}"
    return _Rule(kind, number, Identity(name, _rights(table), f"peer {name}"))


def _number(value: object, kind: str, lookup: Lookup) -> int:
    if isinstance(value, str):
        try:
            return lookup(value)
        except KeyError:
            raise BadUsers(f"{kind}: this machine knows no {value!r}") from None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadUsers(f"{kind}: {value!r} is neither a number from 0 nor a name in quotes")
    return value


def _rights(table: Mapping[str, object]) -> Rights:
    found: dict[str, tuple[bytes, ...]] = {}
    for right in RIGHTS:
        with _within(right):
            found[right] = check_patterns(table.get(right, []), right)
    return Rights(**found)


def _only(table: Mapping[str, object], known: Sequence[str]) -> None:
    if unknown := [key for key in table if key not in known]:
        raise BadUsers(f"{unknown[0]} is not known; there are {', '.join(known)}")


def _mapping(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise BadUsers(f"{where} is a table")
    return value


@contextmanager
def _within(where: str) -> Iterator[None]:
    """What goes wrong within is told with the place."""
    try:
        yield
    except BadUsers as error:
        raise BadUsers(f"{where} {error}") from None


def _digest(salt: bytes, secret: bytes) -> bytes:
    return hashlib.sha256(salt + secret).digest()
