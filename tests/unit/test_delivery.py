"""The table of a delivery, cell by cell, and the group that goes through it."""

from __future__ import annotations

from itertools import product

import pytest

from busd.rules.delivery import TABLE, Action, Event, State, step, table_as_markdown
from busd.rules.subscription import Impossible

# What each event means, apart from the state: any cell with the event does this, or refuses.
MEANING = {
    Event.ROOM: Action.SEND,
    Event.EARLY: Action.WAIT,
    Event.KEY_BUSY: Action.PARK,
    Event.EXPIRED: Action.DROP,
    Event.MISSING: Action.NAME,
    Event.DUE: Action.QUEUE,
    Event.KEY_FREE: Action.QUEUE,
    Event.ACK: Action.SETTLE,
    Event.NACK: Action.BACK_OFF,
    Event.BACK: Action.QUEUE,
    Event.LAST: Action.BURY,
    Event.TOUCH: Action.EXTEND,
    Event.BURIED: Action.SETTLE,
    Event.CLEARED: Action.NOTHING,
}
# Where a message must be afterwards, whatever it was before.
AFTER = {
    Action.SEND: State.OUT,
    Action.WAIT: State.DELAYED,
    Action.PARK: State.BLOCKED,
    Action.DROP: State.SETTLED,
    Action.NAME: State.SETTLED,
    Action.QUEUE: State.WAITING,
    Action.SETTLE: State.SETTLED,
    Action.BACK_OFF: State.DELAYED,
    Action.BURY: State.DYING,
    Action.EXTEND: State.OUT,
    Action.RETRY: State.DYING,
    Action.NOTHING: State.SETTLED,
}


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_cell(state: State, event: Event) -> None:
    if (state, event) not in TABLE:
        with pytest.raises(Impossible, match=f"{event.name} in {state.name}"):
            step(state, event)
        return
    action, after = step(state, event)
    if action is Action.REFUSE:
        assert after is state
        assert state is not State.OUT
    elif event is Event.REFUSED:
        assert (state, action, after) in {
            (State.DYING, Action.RETRY, State.DYING),
            (State.SETTLED, Action.QUEUE, State.WAITING),
        }
    else:
        assert action is MEANING[event]
        assert after is AFTER[action]


def test_only_what_is_out_can_be_acknowledged_and_every_state_can_end() -> None:
    for event in (Event.ACK, Event.NACK, Event.TOUCH):
        assert {state for state in State if step(state, event)[0] is not Action.REFUSE} == {State.OUT}
    for begin in State:
        reached = {begin}
        while more := {after for (state, _), (_, after) in TABLE.items() if state in reached} - reached:
            reached |= more
        assert State.SETTLED in reached


def test_markdown_has_a_row_a_cell() -> None:
    rows = table_as_markdown().splitlines()
    assert len(rows) == len(TABLE) + 2
    assert rows[2] == "| `WAITING` | a member has room for it | send it, one try more | `OUT` |"
