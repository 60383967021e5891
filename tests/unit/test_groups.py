"""Groups through sessions in memory: who gets what, what comes back, and in which order."""

from __future__ import annotations

import pytest

from busd.words.errors import BusError
from busd.words.requests import Publish
from tests.support.memory_server import MemoryConnection, MemoryServer

S = 1_000_000_000


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


def say(client: MemoryConnection, *lines: str) -> list[str]:
    """Send lines, and give what came by then."""
    client.send("".join(f"{line}\n" for line in lines).encode())
    return client.received().decode().splitlines()


def heard(client: MemoryConnection) -> list[str]:
    return client.received().decode().splitlines()


def publish(server: MemoryServer, *payloads: str, topic: str = "jobs") -> None:
    client = server.connect()
    said = say(client, *(f"PUB {topic} {payload}" for payload in payloads))
    assert all(line.startswith(":") for line in said), said


def member(server: MemoryServer, options: str = "", pattern: str = "jobs", group: str = "g") -> MemoryConnection:
    client = server.connect()
    said = say(client, f"SUB {pattern} GROUP {group} {options}")
    assert said[0].startswith("+OK"), said
    client.first = said[1:]  # type: ignore[attr-defined]
    return client


def test_a_new_group_starts_at_first_and_gives_one_at_a_time(server: MemoryServer) -> None:
    publish(server, "a", "b", "c")
    worker = server.connect()
    assert say(worker, "SUB jobs GROUP g") == ["+OK next=1 epoch=1", "MSG jobs 1 a"]
    assert say(worker, "ACK 1") == [":1", "MSG jobs 2 b"]
    assert say(worker, "ACK 2", "ACK 2") == [":1", "MSG jobs 3 c", "-STALE n=0 first=2"]


def test_members_share_and_groups_each_get_everything(server: MemoryServer) -> None:
    one, two = member(server, "WINDOW 10"), member(server, "WINDOW 10")
    other = member(server, "WINDOW 10", group="h")
    publish(server, *"abcdef")
    first, second = heard(one), heard(two)
    assert len(first) == len(second) == 3
    assert sorted(first + second) == [f"MSG jobs {n} {c}" for n, c in enumerate("abcdef", 1)]
    assert heard(other) == [f"MSG jobs {n} {c}" for n, c in enumerate("abcdef", 1)]


def test_a_lost_member_gives_back_at_once_in_order_as_second_delivery(server: MemoryServer) -> None:
    publish(server, *"abcd")
    one = member(server, "WINDOW 3")
    two = member(server, "WINDOW 9")
    assert heard(two) == []
    one.drop()
    server.runtime.run()
    assert heard(two) == ["MSG jobs 1.2 a", "MSG jobs 2.2 b", "MSG jobs 3.2 c"]
    assert say(two, "ACK 1", "ACK 1.2", "ACK ..3.2") == ["-STALE n=0 first=1", ":1", ":3"]


def test_late_redelivery_is_not_settled_by_what_was_sent_before_it(server: MemoryServer) -> None:
    publish(server, *"abc")
    worker = member(server, "WINDOW 3 WAIT 10s")
    say(worker, "TOUCH 3")
    server.runtime.advance(5 * S)
    say(worker, "TOUCH 3", "TOUCH 2")
    server.runtime.advance(6 * S)
    assert heard(worker) == ["MSG jobs 1.2 a"]
    assert say(worker, "ACK ..3") == [":2"]
    assert say(worker, "ACK 1.2") == [":1"]


def test_nack_backs_off_by_the_number_of_tries_unless_told_a_delay(server: MemoryServer) -> None:
    publish(server, "a")
    worker = member(server)
    assert say(worker, "NACK 1 no luck") == ["+OK"]
    server.runtime.advance(S - 1)
    assert heard(worker) == []
    server.runtime.advance(1)
    assert heard(worker) == ["MSG jobs 1.2 a"]
    assert say(worker, "NACK 1", "NACK 1.2") == ["-STALE n=0 first=1", "+OK"]
    server.runtime.advance(2 * S)
    assert heard(worker) == ["MSG jobs 1.3 a"]
    assert say(worker, "NACK 1.3 DELAY 0s") == ["MSG jobs 1.4 a", "+OK"]
    assert say(worker, "NACK 1.4 DELAY 1h") == ["+OK"]
    server.runtime.advance(3600 * S)
    assert heard(worker) == ["MSG jobs 1.5 a"]


def test_a_time_out_is_a_further_try_for_another_member(server: MemoryServer) -> None:
    publish(server, "a")
    slow, quick = member(server, "WAIT 5s"), member(server, "WAIT 5s")
    server.runtime.advance(5 * S)
    assert heard(quick) == ["MSG jobs 1.2 a"]
    assert say(slow, "ACK 1") == ["-STALE n=0 first=1"]
    assert say(quick, "ACK 1.2") == [":1"]


