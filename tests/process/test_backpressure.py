"""Publishers that are held back, over sockets: by messages, by bytes, over a kill; and what they may not hold up."""

from __future__ import annotations

import socket
import time

import pytest

from tests.conftest import MakeServer
from tests.support.server import ServerProcess, read_lines

# Long enough for a slow machine, and each wait ends as soon as it can.
WAIT_S = 20.0


def rule(**options: object) -> str:
    """A store `jobs` for jobs.>, as TOML."""
    lines = [f"{name} = {value!r}".replace("'", '"') for name, value in options.items()]
    return "\n".join(["[[store]]", 'match = "jobs.>"', 'name = "jobs"', *lines, ""])


ONE = rule(retain="acked", full="block", max_messages=1, full_wait="20s")


def silent(connection: socket.socket, seconds: float = 0.2) -> bool:
    """True when nothing comes."""
    connection.settimeout(seconds)
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(WAIT_S)


def member(server: ServerProcess, options: bytes = b"") -> socket.socket:
    """A connection in the group g."""
    worker = server.connect()
    worker.sendall(b"SUB jobs.> GROUP g" + options + b"\n")
    assert read_lines(worker, 1)[0].startswith(b"+OK ")
    return worker


def ask(server: ServerProcess, command: bytes) -> bytes:
    """The one line that a command is answered with."""
    return server.ask(command + b"\n").rstrip(b"\n")


def test_depth_one_a_pipelined_producer_gets_on_as_a_consumer_acknowledges(make_configured: MakeServer) -> None:
    server = make_configured('sync = "never"\n' + ONE)
    count = 1000
    with member(server) as worker, server.connect() as producer:
        producer.sendall(b"".join(b"PUB jobs.a %d\n" % number for number in range(count)))
        # Between its first and its last line the worker takes one at a time.
        for number in range(count):
            kind, topic, token, payload = read_lines(worker, 1)[0].split(b" ")
            assert (kind, topic, int(payload)) == (b"MSG", b"jobs.a", number)
            assert read_lines(producer, 1) == [b":" + token]
            worker.sendall(b"ACK %b\n" % token)
            assert read_lines(worker, 1) == [b":1"]
        assert silent(producer)
        assert silent(worker)
    assert b"lag=0" in ask(server, b"GROUPS g")


def test_no_answer_before_there_is_room(make_configured: MakeServer) -> None:
    server = make_configured(ONE)
    with member(server) as worker, server.connect() as producer:
        producer.sendall(b"PUB jobs.a 1\nPUB jobs.a 2\nPUB other 3\n")
        assert read_lines(producer, 1) == [b":1"]
        assert read_lines(worker, 1) == [b"MSG jobs.a 1 1"]
        assert silent(producer)
        # Others are not held up, neither elsewhere nor where it only reads.
        assert ask(server, b"PUB other x") == b":2"
        assert ask(server, b"READ jobs.>").startswith(b"MSG jobs.a 1 1\n")
        worker.sendall(b"ACK 1\n")
        assert read_lines(producer, 2) == [b":3", b":4"]
        assert sorted(read_lines(worker, 2)) == [b":1", b"MSG jobs.a 3 2"]


def test_after_full_wait_it_is_refused(make_configured: MakeServer) -> None:
    server = make_configured(ONE.replace("20s", "300ms"))
    with member(server), server.connect() as producer:
        began = time.monotonic()
        producer.sendall(b"PUB jobs.a 1\nPUB jobs.a 2\nPUB other 3\n")
        first, refused, other = read_lines(producer, 3)
        assert time.monotonic() - began >= 0.3
        assert (first, other) == (b":1", b":2")
        assert refused == (
            b"-FULL the store jobs is at its cap of 1 messages that are not settled; acknowledging makes room;"
            b" waited 0.3s for room"
        )


def test_reject_refuses_at_once_and_takes_again_after_an_acknowledgement(make_configured: MakeServer) -> None:
    server = make_configured(ONE.replace("block", "reject"))
    with member(server) as worker, server.connect() as producer:
        for number in range(1, 20):
            producer.sendall(b"PUB jobs.a x\nPUB jobs.a y\n")
            kept, refused = read_lines(producer, 2)
            assert kept.startswith(b":")
            assert refused.startswith(b"-FULL ")
            token = read_lines(worker, 1)[0].split()[2]
            worker.sendall(b"ACK %b\n" % token)
            # Once that is answered there is room: nobody has to try again.
            assert read_lines(worker, 1) == [b":1"], number


def test_a_member_is_refused_instead_of_held(make_configured: MakeServer) -> None:
    server = make_configured(ONE)
    with member(server) as worker:
        assert ask(server, b"PUB jobs.a 1") == b":1"
        assert read_lines(worker, 1) == [b"MSG jobs.a 1 1"]
        worker.sendall(b"PUB jobs.b result\nACK 1\nPUB jobs.b result\n")
        lines = sorted(read_lines(worker, 4))
        assert lines[0].startswith(b"-FULL ")
        assert lines[1:] == [b":1", b":2", b"MSG jobs.b 2 result"]


