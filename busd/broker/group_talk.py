"""The commands of groups: what a session does about ACK, NACK, TOUCH, SEEK, FORGET and GROUPS."""

from __future__ import annotations

from collections.abc import Callable

from busd.broker.ports import Engine, Handle, Member
from busd.broker.voice import Voice
from busd.rules.replies import Row
from busd.words import requests as rq
from busd.words.errors import BusError
from busd.words.groups import format_token

# Called when the answer was given.
Finished = Callable[[], None]


def member(handle: Handle | None) -> Member:
    """The membership of a connection.

    Raises:
        BusError: GROUP.
    """
    found = handle.member if handle is not None else None
    if found is None:
        raise BusError("GROUP", "this connection is in no group; SUB … GROUP g joins one")
    return found


def ack(handle: Handle | None, request: rq.Ack, voice: Voice, finished: Finished) -> None:
    """ACK.  Raises BusError GROUP."""

    def decided(count: int, stale: rq.Token | None, error: BusError | None) -> None:
        if error is not None:
            voice.error(error, request.eol)
        elif stale is not None:
            voice.error(BusError("STALE", f"n={count} first={format_token(stale).decode()}"), request.eol)
        else:
            voice.number(request.eol, count)
        finished()

    member(handle).ack(request, decided)


def seek(engine: Engine, request: rq.Seek, voice: Voice, finished: Finished) -> None:
    """SEEK."""

    def done(found: int | BusError) -> None:
        if isinstance(found, BusError):
            voice.error(found, request.eol)
        else:
            voice.ok(request.eol, f"next={found}")
        finished()

    engine.seek(request, done)


def forget(engine: Engine, request: rq.Forget, voice: Voice, finished: Finished) -> None:
    """FORGET."""

    def done(error: BusError | None) -> None:
        if error is not None:
            voice.error(error, request.eol)
        else:
            voice.ok(request.eol)
        finished()

    engine.forget(request, done)


def groups(engine: Engine, request: rq.Groups, voice: Voice, finished: Finished) -> None:
    """GROUPS."""

    def done(rows: list[Row]) -> None:
        voice.say(voice.replies.rows(request.eol, rows))
        finished()

    engine.groups(request.patterns, done)
