"""Connections up to the limit, on real sockets and both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from busd.words.settings import Limits, Settings
from busd.world.server import Server
from tests.support.in_loop import serving

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}
TURNED_AWAY = b"-LIMIT 4 connections are open; no more are taken\n"


def connections(server: Server) -> int:
    """How many have a session."""
    ((_, count),) = server.info()["clients"]
    return int(count)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("apart", [1, 2, 3])
def test_one_that_comes_while_others_are_on_their_way_has_its_place(loop: str, apart: int, tmp_path: Path) -> None:
    async def story() -> None:
        settings = Settings(data=str(tmp_path / "data"), tcp="127.0.0.1:0", unix="", limits=Limits(connections=4))
        async with serving(settings) as server, contextlib.AsyncExitStack() as opened:
            host, _, port = server.tcp_address.rpartition(":")

            def dial() -> socket.socket:
                return opened.enter_context(socket.create_connection((host, int(port)), 5))

            peers = []
            for _ in range(4):
                # The next one is accepted while this one is on its way.
                peers.append(dial())
                for _ in range(apart):
                    await asyncio.sleep(0)
            while connections(server) < 4:
                assert not any(map(_turned_away, peers))
                await asyncio.sleep(0)
            one_more = dial()
            one_more.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(one_more, 100) == TURNED_AWAY

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(asyncio.wait_for(story(), 30))


def _turned_away(peer: socket.socket) -> bool:
    peer.setblocking(False)
    try:
        return peer.recv(100) == TURNED_AWAY
    except BlockingIOError:
        return False
