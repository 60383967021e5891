"""The commands of groups: what a session does about ACK, NACK, TOUCH, SEEK, FORGET and GROUPS.  One table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from busd.broker.ports import Engine, Handle, Member
from busd.broker.voice import Voice
from busd.rules.replies import Row
from busd.words import requests as rq
from busd.words.errors import BusError
from busd.words.groups import format_token


class Talk(Protocol):
    """A session, as these commands see it."""

    engine: Engine
    voice: Voice
    handle: Handle | None

    def owe(self, pipelined: type[rq.Request]) -> None:
        """An answer will come; until then only such requests go on."""

    def paid(self) -> None:
        """It was given."""


def member(handle: Handle | None) -> Member:
    """The membership of a connection.

    Raises:
        BusError: GROUP.
    """
    found = handle.member if handle is not None else None
    if found is None:
        raise BusError("GROUP", "this connection is in no group; SUB … GROUP g joins one")
    return found


def _ack(talk: Talk, request: rq.Ack) -> None:
    one = member(talk.handle)

    def decided(count: int, stale: rq.Token | None, error: BusError | None) -> None:
        if error is not None:
            talk.voice.error(error, request.eol)
        elif stale is not None:
            talk.voice.error(BusError("STALE", f"n={count} first={format_token(stale).decode()}"), request.eol)
        else:
            talk.voice.number(request.eol, count)
        talk.paid()

    talk.owe(rq.Ack)
    one.ack(request, decided)


def _nack(talk: Talk, request: rq.Nack) -> None:
    member(talk.handle).nack(request)
    talk.voice.ok(request.eol)


def _touch(talk: Talk, request: rq.Touch) -> None:
    member(talk.handle).touch(request)
    talk.voice.ok(request.eol)


def _seek(talk: Talk, request: rq.Seek) -> None:
    def done(found: int | BusError) -> None:
        if isinstance(found, BusError):
            talk.voice.error(found, request.eol)
        else:
            talk.voice.ok(request.eol, f"next={found}")
        talk.paid()

    talk.owe(rq.Request)
    talk.engine.seek(request, done)


def _forget(talk: Talk, request: rq.Forget) -> None:
    def done(error: BusError | None) -> None:
        if error is not None:
            talk.voice.error(error, request.eol)
        else:
            talk.voice.ok(request.eol)
        talk.paid()

    talk.owe(rq.Request)
    talk.engine.forget(request, done)


def _groups(talk: Talk, request: rq.Groups) -> None:
    def done(rows: list[Row]) -> None:
        replies = talk.voice.replies
        talk.voice.say(replies.listing(request.eol, len(rows)) + replies.rows(request.eol, rows))
        talk.paid()

    talk.owe(rq.Request)
    talk.engine.groups(request.patterns, done)


COMMANDS: dict[type[rq.Request], Callable[[Talk, Any], None]] = {
    rq.Ack: _ack,
    rq.Nack: _nack,
    rq.Touch: _touch,
    rq.Seek: _seek,
    rq.Forget: _forget,
    rq.Groups: _groups,
}
