"""What a session says on its connection: answers in the dialect of the connection, errors, silence under QUIET."""

from __future__ import annotations

from typing import Protocol

from busd.broker.ports import Outbox, Outcome, Subscriber
from busd.rules.replies import InlineReplies, Replies, RespReplies
from busd.words import requests as rq
from busd.words.errors import BusError

# Answers in one write: a write costs as much as a hundred of them, and errors have up to a few hundred bytes each.
_AT_ONCE = 1000


class Wire(Outbox, Protocol):
    """A connection: an outbox that can also be paused and closed."""

    def pause_reading(self) -> None:
        """No `received` until resumed."""

    def resume_reading(self) -> None:
        """Undo it."""

    def close(self) -> None:
        """Close when everything written has gone out."""


class Collector:
    """The Subscriber of a RESP READ: the session, but for the outbox."""

    def __init__(self, session: Subscriber, outbox: Outbox) -> None:
        self.outbox = outbox
        self.opened = session.opened
        self.refused = session.refused
        self.ended = session.ended
        self.failed = session.failed


class Voice:
    """See the module.  `hung_up`: nothing is said any more."""

    def __init__(self, wire: Wire) -> None:
        self.replies: Replies = InlineReplies()
        self.quiet = False
        self.hung_up = False
        self._wire = wire

    @property
    def version(self) -> int:
        """Of RESP, 0 inline."""
        return self.replies.version if isinstance(self.replies, RespReplies) else 0

    def say(self, data: bytes) -> None:
        """Bytes that must be said whatever QUIET says."""
        if not self.hung_up:
            self._wire.write(data)

    def ok(self, eol: bytes, text: str = "") -> None:
        """`+OK`."""
        if not self.quiet:
            self.say(self.replies.ok(eol, text))

    def number(self, eol: bytes, number: int) -> None:
        """`:n`."""
        if not self.quiet:
            self.say(self.replies.numbers(eol, number, 1))

    def error(self, error: BusError, eol: bytes, times: int = 1) -> None:
        """`-CODE text`, so many times, also under QUIET."""
        reply = self.replies.error(eol, error)
        while times > 0:
            self.say(reply * min(times, _AT_ONCE))
            times -= _AT_ONCE

    def outcome(self, run: rq.Publish, outcome: Outcome) -> bool:
        """What became of a run: an answer for each message, or one for all.  True when it met a fault of busd."""
        if run.answers == "first":
            if outcome.errors:
                self.error(next(iter(outcome.errors.values())), run.eol)
            else:
                self.number(run.eol, outcome.first)
        elif not outcome.errors and outcome.offsets is None:
            if not (self.quiet or self.hung_up):
                self._wire.write(self.replies.numbers(run.eol, outcome.first, outcome.count))
        else:
            self._each(run.eol, outcome)
        if not outcome.errors:
            return False
        # What is STOPPING is fatal, too, but there may be a subscription that ends first.
        return any(error.code == "INTERNAL" for error in set(outcome.errors.values()))

    def _each(self, eol: bytes, outcome: Outcome) -> None:
        """An answer for each message, not all of them consecutive offsets."""
        replies, errors, offsets = self.replies, outcome.errors, outcome.offsets
        pieces: list[bytes] = []
        known: BusError | None = None
        reply = b""
        for index in range(outcome.count):
            error = errors.get(index)
            if error is not None:
                # Mostly one error for all.
                if error is not known:
                    known, reply = error, replies.error(eol, error)
                pieces.append(reply)
            elif not self.quiet:
                pieces.append(replies.numbers(eol, outcome.first + index if offsets is None else offsets[index], 1))
            if len(pieces) >= _AT_ONCE:
                self.say(b"".join(pieces))
                pieces = []
        if pieces:
            self.say(b"".join(pieces))
