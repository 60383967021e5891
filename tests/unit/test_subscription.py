"""The table of a subscription's states: every cell, what is not in it, and its likeness in protocol.md."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from busd.rules.subscription import TABLE, Action, Event, Impossible, State, step, table_as_markdown

ROOT = Path(__file__).resolve().parents[2]
CELLS = list(product(State, Event))


def name(value: State | Event) -> str:
    """For the names of tests."""
    return value.name


@pytest.mark.parametrize(("state", "event"), CELLS, ids=name)
def test_every_cell(state: State, event: Event) -> None:
    if (state, event) in TABLE:
        assert step(state, event) == TABLE[state, event]
    else:
        with pytest.raises(Impossible, match=f"{event.name} in {state.name}"):
            step(state, event)


def test_an_end_is_final() -> None:
    for event in Event:
        if (State.ENDED, event) in TABLE:
            assert step(State.ENDED, event) == (Action.NOTHING, State.ENDED)
    assert {state for (state, _), (_, after) in TABLE.items() if after is State.ENDED} == set(State)


def test_every_state_can_end_and_be_reached() -> None:
    assert {state for state, event in TABLE if event is Event.DONE} == set(State)
    reached, edge = {State.REPLAYING}, {State.REPLAYING}
    while edge:
        edge = {after for (state, _), (_, after) in TABLE.items() if state in edge} - reached
        reached |= edge
    assert reached == set(State)


def test_every_action_is_used() -> None:
    assert {action for action, _ in TABLE.values()} == set(Action)


def test_doing_nothing_changes_nothing() -> None:
    for (state, _), (action, after) in TABLE.items():
        if action is Action.NOTHING:
            assert after is state


def test_only_skipping_owes_a_gap() -> None:
    assert {state for (state, _), (action, _) in TABLE.items() if action is Action.NAME} == {State.SKIPPING}
    assert {after for action, after in TABLE.values() if action in (Action.SKIP, Action.COUNT)} == {State.SKIPPING}


def test_a_reader_that_may_skip_was_asked_before() -> None:
    assert TABLE[State.LIVE, Event.FULL_DROP] == (Action.SKIP, State.SKIPPING)
    assert {after for (_, event), (_, after) in TABLE.items() if event is Event.FULL_SPILL} == {State.HELD}


def test_the_document_shows_the_same_table() -> None:
    table = table_as_markdown()
    assert table.count("\n") == len(TABLE) + 1
    assert f"\n\n{table}\n\n" in (ROOT / "protocol.md").read_text()
