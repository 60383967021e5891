"""`busd check`: a publisher that writes down what it was answered, and a reader that proves that none of it is missing.

For any broker at any address, beside any trouble: `produce` goes on over lost connections and restarts.  A message is
`<run> <number> <crc32 of both and the filling> <filling>`; no message is ever sent twice.  The journal has a line each:

    run <id> <topic>
    sent <from> <to>            about to be sent; written before they are
    ok <number> <offset>        answered
    refused <number> <code>     answered with an error

What was sent and has no other line may have been kept or not: its connection ended before the answer.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO
from zlib import crc32

import click
from busd_client import sync
from busd_client.address import Address
from busd_client.events import BusdError, ConnectionLost, Message

from busd.wiring.cli import Failure, complain
from busd.wiring.cli_common import address_option, duration, group_option, reaching

# Looked at one by one they are named, up to so many.
_SHOWN = 10
_PAUSE_S = 0.05
# Filling whose length differs from message to message, without chance: a run can be told again from its id.
_LENGTHS = (0, 1, 13, 60, 200, 700)


@click.group()
def check() -> None:
    """Prove that nothing that was answered is missing.

    \b
    busd check produce --journal one.journal --for 1m    # kill -9 the server meanwhile, as often as you like
    busd check consume --journal one.journal
    """


def payload_of(run: str, number: int) -> bytes:
    """The message of this number."""
    filling = b"x" * _LENGTHS[number % len(_LENGTHS)]
    words = b"%b %d" % (run.encode(), number)
    return b"%b %08x %b" % (words, crc32(filling, crc32(words)), filling)


@check.command()
@click.argument("topic", default="check.run")
@click.option("--journal", required=True, type=click.Path(dir_okay=False), help="Where to write what was answered.")
@click.option("--for", "within_ns", callback=duration, metavar="DUR", default="10s", show_default=True)
@click.option("--count", type=click.IntRange(1), help="Stop after so many messages.")
@click.option(
    "--burst", type=click.IntRange(1, 2000), default=50, show_default=True, help="Sent before answers are read."
)
@address_option
def produce(topic: str, journal: str, within_ns: int, count: int | None, burst: int, address: Address) -> int:
    """Publish numbered messages to TOPIC and write down what is answered.

    A lost connection is made again; what was sent on it and not answered is not sent again.

    \b
    Exit status: 0 also when some were refused or lost with a connection, 2 when the server was never reached.
    """
    run = secrets.token_hex(4)
    end_s = time.monotonic() + within_ns / 1e9
    with open(journal, "w", encoding="ascii", buffering=1) as file:
        file.write(f"run {run} {topic}\n")
        with reaching(address):
            client = sync.Client(address, patience_s=max(1.0, within_ns / 1e9), timeout_s=30.0)
            client.ping()
        told = {"ok": 0, "refused": 0, "lost": 0}
        number = 0
        while time.monotonic() < end_s and (count is None or number < count):
            to = number + burst if count is None else min(count, number + burst)
            _send(client, file, run, topic, range(number, to), told)
            number = to
        client.close()
    click.echo(
        f"run {run}: {number} sent, {told['ok']} answered, {told['refused']} refused, {told['lost']} without an answer"
    )
    return 0


def _send(client: sync.Client, file: TextIO, run: str, topic: str, numbers: range, told: dict[str, int]) -> None:
    file.write(f"sent {numbers.start} {numbers.stop - 1}\n")
    answered = 0
    try:
        for answer in client.publish_all((topic, payload_of(run, number)) for number in numbers):
            number = numbers.start + answered
            refused = isinstance(answer, BusdError)
            file.write(
                f"refused {number} {answer.code}\n" if isinstance(answer, BusdError) else f"ok {number} {answer}\n"
            )
            told["refused" if refused else "ok"] += 1
            answered += 1
            if refused:
                # A full disk is not made emptier by asking it ten thousand times a second.
                time.sleep(_PAUSE_S / len(numbers))
    except ConnectionLost:
        told["lost"] += len(numbers) - answered
        time.sleep(_PAUSE_S)


@dataclass
class Journal:
    """What a run was answered."""

    run: str = ""
    topic: str = ""
    sent: int = 0
    answered: dict[int, int] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)


def read_journal(path: str) -> Journal:
    """A journal; a last line that a crash cut off is passed over.

    Raises:
        Failure: it is none.
    """
    found = Journal()
    for line in Path(path).read_text(encoding="ascii", errors="replace").split("\n")[:-1]:
        kind, *words = line.split(" ")
        numbers = words[:1] if kind == "refused" else words if kind != "run" else []
        numeric = all(word.isdigit() for word in numbers)
        if len(words) != 2 or kind not in ("run", "sent", "ok", "refused") or not numeric:
            raise Failure(f"{path} is not a journal of `busd check produce`: {line[:80]!r}")
        if kind == "run":
            found.run, found.topic = words
        elif kind == "sent":
            found.sent = int(words[1]) + 1
        elif kind == "ok":
            found.answered[int(words[0])] = int(words[1])
        else:
            found.refused.add(int(words[0]))
    if not found.run:
        raise Failure(f"{path} is not a journal of `busd check produce`: it has no run")
    return found


class Judge:
    """Holds what is received against a journal.

    `wrong`: what is not as promised, a line each; `seen`: offsets by number; `missing`: answered, and not come yet.
    """

    def __init__(self, journal: Journal) -> None:
        self.wrong: list[str] = []
        self.seen: dict[int, int] = {}
        self.missing = set(journal.answered)
        self._journal = journal
        self._last = -1

    def take(self, message: Message, again: bool = False) -> None:
        """A message; those of other runs are nobody's business.  `again`: it may come late, or have come before."""
        journal = self._journal
        words = message.payload.split(b" ", 2)
        if words[0] != journal.run.encode():
            return
        if len(words) < 2 or not words[1].isdigit() or payload_of(journal.run, int(words[1])) != message.payload:
            self.wrong.append(f"offset {message.offset}: not as it was sent: {message.payload[:60]!r}")
            return
        number = int(words[1])
        if number >= journal.sent:
            self.wrong.append(f"offset {message.offset}: number {number} was never sent")
        if number in journal.refused:
            self.wrong.append(f"offset {message.offset}: number {number} was refused, and is there")
        if (known := journal.answered.get(number, message.offset)) != message.offset:
            self.wrong.append(f"number {number}: answered as offset {known}, found at {message.offset}")
        if number in self.seen:
            if not again or self.seen[number] != message.offset:
                self.wrong.append(f"number {number}: twice, at {self.seen[number]} and {message.offset}")
            return
        if number < self._last and not again:
            self.wrong.append(f"number {number}: after {self._last}")
        self.seen[number] = message.offset
        self.missing.discard(number)
        self._last = number

    def verdict(self) -> list[str]:
        """Everything that is wrong."""
        answered = self._journal.answered
        gone = [f"number {one}: answered as offset {answered[one]}, and missing" for one in sorted(self.missing)]
        return [*self.wrong, *gone]


