"""What people have already, unchanged, against a real server: nc, socat, redis-cli, redis-benchmark, redis-py."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.conftest import MakeServer
from tests.support.server import ServerFailed, ServerProcess, read_all, read_lines
from tests.support.tools import ROOT, ending, need, run, until

# The way in, by tool and transport; each takes stdin to the server and the answers to stdout, and ends with the server.
WAYS = {
    "nc-tcp": "nc -N 127.0.0.1 {port}",
    "nc-unix": "nc -U -N {unix}",
    "socat-tcp": "socat -t 30 - TCP:127.0.0.1:{port}",
    "socat-unix": "socat -t 30 - UNIX-CONNECT:{unix}",
}
BIG_LINES = 300_000

Way = Callable[[bytes], bytes]


def way_of(name: str, server: ServerProcess) -> str:
    """The command line of a way in."""
    need(name.partition("-")[0])
    return WAYS[name].format(port=server.port, unix=server.unix)


@pytest.fixture(params=WAYS)
def say(request: pytest.FixtureRequest, server: ServerProcess) -> Way:
    """Gives bytes to the tool, returns what it printed."""
    command = way_of(str(request.param), server)
    return lambda given: run(command, given).stdout


# --- nc and socat ---


def test_one_line_in_one_answer_out(say: Way) -> None:
    assert say(b"PUB news hello\n") == b":1\n"


def test_an_answer_ends_as_its_line_did(say: Way) -> None:
    assert say(b"PUB news hello\r\nPING\n") == b":1\r\nPONG\n"


def test_many_commands_in_one_write(say: Way) -> None:
    given = b"".join(b"PUB news.%d payload %d\n" % (i, i) for i in range(1000))
    assert say(given) == b"".join(b":%d\n" % (i + 1) for i in range(1000))
    told = say(b"READ news.*\n")
    assert (
        told == b"".join(b"MSG news.%d %d payload %d\n" % (i, i + 1, i) for i in range(1000)) + b"END end next=1001\n"
    )


def test_errors_leave_the_connection_in_step(say: Way) -> None:
    told = say(b"PUB a..b x\nPUB t one\nNOSUCH\nPUB t two\n").splitlines()
    assert [line[:6] for line in told] == [b"-TOPIC", b":1", b"-UNKNO", b":2"]


def test_a_subscription_outlives_the_half_close(say: Way, server: ServerProcess) -> None:
    """stdin ends at once; the messages come later, and the server closes when the number is reached."""
    heard: list[bytes] = []
    listener = threading.Thread(target=lambda: heard.append(say(b"SUB t LIMIT 3\n")))
    listener.start()
    until(lambda: b"sub=t" in server.ask(b"CONNS\n"), "the subscription")
    for payload in (b"1", b"2", b"3", b"4"):
        server.ask(b"PUB t %b\n" % payload)
    listener.join(20)
    assert heard == [b"+OK next=1 epoch=1\nMSG t 1 1\nMSG t 2 2\nMSG t 3 3\nEND limit next=4\n"]


def test_a_stream_ends_with_its_end(say: Way) -> None:
    assert say(b"PUB t 1\nPUB t 2\nEOF t\n") == b":1\n:2\n:3\n"
    assert say(b"SUB t FROM first FORMAT raw\n") == b"1\n2\n"


def test_quit_ends_it_without_a_half_close(server: ServerProcess) -> None:
    need("nc")
    # Without -N nc never tells the server that stdin ended; only the server's close ends it.
    told = run(["nc", "127.0.0.1", str(server.port)], b"PUB t x\nQUIT\n")
    assert told.stdout == b":1\n+OK\n"


@pytest.mark.parametrize("name", WAYS)
def test_a_half_closed_reader_that_dies_is_found(name: str, server: ServerProcess) -> None:
    command = f"exec {way_of(name, server)}"
    with ending(subprocess.Popen(["bash", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE)) as child:
        assert child.stdin is not None
        child.stdin.write(b"SUB t\n")
        child.stdin.close()
        until(lambda: b"sub=t" in server.ask(b"CONNS\n"), "the subscription")
        child.kill()
    # It may be that only a write shows it.
    until(lambda: b"sub=t" not in server.ask(b"PUB t x\nCONNS\n"), "the end of the subscription")


@pytest.fixture(scope="module")
def big_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of at least BIG_LINES lines as people have them: the package lists of this machine, else made up."""
    path = tmp_path_factory.mktemp("big") / "text"
    found = b""
    if shutil.which("apt-cache"):
        found = subprocess.run(["apt-cache", "dumpavail"], stdout=subprocess.PIPE, check=False).stdout
    # CR at the end of a line would belong to the line end, NUL is no text.
    lines = [line for line in found.split(b"\n") if not line.endswith(b"\r") and b"\0" not in line][: BIG_LINES + 1000]
    chance = random.Random(7)
    while len(lines) < BIG_LINES:
        words = [b"%x" % chance.getrandbits(chance.randrange(1, 64)) for _ in range(chance.randrange(12))]
        lines.append(b" " * chance.randrange(3) + b" ".join(words) + b"\t" * chance.randrange(2))
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", ["nc-tcp", "nc-unix", "socat-unix"])
def test_a_big_text_through_nc_and_back(name: str, server: ServerProcess, big_text: Path, tmp_path: Path) -> None:
    way = way_of(name, server)
    out, answers = tmp_path / "out", tmp_path / "answers"
    run(f"sed 's/^/PUB big /' {big_text} | {way} > {answers}", timeout_s=120)
    count = big_text.read_bytes().count(b"\n")
    assert answers.read_bytes() == b"".join(b":%d\n" % i for i in range(1, count + 1))
    run(f"echo SUB big FROM first UNTIL end FORMAT raw | {way} > {out}", timeout_s=120)
    run(["cmp", str(big_text), str(out)])


