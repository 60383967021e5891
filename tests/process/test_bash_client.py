"""The bash client against a real server, by TCP and by Unix socket: each script is what a user would write."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.support.server import ServerProcess
from tests.support.tools import ROOT, need, run, until

CLIENT = ROOT / "clients" / "bash" / "busd.sh"
SHOW = 'show() { printf \'%s|%s|%s|%s\\n\' "$1" "$2" "$3" "$4"; }\n'


@contextlib.contextmanager
def scripted(*replies: bytes) -> Iterator[str]:
    """A server that says one thing to each connection, after its first line, and then nothing; its address.

    The last connection ends behind an empty line, which is not said.
    """
    done = threading.Event()

    def serve() -> None:
        with contextlib.ExitStack() as held:
            for reply in replies:
                peer = held.enter_context(listening.accept()[0])
                peer.recv(1000)
                peer.sendall(reply.removesuffix(b"\n\n") + b"\n" * reply.endswith(b"\n\n"))
            if not replies[-1].endswith(b"\n\n"):
                done.wait(30)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            done.set()
            thread.join(30)


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, server: ServerProcess) -> str:
    """Where the server is, by either transport."""
    need("bash")
    if request.param == "unix":
        need("nc")
        return str(server.unix)
    return server.address


def bash(script: str, address: str, given: bytes = b"", status: int | None = 0) -> subprocess.CompletedProcess[bytes]:
    """Run a script that has the client sourced, strict about unset variables and failing commands."""
    head = f"set -eu\n. {CLIENT}\n{SHOW}busd_open\n"
    return run(["bash", "-c", head + script], given, env={"BUSD_ADDRESS": address}, status=status)


def lines(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    """What it printed."""
    return done.stdout.decode().splitlines()


def test_it_is_clean_for_shellcheck() -> None:
    need("shellcheck")
    run(["shellcheck", str(CLIENT)])


def test_publish_and_read(address: str) -> None:
    script = """
    busd_pub news 'hello world'; busd_pub news ''; busd_pub other x
    busd_read news -- show; echo next $BUSD_NEXT; busd_close
    """
    told = bash(script, address)
    assert lines(told) == ["1", "2", "3", "MSG|news|1|hello world", "MSG|news|2|", "next 4"]
    assert told.stderr == b""


AWKWARD = [
    "  two blanks  ",
    "a\\nb",
    "\\",
    "\\0000",
    "line\nline\n",
    "cr\r",
    "\t",
    '&%s $x `y` "z" *',
    "ünï",
    "-x",
    "a\\\nb",
]


def test_a_payload_comes_back_as_it_was(address: str) -> None:
    for payload in AWKWARD:
        script = f'p={shell_quoted(payload)}\nback() {{ [[ $1 == MSG && $4 == "$p" ]] && echo same; }}\n'
        script += 'busd_pub t "$p" >/dev/null\n'
        script += "busd_read t LAST 1 -- back\n"
        assert lines(bash(script, address)) == ["same"], repr(payload)


def shell_quoted(text: str) -> str:
    """The text as $'…' of bash."""
    return "$'" + "".join(f"\\x{byte:02x}" for byte in text.encode()) + "'"


@pytest.mark.parametrize("separators", ["\n\t", ",", "", "0123456789"])
def test_ifs_may_be_anything_and_callbacks_see_that_of_the_caller(address: str, separators: str) -> None:
    script = (
        f"IFS={shell_quoted(separators)}; mine=$IFS\n"
        + """
    back() { [[ $IFS == "$mine" ]] || return 2; show "$@"; [[ $1 != MSG ]] || busd_pub back "$4"; }
    busd_pub news '1,2 3'; seq 2 3 | busd_pub_lines news; busd_command TOPICS news
    busd_read news LAST 1 -- back; busd_sub news FROM 1 LIMIT 2 WITHIN 30s -- back; busd_work g news LIMIT 1 -- back
    busd_close; [[ $IFS == "$mine" ]]
    """
    )
    told = bash(script, address)
    assert told.stderr == b""
    read, first, second = "MSG|news|3|3", "MSG|news|1|1,2 3", "MSG|news|2|2"
    assert lines(told) == [
        "1",
        "3",
        "news messages=3 last=3 state=open",
        read,
        "4",
        first,
        "5",
        second,
        "6",
        first,
        "7",
    ]


def test_nul_comes_escaped_and_whole(address: str, server: ServerProcess) -> None:
    server.ask(b"EPUB t a\\0000b\\\\0000\n")
    told = bash(
        """undo() { printf '%s ' "$1"; printf %b "$4" | od -An -c | tr -s ' '; }\nbusd_read t -- undo""", address
    )
    assert lines(told) == ["ESC  a \\0 b \\ 0 0 0 0"]


def test_lines_go_out_pipelined(address: str, server: ServerProcess) -> None:
    chance = random.Random(3)
    payloads = [
        b"".join(
            chance.choice([b"a", b" ", b"\\", b"\t", b"\r", b"%s", b"-", b"\xff"]) for _ in range(chance.randrange(40))
        )
        for _ in range(2000)
    ]
    told = bash("busd_pub_lines t\nbusd_pub after x", address, b"\n".join(payloads) + b"\nno line end")
    assert lines(told) == ["2001", "2002"]
    back = server.ask(b"READ t FORMAT raw\n")
    assert back == b"\n".join(payloads) + b"\nno line end\n"


def test_a_line_goes_out_when_no_other_is_there(address: str, server: ServerProcess) -> None:
    script = f". {CLIENT}; busd_open; busd_pub_lines t"
    command = ["env", f"BUSD_ADDRESS={address}", "bash", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child, server.connect() as reader:
        assert child.stdin is not None
        reader.sendall(b"SUB t FROM first\n")
        told = reader.makefile("rb")
        assert told.readline().startswith(b"+OK")
        for number in range(3):
            child.stdin.write(b"%d\n" % number)
            child.stdin.flush()
            assert told.readline() == b"MSG t %d %d\n" % (number + 1, number)
        child.stdin.close()


def test_a_refused_line_is_named_and_the_others_go_on(make_server: MakeServer) -> None:
    need("bash")
    server = make_server(env={"BUSD_LIMITS_PAYLOAD_BYTES": "10"})
    told = bash("busd_pub_lines t", server.address, b"one\nmore than ten bytes\nthree\n", status=2)
    assert told.stdout == b"2\n"
    assert re.fullmatch(rb"busd: line 2: TOOBIG .*\n", told.stderr)
    assert server.ask(b"READ t FORMAT raw\n") == b"one\nthree\n"


def test_a_subscription_calls_back_and_publishes_on_the_way(address: str) -> None:
    script = """
    double() { if [[ $1 == MSG ]]; then busd_pub doubled "$4$4" >/dev/null; fi; show "$@"; }
    busd_pub t 1 >/dev/null; busd_pub t 2 >/dev/null; busd_command EOF t
    busd_sub t FROM first UNTIL end -- double
    busd_read doubled -- show
    """
    told = lines(bash(script, address))
    assert told == ["3", "MSG|t|1|1", "MSG|t|2|2", "EOF|t|3|", "MSG|doubled|4|11", "MSG|doubled|5|22"]


def test_a_live_subscription_ends_with_its_number(address: str, server: ServerProcess) -> None:
    def publish() -> None:
        until(lambda: b"sub=t" in server.ask(b"CONNS\n"), "the subscription")
        server.ask(b"PUB t live\nPUB t more\n")

    publisher = threading.Thread(target=publish)
    publisher.start()
    told = bash("busd_sub t LIMIT 1 -- show\necho $BUSD_NEXT", address)
    publisher.join()
    assert lines(told) == ["MSG|t|1|live", "2"]


def test_without_a_callback_the_lines_are_printed(address: str, server: ServerProcess) -> None:
    server.ask(b"PUB t  x \nRESET t\nPUB t y\n")
    assert lines(bash("busd_sub t FROM first UNTIL end", address)) == ["RESET t 2 1", "MSG t 3 y"]


def test_the_status_tells_how_it_ended(address: str, server: ServerProcess) -> None:
    server.ask(b"PUB t x\n")
    for command, status in {
        "busd_sub t WITHIN 20ms": 1,
        "busd_sub t FROM first WITHIN 50ms": 0,
        "busd_sub t FROM first LIMIT 2 WITHIN 50ms": 1,
        "busd_sub t FROM first UNTIL end": 0,
        "busd_read t FROM 77": 2,
        "busd_sub a..b": 2,
        "busd_sub t FORMAT raw": 2,
        "busd_pub 'a b' x": 2,
        "busd_pub t": 2,
        "busd_command SUB t": 2,
        "busd_sub t FROM first -- false": 1,
    }.items():
        done = bash(f"set +e\n{command} >/dev/null; echo $?", address)
        assert lines(done) == [str(status)], command
        assert (b"busd: " in done.stderr) == (status == 2), command


def test_a_gap_is_told_by_the_status() -> None:
    need("bash")
    replies = [b"PONG\n", b"+OK next=1 epoch=1\nGAP t 1 5 5 trimmed\nMSG t 6 x\nEND end next=7\n"]
    with scripted(*replies) as address:
        told = bash("busd_sub t FROM 1 UNTIL end -- show || echo status $?\necho $BUSD_NEXT", address)
    assert lines(told) == ["GAP|t|1|5 5 trimmed", "MSG|t|6|x", "status 3", "7"]


@pytest.mark.parametrize(
    ("events", "place"),
    [
        ("GAP > 1 5000 4000 trimmed\n", 1),
        ("GAP > 1 5000 4000 trimmed\nMSG t 2 x\nGAP > 2 5000 ? trimmed\n", 3),
        ("GAP > 1 5000 4000 slow\n", 5001),
    ],
)
def test_who_is_cut_off_behind_a_gap_goes_on_where_nothing_is_missed(events: str, place: int) -> None:
    need("bash")
    with scripted(b"PONG\n", f"+OK next=1 epoch=1\n{events}\n".encode()) as address:
        told = bash("busd_sub '>' FROM 1 -- show >/dev/null || echo status $?\necho $BUSD_NEXT", address)
    assert lines(told) == ["status 2", str(place)]


def test_a_server_that_goes_away_is_an_error_not_a_death(server: ServerProcess, address: str) -> None:
    script = """set +e
    busd_pub t one; kill -9 $SERVER; sleep 0.2
    busd_pub t two; echo "status $?"; busd_pub t three; echo "status $?"; seq 9 | busd_pub_lines t; echo "status $?"
    """
    told = bash(f"SERVER={server.pid}\n{script}", address)
    assert lines(told) == ["1", "status 2", "status 2", "status 2"]
    assert b"whether the last command was carried out is not known" in told.stderr
    assert b"not connected" in told.stderr
    server.kill()


def test_nobody_there_is_an_error(short_dir: Path) -> None:
    need("bash")
    for place in ("127.0.0.1:1", str(short_dir / "nothing")):
        done = run(["bash", "-c", f". {CLIENT}; busd_open {place}; echo $?"])
        assert done.stdout == b"2\n"
        assert done.stderr.startswith(b"busd: ")


def test_another_server_is_not_taken_for_busd() -> None:
    need("bash")
    with scripted(b"HTTP/1.1 400 Bad Request\r\n") as address:
        done = run(["bash", "-c", f". {CLIENT}; busd_open {address}; echo $?"])
    assert done.stdout == b"2\n"
    assert b"is not busd" in done.stderr


def test_an_answer_that_does_not_come_is_waited_for_only_so_long() -> None:
    need("bash")
    with scripted(b"PONG\n") as address:
        script = f". {CLIENT}; BUSD_TIMEOUT=0.2; busd_open {address}; busd_pub t x; echo $?; busd_pub t y; echo $?"
        done = run(["bash", "-c", script])
    assert done.stdout == b"1\n2\n"
    assert b"no answer within 0.2 s" in done.stderr


def test_the_readme_shows_what_works(server: ServerProcess) -> None:
    need("bash", "nc")
    (block,) = re.findall(r"```sh\n(.*?)```", (CLIENT.parent / "README.md").read_text(), re.DOTALL)
    done = run(f"set -eu\n{block.replace('127.0.0.1:7379', server.address)}")
    told = lines(done)
    assert told[:2] == ["1", "1001"]
    assert told[-3:] == ["news.eu at 1: hello world", "news.eu at 1: hello world", "HELLO WORLD"]
    assert any("numbers messages=1000" in line for line in told)


def test_a_worker_says_what_became_of_each(address: str, server: ServerProcess) -> None:
    script = """
    busd_pub jobs.a done >/dev/null; busd_pub jobs.a bad >/dev/null; busd_pub jobs.a 'not
