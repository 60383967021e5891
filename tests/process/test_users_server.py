"""Users of a running server, as one would use them: every client with a token, refusals, SIGHUP, and a silent log."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.support.certificates import Files, certificates
from tests.support.commands import BUSD
from tests.support.server import ServerProcess, read_all
from tests.support.tools import ROOT, environment, need, run, until
from tests.support.users import peer, secret_of, token_of, user

WEB = user("web", pub=["orders.>"], sub=["orders.>", "news"])
BASH = ROOT / "clients" / "bash" / "busd.sh"


@pytest.fixture
def known(short_dir: Path) -> Path:
    path = short_dir / "users.toml"
    path.touch(0o600)
    path.write_text(WEB)
    return path


@pytest.fixture
def files(short_dir: Path) -> Files:
    return certificates(short_dir / "tls")


@pytest.fixture
def guarded(make_server: MakeServer, known: Path, files: Files) -> ServerProcess:
    """A server with users and TLS."""
    tls = ["--tls", "127.0.0.1:0", "--tls-cert", str(files.cert), "--tls-key", str(files.key)]
    return make_server("--users", str(known), *tls)


def tls_address(server: ServerProcess) -> str:
    """Where it speaks TLS, for clients."""
    port = server.log().partition("tls 127.0.0.1:")[2].partition(",")[0]
    return f"tls:localhost:{port}"


def reload(server: ServerProcess) -> None:
    """SIGHUP, and wait until the users were read, or not taken."""
    seen = server.log().count("users ")
    os.kill(server.pid, signal.SIGHUP)
    until(lambda: server.log().count("users ") > seen, "the users are read")


@pytest.fixture(params=["tcp", "unix", "tls"])
def env(request: pytest.FixtureRequest, guarded: ServerProcess, files: Files) -> dict[str, str]:
    """Variables of a client with a token, for each transport."""
    address = {"tcp": guarded.address, "unix": str(guarded.unix), "tls": tls_address(guarded)}[request.param]
    return {"BUSD_ADDRESS": address, "BUSD_TOKEN": token_of("web"), "BUSD_CAFILE": str(files.ca)}


def test_the_command_line_with_a_token(env: dict[str, str]) -> None:
    assert run([*BUSD, "pub", "orders.1"], b"hello\n", env=env).returncode == 0
    assert run([*BUSD, "read", "orders.>"], env=env).stdout == b"hello\n"
    worked = run([*BUSD, "sub", "-g", "g", "--ack", "--limit", "1", "orders.>"], env=env)
    assert worked.stdout == b"hello\n"
    refused = run([*BUSD, "pub", "secret"], b"x\n", env=env, status=None)
    assert refused.returncode != 0
    assert b"web may not pub secret; its rights: pub orders.>" in refused.stderr


def test_bash_with_a_token(env: dict[str, str]) -> None:
    need("bash")
    need({"/": "nc", "t": "socat"}.get(env["BUSD_ADDRESS"][0], "bash"))
    script = f"""set -eu; . {BASH}
    show() {{ printf '%s\\n' "$4"; }}
    busd_open; busd_pub orders.1 hello >/dev/null
    busd_read orders.1 -- show; busd_sub orders.1 FROM first LIMIT 1 -- show
    busd_pub secret x || echo "status $?"
    busd_close"""
    found = run(["bash", "-c", script], env=env)
    assert found.stdout == b"hello\nhello\nstatus 2\n"
    assert b"busd: DENIED web may not pub secret" in found.stderr
    refused = run(["bash", "-c", f". {BASH}; busd_open; echo $?"], env=env | {"BUSD_TOKEN": "web:guess"})
    assert refused.stdout == b"2\n"
    assert b"AUTH that is no user and its token" in refused.stderr


@pytest.mark.parametrize("how", ["password", "user", "resp3"])
def test_redis_cli_with_a_token(guarded: ServerProcess, how: str) -> None:
    need("redis-cli")
    words = {
        "password": ["-a", token_of("web")],
        "user": ["--user", "web", "--pass", secret_of("web")],
        "resp3": ["-3", "--user", "web", "--pass", secret_of("web")],
    }[how]
    call = ["redis-cli", "-p", str(guarded.port), "--no-auth-warning", *words]
    assert run([*call, "PUB", "orders.1", "x"]).stdout.strip() == b"1"
    assert run([*call, "PUB", "secret", "x"]).stdout.startswith(b"DENIED web may not pub secret")


def test_redis_cli_over_tls(guarded: ServerProcess, files: Files) -> None:
    need("redis-cli")
    call = [
        "redis-cli",
        "--tls",
        "--cacert",
        str(files.ca),
        "-h",
        "localhost",
        "-p",
        tls_address(guarded).split(":")[2],
    ]
    found = run([*call, "--no-auth-warning", "-a", token_of("web"), "PUB", "orders.1", "x"])
    assert found.stdout.strip() == b"1"


def test_openssl_as_a_person_would(guarded: ServerProcess, files: Files) -> None:
    need("openssl")
    where = tls_address(guarded).removeprefix("tls:")
    said = f"AUTH {token_of('web')}\nPUB orders.1 typed\nREAD orders.1\nQUIT\n".encode()
    call = ["openssl", "s_client", "-quiet", "-verify_quiet", "-connect", where, "-CAfile", str(files.ca)]
    assert run([*call, "-verify_return_error"], said).stdout == b"+OK\n:1\nMSG orders.1 1 typed\nEND end next=2\n+OK\n"


def test_a_token_from_a_file(env: dict[str, str], short_dir: Path) -> None:
    path = short_dir / "token"
    path.write_text(token_of("web") + "\n")
    without = {name: value for name, value in env.items() if name != "BUSD_TOKEN"}
    for words, more in ((["--token-file", str(path)], {}), ([], {"BUSD_TOKEN_FILE": str(path)})):
        assert run([*BUSD, "ping", *words], env=without | more).stdout.startswith(b"PONG")
        assert run([*BUSD, "topics", "news", *words], env=without | more).returncode == 0
    missing = run([*BUSD, "ping", "--token-file", "/nowhere"], env=without, status=2)
    assert b"/nowhere: No such file or directory" in missing.stderr


def test_no_token_no_entry(guarded: ServerProcess) -> None:
    found = run([*BUSD, "topics"], env={"BUSD_ADDRESS": guarded.address}, status=2)
    assert found.stderr.startswith(b"busd: AUTH: nobody has said who this is")
    assert guarded.ask(b"PUB orders.1 x\n").startswith(b"-AUTH nobody has said who this is")


def test_a_server_that_nobody_knows_is_not_trusted(guarded: ServerProcess) -> None:
    env = {"BUSD_ADDRESS": tls_address(guarded), "BUSD_TOKEN": token_of("web")}
    found = run([*BUSD, "ping"], env=env, status=2)
    assert b"its certificate is not to be trusted" in found.stderr
    plain = run([*BUSD, "ping"], env={"BUSD_ADDRESS": f"tls:{guarded.address}"}, status=2)
    assert b"TLS failed: wrong version number" in plain.stderr


def test_a_process_of_the_machine_is_known_by_the_kernel(make_server: MakeServer, known: Path) -> None:
    uid = os.geteuid()
    known.write_text(peer(f"uid = {uid}", pub=["local"], sub=["local"], admin=[">"]))
    server = make_server("--users", str(known))
    env = {"BUSD_ADDRESS": str(server.unix)}
    assert run([*BUSD, "pub", "local"], b"x\n", env=env).returncode == 0
    told = run([*BUSD, "pub", "other"], b"x\n", env=env, status=None).stderr
    assert f"uid:{uid} may not pub other".encode() in told
    need("nc")
    conns = run(["nc", "-N", "-U", str(server.unix)], b"CONNS\n").stdout
    assert f"user=uid:{uid}".encode() in conns
    # The same process by TCP is a stranger.
    assert server.ask(b"PUB local x\n").startswith(b"-AUTH")
    assert server.unix.stat().st_mode & 0o777 == 0o660


def test_sighup_reads_the_users_again(guarded: ServerProcess, known: Path) -> None:
    with guarded.connect() as web, guarded.connect() as other:
        web.sendall(f"AUTH {token_of('web')}\nSUB orders.> \n".encode())
        assert web.recv(1000).startswith(b"+OK")
        other.sendall(f"AUTH {token_of('web')}\nSUB news\n".encode())
        until(lambda: guarded.ask(f"AUTH {token_of('web')}\nPING\n".encode()).endswith(b"PONG\n"), "it answers")
        known.write_text(user("web", pub=["orders.>"], sub=["news"]))
        os.kill(guarded.pid, signal.SIGHUP)
        until(lambda: "users read" in guarded.log(), "the users are read")
        web.settimeout(10)
        until(lambda: b"END denied next=1\n" in web.recv(1000), "it is told")
        # A file that cannot be used changes nothing.
        known.write_text("user = [")
        os.kill(guarded.pid, signal.SIGHUP)
        until(lambda: "users not read, they stay as they were" in guarded.log(), "the log says so")
        assert guarded.ask(f"AUTH {token_of('web')}\nPUB orders.1 x\n".encode()) == b"+OK\n:1\n"
        known.write_text(user("mail"))
        os.kill(guarded.pid, signal.SIGHUP)
        assert read_all(web).endswith(b"-AUTH this user, or its token, is no more; say AUTH with another\n")
        assert b"END denied next=1\n-AUTH" in read_all(other)
    assert guarded.ask(f"AUTH {token_of('web')}\n".encode()).startswith(b"-AUTH")
    assert guarded.ask(f"AUTH {token_of('mail')}\n".encode()) == b"+OK\n"


def test_a_subscriber_of_the_command_line_is_told(
    guarded: ServerProcess, known: Path, spawn_with: Callable[..., subprocess.Popen[bytes]]
) -> None:
    reader = spawn_with({"BUSD_ADDRESS": guarded.address, "BUSD_TOKEN": token_of("web")}, "sub", "orders.>")
    ask = f"AUTH {token_of('root')}\nCONNS\n".encode()
    known.write_text(WEB + user("root", admin=[">"]))
    os.kill(guarded.pid, signal.SIGHUP)
    until(lambda: b"sub=orders.>" in guarded.ask(ask), "it reads")
    known.write_text(user("web", sub=["news"]))
    os.kill(guarded.pid, signal.SIGHUP)
    _, told = reader.communicate(timeout=20)
    assert reader.returncode == 2
    assert told.startswith(b"busd: DENIED: the users of the server were changed, and this may not be read on from")


@pytest.fixture
def spawn_with(request: pytest.FixtureRequest) -> Callable[..., subprocess.Popen[bytes]]:
    """Starts `busd …` with variables of its own."""

    def start(env: dict[str, str], *words: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*BUSD, *words], env=environment(env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
        )

        def end() -> None:
            with process:
                process.kill()

        request.addfinalizer(end)
        return process

    return start


def test_nothing_secret_is_in_the_log(guarded: ServerProcess, known: Path) -> None:
    """Whatever clients do with it, and whatever is wrong with the file."""
    record = WEB.partition('"')[2].partition('"')[0]
    token = token_of("web")
    for said in (
        f"AUTH {token}",
        f"AUTH {token} x y",
        f"AUTH{token}",
        f"HELLO 3 AUTH web {token}",
        f"{token}",
        f"PING {token}",
        f"HELLO {token}",
        f"*2\r\n$4\r\nAUTH\r\n${len(token)}x\r\n{token}",
    ):
        guarded.ask(said.encode() + b"\n")
        with guarded.connect() as cut:
            cut.sendall(said.encode())
    for text in (WEB.replace("pub", "pug"), WEB.replace(record, token), WEB + "[[peer]]\nuid = 'x'", WEB):
        known.write_text(text)
        reload(guarded)
    log = guarded.log()
    for secret in (secret_of("web"), record, record.rpartition(":")[2], "PRIVATE KEY"):
        assert secret not in log
    assert re.search("sha256:[0-9a-f]", log) is None, "a hash"


REFUSED: list[tuple[list[str], str]] = [
    (["--tcp", "0.0.0.0:0"], "tcp: 0.0.0.0:0 can be reached from other machines, and without users everybody"),
    (["--tcp", "[::]:0"], "tcp: [::]:0 can be reached from other machines"),
    (["--tls", "0.0.0.0:0", "--tls-cert", "c", "--tls-key", "k"], "tls: 0.0.0.0:0 can be reached from other machines"),
    (["--users", "/nowhere/users.toml"], "/nowhere/users.toml: No such file or directory"),
    (["--tls", "127.0.0.1:0", "--tls-cert", "/nowhere", "--tls-key", "k"], "tls_cert: /nowhere: No such file"),
    (["--tls", "127.0.0.1:0"], "tls: tls_cert is missing"),
]


@pytest.mark.parametrize(("words", "told"), REFUSED)
def test_servers_that_refuse_to_start(short_dir: Path, words: list[str], told: str) -> None:
    base = ["--data", str(short_dir / "data"), "--tcp", "127.0.0.1:0"]
    found = run([*BUSD, "serve", *base, *words], status=2)
    assert found.stderr.decode().startswith(f"busd: {told}")
    # Not even a directory was made.
    assert not (short_dir / "data").exists()


def test_a_file_that_everybody_reads_is_refused(short_dir: Path, known: Path) -> None:
    known.chmod(0o644)
    base = ["--data", str(short_dir / "data"), "--tcp", "127.0.0.1:0", "--users", str(known)]
    found = run([*BUSD, "serve", *base], status=2)
    assert b"others may read or change it (mode 0644); chmod 600" in found.stderr


def test_an_address_that_others_reach_with_users_is_served_and_warned_of(make_server: MakeServer, known: Path) -> None:
    server = make_server("--tcp", "0.0.0.0:0", "--users", str(known))
    # It is ready before it warns.
    until(lambda: "warning: not encrypted, tcp 0.0.0.0:" in server.log(), "it warns")
    assert server.ask(b"PUB orders.1 x\n").startswith(b"-AUTH")
    # Loopback or not: with users it is they who count.
    assert server.ask(f"AUTH {token_of('web')}\nPUB orders.1 x\n".encode()) == b"+OK\n:1\n"
