"""Group throughput beside the consumer groups of Redis: deliver and acknowledge everything, 1,000 at a time.

Run by hand, on a machine that does nothing else, with `redis-server` and the packages of the tests:

    python -m bench.groups [--sync interval|always] [--rounds 5] [--messages 200000] [--only clients|protocol]

Both servers are started here, each on its own directory of the same disk, Redis with an append-only file
(`appendfsync everysec` beside `sync = interval`, `always` beside `always`), and both are given the same messages of
100 bytes before anything is measured.  A round makes a new group, has one member take and acknowledge all of it, and
ends when the server has answered the last acknowledgement; then it is checked that every payload came, once and in
order, and that the server has nothing left to settle.  Rounds of the competitors take turns.  With two or more cores
the servers have one and the clients another, unless `--no-pin`.

What is printed: thousands of messages a second, median and range of the rounds; CPU time of client and server in ns a
message; and the ratio to the fastest Redis of the same kind, the median of the ratios round by round.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import redis
from busd_client import sync

from bench.group_members import (
    WINDOW,
    Payloads,
    Run,
    busd_aio,
    busd_raw,
    busd_runs,
    busd_settled,
    busd_sync,
    redis_aio,
    redis_raw,
    redis_settled,
    redis_sync,
)

PAYLOAD_BYTES = 100
LOAD = 1000


@dataclass(slots=True)
class Server:
    """A process, on its port."""

    name: str
    port: int
    process: subprocess.Popen[bytes]

    def cpu_ns(self) -> int:
        """CPU time of all its threads."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


@dataclass(slots=True)
class Competitor:
    """One way to read a group, and what its rounds took."""

    name: str
    server: Server
    run: Run
    check: Callable[[str], None]
    rates: list[float] = field(default_factory=list)
    client_ns: list[float] = field(default_factory=list)
    server_ns: list[float] = field(default_factory=list)

    def round(self, group: str, payloads: Payloads) -> None:
        """One round, checked."""
        gc.collect()
        server_ns, client_ns, began_ns = self.server.cpu_ns(), time.process_time_ns(), time.perf_counter_ns()
        got = self.run(group)
        took_ns = time.perf_counter_ns() - began_ns
        self.client_ns.append((time.process_time_ns() - client_ns) / len(payloads))
        self.server_ns.append((self.server.cpu_ns() - server_ns) / len(payloads))
        self.rates.append(len(payloads) / took_ns * 1e6)
        assert got == payloads, f"{self.name}: {len(got)} of {len(payloads)} payloads, or others"
        self.check(group)


# Servers, and the whole


@contextlib.contextmanager
def servers(base: Path, policy: str, core: int | None) -> Iterator[tuple[Server, Server]]:
    """busd and redis-server, until the end of the block."""
    ports = [free_port(), free_port()]
    fsync = {"interval": "everysec"}.get(policy, policy)
    (base / "redis").mkdir()
    commands = {
        "busd": [
            *[sys.executable, "-m", "busd", "serve", "--tcp", f"127.0.0.1:{ports[0]}"],
            *["--data", str(base / "busd"), "--sync", policy],
        ],
        "redis": [
            *["redis-server", "--port", str(ports[1]), "--dir", str(base / "redis"), "--appendonly", "yes"],
            # Without rewrites of its file, which would share the core with some of the rounds.
            *["--appendfsync", fsync, "--save", "", "--auto-aof-rewrite-percentage", "0"],
        ],
    }
    found: list[Server] = []
    try:
        for (name, command), port in zip(commands.items(), ports, strict=True):
            command = command if core is None else ["taskset", "-c", str(core), *command]
            with open(base / f"{name}.log", "wb") as log:
                found.append(Server(name, port, subprocess.Popen(command, stdout=log, stderr=log)))
            wait_for(port)
        yield found[0], found[1]
    finally:
        for server in found:
            server.process.terminate()
            server.process.wait(20)


