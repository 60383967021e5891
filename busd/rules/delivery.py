"""The life of a message in a group, as a table.

protocol.md shows the same table and a test compares them; another walks every cell.  What is not in the table
cannot happen: `step` raises.  Pure.
"""

from __future__ import annotations

from enum import Enum

from busd.rules.subscription import Impossible


class State(Enum):
    """Where a message of a group is."""

    WAITING = "WAITING"
    DELAYED = "DELAYED"
    BLOCKED = "BLOCKED"
    OUT = "OUT"
    DYING = "DYING"
    SETTLED = "SETTLED"


class Event(Enum):
    """What may happen to it."""

    ROOM = "a member has room for it"
    EARLY = "a member has room, its `delay` has not passed"
    KEY_BUSY = "a member has room, another message of its `key` is out"
    EXPIRED = "a member has room, its `ttl` has run out"
    MISSING = "a member has room, it is not in the log any more"
    DUE = "its delay has passed"
    KEY_FREE = "the message of its key before it is settled"
    ACK = "ACK"
    NACK = "NACK, tries left"
    BACK = "WAIT is over, or its member is gone; tries left"
    LAST = "NACK, WAIT is over, or its member is gone; that was the last of TRIES"
    TOUCH = "TOUCH"
    BURIED = "its dead letter is kept"
    REFUSED = "its dead letter, or its acknowledgement, could not be kept"
    CLEARED = "SEEK or FORGET"


class Action(Enum):
    """What is done about it."""

    NOTHING = "nothing"
    SEND = "send it, one try more"
    WAIT = "wait until it is due"
    PARK = "wait for the key"
    DROP = "count it as expired"
    NAME = "send the GAP, unless a RESET removed it"
    QUEUE = "next in line, in order, before what is new"
    SETTLE = "free its key and its place"
    BACK_OFF = "wait for DELAY, or 1s 2s 4s … 5m by its tries"
    BURY = "publish its dead letter"
    EXTEND = "count WAIT from now"
    RETRY = "publish its dead letter again in a second"
    REFUSE = "-STALE"


TABLE: dict[tuple[State, Event], tuple[Action, State]] = {
    (State.WAITING, Event.ROOM): (Action.SEND, State.OUT),
    (State.WAITING, Event.EARLY): (Action.WAIT, State.DELAYED),
    (State.WAITING, Event.KEY_BUSY): (Action.PARK, State.BLOCKED),
    (State.WAITING, Event.EXPIRED): (Action.DROP, State.SETTLED),
    (State.WAITING, Event.MISSING): (Action.NAME, State.SETTLED),
    (State.DELAYED, Event.DUE): (Action.QUEUE, State.WAITING),
    (State.BLOCKED, Event.KEY_FREE): (Action.QUEUE, State.WAITING),
    (State.OUT, Event.ACK): (Action.SETTLE, State.SETTLED),
    (State.OUT, Event.NACK): (Action.BACK_OFF, State.DELAYED),
    (State.OUT, Event.BACK): (Action.QUEUE, State.WAITING),
    (State.OUT, Event.LAST): (Action.BURY, State.DYING),
    (State.OUT, Event.TOUCH): (Action.EXTEND, State.OUT),
    (State.DYING, Event.BURIED): (Action.SETTLE, State.SETTLED),
    (State.DYING, Event.REFUSED): (Action.RETRY, State.DYING),
    (State.DYING, Event.MISSING): (Action.NAME, State.SETTLED),
    (State.SETTLED, Event.REFUSED): (Action.QUEUE, State.WAITING),
    **{
        (state, event): (Action.REFUSE, state)
        for state in State
        if state is not State.OUT
        for event in (Event.ACK, Event.NACK, Event.TOUCH)
    },
    **{(state, Event.CLEARED): (Action.NOTHING, State.SETTLED) for state in State},
}


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
