"""Stored batches on real sockets, which take only a part of one at a time: as they lie, in order, and whole."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import hiredis
import pytest
import uvloop

from busd.rules.record import Batch, parse
from busd.world.server import Server
from tests.support.certificates import Files, certificates
from tests.support.in_loop import serving

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}
# Each is a batch of its own, and none fits into the buffers between two sockets.
PAYLOADS = [bytes([65 + number]) * (200_000 + number) for number in range(12)]
GULP_BYTES = 7_919
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def dial(server: Server, way: str, files: Files) -> Pair:
    """A connection that has room for little and takes no more than it is asked for."""
    if way == "unix":
        return await asyncio.open_unix_connection(server.settings.unix, limit=GULP_BYTES)
    host, _, port = (server.tcp_address if way == "tcp" else server.tls_address).rpartition(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    trust: ssl.SSLContext | None = files.trusting() if way == "tls" else None
    name = "localhost" if trust else None
    return await asyncio.open_connection(sock=sock, ssl=trust, server_hostname=name, limit=GULP_BYTES)


async def frames(reader: asyncio.StreamReader, count: int) -> list[list[Any]]:
    """So many BATCH pushes, which come in gulps with a turn of the server's between two of them."""
    resp = hiredis.Reader()
    found: list[list[Any]] = []
    while len(found) < count:
        data = await reader.read(GULP_BYTES)
        assert data, "cut off"
        resp.feed(data)
        while (event := resp.gets()) is not False:
            assert not isinstance(event, Exception), event
            if isinstance(event, list) and event[0] == b"BATCH":
                found.append(event)
        await asyncio.sleep(0)
    return found


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("way", ["tcp", "unix", "tls"])
@pytest.mark.parametrize("words", [b"FROM 1 UNTIL end", b"GROUP g FROM 1 WINDOW 12"], ids=["replay", "group"])
def test_a_batch_of_which_the_system_takes_a_part_comes_whole(
    loop: str, way: str, words: bytes, short_dir: Path
) -> None:
    files = certificates(short_dir)

    async def story() -> None:
        settings = replace(files.settings(short_dir), tcp="127.0.0.1:0", unix=str(short_dir / "s"))
        async with serving(settings) as server:
            reader, writer = await dial(server, way, files)
            for number, payload in enumerate(PAYLOADS, 1):
                writer.write(b"PUB t %b\n" % payload)
                assert await reader.readline() == b":%d\n" % number
            writer.close()
            reader, writer = await dial(server, way, files)
            request = [b"SUB", b"t", *words.split(), b"FORMAT", b"batch"]
            bulks = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in request)
            writer.write(b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n*%d\r\n%b" % (len(request), bulks))
            found = await frames(reader, len(PAYLOADS))
            writer.close()
        payloads: list[object] = []
        for _, first, last, record in found:
            batch = parse(record)
            assert isinstance(batch, Batch)
            assert (batch.first, batch.last) == (first, last)
            payloads += batch.items()
        assert payloads == PAYLOADS

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(asyncio.wait_for(story(), 40))
