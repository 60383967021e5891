"""TLS on real sockets, on both event loops: whole, bounded, and no client that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import uvloop
from busd_client import aio, sync
from busd_client.address import choose_address
from busd_client.deliveries import Delivery
from busd_client.events import BusdError

from busd.world import accept
from busd.world.server import Server
from tests.support.certificates import Files, authority, certificates
from tests.support.in_loop import serving
from tests.support.users import token_of, user

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return certificates(tmp_path)


def port_of(server: Server) -> int:
    """Where it listens for TLS."""
    return int(server.tls_address.rpartition(":")[2])


async def dial(server: Server, files: Files) -> Pair:
    """A connection that trusts the server."""
    return await asyncio.open_connection("localhost", port_of(server), ssl=files.trusting(), limit=1 << 24)


async def lines(reader: asyncio.StreamReader, count: int) -> list[bytes]:
    """So many lines."""
    return [(await reader.readline()).rstrip(b"\n") for _ in range(count)]


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close, whatever the other side did."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def on(loop: str, story: Callable[[], Awaitable[None]]) -> None:
    """Run the story on that loop; nothing may reach the loop's exception handler."""
    problems: list[dict[str, Any]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async with asyncio.timeout(40):
            await story()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(run())
    assert not problems


@pytest.mark.parametrize("loop", LOOPS)
def test_connections_that_talk_at_once_do_not_mix(loop: str, files: Files, tmp_path: Path) -> None:
    """Each gets its own answers, in order, and finds what it wrote."""

    async def talk(server: Server, name: str) -> None:
        reader, writer = await dial(server, files)
        sent = b"".join(
            b"PUB %b %b-%d-%b\n" % (name.encode(), name.encode(), n, b"x" * (n * 37 % 3000)) for n in range(300)
        )
        for at in range(0, len(sent), 10_007):
            writer.write(sent[at : at + 10_007])
            await writer.drain()
        answers = await lines(reader, 300)
        assert all(answer.startswith(b":") for answer in answers)
        writer.write(b"READ %b FORMAT raw\n" % name.encode())
        found = await lines(reader, 300)
        assert found == [line.partition(b" ")[2].partition(b" ")[2] for line in sent.splitlines()]
        await hang_up(writer)

    async def story() -> None:
        async with serving(files.settings(tmp_path)) as server:
            await asyncio.gather(*[talk(server, f"t{number}") for number in range(12)])

    on(loop, story)


@pytest.mark.parametrize("loop", LOOPS)
def test_all_that_is_owed_comes_before_the_end(loop: str, files: Files, tmp_path: Path) -> None:
    payload = b"y" * 100_000

    async def story() -> None:
        async with serving(files.settings(tmp_path)) as server:
            reader, writer = await dial(server, files)
            writer.write(b"PUB t %b\n" % payload * 60 + b"SUB t FROM 1 UNTIL end FORMAT raw\n")
            assert await lines(reader, 60) == [b":%d" % n for n in range(1, 61)]
            assert await reader.read(-1) == (payload + b"\n") * 60
            await hang_up(writer)

    on(loop, story)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_reader_that_does_not_read_costs_its_outbox_and_is_told_what_it_missed(
    loop: str, files: Files, tmp_path: Path
) -> None:
    async def story() -> None:
        async with serving(files.settings(tmp_path)) as server:
            reader, writer = await dial(server, files)
            writer.write(b"SUB t\n")
            assert (await reader.readline()).startswith(b"+OK")
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            _, publisher = pair = await dial(server, files)
            for _ in range(40):
                publisher.write(b"PUB t %b\n" % (b"z" * 500_000))
                await publisher.drain()
                await pair[0].readline()
            outboxes = [dict(facts)["outbox"] for _, facts in chain(*server.connections())]
            assert max(map(int, outboxes)) <= 2 * server.settings.limits.outbox_bytes
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            seen = missed = 0
            while seen + missed < 40:
                line = await reader.readline()
                if line.startswith(b"GAP"):
                    missed += int(line.split()[4])
                else:
                    assert line.startswith(b"MSG t")
                    seen += 1
            assert missed > 0
            await hang_up(writer)
            await hang_up(publisher)

    on(loop, story)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("said", [b"PING\n", b"P", b"GET / HTTP/1.1\r\n\r\n", b"*1\r\n$4\r\nPING\r\n"])
def test_a_client_without_tls_is_not_left_waiting(
    loop: str, said: bytes, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accept, "_HANDSHAKE_S", 1.0)

    async def story() -> None:
        async with serving(files.settings(tmp_path)) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            writer.write(said)
            begun = time.monotonic()
            with contextlib.suppress(ConnectionError):
                await reader.read(-1)
            assert time.monotonic() - begun < 10
            await hang_up(writer)
            # And costs nobody else anything.
            reader, writer = await dial(server, files)
            writer.write(b"PING\n")
            assert await reader.readline() == b"PONG\n"
            await hang_up(writer)

    on(loop, story)


@pytest.mark.parametrize("loop", LOOPS)
def test_who_ends_the_input_ends_the_connection(loop: str, files: Files, tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(files.settings(tmp_path)) as server:
            reader, writer = await dial(server, files)
            writer.write(b"PUB t kept\nSUB t\n")
            await lines(reader, 2)
            await hang_up(writer)
            for _ in range(200):
                if not [*chain(*server.connections())]:
                    break
                await asyncio.sleep(0.02)
            assert [*chain(*server.connections())] == []
            reader, writer = await dial(server, files)
            writer.write(b"READ t\nQUIT\n")
            assert await reader.read(-1) == b"MSG t 1 kept\nEND end next=2\n+OK\n"
            await hang_up(writer)

    on(loop, story)


@pytest.mark.parametrize("loop", LOOPS)
def test_only_clients_with_a_certificate_where_a_ca_says_so(loop: str, files: Files, tmp_path: Path) -> None:
    async def ask(server: Server, context: ssl.SSLContext) -> bytes:
        reader, writer = await asyncio.open_connection("localhost", port_of(server), ssl=context)
        writer.write(b"PING\n")
        try:
            return await reader.readline()
        finally:
            await hang_up(writer)

    async def story() -> None:
        async with serving(files.settings(tmp_path, client_ca=str(files.ca))) as server:
            with contextlib.suppress(OSError):
                assert await ask(server, files.trusting()) == b""
            known = files.trusting()
            known.load_cert_chain(files.client)
            assert await ask(server, known) == b"PONG\n"

    on(loop, story)


def test_the_clients_show_a_certificate_where_one_is_asked_for(files: Files, tmp_path: Path) -> None:
    def blocking(address: str) -> None:
        with_one = choose_address(address, {"BUSD_CAFILE": str(files.ca), "BUSD_CERT": str(files.client)})
        with sync.Client(with_one) as client:
            client.open()
            assert client.publish("t", b"x") == 1
        with pytest.raises(OSError, match=r"(?i)certificate|reset|closed|broke"):
            sync.Client(choose_address(address, {"BUSD_CAFILE": str(files.ca)})).open()

    async def story() -> None:
        async with serving(files.settings(tmp_path, client_ca=str(files.ca))) as server:
            await asyncio.to_thread(blocking, f"tls:localhost:{port_of(server)}")

    on("uvloop", story)


@pytest.mark.parametrize("loop", LOOPS)
def test_the_certificate_is_read_again(loop: str, files: Files, tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(files.settings(tmp_path)) as server:
            reader, writer = await dial(server, files)
            new = certificates(tmp_path / "new", authority("a new one"))
            for old, its in ((files.cert, new.cert), (files.key, new.key)):
                old.write_bytes(its.read_bytes())
            await server.reload()
            with pytest.raises(ssl.SSLCertVerificationError):
                await dial(server, files)
            _, other = await dial(server, new)
            # One that cannot be used changes nothing, and whoever was connected stays.
            files.key.write_text("nonsense")
            await server.reload()
            _, third = await dial(server, new)
            writer.write(b"PING\n")
            assert await reader.readline() == b"PONG\n"
            for one in (writer, other, third):
                await hang_up(one)

    on(loop, story)


@pytest.mark.parametrize("loop", LOOPS)
def test_the_clients_with_a_token(loop: str, files: Files, tmp_path: Path) -> None:
    known = tmp_path / "users.toml"
    known.touch(0o600)
    known.write_text(user("web", pub=["a.>"], sub=["a.>"]))

    def blocking(address: str) -> list[bytes]:
        with sync.connect(address, tls=files.trusting(), token=token_of("web")) as client:
            client.publish("a.1", b"blocking")
            with client.subscribe("a.>", group="g", limit=2, window=2) as jobs:
                found = []
                for job in jobs:
                    assert isinstance(job, Delivery)
                    found.append(job.payload)
                    job.ack()
            return found + [event.payload for event in client.subscribe("a.>", start="first", limit=2)]  # type: ignore[union-attr]

    async def story() -> None:
        async with serving(files.settings(tmp_path, users=str(known))) as server:
            address = f"localhost:{port_of(server)}"
            client = await aio.connect(address, tls=True, cafile=str(files.ca), token=token_of("web"))
            await client.publish("a.1", b"asyncio")
            assert await asyncio.to_thread(blocking, address) == [b"asyncio", b"blocking"] * 2
            with pytest.raises(BusdError) as told:
                await client.publish("b", b"")
            assert told.value.code == "DENIED"
            await client.close()
            with pytest.raises(BusdError) as told:
                await aio.connect(address, tls=files.trusting(), token="web:guess")
            assert told.value.code == "AUTH"
            with pytest.raises(ssl.SSLCertVerificationError):
                await aio.connect(address, tls=True, token=token_of("web"))

    on(loop, story)


def test_a_silent_client_without_a_handshake_is_no_connection(files: Files, tmp_path: Path) -> None:
    """It holds a place among those that are allowed, and no more than that."""

    async def story() -> None:
        async with serving(files.settings(tmp_path)) as server:
            silent = [socket.create_connection(("127.0.0.1", port_of(server))) for _ in range(20)]
            reader, writer = await dial(server, files)
            writer.write(b"CONNS\n")
            assert await reader.readline() == b"*1\n"
            await hang_up(writer)
            for one in silent:
                one.close()

    on("uvloop", story)
