"""Faults 5, 6, 7, 8, 13, 20, 26: real servers on small, read-only and unreadable disks, and under limits."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.faults.conftest import MakeDisk, MakeLimited
from tests.support.commands import BUSD
from tests.support.proc import cpu_s
from tests.support.server import ServerProcess, read_lines
from tests.support.tools import ending, environment, need, run, until

LARGE = b"x" * 60_000


def write_settings(disk: Path) -> str:
    """The whole disk may be used, and there is a group."""
    path = disk / "busd.toml"
    path.write_text('[limits]\ntotal_percent = 100\n[main]\ngroups = ["g"]\n')
    return str(path)


def use_up(disk: Path) -> Path:
    """Fill what is free with a file."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)) == 4096:
            if os.statvfs(disk).f_bavail == 0:
                break
    return filler


def fill(server: ServerProcess, topic: bytes = b"t") -> int:
    """Publish until it is refused; returns how many were taken."""
    taken = 0
    with server.connect() as connection:
        for _ in range(2000):
            connection.sendall(b"PUB %b %b\n" % (topic, LARGE))
            (answer,) = read_lines(connection, 1)
            if not answer.startswith(b":"):
                assert answer.startswith(b"-FULL"), answer
                return taken
            taken += 1
    raise AssertionError("it never was full")


def payloads(server: ServerProcess, topic: bytes = b"t") -> list[bytes]:
    """What READ gives."""
    lines = server.ask(b"READ %b FORMAT line\n" % topic).splitlines()
    assert lines[-1].startswith(b"END"), lines[-1]
    return [line.split(b" ", 3)[3] for line in lines if line.startswith(b"MSG")]


def health(server: ServerProcess) -> bytes:
    """The line of INFO."""
    (line,) = [line for line in server.ask(b"INFO server\n").splitlines() if line.startswith(b"health=")]
    return line


def test_a_small_disk_fills_up_and_heals(make_disk: MakeDisk, make_limited: MakeLimited) -> None:
    """PUB is refused; reading, acknowledging and RESET go on; what RESET frees is published to again, no restart."""
    disk = make_disk("24m")
    settings = write_settings(disk)
    server = make_limited("--segment-bytes", "256k", "--config", settings, disk=disk)
    until(lambda: (server.data / "reserve").exists(), "the reserve")
    taken = fill(server)
    assert taken > 50
    assert b"full" in health(server)
    assert payloads(server) == [LARGE] * taken
    with server.connect() as member:
        member.sendall(b"SUB > GROUP g WINDOW 50\n")
        assert read_lines(member, 51)[0].startswith(b"+OK")
        member.sendall(b"ACK 1 2 3 4 5\n")
        lines = read_lines(member, 6)
        assert b":5" in lines, [line[:50] for line in lines]
    # To the last block; then RESET may have to ask twice.
    small = 0
    while server.ask(b"PUB t %b\n" % (b"y" * 100)).startswith(b":"):
        small += 1
    until(lambda: server.ask(b"RESET t\n").startswith(b":"), "RESET")
    until(lambda: os.statvfs(disk).f_bavail > 2000, "room")
    assert fill(server, b"u") > taken * 2 // 3
    until(lambda: server.ask(b"RESET u\n").startswith(b":"), "RESET")
    until(lambda: server.ask(b"PUB t again\n").startswith(b":"), "room")
    assert health(server) == b"health=ok"
    server.kill()
    server.start()
    assert b"again" in payloads(server)


def test_full_at_the_start(make_disk: MakeDisk, make_limited: MakeLimited) -> None:
    disk = make_disk("24m")
    server = make_limited("--config", write_settings(disk), disk=disk)
    assert server.ask(b"PUB t one\nPUB t two\n") == b":1\n:2\n"
    until(lambda: (server.data / "reserve").exists(), "the reserve")
    for stop in (server.stop, server.kill):
        stop()
        filler = use_up(disk)
        server.start()
        assert payloads(server) == [b"one", b"two"]
        assert fill(server, b"more") < 3
        with server.connect() as member:
            member.sendall(b"SUB > GROUP g\n")
            (told, message) = read_lines(member, 2)
            assert message.startswith(b"MSG t "), told
            member.sendall(b"ACK %b\n" % message.split(b" ")[2])
            assert b":1" in read_lines(member, 2)
        filler.unlink()
    until(lambda: server.ask(b"PUB other %b\n" % LARGE).startswith(b":"), "room")


