"""`busd serve`: settings in, a running server, an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import signal
import sys

import uvloop

import busd
from busd.words.settings import Settings
from busd.world.disk import DiskFailed, DiskFull, Locked, RealDisk
from busd.world.meta import WrongFormat
from busd.world.server import Server
from busd.world.sockets import BadAddress
from busd.world.store import NewerFormat


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT.  0 after an orderly stop, 2 when it could not start; says why on stderr."""
    _raise_descriptors()
    # A read of 256 KiB makes thousands of objects at once, none of them garbage: with the default of 700 the collector
    # looks at them again and again.  Parsing 20 mixed topics: 305 ns a message with the default, 247 so.
    gc.set_threshold(50_000, 50, 50)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings))
    except Locked as error:
        return _refuse(f"{settings.data} is in use: {error}")
    except (WrongFormat, NewerFormat, BadAddress, DiskFull, DiskFailed) as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{error.filename or settings.data}: {error.strerror or error}")
    return 0


async def _serve(settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server = Server(settings, RealDisk())
    await server.start()
    for line in server.report:
        print(f"busd: recovered: {line}", file=sys.stderr, flush=True)
    where = [f"tcp {server.tcp_address}"] if server.tcp_address else []
    where += [f"unix {server.unix_path}"] if server.unix_path else []
    places = ", ".join([*where, f"data {settings.data}", f"sync {settings.sync}"])
    print(f"busd {busd.__version__}: ready, {places}", file=sys.stderr, flush=True)
    await stopped.wait()
    await server.stop()
    print("busd: stopped", file=sys.stderr, flush=True)


def _raise_descriptors() -> None:
    """As many descriptors as we are allowed: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _refuse(text: str) -> int:
    print(f"busd: {text}", file=sys.stderr)
    return 2
