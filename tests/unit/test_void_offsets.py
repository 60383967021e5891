"""Offsets that were refused: what was told of as next before a crash is not given to a message behind it."""

from __future__ import annotations

import pytest

from busd.words.settings import Settings, StoreRule
from busd.world.disk import DiskFailed
from busd.world.inspect import verify
from tests.support.groups import S, say
from tests.support.log_kit import LogKit
from tests.unit.test_group_stores import serve


@pytest.mark.parametrize("then", ["kill", "stop"])
def test_a_group_and_a_reader_get_what_comes_behind_a_refused_one(then: str) -> None:
    kit = LogKit()
    server = serve(kit)
    client, member = server.connect(), server.connect()
    say(client, "PUB t one")
    assert say(member, "SUB t GROUP g")[1:] == ["MSG t 1 one"]
    say(member, "ACK 1")
    member.drop()
    kit.disk.room_bytes = 100
    assert say(client, "PUB t " + "x" * 1000)[0].startswith("-FULL")
    kit.disk.room_bytes = None
    assert say(server.connect(), "SUB t GROUP g") == ["+OK next=2 epoch=1"]
    assert say(client, "READ t FROM 2") == ["END end next=2"]
    if then == "stop":
        kit.stop()
    kit = kit.crash() if then == "kill" else LogKit(kit.settings, kit.disk)
    server = serve(kit)
    client = server.connect()
    assert say(client, "PUB t two") == [":2"]
    assert say(client, "READ t FROM 2")[0] == "MSG t 2 two"
    assert say(server.connect(), "SUB t GROUP g")[1:] == ["MSG t 2 two"]


@pytest.mark.parametrize("then", ["kill", "stop"])
@pytest.mark.parametrize("grouped", [True, False])
def test_behind_a_sync_that_failed_no_offset_comes_that_was_told_of(then: str, grouped: bool) -> None:
    kit = LogKit()
    server = serve(kit)
    client = server.connect()
    say(client, "PUB t one")
    step = kit.disk.step

    def failing(kind: str, path: str) -> None:
        if kind == "sync" and path.endswith(".log") and "main" in path:
            raise DiskFailed("f:0: fdatasync: Input/output error")
        step(kind, path)

    kit.disk.step = failing  # type: ignore[method-assign]
    assert say(client, "PUB t two")[0].startswith("-DISK")
    kit.disk.step = step  # type: ignore[method-assign]
    if grouped:
        member = server.connect()
        say(member, "SUB t GROUP g")
        assert say(member, "ACK 1") == [":1"]
    told = int(say(client, "READ t FROM 1")[-1].rpartition("=")[2])
    if then == "stop":
        kit.stop()
    elif not grouped:
        pytest.skip("what only a reader was told is noted by a stop, not by a kill")
    kit = kit.crash() if then == "kill" else LogKit(kit.settings, kit.disk)
    server = serve(kit)
    client = server.connect()
    (answer,) = say(client, "PUB t three")
    assert int(answer[1:]) >= told == 3
    if grouped:
        assert say(server.connect(), "SUB t GROUP g")[1:] == [f"MSG t {answer[1:]} three"]


def test_a_segment_begun_behind_refused_offsets_holds_what_it_is_named_by() -> None:
    settings = Settings(main=StoreRule(max_age_ns=8 * S))
    kit = LogKit(settings)
    server = serve(kit)
    client = server.connect()
    say(client, "PUB t one")
    kit.disk.room_bytes = 10
    for _ in range(3):
        assert say(client, "PUB t " + "x" * 1000)[0].startswith("-FULL")
    kit.disk.room_bytes = None
    server.advance(3 * S)
    assert sum("/main/" in path and path.endswith(".log") for path in kit.disk.contents()) == 2
    kit = LogKit(settings, kit.disk.copy(), runtime=kit.runtime)
    client = serve(kit).connect()
    assert say(client, "PUB t two", "PUB t three") == [":2", ":3"]
    assert say(client, "READ t LAST 1")[0] == "MSG t 3 three"
    assert say(client, "READ t FROM 2")[:2] == ["MSG t 2 two", "MSG t 3 three"]
    assert [str(one) for one in verify(kit.disk, "busd-data") if one.bad] == []
