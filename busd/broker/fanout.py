"""Who gets what becomes visible: live readers by their patterns, each batch encoded once for all that see the same.

An Audience is the live readers of one set of patterns; its members share the matcher, the selection and the encoding.

Invariants:
1. Batches go out in the order in which they became visible, to every reader.
2. One turn of the loop offers at most READERS_PER_TURN times, and fewer where much has to be selected, encoded or
   written for each; the rest of the work waits in a queue whose bytes are counted (`backlog_bytes`), so that
   publishers are slowed rather than memory spent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from busd.broker.ports import Runtime
from busd.rules.formats import Encoder
from busd.rules.record import Batch
from busd.rules.select import Selection, of_topics
from busd.words.patterns import PatternIndex, Wanted, remembering

# One short write costs about 7 µs, so a turn stays under 2 ms.
READERS_PER_TURN = 200
# What takes as long as that: so many messages looked at in a batch of hundreds of topics, so many encoded, so much
# more written (58 kB to a socket: 36 µs).
_LOOKED_AT = 128
_ENCODED = 64
_WRITTEN_BYTES = 14_000


class Reader(Protocol):
    """Who is live."""

    @property
    def encoder(self) -> Encoder | None:
        """All with the same one are given the same bytes; a group has none."""

    def offered(self, batch: Batch, selection: Selection | None, data: bytes) -> None:
        """A batch became visible: what of it these patterns select, encoded."""

    def failed(self, error: Exception) -> None:
        """A fault of busd; it must not miss a batch in silence."""


class Audience:
    """The live readers of one set of patterns."""

    def __init__(self, patterns: tuple[bytes, ...]) -> None:
        self.patterns = patterns
        self.wanted: Wanted = remembering(patterns)
        self.readers: dict[Reader, None] = {}
        self.users = 0


class Fanout:
    """See the module.  `audiences`: by their patterns."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.audiences: dict[tuple[bytes, ...], Audience] = {}
        self._index: PatternIndex[Audience] = PatternIndex()
        self._queue: deque[tuple[Iterator[int], int]] = deque()
        self._scheduled = False
        self._working = False
        self.backlog_bytes = 0
        self.on_idle: Callable[[], None] = lambda: None

    def enter(self, patterns: tuple[bytes, ...]) -> Audience:
        """The audience of these patterns, counted as used until `leave`."""
        audience = self.audiences.get(patterns)
        if audience is None:
            audience = self.audiences[patterns] = Audience(patterns)
        audience.users += 1
        return audience

    def leave(self, audience: Audience) -> None:
        """One user less; an audience without users is forgotten."""
        audience.users -= 1
        if not audience.users:
            del self.audiences[audience.patterns]

    def join(self, audience: Audience, reader: Reader) -> None:
        """The reader is live from the next batch on."""
        if not audience.readers:
            for pattern in audience.patterns:
                self._index.add(pattern, audience)
        audience.readers[reader] = None

    def part(self, audience: Audience, reader: Reader) -> None:
        """It is not live any more; a second call does nothing."""
        if reader not in audience.readers:
            return
        del audience.readers[reader]
        if not audience.readers:
            for pattern in audience.patterns:
                self._index.remove(pattern, audience)

    def offer(self, batch: Batch) -> None:
        """A batch became visible."""
        audiences: dict[Audience, list[int]] = {}
        for number, topic in enumerate(batch.topics):
            for audience in self._index.find(topic):
                audiences.setdefault(audience, []).append(number)
        if not audiences:
            return
        size = len(batch.record)
        self.backlog_bytes += size
        self._queue.append((self._deliver(batch, audiences), size))
        # A reader that ends may let its session go on, and that may publish: such a batch waits for its turn.
        if not self._scheduled and not self._working:
            self._work()

    def then(self, call: Callable[[], None]) -> None:
        """Call it when all that is visible by now was offered: at once, or in another turn."""
        if not self._queue:
            call()
            return

        def last() -> Iterator[int]:
            call()
            yield 0

        self._queue.append((last(), 0))

    def _work(self) -> None:
        self._scheduled, self._working = False, True
        try:
            self._turn()
        finally:
            self._working = False

    def _turn(self) -> None:
        budget = READERS_PER_TURN
        while self._queue:
            work, size = self._queue[0]
            for cost in work:
                budget -= cost
                if budget <= 0:
                    self._scheduled = True
                    self._runtime.breathe()
                    self._runtime.step(self._work)
                    return
            self._queue.popleft()
            self.backlog_bytes -= size
        self.on_idle()

    def _deliver(self, batch: Batch, audiences: Mapping[Audience, Sequence[int]]) -> Iterator[int]:
        """For each reader what it took, 1 for a write.  Encodings are kept only as long as this batch is under way.

        `audiences`: with the numbers of the topics that each has of this batch's.  To ask each for all of them would be
        a million questions where a thousand readers have a topic each.
        """
        encoded: dict[tuple[Any, bytes | None], bytes] = {}
        for audience, numbers in audiences.items():
            readers = list(audience.readers)
            try:
                selection = of_topics(batch, numbers)
            except Exception as error:
                # Told to each, or they would miss a batch without a word.
                for reader in readers:
                    reader.failed(error)
                continue
            key = None if selection is None else selection.selector
            cost = 1 if key is None else 1 + len(key) // _LOOKED_AT
            for reader in readers:
                known, data = len(encoded), b""
                try:
                    if selection is not None:
                        data = self._encode(encoded, reader, selection, key)
                    reader.offered(batch, selection, data)
                except Exception as error:
                    reader.failed(error)
                if selection is not None and len(encoded) != known:
                    cost += selection.count // _ENCODED
                yield cost + len(data) // _WRITTEN_BYTES
                cost = 1

    @staticmethod
    def _encode(
        encoded: dict[tuple[Any, bytes | None], bytes], reader: Reader, selection: Selection, key: bytes | None
    ) -> bytes:
        known = (reader.encoder, key)
        data = encoded.get(known)
        if data is None:
            encoder = reader.encoder
            data = encoded[known] = b"" if encoder is None else encoder.messages(selection)
        return data
