"""The members of groups that bench.groups compares: each takes and acknowledges all there is, and gives the payloads.

Every function of a port and a number of messages returns a function of the name of a new group.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import hiredis
import redis
import redis.asyncio
from busd_client import aio, sync
from busd_client.deliveries import Deliveries

WINDOW = 1000
Payloads = list[bytes]
# Takes the name of a group that nobody has used, gives all payloads in the order in which they came.
Run = Callable[[str], Payloads]


# busd


def busd_aio(port: int, messages: int) -> Run:
    """The asyncio client, a batch at a time, each a list of deliveries."""

    async def run(group: str) -> Payloads:
        got: Payloads = []
        async with (
            await aio.connect(f"127.0.0.1:{port}") as client,
            client.subscribe("bench", group=group, window=WINDOW) as jobs,
        ):
            async for batch in jobs.acked_batches():
                got += [job.payload for job in batch]
                if len(got) == messages:
                    batch.ack()
                    await jobs.flush(strict=True)
                    break
        return got

    return lambda group: asyncio.run(run(group))


def busd_sync(port: int, messages: int) -> Run:
    """The blocking client, a batch at a time."""

    def run(group: str) -> Payloads:
        got: Payloads = []
        with (
            sync.connect(f"127.0.0.1:{port}") as client,
            client.subscribe("bench", group=group, window=WINDOW) as jobs,
        ):
            for batch in jobs.acked_batches():
                got += [job.payload for job in batch]
                if len(got) == messages:
                    batch.ack()
                    jobs.flush(strict=True)
                    break
        return got

    return run


def busd_runs(port: int, messages: int) -> Run:
    """The blocking client, in runs: columns instead of a delivery object for each message."""

    def run(group: str) -> Payloads:
        got: Payloads = []
        with (
            sync.connect(f"127.0.0.1:{port}") as client,
            client.subscribe("bench", group=group, window=WINDOW) as jobs,
        ):
            for parts in jobs.parts():
                for part in parts:
                    assert isinstance(part, Deliveries)
                    got += part.run.payloads()
                    part.ack()
                if len(got) == messages:
                    jobs.flush(strict=True)
                    break
        return got

    return run


def busd_raw(port: int, messages: int) -> Run:
    """RESP3 on a socket, stored frames; each read is acknowledged up to its last message."""

    def run(group: str) -> Payloads:
        got: Payloads = []
        decoder, settled = hiredis.Reader(), 0
        with connection(port) as sock:
            sock.sendall(
                encoded("HELLO", "3") + encoded("SUB", "bench", "GROUP", group, "WINDOW", WINDOW, "FORMAT", "batch")
            )
            while settled < messages:
                decoder.feed(sock.recv(1 << 18))
                last = 0
                while (event := decoder.gets()) is not False:
                    if isinstance(event, hiredis.PushNotification):
                        first, last, frame = event[1:]
                        got += in_frame(first, last, frame)
                    elif isinstance(event, int):
                        settled += event
                if last:
                    sock.sendall(b"*2\r\n$3\r\nACK\r\n" + bulk(b"..%d" % last))
        return got

    return run


def in_frame(first: int, last: int, frame: bytes) -> Payloads:
    """The payloads meant, of a frame of consecutive offsets without headers, as all here are."""
    header, _, body = frame.partition(b"\r\n")
    fields = header.split(b" ")
    begin, n = int(fields[3]), int(fields[4])
    assert len(fields) == 10, header
    payloads: Payloads = decoded(body)
    assert len(payloads) == n
    return payloads[first - begin : last - begin + 1]


def decoded(data: bytes) -> Any:
    """The one value that this is."""
    decoder = hiredis.Reader()
    decoder.feed(data)
    return decoder.gets()


def busd_settled(port: int) -> Callable[[str], None]:
    """Checks that a group has nothing left, and forgets it."""

    def check(group: str) -> None:
        with sync.connect(f"127.0.0.1:{port}") as client:
            (row,) = client.groups(group)
            assert (row["lag"], row["in_flight"]) == (0, 0), row
            client.forget(group)

    return check


# Redis


def redis_aio(port: int, messages: int, pipelined: bool) -> Run:
    """redis-py for asyncio."""

    async def run(group: str) -> Payloads:
        got: Payloads = []
        async with redis.asyncio.Redis(port=port) as client:
            await client.xgroup_create("bench", group, "0")
            ids: list[bytes] = []
            while True:
                if pipelined:
                    pipeline = client.pipeline(transaction=False)
                    if ids:
                        pipeline.xack("bench", group, *ids)
                    pipeline.xreadgroup(group, "one", {"bench": ">"}, count=WINDOW)
                    found = (await pipeline.execute())[-1]
                else:
                    if ids:
                        await client.xack("bench", group, *ids)
                    if len(got) == messages:
                        return got
                    found = await client.xreadgroup(group, "one", {"bench": ">"}, count=WINDOW)
                if not found:
                    return got
                entries = found[0][1]
                ids = [entry for entry, _ in entries]
                got += [fields[b"p"] for _, fields in entries]

    return lambda group: asyncio.run(run(group))


def redis_sync(port: int, messages: int, pipelined: bool) -> Run:
    """redis-py, blocking; pipelined: the acknowledgement travels with the next request."""

    def run(group: str) -> Payloads:
        got: Payloads = []
        with redis.Redis(port=port) as client:
            client.xgroup_create("bench", group, "0")
            ids: list[bytes] = []
            while True:
                if pipelined:
                    pipeline = client.pipeline(transaction=False)
                    if ids:
                        pipeline.xack("bench", group, *ids)
                    pipeline.xreadgroup(group, "one", {"bench": ">"}, count=WINDOW)
                    found = pipeline.execute()[-1]
                else:
                    if ids:
                        client.xack("bench", group, *ids)
                    if len(got) == messages:
                        return got
                    found = client.xreadgroup(group, "one", {"bench": ">"}, count=WINDOW)
                if not found:
                    return got
                entries = found[0][1]
                ids = [entry for entry, _ in entries]
                got += [fields[b"p"] for _, fields in entries]

    return run


def redis_raw(port: int, messages: int, ahead: int) -> Run:
    """RESP on a socket; `ahead` requests are under way at a time, which share the window."""

    def run(group: str) -> Payloads:
        got: Payloads = []
        decoder, settled = hiredis.Reader(), 0
        read = encoded("XREADGROUP", "GROUP", group, "one", "COUNT", WINDOW // ahead, "STREAMS", "bench", ">")
        with connection(port) as sock:
            sock.sendall(encoded("XGROUP", "CREATE", "bench", group, "0") + read * ahead)
            while settled < messages:
                decoder.feed(sock.recv(1 << 18))
                while (answer := decoder.gets()) is not False:
                    if isinstance(answer, int):
                        settled += answer
                    elif isinstance(answer, list):
                        entries = answer[0][1]
                        ids = [entry for entry, _ in entries]
                        got += [fields[1] for _, fields in entries]
                        sock.sendall(encoded("XACK", "bench", group, *ids) + read)
        return got

    return run


def redis_settled(port: int) -> Callable[[str], None]:
    """Checks that a group has nothing left, and removes it."""

    def check(group: str) -> None:
        with redis.Redis(port=port) as client:
            (row,) = [one for one in client.xinfo_groups("bench") if one["name"] == group.encode()]
            assert (row["lag"], row["pending"]) == (0, 0), row
            client.xgroup_destroy("bench", group)

    return check


# Both


def bulk(word: bytes) -> bytes:
    """A bulk string."""
    return b"$%d\r\n%b\r\n" % (len(word), word)


def encoded(*words: bytes | str | int) -> bytes:
    """A command."""
    return b"*%d\r\n" % len(words) + b"".join(
        [bulk(word if isinstance(word, bytes) else str(word).encode()) for word in words]
    )


def connection(port: int) -> socket.socket:
    """To a server here."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