@check.command()
@click.option("--journal", "journals", required=True, multiple=True, type=click.Path(exists=True, dir_okay=False))
@group_option(text="Take them as a member of this group, and acknowledge each.")
@click.option(
    "--within", "within_ns", callback=duration, metavar="DUR", default="30s", help="Wait so long for the group."
)
@address_option
def consume(journals: tuple[str, ...], group: str | None, within_ns: int, address: Address) -> int:
    """Read back what `produce` has published, and hold it against its journals.

    Whatever was answered must be there, once, at the offset told and as it was sent; in the order sent; nothing that
    was refused and nothing that nobody sent. With --group a message may come again, none may be missing.

    \b
    Exit status: 0 it is so, 1 it is not, 2 it could not be read.
    """
    failed = False
    for path in journals:
        journal = read_journal(path)
        judge = Judge(journal)
        with reaching(address):
            for message in _received(journal, judge, group, within_ns, address):
                judge.take(message, again=group is not None)
        wrong = judge.verdict()
        failed = failed or bool(wrong)
        for line in wrong[:_SHOWN]:
            complain(f"{path}: {line}")
        if len(wrong) > _SHOWN:
            complain(f"{path}: and {len(wrong) - _SHOWN} more")
        unknown = len(judge.seen) - len(journal.answered)
        verdict = f"{len(wrong)} WRONG" if wrong else "none missing, none doubled, none invented"
        click.echo(
            f"run {journal.run}: {len(journal.answered)} answered, {len(judge.seen)} there "
            f"({max(0, unknown)} of them kept without an answer): {verdict}"
        )
    return 1 if failed else 0


def _received(journal: Journal, judge: Judge, group: str | None, within_ns: int, address: Address) -> Iterator[Message]:
    with sync.Client(address) as client:
        client.open()
        if group is None:
            for page in client.read_pages(journal.topic):
                judge.wrong += [f"a GAP from {one.first} to {one.last}: {one.reason}" for one in page.gaps]
                yield from page
            return
        within = f"{within_ns // 1_000_000}ms"
        with client.subscribe(journal.topic, group=group, window=100, within=within) as member:
            for parts in member.batches():
                yield from (one.message for one in parts)
                parts.ack()
                if not judge.missing:
                    return
