"""The other commands of `busd`: looking, managing, serving, the files; and what a terminal gets."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest

from busd.wiring.cli import cli
from tests.support.commands import BUSD, Busd, on_terminal
from tests.support.server import ServerProcess
from tests.support.tools import run

# Looking and managing


def test_topics_info_ping(busd: Busd) -> None:
    busd("pub", "b", "--eof", "-m", "1")
    busd("pub", "a.x", "-m", "2")
    assert busd("topics").stdout == b"a.x\t1\t3\topen\nb\t1\t2\tended\n"
    assert busd("topics", "a.*").stdout == b"a.x\t1\t3\topen\n"
    assert json.loads(busd("topics", "b", "--json").stdout) == [
        {"topic": "b", "messages": 1, "last": 2, "state": "ended"}
    ]
    assert b"next=4\n" in busd("info", "log").stdout
    assert json.loads(busd("info", "--json").stdout)["next"] == 4
    assert busd("ping").stdout.startswith(b"PONG from 127.0.0.1:")


def test_reset(busd: Busd) -> None:
    busd("pub", "t", given=b"1\n2\n")
    assert busd("reset", "t", "--yes").stdout == b"2\n"
    assert busd("read", "t").stdout == b""


def test_version_and_help(busd: Busd) -> None:
    assert busd("--version").stdout.startswith(b"busd ")
    listed = busd("--help").stdout
    names = cli.list_commands(click.Context(cli))
    assert len(names) > 15
    for name in names:
        assert re.search(rf"^  {name} ", listed.decode(), re.MULTILINE)
        assert f"busd {name}" in busd(name, "--help").stdout.decode().partition("\n\n")[2]


# A terminal


def test_payloads_cannot_steer_a_terminal(server: ServerProcess, busd: Busd) -> None:
    busd("pub", "t", "--whole", given=b"\x1b[2Jgone")
    env = {"BUSD_ADDRESS": server.address}
    assert on_terminal([*BUSD, "read", "t"], env) == (b"\\x1b[2Jgone\r\n", 0)
    assert busd("read", "t").stdout == b"\x1b[2Jgone\n"


def test_tables_on_a_terminal(server: ServerProcess, busd: Busd) -> None:
    busd("pub", "t", "-m", "x")
    shown, status = on_terminal([*BUSD, "topics"], {"BUSD_ADDRESS": server.address})
    assert status == 0
    assert "─".encode() in shown
    assert b"messages" in shown


@pytest.mark.parametrize(("typed", "kept", "status"), [(b"n\n", b"x\n", 1), (b"y\n", b"", 0)])
def test_reset_asks_on_a_terminal(server: ServerProcess, busd: Busd, typed: bytes, kept: bytes, status: int) -> None:
    busd("pub", "t", "-m", "x")
    shown, ended = on_terminal([*BUSD, "reset", "t"], {"BUSD_ADDRESS": server.address}, typed)
    assert b"Remove 1 messages of 1 topics?" in shown
    assert ended == status
    assert busd("read", "t").stdout == kept


# serve


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sync", "often"], b"sync: 'often' is none of always, interval, never"),
        (["--max-bytes", "3x"], b"[main] max_bytes: '3x' is not a size"),
        (["--no-tcp"], b"there is nothing to listen on"),
        (["--no-tcp", "--tcp", "x"], b"--tcp and --no-tcp exclude each other"),
        (["--config", "/nowhere.toml"], b"/nowhere.toml: No such file or directory"),
        (["--tcp", "1.2.3.4.5:x"], b"tcp: '1.2.3.4.5:x' is not an address"),
    ],
)
def test_bad_settings_are_one_line_and_status_2(tmp_path: Path, words: list[str], said: bytes) -> None:
    done = run([*BUSD, "serve", "--data", str(tmp_path / "d"), *words], status=2)
    assert said in done.stderr
    assert done.stderr.startswith(b"busd: ")
    assert done.stderr.count(b"\n") == 1
    assert not (tmp_path / "d").exists()


def test_a_second_server_on_the_same_data_is_refused(server: ServerProcess) -> None:
    done = run([*BUSD, "serve", "--tcp", "127.0.0.1:0", "--data", str(server.data)], status=2)
    assert str(server.pid).encode() in done.stderr
    assert done.stderr.count(b"\n") == 1


# Files


@pytest.fixture
def directory(server: ServerProcess, busd: Busd) -> str:
    """A data directory with 1,003 messages whose server is down."""
    busd("pub", "a", given=b"".join([b"%d\n" % number for number in range(1000)]))
    busd("pub", "b.x", "-H", "host=web1", "-H", "n=1", "-m", "x1")
    busd("pub", "b.x", "-H", "host=web2", "-m", "x2", "--eof")
    busd("pub", "c", "--whole", given=b"two\nlines")
    server.stop()
    return str(server.data)


def test_cat(directory: str) -> None:
    assert run([*BUSD, "cat", directory, "a"]).stdout == b"".join([b"%d\n" % number for number in range(1000)])
    assert run([*BUSD, "cat", directory, "b.*", "c", "-0"]).stdout == b"x1\0x2\0two\nlines\0"
    assert run([*BUSD, "cat", directory, "--where", "host=web1", "--where", "n=1"]).stdout == b"x1\n"
    assert run([*BUSD, "cat", directory, "--from", "1002", "-f", "line"]).stdout == (
        b"MSG b.x 1002 x2\nESC c 1004 two\\nlines\n"
    )
    first = json.loads(run([*BUSD, "cat", directory, "b.>", "-f", "json"]).stdout.splitlines()[0])
    assert first["headers"] == {"host": "web1", "n": "1"}
    assert run(f"{' '.join(BUSD)} cat {directory} | head -n 1; echo ${{PIPESTATUS[0]}}").stdout[:2] == b"0\n"


def test_verify_finds_nothing_wrong_and_then_the_byte_that_was_changed(directory: str) -> None:
    sound = run([*BUSD, "verify", directory]).stdout
    assert b"1003 messages" in sound
    assert sound.endswith(b": no damage\n")
    assert b"segment" in run([*BUSD, "verify", directory, "-v"]).stdout
    (log,) = Path(directory, "logs", "main").glob("*.log")
    data = bytearray(log.read_bytes())
    data[data.index(b"\r\n500\r\n") + 2] ^= 1
    log.write_bytes(data)
    damaged = run([*BUSD, "verify", directory, "--json"], status=1)
    found = [json.loads(line) for line in damaged.stdout.splitlines()]
    assert [one["path"] for one in found if one["bad"]] == [str(log)]
    assert b"corrupt" in run([*BUSD, "cat", directory], status=3).stderr
    mended = run([*BUSD, "repair", directory]).stdout
    assert f"{log}:".encode() in mended
    assert mended.endswith(b"repaired: no damage is left\n")
    assert b"hole: corrupt, " in run([*BUSD, "verify", directory]).stdout
    assert run([*BUSD, "cat", directory]).stdout.endswith(b"two\nlines\n")
    assert run([*BUSD, "repair", directory]).stdout == b"no damage\n"
    (copy,) = Path(directory, "repaired", "1").iterdir()
    assert copy.read_bytes() == data


@pytest.mark.parametrize("command", ["verify", "cat"])
def test_files_in_use_are_left_alone_unless_forced(server: ServerProcess, busd: Busd, command: str) -> None:
    busd("pub", "t", "-m", "1")
    refused = run([*BUSD, command, str(server.data)], status=2)
    assert str(server.pid).encode() in refused.stderr
    assert refused.stderr.count(b"\n") == 1
    assert b"1" in run([*BUSD, command, str(server.data), "--force"]).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["verify", "/nowhere"], b"does not exist"),
        (["verify", "/tmp"], b"/tmp is not a data directory of busd"),
        (["cat", "/tmp", "a..b"], b"'a..b' is not a pattern"),
        (["cat", "/tmp", "--where", "x"], b"'x' is not NAME=VALUE"),
    ],
)
def test_what_cannot_be_looked_at(words: list[str], said: bytes) -> None:
    done = run([*BUSD, *words], status=2)
    assert said in done.stderr
    assert done.stderr.count(b"\n") == 1
