"""Where `busd pub` reads from: standard input and named files, piece by piece, without blocking the loop.

A pipe, also one that has a name, is watched by the loop and read when something is there: nothing waits for its writer
that cannot be cancelled.  A file is read by aiofiles.  Standard input is never made non-blocking: others may share it.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Sequence

import aiofiles

READ_BYTES = 262_144


async def stdin_pieces(size: int = READ_BYTES) -> AsyncIterator[bytes]:
    """What one read returns, until the end."""
    source = _file_pieces(0, size) if stat.S_ISREG(os.fstat(0).st_mode) else _watched_pieces(0, size)
    async for piece in source:
        yield piece


async def _watched_pieces(descriptor: int, size: int) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    while True:
        ready: asyncio.Future[None] = loop.create_future()
        try:
            loop.add_reader(descriptor, _wake, ready)
        except PermissionError:
            # Devices such as /dev/zero cannot be watched, and never make anybody wait.
            async for piece in _file_pieces(descriptor, size):
                yield piece
            return
        try:
            await ready
        finally:
            loop.remove_reader(descriptor)
        try:
            piece = os.read(descriptor, size)
        except BlockingIOError:
            continue
        if not piece:
            return
        yield piece


async def file_pieces(path: str, size: int = READ_BYTES) -> AsyncIterator[bytes]:
    """The contents of a file; `-` is standard input."""
    if path == "-":
        source = stdin_pieces(size)
    elif stat.S_ISFIFO(mode := os.stat(path).st_mode) or stat.S_ISCHR(mode):
        source = _pipe_pieces(path, size)
    else:
        source = _file_pieces(path, size)
    async for piece in source:
        yield piece


async def _pipe_pieces(path: str, size: int) -> AsyncIterator[bytes]:
    # So it opens without a writer; there is something to be read when one has come, wrote or left.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        async for piece in _watched_pieces(descriptor, size):
            yield piece
    finally:
        os.close(descriptor)


async def _file_pieces(path: str | int, size: int) -> AsyncIterator[bytes]:
    async with aiofiles.open(path, "rb", buffering=0, closefd=not isinstance(path, int)) as file:
        while piece := await file.read(size):
            yield piece


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def known_size(paths: Sequence[str]) -> int | None:
    """Bytes to come from these files (from standard input if there are none); None when nobody can know."""
    total = 0
    for path in paths or ["-"]:
        facts = os.fstat(0) if path == "-" else os.stat(path)
        if not stat.S_ISREG(facts.st_mode):
            return None
        total += facts.st_size - (os.lseek(0, 0, os.SEEK_CUR) if path == "-" else 0)
    return max(0, total)