def test_binary_through_pub_and_back(server: ServerProcess, tmp_path: Path) -> None:
    need("nc")
    path, out = tmp_path / "random", tmp_path / "out"
    path.write_bytes(os.urandom(5_000_000 + 1))
    run(f"busd pub blob --block 64k < {path}", env={"BUSD_ADDRESS": server.address})
    run(f"echo SUB blob FROM first UNTIL end FORMAT bytes | {way_of('nc-unix', server)} > {out}")
    run(["cmp", str(path), str(out)])


# --- What the server tells of itself ---


def documented_info() -> dict[str, list[str]]:
    """Section of INFO: its names, from protocol.md; of the stores the names behind the store's."""
    text = (ROOT / "protocol.md").read_text()
    table = text.partition("| section | names |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE)
    return {section: re.findall(r"\w+(?==)" if section == "stores" else r"\w+", names) for section, names in rows}


@pytest.mark.parametrize("section", ["server", "log", "stores", "clients"])
def test_info_has_the_documented_names(shared_server: ServerProcess, section: str) -> None:
    shared_server.ask(b"PUB t x\n")
    told = shared_server.ask(b"INFO %b\n" % section.encode()).decode().splitlines()
    assert told[0] == f"*{len(told) - 1}"
    names = re.findall(r"(\w+)=", "\n".join(told).partition("main=")[2]) if section == "stores" else None
    assert (names or [line.partition("=")[0] for line in told[1:]]) == documented_info()[section]


def test_hello_tells_the_documented_names(server: ServerProcess) -> None:
    text = (ROOT / "protocol.md").read_text()
    (names,) = re.findall(r"`HELLO` answers who is there: a list of `([a-z ]+)`", text)
    told = server.ask(b"HELLO\n").decode().splitlines()
    assert [line.partition("=")[0] for line in told[1:]] == names.split()


# --- Redis clients ---


def redis_cli(server: ServerProcess, *words: str, given: bytes = b"") -> list[str]:
    """What redis-cli prints, as lines."""
    need("redis-cli")
    return run(["redis-cli", "-p", str(server.port), *words], given).stdout.decode().splitlines()


@pytest.mark.parametrize("version", ["-2", "-3"])
def test_redis_cli_speaks_every_command_with_one_answer(server: ServerProcess, version: str) -> None:
    assert redis_cli(server, version, "PING") == ["PONG"]
    assert redis_cli(server, version, "PUB", "news", "hello world") == ["1"]
    assert redis_cli(server, version, "MPUB", "news", "a", "b") == ["2"]
    assert redis_cli(server, version, "EOF", "ended") == ["4"]
    told = redis_cli(server, version, "READ", "news", "FROM", "2")
    assert [told[0], told[1], told[4], told[9], told[10:]] == ["MSG", "news", "a", "b", ["END", "end", "5"]]
    assert {"tcp", f"127.0.0.1:{server.port}"} <= set(" ".join(redis_cli(server, version, "INFO", "server")).split())
    assert redis_cli(server, version, "RESET", "news") == ["3"]
    assert redis_cli(server, version, "PUB", "a b", "x")[0].startswith("TOPIC 'a b' is not a topic")


def test_redis_cli_reads_commands_from_a_pipe(server: ServerProcess) -> None:
    given = b"".join(b'PUB t "line %d\\n"\n' % i for i in range(100))
    assert redis_cli(server, given=given) == [str(i + 1) for i in range(100)]
    told = server.ask(b"READ t LAST 1 FORMAT raw\n")
    assert told == b"line 99\n\n"


def test_redis_cli_shows_a_subscription_as_pushes(server: ServerProcess) -> None:
    server.ask(b"PUB t one\nPUB t two\n")
    told = redis_cli(server, "-3", "--show-pushes", "yes", given=b"SUB t FROM 1 UNTIL end\nPING\nPING\n")
    assert [line for line in told if line.startswith("OK")] == ["OK next=1 epoch=1"]
    assert [word for word in ("one", "two", "END") if not any(word in line for line in told)] == []


def test_redis_cli_is_refused_a_subscription_in_resp2(server: ServerProcess) -> None:
    assert redis_cli(server, "-2", "SUB", "t")[0].startswith("PROTO SUB in RESP2")


def test_redis_benchmark_publishes_pipelined(server: ServerProcess) -> None:
    need("redis-benchmark")
    words = f"-p {server.port} -n 20000 -P 100 -r 100 -q PUB bench.__rand_int__ __data__".split()
    told = run(["redis-benchmark", *words]).stdout.decode()
    assert re.search(r"[\d.]+ requests per second", told), told
    info = dict(line.partition("=")[::2] for line in server.ask(b"INFO log\n").decode().splitlines()[1:])
    assert info["next"] == "20001"
    assert info["topics"] == "100"


@pytest.mark.parametrize("version", [2, 3])
def test_redis_py_publishes_and_reads(server: ServerProcess, version: int) -> None:
    # Any: what redis-py says of its types differs from version to version.
    client: Any = redis.Redis(port=server.port, protocol=version)
    with contextlib.closing(client):
        assert client.ping()
        assert client.execute_command("PUB", "t", b"any \r\n\0 bytes") == 1
        assert client.execute_command("PUB", "t", "x", "unit", "C") == 2
        first, second, end = client.execute_command("READ", "t")
        assert [first[:3], first[4:]] == [[b"MSG", b"t", 1], [b"any \r\n\0 bytes"]]
        assert second[4:] == [b"x", b"unit", b"C"]
        assert end == [b"END", b"end", 3]
        with pytest.raises(redis.ResponseError, match="TOPIC"):
            client.execute_command("PUB", "a..b", "x")
        pipeline = client.pipeline(transaction=False)
        for number in range(500):
            pipeline.execute_command("PUB", "p", str(number))
        assert pipeline.execute() == list(range(3, 503))


def test_redis_py_gets_events_as_pushes(server: ServerProcess) -> None:
    server.ask(b"PUB t one\n")
    pushes: list[list[object]] = []
    pool = redis.ConnectionPool(port=server.port, protocol=3)
    connection: Any = pool.get_connection()
    try:
        connection._parser.set_pubsub_push_handler(pushes.append)
        connection.send_command("SUB", "t", "FROM", "1", "LIMIT", "2")
        assert connection.read_response() == b"OK next=1 epoch=1"
        server.ask(b"PUB t two\n")
        while len(pushes) < 3:
            connection.read_response(push_request=True)
    finally:
        pool.disconnect()
    assert [push[:1] + push[4:] for push in pushes[:2]] == [[b"MSG", b"one"], [b"MSG", b"two"]]
    assert pushes[2] == [b"END", b"limit", 3]


# --- The wrong door ---


def test_http_gets_one_line_and_a_close(server: ServerProcess) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_all(connection) == b"-UNKNOWN no command 'GET'; HELP lists them\r\n"


def test_tls_is_shown_out(make_server: MakeServer) -> None:
    server = make_server(env={"BUSD_LIMITS_UNFINISHED": "1s"})
    hello = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with server.connect() as connection:
        connection.sendall(hello.read())
        told = read_all(connection)
    assert re.match(rb"-(UNKNOWN|TIMEOUT) ", told), told
    assert server.ask(b"PING\n") == b"PONG\n"


def test_no_line_end_is_waited_for_only_so_long(make_server: MakeServer) -> None:
    server = make_server(env={"BUSD_LIMITS_UNFINISHED": "1s"})
    with server.connect() as connection:
        connection.sendall(b"PUB t hel")
        assert read_all(connection).startswith(b"-TIMEOUT ")
    assert server.ask(b"READ t\n") == b"END end next=1\n"


# --- One server a place ---


def refused(make_server: MakeServer, *options: str) -> str:
    """What a server says that does not start."""
    with pytest.raises(ServerFailed) as told:
        make_server(*options, name="second")
    return str(told.value)


def test_the_data_directory_has_one_server(server: ServerProcess, make_server: MakeServer) -> None:
    told = refused(make_server, "--data", str(server.data))
    assert re.search(rf"\b{server.pid}\b", told), told
    assert server.ask(b"PING\n") == b"PONG\n"


def test_a_unix_socket_has_one_server(server: ServerProcess, make_server: MakeServer) -> None:
    told = refused(make_server, "--unix", str(server.unix))
    assert str(server.unix) in told
    assert re.search(rf"\b{server.pid}\b", told), told
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(server.unix))
        connection.sendall(b"PING\nQUIT\n")
        assert read_all(connection) == b"PONG\n+OK\n"


def test_a_stale_unix_socket_is_replaced(server: ServerProcess) -> None:
    server.kill()
    assert server.unix.is_socket()
    server.start()
    need("nc")
    assert run(way_of("nc-unix", server), b"PING\n").stdout == b"PONG\n"


def test_a_file_where_the_socket_should_be_is_left_alone(make_server: MakeServer, short_dir: Path) -> None:
    path = short_dir / "precious"
    path.write_text("kept")
    assert str(path) in refused(make_server, "--unix", str(path))
    assert path.read_text() == "kept"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_takes_the_socket_away_and_ends_readers(server: ServerProcess, number: signal.Signals) -> None:
    with server.connect() as connection:
        connection.sendall(b"PUB t x\nSUB t FROM 1\n")
        assert read_lines(connection, 3) == [b":1", b"+OK next=1 epoch=1", b"MSG t 1 x"]
        assert server.stop(number) == 0
        assert read_all(connection) == b"END closed next=2\n"
    assert not server.unix.exists()
