"""The Python client of busd: `busd_client.aio` for asyncio, `busd_client.sync` for plain blocking code.

Both are thin shells around the same pure core: `wire` (commands and replies), `stream` (one subscription that can be
resumed), `group_stream` and `deliveries` (a membership of a group) and `pages` (one READ that may take several
answers).  `channel` makes a queue between processes that needs no server to be set up.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from busd_client.channel_core import Busy, Full
    from busd_client.deliveries import Batch, Delivery
    from busd_client.events import (
        BusdError,
        ConnectionLost,
        End,
        EndOfStream,
        Event,
        Gap,
        Message,
        ReadResult,
        Reset,
        Retry,
        Stale,
    )
    from busd_client.sync_channel import Receiver, Sender

__all__ = [
    "Batch",
    "BusdError",
    "Busy",
    "ConnectionLost",
    "Delivery",
    "End",
    "EndOfStream",
    "Event",
    "Full",
    "Gap",
    "Message",
    "ReadResult",
    "Reset",
    "Retry",
    "Stale",
    "channel",
]

_HOMES = {"Busy": "channel_core", "Full": "channel_core", "Batch": "deliveries", "Delivery": "deliveries"}


if not TYPE_CHECKING:  # Checkers know the names above, and that there are no others.

    def __getattr__(name: str) -> object:
        """The names above when they are asked for: all together take a tenth of the time in which a server starts."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'events')}"), name)
        return found

    def __dir__() -> list[str]:
        """Also those that nobody has asked for yet: who completes names or documents the package goes by this."""
        return sorted({*globals(), *__all__})


def channel(
    name: str, directory: str | Path, *, max_bytes: int | None = None, sync: str = "interval"
) -> tuple[Sender, Receiver]:
    """Both ends of a channel between processes, kept in a directory; see `busd_client.sync_channel.channel`.

    For asyncio `busd_client.aio_channel.channel`.
    """
    # Here, because a server is started by it: nobody else should pay for the modules.
    from busd_client import sync_channel

    return sync_channel.channel(name, directory, max_bytes=max_bytes, sync=sync)
