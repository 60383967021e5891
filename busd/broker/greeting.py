"""The commands by which both sides say who they are: HELLO, AUTH.  One table.

Invariants:
1. A refused AUTH changes nothing, nor does the HELLO that holds it.
2. A stranger is told that this is busd, and nothing else about it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from busd.broker.gate import Gate
from busd.broker.ports import Engine, Handle
from busd.broker.questions import Host, answer
from busd.broker.voice import Voice
from busd.rules.replies import RespReplies
from busd.words import requests as rq
from busd.words.errors import BusError


class Caller(Protocol):
    """A session, as these commands see it."""

    engine: Engine
    host: Host
    voice: Voice
    gate: Gate
    handle: Handle | None


def _hello(caller: Caller, request: rq.Hello) -> None:
    replies = caller.voice.replies
    if request.version is not None and caller.handle is not None:
        raise BusError("BUSY", "the version cannot change under a subscription; UNSUB ends it")
    if request.auth is not None:
        caller.gate.authenticate(request.auth)
    if request.version is not None and isinstance(replies, RespReplies):
        replies.version = request.version
    if caller.gate.stranger:
        caller.voice.say(replies.mapping(request.eol, [("server", "busd"), ("proto", caller.voice.version)]))
    else:
        caller.voice.say(answer(request, caller.engine, caller.host, replies))


def _auth(caller: Caller, request: rq.Auth) -> None:
    if caller.handle is not None:
        raise BusError("BUSY", "who this is cannot change under a subscription; UNSUB ends it")
    caller.gate.authenticate(request)
    caller.voice.ok(request.eol)


COMMANDS: dict[type[rq.Request], Callable[[Any, Any], None]] = {rq.Hello: _hello, rq.Auth: _auth}
