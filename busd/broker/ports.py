"""What the broker needs of the world, and what the world may ask of the broker: small interfaces, no code.

`Engine` is the seam: whatever keeps these promises can stand behind the same sessions and the same protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from busd.rules.group_records import GroupState
from busd.rules.parts import Parts
from busd.rules.record import Batch, Hole
from busd.rules.replies import Pairs, Row
from busd.rules.topic_state import TopicRow
from busd.words.errors import BusError
from busd.words.patterns import Wanted as Wanted
from busd.words.requests import Ack, Forget, Nack, Publish, Read, Seek, Subscribe, Token, Touch


@dataclass(slots=True)
class Outcome:
    """What became of a run: `count` messages from offset `first` on; `errors` by index for those that were not kept.

    `offsets`: one a message, where they are not consecutive (duplicates have the offset of the first of their kind).
    `more`: the rest of the run is told later, in another outcome.  `removed`: messages that a RESET removed.
    """

    first: int
    count: int
    errors: Mapping[int, BusError]
    removed: int = 0
    offsets: Sequence[int] | None = None
    more: bool = False


Sink = Callable[[Outcome], None]
# What takes back the part of a run that is held: it is not published any more.
Drop = Callable[[], None]


@dataclass(slots=True)
class Fullness:
    """Why a message has to wait or is refused: the cap of its store.

    `block`: it may wait, for `wait_ns`.  `never`: not even the empty store could take it, so waiting would not help.
    """

    store: str
    block: bool
    wait_ns: int
    never: bool
    error: BusError


class Runtime(Protocol):
    """Time and turns.  Everything given to it runs on the loop."""

    def now_ns(self) -> int:
        """Wall clock, Unix ns."""

    def monotonic_ns(self) -> int:
        """Monotonic clock, ns."""

    def soon(self, call: Callable[[], None]) -> object:
        """In the next turn of the loop."""

    def first(self, call: Callable[[], None]) -> None:
        """The same, before any step: somebody waits for what this begins."""

    def step(self, call: Callable[[], None]) -> None:
        """In one of the next turns: a piece of long work, of bounded length.

        It comes after what is due at once (commits, and answers to publishers), and in a turn with few others.
        """

    def later(self, delay_ns: int, call: Callable[[], None]) -> Callable[[], None]:
        """After a delay by the monotonic clock; the result cancels it."""

    def in_thread(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """`work` where waiting hurts nobody, then `done(result)` on the loop.  An exception becomes the result.

        While the server stops neither may come.

        Raises:
            RuntimeError: no thread can be had; `work` is not done.
        """

    def fault(self, error: Exception) -> None:
        """An exception that nobody expected: a fault of busd, to be logged with its traceback."""

    @property
    def hurried(self) -> bool:
        """True while a commit, or a read in a thread, would be held up by a long turn of the loop."""

    def breathe(self) -> None:
        """A step of bounded work was done: let a thread that has been away for long have the interpreter first."""


class Outbox(Protocol):
    """The way to one reader.  Bytes given to it are not copied and must not change."""

    def write(self, data: bytes | Parts, events: int = 1) -> None:
        """Queue the bytes of so many events; does nothing when the connection is gone."""

    def buffered(self) -> int:
        """Bytes queued that the kernel has not taken."""

    def bound(self, low_bytes: int) -> None:
        """Tell `drained` when it has grown beyond this and fallen back."""


@dataclass(slots=True)
class Topic:
    """What is known of a topic: messages readable now, last offset, the floor below which a RESET removed all."""

    live: int
    last: int
    floor: int
    ended: bool


@dataclass(slots=True)
class Piece:
    """A piece of the log: records in the order of offsets; everything below `next` is dealt with."""

    records: list[Batch | Hole]
    next: int


class Log(Protocol):
    """Messages, kept.  `horizon` is the first offset that is not visible yet."""

    @property
    def horizon(self) -> int:
        """See the class."""

    @property
    def epoch(self) -> int:
        """Rises when offsets that were shown may be lost."""

    @property
    def floors(self) -> Mapping[bytes, int]:
        """Topics that were RESET: below this offset nothing of them is left."""

    @property
    def congested(self) -> bool:
        """True while more waits for the disk than may; publishers are not read from."""

    @property
    def kept(self) -> int:
        """How many messages it has kept since the start; ends of stream and RESETs are none."""

    @property
    def capped(self) -> bool:
        """False when no store has a cap that holds publishers back: then nobody need ask what it admits."""

    def append(self, run: Publish, sink: Sink) -> None:
        """Take a run; `sink` is called when it is decided.  Raises BusError when it is refused at once."""

    def admits(self, run: Publish, start: int) -> int:
        """For how many messages of the run, from `start` on, without a gap, the caps of their stores leave room now."""

    def fullness(self, run: Publish, at: int) -> Fullness:
        """Why this message (or this run, when it has one answer) has no room, and what its store's rule says then."""

    def store_of(self, topic: bytes) -> str:
        """The store that takes new messages of this topic."""

    def make_room(self, store: str) -> None:
        """Somebody waits for room in this store: what may go should go soon."""

    @property
    def newest_ns(self) -> int:
        """The time of receipt of the newest message, or a little later; 0 when there has been none."""

    def cursor(self, position: int, topic: bytes = b"") -> Any:
        """A place to read from; `topic`: nothing else is wanted, and batches without times and records will do."""

    def read(self, cursor: Any, wanted: Wanted, budget_bytes: int, done: Callable[[Piece | Exception], None]) -> None:
        """The next piece up to the horizon; `done` in this call if the cache has it, else in a later turn.

        A fault (damage is none, it is a Hole) is raised, or given to `done` in a later turn.
        """

    def first(self, wanted: Wanted) -> int:
        """The first offset kept of the stores that may hold such topics."""

    def offset_at(self, time_ns: int, done: Callable[[Any], None]) -> None:
        """The first offset received at or after a time; the horizon when there is none; a fault is an Exception."""

    def last_floors(self, wanted: Wanted, count: int, done: Callable[[Any], None]) -> None:
        """For each such topic (a dict), the offset from which its last `count` messages begin; a fault as above."""

    def topic(self, name: bytes) -> Topic | None:
        """What is known of a topic."""

    def topics(self, wanted: Wanted) -> Iterator[list[TopicRow]]:
        """What is known of every such topic that has ever had a message, sorted by name; each piece, of which some are
        empty, takes about a millisecond, and what comes between two of them may be in it or not."""

    def with_messages(self, wanted: Wanted) -> list[bytes]:
        """Every such topic that has messages which can be read."""

    def ended(self, wanted: Wanted) -> dict[bytes, int]:
        """Every such topic that is at its end, and the offset of that."""

    @property
    def groups(self) -> Mapping[bytes, GroupState]:
        """What is decided of each group, as a restart would find it.  Not to be changed by the caller."""

    def now_ns(self) -> int:
        """The time of receipt that a message would get now: it never falls, and follows no leap ahead at once."""

    @property
    def declared(self) -> Collection[bytes]:
        """Groups that a rule of the settings declares."""

    def note(self, lines: Sequence[bytes], done: Callable[[], None]) -> None:
        """Write group records (lines of rules.group_records), not synced; then `done`, often within this call.

        They keep the order of the calls.  What cannot be written is shown by the health, and `done` comes all the same.
        """

    def settle(self, lines: Sequence[bytes], sink: Callable[[BusError | None], None]) -> None:
        """Group records that an answer waits for: decided by group commit as the policy says, in order, also when
        there are none (then it only keeps the order of answers)."""

    def count(self, wanted: Wanted, position: int, done: Callable[[Any], None]) -> None:
        """How many messages of such topics can be read from `position` on, None when nobody knows; a fault as above."""

    def pinned_bytes(self, wanted: Wanted, position: int) -> int:
        """Bytes on disk in logs that keep what is not acknowledged, from `position` on, that such topics hold."""

    def info(self) -> Mapping[str, Pairs]:
        """Sections for INFO."""