def free_port() -> int:
    """One that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def wait_for(port: int) -> None:
    """Until somebody listens there."""
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"nobody listens at {port}"
            time.sleep(0.02)


def load(busd: Server, other: Server, payloads: Payloads) -> None:
    """Give both the same."""
    with sync.connect(f"127.0.0.1:{busd.port}") as client, redis.Redis(port=other.port) as peer:
        for begin in range(0, len(payloads), LOAD):
            some = payloads[begin : begin + LOAD]
            client.publish_many("bench", some)
            pipeline = peer.pipeline(transaction=False)
            for payload in some:
                pipeline.xadd("bench", {"p": payload})
            pipeline.execute()


def competitors(busd: Server, other: Server, messages: int) -> dict[str, list[Competitor]]:
    """By kind; Redis last in each."""
    mine, theirs = busd_settled(busd.port), redis_settled(other.port)
    return {
        "clients": [
            Competitor("busd_client.aio, batches", busd, busd_aio(busd.port, messages), mine),
            Competitor("busd_client.sync, batches", busd, busd_sync(busd.port, messages), mine),
            Competitor("busd_client.sync, runs", busd, busd_runs(busd.port, messages), mine),
            Competitor("redis.asyncio", other, redis_aio(other.port, messages, False), theirs),
            Competitor("redis.asyncio, pipelined", other, redis_aio(other.port, messages, True), theirs),
            Competitor("redis", other, redis_sync(other.port, messages, False), theirs),
            Competitor("redis, pipelined", other, redis_sync(other.port, messages, True), theirs),
        ],
        "protocol": [
            Competitor("busd, socket and hiredis", busd, busd_raw(busd.port, messages), mine),
            Competitor("redis, socket and hiredis", other, redis_raw(other.port, messages, 1), theirs),
            Competitor("redis, the same, two requests of 500", other, redis_raw(other.port, messages, 2), theirs),
        ],
    }


def report(kind: str, found: list[Competitor]) -> None:
    """One table."""
    best = max((one for one in found if one.server.name == "redis"), key=lambda one: statistics.median(one.rates))
    print(f"\n{kind:38}   k msg/s (of all rounds)    client  server ns/msg  ratio")
    for one in found:
        ratio = statistics.median([a / b for a, b in zip(one.rates, best.rates, strict=True)])
        rates = f"{statistics.median(one.rates):6.0f} ({min(one.rates):.0f} … {max(one.rates):.0f})"
        spent = f"{statistics.median(one.client_ns):6.0f}  {statistics.median(one.server_ns):6.0f}"
        print(f"{one.name:38} {rates:26} {spent:>18} {ratio:10.2f}")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Groups of busd beside consumer groups of Redis.")
    parser.add_argument("--sync", choices=["interval", "always"], default="interval")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--only", choices=["clients", "protocol"])
    parser.add_argument("--no-pin", action="store_true", help="let the kernel choose the cores")
    chosen = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    pin = len(cores) > 1 and not chosen.no_pin
    payloads = [b"%09d" % number + b"x" * (PAYLOAD_BYTES - 9) for number in range(chosen.messages)]
    with (
        tempfile.TemporaryDirectory(prefix="busd-bench-") as base,
        servers(Path(base), chosen.sync, cores[0] if pin else None) as (busd, other),
    ):
        if pin:
            os.sched_setaffinity(0, cores[1:])
        load(busd, other, payloads)
        kinds = competitors(busd, other, chosen.messages)
        kinds = {kind: found for kind, found in kinds.items() if chosen.only in (None, kind)}
        for number in range(chosen.rounds):
            for found in kinds.values():
                for at, one in enumerate(found):
                    one.round(f"g{number}-{at}", payloads)
        print(f"{chosen.messages} messages of {PAYLOAD_BYTES} bytes, {chosen.rounds} rounds, window {WINDOW}")
        print(f"sync {chosen.sync}, {'a core each' if pin else 'cores as the kernel likes'}")
        for kind, found in kinds.items():
            report(kind, found)


if __name__ == "__main__":
    main()
