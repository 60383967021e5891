"""`busd sub` and `busd read`: a topic as a pipe's beginning.

Invariants:
1. What one read of the socket brought is written in one write, at once: large under load, immediate when quiet.
2. A loss is told on stderr and by exit status 3, whatever the format.
3. When all patterns are literal it ends once every one of the topics has ended, however late it came.  An end of stream
   that is read may be an old one, behind which its topic goes on: whether it is the last, the server is asked.
"""

from __future__ import annotations

import asyncio
import math
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import click
from busd_client import aio, sync
from busd_client.address import Address
from busd_client.events import End, EndOfStream, Gap, Message, ReadResult
from busd_client.group_stream import GroupWish
from busd_client.stream import Part, Run, Wish

from busd.wiring.cli import complain, die_of
from busd.wiring.cli_common import address_option, duration, group_option, member_options, reaching
from busd.wiring.cli_consume import WINDOW, Consumer, check_options, peek
from busd.wiring.cli_format import FORMATS, Formatter, gap_text, printable
from busd.wiring.cli_output import open_output, when_reader_leaves
from busd.words.topics import is_literal

GOT_IT, TIMED_OUT, LOST = 0, 1, 3

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _output(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    return None if value == "-" else value


def _reading_options(command: _Command) -> _Command:
    """What `sub` and `read` share."""
    for option in reversed(
        (
            click.option("--from", "start", metavar="POS", help="offset, first, next, -5m, @2026-11-21T08:00:00Z."),
            click.option("--last", type=click.IntRange(1), metavar="N", help="The last N of each topic first."),
            click.option("--limit", type=click.IntRange(1), metavar="N", help="Stop after N messages."),
            click.option("--within", metavar="DUR", callback=duration, help="Stop after this time: 250ms, 5s, 10m."),
            click.option("--format", "-f", "form", type=click.Choice(FORMATS), default="raw", show_default=True),
            click.option("-0", "--null", is_flag=True, help="NUL behind each message instead of LF."),
            click.option(
                "-o", "--output", metavar="FILE", callback=_output, help="Write to FILE instead of standard output (-)."
            ),
            address_option,
        )
    ):
        command = option(command)
    return command


@click.command()
@click.argument("patterns", nargs=-1, required=True, metavar="PATTERN…")
@click.option("--until", metavar="POS", help="Stop before this position; `end` is what is there now.")
@click.option("--slow", type=click.Choice(("drop", "spill")), help="When too slow: lose the newest, or fall behind.")
@group_option(text="Share these messages with the other members of GROUP; see below.")
@click.option("--ack", is_flag=True, help="Acknowledge what was written; --group does so anyway.")
@click.option("--window", type=click.IntRange(1), metavar="N", help="With --group: at most N at a time (1000).")
@member_options
@_reading_options
def sub(
    patterns: tuple[str, ...],
    start: str | None,
    last: int | None,
    until: str | None,
    limit: int | None,
    within: int | None,
    slow: str | None,
    group: str | None,
    ack: bool,
    window: int | None,
    wait: int | None,
    tries: int | None,
    form: str,
    null: bool,
    output: str | None,
    address: Address,
) -> int:
    """Print messages of the matching topics as they come, by default the payload and LF.

    Without --from or --last from now on; it ends when every topic named (without * and >) has ended, and has no message
    behind that.  A lost connection is made again and continues where it was.

    With --group each message goes to one member, and is acknowledged once it was written here.  What was not
    comes again, to any member; so after a crash something may be written twice, and nothing is lost.  --from counts
    only when the group is new; it begins with the first message otherwise.  `busd read --group` shows what is left.

    \b
    Exit status
      0  all went well
      1  the time was up (--within) before --limit or --until, or before anything came
      2  an error
      3  messages were lost

    \b
    busd sub 'logs.>' --from -5m --format line
    busd sub jobs.done --limit 1 --within 10s || echo nothing in time
    busd sub 'jobs.>' --group archive --ack >>jobs.log
    """
    if group is not None:
        check_options(last, until, slow)
        names = ",".join(patterns)
        ends = all(is_literal(name.encode()) for name in names.split(","))
        member = GroupWish(names, group, start, limit, within, window or WINDOW, wait, tries, until_eof=ends)
        return asyncio.run(Consumer(address, member, Formatter(form, null), output).run())
    if ack or (window, wait, tries) != (None, None, None):
        raise click.UsageError("--ack, --window, --wait and --tries are for --group")
    wish = Wish(",".join(patterns), start, last, until, limit, within, slow)
    return asyncio.run(_Printer(address, wish, Formatter(form, null), output).run())


@click.command()
@click.argument("patterns", nargs=-1, required=True, metavar="PATTERN…")
@group_option(text="Only what GROUP has not settled; nothing is taken from it.")
@_reading_options
def read(
    patterns: tuple[str, ...],
    group: str | None,
    start: str | None,
    last: int | None,
    limit: int | None,
    within: int | None,
    form: str,
    null: bool,
    output: str | None,
    address: Address,
) -> int:
    """Print what is there, from the first message unless told, then stop.  Nothing is consumed.

    With --within it waits that long for a first message when there is none; then exit status 1.

    \b
    busd read jobs.done --last 1
    busd read 'logs.>' --from @2026-11-21 --format json | jq .payload
    busd read 'jobs.>' --group workers --format offset
    """
    if group is not None:
        check_options(last, None, None)
        within_s = None if within is None else within / 1_000_000_000
        pages = sync.Client(address).read_pages(patterns, start, limit, within_s, group)
        return peek(address, pages, Formatter(form, null), output)
    wish = Wish(",".join(patterns), start, last, "end", limit, None, None)
    return asyncio.run(_Printer(address, wish, Formatter(form, null), output, wait_ns=within or 0).run())


@dataclass(slots=True)
class _Printer:
    """One run of `sub` or `read`.  `wait_ns`: how long to wait for a first message that is not there yet."""

    address: Address
    wish: Wish
    formatter: Formatter
    output: str | None
    wait_ns: int | None = None
    found: int = 0
    lost: bool = False
    open_topics: set[str] = field(default_factory=set)
    literal: bool = False

    async def run(self) -> int:
        """Returns the exit status."""
        names = self.wish.patterns.split(",")
        self.open_topics = set(names)
        # Of what is there now the server tells the end.
        self.literal = self.wish.until != "end" and all(is_literal(name.encode()) for name in names)
        # Not asyncio's own handling: it would wait for a write that may be blocked.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        async with open_output(self.output) as output:
            terminal = self.output is None and sys.stdout.isatty()
            if self.output is None:
                when_reader_leaves(lambda: sys.exit(die_of(signal.SIGPIPE)))
            if self.wait_ns:
                found = await self._wait()
                if not found:
                    return TIMED_OUT
                if self.wish.last is None:
                    # Not the position again: `next` would be another one now.
                    self.wish = replace(self.wish, start=found[0].offset)
            subscription = aio.Client(self.address).subscribe_to(self.wish, on_lost=self._reconnecting)
            with reaching(self.address):
                await subscription.start()
            async for parts in subscription.parts():
                data = self._take(parts)
                await output.write(printable(data) if terminal else data)
                if subscription.ended is None and await self._all_ended(subscription):
                    return self._status(None)
            if subscription.ended is not None:
                await output.write(self.formatter.part(subscription.ended))
            return self._status(subscription.ended)

    async def _wait(self) -> ReadResult:
        async with aio.Client(self.address) as client:
            with reaching(self.address):
                await client.open()
            start = self.wish.start
            within = (self.wait_ns or 0) / 1_000_000_000
            return await client.read(self.wish.patterns, start, self.wish.last, 1, within)

    async def _all_ended(self, subscription: aio.Subscription) -> bool:
        """True when there is nothing to come but what would open a topic again."""
        if not self.literal or self.open_topics:
            return False
        # Once they seem to have ended, and on a connection of its own.  The server may be gone by now, and is waited
        # for as it is while reading.
        async with aio.Client(self.address, math.inf) as client:
            rows = await client.topics(self.wish.patterns)
        following = subscription.next or 0
        return all(row["state"] == "ended" and int(row["last"]) < following for row in rows)

    def _take(self, parts: list[Part]) -> bytes:
        """The bytes of these parts."""
        pieces = []
        for part in parts:
            pieces.append(self.formatter.part(part))
            if isinstance(part, Run):
                self.found += part.count
                if self.literal and len(self.open_topics) < len(self.wish.patterns.split(",")):
                    self.open_topics.update(topic.decode() for topic in part.topics())
            elif isinstance(part, Message):
                self.found += 1
                self.open_topics.add(part.topic)
            elif isinstance(part, Gap):
                self.lost = True
                complain(gap_text(part))
            elif isinstance(part, EndOfStream):
                self.open_topics.discard(part.topic)
        return b"".join(pieces)

    def _status(self, end: End | None) -> int:
        if self.lost:
            return LOST
        if end is None or end.reason != "time":
            return GOT_IT
        # Without a number or a place to reach, the time is simply how long to listen.
        listening = self.wish.limit is None and self.wish.until is None
        return GOT_IT if listening and self.found else TIMED_OUT

    def _reconnecting(self, error: OSError) -> None:
        complain(f"{self.address}: {error}; connecting again")
