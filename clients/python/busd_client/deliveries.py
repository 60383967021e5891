"""What a member of a group is given, and the ledger of it: what is done, and what the server is still to be told.

Pure.  A ledger belongs to one connection, since tokens do.  Invariants:
1. An acknowledgement says no more than was done: `ACK ..token` only when everything before it is done or given back.
2. What a ledger gathers is told once, in the order NACK, TOUCH, ACK: what was given back is no longer out when
   `..token` sweeps by.
3. Once `closed`, a ledger says nothing any more: what came by a lost connection is stale, whatever is done with it.
4. What `check` has not raised yet is not lost with its connection: the ledger of the next one takes it over.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, repeat
from typing import NamedTuple

from busd_client import wire
from busd_client.events import NO_HEADERS, BusdError, ConnectionLost, EndOfStream, Gap, Message, Reset, Stale
from busd_client.runs import Run

# Tokens in one ACK: 20 KB, below any limit for a command.
_TOKENS = 1_000
# What the server takes (protocol.md, NACK).
_REASON_BYTES = 1_000
_NO_TEXT = re.compile(r"[\s\0]+")


def token_text(offset: int, tries: int) -> bytes:
    """How the protocol names a delivery."""
    return b"%d" % offset if tries == 1 else b"%d.%d" % (offset, tries)


class Ledger:
    """Deliveries of one connection, numbered from 0 in the order in which they came.

    Args:
        gather: told when there is something for the server that was not there before; True when it should go now.
        hasty: acknowledgements not sent after which they should go, so that the server can refill the window.
    """

    def __init__(self, gather: Callable[[bool], None], hasty: int = 1) -> None:
        self._gather = gather
        self._hasty = hasty
        self._open: set[int] = set()
        self._low = 0
        self._top = 0
        self._through: tuple[int, bytes] | None = None
        self._single: dict[int, bytes] = {}
        self._given_back: list[bytes] = []
        self._touched: list[bytes] = []
        self._gathered = 0
        self._draining = False
        self._unanswered: deque[tuple[str, int]] = deque()
        self.closed = False
        self.settled = 0
        self.stale = 0
        self._late: Stale | None = None
        self._loss: ConnectionLost | None = None
        self.failure: BusdError | None = None

    @property
    def open(self) -> int:
        """Deliveries that are neither done nor given back."""
        return len(self._open)

    @property
    def unanswered(self) -> int:
        """Commands that were sent and not answered, or not sent yet."""
        waiting = self._gathered > 0 or bool(self._given_back or self._touched or self._draining)
        return len(self._unanswered) + waiting

    def take(self, n: int) -> int:
        """Enter `n` deliveries; returns the number of the first."""
        first = self._top
        self._top += n
        self._open.update(range(first, self._top))
        return first

    def ack(self, number: int, offset: int, tries: int) -> None:
        """One is done.  A second time, or after `nack`, means nothing."""
        if number not in self._open:
            return
        self._open.remove(number)
        if number == self._low:
            self._advance()
            self._through = (number, token_text(offset, tries))
        else:
            self._single[number] = token_text(offset, tries)
        self._noted(1)

    def ack_run(self, first: int, tokens: Sequence[tuple[int, int]]) -> None:
        """Those numbered from `first` on, whose offsets and tries these are, are done."""
        numbers = range(first, first + len(tokens))
        still = self._open
        before = len(still)
        if first <= self._low < numbers.stop:
            # What was given back is not swept, and its token would be stale.
            last = next((number for number in reversed(numbers) if number in still), None)
            still.difference_update(numbers)
            self._advance()
            if last is not None:
                self._through = (last, token_text(*tokens[last - first]))
        else:
            for number, token in zip(numbers, tokens, strict=True):
                if number in still:
                    self._single[number] = token_text(*token)
            still.difference_update(numbers)
        if len(still) < before:
            self._noted(before - len(still))

    def nack(self, number: int, offset: int, tries: int, delay_ns: int | None, reason: str) -> None:
        """Give one back, to be delivered again after the delay (None: the server backs off)."""
        if number not in self._open:
            return
        self._open.remove(number)
        if number == self._low:
            self._advance()
        words: list[bytes | str] = ["NACK", token_text(offset, tries)]
        if delay_ns is not None:
            words += ["DELAY", wire.milliseconds(delay_ns)]
        if reason := _NO_TEXT.sub(" ", reason).strip():
            if delay_ns is None and reason.upper() == "DELAY":
                # Alone the word would be the option.
                reason += " "
            words.append(reason.encode("utf-8", "replace")[:_REASON_BYTES].decode("utf-8", "ignore"))
        self._given_back.append(wire.command(*words))
        self._told(True)

    def touch(self, number: int, offset: int, tries: int) -> None:
        """One is being worked on: count its time anew."""
        if number in self._open:
            self._touched.append(token_text(offset, tries))
            self._told(False)

    def drain(self) -> None:
        """No more deliveries are wanted; the END comes when those that are open are done."""
        self._draining = True
        self._told(True)

    def commands(self) -> bytes:
        """What the server is to be told now; nothing is told twice."""
        if self.closed:
            return b""
        told = self._given_back
        self._unanswered.extend(repeat(("NACK", 1), len(told)))
        for at in range(0, len(self._touched), _TOKENS):
            told.append(self._command("TOUCH", self._touched[at : at + _TOKENS], 0))
        # What lies below is swept by the other form, and would be stale behind it.
        swept, through = self._through or (-1, b"")
        tokens = [token for number, token in self._single.items() if number > swept]
        more = 0
        if through:
            more = self._gathered - len(tokens) - 1
            tokens.insert(0, b".." + through)
        for at in range(0, len(tokens), _TOKENS):
            told.append(self._command("ACK", tokens[at : at + _TOKENS], more if at == 0 else 0))
        if self._draining:
            self._draining = False
            told.append(self._command("UNSUB", [b"DRAIN"], -1))
        self._given_back, self._touched, self._single, self._through, self._gathered = [], [], {}, None, 0
        return b"".join(told)

    def _command(self, verb: str, tokens: list[bytes], more: int) -> bytes:
        """A command about these, and so many `more` that `..` sweeps."""
        self._unanswered.append((verb, len(tokens) + more))
        return wire.command(verb, *tokens)

    def answered(self, reply: wire.Reply) -> bool:
        """The answer to the oldest command; False when none was asked for."""
        if not self._unanswered:
            return False
        verb, count = self._unanswered.popleft()
        first = "?"
        acted_on = count
        if isinstance(reply, BusdError):
            if reply.code != "STALE":
                self.failure = self.failure or reply
                return True
            words = dict(word.partition("=")[::2] for word in reply.text.split())
            acted_on, first = int(words["n"]) if words.get("n", "").isdigit() else 0, words.get("first", first)
        elif verb == "ACK":
            # Of what `..` swept, some may have been taken away in the meantime; that alone is no error.
            acted_on = wire.check_integer(reply)
        if verb == "ACK":
            self.settled += acted_on
        if acted_on < count:
            self._stale(count - acted_on, first)
        return True

    def close(self, told: bool = False) -> None:
        """The connection is gone: nothing of it can be settled any more.

        Answers that are owed are then for `check` to tell of, unless who waits for them is `told` already.
        """
        if told:
            self._loss = None
        elif not self.closed and self._owed():
            self._loss = ConnectionLost("the connection ended before what was told to the server was answered")
        self.closed = True
        self._open.clear()

    def take_over(self, earlier: Ledger) -> None:
        """What the ledger of the connection before has not raised yet."""
        self.failure, self._loss, self._late = earlier.failure, earlier._loss, earlier._late
        earlier.failure = earlier._loss = earlier._late = None

    def _owed(self) -> bool:
        # Not for the UNSUB of a drain: the end of the connection is as good an answer.
        told = any(verb != "UNSUB" for verb, _ in self._unanswered)
        return told or self._gathered > 0 or bool(self._given_back or self._touched)

    def _advance(self) -> None:
        """Past everything that is no longer open; each number is passed once."""
        low, top, still = self._low, self._top, self._open
        if still:
            while low < top and low not in still:
                low += 1
        else:
            low = top
        self._low = low

    def _noted(self, n: int) -> None:
        self._gathered += n
        self._told(self._gathered >= self._hasty)

    def _told(self, now: bool) -> None:
        if not self.closed:
            self._gather(now)

    def check(self, strict: bool) -> None:
        """Raise what went wrong since the last time: a refusal, a loss, or with `strict` also what was stale."""
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        loss, self._loss = self._loss, None
        if loss is not None:
            raise loss
        late, self._late = self._late, None
        if strict and late is not None:
            raise late

    def _stale(self, n: int, first: str) -> None:
        self.stale += n
        earlier = self._late
        self._late = Stale(n, first) if earlier is None else Stale(earlier.count + n, earlier.first)


class _Fields(NamedTuple):
    topic: str
    offset: int
    time_ns: int
    payload: bytes
    headers: Mapping[str, str]
    tries: int
    number: int
    ledger: Ledger


class Delivery(_Fields):
    """One message, given to this member: `tries` tells the how-manieth time it is given out.

    `number` and `ledger` are the client's own.  `ack`, `nack` and `touch` only take note; it is sent when the loop
    turns or the next message is asked for, at once if it is urgent, and surely by `flush` of the subscription.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Delivery({self.topic} {self.token}: {self.payload!r:.80})"

    @property
    def token(self) -> str:
        """How the server names this delivery."""
        return token_text(self.offset, self.tries).decode()

    @property
    def lost(self) -> bool:
        """True when the connection it came by is gone: it will come again, here or elsewhere."""
        return self.ledger.closed

    @property
    def message(self) -> Message:
        """It as a plain message."""
        return Message(*self[:5])

    def ack(self) -> None:
        """It is done.  Means nothing after `nack`, or when the connection it came by is gone."""
        self.ledger.ack(self.number, self.offset, self.tries)

    def nack(self, delay: wire.Duration | None = None, reason: str = "") -> None:
        """Give it back, to be delivered again after `delay` (seconds, or text like `5s`; None backs off)."""
        delay_ns = None if delay is None else wire.duration_ns(delay)
        self.ledger.nack(self.number, self.offset, self.tries, delay_ns, reason)

    def touch(self) -> None:
        """It takes longer: count its time (WAIT) anew."""
        self.ledger.touch(self.number, self.offset, self.tries)


