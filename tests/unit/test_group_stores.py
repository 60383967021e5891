"""Groups over a whole log on a disk in memory: several stores, long stretches of which nothing is left."""

from __future__ import annotations

import gc
from typing import Literal, cast

import pytest

from busd.words.settings import Settings, StoreRule
from busd.world import meta
from busd.world.store import Cursor
from tests.support.fake_log import FakeLog
from tests.support.groups import S, say
from tests.support.log_kit import LogKit
from tests.support.memory_server import MemoryConnection, MemoryServer

METRICS = StoreRule("metrics", (b"metrics",), segment_bytes=4096, max_bytes=8192)
COUNT = 60
JOBS = [*range(2, COUNT + 1, 2)]


def serve(kit: LogKit) -> MemoryServer:
    """A server over the log, its upkeep included."""
    server = MemoryServer(log=cast(FakeLog, kit.log), runtime=kit.runtime)
    kit.log.start()
    kit.runtime.advance(S)
    return server


def trimmed_kit(retain: Literal["limits", "acked"]) -> LogKit:
    """By turns a metric, which its cap removes, and a job, which nothing does."""
    kit = LogKit(Settings(main=StoreRule(segment_bytes=4096, retain=retain), stores=(METRICS,)))
    for number in range(1, COUNT + 1):
        kit.publish(b"jobs" if number % 2 == 0 else b"metrics", b"%d" % number + b"." * 1000)
    return kit


def join(server: MemoryServer) -> tuple[MemoryConnection, list[str]]:
    client = server.connect()
    said = say(client, "SUB jobs,metrics GROUP g FROM 1")
    assert said[0].startswith("+OK")
    return client, said[1:]


