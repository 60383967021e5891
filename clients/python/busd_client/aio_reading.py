"""What a client of asyncio reads of what is there already: questions of which each may take several answers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence

from busd_client import wire
from busd_client.aio_manage import Managing
from busd_client.events import ReadResult
from busd_client.pages import Pages


class Reading(Managing):
    """READ; how it reaches the server is up to the Client that inherits it."""

    async def read(
        self,
        patterns: str | Sequence[str],
        start: wire.Position | None = None,
        last: int | None = None,
        limit: int | None = None,
        within: wire.Duration | None = None,
        group: str | None = None,
    ) -> ReadResult:
        """What is there now, from `first` unless told; waits up to `within` for a first message when there is none.

        With `group`, what that group has not settled; nothing is taken by it.

        Raises:
            BusdError: it was refused.
            ConnectionLost: the connection was lost, and no answer could be had within `patience_s` of that.
        """
        pages = Pages(wire.patterns_text(patterns), start, last, limit, within, group, time.monotonic_ns())
        found = [page async for page in self._pages(pages)]
        return pages.join(iter(found))

    async def read_pages(
        self,
        patterns: str | Sequence[str],
        start: wire.Position | None = None,
        limit: int | None = None,
        within: wire.Duration | None = None,
        group: str | None = None,
    ) -> AsyncIterator[ReadResult]:
        """The same in parts of about 1 MiB, for what does not fit into memory."""
        now_ns = time.monotonic_ns()
        async for page in self._pages(Pages(wire.patterns_text(patterns), start, None, limit, within, group, now_ns)):
            yield page

    async def _pages(self, pages: Pages) -> AsyncIterator[ReadResult]:
        while pages.command is not None:
            if pages.needs_end:
                pages.end_at(await self._ask(wire.HELLO))
            yield pages.page(await self._ask(pages.command), time.monotonic_ns())
