"""The states of a subscription, as a table.

protocol.md shows the same table and a test compares them; another walks every cell.  What is not in the table
cannot happen: `step` raises.  Pure.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Where a subscription is."""

    REPLAYING = "REPLAYING"
    HELD = "HELD"
    LIVE = "LIVE"
    SKIPPING = "SKIPPING"
    ENDED = "ENDED"

    # An Enum's own is Python; `step` hashes two for each batch and reader.
    __hash__ = object.__hash__


class Event(Enum):
    """What may happen to it."""

    BATCH = "a batch became visible"
    READ = "a piece of the log was read"
    HORIZON = "nothing visible is left to read"
    FULL_SPILL = "the outbox is full (SLOW spill)"
    FULL_DROP = "the outbox is full (SLOW drop)"
    DRAINED = "the outbox has room again"
    DONE = "UNTIL, LIMIT, WITHIN, UNSUB, loss of a bare format, denied, stop"

    __hash__ = object.__hash__


class Action(Enum):
    """What it does about it."""

    NOTHING = "nothing"
    DELIVER = "deliver"
    WAIT = "wait for the outbox"
    JOIN = "join the live readers, in the same call"
    RESUME = "read on from its position"
    SKIP = "open a gap"
    COUNT = "widen the gap, count what matches"
    NAME = "send the GAP"
    FINISH = "send a pending GAP, then END"


TABLE: dict[tuple[State, Event], tuple[Action, State]] = {
    (State.REPLAYING, Event.READ): (Action.DELIVER, State.REPLAYING),
    (State.REPLAYING, Event.HORIZON): (Action.JOIN, State.LIVE),
    (State.REPLAYING, Event.FULL_SPILL): (Action.WAIT, State.HELD),
    (State.REPLAYING, Event.FULL_DROP): (Action.WAIT, State.HELD),
    (State.REPLAYING, Event.BATCH): (Action.NOTHING, State.REPLAYING),
    (State.REPLAYING, Event.DRAINED): (Action.NOTHING, State.REPLAYING),
    (State.REPLAYING, Event.DONE): (Action.FINISH, State.ENDED),
    (State.HELD, Event.READ): (Action.NOTHING, State.HELD),
    (State.HELD, Event.BATCH): (Action.NOTHING, State.HELD),
    (State.HELD, Event.DRAINED): (Action.RESUME, State.REPLAYING),
    (State.HELD, Event.DONE): (Action.FINISH, State.ENDED),
    (State.LIVE, Event.BATCH): (Action.DELIVER, State.LIVE),
    (State.LIVE, Event.FULL_SPILL): (Action.WAIT, State.HELD),
    (State.LIVE, Event.FULL_DROP): (Action.SKIP, State.SKIPPING),
    (State.LIVE, Event.DRAINED): (Action.NOTHING, State.LIVE),
    (State.LIVE, Event.DONE): (Action.FINISH, State.ENDED),
    (State.SKIPPING, Event.BATCH): (Action.COUNT, State.SKIPPING),
    (State.SKIPPING, Event.DRAINED): (Action.NAME, State.LIVE),
    (State.SKIPPING, Event.DONE): (Action.FINISH, State.ENDED),
    (State.ENDED, Event.READ): (Action.NOTHING, State.ENDED),
    (State.ENDED, Event.BATCH): (Action.NOTHING, State.ENDED),
    (State.ENDED, Event.DRAINED): (Action.NOTHING, State.ENDED),
    (State.ENDED, Event.DONE): (Action.NOTHING, State.ENDED),
}


class Impossible(AssertionError):
    """An event that the table does not have in this state: a fault of busd."""


def step(state: State, event: Event) -> tuple[Action, State]:
    """What to do, and the state after it.

    Raises:
        Impossible: the table has no such cell.
    """
    found = TABLE.get((state, event))
    if found is None:
        raise Impossible(f"{event.name} in {state.name}")
    return found


def table_as_markdown() -> str:
    """The table as protocol.md shows it."""
    rows = [f"| `{s.value}` | {e.value} | {a.value} | `{n.value}` |" for (s, e), (a, n) in TABLE.items()]
    return "\n".join(["| state | event | action | next state |", "|---|---|---|---|", *rows])
