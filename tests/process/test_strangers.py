"""Connections that have not said who they are: they cannot keep out those who do."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from busd.words.settings import Limits, Settings
from busd.world import accept
from tests.support.certificates import certificates
from tests.support.in_loop import serving
from tests.support.users import peer, token_of, user

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    known = tmp_path / "users.toml"
    known.touch(0o600)
    known.write_text(user("web", pub=["t"], admin=[">"]) + peer("uid = 4294967294"))
    files = certificates(tmp_path)
    return Settings(
        data=str(tmp_path / "data"),
        tcp="127.0.0.1:0",
        tls="127.0.0.1:0",
        tls_cert=str(files.cert),
        tls_key=str(files.key),
        users=str(known),
        limits=Limits(connections=16),
        sync="never",
    )


async def dial(address: str) -> Pair:
    """A plain connection."""
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def hang_up(*pairs: Pair) -> None:
    """Close them, whatever the server did."""
    for _, writer in pairs:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ask(pair: Pair, *lines: str) -> list[str]:
    """Say lines; as many come back."""
    pair[1].write("".join(f"{line}\n" for line in lines).encode())
    return [(await pair[0].readline()).decode().rstrip("\n") for _ in lines]


async def test_the_longest_stranger_makes_room(settings: Settings) -> None:
    async with serving(settings) as server:
        known = []
        for _ in range(5):
            known.append(await dial(server.tcp_address))
            assert await ask(known[-1], f"AUTH {token_of('web')}") == ["+OK"]
        strangers: list[Pair] = []
        for number in range(40):
            strangers.append(await dial(server.tcp_address))
            # In turn, so that their order is known.
            assert await ask(strangers[-1], "PING") == ["PONG"]
            if number % 8 == 7:
                late = await dial(server.tcp_address)
                assert await ask(late, f"AUTH {token_of('web')}", "PUB t x") == ["+OK", f":{number // 8 + 1}"]
                await hang_up(late)
        told = [await one[0].read(-1) for one in strangers[:36]]
        assert set(told) == {b"-LIMIT too many connections have not said who they are, this one the longest\n"}
        for one in (*known, *strangers[-3:]):
            assert await ask(one, "PING") == ["PONG"]
        await hang_up(*known, *strangers)


async def test_handshakes_that_are_never_done_are_bounded(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "_HANDSHAKES", 3)
    async with serving(settings) as server:
        silent = [await dial(server.tls_address) for _ in range(3)]
        turned_away = await dial(server.tls_address)
        assert await turned_away[0].read(-1) == b"-LIMIT 3 TLS handshakes are under way; no more are begun\n"
        # Others are not concerned.
        one = await dial(server.tcp_address)
        assert await ask(one, f"AUTH {token_of('web')}") == ["+OK"]
        await hang_up(*silent, turned_away, one)