def test_a_limit_of_the_size_of_files(make_limited: MakeLimited) -> None:
    """Files of the log are made smaller than that; what no file could hold is refused, and the rest goes on."""
    server = make_limited("--config", os.devnull, prefix=("prlimit", "--fsize=1200000"))
    assert "1200000 bytes to a file" in server.log()
    sent = [b"%d%b" % (number, LARGE) for number in range(60)]
    for payload in sent:
        assert server.ask(b"PUB t %b\n" % payload).startswith(b":")
    assert payloads(server) == sent
    assert max(path.stat().st_size for path in server.data.rglob("*.log")) <= 1200000
    server.kill()
    server.start()
    assert payloads(server) == sent
    server.stop()
    tiny = make_limited(prefix=("prlimit", "--fsize=40000"))
    assert tiny.ask(b"PUB t small\n").startswith(b":")
    assert tiny.ask(b"PUB t %b\n" % LARGE).startswith(b"-FULL")
    assert tiny.ask(b"PUB t small\n").startswith(b":")
    assert payloads(tiny) == [*sent, b"small", b"small"]


def test_a_read_only_disk(make_disk: MakeDisk, make_limited: MakeLimited) -> None:
    """It does not start, and says why; the files can be looked at."""
    disk = make_disk("24m")
    server = make_limited(disk=disk)
    assert server.ask(b"PUB t one\n") == b":1\n"
    server.stop()
    run(["mount", "-o", "remount,ro", str(disk)])
    refused = run([*BUSD, "serve", "--no-tcp", "--unix", "/tmp/busd-never", "--data", str(server.data)], status=2)
    assert b"Read-only file system" in refused.stderr
    assert refused.stderr.count(b"\n") == 1
    assert b"no damage" in run([*BUSD, "verify", "--force", str(server.data)]).stdout
    assert run([*BUSD, "cat", "--force", str(server.data)]).stdout == b"one\n"


def test_a_file_that_may_not_be_read(make_server: MakeServer) -> None:
    """Root may read everything, so it is done as somebody else."""
    server = make_server()
    assert server.ask(b"PUB t one\n") == b":1\n"
    server.stop()
    (segment,) = (server.data / "logs" / "main").glob("*.log")
    os.chmod(segment, 0)
    prefix: list[str] = []
    if os.geteuid() == 0:
        need("setpriv")
        prefix = ["setpriv", "--reuid=65534", "--clear-groups"]
        for path in (server.data, *server.data.rglob("*")):
            os.chown(path, 65534, 65534)
        os.chmod(server.base, 0o755)
        reach = run([*prefix, *BUSD, "--version"], status=None)
        if reach.returncode:
            pytest.skip(f"nobody else may run this checkout: {reach.stderr.decode()[-200:]}")
    before = sorted((path, path.stat().st_size) for path in server.data.rglob("*") if path.name != "LOCK")
    command = [*BUSD, "serve", "--no-tcp", "--unix", str(server.data / "s"), "--data", str(server.data)]
    refused = run([*prefix, *command], status=2)
    assert b"Permission denied" in refused.stderr
    assert segment.name.encode() in refused.stderr
    assert before == sorted((path, path.stat().st_size) for path in server.data.rglob("*") if path.name != "LOCK")


