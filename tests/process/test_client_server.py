"""Both clients against a real server: over TCP and a Unix socket, on asyncio's loop and uvloop.

BUSD_KILL_ROUNDS: a tenth of it (10) is how often the test with kills is done.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine

import pytest
import uvloop
from busd_client import aio, sync
from busd_client.address import parse_address
from busd_client.events import BusdError, End, EndOfStream, Message, Reset
from busd_client.runs import Run

from tests.support.server import ServerProcess

# make kill and make faults ask for some hundred kills; this dies four times a round.
ROUNDS = max(1, int(os.environ.get("BUSD_KILL_ROUNDS", "10")) // 10)
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, server: ServerProcess) -> str:
    return server.address if request.param == "tcp" else f"unix:{server.unix}"


@pytest.fixture(params=sorted(LOOPS))
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[object, object, None]], None]:
    """Runs a coroutine on one of the loops."""

    def call(coroutine: Coroutine[object, object, None]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(asyncio.wait_for(coroutine, 40))

    return call


def test_the_whole_of_it(address: str, run: Callable[[Coroutine[object, object, None]], None]) -> None:
    async def work() -> None:
        async with await aio.connect(address) as client:
            assert await client.publish("a.x", b"1", {"k": "v", "event": "5"}) == 1
            assert await client.publish_many("a.y", [b"2", b"3"]) == 2
            assert await asyncio.gather(*[client.publish_soon("b", b"%d" % n) for n in range(1000)]) == [
                *range(4, 1004)
            ]
            assert await client.eof("b") == 1004
            with pytest.raises(BusdError, match="TOPIC"):
                await client.publish("..", b"")
            found = await client.read("a.*")
            assert [(message.topic, message.payload) for message in found] == [
                ("a.x", b"1"),
                ("a.y", b"2"),
                ("a.y", b"3"),
            ]
            assert (found[0].headers, found[0].event_ns, found.next) == ({"k": "v", "event": "5"}, 5, 1005)
            async with client.subscribe(["a.*", "b"], start="first", until="end") as subscription:
                events = [event async for event in subscription]
            assert len(events) == 1004
            assert events[:3] == list(found)
            assert events[-1] == EndOfStream("b", 1004)
            assert subscription.ended == End("end", 1005)
            assert await client.reset("a.*") == 3
            assert [row["topic"] for row in await client.topics("b")] == ["b"]
            assert (await client.info("log"))["next"] == 1007
            resets = [event async for event in client.subscribe("a.>", start=1, until="end")]
            assert sorted(event.count for event in resets if isinstance(event, Reset)) == [1, 2]
            await client.ping()

    run(work())


def test_more_than_one_answer_holds(server: ServerProcess) -> None:
    with sync.connect(server.address) as client:
        payloads = [b"%d" % number + bytes(1000) for number in range(5000)]
        offsets = list(client.publish_all(("big", payload) for payload in payloads))
        assert offsets == list(range(1, 5001))
        found = client.read("big")
        assert [message.payload for message in found] == payloads
        assert sum(len(page) for page in client.read_pages("big", start=2, limit=4000)) == 4000
        assert [message.offset for message in client.read("big", last=3000)] == list(range(2001, 5001))


def test_blocking(address: str) -> None:
    with sync.connect(address) as client:
        assert client.publish("t", "text") == 1
        assert client.publish_many("t", [b"a", b"b"]) == 2
        assert client.eof("t") == 4
        with client.subscribe("t", start="first", until="end") as subscription:
            events = list(subscription)
        assert [event.payload for event in events if isinstance(event, Message)] == [b"text", b"a", b"b"]
        assert events[-1] == EndOfStream("t", 4)
        assert client.read("none", within=0.02).reason == "time"
        assert list(client.subscribe("none", within="20ms")) == []
        assert client.info("server")["sync"] == "always"


def test_a_batch_with_other_topics_between(address: str) -> None:
    with sync.connect(address) as client:
        list(client.publish_all((f"t{number % 3}", b"%d" % number) for number in range(3000)))
        got = [event.payload for event in client.subscribe("t1", start=1, until="end") if isinstance(event, Message)]
        assert got == [b"%d" % number for number in range(1, 3000, 3)]


def test_a_batch_of_many_topics(server: ServerProcess, run: Callable[[Coroutine[object, object, None]], None]) -> None:
    """500 topics in one record: readers of all, of some and of one, live and from the log."""
    rows = [(f"t{number % 500}.x", b"%d" % number) for number in range(1500)]
    data = b"".join([b"PUB %b %b\n" % (topic.encode(), payload) for topic, payload in rows])
    wishes = {
        ">": {topic for topic, _ in rows},
        "t8.x,t499.x,t0.*": {"t8.x", "t499.x", "t0.x"},
        "t250.x": {"t250.x"},
    }

    async def told(subscription: aio.Subscription, patterns: str) -> None:
        found: list[tuple[str, int, bytes]] = []
        most = 0
        async for parts in subscription.parts():
            for part in parts:
                assert isinstance(part, Run)
                most = max(most, len(part.selection.batch.topics))
                found += zip(part.names(), part.offsets(), part.payloads(), strict=True)
        numbered = enumerate(2 * rows, 1)
        assert found == [(topic, at, payload) for at, (topic, payload) in numbered if topic in wishes[patterns]]
        assert most == (500 if patterns == ">" else len(wishes[patterns]))

    async def work() -> None:
        async with await aio.connect(server.address) as client:
            live = {
                patterns: client.subscribe(patterns, limit=2 * sum(topic in names for topic, _ in rows))
                for patterns, names in wishes.items()
            }
            for subscription in live.values():
                await subscription.start()
            for _ in range(2):
                assert (await asyncio.to_thread(server.ask, data)).count(b"\n") == 1500
            for patterns, names in wishes.items():
                await told(live[patterns], patterns)
                await told(client.subscribe(patterns, start=1, until="end"), patterns)
                last = [(one.topic, one.payload) for one in await client.read(patterns, last=1)]
                assert last == [row for row in rows[1000:] if row[0] in names]

    run(work())


@pytest.mark.parametrize("number", range(ROUNDS))
def test_nothing_is_lost_or_doubled_while_the_server_is_killed(server: ServerProcess, number: int) -> None:
    """A publisher that repeats what was not answered, a reader that resumes, a server that dies four times."""
    kept: list[tuple[int, bytes]] = []
    enough = threading.Event()
    # Whoever finds nobody at the first attempt gives up: both are there before the first kill.
    there = threading.Barrier(3)

    def publish() -> None:
        with sync.connect(server.address) as client:
            there.wait(30)
            sent = 0
            while not enough.is_set() or sent < 500:
                payload = b"%d" % sent
                kept.append((client.publish("t", payload, retry=True), payload))
                sent += 1
            client.eof("t", retry=True)

    got: list[Message] = []

    async def subscribe() -> None:
        client = aio.Client(parse_address(server.address))
        subscription = client.subscribe("t", start="first")
        await subscription.start()
        await asyncio.to_thread(there.wait, 30)
        async for batch in subscription.batches():
            got.extend(event for event in batch if isinstance(event, Message))
            if any(isinstance(event, EndOfStream) for event in batch):
                break
        await client.close()

    publisher = threading.Thread(target=publish)
    reader = threading.Thread(target=lambda: asyncio.run(subscribe()))
    for thread in (publisher, reader):
        thread.start()
    there.wait(30)
    for _ in range(4):
        enough.wait(0.15)
        server.kill()
        server.start()
    enough.set()
    for thread in (publisher, reader):
        thread.join(30)
        assert not thread.is_alive()
    offsets = [message.offset for message in got]
    assert offsets == sorted(set(offsets))
    seen = {message.offset: message.payload for message in got}
    assert [(offset, payload) for offset, payload in kept if seen.get(offset) != payload] == []


def test_who_leaves_a_loop_goes_on_behind_its_last_event(server: ServerProcess) -> None:
    with sync.connect(server.address) as busd:
        busd.publish_many("t", [b"1", b"2", b"3"])
        subscription, given = busd.subscribe("t", "first"), 0
        for event in subscription:
            assert isinstance(event, Message)
            given = event.offset
            break
        assert (given, subscription.next) == (1, 4), "all of a record was read"
        with busd.subscribe("t", given + 1) as rest:
            batch = next(rest.batches())
            assert [message.offset for message in batch if isinstance(message, Message)] == [2, 3]
            assert rest.next == 4
