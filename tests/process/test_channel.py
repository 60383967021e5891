"""Channels: real servers in directories, started and stopped by those who use them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from busd_client import Busy, Full, aio_channel, channel
from busd_client.channel_core import WINDOW_VALUES
from busd_client.channel_place import Place
from busd_client.sync import connect
from busd_client.sync_channel import Receiver, Sender

from tests.support.tools import ending, environment, run, until

PYTHON = sys.executable


def server_of(directory: Path) -> int | None:
    """The process that serves it, from the list of all."""
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"{directory}/busd.toml".encode() in words and words[0] == PYTHON.encode():
            return int(entry.name)
    return None


# Blocking code


def test_values_go_through_in_order_and_the_server_goes_with_them(short_dir: Path) -> None:
    sender, receiver = channel("jobs", short_dir)
    with receiver:
        with sender:
            for number in range(20_000):
                sender.send(b"%d" % number)
        assert [int(value) for value in receiver] == list(range(20_000))
        assert server_of(short_dir / "jobs") is not None
    until(lambda: server_of(short_dir / "jobs") is None, "the server stops")
    assert ": stopped" in (short_dir / "jobs" / "log").read_text()


def test_what_was_not_taken_is_there_next_time(short_dir: Path) -> None:
    sender, receiver = channel("jobs", short_dir)
    for value in (b"a", b"b", b"c"):
        sender.send(value)
    sender.close(end=False)
    assert [receiver.receive(), receiver.receive()] == [b"a", b"b"]
    receiver.close()
    with receiver_of(short_dir) as again:
        # b was received, but not done.
        assert [again.receive(), again.receive()] == [b"b", b"c"]
        again.done()
        with pytest.raises(TimeoutError):
            again.receive(0.05)


def receiver_of(directory: Path) -> Receiver:
    """The receiving end; the other one is closed."""
    sender, receiver = channel("jobs", directory)
    sender.close(end=False)
    return receiver


def test_done_values_leave_the_disk(short_dir: Path) -> None:
    sender, receiver = channel("jobs", short_dir, max_bytes=8 << 20)
    with sender, receiver:
        # Five times the cap goes through it.
        for _ in range(160):
            sender.send(bytes(256 * 1024))
            receiver.receive()
        receiver.done()
        files = (short_dir / "jobs" / "data" / "logs" / "channel").glob("*.log")
        assert sum(file.stat().st_size for file in files) <= 8 << 20


def filled(sender: Sender) -> int:
    """Send numbered values until there is no more room; returns how many were taken."""
    sent = 0
    try:
        while True:
            sender.send(b"%d" % sent + b"." * 10_000)
            sent += 1
    except Full:
        return sent


def test_at_the_cap_the_caller_keeps_the_value(short_dir: Path) -> None:
    sender, receiver = channel("jobs", short_dir, max_bytes=4 << 20)
    with receiver:
        sent = filled(sender)
        with pytest.raises(Full, match="cap"):
            sender.flush()
        with pytest.raises(Full) as unsent:
            sender.close(wait_s=0.1)
        kept = sent - len(unsent.value.values)
        assert 0 < kept < sent <= kept + WINDOW_VALUES
        # Nothing is missing between those that are kept and those that the caller got back.
        assert [int(value.strip(b".")) for value in unsent.value.values] == list(range(kept, sent))
        assert [int(receiver.receive().strip(b".")) for _ in range(kept)] == list(range(kept))
        with pytest.raises(TimeoutError):
            receiver.receive(0.05)


def test_room_is_noticed(short_dir: Path) -> None:
    sender, receiver = channel("jobs", short_dir, max_bytes=4 << 20)
    with receiver:
        sent = filled(sender)
        closing = threading.Thread(target=sender.close)
        closing.start()
        assert [int(value.strip(b".")) for value in receiver] == list(range(sent))
        closing.join()


def test_there_is_one_receiver(short_dir: Path) -> None:
    sender, receiver = channel("jobs", short_dir)
    sender.send(b"a")
    assert receiver.receive() == b"a"
    code = "import sys, busd_client; busd_client.channel('jobs', sys.argv[1])[1].receive()"
    refused = run([PYTHON, "-c", code, str(short_dir)], status=1)
    assert b"busd_client.channel_core.Busy: the channel jobs in " in refused.stderr
    sender.close(end=False)
    with receiver_of(short_dir) as second, pytest.raises(Busy):
        second.receive()
    receiver.close()
    with receiver_of(short_dir) as second:
        assert second.receive() == b"a"


def test_many_senders_in_other_processes(short_dir: Path) -> None:
    sender, receiver = channel("jobs", short_dir)
    code = (
        "import os, sys, busd_client; s, _ = busd_client.channel('jobs', sys.argv[1]);"
        "[s.send(b'%d' % n) for n in range(1000)]; s.close(end=False)"
    )
    words = [PYTHON, "-c", code, str(short_dir)]
    with receiver, contextlib.ExitStack() as stack:
        children = [stack.enter_context(ending(subprocess.Popen(words, env=environment()))) for _ in range(3)]
        got = [int(receiver.receive()) for _ in range(3000)]
        assert sorted(got) == sorted([*range(1000)] * 3)
        assert [child.wait() for child in children] == [0, 0, 0]
        sender.close()
        assert list(receiver) == []


def test_a_server_that_dies_is_replaced(short_dir: Path) -> None:
    sender, receiver = channel("jobs", short_dir)
    with receiver:
        sender.send(b"a")
        assert receiver.receive() == b"a"
        sender.send(b"b")
        sender.flush()
        first = server_of(short_dir / "jobs")
        assert first is not None
        os.kill(first, signal.SIGKILL)
        until(lambda: server_of(short_dir / "jobs") != first, "it is gone")
        sender.send(b"c")
        sender.close()
        assert list(receiver) == [b"b", b"c"]


def test_the_server_goes_when_its_owner_is_killed_and_others_start_another(short_dir: Path) -> None:
    code = (
        "import sys, os, time, busd_client; s, r = busd_client.channel('jobs', sys.argv[1]);"
        "s.send(b'a'); s.flush(); print(flush=True); time.sleep(1000)"
    )
    owner = subprocess.Popen([PYTHON, "-c", code, str(short_dir)], env=environment(), stdout=subprocess.PIPE)
    assert owner.stdout is not None
    with ending(owner):
        owner.stdout.readline()
        first = server_of(short_dir / "jobs")
        sender, receiver = channel("jobs", short_dir)
        assert server_of(short_dir / "jobs") == first
        with receiver:
            assert receiver.receive() == b"a"
            owner.kill()
            until(lambda: server_of(short_dir / "jobs") != first, "the server stops")
            sender.send(b"b")
            assert receiver.receive() == b"b"
            sender.close(end=False)
    until(lambda: server_of(short_dir / "jobs") is None, "the second server stops")


def test_a_sender_that_fails_says_no_end(short_dir: Path) -> None:
    sender, receiver = channel("jobs", short_dir)
    with receiver:
        with pytest.raises(KeyError), sender:
            failing(sender)
        assert receiver.receive() == b"a"
        with pytest.raises(TimeoutError):
            receiver.receive(0.05)
        with pytest.raises(ValueError, match="closed"):
            sender.send(b"b")
        sender.close()


def failing(sender: Sender) -> None:
    """Half of what was to be sent."""
    sender.send(b"a")
    raise KeyError


def test_what_cannot_be_used(short_dir: Path) -> None:
    for name in ("", "a b", "_dead", "a/b", "*"):
        with pytest.raises(ValueError, match="not a channel's name"):
            channel(name, short_dir)
    with pytest.raises(ValueError, match="107 bytes"):
        channel("jobs", short_dir / ("x" * 100))
    with pytest.raises(ValueError, match="none of"):
        channel("jobs", short_dir, sync="sometimes")
    for most in (-1, 0, 16_383):
        with pytest.raises(ValueError, match="below 16k"):
            channel("jobs", short_dir, max_bytes=most)
    (short_dir / "jobs").mkdir()
    (short_dir / "jobs" / "data").write_text("in the way")
    place = Place(short_dir, "jobs")
    with pytest.raises(OSError, match=r"no busd serves .*: busd: "):
        place.ensure(4.0)
    place.use()
    place.leave()


# asyncio


async def test_the_same_for_asyncio(short_dir: Path) -> None:
    sender, receiver = await aio_channel.channel("jobs", short_dir)
    async with receiver:

        async def send() -> None:
            async with sender:
                for number in range(20_000):
                    await sender.send(b"%d" % number)
                await sender.flush()

        sending = asyncio.ensure_future(send())
        assert [int(value) async for value in receiver] == list(range(20_000))
        await sending
    until(lambda: server_of(short_dir / "jobs") is None, "the server stops")


async def test_receive_may_be_cancelled(short_dir: Path) -> None:
    sender, receiver = await aio_channel.channel("jobs", short_dir)
    async with receiver:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await receiver.receive()
        await sender.send(b"a")
        assert await receiver.receive() == b"a"
        await receiver.done()
        await sender.close()
        with pytest.raises(EOFError):
            await receiver.receive()


async def test_the_cap_for_asyncio(short_dir: Path) -> None:
    sender, receiver = await aio_channel.channel("jobs", short_dir, max_bytes=4 << 20)
    async with receiver:
        sent = 0
        try:
            while True:
                await sender.send(b"%d" % sent + b"." * 10_000)
                sent += 1
        except Full:
            assert sent > 100
        with pytest.raises(Full, match="cap"):
            await sender.flush()
        closing = asyncio.ensure_future(sender.close())
        assert [int(value.strip(b".")) async for value in receiver] == list(range(sent))
        await closing


async def test_a_server_that_dies_is_replaced_for_asyncio(short_dir: Path) -> None:
    sender, receiver = await aio_channel.channel("jobs", short_dir)
    async with receiver:
        await sender.send(b"a")
        assert await receiver.receive() == b"a"
        first = server_of(short_dir / "jobs")
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await sender.send(b"b")
        await sender.close()
        assert [value async for value in receiver] == [b"b"]


async def test_both_kinds_speak_to_each_other(short_dir: Path) -> None:
    sender: Sender
    sender, unused = await asyncio.to_thread(channel, "jobs", short_dir)
    other, receiver = await aio_channel.channel("jobs", short_dir)
    async with receiver:
        sender.send(b"a")
        assert await receiver.receive() == b"a"
        await receiver.done()
        with connect(str(short_dir / "jobs" / "busd.sock")) as busd:
            assert busd.groups()[0]["lag"] == 0
        await other.close(end=False)
    await asyncio.to_thread(sender.close)
    await asyncio.to_thread(unused.close)


def test_an_end_that_nobody_uses_does_not_keep_the_server(tmp_path: Path) -> None:
    sender, _ = channel("q", tmp_path)
    _, receiver = channel("q", tmp_path)
    sender.send(b"a")
    sender.close()
    assert list(receiver) == [b"a"]
    receiver.close()
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(OSError, match=r"refused|No such file"):
        probe.connect(str(tmp_path / "q" / "busd.sock"))


def test_a_channel_that_nobody_used_takes_its_server_with_it(short_dir: Path) -> None:
    ends = channel("jobs", short_dir)
    assert server_of(short_dir / "jobs") is not None
    # Nothing is closed; warnings of a process that was left are errors here.
    del ends
    gc.collect()
    until(lambda: server_of(short_dir / "jobs") is None, "the server stops")
