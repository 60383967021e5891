"""All groups: who may join which, making, moving and forgetting them, and what GROUPS tells.

A group's desk stands from its first member, or SEEK, on; until then its state in the log is all there is of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from busd.broker.desk import Desk
from busd.broker.opening import House, beyond, resolve, shared_encoder, unknown_group
from busd.broker.ports import Piece, Subscriber
from busd.broker.seat import Place, Seat
from busd.broker.stride import PIECE_BYTES
from busd.rules.group_records import GroupState, line_gone, line_new, line_seek
from busd.rules.record import Batch
from busd.rules.replies import Row
from busd.rules.select import select
from busd.words.errors import BusError
from busd.words.patterns import Wanted, matcher
from busd.words.requests import Seek, Subscribe
from busd.words.units import FIRST, NS_PER_S

_NS_PER_MS = NS_PER_S // 1000


class Groups:
    """See the module."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._desks: dict[bytes, Desk] = {}
        # Groups that are being made, and who waits for that.
        self._making: dict[bytes, list[Callable[[BusError | None], None]]] = {}
        # Groups that are being forgotten, and who would join then.
        self._going: dict[bytes, list[Seat]] = {}
        self._began_ns = house.runtime.monotonic_ns()

    def join(self, request: Subscribe, subscriber: Subscriber, version: int) -> Seat:
        """See Engine."""
        limits = self._house.limits
        seat = Seat(request, subscriber, shared_encoder(request.format, request.eol, False), limits.outbox_bytes)
        self._house.opened[seat] = None
        seat.gone = lambda gone: self._house.opened.pop(gone, None)
        self._come(seat)
        return seat

    def _come(self, seat: Seat) -> None:
        name = seat.request.group
        if name in self._going:
            self._going[name].append(seat)
        elif name in self._house.log.groups:
            self._enter(seat)
        else:
            self._make(seat)

    def _refuse(self, seat: Seat, error: BusError) -> None:
        if seat.place is not Place.GONE:
            seat.place = Place.GONE
            self._house.opened.pop(seat, None)
            seat.subscriber.refused(error)

    def _has_place(self, seat: Seat) -> bool:
        """Whether there may be one group more; else the seat is refused."""
        house = self._house
        limit = house.limits.groups
        if seat.request.group in self._making or len(house.log.groups) + len(self._making) < limit:
            return True
        self._refuse(seat, BusError("LIMIT", f"there are {limit} groups; FORGET one that is not needed"))
        return False

    def _make(self, seat: Seat) -> None:
        request, house = seat.request, self._house
        if not self._has_place(seat):
            return

        def got(offset: Any) -> None:
            if isinstance(offset, Exception):
                house.runtime.fault(offset)
                seat.leave()
                seat.subscriber.failed()
            elif offset > house.log.horizon:
                self._refuse(seat, beyond(offset, house.log.horizon))
            else:
                self._write_new(seat, offset)

        resolve(house, request.start or FIRST, matcher(request.patterns), got)

    def _write_new(self, seat: Seat, offset: int) -> None:
        request, house = seat.request, self._house

        def decided(error: BusError | None) -> None:
            if error is not None:
                self._refuse(seat, error)
            else:
                self._enter(seat)

        waiting = self._making.get(request.group)
        if waiting is not None:
            waiting.append(decided)
            return
        if request.group in house.log.groups:
            self._come(seat)
            return
        # Others may have been made while its beginning was looked for.
        if not self._has_place(seat):
            return
        self._making[request.group] = [decided]

        def made(error: BusError | None) -> None:
            for call in self._making.pop(request.group):
                call(error)

        now_ns = house.log.now_ns()
        house.log.settle([line_new(request.group, request.patterns, request.tries or 0, offset, now_ns)], made)

    def _enter(self, seat: Seat) -> None:
        request, state = seat.request, self._house.log.groups[seat.request.group]
        if seat.place is Place.GONE:
            return
        if request.patterns != state.patterns:
            reads = b",".join(state.patterns).decode()
            self._refuse(seat, BusError("GROUP", f"{request.group.decode()} reads {reads}"))
            return
        if request.tries is not None and request.tries != state.tries:
            has = f"TRIES {state.tries}" if state.tries else "no TRIES"
            self._refuse(
                seat,
                BusError("GROUP", f"{request.group.decode()} was made with {has}; leave TRIES out, or FORGET it first"),
            )
            return
        desk = self._desk(request.group, state)
        seat.place, seat.desk = Place.SEATED, desk
        seat.subscriber.outbox.bound(self._house.limits.outbox_bytes // 2)
        if request.within_ns is not None:
            seat.cancel_timer = self._house.runtime.later(request.within_ns, lambda: seat.finish("time"))
        # It may say UNSUB within this call.
        seat.subscriber.opened(desk.group.next, self._house.log.epoch)
        desk.joined(seat)

    def _desk(self, name: bytes, state: GroupState) -> Desk:
        desk = self._desks.get(name)
        if desk is None:
            desk = self._desks[name] = Desk(self._house, name, state)
        return desk

    def seek(self, request: Seek, done: Callable[[int | BusError], None]) -> None:
        """See Engine."""
        state = self._state(request.group)
        if state is None:
            done(unknown_group(request.group))
            return

        def got(offset: Any) -> None:
            if isinstance(offset, Exception):
                self._house.runtime.fault(offset)
                done(BusError("INTERNAL", "a fault of busd; its log says more"))
            elif offset > self._house.log.horizon:
                done(beyond(offset, self._house.log.horizon))
            elif self._state(request.group) is None:
                # Forgotten meanwhile.
                done(unknown_group(request.group))
            else:
                self._move(request.group, offset, [line_seek(request.group, offset)], lambda e: done(e or offset))

        resolve(self._house, request.position, matcher(state.patterns), got)

    def _move(self, name: bytes, offset: int, lines: list[bytes], done: Callable[[BusError | None], None]) -> None:
        """Settle the lines while nothing is given out, also to members that come meanwhile; the desk then stands at
        `offset`."""
        desk = self._desk(name, self._house.log.groups[name])
        desk.hold()

        def decided(error: BusError | None) -> None:
            if error is None:
                desk.clear(offset)
            desk.release()
            done(error)

        self._house.log.settle(lines, decided)

    def _state(self, name: bytes) -> GroupState | None:
        """Of a group that is there, and stays for all that is known."""
        return None if name in self._going else self._house.log.groups.get(name)

    def forget(self, name: bytes, done: Callable[[BusError | None], None]) -> None:
        """See Engine.  A group that a rule declares stays, and begins anew at the end."""
        log, desk = self._house.log, self._desks.get(name)
        if self._state(name) is None:
            done(unknown_group(name))
        elif desk is not None and desk.seats:
            count = len(desk.seats)
            done(BusError("GROUP", f"{name.decode()} has {count} member{'s' * (count > 1)}; they have to leave first"))
        elif name in log.declared:
            self._move(name, log.horizon, [line_seek(name, log.horizon)], done)
        else:
            if desk is not None:
                self._desks.pop(name).close()
            self._going[name] = []

            def decided(error: BusError | None) -> None:
                seats = self._going.pop(name)
                done(error)
                for seat in seats:
                    self._come(seat)

            log.settle([line_gone(name)], decided)

    def removed(self) -> None:
        """A RESET became visible."""
        for desk in list(self._desks.values()):
            desk.removed()

    def rows(self, patterns: tuple[bytes, ...], done: Callable[[list[Row]], None]) -> None:
        """See Engine."""
        matches = matcher(patterns)
        names = [name for name in sorted(self._house.log.groups) if matches(name)]
        _Survey(self._house, self._desks, names, self._began_ns, done).next()


class _Survey:
    """The rows of GROUPS, one group after the other, because counting may wait for the disk."""

    def __init__(
        self,
        house: House,
        desks: dict[bytes, Desk],
        names: list[bytes],
        began_ns: int,
        done: Callable[[list[Row]], None],
    ) -> None:
        self._house = house
        self._desks = desks
        self._names = names[::-1]
        self._began_ns = began_ns
        self._done = done
        self._rows: list[Row] = []

    def next(self) -> None:
        """The next group, or the end."""
        while self._names:
            name = self._names.pop()
            state = self._house.log.groups.get(name)
            if state is not None:
                # All of a row is of one moment, that of the call; counting and reading come later.
                wanted = matcher(state.patterns)
                facts = self._facts(name, state, wanted)
                counted = partial(self._counted, name, facts, wanted, state.settled, state.unsettled.count)
                self._house.log.count(wanted, state.next, counted)
                return
        self._done(self._rows)

    def _counted(
        self, name: bytes, facts: dict[str, int | str], wanted: Wanted, settled: int, unsettled: int, ahead: Any
    ) -> None:
        """How many are ahead; now for the oldest that is not settled."""
        log, runtime = self._house.log, self._house.runtime
        cursor = log.cursor(settled)
        if isinstance(ahead, Exception):
            runtime.fault(ahead)
        lag = unsettled + ahead if isinstance(ahead, int) else "?"

        def told(oldest_ns: int | None) -> None:
            facts["lag"] = lag
            if lag and oldest_ns is not None:
                facts["oldest_ms"] = max(0, log.now_ns() - oldest_ns) // _NS_PER_MS
            self._rows.append((name.decode(), list(facts.items())))
            runtime.soon(self.next)

        def got(piece: Piece | Exception) -> None:
            if isinstance(piece, Exception):
                # The age is unknown then; the other rows are not.
                runtime.fault(piece)
                told(None)
                return
            batches = [one for one in piece.records if isinstance(one, Batch) and not one.control]
            found = [one for one in batches if select(one, wanted, settled, floors=log.floors)]
            if found or piece.next >= log.horizon:
                told(found[0].time_ns if found else None)
            else:
                # Others' messages stand before it.
                runtime.step(read)

        def read() -> None:
            try:
                log.read(cursor, wanted, PIECE_BYTES, got)
            except Exception as error:
                got(error)

        if lag == 0:
            told(None)
        else:
            read()

    def _facts(self, name: bytes, state: GroupState, wanted: Wanted) -> dict[str, int | str]:
        """What is known of it now; `lag` and `oldest_ms` have to be looked for."""
        desk = self._desks.get(name)
        idle_since_ns = (desk.idle_since_ns if desk is not None else 0) or self._began_ns
        busy = desk is not None and desk.seats
        return {
            "patterns": b",".join(state.patterns).decode(),
            "members": len(desk.seats) if desk is not None else 0,
            "in_flight": desk.in_flight if desk is not None else 0,
            "delayed": desk.group.held_back if desk is not None else 0,
            "settled": state.settled,
            "next": state.next,
            "lag": 0,
            "oldest_ms": 0,
            "tries": state.tries,
            "dead": desk.group.dead if desk is not None else 0,
            "expired": desk.group.expired if desk is not None else 0,
            "pinned_bytes": self._house.log.pinned_bytes(wanted, state.settled),
            "idle_ms": 0 if busy else (self._house.runtime.monotonic_ns() - idle_since_ns) // _NS_PER_MS,
        }