def test_touch_gives_more_time(server: MemoryServer) -> None:
    publish(server, "a")
    worker = member(server, "WAIT 5s")
    for _ in range(5):
        server.runtime.advance(4 * S)
        assert say(worker, "TOUCH 1") == ["+OK"]
    assert say(worker, "ACK 1", "TOUCH 1") == [":1", "-STALE n=0 first=1"]


def test_dead_letter_after_tries_with_reason_and_tags(server: MemoryServer) -> None:
    say(server.connect(), "HPUB jobs colour=red ttl=5m :a")
    worker = member(server, "TRIES 2")
    say(worker, "NACK 1 DELAY 0s first")
    assert say(worker, "NACK 1.2 DELAY 0s broken pipe") == ["+OK"]
    reader = server.connect()
    found = say(reader, "READ _dead.> FORMAT json")
    assert '"topic":"_dead.g.jobs"' in found[0]
    headers = '{"id":"g:1","group":"g","tries":"2","reason":"broken pipe","offset":"1","colour":"red"}'
    assert headers in found[0]
    assert '"payload":"a"' in found[0]
    assert say(reader, "GROUPS")[1].startswith("g patterns=jobs members=1 in_flight=0 delayed=0 settled=2 next=2 lag=0")


def test_a_dead_letter_that_is_refused_is_tried_again(server: MemoryServer) -> None:
    publish(server, "a")
    worker = member(server, "TRIES 1")
    server.log.refuse = BusError("FULL", "no room")
    say(worker, "NACK 1")
    server.runtime.advance(3 * S)
    assert server.log.groups[b"g"].unsettled.count == 1
    server.log.refuse = None
    server.runtime.advance(S)
    assert server.log.groups[b"g"].unsettled.count == 0
    assert len(say(server.connect(), "READ _dead.>")) == 2


def test_tries_on_dead_letters_are_refused(server: MemoryServer) -> None:
    assert say(server.connect(), "SUB _dead.> GROUP d TRIES 3")[0].startswith("-ARG ")


def test_one_message_of_a_key_is_out_while_other_keys_go_on(server: MemoryServer) -> None:
    client = server.connect()
    say(client, "HPUB jobs key=x :1", "HPUB jobs key=x :2", "HPUB jobs key=y :3", "PUB jobs 4", "HPUB jobs key=x :5")
    worker = member(server, "WINDOW 10")
    assert worker.first == ["MSG jobs 1 1", "MSG jobs 3 3", "MSG jobs 4 4"]  # type: ignore[attr-defined]
    assert say(worker, "NACK 1 DELAY 1s") == ["+OK"]
    server.runtime.advance(S)
    assert heard(worker) == ["MSG jobs 1.2 1"]
    assert say(worker, "ACK 1.2") == [":1", "MSG jobs 2 2"]
    assert say(worker, "ACK 2") == [":1", "MSG jobs 5 5"]


def test_a_dead_letter_frees_its_key(server: MemoryServer) -> None:
    say(server.connect(), "HPUB jobs key=x :1", "HPUB jobs key=x :2")
    worker = member(server, "WINDOW 10 TRIES 1")
    assert sorted(say(worker, "NACK 1")) == ["+OK", "MSG jobs 2 2"]


def test_delay_and_ttl_by_the_clock_of_the_server(server: MemoryServer) -> None:
    say(server.connect(), "HPUB jobs delay=10s :later", "HPUB jobs ttl=5s :soon", "PUB jobs now")
    worker = member(server)
    assert worker.first == ["MSG jobs 2 soon"]  # type: ignore[attr-defined]
    say(worker, "NACK 2 DELAY 20s")
    assert heard(worker) == []
    server.runtime.advance(10 * S)
    say(worker, "ACK 3")
    server.runtime.advance(10 * S)
    assert heard(worker) == []
    assert say(server.connect(), "GROUPS")[1].split()[-4:-2] == ["dead=0", "expired=1"]


def test_end_of_stream_reaches_every_member_when_all_before_it_is_settled(server: MemoryServer) -> None:
    publish(server, "a", "b")
    one, two = member(server), member(server)
    say(server.connect(), "EOF jobs")
    assert say(one, "ACK 1") == [":1"]
    assert heard(two) == []
    assert say(two, "ACK 2") == [":1", "EOF jobs 3"]
    assert heard(one) == ["EOF jobs 3"]
    late = member(server)
    assert late.first == ["EOF jobs 3"]  # type: ignore[attr-defined]
    publish(server, "c")
    assert heard(one) + heard(two) + heard(late) == ["MSG jobs 4 c"]
    assert member(server).first == []  # type: ignore[attr-defined]


