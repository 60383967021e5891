"""Where `busd pub` reads from: standard input and named files, piece by piece, without blocking the loop.

A pipe is watched by the loop and read when something is there; a file is read by aiofiles.  Standard input is never
made non-blocking: others may share it.
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
    if stat.S_ISREG(os.fstat(0).st_mode):
        async for piece in _file_pieces(0, size):
            yield piece
        return
    loop = asyncio.get_running_loop()
    while True:
        ready: asyncio.Future[None] = loop.create_future()
        try:
            loop.add_reader(0, _wake, ready)
        except PermissionError:
            # Devices such as /dev/zero cannot be watched, and never make anybody wait.
            async for piece in _file_pieces(0, size):
                yield piece
            return
        try:
            await ready
        finally:
            loop.remove_reader(0)
        try:
            piece = os.read(0, size)
        except BlockingIOError:
            continue
        if not piece:
            return
        yield piece


async def file_pieces(path: str, size: int = READ_BYTES) -> AsyncIterator[bytes]:
    """The contents of a file; `-` is standard input."""
    source = stdin_pieces(size) if path == "-" else _file_pieces(path, size)
    async for piece in source:
        yield piece


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
