"""busd_client.resending: which commands are sent again, when, and what is raised in the end."""

from __future__ import annotations

import contextlib
import math

import pytest
from busd_client.backoff import FIRST_S, HIGHEST_S
from busd_client.events import BusdError, ConnectionLost
from busd_client.resending import Resending

SENT = ConnectionLost("it broke")
NOT_SENT = ConnectionLost("nobody is there", sent=False)
STOPPING = BusdError("STOPPING", "the server stops")


def resending(times: float, patience_s: float = 30.0) -> Resending:
    return Resending(times, patience_s, lambda: 1.0)


@pytest.mark.parametrize("times", [0, False])
@pytest.mark.parametrize("error", [SENT, NOT_SENT, STOPPING], ids=["sent", "not sent", "stopping"])
def test_what_is_not_to_be_sent_again_is_not(times: float, error: ConnectionLost | BusdError) -> None:
    with pytest.raises(type(error)) as told:
        resending(times).after(error, 0.0)
    assert told.value is error


def test_a_publish_is_sent_once_more() -> None:
    one = resending(True)
    assert one.after(SENT, 0.0) == FIRST_S
    with pytest.raises(ConnectionLost):
        one.after(SENT, 0.1)


def test_a_question_is_asked_again_after_growing_pauses_until_the_patience_is_over() -> None:
    one, now_s = resending(math.inf), 100.0
    pauses: list[float] = []

    def ask() -> float:
        pauses.append(one.after(SENT, now_s))
        return pauses[-1]

    with contextlib.suppress(ConnectionLost):
        while True:
            now_s += ask()
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1], one.until_s) == (FIRST_S, HIGHEST_S, 130.0)
    assert 120.0 < now_s <= 130.0


def test_without_patience_there_is_one_more_try() -> None:
    one = resending(math.inf, 0.0)
    assert one.after(SENT, 5.0) == 0.0
    with pytest.raises(ConnectionLost):
        one.after(SENT, 5.0)


def test_a_server_that_stops_kept_nothing() -> None:
    one = resending(True)
    one.after(STOPPING, 0.0)
    one.after(STOPPING, 0.1)
    one.after(SENT, 0.2)
    with pytest.raises(BusdError, match="TOOBIG"):
        resending(math.inf).after(BusdError("TOOBIG", "…"), 0.0)


def test_what_may_have_been_sent_is_not_said_not_to_have_been() -> None:
    one = resending(True)
    one.after(SENT, 0.0)
    with pytest.raises(ConnectionLost, match="nobody is there") as told:
        one.after(NOT_SENT, 1.0)
    assert told.value.sent
    question = resending(math.inf)
    question.after(SENT, 0.0)
    with pytest.raises(ConnectionLost) as last:
        question.after(NOT_SENT, 1.0)
    assert last.value is NOT_SENT
