"""Channels whose server hangs: it is stopped by a signal, so it takes connections and says nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from busd_client import Full, aio_channel, channel, channel_place

from tests.process.test_channel import server_of
from tests.support.tools import until


def hang(directory: Path) -> None:
    """From now on the server does nothing."""
    server = server_of(directory / "jobs")
    assert server is not None
    os.kill(server, signal.SIGSTOP)


def in_time(work: Callable[[], None], limit_s: float = 20.0) -> None:
    """Do it in a thread: what hangs fails the test, and does not hang it."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    assert not thread.is_alive(), "it hangs"
    if failures:
        raise failures[0]


@pytest.mark.parametrize("when", ["before it connects", "before an answer", "before the end"])
def test_closing_returns_in_its_time(when: str, short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_place, "_STOP_S", 0.5)
    sender, _ = channel("jobs", short_dir)
    if when != "before it connects":
        sender.send(b"kept")
        sender.flush()
    hang(short_dir)
    if when != "before the end":
        sender.send(b"not kept")

    def close() -> None:
        with pytest.raises(Full, match="no answer") as full:
            sender.close(wait_s=0.5)
        assert full.value.values == ([] if when == "before the end" else [b"not kept"])

    began_s = time.monotonic()
    in_time(close)
    assert time.monotonic() - began_s < 10
    until(lambda: server_of(short_dir / "jobs") is None, "a server that hangs is killed")
    # Nothing stands in the way of the next one.
    sender, receiver = channel("jobs", short_dir)
    sender.send(b"again")
    sender.close()
    with receiver:
        assert list(receiver) == ([b"again"] if when == "before it connects" else [b"kept", b"again"])


async def test_closing_returns_in_its_time_for_asyncio(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_place, "_STOP_S", 0.5)
    sender, _ = await aio_channel.channel("jobs", short_dir)
    await sender.send(b"kept")
    await sender.flush()
    hang(short_dir)
    async with asyncio.timeout(15):
        with pytest.raises(Full, match="no answer"):
            await sender.close(wait_s=0.5)
    until(lambda: server_of(short_dir / "jobs") is None, "a server that hangs is killed")
