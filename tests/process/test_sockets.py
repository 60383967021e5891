"""Listening: paths are never stolen, connections are bounded, what is begun must be finished, who is gone is found."""

from __future__ import annotations

import asyncio
import platform
import select
import socket
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import uvloop

from busd.words.settings import Settings
from busd.words.units import NS_PER_S
from busd.world import connection
from busd.world.peers import keep_alive
from busd.world.sockets import BadAddress, identity, listen_tcp, listen_unix, split_address, unlink_own
from tests.conftest import MakeServer
from tests.support.in_loop import serving
from tests.support.proc import arenas, cpu_s
from tests.support.server import ServerProcess, read_all, read_lines
from tests.support.tools import until


@pytest.mark.parametrize("text", ["", "7379", "host", "host:", ":1", "h:x", "h:70000", "h:-1"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(BadAddress, match=r"127\.0\.0\.1:7379"):
        split_address(text)


@pytest.mark.parametrize("within_s", [1, *range(3, 31), 90, 100, 3600, 45_000, 86_400, 10**12])
def test_who_is_gone_is_found_within_the_time_told(within_s: int) -> None:
    with socket.socket() as sock:
        keep_alive(sock, within_s * NS_PER_S)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        idle_s, pause_s, probes = (sock.getsockopt(socket.IPPROTO_TCP, name) for name in names)
    # It is over one pause behind the last question.
    assert idle_s + pause_s * probes == min(max(3, within_s), 45_000)
    assert probes >= 2


def test_a_taken_port_is_named() -> None:
    with listen_tcp("127.0.0.1:0") as sock:
        port = sock.getsockname()[1]
        with pytest.raises(BadAddress, match=str(port)):
            listen_tcp(f"127.0.0.1:{port}")


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_who_may_open_the_socket_is_a_setting(short_dir: Path, mode: int) -> None:
    with listen_unix(str(short_dir / "x.sock"), mode):
        assert stat.S_IMODE((short_dir / "x.sock").stat().st_mode) == mode


def test_a_unix_path_living_dead_or_not_a_socket(short_dir: Path) -> None:
    path = str(short_dir / "x.sock")
    with listen_unix(path) as sock:
        assert stat.S_IMODE((short_dir / "x.sock").stat().st_mode) == 0o660
        with pytest.raises(BadAddress, match="another server"):
            listen_unix(path)
        sock.close()
    with listen_unix(path):
        own = identity(path)
    unlink_own(path, (0, 0))
    assert identity(path) == own, "somebody else's is left alone"
    unlink_own(path, own)
    assert identity(path) is None
    (short_dir / "file").write_text("precious")
    with pytest.raises(BadAddress, match="not a socket"):
        listen_unix(str(short_dir / "file"))
    assert (short_dir / "file").read_text() == "precious"
    with pytest.raises(BadAddress, match="107 bytes"):
        listen_unix(str(short_dir / ("y" * 120)))


def test_connections_beyond_the_limit_are_told_and_the_others_go_on(make_configured: MakeServer) -> None:
    server = make_configured("[limits]\nconnections = 2\n")
    with server.connect() as one, server.connect() as two:
        for connection in (one, two):
            connection.sendall(b"PING\n")
            assert read_lines(connection, 1) == [b"PONG"]
        with server.connect() as three:
            assert read_all(three).startswith(b"-LIMIT 2 connections")
        one.sendall(b"PING\n")
        assert read_lines(one, 1) == [b"PONG"]
    until(server.has_room, "a place became free")


def test_a_command_that_is_never_finished(make_configured: MakeServer) -> None:
    server = make_configured('[limits]\nunfinished = "1s"\n')
    with server.connect() as dribbler, server.connect() as other:
        dribbler.sendall(b"PUB t half a mess")
        assert read_all(dribbler).startswith(b"-TIMEOUT")
        other.sendall(b"READ t\n")
        assert read_lines(other, 1) == [b"END end next=1"]


@pytest.mark.parametrize("unix", [False, True])
def test_a_half_closed_reader_that_is_gone_is_found(server: ServerProcess, unix: bool) -> None:
    def subscriptions() -> int:
        lines = server.ask(b"INFO clients\n").splitlines()
        return int(next(line for line in lines if line.startswith(b"subscriptions=")).partition(b"=")[2])

    if unix:
        reader = socket.socket(socket.AF_UNIX)
        reader.connect(str(server.unix))
    else:
        reader = server.connect()
    reader.settimeout(20)
    reader.sendall(b"SUB t\n")
    read_lines(reader, 1)
    reader.shutdown(socket.SHUT_WR)
    assert server.ask(b"PUB t still there\n") == b":1\n"
    assert read_lines(reader, 1) == [b"MSG t 1 still there"]
    assert subscriptions() == 1
    if not unix:
        # Without this a vanished peer is found by keep-alive, which takes longer than a test should.
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    reader.close()
    until(lambda: subscriptions() == 0, "the server noticed")


def test_a_reader_that_takes_its_time_gets_everything_when_the_server_stops(server: ServerProcess) -> None:
    # Also when there was a moment without any connection before.
    assert server.ask(b"PING\n") == b"PONG\n"
    until(lambda: b"connections=1\n" in server.ask(b"INFO clients\n"), "the first connection was closed")
    with server.connect() as reader, server.connect() as writer:
        reader.sendall(b"SUB t FROM first\n")
        read_lines(reader, 1)
        writer.sendall(b"".join(b"PUB t %b\n" % (b"x" * 1000) for _ in range(8000)))
        read_lines(writer, 8000)
        with ThreadPoolExecutor(1) as pool:
            stopped = pool.submit(server.stop)
            time.sleep(0.5)
            assert read_all(reader).splitlines()[-1].startswith(b"END closed next=")
            assert stopped.result() == 0


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("ends", [False, True])
def test_who_does_not_take_its_last_bytes_is_cut_off_also_when_it_ends_its_side(
    new_loop: Callable[[], asyncio.AbstractEventLoop], ends: bool, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_LINGER_S", 0.5)
    path = str(short_dir / "s")

    async def story() -> None:
        settings = Settings(data=str(short_dir / "data"), tcp="", unix=path, sync="never")
        async with serving(settings):
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(path)
                # More than the socket takes, less than the outbox.
                peer.sendall(b"HELP\n" * 400 + b"QUIT\n")
                await asyncio.sleep(0.2)
                if ends:
                    peer.shutdown(socket.SHUT_WR)
                hung_up = select.poll()
                hung_up.register(peer, 0)
                assert await asyncio.to_thread(hung_up.poll, 5000), "it hung up"

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(story())


@pytest.mark.parametrize("sync", ["always", "interval"])
def test_who_asks_again_at_once_is_answered_and_costs_nothing_once_it_pauses(
    make_server: MakeServer, sync: str
) -> None:
    """The loop looks for the next request before it sleeps (busy_poll_us), and does sleep."""
    server = make_server("--sync", sync, env={"BUSD_BUSY_POLL_US": "1000"})

    def idle_s() -> float:
        # What the start or the load have left to do is over first.
        time.sleep(0.2)
        began_s = cpu_s(server.pid)
        time.sleep(1.0)
        return cpu_s(server.pid) - began_s

    assert idle_s() < 0.1, "before anybody asked"
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(1, 301):
            connection.sendall(b"PUB t x\n")
            assert read_lines(connection, 1) == [b":%d" % number]
        assert idle_s() < 0.1, "it spins for a client that pauses"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others have one place anyway")
@pytest.mark.parametrize(("told", "found"), [("", 0), ("4", 1)])
def test_threads_take_memory_from_one_place(make_server: MakeServer, told: str, found: int) -> None:
    """Not of glibc: each of its own, which keeps what was given back; unless it was told so."""
    server = make_server(env={"MALLOC_ARENA_MAX": told, "GLIBC_TUNABLES": ""})
    publishes = b"".join(b"PUB t %d\n" % number for number in range(5_000))
    assert server.ask(publishes).count(b"\n") == 5_000
    assert min(arenas(server.pid), 1) == found