@pytest.mark.parametrize("unix", [False, True])
def test_who_goes_away_publishes_nothing_more(make_configured: MakeServer, unix: bool) -> None:
    server = make_configured(ONE)
    with member(server) as worker:
        assert ask(server, b"PUB jobs.a 1") == b":1"
        assert read_lines(worker, 1) == [b"MSG jobs.a 1 1"]
        gone = server.connect() if not unix else socket.socket(socket.AF_UNIX)
        if unix:
            gone.connect(str(server.unix))
        else:
            # So that it is cut off, not half-closed.
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gone.sendall(b"PUB jobs.a held\n")
        # The second read finds it held, and then nothing is read any more.
        time.sleep(0.1)
        gone.sendall(b"PUB jobs.a behind\n")
        time.sleep(0.1)
        gone.close()
        deadline = time.monotonic() + WAIT_S
        while ask(server, b"CONNS").count(b"peer=") > 2:
            assert time.monotonic() < deadline, "it was never found"
            time.sleep(0.05)
        worker.sendall(b"ACK 1\n")
        assert read_lines(worker, 1) == [b":1"]
        assert ask(server, b"PUB jobs.a next") == b":2"
        assert read_lines(worker, 1) == [b"MSG jobs.a 2 next"]


def test_by_bytes_nothing_is_lost_and_the_files_stay_under_the_cap(make_configured: MakeServer) -> None:
    cap = 64 * 1024
    server = make_configured('sync = "never"\n' + rule(retain="acked", full="block", max_bytes=cap, full_wait="20s"))
    count, payload = 600, b"x" * 1000
    with member(server, b" WINDOW 20") as worker, server.connect() as producer:
        producer.sendall(b"".join(b"PUB jobs.a %d-%b\n" % (number, payload) for number in range(count)))
        producer.shutdown(socket.SHUT_WR)
        offsets: list[int] = []
        largest = 0
        while len(offsets) < count:
            lines = read_lines(worker, 1)
            if not lines[0].startswith(b"MSG "):
                assert lines[0].startswith(b":")
                continue
            _, _, token, told = lines[0].split(b" ")
            assert told == b"%d-%b" % (len(offsets), payload)
            offsets.append(int(token))
            if len(offsets) % 10 == 0:
                worker.sendall(b"ACK ..%b\n" % token)
                store = server.data / "logs" / "jobs"
                largest = max(largest, sum(path.stat().st_size for path in store.glob("*.log")))
        assert read_lines(producer, count) == [b":%d" % offset for offset in offsets]
        assert cap // 4 < largest <= cap


def test_over_a_kill_what_was_answered_is_kept_and_the_cap_holds(make_configured: MakeServer) -> None:
    server = make_configured(rule(retain="acked", full="block", max_messages=3, full_wait="20s"))
    with member(server) as worker, server.connect() as producer:
        producer.sendall(b"".join(b"PUB jobs.a %d\n" % number for number in range(6)))
        assert read_lines(producer, 3) == [b":1", b":2", b":3"]
        assert read_lines(worker, 1) == [b"MSG jobs.a 1 0"]
        worker.sendall(b"ACK 1\n")
        assert sorted(read_lines(worker, 2)) == [b":1", b"MSG jobs.a 2 1"]
        assert read_lines(producer, 1) == [b":4"]
        server.kill()
    server.start()
    with member(server) as worker, server.connect() as producer:
        producer.sendall(b"PUB jobs.a again\n")
        assert silent(producer)
        assert read_lines(worker, 1) == [b"MSG jobs.a 2.2 1"]
        worker.sendall(b"ACK 2.2\n")
        assert sorted(read_lines(worker, 2)) == [b":1", b"MSG jobs.a 3 2"]
        assert read_lines(producer, 1) == [b":5"]


def test_a_stop_answers_who_is_held(make_configured: MakeServer) -> None:
    server = make_configured(ONE)
    with member(server), server.connect() as producer:
        producer.sendall(b"PUB jobs.a 1\nPUB jobs.a 2\n")
        assert read_lines(producer, 1) == [b":1"]
        assert silent(producer)
        assert server.stop() == 0
        assert read_lines(producer, 1)[0].startswith(b"-STOPPING ")


# Deduplication.


def test_a_duplicate_is_known_over_a_kill(server: ServerProcess) -> None:
    assert ask(server, b"HPUB t id=a :first") == b":1"
    assert ask(server, b"HPUB t id=b :other") == b":2"
    assert ask(server, b"HPUB t id=a :second") == b":1"
    server.kill()
    server.start()
    assert ask(server, b"HPUB t id=a :third") == b":1"
    assert ask(server, b"HPUB u id=a :elsewhere").startswith(b":")
    assert ask(server, b"READ t FORMAT raw") == b"first\nother"


def test_the_same_ids_from_two_connections_at_once_are_kept_once(server: ServerProcess) -> None:
    count = 2000
    data = b"".join(b"HPUB t id=%d :p\n" % number for number in range(count))
    with server.connect() as one, server.connect() as two:
        one.sendall(data)
        two.sendall(data)
        answers = read_lines(one, count)
        assert answers == read_lines(two, count)
        assert sorted(answers) == sorted({b":%d" % number for number in range(1, count + 1)})


def test_a_duplicate_is_answered_while_the_store_is_full(make_configured: MakeServer) -> None:
    server = make_configured(ONE.replace("block", "reject"))
    assert ask(server, b"HPUB jobs.a id=a :1") == b":1"
    assert ask(server, b"HPUB jobs.a id=b :2").startswith(b"-FULL ")
    assert ask(server, b"HPUB jobs.a id=a :1") == b":1"
