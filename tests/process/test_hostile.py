"""Mad, broken and vanished clients: each gets its error or its end, and costs nobody else anything.

BUSD_STORM_S, BUSD_FUZZ_S: how long each storm of connects (1 s) and the fuzzer of sockets (3 s) last.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.support.proc import cpu_s, descriptors, resident_bytes
from tests.support.server import ServerProcess, read_all, read_lines
from tests.support.tools import ending, need, until

STORM_S = float(os.environ.get("BUSD_STORM_S", "1"))
# Most of the growth was over after four of 1 s.
STORMS = 10
# Without turns a PING waits for half a second and more: the slowest tenth shows one such.
FLOOD_S = 0.7
FUZZ_S = float(os.environ.get("BUSD_FUZZ_S", "3"))
MIB = 1 << 20


def ask_unix(server: ServerProcess, data: bytes) -> bytes:
    """As ServerProcess.ask, over the Unix socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        # Without a time limit it waits for its turn in a crowd; with one it would be refused.
        connection.connect(str(server.unix))
        connection.settimeout(20)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def fact(server: ServerProcess, name: str) -> str:
    """A line of INFO."""
    lines = ask_unix(server, b"INFO\n").decode().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith(f"{name}="))


def limited(make_server: MakeServer, **limits: object) -> ServerProcess:
    """A server with these limits."""
    return make_server(env={f"BUSD_LIMITS_{name.upper()}": str(value) for name, value in limits.items()})


# Dribblers.


@pytest.mark.parametrize("begun", [b"PUB t ", b"PING\nPUB t ", b"*3\r\n$3\r\nPUB\r\n$1\r\nt\r\n$500\r\n", b"G"])
def test_a_command_dribbled_a_byte_at_a_time(make_server: MakeServer, begun: bytes) -> None:
    server = limited(make_server, unfinished="1s")
    with server.connect() as dribbler:
        dribbler.sendall(begun)
        began = time.monotonic()
        answer = b""
        while b"-TIMEOUT" not in answer:
            assert time.monotonic() - began < 7, answer
            dribbler.sendall(b"1")
            ready, _, _ = select.select([dribbler], [], [], 0.2)
            answer += dribbler.recv(4096) if ready else b""
        assert time.monotonic() - began > 0.75
        with contextlib.suppress(ConnectionResetError):
            assert read_all(dribbler) == b""
    assert server.ask(b"READ t\n") == b"END end next=1\n"


def test_a_half_typed_line_and_a_silent_connection_are_left_alone(make_server: MakeServer) -> None:
    server = limited(make_server, unfinished="1s")
    with server.connect() as typing, server.connect() as silent:
        typing.sendall(b"PING\n  ")
        time.sleep(2.5)
        typing.sendall(b"PING\n")
        silent.sendall(b"PING\n")
        assert read_lines(typing, 2) == [b"PONG", b"PONG"]
        assert read_lines(silent, 1) == [b"PONG"]


def test_many_large_commands_that_never_end_cost_no_more_than_the_limit(make_server: MakeServer) -> None:
    server = limited(make_server, unfinished_bytes=8 * MIB)
    before = resident_bytes(server.pid)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(100)]
        for connection in connections:
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"PUB t " + b"x" * (MIB - 1))
        told: list[socket.socket] = []
        grown = [0]

        def read() -> bool:
            told[:] = select.select(connections, [], [], 0)[0]
            grown.append(resident_bytes(server.pid) - before)
            return len(told) > 85

        until(read, "most are told, so all were read")
        other = stack.enter_context(server.connect())
        other.sendall(b"PUB t " + b"y" * 100_000 + b"\n")
        assert read_lines(other, 1) == [b":1"]
        read()
        # The limit, what was read of one in between, and what the allocator keeps.
        assert 4 * MIB < max(grown) < 24 * MIB
        assert 85 < len(told) < 100
        assert told[0].recv(4096).startswith(b"-LIMIT unfinished commands of all connections hold 8388608 bytes")


