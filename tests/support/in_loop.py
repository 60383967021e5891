"""A server in the loop of the test, on a real disk."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from busd.words.settings import Settings
from busd.world.real_disk import RealDisk
from busd.world.server import Server


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Server]:
    """A server with these settings, stopped behind the block."""
    server = Server(settings, RealDisk())
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