def test_reset_removes_what_waits_and_is_told(server: MemoryServer) -> None:
    publish(server, "a", "b", "c")
    worker = member(server)
    other = server.connect()
    assert say(other, "RESET jobs") == [":3"]
    publish(server, "d")
    assert say(worker, "ACK 1") == [":1", "RESET jobs 4 3", "MSG jobs 5 d"]
    assert say(worker, "NACK 5 DELAY 0s") == ["MSG jobs 5.2 d", "+OK"]
    say(other, "RESET jobs")
    assert say(worker, "NACK 5.2 DELAY 0s") == ["RESET jobs 6 1", "+OK"]
    assert server.log.groups[b"g"].unsettled.count == 0


def test_loss_before_the_group_got_it_is_named(server: MemoryServer) -> None:
    publish(server, "a")
    publish(server, "b")
    publish(server, "c")
    server.log.trim(3)
    worker = server.connect()
    assert say(worker, "SUB jobs GROUP g FROM 1") == ["+OK next=1 epoch=1", "GAP jobs 1 2 2 trimmed", "MSG jobs 3 c"]


def test_loss_of_what_was_out_is_named_and_settled(server: MemoryServer) -> None:
    publish(server, "a")
    publish(server, "b")
    worker = member(server, "WINDOW 2")
    server.log.trim(2)
    assert say(worker, "NACK 1 DELAY 0s", "ACK 2") == ["GAP jobs 1 1 1 trimmed", "+OK", ":1"]
    assert server.log.groups[b"g"].settled == 3


def test_seek_moves_and_makes_tokens_stale(server: MemoryServer) -> None:
    publish(server, "a", "b", "c")
    worker = member(server, "WINDOW 2")
    other = server.connect()
    assert say(other, "SEEK g 3") == ["+OK next=3"]
    assert heard(worker) == ["MSG jobs 3 c"]
    assert say(worker, "ACK 1", "ACK 3") == ["-STALE n=0 first=1", ":1"]
    assert say(other, "SEEK g first") == ["+OK next=1"]
    assert heard(worker) == ["MSG jobs 1 a", "MSG jobs 2 b"]
    assert say(other, "SEEK h 1", "SEEK g 99") == [
        "-GROUP there is no group h; GROUPS lists them",
        "-POS 99 is beyond the end; the next offset is 4",
    ]


def test_forget_waits_for_the_members_to_leave(server: MemoryServer) -> None:
    publish(server, "a")
    worker = member(server)
    other = server.connect()
    assert say(other, "FORGET g") == ["-GROUP g has 1 member; they have to leave first"]
    assert say(worker, "UNSUB") == ["+OK"]
    assert say(other, "FORGET g", "FORGET g", "GROUPS") == [
        "+OK",
        "-GROUP there is no group g; GROUPS lists them",
        "*0",
    ]
    assert member(server).first == ["MSG jobs 1 a"]  # type: ignore[attr-defined]


def test_patterns_and_tries_are_the_groups_own(server: MemoryServer) -> None:
    member(server, "TRIES 3", pattern="jobs.>")
    client = server.connect()
    assert say(client, "SUB jobs.a GROUP g") == ["-GROUP g reads jobs.>"]
    assert say(client, "SUB jobs.> GROUP g TRIES 4") == ["-GROUP g has TRIES 3, since it was made"]
    assert say(client, "SUB jobs.> GROUP g") == ["+OK next=1 epoch=1"]


def test_limit_ends_when_all_it_gave_is_settled(server: MemoryServer) -> None:
    publish(server, "a", "b", "c")
    worker = member(server, "LIMIT 2 WINDOW 5")
    assert worker.first == ["MSG jobs 1 a", "MSG jobs 2 b"]  # type: ignore[attr-defined]
    assert say(worker, "ACK 2") == [":1"]
    assert say(worker, "ACK 1") == [":1", "END limit next=3"]
    assert say(worker, "SUB jobs GROUP g")[1] == "MSG jobs 3 c"


def test_within_ends_when_nothing_is_out(server: MemoryServer) -> None:
    idle = member(server, "WITHIN 5s")
    publish(server, "a")
    assert heard(idle) == ["MSG jobs 1 a"]
    server.runtime.advance(5 * S)
    publish(server, "b")
    assert heard(idle) == []
    assert say(idle, "ACK 1") == [":1", "END time next=2"]


def test_unsub_and_half_close_give_back_at_once(server: MemoryServer) -> None:
    publish(server, "a", "b")
    one = member(server)
    two = member(server)
    assert say(one, "UNSUB", "ACK 1") == [
        "+OK",
        "-GROUP this connection is in no group; SUB … GROUP g joins one",
    ]
    two.end_of_input()
    assert two.closed
    three = member(server, "WINDOW 5")
    assert three.first == ["MSG jobs 1.2 a", "MSG jobs 2.2 b"]  # type: ignore[attr-defined]