class Subscriber(Protocol):
    """Who asked: told when its subscription is open, refused or over."""

    outbox: Outbox

    def opened(self, next_offset: int, epoch: int) -> None:
        """Nothing of the subscription was written before this call."""

    def refused(self, error: BusError) -> None:
        """There is no subscription."""

    def ended(self) -> None:
        """Its END was written; nothing follows."""

    def failed(self) -> None:
        """A fault of busd ended it; there is no END."""


class Handle(Protocol):
    """A subscription, as a session sees it."""

    @property
    def member(self) -> Member | None:
        """Itself, when it is in a group."""

    def drained(self) -> None:
        """The outbox has room again."""

    def end(self, reason: str | None) -> None:
        """End it; with a reason END is sent and `ended` called, without one it is dropped in silence."""

    def leave(self) -> None:
        """End it as the reader asked (UNSUB): a gap that it was not told of is, then nothing of it comes any more."""


class Member(Handle, Protocol):
    """A subscription in a group.  Tokens are of deliveries to this member; the others are stale."""

    def ack(self, request: Ack, sink: Callable[[int, Token | None, BusError | None], None]) -> None:
        """Settle; then `sink(how many, the first stale token, why it could not be kept)`."""

    def nack(self, request: Nack) -> None:
        """Give back; raises BusError STALE."""

    def drain(self) -> None:
        """Take no more; it ends when nothing of it is out."""

    def touch(self, request: Touch) -> None:
        """Count the time anew; raises BusError STALE (the others have been touched)."""


