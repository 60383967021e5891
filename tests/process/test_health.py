"""`busd health`, INFO health and the events on stderr tell what is; `busd doctor` tells what a place is good for."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.support.commands import BUSD
from tests.support.server import ServerProcess, read_lines
from tests.support.tools import ending, environment, run, until


def health(server: ServerProcess, *options: str) -> subprocess.CompletedProcess[bytes]:
    """`busd health`, whatever its exit status."""
    return run([*BUSD, "health", *options], env={"BUSD_ADDRESS": server.address}, status=None)


def test_a_well_server(server: ServerProcess) -> None:
    told = health(server, "--strict")
    assert (told.returncode, told.stdout) == (0, b"ok\n")
    assert json.loads(health(server, "--json").stdout) == {"status": "ok"}
    assert server.ask(b"INFO health\n") == b"*1\nstatus=ok\n"


def test_nobody_there() -> None:
    told = run([*BUSD, "health", "--address", "127.0.0.1:1"], status=2)
    assert b"no server at 127.0.0.1:1" in told.stderr


@pytest.mark.parametrize("command", ["health", "ping"])
def test_a_server_that_hangs_does_not_answer(server: ServerProcess, command: str) -> None:
    """It is stopped in the middle of everything, and the kernel takes connections for it."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        told = run([*BUSD, command], env={"BUSD_ADDRESS": server.address}, status=2, timeout_s=20)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert told.stdout == b""
    assert told.stderr == f"busd: {server.address}: the connection broke: timed out\n".encode()


def test_at_its_cap_it_fails_and_is_well_again_when_there_is_room(make_server: MakeServer) -> None:
    server = make_server("--segment-bytes", "64k", env={"BUSD_LIMITS_TOTAL_BYTES": "1M"})
    with server.connect() as one:
        one.sendall(b"".join(b"PUB t %b\n" % (b"x" * 1000) for _ in range(1200)))
        assert any(line.startswith(b"-FULL") for line in read_lines(one, 1200))
    told = health(server)
    assert told.returncode == 1
    assert told.stdout.startswith(b"failing\nfull: the data directory is at its cap of 1048576 bytes")
    until(lambda: "error: full, why the data directory" in server.log(), "it is told")
    server.ask(b"RESET t\n")
    until(lambda: health(server, "--strict").returncode == 0, "there is room again", 40)
    assert server.ask(b"PUB t x\n").startswith(b":")
    until(lambda: "full is well again" in server.log(), "that is told, too")
    assert server.log().count("error: full") == 1, "once, not for each PUB"


def test_events_as_json(short_dir: Path) -> None:
    env = {"BUSD_TCP": "127.0.0.1:0", "BUSD_DATA": str(short_dir / "d"), "BUSD_LOG_FORMAT": "json"}
    with ending(subprocess.Popen([*BUSD, "serve"], stderr=subprocess.PIPE, env=environment(env))) as child:
        assert child.stderr is not None
        ready = json.loads(child.stderr.readline())
        child.terminate()
        rest = [json.loads(line) for line in child.stderr]
        assert child.wait(20) == 0
    assert (ready["event"], ready["level"], ready["data"]) == ("ready", "info", str(short_dir / "d"))
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:.]+Z", ready["time"])
    assert [line["event"] for line in rest] == ["stopping", "stopped"]


def test_what_clients_can_repeat_is_told_once_a_minute(make_server: MakeServer) -> None:
    server = make_server(env={"BUSD_LIMITS_CONNECTIONS": "1"})
    with server.connect() as only:
        only.sendall(b"PING\n")
        read_lines(only, 1)
        for _ in range(20):
            with server.connect() as one, contextlib.suppress(ConnectionError):
                one.recv(100)
    assert server.log().count("connection refused") == 1


def test_the_sections_words(server: ServerProcess) -> None:
    """The event lines of a usual life: three, each with what one needs."""
    assert server.stop(signal.SIGINT) == 0
    lines = server.log().splitlines()
    assert re.fullmatch(r"busd \S+: ready, tcp \S+, unix \S+, data \S+, sync always", lines[0])
    assert re.fullmatch(r"busd \S+: stopping, signal SIGINT, within 10s", lines[1])
    assert re.fullmatch(r"busd \S+: stopped", lines[2])
    assert len(lines) == 3


def doctor(place: Path, *options: str, status: int = 0, env: dict[str, str] | None = None) -> dict[str, dict[str, str]]:
    """What `busd doctor` finds, by name."""
    words = [*BUSD, "doctor", "--data", str(place), "--json", *options]
    found = json.loads(run(words, env=env, status=status).stdout)
    return {one["name"]: one for one in found}


def test_doctor_finds_a_good_place_and_leaves_nothing_behind(short_dir: Path) -> None:
    place = short_dir / "new" / "data"
    found = doctor(place, env={"BUSD_TCP": "127.0.0.1:0", "BUSD_UNIX": str(short_dir / "s")})
    assert {one["verdict"] for name, one in found.items() if name in ("lock", "sockets", "memory")} == {"ok"}
    match = re.search(r"fdatasync takes ([\d.]+) (ms|µs).* ([\d,]+) a second", found["sync"]["text"])
    assert match is not None
    took_s = float(match[1]) * (1e-3 if match[2] == "ms" else 1e-6)
    assert int(match[3].replace(",", "")) == pytest.approx(1 / took_s, rel=0.6)
    assert not place.exists()


