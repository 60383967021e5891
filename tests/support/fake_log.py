"""A Log in memory for tests of the broker: commits when the test says so, pieces as small as it likes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from busd.broker.ports import Fullness, Outcome, Piece, Sink, Topic
from busd.rules.group_records import GroupState, apply
from busd.rules.record import Batch, Hole, frame
from busd.rules.replies import Pairs
from busd.rules.seal import seal
from busd.rules.topic_state import TopicRow, TopicTable
from busd.words.errors import BusError
from busd.words.patterns import Wanted
from busd.words.requests import Publish
from busd.words.units import NS_PER_S
from busd.world.stores import topic_rows


class FakeLog:
    """See the module.  `hold`: nothing is decided until `commit`.  `piece_batches`: records in a piece.

    `caps`: messages for which there is room, by store; stores are the first tokens of topics.  `reject`: stores that
    refuse what has no room, others let it wait.  `poked`: stores of which room was asked.
    `group_lines`: all that was noted and settled, in order.  `slow_notes`: with a list, `done` of a note goes there.
    """

    def __init__(self, now_ns: Callable[[], int], hold: bool = False, piece_batches: int = 2) -> None:
        self.horizon = 1
        self.epoch = 1
        self.kept = 0
        self.floors: dict[bytes, int] = {}
        self.congested = False
        self.capped = True
        self.declared: frozenset[bytes] = frozenset()
        self.hold = hold
        self.piece_batches = piece_batches
        self.records: list[Batch | Hole] = []
        self.table = TopicTable()
        self.visible: Callable[[list[Batch]], None] = lambda batches: None
        self.refuse: BusError | None = None
        self.slow_reads: list[Callable[[], None]] | None = None
        self.groups: dict[bytes, GroupState] = {}
        self.group_lines: list[bytes] = []
        self.slow_notes: list[Callable[[], None]] | None = None
        self.caps: dict[str, int] = {}
        self.reject: set[str] = set()
        self.wait_ns = 30 * NS_PER_S
        self.max_item_bytes = 1 << 20
        self.poked: list[str] = []
        self._now_ns = now_ns
        self._waiting: list[tuple[Publish, Sink]] = []
        self._settling: list[tuple[Sequence[bytes], Callable[[BusError | None], None]]] = []

    def now_ns(self) -> int:
        """See Log."""
        return self._now_ns()

    def append(self, run: Publish, sink: Sink) -> None:
        """See Log."""
        if self.refuse is not None:
            raise self.refuse
        for item_store in self._stores(run, 0) if run.kind == "message" else ():
            if item_store in self.caps:
                self.caps[item_store] -= 1
        self._waiting.append((run, sink))
        if not self.hold:
            self.commit()

    def admits(self, run: Publish, start: int) -> int:
        """See Log."""
        left = dict(self.caps)
        for count, store in enumerate(self._stores(run, start)):
            if left.setdefault(store, 1 << 30) <= 0 or self._too_large(run, start + count):
                return count
            left[store] -= 1
        return len(run.items) - start

    def _stores(self, run: Publish, start: int) -> list[str]:
        topics = [run.topics] * len(run.items) if isinstance(run.topics, bytes) else run.topics
        return [self.store_of(topic) for topic in topics[start:]]

    def _too_large(self, run: Publish, at: int) -> bool:
        items = run.items if run.answers == "first" else [run.items[at]]
        return sum(len(item) for item in items) > self.max_item_bytes

    def fullness(self, run: Publish, at: int) -> Fullness:
        """See Log."""
        store = self._stores(run, at)[0]
        error = BusError("FULL", f"{store} is full")
        return Fullness(store, store not in self.reject, self.wait_ns, self._too_large(run, at), error)

    def store_of(self, topic: bytes) -> str:
        """See Log."""
        return topic.partition(b".")[0].decode()

    def make_room(self, store: str) -> None:
        """See Log."""
        self.poked.append(store)

    @property
    def newest_ns(self) -> int:
        """See Log."""
        return max((record.time_ns for record in self.records if isinstance(record, Batch)), default=0)

    def commit(self, error: BusError | None = None) -> None:
        """Decide what waits: kept, or lost with this error."""
        runs, self._waiting = self._waiting, []
        settling, self._settling = self._settling, []
        batches = self._decide(runs, error) if runs else []
        for lines, sink in settling:
            if error is None:
                self._apply(lines)
            sink(error)
        if runs or settling:
            self.visible(batches)

    def _decide(self, runs: list[tuple[Publish, Sink]], error: BusError | None) -> list[Batch]:
        sealed = seal([run for run, _ in runs], self.horizon, lambda topic: "main", self._live)
        batches: list[Batch] = []
        for draft in sealed.drafts["main"] if error is None else ():
            prev = self.records[-1].last if self.records else 0
            flags, topics, column = draft.flags, draft.topics, draft.column
            batch = frame(draft.offsets[0], self._now_ns(), prev, prev, flags, topics, column, draft.steps, draft.items)
            self.table.note(batch)
            batches.append(batch)
            self.records.append(batch)
            self.kept += 0 if batch.control else batch.n
        self.horizon = sealed.next
        self.floors = {name: state.floor for name, state in self.table.items() if state.floor}
        for number, ((run, sink), first) in enumerate(zip(runs, sealed.firsts, strict=True)):
            errors = dict.fromkeys(range(len(run.items)), error) if error is not None else {}
            sink(Outcome(first, len(run.items), errors, sealed.removed.get(number, 0)))
        return batches

    def note(self, lines: Sequence[bytes], done: Callable[[], None]) -> None:
        """See Log.  It passes no settlement that makes, moves or forgets a group."""
        if any(not line.startswith(b"done ") for settled, _ in self._settling for line in settled):
            self._settling.append((lines, lambda error: done()))
            return
        self._apply(lines)
        if self.slow_notes is not None:
            self.slow_notes.append(done)
        else:
            done()

    def settle(self, lines: Sequence[bytes], sink: Callable[[BusError | None], None]) -> None:
        """See Log."""
        if self.hold:
            self._settling.append((lines, sink))
        else:
            self._apply(lines)
            sink(None)

    def _apply(self, lines: Sequence[bytes]) -> None:
        for line in lines:
            apply(self.groups, line)
            self.group_lines.append(line)

    def count(self, wanted: Wanted, position: int, done: Callable[[int | None], None]) -> None:
        """See Log.  None when a hole from there on has no counts."""
        total = 0
        for record in self.records:
            if record.last < position:
                continue
            if isinstance(record, Hole):
                if record.counts is None:
                    done(None)
                    return
            elif not record.control:
                for at, offset in enumerate(record.offsets()):
                    topic = record.topic_of(at)
                    total += offset >= max(position, self.floors.get(topic, 0)) and wanted(topic)
        done(total)

    def pinned_bytes(self, wanted: Wanted, position: int) -> int:
        """See Log."""
        return 0

    def trim(self, below: int, reason: str = "trimmed", known: bool = True) -> None:
        """Take whole batches below an offset away and leave a hole."""
        gone = [record for record in self.records if record.last < below]
        counts: dict[bytes, int] = {}
        for batch in gone:
            assert isinstance(batch, Batch)
            for topic, count in zip(batch.topics, batch.counts(), strict=True):
                counts[topic] = counts.get(topic, 0) + count
        hole = Hole(1, gone[-1].last, 0, 0, reason, counts if known else None)
        self.records = [hole, *self.records[len(gone) :]]

    def cursor(self, position: int, topic: bytes = b"") -> list[int]:
        """See Log."""
        return [position]

    def read(
        self, cursor: list[int], wanted: Wanted, budget_bytes: int, done: Callable[[Piece | Exception], None]
    ) -> None:
        """See Log."""
        if self.slow_reads is not None:
            self.slow_reads.append(lambda: self._read(cursor, wanted, done))
        else:
            self._read(cursor, wanted, done)

    def _read(self, cursor: list[int], wanted: Wanted, done: Callable[[Piece | Exception], None]) -> None:
        rest = [record for record in self.records if record.last >= cursor[0]]
        piece, rest = rest[: self.piece_batches], rest[self.piece_batches :]
        cursor[0] = rest[0].first if rest else self.horizon
        done(Piece([r for r in piece if isinstance(r, Hole) or any(map(wanted, r.topics))], cursor[0]))

    def first(self, wanted: Wanted) -> int:
        """See Log."""
        firsts = [record.first for record in self.records if isinstance(record, Batch)]
        return min(firsts, default=1)

    def offset_at(self, time_ns: int, done: Callable[[int], None]) -> None:
        """See Log."""
        batches = (record for record in self.records if isinstance(record, Batch))
        done(next((batch.first for batch in batches if batch.time_ns >= time_ns), self.horizon))

    def last_floors(self, wanted: Wanted, count: int, done: Callable[[dict[bytes, int]], None]) -> None:
        """See Log."""
        floors: dict[bytes, int] = {}
        for name in filter(wanted, self.table):
            offsets = [
                offset
                for batch in self.records
                if isinstance(batch, Batch) and not batch.control
                for at, offset in enumerate(batch.offsets())
                if batch.topic_of(at) == name and offset >= self.floors.get(name, 0)
            ]
            floors[name] = offsets[-count:][0] if offsets else self.horizon
        done(floors)

    def topic(self, name: bytes) -> Topic | None:
        """See Log."""
        state = self.table.get(name)
        return None if state is None else Topic(state.live, state.last, state.floor, state.ended)

    def topics(self, wanted: Wanted) -> Iterator[list[TopicRow]]:
        """See Log."""
        return topic_rows([self.table], wanted)

    def with_messages(self, wanted: Wanted) -> list[bytes]:
        """See Log."""
        return list(filter(wanted, self.table.with_messages()))

    def ended(self, wanted: Wanted) -> dict[bytes, int]:
        """See Log."""
        return {name: self.table[name].last for name in self.table.ended() if wanted(name)}

    def info(self) -> Mapping[str, Pairs]:
        """See Log."""
        return {"server": [("sync", "always")], "log": [("next", self.horizon)], "stores": []}

    def _live(self, name: bytes) -> int:
        state = self.table.get(name)
        return state.live if state is not None else 0