# At the wrong door.


@pytest.mark.parametrize("method", ["GET", "POST", "PUB", "PING", "READ"])
@pytest.mark.parametrize("path", ["/", "/" + "a" * 6000])
def test_nothing_of_a_web_request_is_carried_out(shared_server: ServerProcess, method: str, path: str) -> None:
    browser = http.client.HTTPConnection("127.0.0.1", shared_server.port, timeout=10)
    browser.request(
        method, path, body="PUB evil x\r\nRESET >\r\nPUB evil y\r\n", headers={"Origin": "https://example.com"}
    )
    with contextlib.suppress(http.client.HTTPException, ConnectionError):
        browser.getresponse()
    browser.close()
    assert shared_server.ask(b"TOPICS\n") == b"*0\n"


# Limits.

LIMITS = {
    "payload_bytes": 1000, "line_bytes": 600, "command_bytes": 4000, "headers": 2, "header_bytes": 50, "topics": 3,
    "groups": 1, "in_flight": 5,
}  # fmt: skip
TOO_MUCH = {
    "payload_bytes": (b"PUB t " + b"x" * 1001, b"-TOOBIG"),
    "line_bytes": (b"SUB " + b"x" * 597, b"-TOOBIG a line of 601 bytes; the limit for it is 600"),
    "headers": (b"HPUB t a=1 b=2 c=3 :x", b"-TOOBIG"),
    "header_bytes": (b"HPUB t a=" + b"1" * 50 + b" :x", b"-TOOBIG"),
    "command_bytes": (b"*3\r\n$4\r\nMPUB\r\n$1\r\nt\r\n$9999\r\n" + b"x" * 9999 + b"\r", b"-TOOBIG"),
    "topics": (b"PUB d x", b"-LIMIT there may be 3 topics, and all are there"),
    "groups": (b"SUB a GROUP other", b"-LIMIT"),
    "in_flight": (b"SUB a GROUP g WINDOW 6", b"-LIMIT WINDOW 6; the limit is 5"),
    "patterns": (b"SUB " + b",".join(b"p%d" % number for number in range(65)), b"-LIMIT"),
    "id": (b"HPUB a id=" + b"i" * 201 + b" :x", b"-ARG the header id takes 1 to 200 bytes, not 201"),
}


def test_each_limit_has_its_error_and_the_connection_goes_on(make_server: MakeServer) -> None:
    server = limited(make_server, **LIMITS)
    assert server.ask(b"PUB a x\nPUB b x\nPUB c x\n") == b":1\n:2\n:3\n"
    with server.connect() as member:
        member.sendall(b"SUB a GROUP g WINDOW 5\n")
        read_lines(member, 2)
        for name, (command, error) in TOO_MUCH.items():
            with server.connect() as one:
                one.sendall(command + b"\n")
                told = read_lines(one, 1)[0]
                assert told.startswith(error), (name, told)
                one.sendall(b"*1\r\n$4\r\nPING\r\n" if command.startswith(b"*") else b"PING\n")
                assert read_lines(one, 1)[0].strip() in (b"PONG", b"+PONG"), name
    assert server.ask(b"READ >\n").count(b"MSG") == 3


@pytest.mark.parametrize(
    "head", [b"*1000000000\r\n", b"*-1\r\n", b"*1\r\n$99999999999\r\n", b"*1\r\n$-1\r\n", b"*01\r\n"]
)
def test_giant_and_crooked_counts(shared_server: ServerProcess, head: bytes) -> None:
    before = resident_bytes(shared_server.pid)
    with shared_server.connect() as one:
        one.sendall(head)
        if not head.startswith(b"*1000000000"):
            assert read_all(one).startswith(b"-SYNTAX")
        else:
            one.sendall(b"$1\r\nx\r\n" * 1000)
            assert shared_server.ask(b"PING\n") == b"PONG\n"
    assert resident_bytes(shared_server.pid) - before < 4 * MIB


