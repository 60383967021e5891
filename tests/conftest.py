"""What holds for every test.

1. An async test has a time limit of its own, and fails when anything reached its loop's exception handler: an error
   that nobody awaited is an error.
2. A server that a test started is gone when the test is over, and its stderr is shown when the test failed.
3. Warnings are errors (pyproject.toml).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from busd.rules import column as columns
from tests.support.server import ServerProcess
from tests.support.tools import IN_CI

# Below the limit of pytest-timeout, so that an async test ends by its own cancellation, with a useful traceback.
ASYNC_TIMEOUT_S = 50.0

MakeServer = Callable[..., ServerProcess]

# A deadline for each example would be one of the machine, not of the code.  In CI the same examples each time.
settings.register_profile(
    "busd", deadline=None, derandomize=IN_CI, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busd")


def guarded(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The async test with a time limit and an eye on its loop."""

    @functools.wraps(test)
    async def run(*args: Any, **kwargs: Any) -> None:
        loop = asyncio.get_running_loop()
        seen: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: seen.append(context))
        async with asyncio.timeout(ASYNC_TIMEOUT_S):
            await test(*args, **kwargs)
        # What was scheduled in the last turn may fail too.
        await asyncio.sleep(0)
        assert not seen, f"the loop's exception handler was called: {seen}"

    return run


@pytest.fixture(scope="module", params=["bytes", "text"])
def column_kind(request: pytest.FixtureRequest) -> Iterator[None]:
    """The tests of a module twice: with columns as they are, and as if every batch had hundreds of topics."""
    before = columns._NARROW
    columns._NARROW = before if request.param == "bytes" else 1
    yield
    columns._NARROW = before


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Guard every async test."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = guarded(item.obj)


class Cases:
    """How many cases an enumeration has tried; `make faults` shows it."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, count: int = 1) -> None:
        """So many more."""
        self.count += count


@pytest.fixture
def cases(record_property: Callable[[str, object], None]) -> Iterator[Cases]:
    """Counts what one test tries; a test without it is one case."""
    counter = Cases()
    yield counter
    record_property("cases", counter.count)


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory whose path is short enough for a Unix socket (107 bytes); pytest's own may not be."""
    with tempfile.TemporaryDirectory(prefix="busd-") as name:
        yield Path(name)


@contextlib.contextmanager
def making(directory: Path) -> Iterator[MakeServer]:
    """Starts servers in a directory: `make(*options, name="a", env={…})`; all of them are stopped at the end."""
    servers: list[ServerProcess] = []

    def make(*options: str, name: str = "", env: dict[str, str] | None = None) -> ServerProcess:
        base = directory / name
        base.mkdir(exist_ok=True)
        server = ServerProcess(base, options, env)
        servers.append(server)
        return server.start()

    try:
        yield make
    finally:
        failures = []
        for server in servers:
            try:
                server.close()
            except AssertionError as failure:
                failures.append(str(failure))
            # pytest shows this when the test failed, and only then.
            print(f"--- stderr of busd in {server.base}\n{server.log()}", file=sys.stderr)
        assert not failures, "\n".join(failures)


@pytest.fixture
def make_server(short_dir: Path) -> Iterator[MakeServer]:
    """See `making`."""
    with making(short_dir) as make:
        yield make


@pytest.fixture
def make_configured(make_server: MakeServer, tmp_path: Path) -> MakeServer:
    """Starts servers with a configuration file: `make_configured(text, *options)`."""

    def make(text: str, *options: str) -> ServerProcess:
        path = tmp_path / "busd.toml"
        path.write_text(text)
        return make_server("--config", str(path), *options)

    return make


@pytest.fixture
def server(make_server: MakeServer) -> ServerProcess:
    """A running server with the default settings."""
    return make_server()


@pytest.fixture(scope="module")
def shared_server() -> Iterator[ServerProcess]:
    """As `server`, one for all tests of a file that leave it as it was."""
    with tempfile.TemporaryDirectory(prefix="busd-") as name, making(Path(name)) as make:
        yield make()