class Batch(list[Delivery]):
    """Deliveries that came together, in the order in which they came; `ack` is for all of them at once."""

    def ack(self) -> None:
        """All of them are done, but those that were given back."""
        if self:
            first = self[0]
            if self[-1].number - first.number == len(self) - 1 and self[-1].ledger is first.ledger:
                first.ledger.ack_run(first.number, _Tokens([one.offset for one in self], [one.tries for one in self]))
            else:
                for one in self:
                    one.ack()


class _Tokens(Sequence[tuple[int, int]]):
    """Offsets and tries side by side, paired only when asked."""

    def __init__(self, offsets: Sequence[int], tries: Sequence[int] | None = None) -> None:
        self._offsets = offsets
        self._tries = tries

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, at: int) -> tuple[int, int]:  # type: ignore[override]
        return self._offsets[at], 1 if self._tries is None else self._tries[at]


class Deliveries:
    """First deliveries that came in one record, not taken apart yet: columns for those who handle thousands at once."""

    __slots__ = ("_first", "_ledger", "run")

    def __init__(self, run: Run, ledger: Ledger) -> None:
        self.run = run
        self._ledger = ledger
        self._first = ledger.take(run.count)

    def __len__(self) -> int:
        return self.run.count

    def __iter__(self) -> Iterator[Delivery]:
        return iter(self.messages())

    def messages(self) -> list[Delivery]:
        """All of them."""
        run = self.run
        columns = (run.names(), run.offsets(), repeat(run.time_ns), run.payloads(), run.headers())
        rows = zip(*columns, repeat(1), count(self._first), repeat(self._ledger), strict=False)
        return list(map(Delivery._make, rows))

    def ack(self) -> None:
        """All of them are done."""
        self._ledger.ack_run(self._first, _Tokens(self.run.offsets()))

    def touch(self) -> None:
        """All of them take longer: count their time (WAIT) anew."""
        for number, offset in enumerate(self.run.offsets(), self._first):
            self._ledger.touch(number, offset, 1)


GroupPart = Deliveries | Delivery | Gap | EndOfStream | Reset
GroupEvent = Delivery | Gap | EndOfStream | Reset


def delivery_of(words: Sequence[bytes | int], ledger: Ledger) -> Delivery:
    """A delivery from the words of its MSG push: kind, topic, token, time, payload, headers.

    Raises:
        BusdError: PROTO, when it is none.
    """
    try:
        _, topic, token, time_ns, payload, *flat = words
        offset, _, tries = (b"%d" % token if isinstance(token, int) else token).partition(b".")
        assert isinstance(topic, bytes)
        assert isinstance(payload, bytes)
        fields = (topic.decode(), int(offset), int(time_ns), payload)
        headers = wire.headers_of(flat) if flat else NO_HEADERS  # type: ignore[arg-type]
        return Delivery(*fields, headers, int(tries or 1), ledger.take(1), ledger)
    except (AssertionError, ValueError):
        raise BusdError("PROTO", f"a delivery was expected, not {words!r:.200}") from None