def test_doctor_beside_a_running_server_disturbs_nothing(server: ServerProcess) -> None:
    env = {"BUSD_TCP": server.address, "BUSD_UNIX": str(server.unix)}
    until(lambda: (server.data / "reserve").exists(), "it has all its files")
    before = sorted(os.listdir(server.data))
    found = doctor(server.data, env=env)
    assert found["lock"]["verdict"] == "note"
    assert str(server.pid) in found["lock"]["text"]
    assert f"process {server.pid} listens" in found["sockets"]["text"]
    assert sorted(os.listdir(server.data)) == before
    assert server.ask(b"PUB t x\n") == b":1\n"


def test_doctor_says_what_is_bad(short_dir: Path) -> None:
    (short_dir / "file").write_text("no directory")
    assert doctor(short_dir / "file", status=1)["data"]["verdict"] == "bad"
    shm = Path("/dev/shm")
    if shm.is_dir():
        place = shm / f"busd-doctor-{os.getpid()}"
        found = doctor(place, status=1, env={"BUSD_TCP": "127.0.0.1:0"})
        assert "a power cut takes everything" in found["data"]["text"]
        assert not place.exists()


def test_doctor_tells_of_few_descriptors_and_dead_sockets(short_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(short_dir / "s"))
    command = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *BUSD, "doctor", "--data", str(short_dir / "d"), "--json"]
    env = environment({"BUSD_TCP": "127.0.0.1:0", "BUSD_UNIX": str(short_dir / "s")})
    told = subprocess.run(command, capture_output=True, env=env, timeout=60, check=True)
    found = {one["name"]: one for one in json.loads(told.stdout)}
    assert found["descriptors"]["verdict"] == "note"
    assert found["descriptors"]["text"].startswith("256 descriptors")
    assert "will be replaced" in found["sockets"]["text"]


def test_doctor_tells_of_stores_that_do_not_fit(short_dir: Path) -> None:
    data, config = short_dir / "d", short_dir / "busd.toml"

    def descriptors(limit: int, rule: str, topics: int = 100_000) -> tuple[str, str]:
        config.write_text(f'[limits]\nconnections = 50\ntopics = {topics}\n[[store]]\nmatch = "a.>"\nname = "{rule}"\n')
        command = ["prlimit", f"--nofile={limit}:{limit}", *BUSD, "doctor", "--config", str(config), "--json"]
        env = environment({"BUSD_TCP": "127.0.0.1:0", "BUSD_DATA": str(data)})
        told = subprocess.run(command, capture_output=True, env=env, timeout=60, check=False)
        (found,) = [one for one in json.loads(told.stdout) if one["name"] == "descriptors"]
        return found["verdict"], found["text"]

    assert descriptors(5000, "a")[0] == "ok"
    verdict, text = descriptors(5000, "a-{topic}")
    assert (verdict, "of which 2,451 fit" in text) == ("note", True)
    assert descriptors(5000, "a-{topic}", 1000)[0] == "ok"
    for number in range(60):
        (data / "logs" / f"a-{number}").mkdir(parents=True)
        (data / "logs" / f"a-{number}" / f"{number + 1:020d}.log").touch()
    (data / "logs" / "empty").mkdir()
    verdict, text = descriptors(167, "a")
    assert (verdict, "the 60 stores need 168 to start" in text) == ("bad", True)
    verdict, text = descriptors(168, "a")
    assert (verdict, "there are 60 stores, and none is made beyond 35" in text) == ("note", True)


def test_a_stuck_disk_is_seen(make_server: MakeServer, short_dir: Path) -> None:
    """A commit that does not come back: INFO answers, and says so.  The stop ends in time, and says what it left."""
    stall = short_dir / "stall.py"
    stall.write_text(
        "import os, time\nreal = os.fdatasync\n"
        "def slow(fd):\n    time.sleep(60 if os.path.exists(os.environ['STALL']) else 0)\n    real(fd)\n"
        "os.fdatasync = slow\nfrom busd.wiring.cli import main\nmain()\n"
    )

    class Stalling(ServerProcess):
        def command(self) -> list[str]:
            return [super().command()[0], str(stall), *super().command()[3:]]

    stalling = Stalling(short_dir, [], {"STALL": str(short_dir / "now"), "BUSD_STOP": "2s"})
    with contextlib.closing(stalling) as server:
        server.start()
        assert server.ask(b"PUB t kept\n") == b":1\n"
        (short_dir / "now").touch()
        with server.connect() as publisher:
            publisher.sendall(b"PUB t stuck\n")
            until(
                # The reserve may be unmade still: it waits for the same disk.
                lambda: b"\nstatus=failing\nsync=the disk has not finished" in server.ask(b"INFO health\n"),
                "said",
            )
            assert server.ask(b"READ t\n").splitlines()[0] == b"MSG t 1 kept"
            began = time.monotonic()
            assert server.stop() == 1
            assert time.monotonic() - began < 4
        assert "error: stopped unclean" in server.log()
        (short_dir / "now").unlink()
        server.start()
        assert server.ask(b"READ t\n").splitlines()[0] == b"MSG t 1 kept"
