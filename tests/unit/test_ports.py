"""The ports are what the broker and its surroundings agree on: everything that stands behind one has all of it."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from busd.broker import ports
from busd.broker.broker import Broker
from busd.broker.opening import Opening
from busd.broker.questions import Host
from busd.broker.session import Session
from busd.broker.voice import Collector, Wire
from busd.rules.replies import AnswerArray
from busd.world.connection import Connection
from busd.world.log import DiskLog
from busd.world.runtime import LoopRuntime
from busd.world.server import Server
from tests.support.fake_log import FakeLog
from tests.support.memory_server import FakeRuntime, MemoryConnection, MemoryServer

BEHIND: list[tuple[type[Any], type[Any]]] = [
    (ports.Runtime, FakeRuntime),
    (ports.Runtime, LoopRuntime),
    (ports.Outbox, AnswerArray),
    (ports.Outbox, MemoryConnection),
    (Wire, MemoryConnection),
    (Wire, Connection),
    (ports.Log, FakeLog),
    (ports.Log, DiskLog),
    (ports.Subscriber, Session),
    (ports.Subscriber, Collector),
    (ports.Handle, Opening),
    (ports.Engine, Broker),
    (Host, MemoryServer),
    (Host, Server),
]


def members(port: type[Any]) -> dict[str, Any]:
    """What a port asks for: its public methods and properties, and those of the ports it builds on."""
    found: dict[str, Any] = {}
    for base in port.__mro__:
        found.update({name: value for name, value in vars(base).items() if not name.startswith("_")})
    return found


@pytest.mark.parametrize(("port", "thing"), BEHIND, ids=lambda one: one.__name__)
def test_methods_take_what_the_port_says(port: type[Any], thing: type[Any]) -> None:
    for name, asked in members(port).items():
        if not inspect.isfunction(asked):
            continue
        given = getattr(thing, name, None)
        if given is None:
            # Set for each object: then it is in what makes one.
            assert f"self.{name}" in inspect.getsource(thing.__init__)
            continue
        wanted = list(inspect.signature(asked).parameters)
        assert list(inspect.signature(given).parameters)[: len(wanted)] == wanted, f"{thing.__name__}.{name}"


@pytest.mark.parametrize(("port", "thing"), BEHIND, ids=lambda one: one.__name__)
def test_properties_are_there(port: type[Any], thing: type[Any]) -> None:
    bases = [base for base in thing.__mro__ if base.__module__.split(".")[0] in ("busd", "tests")]
    source = "".join(map(inspect.getsource, bases))
    for name, asked in members(port).items():
        if isinstance(asked, property):
            assert isinstance(getattr(thing, name, None), property) or f"self.{name}" in source


def test_an_outcome_has_removed_nothing_unless_it_says_so() -> None:
    assert ports.Outcome(5, 2, {}).removed == 0