now' >/dev/null
    work() {
      show "$@"
      case $4 in bad) return 3 ;; not*) [[ $3 == *.* ]] || return 75 ;; esac
    }
    busd_work g 'jobs.>' TRIES 2 LIMIT 5 -- work
    busd_read '_dead.>' -- show
    """
    told = bash(script, address)
    seen = ["jobs.a|1|done", "jobs.a|2|bad", "jobs.a|3|not", "jobs.a|2.2|bad", "jobs.a|3.2|not", "_dead.g.jobs.a|4|bad"]
    assert sorted(lines(told)) == sorted(["now", "now", *[f"MSG|{one}" for one in seen]])
    assert sorted(told.stderr.splitlines()) == [
        b"busd: jobs.a 2.2: exit 3, given back",
        b"busd: jobs.a 2: exit 3, given back",
    ]
    assert b" lag=0 " in server.ask(b"GROUPS\n")


def test_a_worker_that_is_too_late_goes_on(address: str) -> None:
    script = """
    busd_pub t a >/dev/null
    work() { show "$@"; if [[ $3 == 1 ]]; then sleep 0.8; fi; }
    busd_work g t WAIT 500ms LIMIT 2 -- work
    """
    told = bash(script, address)
    assert lines(told) == ["MSG|t|1|a", "MSG|t|1.2|a"]
    assert told.stderr == b"busd: too late: 1 was given to another meanwhile\n"


def test_only_a_worker_acknowledges(address: str) -> None:
    """Whoever reads as a group says nothing of what becomes of it, in the callback of a worker, too."""
    script = """
    busd_pub t one >/dev/null; busd_pub inner two >/dev/null
    leave() { show "$@"; return 3; }
    busd_sub t GROUP g -- leave || :
    job() { show "$@"; busd_sub inner GROUP h -- leave || :; }
    busd_work g t LIMIT 1 -- job
    busd_work h inner LIMIT 1 -- show
    """
    told = lines(bash(script, address))
    assert told == ["MSG|t|1|one", "MSG|t|1.2|one", "MSG|inner|2|two", "MSG|inner|2.2|two"]


def test_a_worker_needs_a_group_and_a_pattern(address: str) -> None:
    for words in ("", "g", "g -- show", "'a b' t"):
        assert b"usage: busd_work" in bash(f"busd_work {words}", address, status=2).stderr
    assert b"GROUP" in bash("busd_work g t LIMIT 1 WITHIN 1ms || :; busd_work g u LIMIT 1", address, status=2).stderr
