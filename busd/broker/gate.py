"""Who is on the other end of one connection, and whether it may do what it asks.

It must not know how a token is checked (the Door does), nor sockets.  Invariants:
1. What is refused is refused before the engine hears of it; nothing is narrowed or left out in silence.
2. A connection whose rights are unbounded costs one look at `bounded` a request, however many messages it holds; one
   with bounded rights costs a look-up in what was allowed before: one a run of one topic, else one a message (17 ns).
3. A refused AUTH changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import groupby
from typing import Any, Protocol

from busd.broker.admission import size_of
from busd.broker.ports import Engine
from busd.rules.access import ANYBODY, Identity, Right, refusal
from busd.rules.users import Peer
from busd.words import requests as rq
from busd.words.errors import BusError
from busd.words.units import NS_PER_S

# Topics that were found allowed; beyond this many they are found again.
_CACHE = 4096
_ALL = (b">",)


class Door(Protocol):
    """What knows the users."""

    def known(self, name: bytes, token: bytes) -> Identity | None:
        """The user of that name, when that is its token; an unknown name costs what a wrong token costs."""

    def of_peer(self, peer: Peer) -> Identity | None:
        """Who that is by the connection alone; None for a stranger."""

    def renewed(self, identity: Identity) -> Identity | None:
        """The same user by what is known now; None when there is nobody of that name and token any more."""


class Gate:
    """See the module.

    `stranger`: it is not known yet who it is.

    Args:
        door: None when there are no users: then everybody may do everything.
        peer: what the connection itself tells of its other end, which may have to say who it is all the same.
        patience_ns: how long a stranger may stay one.
    """

    def __init__(self, door: Door | None = None, peer: Peer | None = None, patience_ns: int = NS_PER_S) -> None:
        self._peer = peer or Peer("remote")
        # It has said who it is.
        self._said = False
        self.identity = ANYBODY if door is None else door.of_peer(self._peer)
        self.bounded = self.stranger = True
        self._door = door
        self._patience_ns = patience_ns
        self._since_ns: int | None = None
        self._in_the_way = False
        self._allowed: set[bytes] = set()
        self._become(self.identity)

    @property
    def name(self) -> str:
        """For CONNS."""
        return "?" if self.identity is None else self.identity.name

    def authenticate(self, request: rq.Auth) -> None:
        """From now on it is that user.

        Raises:
            BusError: AUTH.
        """
        if self._door is None:
            raise BusError("AUTH", "this server has no users, and you may do everything; leave AUTH out")
        name, token = request.user, request.token
        if name in (b"", b"default"):
            # Redis clients that were given a password alone say `default`.
            name, _, token = token.partition(b":")
        found = self._door.known(name, token.removeprefix(name + b":"))
        if found is None:
            raise BusError("AUTH", "that is no user and its token; say AUTH token, as `busd user add` printed it")
        self._said = True
        self._become(found)

    def renew(self) -> bool:
        """The users were read again.  False when it is nobody any more, and has to go."""
        if self._door is None:
            return True
        before = self.identity
        if self._said and before is not None:
            self._become(self._door.renewed(before))
        else:
            # The first rule that fits now: another one than before, or the first one that a stranger finds.
            self._become(self._door.of_peer(self._peer))
        return self.identity is not None or before is None

    def overdue(self, now_ns: int) -> BusError | None:
        """What to tell a stranger who has been one for too long; `now_ns` by the monotonic clock."""
        if self.identity is not None:
            return None
        if self._in_the_way:
            return BusError("LIMIT", "too many connections have not said who they are, this one the longest")
        if self._since_ns is None:
            self._since_ns = now_ns
        if now_ns - self._since_ns <= self._patience_ns:
            return None
        return BusError("TIMEOUT", f"no authentication within {self._patience_ns / NS_PER_S:g}s")

    def give_way(self) -> None:
        """A stranger has to go, to make room for another; `overdue` says so from now on."""
        self._in_the_way = True

    def parts(self, run: rq.Publish, engine: Engine) -> list[rq.Request] | None:
        """The run in pieces, in order, where not all of it may be published; None when all of it may.

        `engine`: told how many messages are refused.
        """
        topics = run.topics
        if isinstance(topics, bytes):
            return None if self._may_publish(topics) else [self._refused(run, [topics], len(run.items), engine)]
        if self._allowed.issuperset(topics):
            return None
        may = {topic: self._may_publish(topic) for topic in set(topics)}
        if all(may.values()):
            return None
        found: list[rq.Request] = []
        lo = 0
        # One topic at a time where it is refused, so that each error names its own.
        for key, group in groupby(topics, lambda topic: b"" if may[topic] else topic):
            count = len(list(group))
            if key:
                found.append(self._refused(run, [key], count, engine))
            else:
                items = run.items[lo : lo + count]
                found.append(replace(run, topics=topics[lo : lo + count], items=items, size_bytes=size_of(items)))
            lo += count
        return found

    def admit(self, request: rq.Request, engine: Engine) -> None:
        """Anything but a Publish, before it is carried out.

        Raises:
            BusError: AUTH or DENIED.
        """
        if type(request) in _ALWAYS:
            return
        if self.identity is None:
            raise _who()
        ask = _ASKS.get(type(request))
        if ask is not None:
            ask(self, request, engine)

    def may_read(self, patterns: tuple[bytes, ...]) -> bool:
        """Whether a subscription of these patterns may go on."""
        return not self.bounded or (self.identity is not None and _covered(self.identity, ("sub",), patterns))

    def need(self, rights: tuple[Right, ...], patterns: Iterable[bytes]) -> None:
        """Any one of these rights, for each of the patterns.

        Raises:
            BusError: DENIED.
        """
        asked = tuple(patterns)
        if self.identity is not None and not _covered(self.identity, rights, asked):
            raise refusal(self.identity, rights, asked)

    def _become(self, identity: Identity | None) -> None:
        self.identity = identity
        self.stranger = identity is None
        self.bounded = identity is None or identity.rights is not None
        self._allowed.clear()

    def _may_publish(self, topic: bytes) -> bool:
        if topic in self._allowed:
            return True
        if self.identity is None or not _covered(self.identity, ("pub",), (topic,)):
            return False
        if len(self._allowed) >= _CACHE:
            self._allowed.clear()
        self._allowed.add(topic)
        return True

    def _refused(self, run: rq.Publish, topics: list[bytes], count: int, engine: Engine) -> rq.Bad:
        engine.count_refused(count)
        error = _who() if self.identity is None else refusal(self.identity, ("pub",), topics)
        return rq.Bad(error, times=count if run.answers == "each" else 1, eol=run.eol)


def _who() -> BusError:
    return BusError("AUTH", "nobody has said who this is; say AUTH token, as `busd user add` printed it")


def _covered(identity: Identity, rights: tuple[Right, ...], patterns: tuple[bytes, ...]) -> bool:
    have = identity.rights
    return have is None or all(have.cover(rights, one) for one in patterns)


# What each command needs; busd.rules.access.NEEDS says the same in words.


def _reading(gate: Gate, request: rq.Subscribe | rq.Read, engine: Engine) -> None:
    gate.need(("sub",), request.patterns)
    if request.group:
        _of_groups(gate, ("sub",), (request.group,), engine)


def _of_group(gate: Gate, request: rq.Seek | rq.Forget, engine: Engine) -> None:
    _of_groups(gate, ("admin",), (request.group,), engine, none=False)


def _listing(gate: Gate, request: rq.Groups, engine: Engine) -> None:
    _of_groups(gate, ("sub", "admin"), request.patterns, engine)


def _of_groups(
    gate: Gate, rights: tuple[Right, ...], names: tuple[bytes, ...], engine: Engine, none: bool = True
) -> None:
    """The rights over what every group of such names reads.

    Args:
        none: what to say when there is none; that it is so is for those only who could have been told that it is not.
    """
    groups = engine.group_patterns(names)
    identity = gate.identity
    if identity is None or (all(_covered(identity, rights, one) for one in groups.values()) and (groups or none)):
        return
    if not groups and _covered(identity, rights, _ALL):
        return
    # Not which, nor what it reads.
    asked = b",".join(names).decode("ascii", "backslashreplace")
    text = f"{identity.name} needs the right {' or '.join(rights)} over all that groups named {asked} read"
    raise BusError("DENIED", f"{text}; name only those for which it has it")


def _resetting(gate: Gate, request: rq.Reset, engine: Engine) -> None:
    gate.need(("admin",), request.patterns)


def _topics(gate: Gate, request: rq.Topics, engine: Engine) -> None:
    gate.need(("sub", "admin"), request.patterns)


def _info(gate: Gate, request: rq.Info, engine: Engine) -> None:
    gate.need(("sub", "admin"), _ALL)


def _conns(gate: Gate, request: rq.Conns, engine: Engine) -> None:
    gate.need(("admin",), _ALL)


_ALWAYS = frozenset({rq.Auth, rq.Hello, rq.Ping, rq.Quit, rq.Help, rq.Bad, rq.Publish})
_ASKS: dict[type[rq.Request], Callable[[Gate, Any, Engine], None]] = {
    rq.Subscribe: _reading,
    rq.Read: _reading,
    rq.Seek: _of_group,
    rq.Forget: _of_group,
    rq.Groups: _listing,
    rq.Reset: _resetting,
    rq.Topics: _topics,
    rq.Info: _info,
    rq.Conns: _conns,
}
