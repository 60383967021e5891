"""Workers of a group in bash, with nc and with socat, as one writes them after a look at protocol.md."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.support.server import ServerProcess
from tests.support.shells import MakeShell
from tests.support.tools import need, run, until

# Of each worker: `reply` tells busd, `payload` undoes the escapes of ESC.
HEAD = """
coproc busd { %s; }
exec 3<&"${busd[0]}" 4>&"${busd[1]}"
reply() { printf '%%s\\n' "$*" >&4; }
payload() { case $kind in ESC) printf '%%b' "$rest" ;; *) printf '%%s' "$rest" ;; esac; }
"""


@pytest.fixture(params=["nc", "socat"])
def connect(request: pytest.FixtureRequest, server: ServerProcess) -> str:
    """A command that is a connection to the server."""
    need("bash", request.param)
    return {"nc": f"nc 127.0.0.1 {server.port}", "socat": f"socat - UNIX-CONNECT:{server.unix}"}[request.param]


def worker(connect: str, subscribe: str, handle: str) -> str:
    """A script: joins, and does `handle` with each message."""
    loop = f'while IFS= read -r line <&3; do read -r kind topic token rest <<<"$line"; {handle}\ndone'
    return HEAD % connect + f"reply '{subscribe}'\n{loop}\n"


def publish(server: ServerProcess, topic: str, count: int) -> None:
    lines = b"".join(b"PUB %b job %d\n" % (topic.encode(), number) for number in range(count))
    assert server.ask(lines).count(b":") == count


def test_workers_share_the_work_and_acknowledge_it(server: ServerProcess, connect: str, shell: MakeShell) -> None:
    script = worker(
        connect,
        "SUB jobs.> GROUP g",
        'case $kind in MSG|ESC) payload; echo " $token"; reply "ACK $token" ;; EOF) exit 0 ;; esac',
    )
    workers = [shell(script) for _ in range(3)]
    until(lambda: b" members=3 " in server.ask(b"GROUPS g\n"), "all have joined")
    publish(server, "jobs.a", 200)
    assert server.ask(b"EPUB jobs.a two\\nlines \n") == b":201\n"
    until(lambda: b" settled=202 " in server.ask(b"GROUPS g\n"), "all is done")
    told = [one.so_far for one in workers]
    assert Counter(b"".join(told).splitlines()) == Counter(
        [b"job %d %d" % (number, number + 1) for number in range(200)] + [b"two", b"lines  201"]
    )
    assert all(told), "one had nothing to do"


def test_a_worker_that_is_killed_loses_nothing(server: ServerProcess, connect: str, shell: MakeShell) -> None:
    publish(server, "jobs", 5)
    # It takes the first and gets no further.
    stuck = shell(worker(connect, "SUB jobs GROUP g WINDOW 3", '[ $kind = MSG ] && echo "$token"'))
    until(lambda: stuck.so_far.count(b"\n") == 3, "it has three")
    heir = shell(
        worker(connect, "SUB jobs GROUP g", '[ $kind = MSG ] && { payload; echo " $token"; reply "ACK $token"; }')
    )
    until(lambda: heir.so_far.count(b"\n") == 2, "another has the rest")
    stuck.close()
    until(lambda: heir.so_far.count(b"\n") == 5, "what it had came to the other")
    assert stuck.so_far == b"1\n2\n3\n"
    # In order, and marked.
    assert heir.so_far == b"job 3 4\njob 4 5\njob 0 1.2\njob 1 2.2\njob 2 3.2\n"
    until(lambda: b" lag=0 " in server.ask(b"GROUPS g\n"), "all is done")


def test_a_worker_gives_back_what_it_cannot_do(server: ServerProcess, connect: str, shell: MakeShell) -> None:
    publish(server, "jobs", 3)
    handle = """
        case $kind in
            -*) echo "$line" ;;
            MSG) case $rest in
                     *1) reply "NACK $token DELAY 10ms exit status 3" ;;
                     *) echo "$rest"; reply "TOUCH $token"; reply "ACK $token" ;;
                 esac ;;
        esac
    """
    one = shell(worker(connect, "SUB jobs GROUP g TRIES 4", handle))
    until(lambda: b" lag=0 " in server.ask(b"GROUPS g\n"), "all is settled")
    assert one.so_far == b"job 0\njob 2\n"
    letter = server.ask(b"READ _dead.g.jobs FORMAT json\n")
    assert b'"payload":"job 1"' in letter
    assert b'"tries":"4","reason":"exit status 3","offset":"2"' in letter


def test_a_worker_that_takes_in_windows_acknowledges_in_one_go(
    server: ServerProcess, connect: str, shell: MakeShell
) -> None:
    publish(server, "jobs", 100)
    handle = '[ $kind = MSG ] && { echo "$rest"; ((++n % 10)) || reply "ACK ..$token"; }'
    one = shell("n=0\n" + worker(connect, "SUB jobs GROUP g WINDOW 20", handle))
    until(lambda: b" lag=0 " in server.ask(b"GROUPS g\n"), "all is done")
    assert one.so_far.splitlines() == [b"job %d" % number for number in range(100)]


def test_a_single_line_takes_one_message_and_no_more(server: ServerProcess) -> None:
    """What remains of a group is what nobody acknowledged; a pipe that is closed gives back what it had."""
    need("bash", "nc")
    publish(server, "jobs", 2)
    one = f"{{ echo 'SUB jobs GROUP g'; sleep 0.5; }} | nc -N 127.0.0.1 {server.port}"
    assert run(one).stdout == b"+OK next=1 epoch=1\nMSG jobs 1 job 0\n"
    done = (
        f"{{ echo 'SUB jobs GROUP g LIMIT 1'; sleep 0.5; echo 'ACK 1.2'; sleep 0.5; }} | nc -N 127.0.0.1 {server.port}"
    )
    lines = run(done).stdout.splitlines()
    assert lines[:2] == [b"+OK next=2 epoch=1", b"MSG jobs 1.2 job 0"]
    assert sorted(lines[2:]) == [b":1", b"END limit next=2"]
    assert (
        run(f"echo 'READ jobs GROUP g' | nc -N 127.0.0.1 {server.port}").stdout == b"MSG jobs 2 job 1\nEND end next=3\n"
    )


def test_busd_run_and_busd_sub_take_and_acknowledge(server: ServerProcess, tmp_path: Path) -> None:
    publish(server, "jobs", 4)
    at = {"BUSD_ADDRESS": server.address}
    assert run(["busd", "sub", "jobs", "--group", "g", "--limit", "2"], env=at).stdout == b"job 0\njob 1\n"
    assert b" lag=2 " in server.ask(b"GROUPS g\n")
    assert server.ask(b"EOF jobs\n") == b":5\n"
    done = tmp_path / "done"
    run(f"busd run jobs --group g --until-eof -- sh -c 'cat >>{done}; echo >>{done}'", env=at)
    assert done.read_bytes() == b"job 2\njob 3\n"
    assert b" lag=0 " in server.ask(b"GROUPS g\n")
