"""The command `busd` against the test's server, and scripts of bash beside the test."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.commands import BUSD, Busd, Spawned
from tests.support.server import ServerProcess
from tests.support.shells import MakeShell, beside
from tests.support.tools import run


def client_of(server: ServerProcess) -> Busd:
    """Runs `busd …` against this server."""

    def call(*words: str, given: bytes = b"", status: int | None = 0) -> subprocess.CompletedProcess[bytes]:
        return run([*BUSD, *words], given, env={"BUSD_ADDRESS": server.address}, status=status)

    return call


@pytest.fixture
def busd(server: ServerProcess) -> Busd:
    """Runs `busd …` against the test's server."""
    return client_of(server)


@pytest.fixture(scope="module")
def shared_busd(shared_server: ServerProcess) -> Busd:
    """Runs `busd …` against the server of all tests of a file that leave it as it was."""
    return client_of(shared_server)


@pytest.fixture
def spawn(server: ServerProcess) -> Iterator[Callable[..., Spawned]]:
    """Starts `busd …` beside the test; what still runs at its end is killed."""
    spawned: list[Spawned] = []

    def start(*words: str) -> Spawned:
        spawned.append(Spawned(server, *words))
        return spawned[-1]

    yield start
    for one in spawned:
        one.process.kill()
        one.process.wait()
        for stream in (one.stdin, one.stdout, one.stderr):
            stream.close()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[MakeShell]:
    """Starts scripts; they are killed behind the test."""
    yield from beside(tmp_path)
