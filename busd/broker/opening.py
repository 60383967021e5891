"""A subscription on its way: positions that need the disk are resolved, then it starts.

Knows the log and the fan-out, no sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from busd.broker.fanout import Audience, Fanout
from busd.broker.ports import Handle, Log, Runtime, Subscriber
from busd.broker.subscription import Subscription
from busd.broker.terms import Tally, Terms, ended_early, unsettled_of
from busd.rules.formats import Encoder, encoder_for
from busd.words.errors import BusError
from busd.words.patterns import Wanted
from busd.words.requests import BARE_FORMATS, Read, Subscribe
from busd.words.settings import Limits
from busd.words.topics import is_literal
from busd.words.units import MAX_OFFSET, Base, Position

# Readers with the same encoder share encodings, so there is one of each.
shared_encoder = lru_cache(maxsize=None)(encoder_for)


def unknown_group(name: bytes) -> BusError:
    """No such group."""
    return BusError("GROUP", f"there is no group {name.decode()}; GROUPS lists them")


@dataclass(slots=True)
class House:
    """What every subscription and group of a broker shares.

    `unburied`: groups whose dead letters cannot be kept at present, and why.
    """

    log: Log
    runtime: Runtime
    limits: Limits
    fanout: Fanout
    tally: Tally = field(default_factory=Tally)
    opened: dict[Handle, None] = field(default_factory=dict)
    unburied: dict[bytes, str] = field(default_factory=dict)


def resolve(house: House, position: Position, wanted: Wanted, got: Callable[[Any], None]) -> None:
    """The offset that a position means now: `got(offset)`, or `got(an Exception)` when the log has a fault.

    It may lie beyond the end where it was written as an offset.
    """
    log, value = house.log, position.value
    if position.base is Base.OFFSET:
        got(value)
    elif position.base is Base.NEXT:
        got(log.horizon)
    elif position.base is Base.FIRST:
        got(min(log.first(wanted), log.horizon))
    else:
        log.offset_at(value if position.base is Base.TIME else house.log.now_ns() - value, got)


def beyond(offset: int, horizon: int) -> BusError:
    """There is no such position yet."""
    return BusError("POS", f"{offset} is beyond the end; the next offset is {horizon}")


def _nothing() -> None:
    pass


class Opening:
    """A subscription on its way: positions that need the disk are resolved one after the other, then it starts.

    It is the Handle its session holds, before and after.
    """

    def __init__(self, house: House, request: Subscribe | Read, subscriber: Subscriber, version: int) -> None:
        self._house = house
        self._request = request
        self._subscriber = subscriber
        self._version = version
        self._audience: Audience | None = house.fanout.enter(request.patterns)
        self._wanted = self._audience.wanted
        self._subscription: Subscription | None = None
        self._cancel_timer: Callable[[], None] | None = None
        self._until = MAX_OFFSET
        self._gone = False
        self._floors: Mapping[bytes, int] | None = None
        self._horizon = house.log.horizon

    def begin(self) -> None:
        """Resolve UNTIL, then FROM or LAST, then open."""
        request, log = self._request, self._house.log
        if request.group and request.group not in log.groups:
            self._close()
            self._subscriber.refused(unknown_group(request.group))
        elif isinstance(request, Read):
            self._until = log.horizon
            self._resolve_start()
        elif request.until is None:
            self._resolve_start()
        else:
            self._resolve(request.until, self._got_until)

    @property
    def member(self) -> None:
        """See Handle."""

    def drained(self) -> None:
        """See Handle."""
        if self._subscription is not None:
            self._subscription.drained()

    def end(self, reason: str | None) -> None:
        """See Handle."""
        if self._subscription is not None:
            self._subscription.end(reason)
        elif reason is not None and not self._gone:
            self._subscriber.refused(ended_early(reason))
        self._close()

    def leave(self) -> None:
        """See Handle."""
        if self._subscription is not None:
            self._subscription.leave()
        self._close()

    def _resolve(self, position: Position, got: Callable[[int], None]) -> None:
        resolve(self._house, position, self._wanted, self._unless_fault(got))

    def _unless_fault(self, got: Callable[[Any], None]) -> Callable[[Any], None]:
        """A question that failed ends it: nobody else would."""

        def answered(answer: Any) -> None:
            if not isinstance(answer, Exception):
                got(answer)
            elif not self._gone:
                self._failed(answer)

        return answered

    def _got_until(self, offset: int) -> None:
        if self._gone:
            return
        position = self._request.until if isinstance(self._request, Subscribe) else None
        ahead_ns = 0
        if position is not None and position.base is Base.TIME:
            ahead_ns = position.value - self._house.log.now_ns()
        if ahead_ns > 0:
            # Nothing was received then yet: end when the clock says so.
            self._after(ahead_ns, self._time_came)
        elif self._beyond(offset):
            return
        else:
            self._until = offset
        self._resolve_start()

    def _time_came(self) -> None:
        until = self._until = self._house.log.horizon
        subscription = self._subscription
        if subscription is not None:
            subscription.until(until, False)
            # Behind hundreds of readers some of what was received before may still wait for this one.
            self._house.fanout.then(lambda: subscription.until(until, True))

    def _beyond(self, offset: int) -> bool:
        """True when there is no such position, and the reader was told."""
        horizon = self._house.log.horizon
        if offset > horizon:
            self._close()
            self._subscriber.refused(beyond(offset, horizon))
        return offset > horizon

    def _resolve_start(self) -> None:
        request = self._request
        if request.last is not None:
            self._house.log.last_floors(self._wanted, request.last, self._unless_fault(self._got_floors))
            return
        start = request.start
        if start is None:
            from_first = isinstance(request, Read) or request.until is not None
            start = Position(Base.FIRST if from_first else Base.NEXT)
        self._resolve(start, self._got_start)

    def _got_floors(self, floors: dict[bytes, int]) -> None:
        self._floors = floors
        log = self._house.log
        for topic in filter(is_literal, self._request.patterns):
            state = log.topic(topic)
            # Nothing of it is kept but its end: told in its place among the messages of the others.
            if state is not None and state.ended and log.first(topic.__eq__) <= state.last < floors.get(topic, 0):
                floors[topic] = state.last
        # Topics that came since the question are read from where it was asked.
        self._got_start(min(floors.values(), default=self._horizon))

    def _got_start(self, offset: int) -> None:
        if self._gone or self._beyond(offset):
            return
        if self._request.group:
            if self._request.group not in self._house.log.groups:
                # Forgotten meanwhile.
                self._close()
                self._subscriber.refused(unknown_group(self._request.group))
                return
            offset = max(offset, self._house.log.groups[self._request.group].settled)
        subscription = self._make(offset)
        self._subscription = subscription
        request = self._request
        if request.within_ns is not None:
            self._after(request.within_ns, self._time_is_over)
        self._subscriber.opened(offset, self._house.log.epoch)
        subscription.start()

    def _time_is_over(self) -> None:
        subscription = self._subscription
        if subscription is not None and isinstance(self._request, Read) and subscription.position < self._until:
            # It waits for a first message only: what is there is told, however long that takes.
            subscription.late = True
        else:
            self.end("time")

    def _make(self, offset: int) -> Subscription:
        request, house = self._request, self._house
        assert self._audience is not None
        limits, drop = house.limits, _drops(request)
        one_answer = isinstance(request, Read) and self._version > 0
        terms = Terms(
            request.patterns,
            offset,
            self._until,
            request.limit,
            drop,
            limits.outbox_bytes if drop or one_answer else min(limits.spill_outbox_bytes, limits.outbox_bytes),
            self._floors,
            wait_first=isinstance(request, Read) and request.within_ns is not None,
            one_answer=one_answer,
            unsettled=unsettled_of(house.log.groups[request.group]) if request.group else None,
        )
        self._subscriber.outbox.bound(terms.low_bytes)
        subscription = Subscription(
            terms, self._wanted, self._encoder(), self._subscriber.outbox, house.log, house.runtime, house.tally
        )
        audience = self._audience
        subscription.live = lambda reader: house.fanout.join(audience, reader)
        subscription.not_live = lambda reader: house.fanout.part(audience, reader)
        subscription.over = self._over
        subscription.failed = self._failed
        return subscription

    def _encoder(self) -> Encoder:
        request = self._request
        array = isinstance(request, Read) and self._version > 0
        encoder: Encoder = shared_encoder(request.format, request.eol, array)
        return encoder

    def _after(self, delay_ns: int, call: Callable[[], None]) -> None:
        previous = self._cancel_timer
        cancel = self._house.runtime.later(delay_ns, call)

        def both() -> None:
            cancel()
            if previous is not None:
                previous()

        self._cancel_timer = both

    def _over(self) -> None:
        self._close()
        self._subscriber.ended()

    def _failed(self, error: Exception) -> None:
        self._house.runtime.fault(error)
        self.end(None)
        self._subscriber.failed()

    def _close(self) -> None:
        if self._gone:
            return
        self._gone = True
        if self._cancel_timer is not None:
            self._cancel_timer()
        if self._audience is not None:
            self._house.fanout.leave(self._audience)
            self._audience = None
        if self._subscription is not None:
            # No circle: what was gathered for it goes now, and not when what collects circles comes by.
            self._subscription.over, self._subscription.failed = _nothing, self._house.runtime.fault
        self._house.opened.pop(self, None)


def _drops(request: Subscribe | Read) -> bool:
    """Whether a slow reader loses the newest; by default only one that never asked for what was before it."""
    if isinstance(request, Read) or request.format in BARE_FORMATS:
        return False
    if request.slow is not None:
        return request.slow == "drop"
    return request.start is None and request.last is None and request.until is None
