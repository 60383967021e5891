"""Answers to questions: commands that change nothing.  One function for each, one table.

Those that look at every topic or connection are answered when their turn has come, and are worked on in pieces, one a
turn of the loop; until then nothing that stands behind them on the connection is carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Protocol

from busd.broker.intake import Unfinished
from busd.broker.ports import Engine
from busd.broker.voice import Voice
from busd.rules.replies import Pairs, Replies, RespReplies, Row
from busd.words import requests as rq
from busd.words.commands import COMMANDS


class Host(Protocol):
    """The server around the sessions: what they share that is no matter of the bus."""

    @property
    def unfinished(self) -> Unfinished:
        """What all of them hold of commands that are not whole."""

    def costly(self, call: Callable[[], Iterator[None] | None]) -> None:
        """Call it soon; what takes long is done so, that the others have their turns: also between two pieces."""

    def identity(self) -> Pairs:
        """For HELLO: server and version."""

    def connections(self) -> Iterator[list[Row]]:
        """For CONNS, in pieces that take about a millisecond each."""

    def info(self) -> Mapping[str, Pairs]:
        """Sections for INFO that the engine cannot know."""


class Asker(Protocol):
    """A session, as these commands see it."""

    engine: Engine
    host: Host
    voice: Voice

    def owe(self, pipelined: type[rq.Request]) -> None:
        """An answer will come; until then only such requests go on."""

    def paid(self) -> None:
        """It was given."""

    def failed(self) -> None:
        """A fault of busd: it will not come."""


# An answer in the making: it is worked on from piece to piece, and what it returns at last is said.
Long = Generator[None, None, bytes]


def answer(request: rq.Request, engine: Engine, host: Host, replies: Replies) -> bytes:
    """The answer to a question; `request` is of a type in QUESTIONS."""
    pieces = _answered(request, engine, host, replies)
    while True:
        try:
            next(pieces)
        except StopIteration as done:
            return bytes(done.value)


def _answered(request: rq.Request, engine: Engine, host: Host, replies: Replies) -> Long:
    found: bytes | Long = QUESTIONS[type(request)](request, engine, host, replies)
    return found if isinstance(found, bytes) else (yield from found)


def _listed(eol: bytes, replies: Replies, pieces: Iterator[list[Row]]) -> Long:
    said, count = [], 0
    for rows in pieces:
        said.append(replies.rows(eol, rows))
        count += len(rows)
        yield
    return replies.listing(eol, count) + b"".join(said)


def _topics(request: rq.Topics, engine: Engine, host: Host, replies: Replies) -> Long:
    return _listed(request.eol, replies, engine.topics(request.patterns))


def _info(request: rq.Info, engine: Engine, host: Host, replies: Replies) -> bytes:
    sections: dict[str, list[tuple[str, str | int]]] = {}
    for source in (host.info(), engine.info()):
        for name, pairs in source.items():
            sections.setdefault(name, []).extend(pairs)
    chosen = [request.section] if request.section else list(sections)
    told: dict[str, str | int] = {}
    for section in chosen:
        for name, value in sections[section]:
            # A store may be called as something else is: its own section tells of it.
            told.setdefault(name, value)
    return replies.mapping(request.eol, [*told.items()])


def _conns(request: rq.Conns, engine: Engine, host: Host, replies: Replies) -> Long:
    return _listed(request.eol, replies, host.connections())


def _help(request: rq.Help, engine: Engine, host: Host, replies: Replies) -> bytes:
    names = [request.command] if request.command else list(COMMANDS)
    rows: list[Row] = [(f"{COMMANDS[name].usage}: {COMMANDS[name].summary}", ()) for name in names]
    return replies.listing(request.eol, len(rows)) + replies.rows(request.eol, rows)


def _ping(request: rq.Ping, engine: Engine, host: Host, replies: Replies) -> bytes:
    if request.payload is None:
        return replies.text(request.eol, b"PONG", status=True)
    return replies.text(request.eol, request.payload)


def _hello(request: rq.Hello, engine: Engine, host: Host, replies: Replies) -> bytes:
    version = replies.version if isinstance(replies, RespReplies) else 0
    state: Pairs = [("proto", version), ("epoch", engine.epoch), ("next", engine.horizon)]
    return replies.mapping(request.eol, [*host.identity(), *state])


def _housekeeping(request: rq.Housekeeping, engine: Engine, host: Host, replies: Replies) -> bytes:
    return replies.listing(request.eol, 0) if request.empty else replies.ok(request.eol)


# These look at every topic or connection.
COSTLY = (rq.Topics, rq.Info, rq.Conns)
QUESTIONS: dict[type[rq.Request], Callable[[Any, Engine, Host, Replies], bytes | Long]] = {
    rq.Topics: _topics,
    rq.Info: _info,
    rq.Conns: _conns,
    rq.Help: _help,
    rq.Ping: _ping,
    rq.Hello: _hello,
    rq.Housekeeping: _housekeeping,
}


def _look(asker: Asker, request: rq.Request) -> None:
    asker.voice.say(answer(request, asker.engine, asker.host, asker.voice.replies))


def _said(asker: Asker, request: rq.Request) -> Iterator[None]:
    asker.voice.say((yield from _answered(request, asker.engine, asker.host, asker.voice.replies)))


def _look_long(asker: Asker, request: rq.Request) -> None:
    def look() -> Iterator[None]:
        if asker.voice.hung_up:
            return
        try:
            for _ in _said(asker, request):
                yield
                if asker.voice.hung_up:
                    return
        except Exception:
            # Who asked must not wait for ever.
            asker.failed()
            raise
        asker.paid()

    asker.owe(rq.Request)
    asker.host.costly(look)


HANDLERS: dict[type[rq.Request], Callable[[Any, Any], None]] = {
    **dict.fromkeys(QUESTIONS, _look),
    **dict.fromkeys(COSTLY, _look_long),
}
