"""A desk: what it gives to whom, what comes back, and in which order."""

from __future__ import annotations

import pytest

from busd.words.errors import BusError
from busd.words.settings import Limits
from tests.support.groups import S, heard, member, publish, say
from tests.support.memory_server import MemoryServer


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


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


def test_one_message_of_a_key_is_out_while_other_keys_go_on(server: MemoryServer) -> None:
    client = server.connect()
    say(client, "HPUB jobs key=x :1", "HPUB jobs key=x :2", "HPUB jobs key=y :3", "PUB jobs 4", "HPUB jobs key=x :5")
    worker = member(server, "WINDOW 10")
    assert worker.first == ["MSG jobs 1 1", "MSG jobs 3 3", "MSG jobs 4 4"]
    assert say(worker, "NACK 1 DELAY 1s") == ["+OK"]
    server.runtime.advance(S)
    assert heard(worker) == ["MSG jobs 1.2 1"]
    assert say(worker, "ACK 1.2") == [":1", "MSG jobs 2 2"]
    assert say(worker, "ACK 2") == [":1", "MSG jobs 5 5"]


def test_delay_and_ttl_by_the_clock_of_the_server(server: MemoryServer) -> None:
    say(server.connect(), "HPUB jobs delay=10s :later", "HPUB jobs ttl=5s :soon", "PUB jobs now")
    worker = member(server)
    assert worker.first == ["MSG jobs 2 soon"]
    say(worker, "NACK 2 DELAY 20s")
    assert heard(worker) == []
    server.runtime.advance(10 * S)
    say(worker, "ACK 3")
    server.runtime.advance(10 * S)
    assert heard(worker) == []
    assert say(server.connect(), "GROUPS")[1].split()[-4:-2] == ["dead=0", "expired=1"]


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
    assert member(server, "WINDOW 5").first == ["MSG jobs 1.2 a", "MSG jobs 2 b"]


def test_a_group_at_its_limit_goes_on_when_acknowledgements_are_kept() -> None:
    server = MemoryServer(limits=Limits(in_flight=2))
    publish(server, *"abcd")
    worker = member(server, "WINDOW 2")
    server.log.hold = True
    assert say(worker, "ACK ..2") == []
    server.log.commit()
    assert heard(worker) == [":2", "MSG jobs 3 c", "MSG jobs 4 d"]


def test_a_hand_out_is_no_larger_than_the_limit_of_a_group_leaves() -> None:
    server = MemoryServer(limits=Limits(in_flight=5))
    publish(server, *"abcdefghij")
    one = member(server, "WINDOW 4")
    two = member(server, "WINDOW 4")
    assert (len(one.first), len(two.first)) == (4, 1)
    assert server.log.groups[b"g"].unsettled.count == 5
    assert say(one, "ACK 1") == [":1"]
    assert heard(two) == ["MSG jobs 6 f"]
    one.drop()
    server.runtime.run()
    # What comes back is among the five already.
    assert heard(two) == ["MSG jobs 2.2 b", "MSG jobs 3.2 c"]


def test_what_is_given_out_while_notes_wait_counts_for_the_limit_of_a_group() -> None:
    server = MemoryServer(limits=Limits(in_flight=5))
    say(member(server), "UNSUB")
    publish(server, *"abcdefghij")
    server.log.hold = True
    # It makes a group, which no note may pass.
    say(server.connect(), "SUB other GROUP h")
    workers = [server.connect() for _ in range(3)]
    for worker in workers:
        worker.send(b"SUB jobs GROUP g WINDOW 4\n")
    server.log.commit()
    given = [len(heard(worker)) - 1 for worker in workers]
    assert given == [4, 1, 0]
    assert server.log.groups[b"g"].unsettled.count == 5
    server.log.hold = False
    said = [*say(workers[0], "ACK ..4"), *heard(workers[1]), *heard(workers[2])]
    assert sorted(said) == [":4", "MSG jobs 6 f", "MSG jobs 7 g", "MSG jobs 8 h", "MSG jobs 9 i"]


def test_what_is_delayed_while_notes_wait_counts_for_the_limit_of_a_group() -> None:
    server = MemoryServer(limits=Limits(in_flight=5))
    say(member(server), "UNSUB")
    say(server.connect(), *(f"HPUB jobs delay=1h :{n}" for n in range(10)))
    server.log.hold = True
    say(server.connect(), "SUB other GROUP h")
    for _ in range(3):
        server.connect().send(b"SUB jobs GROUP g\n")
    server.log.commit()
    assert server.log.groups[b"g"].unsettled.count == 5


def test_an_ack_that_fails_after_a_seek_brings_nothing_twice(server: MemoryServer) -> None:
    publish(server, "a", "b")
    worker = member(server, "WINDOW 2")
    log = server.log
    log.hold = True
    say(server.connect(), "SEEK g 1")
    seek, log._settling = log._settling, []
    say(worker, "ACK 1")
    ack, log._settling = log._settling, seek
    log.commit()
    log._settling = ack
    log.commit(BusError("FULL", "no room"))
    assert heard(worker) == ["MSG jobs 1 a", "MSG jobs 2 b", "-FULL no room"]
    log.hold = False
    assert say(worker, "ACK 1 2") == [":2"]
    assert not log.groups[b"g"].unsettled


def test_a_key_keeps_its_order_when_an_acknowledgement_could_not_be_kept(server: MemoryServer) -> None:
    say(server.connect(), *(f"HPUB jobs key=k :{n}" for n in (1, 2, 3)))
    worker = member(server, "WINDOW 9")
    server.log.hold = True
    assert say(worker, "ACK 1") == ["MSG jobs 2 2"]
    server.log.commit(BusError("FULL", "no room"))
    server.log.hold = False
    assert heard(worker) == ["-FULL no room"]
    assert sorted(say(worker, "ACK 2")) == [":1", "MSG jobs 1.2 1"]
    assert sorted(say(worker, "ACK 1.2")) == [":1", "MSG jobs 3 3"]