class Engine(Protocol):
    """Everything a session can ask of a bus."""

    @property
    def horizon(self) -> int:
        """The first offset that is not visible yet."""

    @property
    def epoch(self) -> int:
        """Rises when offsets that were shown may be lost."""

    @property
    def congested(self) -> bool:
        """True while publishers should not be read from."""

    def when_roomy(self, call: Callable[[], None], read_bytes: int) -> None:
        """Once, in a turn in which it is not congested; the caller read so much the last time."""

    def publish(self, run: Publish, sink: Sink, hold: bool = False) -> Drop | None:
        """Append; raises BusError when refused at once, else `sink` tells, perhaps in parts.

        With `hold` a run may wait for room: then the answer is what takes its rest back.
        """

    def count_refused(self, messages: int) -> None:
        """So many that a client would have published were answered with an error, whoever refused them."""

    def subscribe(self, request: Subscribe, subscriber: Subscriber, version: int) -> Handle:
        """Open a subscription (`version` of RESP, 0 inline)."""

    def read(self, request: Read, subscriber: Subscriber, version: int) -> Handle:
        """The same, bounded by the end as it is now."""

    def reset(self, patterns: tuple[bytes, ...], sink: Sink) -> None:
        """Remove; the outcome's `removed` counts."""

    def join(self, request: Subscribe, subscriber: Subscriber, version: int) -> Member:
        """Become a member of a group (`request.group`), which is made when it is new."""

    def seek(self, request: Seek, done: Callable[[int | BusError], None]) -> None:
        """Move a group's place; `done(the offset)`."""

    def forget(self, request: Forget, done: Callable[[BusError | None], None]) -> None:
        """Delete a group."""

    def groups(self, patterns: tuple[bytes, ...], done: Callable[[list[Row]], None]) -> None:
        """Rows for GROUPS."""

    def group_patterns(self, names: tuple[bytes, ...]) -> Mapping[bytes, tuple[bytes, ...]]:
        """What each group reads whose name one of these patterns names."""

    def topics(self, patterns: tuple[bytes, ...]) -> Iterator[list[Row]]:
        """Rows for TOPICS, in pieces as those of Log."""

    def info(self) -> Mapping[str, Pairs]:
        """Sections for INFO."""
