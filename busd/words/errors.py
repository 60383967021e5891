"""Every error a client can see: one table of stable codes, one exception.

Errors name what was wrong and what would be right.  Only the session decides to hang up; `fatal` tells it to.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """What a code means.  `fatal`: the next command cannot be found or nobody may stay, so the connection closes."""

    meaning: str
    fatal: bool = False


ERRORS: dict[str, ErrorKind] = {
    "UNKNOWN": ErrorKind(
        "there is no such command; as the first line of an inline connection, or as `Host:`, it also closes it"
    ),
    "ARG": ErrorKind("an argument or option is missing, too many, or not what the command takes"),
    "TOPIC": ErrorKind("not a topic, or one that clients may not publish to"),
    "PATTERN": ErrorKind("not a pattern"),
    "POS": ErrorKind("not a position, or one beyond the end"),
    "BUSY": ErrorKind("the connection has a subscription already"),
    "AUTH": ErrorKind("nobody has said who this is, or that is no user and its token"),
    "DENIED": ErrorKind("the rights of this user, or of this peer, do not cover it"),
    "GROUP": ErrorKind("no such group, no member of one, or not what this group is for"),
    "STALE": ErrorKind("a token is of no delivery that this member has out; the others were acted on"),
    "TOOBIG": ErrorKind("longer than a limit; it was skipped, nothing was kept"),
    "LIMIT": ErrorKind("more of something than the server allows"),
    "CUT": ErrorKind("the input ended within a command; that one was not executed", fatal=True),
    "PROTO": ErrorKind("not possible in this dialect"),
    "SYNTAX": ErrorKind("not RESP, so the next command cannot be found", fatal=True),
    "TIMEOUT": ErrorKind("a command was begun and not finished in time", fatal=True),
    "FULL": ErrorKind("no room on the disk or under its cap; nothing was kept, reading goes on"),
    "DISK": ErrorKind("the disk failed; nothing was kept, reading goes on, publishing there waits as the text says"),
    "STOPPING": ErrorKind("the server is going down; nothing was kept", fatal=True),
    "INTERNAL": ErrorKind("a fault of busd, see its log", fatal=True),
}


class BusError(Exception):
    """An answer `-CODE text`.  The state of the server is what it was before the command.

    Args:
        code: a key of ERRORS.
        text: what was wrong and what would be right; no line ends.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text

    @property
    def fatal(self) -> bool:
        """True when the connection must be closed after the answer."""
        return ERRORS[self.code].fatal


def stopping() -> BusError:
    """What comes while the server stops is told this.  A new one each time: one that is raised keeps where it was."""
    return BusError("STOPPING", ERRORS["STOPPING"].meaning)


def quoted(raw: bytes, limit: int = 60) -> str:
    """Foreign bytes for an error text: printable, in quotes, cut at `limit` characters."""
    text = raw[: limit + 1].decode("utf-8", "backslashreplace")
    safe = text
    if not text.isprintable():
        safe = "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode() for ch in text)
    return f"'{safe[:limit]}…'" if len(safe) > limit or len(raw) > limit else f"'{safe}'"
