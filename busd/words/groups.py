"""The words of groups: names, tokens, and the commands that settle and manage.

    group   one token of [A-Za-z0-9_-], at most 64 bytes
    token   offset [ "." the how-manieth delivery ]: `17` is the first delivery of message 17, `17.2` the second

Knows no group and no member.  Invariants:
1. `parse_token(format_token(t)) == t` for every delivery t.
"""

from __future__ import annotations

import re
from itertools import repeat

from busd.words.errors import BusError, quoted
from busd.words.requests import Ack, Forget, Groups, Nack, Seek, Token, Touch
from busd.words.topics import parse_patterns
from busd.words.units import MAX_OFFSET, parse_duration_ns, parse_position

# Dead letters of group g and topic t lie in _dead.g.t.
DEAD = b"_dead"
# A reason becomes a header of the dead letter: room for a line, not for a traceback.
MAX_REASON_BYTES = 1000
_NAME = re.compile(rb"[A-Za-z0-9_-]{1,64}")
_TOKEN = re.compile(rb"(\d{1,19})(?:\.(\d{1,9}))?")
_CONTROL = re.compile(rb"[\r\n\0]")
_OFFSET_DIGITS = len(str(MAX_OFFSET))


def check_group(name: bytes) -> bytes:
    """`name`, when it may name a group.

    Raises:
        BusError: ARG.
    """
    if _NAME.fullmatch(name) is None:
        raise BusError("ARG", f"{quoted(name)} is not a group's name: A-Z a-z 0-9 _ -, 64 bytes at most")
    return name


def parse_token(raw: bytes) -> Token:
    """`17.2` as (17, 2), `17` as (17, 1).

    Raises:
        BusError: ARG.
    """
    match = _TOKEN.fullmatch(raw)
    if match is not None:
        offset, tries = int(match[1]), int(match[2] or 1)
        if 1 <= offset <= MAX_OFFSET and tries:
            return offset, tries
    raise BusError("ARG", f"{quoted(raw)} is not a token like 17 or 17.2")


def format_token(token: Token) -> bytes:
    """(17, 2) as `17.2`, (17, 1) as `17`."""
    offset, tries = token
    return b"%d" % offset if tries == 1 else b"%d.%d" % token


def parse_tokens(raws: list[bytes]) -> list[Token]:
    """Several; of first deliveries, which most are, in C.

    Raises:
        BusError: ARG.
    """
    # isdigit: int() alone would also take +1, 1_000 and blanks.
    if raws and all(raws) and b"".join(raws).isdigit() and max(map(len, raws)) < _OFFSET_DIGITS:
        offsets = list(map(int, raws))
        if min(offsets) >= 1:
            return list(zip(offsets, repeat(1), strict=False))
    return list(map(parse_token, raws))


def parse_ack(args: list[bytes]) -> Ack:
    """ACK's arguments: `..token`, which may only be the first, and tokens.

    Raises:
        BusError: ARG.
    """
    if not args:
        raise BusError("ARG", "ACK takes tokens: ACK token …, or ACK ..token for that one and all sent before it")
    if args[0].startswith(b".."):
        return Ack(parse_tokens(args[1:]), parse_token(args[0][2:]))
    return Ack(parse_tokens(args))


def parse_nack(args: list[bytes]) -> Nack:
    """NACK's arguments; the words of the reason are joined by blanks.

    Raises:
        BusError: ARG.
    """
    if not args:
        raise BusError("ARG", "NACK takes a token: NACK token [DELAY dur] [reason]")
    token, delay_ns, words = parse_token(args[0]), None, args[1:]
    if words and words[0].upper() == b"DELAY":
        if len(words) == 1:
            raise BusError("ARG", "DELAY takes a value")
        delay_ns, words = parse_duration_ns(words[1]), words[2:]
    reason = b" ".join(words)
    if len(reason) > MAX_REASON_BYTES:
        raise BusError("ARG", f"a reason of {len(reason)} bytes; it may have {MAX_REASON_BYTES}")
    check_text(reason, "the reason")
    return Nack(token, delay_ns, reason)


def check_text(value: bytes, what: str) -> None:
    """Nothing, when a header may have this value.

    Raises:
        BusError: ARG.
    """
    try:
        value.decode()
    except UnicodeDecodeError:
        raise BusError("ARG", f"{what} is not UTF-8") from None
    if _CONTROL.search(value):
        raise BusError("ARG", f"{what} holds CR, LF or NUL")


def parse_touch(args: list[bytes]) -> Touch:
    """TOUCH's arguments.

    Raises:
        BusError: ARG.
    """
    if not args:
        raise BusError("ARG", "TOUCH takes tokens: TOUCH token …")
    return Touch(parse_tokens(args))


def parse_seek(args: list[bytes]) -> Seek:
    """SEEK's arguments.

    Raises:
        BusError: ARG or POS.
    """
    if len(args) != 2:
        raise BusError("ARG", f"SEEK takes a group and a position, not {len(args)} arguments")
    return Seek(check_group(args[0]), parse_position(args[1]))


def parse_forget(args: list[bytes]) -> Forget:
    """FORGET's argument.

    Raises:
        BusError: ARG.
    """
    if len(args) != 1:
        raise BusError("ARG", f"FORGET takes one group, not {len(args)} arguments")
    return Forget(check_group(args[0]))


def parse_groups(args: list[bytes]) -> Groups:
    """GROUPS' argument, patterns of names; all of them without any.

    Raises:
        BusError: ARG, PATTERN or LIMIT.
    """
    if len(args) > 1:
        raise BusError("ARG", f"GROUPS takes one argument at most, not {len(args)}")
    return Groups(parse_patterns(args[0]) if args else (b">",))