def test_out_of_descriptors(make_limited: MakeLimited) -> None:
    """With 64 of them: who is connected goes on, over new files of the log, too; nothing spins; later there is room."""
    server = make_limited("--segment-bytes", "64k", prefix=("prlimit", "--nofile=64:64"))
    with server.connect() as first:
        others = [socket.create_connection(("127.0.0.1", server.port), 5) for _ in range(90)]
        try:
            time.sleep(0.5)
            before_s = cpu_s(server.pid)
            time.sleep(1.0)
            assert cpu_s(server.pid) - before_s < 0.5, "it spins"
            for number in range(1, 12):
                first.sendall(b"PUB t %b\n" % LARGE)
                assert read_lines(first, 1) == [b":%d" % number]
            first.sendall(b"READ t FROM first LIMIT 3\n")
            assert [line[:6] for line in read_lines(first, 4)] == [b"MSG t "] * 3 + [b"END li"]
        finally:
            for other in others:
                other.close()
    until(lambda: server.ask(b"PING\n") == b"PONG\n", "room for another")
    assert len(payloads(server)) == 11


def test_a_store_for_each_topic_leaves_descriptors(make_limited: MakeLimited, short_dir: Path) -> None:
    """With 200 of them: one store too many is refused, with nothing left behind; others publish and connect, also after
    a kill; with fewer than they need the start says how many that is."""
    config = short_dir / "busd.toml"
    config.write_text('[[store]]\nmatch = ">"\nname = "s-{topic}"\n')
    server = make_limited("--config", str(config), prefix=("prlimit", "--nofile=200:200"))
    topics = [b"t%d" % number for number in range(100)]
    answers = server.ask(b"".join(b"PUB %b x\n" % topic for topic in topics)).splitlines()
    kept = [answer for answer in answers if answer.startswith(b":")]
    # Main is one.
    assert len(kept) == 41
    assert answers[41:] == [answers[41]] * 59
    assert answers[41].startswith(b"-LIMIT there are 42 stores and no more can be made: each takes 2 of 200")
    assert len(list((server.data / "logs").iterdir())) == 42
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            assert stack.enter_context(server.connect()).send(b"PING\n")
        assert server.ask(b"PUB t0 again\n") == b":42\n"
    server.kill()
    (server.data / "logs" / "s-never").mkdir()
    server.start()
    assert payloads(server, b"t0") == [b"x", b"again"]
    assert server.ask(b"PUB t99 x\n").startswith(b"-LIMIT")
    server.stop()
    command = [*BUSD, "serve", "--no-tcp", "--unix", str(short_dir / "s"), "--data", str(server.data)]
    refused = run(["prlimit", "--nofile=100:100", *command], status=2)
    assert b"the 42 stores here take two descriptors each, the server 132 in all, and may have 100" in refused.stderr


def test_a_ceiling_of_memory(make_limited: MakeLimited) -> None:
    """A store of 10 MiB that holds its publishers back, and a member that is slow: it refuses, and does not die."""
    server = make_limited("--max-bytes", "10M", prefix=("prlimit", f"--as={900 << 20}"))
    with server.connect() as slow, server.connect(60) as publisher:
        slow.sendall(b"SUB t GROUP g WINDOW 10\n")
        for _ in range(40):
            publisher.sendall(b"PUB t %b\n" % LARGE * 50)
            assert all(line.startswith((b":", b"-FULL")) for line in read_lines(publisher, 50))
    assert server.ask(b"PING\n") == b"PONG\n"
    until(lambda: sum(path.stat().st_size for path in server.data.rglob("*.log")) < 14 << 20, "the cap", 5)


def test_two_servers_at_once_and_the_lock_after_a_kill(make_server: MakeServer) -> None:
    """Started together on one directory: one runs, the other names it; after kill -9 the lock is free."""
    server = make_server()
    command = [*BUSD, "serve", "--tcp", "127.0.0.1:0", "--data", str(server.data)]
    with contextlib.ExitStack() as stack:
        started = [subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE) for _ in range(4)]
        for loser in [stack.enter_context(ending(one)) for one in started]:
            _, told = loser.communicate(timeout=60)
            assert loser.returncode == 2
            assert f"held by process {server.pid}".encode() in told
    assert server.ask(b"PUB t one\n") == b":1\n"
    server.kill()
    server.start()
    assert payloads(server) == [b"one"]
