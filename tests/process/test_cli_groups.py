"""`busd sub --group`, `run`, `groups`, `seek`, `forget`, `dead`: as a user types them, with a real server."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

from tests.support.commands import Busd, Spawned
from tests.support.server import ServerProcess, read_lines
from tests.support.tools import until

Spawn = Callable[..., Spawned]


def told(busd: Busd, group: str = "g") -> dict[str, str | int]:
    """The row of a group."""
    (row,) = json.loads(busd("groups", group, "--json").stdout)
    return dict(row)


# sub --group and read --group


def test_each_message_is_printed_by_one_and_settled(busd: Busd) -> None:
    busd("pub", "t", given=b"a\nb\nc\n")
    assert busd("sub", "t", "-g", "g", "--limit", "2").stdout == b"a\nb\n"
    assert busd("read", "t", "-g", "g").stdout == b"c\n"
    assert busd("read", "t", "-g", "g").stdout == b"c\n"
    assert (told(busd)["settled"], told(busd)["lag"]) == (3, 1)
    assert busd("sub", "t", "-g", "g", "--within", "200ms").stdout == b"c\n"
    assert busd("sub", "t", "-g", "other", "--limit", "1", "--from", "3").stdout == b"c\n"


def test_nothing_in_time_is_status_1(busd: Busd) -> None:
    assert busd("sub", "t", "-g", "g", "--within", "50ms", status=1).stdout == b""
    assert busd("read", "t", "-g", "g", "--within", "50ms", status=1).stdout == b""


def test_it_ends_with_its_topics(busd: Busd) -> None:
    busd("pub", "t", "--eof", given=b"a\nb\n")
    assert busd("sub", "t", "-g", "g").stdout == b"a\nb\n"


def test_formats_show_the_token(busd: Busd, server: ServerProcess) -> None:
    busd("pub", "t", given=b"a\nb\n")
    with server.connect() as member:
        member.sendall(b"SUB t GROUP g WINDOW 2\n")
        read_lines(member, 3)
    shown = busd("sub", "t", "-g", "g", "-f", "line", "--limit", "1").stdout
    assert shown == b"MSG t 1.2 a\nEND limit next=3\n"
    row = json.loads(busd("sub", "t", "-g", "g", "-f", "json", "--within", "100ms").stdout.splitlines()[0])
    assert (row["token"], row["try"], row["payload"]) == ("2.2", 2, "b")


def test_what_a_pipe_does_not_take_is_not_settled(spawn: Spawn, busd: Busd) -> None:
    busd("pub", "t", "--block", "64k", given=bytes(40 * 65_536))
    reader = spawn("sub", "t", "-g", "g", "-f", "bytes", "--window", "10", "--wait", "300ms")
    assert len(reader.stdout.read(65_536)) == 65_536
    until(lambda: told(busd)["in_flight"] == 10, "a full window")
    # Longer than its WAIT, and it is slow, not gone: nobody else gets what it has.
    shown = busd("sub", "t", "-g", "g", "-f", "line", "--limit", "1", "--within", "1s", "--wait", "1m").stdout
    assert b"." not in shown.split()[2]
    assert told(busd)["expired"] == 0
    reader.process.kill()
    reader.wait()
    until(lambda: told(busd)["members"] == 0, "its place is free")
    assert int(told(busd)["lag"]) > 20


def test_options_that_do_not_go_together(busd: Busd) -> None:
    for words in (["--last", "3"], ["--until", "end"], ["--slow", "drop"]):
        assert b"not for groups" in busd("sub", "t", "-g", "g", *words, status=2).stderr
    for words in (["--window", "3"], ["--wait", "3s"], ["--tries", "3"]):
        assert b"are for --group" in busd("sub", "t", *words, status=2).stderr
    assert b"is not a group's name" in busd("sub", "t", "-g", "a.b", status=2).stderr


# run


def test_a_command_gets_the_message(busd: Busd) -> None:
    busd("pub", "jobs.a", "--eof", "-H", "Some-Tag=x y", "-m", "pay\nload")
    script = 'cat; echo; echo "$BUSD_TOPIC $BUSD_OFFSET $BUSD_TRY $BUSD_GROUP $BUSD_HEADER_SOME_TAG ${#BUSD_TIME}"'
    shown = busd("run", "jobs.a", "-g", "g", "--until-eof", "--", "sh", "-c", script).stdout
    assert shown == b"pay\nload\njobs.a 1 1 g x y 19\n"
    assert told(busd)["lag"] == 0


def test_what_fails_comes_again_and_dies(busd: Busd) -> None:
    busd("pub", "jobs.a", "--eof", given=b"good\nbad\nkilled\n")
    script = "read -r job; case $job in bad) exit 3;; killed) kill -9 $$;; esac"
    done = busd("run", "jobs.a", "-g", "g", "--tries", "2", "--jobs", "3", "--until-eof", "--", "bash", "-c", script)
    assert set(done.stderr.decode().splitlines()) == {
        f"busd: jobs.a {token}: {reason}, given back"
        for token, reason in (("2", "exit 3"), ("2.2", "exit 3"), ("3", "signal 9"), ("3.2", "signal 9"))
    }
    rows = [line.split("\t") for line in busd("dead", "list", "g").stdout.decode().splitlines()]
    assert sorted((group, topic, tries, reason) for _, group, topic, tries, _, reason in rows) == [
        ("g", "jobs.a", "2", "exit 3"),
        ("g", "jobs.a", "2", "signal 9"),
    ]


def test_a_command_that_cannot_be_started_is_told(busd: Busd, tmp_path: Path) -> None:
    busd("pub", "t", "--eof", "-m", "x")
    (tmp_path / "script").write_text("echo no line that says whose script it is")
    (tmp_path / "script").chmod(0o755)
    done = busd("run", "t", "-g", "g", "--tries", "1", "--until-eof", "--", f"{tmp_path}/script")
    reason = f"{tmp_path}/script: Exec format error"
    assert done.stderr.decode() == f"busd: t 1: {reason}, given back\n"
    assert busd("dead", "list", "g").stdout.decode().rstrip("\n").endswith(f"\t{reason}")


def test_75_is_not_told(busd: Busd) -> None:
    busd("pub", "t", "--eof", "-m", "x")
    script = '[ "$BUSD_TRY" = 2 ] || exit 75; echo "again $(cat)"'
    done = busd("run", "t", "-g", "g", "--until-eof", "--", "sh", "-c", script)
    assert (done.stdout, done.stderr) == (b"again x\n", b"")


def test_so_many_at_a_time(busd: Busd, tmp_path: Path) -> None:
    busd("pub", "t", "--eof", given=b"1\n2\n3\n4\n")
    # Each waits until another one is there: alone it would wait for ever.
    script = f"cd {tmp_path}; touch $BUSD_OFFSET; while [ $(ls | wc -l) -lt 2 ]; do sleep 0.01; done"
    busd("run", "t", "-g", "g", "--jobs", "2", "--until-eof", "--", "sh", "-c", script)
    assert told(busd)["lag"] == 0


def test_a_signal_lets_end_what_runs(spawn: Spawn, busd: Busd, tmp_path: Path) -> None:
    busd("pub", "t", given=b"1\n2\n")
    script = f"touch {tmp_path}/begun; while ! test -e {tmp_path}/go; do sleep 0.01; done; echo done $BUSD_OFFSET"
    runner = spawn("run", "t", "-g", "g", "--", "sh", "-c", script)
    until(lambda: (tmp_path / "begun").exists(), "a job runs")
    runner.process.send_signal(signal.SIGTERM)
    assert runner.stderr.readline() == b"busd: waiting for 1 to end; once more kills them\n"
    (tmp_path / "go").touch()
    assert (runner.wait(), runner.stdout.read()) == (0, b"done 1\n")
    assert told(busd)["settled"] == 2
    # The stop cost the second one no try.
    assert busd("sub", "t", "-g", "g", "--ack", "--limit", "1", "-f", "line").stdout.startswith(b"MSG t 2 2\n")


def test_a_second_signal_kills_it_and_the_message_goes_back(spawn: Spawn, busd: Busd, tmp_path: Path) -> None:
    busd("pub", "t", given=b"1\n")
    runner = spawn("run", "t", "-g", "g", "--", "sh", "-c", f"echo $$ >{tmp_path}/pid; exec sleep 1000")
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "", "a job runs")
    runner.process.send_signal(signal.SIGTERM)
    runner.stderr.readline()
    runner.process.send_signal(signal.SIGTERM)
    assert runner.wait() == 128 + signal.SIGTERM
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not Path(f"/proc/{pid}").exists(), "the job is gone")
    until(lambda: told(busd)["members"] == 0, "its place is free")
    assert busd("sub", "t", "-g", "g", "--limit", "1", "-f", "line").stdout.startswith(b"MSG t 1.2 1\n")


def test_it_waits_for_a_server_that_comes_back(spawn: Spawn, busd: Busd, server: ServerProcess) -> None:
    busd("pub", "t", "-m", "1")
    runner = spawn("run", "t", "-g", "g", "--", "cat")
    assert runner.stdout.read(1) == b"1"
    until(lambda: told(busd)["lag"] == 0, "it is settled")
    server.kill()
    assert b"connecting again" in runner.stderr.readline()
    server.start()
    busd("pub", "t", "-m", "2")
    assert runner.stdout.read(1) == b"2"


def test_mistakes(busd: Busd) -> None:
    assert b"there is no such command" in busd("run", "t", "-g", "g", "--", "no-such-command", status=2).stderr
    assert b"--until-eof" in busd("run", "t.>", "-g", "g", "--until-eof", "--", "cat", status=2).stderr
    assert b"--group" in busd("run", "t", "--", "cat", status=2).stderr
    busd("sub", "t", "-g", "g", "--within", "1ms", status=1)
    assert b"GROUP: g reads t" in busd("run", "u", "-g", "g", "--", "cat", status=2).stderr


# groups, seek, forget


def test_looking_and_moving(busd: Busd, server: ServerProcess) -> None:
    busd("pub", "t", given=b"a\nb\n")
    busd("sub", "t", "-g", "g", "--limit", "2")
    assert busd("groups").stdout.startswith(b"g\tpatterns=t\tmembers=0\t")
    assert busd("seek", "g", "2").stdout == b"2\n"
    assert busd("sub", "t", "-g", "g", "--limit", "1").stdout == b"b\n"
    assert busd("seek", "g", "-1h").stdout == b"1\n"
    assert busd("seek", "-1h", "--address", server.address, "g").stdout == b"1\n"
    assert busd("seek", "--", "g", "-1h").stdout == b"1\n"
    assert b"No such option '--adress'" in busd("seek", "g", "-1h", "--adress", "x", status=2).stderr
    assert busd("sub", "t", "-g", "g", "--limit", "2").stdout == b"a\nb\n"
    busd("forget", "g")
    assert busd("groups").stdout == b""
    assert b"there is no group g" in busd("forget", "g", status=2).stderr


# dead


def test_dead_letters(busd: Busd) -> None:
    for topic in ("a", "b"):
        busd("pub", topic, "--eof", "-H", "unit=C", "-m", f"of {topic}")
        busd("run", topic, "-g", topic, "--tries", "1", "--until-eof", "--", "sh", "-c", "exit 4")
    listed = json.loads(busd("dead", "list", "--json").stdout)
    assert [(one["group"], one["topic"], one["tries"], one["reason"]) for one in listed] == [
        ("a", "a", "1", "exit 4"),
        ("b", "b", "1", "exit 4"),
    ]
    offset = str(listed[0]["offset"])
    shown = busd("dead", "show", offset).stdout.decode()
    assert shown.startswith("topic: _dead.a.a\n")
    assert shown.endswith("reason: exit 4\noffset: 1\nunit: C\n\nof a")
    assert busd("dead", "retry", "--offset", offset).stdout == b"1\n"
    again = json.loads(busd("read", "a", "--last", "1", "-f", "json").stdout.splitlines()[0])
    assert (again["payload"], again["headers"]) == ("of a", {"unit": "C", "id": f"retry:{offset}"})
    assert [one["group"] for one in json.loads(busd("dead", "list", "--json").stdout)] == ["b"]
    assert busd("dead", "list", "a").stdout == b""
    assert b"to be retried" in busd("dead", "retry", "--offset", offset, status=1).stderr
    assert busd("dead", "retry").stdout == b"1\n"
    assert busd("dead", "retry").stdout == b"0\n"
    assert busd("dead", "list").stdout == b""


def test_no_dead_letter(busd: Busd) -> None:
    assert b"no dead letter at 7" in busd("dead", "show", "7", status=1).stderr
