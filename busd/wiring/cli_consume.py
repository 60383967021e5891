"""`busd sub --group`: a member of a group as a pipe's beginning.

Invariants:
1. A message is acknowledged once it was written, never before: what was written twice is possible, what is lost is not.
2. What waits to be written is touched, so that a slow pipe does not send it to others.
3. A loss is told on stderr and by exit status 3, whatever the format.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import click
from busd_client import aio
from busd_client.address import Address
from busd_client.deliveries import Deliveries, Delivery, GroupPart
from busd_client.events import Gap, ReadResult
from busd_client.group_stream import GroupWish

from busd.wiring.cli import complain, die_of
from busd.wiring.cli_common import reaching
from busd.wiring.cli_format import Formatter, gap_text, printable
from busd.wiring.cli_output import Output, open_output, when_reader_leaves
from busd.words.requests import WAIT_NS

GOT_IT, TIMED_OUT, LOST = 0, 1, 3
# Written ones are acknowledged at once, so a large window delays nobody; it makes a pipe fast.
WINDOW = 1_000


@dataclass(slots=True)
class Consumer:
    """One run of `sub --group`."""

    address: Address
    wish: GroupWish
    formatter: Formatter
    output: str | None
    found: int = 0
    lost: bool = False
    waiting: deque[GroupPart] = field(default_factory=deque)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> int:
        """Returns the exit status."""
        # Not asyncio's own handling: it would wait for a write that may be blocked.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        async with open_output(self.output, patient=True) as output:
            if self.output is None:
                when_reader_leaves(lambda: sys.exit(die_of(signal.SIGPIPE)))
            async with aio.Client(self.address) as client:
                subscription = client.join(self.wish, on_lost=self._reconnecting)
                with reaching(self.address):
                    await subscription.start()
                taking = asyncio.ensure_future(self._take(subscription))
                touching = asyncio.ensure_future(self._touch())
                try:
                    await self._write(output, taking)
                finally:
                    touching.cancel()
                    taking.cancel()
                    await asyncio.gather(touching, taking, return_exceptions=True)
                end = subscription.ended
                if end is not None:
                    await output.write(self.formatter.part(end))
                await subscription.close()
        if subscription.stale:
            complain(f"{subscription.stale} were written too late (--wait): others have them, too")
        if self.lost:
            return LOST
        listening = self.wish.limit is None and self.found > 0
        return GOT_IT if end is None or end.reason != "time" or listening else TIMED_OUT

    async def _take(self, subscription: aio.GroupSubscription) -> None:
        try:
            async for parts in subscription.parts():
                self.waiting += parts
                self.news.set()
        finally:
            self.news.set()

    async def _write(self, output: Output, taking: asyncio.Task[None]) -> None:
        terminal = self.output is None and sys.stdout.isatty()
        while self.waiting or not taking.done():
            if not self.waiting:
                self.news.clear()
                await self.news.wait()
                continue
            parts = [*self.waiting]
            data = b"".join([self._bytes(part) for part in parts])
            await output.write(printable(data) if terminal else data)
            for part in parts:
                self.waiting.popleft()
                if isinstance(part, Deliveries | Delivery):
                    part.ack()
        taking.result()

    def _bytes(self, part: GroupPart) -> bytes:
        if isinstance(part, Deliveries):
            self.found += len(part)
            return self.formatter.part(part.run)
        if isinstance(part, Delivery):
            self.found += 1
            return self.formatter.delivery(part)
        if isinstance(part, Gap):
            self.lost = True
            complain(gap_text(part))
        return self.formatter.part(part)

    async def _touch(self) -> None:
        while True:
            await asyncio.sleep((self.wish.wait_ns or WAIT_NS) / 3_000_000_000)
            for part in self.waiting:
                if isinstance(part, Deliveries | Delivery):
                    part.touch()

    def _reconnecting(self, error: OSError) -> None:
        complain(f"{self.address}: {error}; connecting again")


def peek(address: Address, pages: Iterator[ReadResult], formatter: Formatter, output: str | None) -> int:
    """Print what a group has not settled; returns the exit status."""
    lost = found = False
    with open(output or 1, "wb", buffering=0, closefd=output is not None) as file, reaching(address):
        for page in pages:
            for gap in page.gaps:
                lost = True
                complain(gap_text(gap))
            found = found or bool(page)
            data = b"".join([formatter.part(message) for message in page])
            rest = memoryview(printable(data) if output is None and sys.stdout.isatty() else data)
            while rest:
                rest = rest[file.write(rest) or 0 :]
            if page.reason == "time" and not found:
                return TIMED_OUT
    return LOST if lost else GOT_IT


def check_options(last: int | None, until: str | None, slow: str | None) -> None:
    """Raises click.UsageError for options of `sub` that a group has no use for."""
    given = [name for name, value in (("--last", last), ("--until", until), ("--slow", slow)) if value is not None]
    if given:
        raise click.UsageError(f"{given[0]} is not for groups: a group has its own place, and loses nothing")
