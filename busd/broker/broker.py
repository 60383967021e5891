"""The bus of one machine: an Engine over one log.

Opens subscriptions, hands what becomes visible to the fan-out, answers questions.  Knows no sockets, files or clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from busd.broker.admission import Admission, Budget
from busd.broker.dedup import Dedup
from busd.broker.fanout import Fanout
from busd.broker.groups import Groups
from busd.broker.opening import House, Opening
from busd.broker.paused import Paused
from busd.broker.ports import Log, Member, Outcome, Runtime, Sink, Subscriber
from busd.rules.record import Batch
from busd.rules.replies import Pairs, Row
from busd.words.errors import BusError
from busd.words.patterns import matcher
from busd.words.requests import Forget, Publish, Read, Seek, Subscribe
from busd.words.settings import Limits

# While this much fan-out work is queued, publishers are not read from.
_BACKLOG_BYTES = 1 << 20


class Broker:
    """An Engine (see ports) over a log."""

    def __init__(self, log: Log, runtime: Runtime, limits: Limits) -> None:
        self.log = log
        self.runtime = runtime
        self.limits = limits
        self.fanout = Fanout(runtime)
        self.fanout.on_idle = self._room
        self.house = House(log, runtime, limits, self.fanout)
        self.opened = self.house.opened
        self.unburied = self.house.unburied
        self._groups = Groups(self.house)
        budget = Budget(limits.held_bytes)
        self._admission = Admission(log, runtime, budget)
        self._dedup = Dedup(log, runtime, limits, budget, self._admission.publish)
        # See Engine; there is nothing to add here.
        self.publish = self._dedup.publish
        self._refused = 0
        self._paused = Paused(runtime, lambda: self.congested)

    @property
    def horizon(self) -> int:
        """See Engine."""
        return self.log.horizon

    @property
    def epoch(self) -> int:
        """See Engine."""
        return self.log.epoch

    @property
    def congested(self) -> bool:
        """See Engine."""
        return self.log.congested or self.fanout.backlog_bytes > _BACKLOG_BYTES

    def when_roomy(self, call: Callable[[], None], read_bytes: int) -> None:
        """See Engine."""
        self._paused.add(call, read_bytes)

    def count_refused(self, messages: int) -> None:
        """See Engine."""
        self._refused += messages

    def visible(self, batches: list[Batch]) -> None:
        """The log's horizon rose over these, in the order of offsets."""
        for batch in batches:
            if "r" in batch.flags:
                # Once for all of them: the log has raised the floors of the whole commit.
                self._groups.removed()
                break
        if self.fanout.audiences:
            for batch in batches:
                self.fanout.offer(batch)
        if self._admission.queues or self._paused:
            self._room()

    def subscribe(self, request: Subscribe, subscriber: Subscriber, version: int) -> Opening:
        """See Engine."""
        return self._open(request, subscriber, version)

    def read(self, request: Read, subscriber: Subscriber, version: int) -> Opening:
        """See Engine."""
        return self._open(request, subscriber, version)

    def join(self, request: Subscribe, subscriber: Subscriber, version: int) -> Member:
        """See Engine."""
        return self._groups.join(request, subscriber, version)

    def seek(self, request: Seek, done: Callable[[int | BusError], None]) -> None:
        """See Engine."""
        self._groups.seek(request, done)

    def forget(self, request: Forget, done: Callable[[BusError | None], None]) -> None:
        """See Engine."""
        self._groups.forget(request.group, done)

    def groups(self, patterns: tuple[bytes, ...], done: Callable[[list[Row]], None]) -> None:
        """See Engine."""
        self._groups.rows(patterns, done)

    def group_patterns(self, names: tuple[bytes, ...]) -> Mapping[bytes, tuple[bytes, ...]]:
        """See Engine."""
        wanted = matcher(names)
        return {name: state.patterns for name, state in self.log.groups.items() if wanted(name)}

    def reset(self, patterns: tuple[bytes, ...], sink: Sink) -> None:
        """See Engine.  Topics without messages, and those at their floor already, are left out."""
        names = sorted(self.log.with_messages(matcher(patterns)))
        if not names:
            sink(Outcome(self.log.horizon, 0, {}))
            return
        self.publish(Publish(names, [b""] * len(names), 0, kind="reset", answers="first"), sink)

    def topics(self, patterns: tuple[bytes, ...]) -> Iterator[list[Row]]:
        """See Engine."""
        for rows in self.log.topics(matcher(patterns)):
            yield [
                (name.decode(), [("messages", live), ("last", last), ("state", "ended" if ended else "open")])
                for name, live, last, ended in rows
            ]

    def info(self) -> Mapping[str, Pairs]:
        """See Engine."""
        clients: Pairs = [
            ("subscriptions", len(self.opened)),
            ("published", self.log.kept),
            ("delivered", self.house.tally.delivered),
            ("gaps", self.house.tally.gaps),
            ("stalled", self.house.tally.stalled),
            ("refused", self._refused),
            ("held", self._admission.held),
            ("duplicates", self._dedup.duplicates),
        ]
        return {**self.log.info(), "clients": clients}

    def stop(self) -> None:
        """Refuse what waits; end every subscription with the reason `closed`."""
        self._dedup.stop()
        self._admission.stop()
        for opening in list(self.opened):
            opening.end("closed")

    def _open(self, request: Subscribe | Read, subscriber: Subscriber, version: int) -> Opening:
        opening = Opening(self.house, request, subscriber, version)
        self.opened[opening] = None
        opening.begin()
        return opening

    def room(self) -> None:
        """Something went from the log: who waits for that may go on."""
        self._admission.room()

    def _room(self) -> None:
        if self._admission.queues:
            self._admission.room()
        if self._paused:
            self._paused.go_on()
