"""Who may do what: rights over patterns, and which command needs which.

Knows no tokens, sockets or files.  Invariants:
1. What is asked is allowed when one allowed pattern covers it: when every topic it names, that one names too.
2. Nothing is narrowed: what is asked is allowed as a whole, or refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from busd.words.errors import BusError

Right = Literal["pub", "sub", "admin"]
RIGHTS: tuple[Right, ...] = ("pub", "sub", "admin")
# A refusal names what would be allowed, but does not print a whole file.
_SHOWN = 8

# verb: the right it needs, and over what; protocol.md shows the same table and a test compares them.
NEEDS: dict[str, tuple[str, str]] = {
    "PUB": ("pub", "its topic"),
    "EPUB": ("pub", "its topic"),
    "HPUB": ("pub", "its topic"),
    "MPUB": ("pub", "its topic"),
    "EOF": ("pub", "its topic"),
    "SUB": ("sub", "its patterns; with GROUP those of the group"),
    "READ": ("sub", "its patterns; with GROUP also those of the group"),
    "ACK": ("", "a member of the group"),
    "NACK": ("", "a member of the group"),
    "TOUCH": ("", "a member of the group"),
    "UNSUB": ("", ""),
    "SEEK": ("admin", "the patterns of the group"),
    "FORGET": ("admin", "the patterns of the group"),
    "GROUPS": ("sub or admin", "the patterns of every group that it would list"),
    "RESET": ("admin", "its patterns"),
    "TOPICS": ("sub or admin", "its patterns; without any `>`"),
    "INFO": ("sub or admin", "`>`"),
    "CONNS": ("admin", "`>`"),
    "HELP": ("", "also before authentication"),
    "PING": ("", "also before authentication"),
    "HELLO": ("", "also before authentication"),
    "AUTH": ("", "also before authentication"),
    "QUIET": ("", ""),
    "QUIT": ("", "also before authentication"),
}


@dataclass(frozen=True, slots=True)
class Rights:
    """Patterns by right."""

    pub: tuple[bytes, ...] = ()
    sub: tuple[bytes, ...] = ()
    admin: tuple[bytes, ...] = ()

    def of(self, right: Right) -> tuple[bytes, ...]:
        """The patterns of one right."""
        return {"pub": self.pub, "sub": self.sub, "admin": self.admin}[right]

    def cover(self, rights: Iterable[Right], asked: bytes) -> bool:
        """True when a pattern of one of these rights covers the pattern, or topic, that is asked for."""
        return any(covers(one, asked) for right in rights for one in self.of(right))


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is on the other end.

    Args:
        name: as CONNS shows it.
        rights: None for everything.
        proof: what it rests on: another proof of the same name is somebody else.
    """

    name: str = "-"
    rights: Rights | None = None
    proof: str = ""


ANYBODY = Identity()


def covers(allowed: bytes, asked: bytes) -> bool:
    """True when every topic that the pattern `asked` names is one that the pattern `allowed` names."""
    if asked.startswith(b"_") and not allowed.startswith(b"_"):
        return False
    have, want = allowed.split(b"."), asked.split(b".")
    for index, token in enumerate(have):
        if token == b">":
            return len(want) > index
        if index >= len(want) or want[index] == b">" or token not in (b"*", want[index]):
            return False
    return len(have) == len(want)


def refusal(identity: Identity, rights: Iterable[Right], asked: Iterable[bytes]) -> BusError:
    """The DENIED of somebody who asked for patterns that these rights, any of which would do, do not cover."""
    have = identity.rights or Rights()
    wanted = tuple(rights)
    # What is covered is not to blame.
    blamed = [one for one in asked if not have.cover(wanted, one)]
    may = "; ".join(f"{right} {_list(have.of(right))}" for right in wanted)
    return BusError("DENIED", f"{identity.name} may not {' or '.join(wanted)} {_list(blamed)}; its rights: {may}")


def _list(patterns: Iterable[bytes]) -> str:
    shown = [one.decode("ascii", "backslashreplace") for one in patterns]
    more = [f"… ({len(shown) - _SHOWN} more)"] if len(shown) > _SHOWN else []
    return ", ".join([*shown[:_SHOWN], *more]) or "nothing"
