"""How the ends of a channel come to their server and leave: before every attempt they see to it that there is one.

Nothing is started: what would connect or start is replaced.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from busd_client import Busy, Full, aio_channel, aio_group, sync_channel, sync_group
from busd_client.address import parse_address
from busd_client.backoff import Backoff
from busd_client.channel_core import MAX_VALUE_BYTES
from busd_client.channel_place import Place
from busd_client.events import ConnectionLost
from busd_client.group_stream import GroupWish

ADDRESS = parse_address("unix:/nowhere/busd.sock")
WISH = GroupWish("jobs", "g")
LOST = ConnectionLost("the server closed the connection")


class Starts:
    """In place of `Place.ensure`: how long it was to wait, each time; `failures`: so many of them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failures: int = 0) -> None:
        self.waits_s: list[float] = []
        self.failures = failures
        monkeypatch.setattr(Place, "ensure", lambda place, wait_s=30.0: self._ensure(wait_s))

    def _ensure(self, wait_s: float) -> None:
        self.waits_s.append(wait_s)
        if self.failures:
            self.failures -= 1
            raise OSError("no busd serves it")


def test_before_every_attempt_to_join_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    attempts = 0

    def before() -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 5:
            subscription.drain()

    subscription = sync_group.GroupSubscription(ADDRESS, WISH, before=before)
    subscription._recover(LOST)
    subscription._joined_again(None)
    assert attempts == 5


async def test_before_every_attempt_to_join_again_for_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "next_s", lambda backoff: 0.0)
    attempts = 0

    def before() -> None:
        nonlocal attempts
        attempts += 1
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        if attempts == 5:
            subscription.drain()

    subscription = aio_group.GroupSubscription(ADDRESS, WISH, before=before)
    await subscription._recover(LOST)
    assert attempts == 5


def test_a_start_that_fails_is_tried_again_by_the_next_receive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Starts(monkeypatch, failures=2)
    place = Place(tmp_path, "jobs")
    receiver = sync_channel.Receiver(place)
    for _ in range(2):
        with pytest.raises(OSError, match="no busd serves it"):
            receiver.receive()
    # Now it starts, and is gone again before anybody connects.
    with pytest.raises(FileNotFoundError):
        receiver.receive()
    assert starts.waits_s == [30, 30, 30, 0]
    other = Place(tmp_path, "jobs")
    with pytest.raises(Busy):
        other.claim()
    receiver.close()
    other.claim()
    other.release()


async def test_a_start_that_fails_is_tried_again_by_the_next_receive_for_asyncio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = Starts(monkeypatch, failures=2)
    place = Place(tmp_path, "jobs")
    receiver = aio_channel.Receiver(place)
    for _ in range(2):
        with pytest.raises(OSError, match="no busd serves it"):
            await receiver.receive()
    with pytest.raises(FileNotFoundError):
        await receiver.receive()
    assert starts.waits_s == [30, 30, 30, 0]
    other = Place(tmp_path, "jobs")
    with pytest.raises(Busy):
        other.claim()
    await receiver.close()
    other.claim()
    other.release()


async def test_closing_wakes_who_waits_to_send_or_to_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(sender: aio_channel.Sender, command: bytes) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(aio_channel.Sender, "_ask", never)
    sender = aio_channel.Sender(Place(tmp_path, "jobs"))
    large = bytes(MAX_VALUE_BYTES)
    await sender.send(large)
    waiting = [asyncio.ensure_future(sender.send(b"more")), asyncio.ensure_future(sender.flush())]
    await asyncio.sleep(0)
    with pytest.raises(Full, match="no answer") as full:
        await sender.close(wait_s=0)
    assert full.value.values == [large]
    for one in waiting:
        with pytest.raises(ValueError, match="closed"):
            await asyncio.wait_for(one, 5)
