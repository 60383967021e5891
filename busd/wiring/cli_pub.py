"""`busd pub`: a pipe's end that is a topic.

Invariants:
1. What was read is sent at once; at most a window of unanswered bytes is held, then reading stops: back-pressure.
2. The exit status is 0 only when every message was answered by an offset; otherwise it is said how many were kept.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any

import click
from busd_client import aio, wire
from busd_client.address import Address
from busd_client.events import BusdError, ConnectionLost

from busd.wiring.cli import Failure, complain, die_of
from busd.wiring.cli_common import address_option, reaching
from busd.wiring.cli_input import READ_BYTES, file_pieces, known_size, stdin_pieces
from busd.wiring.cli_split import AsRead, Delimited, Splitter, TooLong, Whole, groups
from busd.words.units import parse_size_bytes

# Below this a progress bar would be gone before anybody saw it, and loading it costs more than the transfer.
_PROGRESS_FROM_BYTES = 1 << 22

Advance = Callable[[int], None]


@dataclass(slots=True)
class Tally:
    """What became of the messages; `waiting` are sent and not answered yet."""

    kept: int = 0
    refused: int = 0
    waiting: int = 0
    last: int = 0
    error: BusdError | ConnectionLost | None = None
    failed: asyncio.Event = field(default_factory=asyncio.Event)

    def text(self) -> str:
        """How it stands, for people."""
        words = [f"{self.kept} messages kept"]
        if self.refused:
            words.append(f"{self.refused} refused")
        if self.waiting:
            words.append(f"{self.waiting} not answered")
        return ", ".join(words)


class Sender:
    """Publishes groups of messages to one topic, pipelined."""

    def __init__(self, client: aio.Client, topic: str, headers: dict[str, str], tally: Tally) -> None:
        self._client = client
        self._topic = topic
        self._headers = headers
        self._tally = tally
        # The most that one MPUB kept, messages and bytes: what is no larger is sent without waiting for the answer.
        self._kept = (0, 0)
        self._singly = bool(headers)

    async def send(self, messages: list[bytes]) -> None:
        """Send them; waits while the window is full.  Nothing more is sent once something failed: no holes."""
        for group in groups(messages):
            if self._tally.error is not None:
                return
            if not self._singly:
                await self._send_at_once(group)
            if self._singly:
                for payload in group:
                    self._submit(wire.publish(self._topic, payload, self._headers), 1)
            await self._client.drain()

    async def _send_at_once(self, group: list[bytes]) -> None:
        """As one MPUB, unless there is no room for so much at once: then nothing was kept, and all go singly."""
        size = (len(group), sum(map(len, group)))
        if size[0] <= self._kept[0] and size[1] <= self._kept[1]:
            self._submit(wire.publish_many(self._topic, group), size[0])
            return
        answer = self._client.submit(wire.publish_many(self._topic, group))
        self._tally.waiting += size[0]
        # Not behind the wait: that is called off when a group before this one is refused.
        answer.add_done_callback(partial(self._tried, size))
        await asyncio.wait([answer])

    def _tried(self, size: tuple[int, int], future: asyncio.Future[int]) -> None:
        error = future.exception()
        if isinstance(error, BusdError) and error.code == "FULL":
            self._tally.waiting -= size[0]
            self._singly = True
            return
        self._answered(size[0], future)
        self._kept = max(size[0], self._kept[0]), max(size[1], self._kept[1])

    def _submit(self, data: bytes, count: int) -> None:
        self._tally.waiting += count
        self._client.submit(data).add_done_callback(partial(self._answered, count))

    def _answered(self, count: int, future: asyncio.Future[int]) -> None:
        tally = self._tally
        error = future.exception()
        if error is None:
            tally.waiting -= count
            tally.kept += count
            tally.last = future.result() + count - 1
            return
        if isinstance(error, BusdError):
            tally.waiting -= count
            tally.refused += count
        if tally.error is None and isinstance(error, BusdError | ConnectionLost):
            tally.error = error
        tally.failed.set()


@click.command()
@click.argument("topic")
@click.argument("files", nargs=-1, metavar="[FILE]…", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("-m", "--message", "messages", multiple=True, metavar="TEXT", help="Publish this instead of any input.")
@click.option("-0", "--null", is_flag=True, help="Messages end at NUL instead of LF.")
@click.option("--block", metavar="SIZE", help="Binary: what a read returns is a message, of at most SIZE (64k).")
@click.option("--whole", is_flag=True, help="The whole input is one message.")
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME=VALUE", help="A header for every message.")
@click.option("--eof", is_flag=True, help="Mark the end of the stream at the end of the input.")
@click.option("--offset", "tell_offset", is_flag=True, help="Print the offset of the last message, 0 without any.")
@address_option
def pub(
    topic: str,
    files: tuple[str, ...],
    messages: tuple[str, ...],
    null: bool,
    block: str | None,
    whole: bool,
    headers: tuple[str, ...],
    eof: bool,
    tell_offset: bool,
    address: Address,
) -> int:
    """Publish standard input to TOPIC, a message for each line, or files, or a text.

    Lines are sent as they come.  The end is waited for: exit status 0 means that the server has kept every message,
    2 that it has not (then stderr says how many).

    \b
    tail -f app.log | busd pub logs.app
    busd pub jobs.resize -H size=120 -m cat.jpg
    tar c . | busd pub backup --block 64k --eof
    """
    if null + (block is not None) + whole + bool(messages) > 1:
        raise click.UsageError("--null, --block, --whole and --message exclude each other")
    if messages and files:
        raise click.UsageError("--message and files exclude each other")
    size = READ_BYTES if block is None else _block_bytes(block)
    splitter: Splitter = Whole() if whole else AsRead() if block is not None else Delimited(b"\0" if null else b"\n")
    tags = _headers(headers)
    if not messages and (not files or "-" in files):
        _check_stdin()
    texts = [text.encode("utf-8", "surrogateescape") for text in messages]
    asyncio.run(_publish(address, topic, files, texts, size, splitter, tags, eof, tell_offset))
    return 0


async def _publish(
    address: Address,
    topic: str,
    files: Sequence[str],
    texts: list[bytes],
    size: int,
    splitter: Splitter,
    tags: dict[str, str],
    eof: bool,
    tell_offset: bool,
) -> None:
    tally = Tally()
    client = aio.Client(address)
    with reaching(address):
        await client.open()
    sender = Sender(client, topic, tags, tally)
    trouble = ""
    advance: Advance = _silent
    finish_progress: Callable[[], None] = _done
    if not texts and sys.stderr.isatty() and (total := known_size(files)) and total >= _PROGRESS_FROM_BYTES:
        advance, finish_progress = _progress(topic, total)

    def interrupted(number: int, frame: FrameType | None) -> None:
        finish_progress()
        complain(f"interrupted; {tally.text()}")
        die_of(signal.SIGINT)

    # Not asyncio's own handling: it would wait for a thread that may be blocked in a read.
    signal.signal(signal.SIGINT, interrupted)
    try:
        if texts:
            await sender.send(texts)
        else:
            trouble = await _until_failed(_pump(files, size, splitter, sender, advance), tally)
        await client.flush()
        # One more turn: callbacks of answered futures run behind this one.
        await asyncio.sleep(0)
        if tally.error is None and not trouble and eof:
            with reaching(address):
                tally.last = await client.eof(topic)
    finally:
        finish_progress()
        await client.close()
    if tally.error is not None:
        trouble = _reason(tally.error)
    if trouble:
        raise Failure(f"{trouble}; {tally.text()}")
    if tell_offset:
        click.echo(tally.last)


async def _until_failed(work: Coroutine[Any, Any, None], tally: Tally) -> str:
    """Do the work, but no longer than until something was refused: nobody should wait for input then.

    Returns why the input could not be read, or nothing.
    """
    pump = asyncio.ensure_future(work)
    failed = asyncio.ensure_future(tally.failed.wait())
    await asyncio.wait((pump, failed), return_when=asyncio.FIRST_COMPLETED)
    failed.cancel()
    if not pump.done():
        pump.cancel()
    (outcome,) = await asyncio.gather(pump, return_exceptions=True)
    if isinstance(outcome, TooLong):
        return str(outcome)
    if isinstance(outcome, OSError):
        return f"{outcome.filename or 'input'}: {outcome.strerror or outcome}"
    if isinstance(outcome, Exception):
        raise outcome
    return ""


async def _pump(files: Sequence[str], size: int, splitter: Splitter, sender: Sender, advance: Advance) -> None:
    sources: list[AsyncIterator[bytes]] = [file_pieces(path, size) for path in files] or [stdin_pieces(size)]
    for source in sources:
        async for piece in source:
            await sender.send(splitter.feed(piece))
            advance(len(piece))
        await sender.send(splitter.finish())


def _silent(count: int) -> None:
    """No progress is shown."""


def _done() -> None:
    """Nor taken away."""


def _progress(topic: str, total_bytes: int) -> tuple[Advance, Callable[[], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    task = bar.add_task(topic, total=total_bytes)
    bar.start()
    return (lambda count: bar.advance(task, count)), bar.stop


def _block_bytes(text: str) -> int:
    try:
        size = parse_size_bytes(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--block") from None
    if size < 1:
        raise click.BadParameter("at least 1 byte", param_hint="--block")
    return size


def _headers(words: Sequence[str]) -> dict[str, str]:
    headers = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{word!r} is not NAME=VALUE", param_hint="--header")
        if name in headers:
            raise click.BadParameter(f"{name} stands twice", param_hint="--header")
        headers[name] = value
    return headers


def _check_stdin() -> None:
    # What stands in for one that is closed cannot be read.
    if fcntl.fcntl(0, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
        raise Failure("standard input is closed; give files or --message")


def _reason(error: BusdError | ConnectionLost) -> str:
    return f"{error.code}: {error.text}" if isinstance(error, BusdError) else str(error)