def publish_cpu_s(server: ServerProcess, count: int) -> float:
    """CPU time of the server for so many messages of new and old topics."""
    with server.connect() as one:
        began_s = cpu_s(server.pid)
        for start in range(0, count, 1000):
            one.sendall(b"".join(b"PUB m.%d.x x\n" % (number % 500) for number in range(start, start + 1000)))
            read_lines(one, 1000)
        return cpu_s(server.pid) - began_s


def test_a_hundred_thousand_patterns_cost_publishers_little(make_server: MakeServer) -> None:
    server = make_server("--sync", "never")
    publish_cpu_s(server, 20_000)
    alone_s = publish_cpu_s(server, 20_000)
    with contextlib.ExitStack() as stack:
        for number in range(1600):
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.connect(str(server.unix))
            patterns = ",".join(f"n{number}.{kind}.*.>" for kind in range(64))
            one.sendall(f"SUB {patterns}\n".encode())
        until(lambda: fact(server, "subscriptions") == "1600", "all are subscribed", 40)
        beside_s = publish_cpu_s(server, 20_000)
    assert beside_s < 3 * alone_s + 0.2


# Floods.


@pytest.mark.parametrize(
    "command", [b"INFO\n", b"x\n", b"PING\n", b"READ t\n", b"HELP\n", b"CONNS\n", b"*1\r\n$1\r\nx\r\n"]
)
def test_a_flood_does_not_keep_others_waiting(server: ServerProcess, command: bytes) -> None:
    with server.connect() as flood, server.connect() as other:
        other.sendall(b"".join(b"PUB t.%d x\n" % number for number in range(2000)))
        read_lines(other, 2000)
        resp = command.startswith(b"*")
        flood.sendall(b"*1\r\n$4\r\nPING\r\n" if resp else b"PING\n")
        read_lines(flood, 1)
        flood.setblocking(False)
        waits_s = []
        end = time.monotonic() + FLOOD_S
        data = command * (MIB // len(command))
        sent = 0
        while time.monotonic() < end:
            with contextlib.suppress(BlockingIOError):
                sent = (sent + flood.send(data[sent:])) % len(data)
            with contextlib.suppress(BlockingIOError):
                flood.recv(1 << 16)
            began = time.monotonic()
            other.sendall(b"PING\n")
            read_lines(other, 1)
            waits_s.append(time.monotonic() - began)
    waits_s.sort()
    # Some milliseconds on a quiet machine; without turns each would wait for half a second and more.
    assert waits_s[len(waits_s) * 9 // 10] < 0.25, waits_s[-5:]


def test_a_storm_of_connects_leaves_nothing_behind(server: ServerProcess) -> None:
    def storm() -> int:
        count = 0
        end = time.monotonic() + STORM_S
        while time.monotonic() < end:
            batch = [server.connect() for _ in range(50)]
            for number, one in enumerate(batch):
                with contextlib.suppress(ConnectionError):
                    one.sendall((b"", b"PING\n", b"SUB t\n", b"PUB t half", b"*1\r\n", b"SUB t GROUP g\n")[number % 6])
                if number % 3 == 0:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                one.close()
            count += len(batch)
        return count

    storm()
    until(lambda: fact(server, "connections") == "1", "all of the first are gone")
    fds = descriptors(server.pid)
    grown: list[int] = []
    # The allocator takes its arenas in steps and settles after some storms; what a connection leaves behind
    # shows in every storm. 1 MiB is some 600 bytes for each of a storm's connections.
    while not grown or grown[-1] >= MIB:
        before = resident_bytes(server.pid)
        assert storm() > 100
        until(lambda: fact(server, "connections") == "1", "all are gone")
        grown.append(resident_bytes(server.pid) - before)
        assert len(grown) < STORMS, grown
    assert descriptors(server.pid) == fds
    assert fact(server, "subscriptions") == "0"


def test_with_few_descriptors_accepting_stops_and_the_rest_goes_on(short_dir: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    class Poor(ServerProcess):
        def command(self) -> list[str]:
            return ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *super().command(), "--segment-bytes", "4k"]

    assert soft > 256 or hard > 256
    with contextlib.closing(Poor(short_dir)) as poor:
        poor.start()
        with contextlib.ExitStack() as stack:
            old = stack.enter_context(poor.connect())
            old.sendall(b"PING\n")
            assert read_lines(old, 1) == [b"PONG"]
            crowd = [stack.enter_context(poor.connect()) for _ in range(200)]
            refused = 0
            for one in crowd:
                one.sendall(b"PING\n")
                with contextlib.suppress(ConnectionError):
                    refused += one.recv(4096).startswith(b"-LIMIT 64 descriptors")
            assert refused > 150
            # Segments go on to be made: no publisher is refused, and the store is not given up.
            old.sendall(b"".join(b"PUB t %b\n" % (b"x" * 1000) for _ in range(100)))
            assert read_lines(old, 100)[-1] == b":100"
            began_s = cpu_s(poor.pid)
            time.sleep(1)
            assert cpu_s(poor.pid) - began_s < 0.3, "it spins"
            old.sendall(b"INFO health\n")
            assert read_lines(old, 2) == [b"*1", b"status=ok"]
        until(poor.has_room, "there is room again")
        assert poor.log().count("connection refused") == 1


# Peers that vanish.


def test_a_peer_that_lives_and_does_not_read_is_never_dropped(make_server: MakeServer) -> None:
    server = limited(make_server, keep_alive="3s")
    with server.connect() as writer, server.connect() as reader:
        reader.sendall(b"SUB t FROM first\n")
        read_lines(reader, 1)
        writer.sendall(b"".join(b"PUB t %b\n" % (b"x" * 1000) for _ in range(8000)))
        read_lines(writer, 8000)
        time.sleep(8)
        lines = read_lines(reader, 8000)
        assert [line.split()[2] for line in lines[-1:]] == [b"8000"]


class Island(ServerProcess):
    """A server whose TCP is a network of its own, which can be cut; its Unix socket is for all."""

    def command(self) -> list[str]:
        """See ServerProcess."""
        user = [] if os.geteuid() == 0 else ["-r"]
        return ["unshare", *user, "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", *super().command()]

    def inside(self, *words: str) -> list[str]:
        """The command line of a program on that network."""
        user = [] if os.geteuid() == 0 else ["-U", "--preserve-credentials"]
        return ["nsenter", "-t", str(self.pid), *user, "-n", *words]


@pytest.fixture
def island(short_dir: Path) -> Iterator[Island]:
    """See Island; skipped where namespaces are not allowed."""
    need("unshare", "nsenter", "ip")
    user = [] if os.geteuid() == 0 else ["-r"]
    if subprocess.run(["unshare", *user, "-n", "ip", "link", "set", "lo", "up"], capture_output=True).returncode:
        pytest.skip("network namespaces are not allowed here")
    server = Island(short_dir, [], {"BUSD_LIMITS_KEEP_ALIVE": "3s"})
    with contextlib.closing(server):
        yield server.start()


@pytest.mark.parametrize("busy", [False, True])
def test_a_member_whose_network_is_gone_is_found_and_its_messages_go_to_others(island: Island, busy: bool) -> None:
    client = f"import socket\ns = socket.create_connection(('127.0.0.1', {island.port}))\n"
    client += "s.sendall(b'PUB job a\\nPUB job b\\nSUB job GROUP g WINDOW 2 WAIT 1h\\n')\n"
    client += "while True: print(s.recv(999).decode(), flush=True)"
    command = island.inside(sys.executable, "-c", client)
    with ending(subprocess.Popen(command, stdout=subprocess.DEVNULL)):
        until(lambda: b"in_flight=2" in ask_unix(island, b"GROUPS\n"), "it has both")
        subprocess.run(island.inside("ip", "link", "set", "lo", "down"), check=True)
        began = time.monotonic()
        with socket.socket(socket.AF_UNIX) as other:
            other.settimeout(30)
            other.connect(str(island.unix))
            if busy:
                # Now something is on its way to the member, and keep-alive does not ask.
                other.sendall(b"SEEK g first\n")
                read_lines(other, 1)
            other.sendall(b"SUB job GROUP g WINDOW 2\n")
            answer, *again = read_lines(other, 3)
            assert answer.startswith(b"+OK")
            assert [line.split()[-1] for line in again] == [b"a", b"b"]
        # keep_alive, looked at every ten seconds, seen twice.
        assert time.monotonic() - began < 3 + 12 + 1


# Anything.

WORDS = [
    b"PUB", b"EPUB", b"HPUB", b"SUB", b"READ", b"UNSUB", b"ACK", b"NACK", b"TOUCH", b"SEEK", b"FORGET", b"GROUPS",
    b"RESET", b"EOF", b"INFO", b"TOPICS", b"CONNS", b"HELP", b"PING", b"HELLO", b"QUIET", b"t", b"t.>", b"a.*", b"g",
    b"GROUP", b"WINDOW", b"LIMIT", b"FROM", b"LAST", b"UNTIL", b"WITHIN", b"FORMAT", b"json", b"raw", b"1", b"0",
    b"-5m",
    b"first", b"next", b"end", b"10ms", b"id=x", b"delay=1ms", b":x", b"..3", b"1.2", b"99999999999999999999", b"\xff",
    b"", b"\0", b"*3", b"$3", b"3",
]  # fmt: skip


def gibberish(chance: random.Random) -> bytes:
    """Lines, commands or bytes: near enough to the real ones to get far."""
    kind = chance.random()
    if kind < 0.15:
        return chance.randbytes(chance.randrange(300))
    words = [chance.choice(WORDS) for _ in range(chance.randrange(1, 7))]
    if kind < 0.6:
        return b" ".join(words) + chance.choice([b"\n", b"\n", b"\r\n", b"\r\r\n", b""])
    count = len(words) if chance.random() < 0.9 else chance.randrange(10)
    return b"*%d\r\n" % count + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def test_a_fuzzer_on_sockets_finds_no_traceback_and_no_hang(make_server: MakeServer) -> None:
    seed = int(os.environ.get("BUSD_FUZZ_SEED", time.time_ns() % 1_000_000))
    print(f"seed {seed}", file=sys.stderr)
    chance = random.Random(seed)
    server = make_server("--sync", "never")
    end = time.monotonic() + FUZZ_S
    while time.monotonic() < end:
        crowd = [server.connect() for _ in range(8)]
        for one in crowd:
            one.setblocking(False)
        for _ in range(chance.randrange(1, 30)):
            one = chance.choice(crowd)
            with contextlib.suppress(OSError):
                one.send(gibberish(chance))
            with contextlib.suppress(OSError):
                one.recv(chance.choice([1, 1 << 16]))
            if chance.random() < 0.05:
                with contextlib.suppress(OSError):
                    one.shutdown(chance.choice([socket.SHUT_WR, socket.SHUT_RDWR]))
        for one in crowd:
            one.close()
        assert server.ask(b"PING\n") == b"PONG\n"
    until(lambda: fact(server, "connections") == "1", "all are gone")
    assert fact(server, "subscriptions") == "0"
    assert fact(server, "status") == "ok"
    assert server.stop() == 0
    # What was kept is whole.
    server.start()
    assert "recovered" not in server.log_of_this_start()
    assert server.ask(b"READ >\n").splitlines()[-1].startswith(b"END end next=")
