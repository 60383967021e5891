"""`busd serve`: settings in, a running server, an exit code.

The first SIGTERM or SIGINT stops it in order, the second at once, as one does that comes before it is ready: what was
answered is kept either way, and the next start recovers.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import sys
from dataclasses import replace

import uvloop

import busd
from busd.rules.users import BadUsers
from busd.wiring.cli import die_of
from busd.wiring.notify import notify
from busd.words.settings import Settings
from busd.words.units import NS_PER_S
from busd.world import journal
from busd.world.allocator import share_one_arena
from busd.world.disk import DiskFailed, DiskFull, Locked
from busd.world.journal import events
from busd.world.meta import WrongFormat
from busd.world.real_disk import RealDisk
from busd.world.server import Server
from busd.world.sockets import BadAddress
from busd.world.store import NewerFormat
from busd.world.users import is_loopback

# systemd is told that we live each third of the time after which it kills us.
_WATCHDOG_US = os.environ.get("WATCHDOG_USEC", "")
_ALIVE_S = int(_WATCHDOG_US) / 3e6 if _WATCHDOG_US.isdecimal() else 0.0


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; says why on stderr when it ends otherwise.

    Returns 0 after an orderly stop, 1 when the files were not closed in time, 2 when it could not start.
    """
    journal.configure(settings.log_format)
    _raise_descriptors()
    # Before there are threads.
    share_one_arena()
    # A read of 256 KiB makes thousands of objects at once, none of them garbage: with the default of 700 the collector
    # looks at them again and again.  Parsing 20 mixed topics: 305 ns a message with the default, 247 so.
    # The older ones as often as by default: connections are circles, and 100,000 that have gone took 230 MB with 50.
    gc.set_threshold(50_000, 10, 10)
    # A thread (of retention, of a cold read) may keep the interpreter so long when the loop wants it: with the default
    # of 5 ms a synced publish beside one takes 7.3 ms (p50), with this 1.6; with less the threads mostly change over.
    sys.setswitchinterval(500e-6)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(_fitted(settings)))
    except Locked as error:
        return _refuse(f"{settings.data} is in use: {error}")
    except (WrongFormat, NewerFormat, BadAddress, BadUsers, DiskFull, DiskFailed) as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{error.filename or settings.data}: {error.strerror or error}")
    return 0


async def _serve(settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[signal.Signals] = loop.create_future()
    ready = False

    def on_signal(number: signal.Signals) -> None:
        if ready and not stop.done():
            stop.set_result(number)
            return
        events.warning("stopped at once", signal=number.name, ready="yes" if ready else "no")
        loop.remove_signal_handler(number)
        die_of(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    again = asyncio.Event()
    # Also without anything to read again: else it would be the end, and no orderly one.
    loop.add_signal_handler(signal.SIGHUP, again.set)
    server = Server(settings, RealDisk())
    await server.start()
    ready = True
    reloading = asyncio.create_task(_reload(server, again))
    for line in server.report:
        events.warning(f"recovered: {line}")
    places = {"tcp": server.tcp_address, "tls": server.tls_address, "unix": server.unix_path}
    places |= {"data": settings.data, "sync": settings.sync}
    events.info("ready", **{name: value for name, value in places.items() if value})
    if server.tcp_address and not is_loopback(server.tcp_address.rpartition(":")[0].strip("[]")):
        why = "tokens and messages can be read on the way; the setting tls listens with TLS"
        events.warning("not encrypted", tcp=server.tcp_address, why=why)
    notify("READY=1", f"STATUS=busd {busd.__version__}, {server.tcp_address or server.tls_address or server.unix_path}")
    alive = asyncio.create_task(_say_alive())
    number = await stop
    deadline_s = f"{settings.stop_ns / NS_PER_S:g}"
    events.info("stopping", signal=number.name, within=f"{deadline_s}s")
    notify("STOPPING=1", "STATUS=stopping")
    reloading.cancel()
    closed = await server.stop()
    alive.cancel()
    if not closed:
        why = f"the disk did not let the files be closed within {deadline_s}s; the next start recovers them"
        events.error("stopped unclean", why=why)
        # A thread still waits for the disk; an orderly end would wait for it.
        os._exit(1)
    events.info("stopped")


async def _reload(server: Server, again: asyncio.Event) -> None:
    """Read users and certificate again each time that SIGHUP came; one that comes meanwhile counts."""
    while True:
        await again.wait()
        again.clear()
        try:
            await server.reload()
        except Exception:
            # The next one is to be heard, too.
            logging.getLogger("busd").exception("a fault of busd in reading users and certificate again")


async def _say_alive() -> None:
    """Tell systemd again and again that the loop goes round, where its unit has WatchdogSec."""
    while _ALIVE_S:
        notify("WATCHDOG=1")
        await asyncio.sleep(_ALIVE_S)


def _raise_descriptors() -> None:
    """As many descriptors as we are allowed: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _fitted(settings: Settings) -> Settings:
    """Files of the log end before the largest that the process may write (RLIMIT_FSIZE): behind it nothing could be
    published any more, however much room there is."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    rules = (settings.main, *settings.stores)
    if limit == resource.RLIM_INFINITY or all(rule.segment_bytes <= limit for rule in rules):
        return settings
    events.warning("smaller files", why=f"the process may write {limit} bytes to a file, so segment_bytes is that")
    main, *stores = (replace(rule, segment_bytes=min(rule.segment_bytes, limit)) for rule in rules)
    return replace(settings, main=main, stores=tuple(stores))


def _refuse(text: str) -> int:
    print(f"busd: {text}", file=sys.stderr)
    return 2