def test_acknowledgements_are_pipelined_and_answered_in_order(server: MemoryServer) -> None:
    publish(server, *"abcdef")
    worker = member(server, "WINDOW 6")
    server.log.hold = True
    assert say(worker, "ACK 1", "ACK 9", "ACK 2 3 3", "PING") == []
    server.log.commit()
    server.runtime.run()
    assert heard(worker) == [":1", "-STALE n=0 first=9", "-STALE n=2 first=3", "PONG"]


def test_an_acknowledgement_that_could_not_be_kept_gives_it_out_again(server: MemoryServer) -> None:
    publish(server, "a")
    worker = member(server)
    server.log.hold = True
    say(worker, "ACK 1")
    server.log.commit(BusError("DISK", "it failed"))
    server.runtime.run()
    assert heard(worker) == ["-DISK it failed", "MSG jobs 1.2 a"]


def test_a_second_start_marks_what_was_out_and_repeats_nothing_settled() -> None:
    first = MemoryServer()
    publish(first, *"abcd")
    worker = member(first, "WINDOW 3")
    say(worker, "ACK 2")
    second = MemoryServer(log=first.log)
    again = member(second, "WINDOW 9")
    assert again.first == ["MSG jobs 1.2 a", "MSG jobs 3.2 c", "MSG jobs 4.2 d"]  # type: ignore[attr-defined]


def test_a_message_that_died_in_a_stop_gets_one_dead_letter() -> None:
    first = MemoryServer()
    publish(first, "a", "b")
    worker = member(first, "WINDOW 2 TRIES 1")
    first.log.append(Publish(b"_dead.g.jobs", [[b"a", b"id", b"g:1"]], 1, headers=True), lambda outcome: None)
    assert len(worker.first) == 2  # type: ignore[attr-defined]
    second = MemoryServer(log=first.log)
    member(second)
    second.runtime.run()
    dead = say(second.connect(), "READ _dead.>")
    assert [line.split()[:3] for line in dead[:-1]] == [["MSG", "_dead.g.jobs", "3"], ["MSG", "_dead.g.jobs", "4"]]
    assert second.log.groups[b"g"].unsettled.count == 0


def test_formats_of_further_deliveries(server: MemoryServer) -> None:
    publish(server, "a")
    worker = member(server, "FORMAT json")
    assert '"offset":1,' in worker.first[0]  # type: ignore[attr-defined]
    found = say(worker, "NACK 1 DELAY 0s")
    assert '"offset":1,"token":"1.2","try":2' in found[0]


def test_a_reader_that_only_listens_disturbs_nobody(server: MemoryServer) -> None:
    eavesdropper = server.connect()
    say(eavesdropper, "SUB jobs")
    worker = member(server)
    publish(server, "a", "b")
    assert heard(eavesdropper) == ["MSG jobs 1 a", "MSG jobs 2 b"]
    assert heard(worker) == ["MSG jobs 1 a"]
    assert say(worker, "ACK 1") == [":1", "MSG jobs 2 b"]


def test_read_of_a_group_shows_what_it_has_not_settled_and_takes_nothing(server: MemoryServer) -> None:
    publish(server, *"abcde")
    worker = member(server, "WINDOW 4")
    say(worker, "ACK 1", "ACK 3", "UNSUB")
    reader = server.connect()
    left = ["MSG jobs 2 b", "MSG jobs 4 d", "MSG jobs 5 e", "END end next=6"]
    assert say(reader, "READ jobs GROUP g") == left
    assert say(reader, "READ jobs GROUP g FROM 3 LIMIT 1") == ["MSG jobs 4 d", "END limit next=5"]
    assert say(reader, "READ jobs GROUP nobody") == ["-GROUP there is no group nobody; GROUPS lists them"]
    assert say(reader, "READ jobs GROUP g") == left


def test_a_fault_of_the_log_ends_the_members_and_loses_nothing(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, "a", "b")
    worker = member(server)
    faults: list[Exception] = []
    monkeypatch.setattr(server.runtime, "fault", faults.append)

    def fail(*args: object) -> None:
        raise OSError("the file is gone")

    with monkeypatch.context() as patch:
        patch.setattr(server.log, "read", fail)
        assert say(worker, "NACK 1 DELAY 0s")[0].startswith("-INTERNAL ")
        assert worker.closed
        assert len(faults) == 1
    assert member(server, "WINDOW 5").first == ["MSG jobs 1.2 a", "MSG jobs 2 b"]  # type: ignore[attr-defined]