def test_a_restart_ends_the_delay_of_what_was_given_back_and_not_that_of_a_header(server: MemoryServer) -> None:
    say(server.connect(), "PUB jobs a", "HPUB jobs delay=1h :later")
    worker = member(server, "WINDOW 9")
    say(worker, "NACK 1 DELAY 1h")
    again = MemoryServer(log=server.log)
    assert member(again, "WINDOW 9").first == ["MSG jobs 1.2 a"]


def test_what_waits_for_its_key_goes_in_order_whenever_it_came_to_wait(server: MemoryServer) -> None:
    say(server.connect(), *(f"HPUB jobs key=k {option}:{n}" for n, option in enumerate(("", "", "delay=1s ", ""), 1)))
    worker = member(server, "WINDOW 9")
    assert worker.first == ["MSG jobs 1 1"]
    server.advance(5 * S)
    assert heard(worker) == []
    for n in (1, 2, 3):
        assert sorted(say(worker, f"ACK {n}")) == [":1", f"MSG jobs {n + 1} {n + 1}"]


@pytest.mark.parametrize("gone", ["by its age", "by a RESET"])
def test_a_group_at_its_limit_goes_on_when_what_came_back_is_not_to_be_given_out(gone: str) -> None:
    server = MemoryServer(limits=Limits(in_flight=2))
    say(server.connect(), *["HPUB jobs.a ttl=1s :old"] * 2, "PUB jobs.b new", "PUB jobs.b newer")
    first = member(server, "WINDOW 2", "jobs.>")
    assert len(first.first) == 2
    first.drop()
    server.runtime.run()
    if gone == "by its age":
        server.advance(2 * S)
    else:
        say(server.connect(), "RESET jobs.a")
    second = member(server, "WINDOW 2", "jobs.>")
    server.runtime.run()
    assert [line for line in [*second.first, *heard(second)] if line.startswith("MSG")] == [
        "MSG jobs.b 3 new",
        "MSG jobs.b 4 newer",
    ]


def test_what_is_delayed_counts_for_the_limit_of_a_group() -> None:
    server = MemoryServer(limits=Limits(in_flight=2))
    say(server.connect(), "HPUB jobs delay=10s :1", "HPUB jobs delay=10s :2", "PUB jobs 3")
    worker = member(server, "WINDOW 2")
    assert worker.first == []
    server.advance(10 * S)
    assert heard(worker) == ["MSG jobs 1 1", "MSG jobs 2 2"]
    assert sorted(say(worker, "ACK 1 2")) == [":2", "MSG jobs 3 3"]


def test_many_that_are_delayed_do_not_take_a_whole_turn() -> None:
    server = MemoryServer(limits=Limits(in_flight=2_500))
    client = server.connect()
    client.send(b"".join(b"HPUB jobs delay=1h :%d\n" % n for n in range(4_000)))
    client.received()
    worker = server.connect()
    server.runtime.soon(lambda: worker.session.received(b"SUB jobs GROUP g\n", 0))
    server.runtime.turn()
    assert server.log.groups[b"g"].unsettled.count <= 1_000
    server.runtime.run()
    assert server.log.groups[b"g"].unsettled.count == 2_500


def test_little_room_in_a_large_window_waits_a_moment_for_more(server: MemoryServer) -> None:
    """Else whoever acknowledges piece by piece would be given ever smaller pieces."""
    publish(server, *"abcdefghijklmnopqrstuvwxyz")
    worker = member(server, "WINDOW 16")
    assert len(heard(worker)) == 0
    assert say(worker, "ACK 1", "ACK 2") == [":1", ":1"]
    assert say(worker, "ACK 3") == [":1"]
    # A quarter of it is free.
    assert set(say(worker, "ACK 4")) == {"MSG jobs 17 q", "MSG jobs 18 r", "MSG jobs 19 s", "MSG jobs 20 t", ":1"}
    assert say(worker, "ACK 5") == [":1"]
    server.runtime.advance(999_999)
    assert heard(worker) == []
    server.runtime.advance(1)
    assert heard(worker) == ["MSG jobs 21 u"]
    # Who has nothing out waits for nothing.
    assert set(say(worker, "ACK ..21")) == {f"MSG jobs {22 + at} {'vwxyz'[at]}" for at in range(5)} | {":16"}


def test_long_stretches_without_a_message_for_the_group_are_passed(server: MemoryServer) -> None:
    """Each piece that is read at once holds nothing of it, and nobody is there to ask for the next."""
    for _ in range(20):
        publish(server, "x", topic="other")
    publish(server, "a")
    worker = server.connect()
    assert say(worker, "SUB jobs GROUP g FROM 1") == ["+OK next=1 epoch=1", "MSG jobs 21 a"]
    for _ in range(20):
        publish(server, "x", topic="other")
    publish(server, "b")
    assert say(worker, "ACK 21") == [":1", "MSG jobs 42 b"]


def test_a_turn_reads_one_piece_that_has_nothing_for_the_group(server: MemoryServer) -> None:
    for _ in range(20):
        publish(server, "x", topic="other")
    worker = server.connect()
    worker.session.received(b"SUB jobs GROUP g FROM 1\n", 0)
    breaths = server.runtime.breaths
    assert server.runtime.turn()
    assert server.runtime.breaths == breaths + 1
    server.runtime.run()
    assert server.runtime.breaths == 10
    assert server.log.groups[b"g"].next == 21
