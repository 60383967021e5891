"""What is told of a run, or of group records, that busd could not carry out through a fault of its own."""

from __future__ import annotations

from busd.broker.ports import Outcome
from busd.words.errors import BusError
from busd.words.requests import Publish

# It was met before anything was written.
FAULT = BusError("INTERNAL", "a fault of busd, nothing was kept; its log says more")
# It was met later: nobody can tell.
UNKNOWN = BusError("INTERNAL", "a fault of busd; its log says more")


def refused(run: Publish, first: int, error: BusError) -> Outcome:
    """None of it is kept."""
    count = len(run.items)
    return Outcome(first, count, dict.fromkeys(range(count), error))
