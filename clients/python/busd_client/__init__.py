"""The Python client of busd: `busd_client.aio` for asyncio, `busd_client.sync` for plain blocking code.

Both are thin shells around the same pure core: `wire` (commands and replies), `stream` (one subscription that can be
resumed), `group_stream` and `deliveries` (a membership of a group) and `pages` (one READ that may take several
answers).
"""

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

__all__ = [
    "Batch",
    "BusdError",
    "ConnectionLost",
    "Delivery",
    "End",
    "EndOfStream",
    "Event",
    "Gap",
    "Message",
    "ReadResult",
    "Reset",
    "Retry",
    "Stale",
]