@pytest.mark.parametrize("retain", ["limits", "acked"])
@pytest.mark.parametrize("then", ["joins again", "kill", "stop"])
def test_every_job_comes_though_metrics_around_it_are_gone(retain: Literal["limits", "acked"], then: str) -> None:
    kit = trimmed_kit(retain)
    server = serve(kit)
    seen: list[int] = []
    lost: list[str] = []
    while server.log.groups.get(b"g") is None or server.log.groups[b"g"].settled <= COUNT:
        client, said = join(server)
        # Three at a time, then the member is gone, and what has been settled may go from the log.
        for _ in range(3):
            lost += [line for line in said if line.startswith("GAP ")]
            given = [line.split()[2] for line in said if line.startswith("MSG ")]
            if not given:
                break
            seen.append(int(given[0].split(".")[0]))
            said = say(client, f"ACK {given[0]}")
        client.drop()
        kit.runtime.advance(3 * S)
        if then != "joins again":
            if then == "stop":
                kit.stop()
            kit = kit.crash()
            server = serve(kit)
        assert len(seen) < 2 * COUNT, "it comes to an end"
    kept = [offset for offset in range(1, COUNT + 1) if offset in seen]
    assert [offset for offset in kept if offset % 2 == 0] == JOBS
    metrics = [offset for offset in kept if offset % 2]
    assert 0 < len(metrics) < 10
    assert metrics[-1] == COUNT - 1
    # All that is gone is named, and how much of it the first time.
    first, last, count = lost[0].split()[2:5]
    assert (int(first), int(last), int(count)) == (1, metrics[0] - 2, COUNT // 2 - len(metrics))
    if then == "joins again":
        assert len(lost) == 1
    assert all(line.split()[4] == "?" for line in lost[1:])


def test_what_a_reset_left_on_the_disk_keeps_nobody_from_what_came_after_it() -> None:
    kit = LogKit()
    for _ in range(20):
        kit.publish(b"jobs", b"." * 60_000)
    kit.reset(b"jobs")
    kit.publish(b"jobs", b"new")
    server = serve(kit)
    client = server.connect()
    assert say(client, "SUB jobs GROUP g FROM 1") == ["+OK next=1 epoch=1", "RESET jobs 21 20", "MSG jobs 22 new"]


@pytest.mark.parametrize("then", ["goes on", "stop"])
@pytest.mark.parametrize("size", [100, 20_000, 100_000])
def test_what_comes_again_is_found_behind_what_another_store_ends_with(size: int, then: str) -> None:
    rule = StoreRule("{topic}", (b"jobs.>",))
    kit = LogKit(Settings(stores=(rule,)))
    kit.publish(b"a", b"." * size)
    kit.publish(b"jobs.b", b"2")
    server = serve(kit)
    client = server.connect()
    assert len(say(client, "SUB a,jobs.> GROUP g FROM 1 WINDOW 10")) == 3
    assert say(client, "ACK 1") == [":1"]
    if then == "stop":
        # What a stop leaves at the end of each store is read over, too.
        kit.stop()
        client = serve(kit.crash()).connect()
        assert say(client, "SUB a,jobs.> GROUP g WINDOW 10")[1:] == ["MSG jobs.b 2.2 2"]
    else:
        assert sorted(say(client, "NACK 2 DELAY 0s")) == ["+OK", "MSG jobs.b 2.2 2"]


@pytest.mark.parametrize("how", ["SUB t FROM 1", "SUB t GROUP g FROM 1 WINDOW 1000"])
def test_who_has_caught_up_keeps_no_segment(how: str) -> None:
    """Else what retention deletes would keep its space and its descriptor for as long as there is a reader."""
    kit = LogKit()
    for _ in range(20):
        kit.publish(b"t", b"." * 100)
    server = serve(kit)
    client = server.connect()
    assert len(say(client, how)) == 21
    kit.publish(b"t", b"live")
    assert client.received().endswith(b" live\n")
    segments = kit.log.stores.open["main"]._shelf.segments
    assert [one for one in gc.get_objects() if isinstance(one, Cursor) and one._segment in segments] == []


@pytest.mark.parametrize("together", [False, True])
def test_an_acknowledgement_right_behind_a_seek_settles_what_comes_again(together: bool) -> None:
    kit = LogKit()
    for number in range(1, 6):
        kit.publish(b"jobs", b"%d" % number)
    server = serve(kit)
    worker, other = server.connect(), server.connect()
    assert len(say(worker, "SUB jobs GROUP g FROM 1 WINDOW 5")) == 6
    kit.committer.hold = True
    if together:
        # Both wait for the commit behind this one, and share it.
        assert say(server.connect(), "PUB other x") == []
    assert say(other, "SEEK g 1") == []
    assert say(worker, "ACK 1 2 3") == []
    kit.committer.hold = False
    kit.settle()
    assert worker.received().splitlines()[-1] == b":3"
    assert "in_flight=2 " in say(other, "GROUPS")[-1]
    # The file says the same: the lines of both stood before those of what the SEEK gave out anew.
    assert list(kit.crash().log.groups[b"g"].unsettled) == list(kit.log.groups[b"g"].unsettled) == [(4, 5, 1)]
    assert sorted(say(worker, "NACK 1 DELAY 0s", "ACK 4 5")) == ["-STALE n=0 first=1", ":2"]
    assert " lag=0 " in say(other, "GROUPS")[-1]


def test_what_comes_back_is_found_though_another_store_ends_in_a_long_record() -> None:
    kit = LogKit(Settings(stores=(StoreRule("jobs", (b"jobs",)),)))
    kit.publish(b"a", b"." * 20_000)
    kit.publish(b"jobs", b"2", b"3")
    client = serve(kit).connect()
    assert len(say(client, "SUB a,jobs GROUP g WINDOW 10")) == 4
    assert say(client, "ACK 1 2") == [":2"]
    assert say(client, "NACK 3 DELAY 0s") == ["+OK", "MSG jobs 3.2 3"]


def test_a_loss_within_the_offsets_of_another_stores_batch_is_named() -> None:
    """One commit makes 2 and 4 in one store and 3 in another, of which 3 then goes."""
    kit = LogKit(Settings(stores=(StoreRule("jobs", (b"jobs",), segment_bytes=4096, retain="acked"),)))
    server = serve(kit)
    client = server.connect()
    say(client, "PUB jobs 1")
    say(client, "PUB a 2", "PUB jobs " + "x" * 3000, "PUB a 4")
    say(client, *["PUB jobs y" + "." * 900] * 6)
    member = server.connect()
    say(member, "SUB jobs GROUP g WINDOW 100")
    say(member, "ACK 3")
    server.advance(5 * S)
    loss = ["MSG jobs 1 1", "MSG a 2 2", "GAP a,jobs 3 3 1 trimmed", "MSG a 4 4"]
    assert say(client, "READ a,jobs FROM 1")[:4] == loss
    assert say(server.connect(), "SUB a,jobs GROUP h WINDOW 100 FROM 1")[1:5] == loss


def test_a_loss_of_several_stores_is_told_to_a_group_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meta, "FLOOR_STEP", 24)
    settings = Settings(sync="never", stores=(StoreRule("jobs", (b"jobs",)),))
    kit = LogKit(settings)
    assert say(serve(kit).connect(), "PUB a 1", "PUB jobs 2", "PUB a 3", "PUB jobs 4")[-1] == ":4"
    kit = LogKit(settings, kit.disk.crash(99, "lost"), "boot-2")
    server = serve(kit)
    client = server.connect()
    assert say(client, "PUB a 1", "PUB jobs 2") == [":25", ":26"]
    told = ["GAP a,jobs 1 24 ? unsynced", "MSG a 25 1", "MSG jobs 26 2"]
    assert say(server.connect(), "SUB a,jobs GROUP h WINDOW 100 FROM 1")[1:] == told
