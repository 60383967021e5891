"""Closing a channel where something stands in the way: a child that was forked off, a receiver that has just begun."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from busd_client import aio_channel, channel
from busd_client.channel_place import Place

from tests.process.test_channel import server_of
from tests.support.tools import ending, environment, until


def test_the_server_goes_with_its_owner_though_a_child_was_forked_off(short_dir: Path) -> None:
    code = (
        "import sys, os, signal, busd_client; s, r = busd_client.channel('jobs', sys.argv[1]);"
        "s.send(b'a'); s.flush(); child = os.fork();"
        "print(flush=True) if child else sys.stdin.read();"
        "os.kill(os.getpid(), signal.SIGKILL) if child else None"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(short_dir)],
        env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with ending(owner):
        owner.wait(30)
        until(lambda: server_of(short_dir / "jobs") is None, "the server stops")
    assert ": stopped" in (short_dir / "jobs" / "log").read_text()


def test_a_child_that_ends_leaves_the_server_to_its_owner(short_dir: Path) -> None:
    code = (
        "import sys, os, busd_client; s, r = busd_client.channel('jobs', sys.argv[1]);"
        "s.send(b'a'); s.flush(); mine = s._place._keeper.stdin; child = os.fork();"
        "sys.exit(not mine.closed) if not child else None;"
        "print(os.waitpid(child, 0)[1], mine.closed); s.close(end=False); r.close()"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(short_dir)], env=environment(), capture_output=True, timeout=50, check=True
    )
    assert told.stdout == b"0 False\n"


def test_closing_does_not_wait_for_whoever_else_holds_the_pipe(short_dir: Path) -> None:
    sender, _ = channel("jobs", short_dir)
    sender.send(b"a")
    keeper = sender._place._keeper
    assert keeper is not None
    assert keeper.stdin is not None
    held = os.dup(keeper.stdin.fileno())
    try:
        began_s = time.monotonic()
        sender.close(end=False)
        assert time.monotonic() - began_s < 10
    finally:
        os.close(held)
    assert ": stopped" in (short_dir / "jobs" / "log").read_text()


async def closed_while_it_ensures(
    receiver: aio_channel.Receiver, monkeypatch: pytest.MonkeyPatch, meant: Callable[[float], bool]
) -> None:
    """Close it in the midst of its first `receive`, while it sees to it that there is a server; `meant`: at which call,
    by how long that would wait."""
    begun, closed = threading.Event(), threading.Event()
    ensure = Place.ensure

    def late(place: Place, wait_s: float = 30.0) -> None:
        if meant(wait_s):
            begun.set()
            closed.wait(10)
        ensure(place, wait_s)

    monkeypatch.setattr(Place, "ensure", late)
    async with asyncio.timeout(20):
        receiving = asyncio.ensure_future(receiver.receive())
        await asyncio.to_thread(begun.wait)
        await receiver.close()
        closed.set()
        with pytest.raises(ValueError, match="the receiver is closed"):
            await receiving


async def test_a_receiver_that_is_closed_while_it_begins_leaves_no_server(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, receiver = await aio_channel.channel("jobs", short_dir)
    await sender.send(b"a")
    await sender.close()
    assert server_of(short_dir / "jobs") is None
    await closed_while_it_ensures(receiver, monkeypatch, lambda wait_s: True)
    assert server_of(short_dir / "jobs") is None


async def test_a_receiver_that_is_closed_while_it_waits_to_join(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, receiver = await aio_channel.channel("jobs", short_dir)
    await closed_while_it_ensures(receiver, monkeypatch, lambda wait_s: wait_s == 0)
    assert server_of(short_dir / "jobs") is None
