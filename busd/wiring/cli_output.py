"""Where `busd sub` writes to: standard output, or a file through aiofiles.

Standard output is written by plain, blocking writes: a reader that does not read stops us, and thereby the server's
stream to us, as in any pipe.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import aiofiles


class Output(Protocol):
    """Takes bytes."""

    async def write(self, data: bytes) -> None:
        """Returns when they are out of our hands."""


def write_stdout(data: bytes) -> None:
    """Write to descriptor 1, unbuffered.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(1, rest) :]
        except BlockingIOError:
            # Somebody who shares it made it non-blocking.
            select.select([], [1], [])


class Stdout:
    """Descriptor 1."""

    async def write(self, data: bytes) -> None:
        """See Output; raises as `write_stdout`."""
        write_stdout(data)


class PatientStdout:
    """Descriptor 1, for those who have other things to do while its reader does not read."""

    async def write(self, data: bytes) -> None:
        """See Output; raises as `write_stdout`."""
        # A pipe that is writable takes at least so much without blocking, and a thread costs more than the write.
        if len(data) <= select.PIPE_BUF and select.select([], [1], [], 0)[1]:
            write_stdout(data)
        else:
            await asyncio.to_thread(write_stdout, data)


@asynccontextmanager
async def open_output(path: str | None, patient: bool = False) -> AsyncIterator[Output]:
    """Standard output, or a file that is emptied first.  `patient`: the loop turns while standard output is blocked."""
    if path is None:
        yield PatientStdout() if patient else Stdout()
        return
    async with aiofiles.open(path, "wb", buffering=0) as file:

        class _File:
            async def write(self, data: bytes) -> None:
                rest = memoryview(data)
                while rest:
                    rest = rest[await file.write(rest) :]

        yield _File()


def when_reader_leaves(call: Callable[[], None]) -> None:
    """Have `call` made when the reader of standard output goes, also while there is nothing to write.

    Only for pipes that we cannot read: there an error is all that the loop can see, else it is also what we wrote.
    """
    only_written = fcntl.fcntl(1, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
    if only_written and stat.S_ISFIFO(os.fstat(1).st_mode):
        asyncio.get_running_loop().add_reader(1, call)
