"""`busd pub`, `sub` and `read` as people and scripts meet them: real processes, pipes and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import BUSD, PATIENCE_S, Busd, Spawned, subscribers
from tests.support.server import ServerProcess
from tests.support.tools import ending, environment, run, until

# pub


def test_lines_in_lines_out(busd: Busd) -> None:
    busd("pub", "t", "--eof", given=b"a\nb\n")
    assert busd("sub", "t", "--from", "first").stdout == b"a\nb\n"


def test_the_last_line_needs_no_line_end_and_cr_is_kept(busd: Busd) -> None:
    busd("pub", "t", given=b"a\r\n\nb")
    assert busd("read", "t", "-0").stdout == b"a\r\0\0b\0"


@pytest.mark.parametrize(
    ("options", "given", "messages"),
    [
        (["--null"], b"a\nb\0c", b"a\nb\0c\0"),
        (["--whole"], b"a\nb\n", b"a\nb\n\0"),
        (["--whole"], b"", b"\0"),
        (["--block", "3"], b"abcdefg", b"abc\0def\0g\0"),
        (["-m", "one", "-m", "two"], b"not read", b"one\0two\0"),
        ([], b"", b""),
    ],
)
def test_other_ways_to_cut_the_input(busd: Busd, options: list[str], given: bytes, messages: bytes) -> None:
    busd("pub", "t", *options, given=given)
    assert busd("read", "t", "-0").stdout == messages


def test_files_and_standard_input_in_order(busd: Busd, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1\n2")
    (tmp_path / "two").write_bytes(b"4\n")
    busd("pub", "t", str(tmp_path / "one"), "-", str(tmp_path / "two"), given=b"3")
    assert busd("read", "t").stdout == b"1\n2\n3\n4\n"


def test_standard_input_may_be_a_file_or_a_device(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"1\n2\n")
    command = f"{' '.join(BUSD)} pub t < {tmp_path / 'lines'} && {' '.join(BUSD)} pub t --offset < /dev/null"
    assert run(command, env={"BUSD_ADDRESS": server.address}).stdout == b"0\n"
    assert run([*BUSD, "read", "t", "-a", str(server.unix)]).stdout == b"1\n2\n"


def test_headers_and_offset(busd: Busd) -> None:
    first = busd("pub", "t", "-H", "unit=C", "-H", "event=5", "-m", "21", "--offset")
    assert first.stdout == b"1\n"
    message = json.loads(busd("read", "t", "--format", "json").stdout.splitlines()[0])
    assert message["headers"] == {"unit": "C", "event": "5"}


def test_a_line_is_sent_as_it_comes(spawn: Callable[..., Spawned], busd: Busd) -> None:
    sub, pub = spawn("sub", "t"), spawn("pub", "t")
    until(lambda: subscribers(busd) == 1, "the subscription is not there")
    for number in range(3):
        pub.write(b"%d\n" % number)
        assert sub.stdout.readline() == b"%d\n" % number
    pub.stdin.close()
    assert pub.wait() == 0


def test_a_refused_message_stops_it_and_is_counted(busd: Busd) -> None:
    done = busd("pub", "a..b", given=b"x\ny\n", status=2)
    assert b"busd: TOPIC: 'a..b' is not a topic" in done.stderr
    assert b"0 messages kept, 2 refused" in done.stderr


def test_a_refused_message_does_not_wait_for_more_input(spawn: Callable[..., Spawned]) -> None:
    pub = spawn("pub", "a..b")
    pub.write(b"x\n")
    assert pub.wait() == 2


def test_nor_for_the_writer_of_a_pipe_that_has_a_name(spawn: Callable[..., Spawned], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    pub = spawn("pub", "a..b", str(tmp_path / "pipe"))
    with open(tmp_path / "pipe", "wb", buffering=0) as pipe:
        pipe.write(b"x\n")
        assert pub.wait() == 2
    assert b"0 messages kept, 1 refused" in pub.stderr.read()


def test_a_pipe_that_has_a_name_is_read_to_its_end(spawn: Callable[..., Spawned], busd: Busd, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    pub = spawn("pub", "t", str(tmp_path / "pipe"), "/dev/null")
    with open(tmp_path / "pipe", "wb", buffering=0) as pipe:
        pipe.write(b"1\n")
        until(lambda: busd("read", "t").stdout == b"1\n", "it is kept")
        pipe.write(b"2\n")
    assert pub.wait() == 0
    assert busd("read", "t").stdout == b"1\n2\n"


def test_nothing_ends_a_stream_that_was_cut_short(busd: Busd) -> None:
    busd("pub", "t", "--eof", "-H", "ttl=soon", "-m", "x", status=2)
    assert busd("topics").stdout == b""


@pytest.mark.parametrize(
    "words",
    [
        ["pub", "t", "--null", "--whole"],
        ["pub", "t", "-m", "x", "/dev/null"],
        ["pub", "t", "--block", "0"],
        ["pub", "t", "--block", "x"],
        ["pub", "t", "-H", "novalue", "-m", "x"],
        ["pub", "t", "-H", "a=1", "-H", "a=2", "-m", "x"],
        ["pub", "t", "/nowhere"],
        ["sub", "t", "--within", "soon"],
        ["sub", "t", "--from", "soon"],
        ["sub", "a..b"],
        ["sub", "t", "--limit", "0"],
        ["sub"],
        ["sub", "t", "-a", "a:b:c"],
        ["pub", "\udcff", "-m", "x"],
        ["pub", "t", "-H", "a=\udcff", "-m", "x"],
        ["sub", "\udcff"],
        ["sub", "\udcff", "-g", "g"],
        ["sub", "t", "--from", "\udcff"],
        ["sub", "t", "-a", "\udcff:1"],
        ["sub", "t", "-a", "a..b:1"],
        ["read", "\udcff"],
        ["topics", "\udcff"],
        ["ping", "-a", "\udcff:1"],
        ["ping", "-a", "/\udcff"],
        ["nosuch"],
        ["reset", "t"],
        ["info", "nosuch"],
    ],
)
def test_a_mistake_is_one_line_and_status_2(shared_busd: Busd, words: list[str]) -> None:
    done = shared_busd(*words, status=2)
    assert done.stdout == b""
    assert done.stderr.startswith(b"busd: ")
    assert done.stderr.count(b"\n") == 1
    # Nothing of it was done.
    assert shared_busd("topics", "t,a.>").stdout == b""


@pytest.mark.parametrize("words", [["pub", "t", "-m", "x"], ["sub", "t"], ["read", "t"], ["ping"], ["topics"]])
def test_where_nobody_is_that_is_said(words: list[str]) -> None:
    done = run([*BUSD, *words, "-a", "127.0.0.1:1"], status=2)
    assert done.stderr == b"busd: no server at 127.0.0.1:1 (Connection refused); `busd serve` starts one\n"


def test_input_that_cannot_be_read_leaves_a_count_and_no_end(busd: Busd, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1\n")
    done = busd("pub", "t", str(tmp_path / "one"), "/proc/self/mem", "--eof", status=2)
    assert done.stderr == b"busd: input: Input/output error; 1 messages kept\n"
    assert busd("topics").stdout == b"t\t1\t1\topen\n"


def test_closed_standard_input(server: ServerProcess) -> None:
    done = run(f"{' '.join(BUSD)} pub t <&-", env={"BUSD_ADDRESS": server.address}, status=2)
    assert done.stderr == b"busd: standard input is closed; give files or --message\n"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("health >&-", 0),
        ("health <&- >&- 2>&-", 0),
        ("ping --address 127.0.0.1:1 2>&-", 2),
        ("pub t -m y <&- >&-", 0),
        ("sub t --from first --limit 1 2>&-", 0),
        # It would acknowledge what nobody got.
        ("sub t -g g --limit 1 >&-", 2),
        ("sub t --from first --limit 1 >&-", 2),
        ("topics >&-", 0),
        ("--help >&-", 0),
        ("reset t <&-", 2),
        ("check consume --journal /dev/null >&-", 2),
    ],
)
def test_a_closed_standard_stream_is_no_fault(server: ServerProcess, busd: Busd, words: str, status: int) -> None:
    busd("pub", "t", "-m", "x")
    done = run(f"{' '.join(BUSD)} {words}", env={"BUSD_ADDRESS": server.address}, status=status, timeout_s=PATIENCE_S)
    assert done.stderr.count(b"\n") == (status == 2 and "2>&-" not in words)
    assert busd("topics").stdout.startswith(b"t\t")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_a_server_without_standard_streams_stops_in_order(short_dir: Path, closed: str) -> None:
    path = short_dir / "s"
    command = f"exec {' '.join(BUSD)} serve --no-tcp --unix {path} --data {short_dir / 'd'} {closed}"
    with ending(subprocess.Popen(["bash", "-c", command], stderr=subprocess.PIPE, env=environment())) as child:
        until(path.exists, "it listens")
        run([*BUSD, "pub", "t", "-m", "x", "-a", str(path)])
        child.terminate()
        assert child.wait(PATIENCE_S) == 0


def test_a_server_that_dies_leaves_a_count(spawn: Callable[..., Spawned], server: ServerProcess, busd: Busd) -> None:
    pub = spawn("pub", "t")
    pub.write(b"a\nb\n")
    until(lambda: busd("read", "t").stdout == b"a\nb\n", "nothing was kept")
    os.kill(server.pid, signal.SIGSTOP)
    pub.write(b"c\n")
    time.sleep(0.3)
    server.kill()
    assert pub.wait() == 2
    assert b"2 messages kept, 1 not answered" in pub.stderr.read()


def test_interrupted_it_says_how_many_were_kept(spawn: Callable[..., Spawned], busd: Busd) -> None:
    pub = spawn("pub", "t")
    pub.write(b"a\n")
    until(lambda: busd("read", "t").stdout == b"a\n", "nothing was kept")
    pub.process.send_signal(signal.SIGINT)
    assert pub.wait() == -signal.SIGINT
    assert pub.stderr.read() == b"busd: interrupted; 1 messages kept\n"


# sub and read


def test_any_number_of_readers_get_the_same(spawn: Callable[..., Spawned], busd: Busd) -> None:
    readers = [spawn("sub", "t", "--slow", "spill") for _ in range(3)]
    until(lambda: subscribers(busd) == 3, "the subscriptions are not there")
    got: list[bytes] = []
    threads = [threading.Thread(target=lambda one=one: got.append(one.stdout.read())) for one in readers]
    for thread in threads:
        thread.start()
    lines = b"".join([b"line %d\n" % number for number in range(50_000)])
    busd("pub", "t", "--eof", given=lines)
    for thread in threads:
        thread.join(PATIENCE_S)
    assert [one.wait() for one in readers] == [0, 0, 0]
    assert [len(one) for one in got] == [len(lines)] * 3
    assert set(got) == {lines}


def test_binary_streams_arrive_as_they_were(busd: Busd) -> None:
    data = os.urandom(1 << 20)
    busd("pub", "t", "--block", "64k", "--eof", given=data)
    assert busd("sub", "t", "--from", "first", "--format", "bytes").stdout == data


def test_it_ends_when_all_named_topics_ended(busd: Busd) -> None:
    busd("pub", "a", "--eof", "-m", "1")
    assert busd("sub", "a,b", "--from", "first", "--within", "300ms").stdout == b"1\n"
    busd("pub", "b", "--eof", "-m", "2")
    assert busd("sub", "a", "b", "--from", "first").stdout == b"1\n2\n"
    assert busd("sub", "a", "b").stdout == b""


@pytest.mark.parametrize(
    ("words", "end"),
    [
        (["--from", "first"], b"EOF t 6\n"),
        (["--from", "first", "--until", "end"], b"END end next=7\n"),
        (["--from", "first", "--limit", "4"], b"END limit next=6\n"),
        (["--last", "4", "--limit", "4"], b"END limit next=6\n"),
    ],
)
def test_what_stands_behind_an_old_end_of_stream_comes_too(busd: Busd, words: list[str], end: bytes) -> None:
    busd("pub", "t", "--eof", given=b"a\nb\n")
    busd("pub", "t", "--eof", given=b"c\nd\n")
    lines = busd("sub", "t", *words, "--format", "line").stdout.splitlines(True)
    assert [line.split()[-1] for line in lines if line.startswith(b"MSG")] == [b"a", b"b", b"c", b"d"]
    assert lines[-1] == end


def test_an_old_end_of_stream_does_not_end_it(spawn: Callable[..., Spawned], busd: Busd) -> None:
    busd("pub", "t", "--eof", "-m", "a")
    busd("pub", "t", "-m", "b")
    busd("pub", "u", "--eof", "-m", "c")
    subs = [spawn("sub", *topics, "--from", "first") for topics in (["t"], ["t", "u"])]
    assert [sub.stdout.readline() for sub in subs for _ in "ab"] == [b"a\n", b"b\n"] * 2
    busd("pub", "t", "--eof", "-m", "d")
    assert [sub.stdout.read() for sub in subs] == [b"d\n", b"c\nd\n"]
    assert [sub.wait() for sub in subs] == [0, 0]


def test_a_pattern_does_not_end(busd: Busd) -> None:
    busd("pub", "a", "--eof", "-m", "1")
    assert busd("sub", "*", "--from", "first", "--limit", "2", "--within", "300ms", status=1).stdout == b"1\n"


@pytest.fixture(scope="module")
def one(shared_busd: Busd) -> str:
    """A topic with one message."""
    shared_busd("pub", "one", "-m", "1")
    return "one"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["sub", "one", "--limit", "1", "--from", "first"], 0),
        (["sub", "one", "--until", "end"], 0),
        (["sub", "one", "--within", "50ms"], 1),
        (["sub", "one", "--within", "50ms", "--from", "first"], 0),
        (["sub", "one", "--within", "50ms", "--from", "first", "--limit", "9"], 1),
        (["read", "one"], 0),
        (["read", "none"], 0),
        (["read", "none", "--within", "50ms"], 1),
        (["read", "one", "--within", "50ms"], 0),
        (["sub", "one", "--from", "99"], 2),
    ],
)
def test_exit_status(shared_busd: Busd, one: str, words: list[str], status: int) -> None:
    shared_busd(*words, status=status)
    assert shared_busd("topics").stdout.startswith(f"{one}\t1\t".encode())


@pytest.mark.parametrize("start", ["first", "next"])
def test_read_waits_for_a_first_message(spawn: Callable[..., Spawned], busd: Busd, start: str) -> None:
    read = spawn("read", "t", "--within", "20s", "--from", start)
    until(lambda: subscribers(busd) == 1, "it does not wait")
    busd("pub", "t", "-m", "late")
    assert read.wait() == 0
    assert read.stdout.read() == b"late\n"


def test_last_and_limit(busd: Busd) -> None:
    busd("pub", "a", given=b"1\n2\n3\n")
    busd("pub", "b", given=b"4\n5\n")
    assert busd("read", ">", "--last", "1").stdout == b"3\n5\n"
    assert busd("read", ">", "--from", "2", "--limit", "3").stdout == b"2\n3\n4\n"


def test_formats(busd: Busd) -> None:
    busd("pub", "t", "--whole", given=b"a\nb")
    assert busd("read", "t", "-f", "line").stdout == b"ESC t 1 a\\nb\nEND end next=2\n"
    assert busd("read", "t", "-f", "offset").stdout == b"1\tt\ta\nb\n"
    stamp, topic, payload = busd("read", "t", "-f", "time").stdout.split(b"\t")
    assert (len(stamp), topic, payload) == (27, b"t", b"a\nb\n")
    message, end = map(json.loads, busd("read", "t", "-f", "json").stdout.splitlines())
    assert (message["payload"], end) == ("a\nb", {"kind": "END", "reason": "end", "next": 2})


def test_output_to_a_file(busd: Busd, tmp_path: Path) -> None:
    lines = b"".join([b"%d\n" % number for number in range(10_000)])
    busd("pub", "t", given=lines)
    assert busd("read", "t", "-o", str(tmp_path / "out")).stdout == b""
    assert (tmp_path / "out").read_bytes() == lines
    assert b"No such file" in busd("read", "t", "-o", "/nowhere/out", status=2).stderr


@pytest.mark.parametrize("words", [["read", "t"], ["read", "t", "-g", "g"], ["sub", "t", "--limit", "1", "-g", "g"]])
def test_output_to_a_minus_is_standard_output(
    server: ServerProcess, busd: Busd, words: list[str], tmp_path: Path
) -> None:
    busd("pub", "t", "-m", "x")
    busd("sub", "t", "-g", "g", "--within", "1ms", "--from", "first", "-o", "/dev/null", status=None)
    busd("seek", "g", "first")
    done = run([*BUSD, *words, "-o", "-"], env={"BUSD_ADDRESS": server.address}, cwd=tmp_path)
    assert done.stdout == b"x\n"
    assert list(tmp_path.iterdir()) == []


def test_a_loss_is_told_and_is_status_3(make_server: Callable[..., ServerProcess]) -> None:
    server = make_server("--segment-bytes", "4k", "--max-messages", "10", "--sync", "never")
    env = {"BUSD_ADDRESS": server.address}
    for _ in range(5):
        run([*BUSD, "pub", "t"], b"x" * 100 + b"\n" + 100 * b"line\n", env=env)

    def trimmed() -> bool:
        return b"lost" in run([*BUSD, "sub", "t", "--from", "1", "--until", "end"], env=env, status=None).stderr

    until(trimmed, "nothing was trimmed")
    done = run([*BUSD, "sub", "t", "--from", "1", "--until", "end"], env=env, status=3)
    assert b"messages of t, offsets 1 to" in done.stderr
    assert b"(trimmed)" in done.stderr


def test_it_goes_on_after_the_server_came_back(
    spawn: Callable[..., Spawned], server: ServerProcess, busd: Busd
) -> None:
    sub = spawn("sub", "t", "--from", "first")
    busd("pub", "t", given=b"1\n2\n")
    assert [sub.stdout.readline() for _ in range(2)] == [b"1\n", b"2\n"]
    server.stop()
    server.start()
    busd("pub", "t", "--eof", given=b"3\n")
    assert sub.stdout.read() == b"3\n"
    assert sub.wait() == 0
    assert b"connecting again" in sub.stderr.readline()


def test_it_dies_quietly_when_its_reader_leaves(server: ServerProcess, busd: Busd) -> None:
    busd("pub", "t", given=b"".join([b"%d\n" % number for number in range(100_000)]))
    command = f"{' '.join(BUSD)} sub t --from first | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = run(command, env={"BUSD_ADDRESS": server.address})
    assert done.stdout == b"0\n141\n"
    assert done.stderr == b""


def test_it_notices_that_its_reader_left_while_all_is_quiet(spawn: Callable[..., Spawned], busd: Busd) -> None:
    sub = spawn("sub", "t")
    until(lambda: subscribers(busd) == 1, "the subscription is not there")
    sub.stdout.close()
    assert sub.wait() == -signal.SIGPIPE
    assert sub.stderr.read() == b""


def test_a_pipe_that_is_open_for_both_is_no_reader_that_left(server: ServerProcess, busd: Busd, tmp_path: Path) -> None:
    busd("pub", "t", "--eof", given=b"1\n2\n")
    os.mkfifo(tmp_path / "pipe")
    command = f"exec 5<>{tmp_path / 'pipe'}; for n in 1 2; do {' '.join(BUSD)} sub t --from first >&5 || exit; done"
    command += "; for n in 1 2 3 4; do read -r line <&5; echo $line; done"
    assert run(command, env={"BUSD_ADDRESS": server.address}, timeout_s=PATIENCE_S).stdout == b"1\n2\n1\n2\n"


def test_ctrl_c(spawn: Callable[..., Spawned], busd: Busd) -> None:
    sub = spawn("sub", "t")
    until(lambda: subscribers(busd) == 1, "the subscription is not there")
    sub.process.send_signal(signal.SIGINT)
    assert sub.wait() == -signal.SIGINT
    assert sub.stderr.read() == b""


def test_a_reader_that_does_not_read_stops_it_and_loses_nothing(spawn: Callable[..., Spawned], busd: Busd) -> None:
    sub = spawn("sub", "t", "--slow", "spill")
    until(lambda: subscribers(busd) == 1, "the subscription is not there")
    lines = b"".join([b"a line that is somewhat longer than the others, number %d\n" % n for n in range(100_000)])
    busd("pub", "t", "--eof", given=lines)
    time.sleep(0.3)
    assert sub.process.poll() is None
    assert sub.stdout.read() == lines
    assert sub.wait() == 0
