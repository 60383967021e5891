"""What people used before, done with busd, as they would do it: filebus, protobus, dnpipes, hopper.

The first word of a test's name is the system; persistent pipes are in test_pipes.py.
BUSD_HOPPER_MESSAGES sets how many messages are queued ahead of a receiver that does not receive (500,000).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from busd_client import Full, channel

from tests.conftest import MakeServer
from tests.support.proc import resident_bytes
from tests.support.server import ServerProcess, read_all, read_lines
from tests.support.shells import MakeShell
from tests.support.tools import environment, need, run, until

MakeStore = Callable[[str], ServerProcess]
HOPPER_MESSAGES = int(os.environ.get("BUSD_HOPPER_MESSAGES", "500000"))
HOPPER_RSS_BYTES = 100 << 20


@pytest.fixture
def store(make_configured: MakeServer) -> MakeStore:
    """A server with these lines in a [[store]]."""
    return lambda lines: make_configured(f"[[store]]\n{lines}\n")


def reader(server: ServerProcess) -> socket.socket:
    """A connection whose buffers are small, unlike those of TCP on one machine."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(server.unix))
    return connection


def asked(connection: socket.socket, command: str) -> bytes:
    """The answer to a command, a line."""
    connection.sendall(command.encode() + b"\n")
    return read_lines(connection, 1)[0]


# filebus: `filebus produce < blocks` on one side and any number of `filebus consume` on the other


def consumer(connect: str) -> str:
    """A member of the group `g` in bash, which prints what it was given and ends with the stream."""
    return f"""
        coproc busd {{ {connect}; }}
        echo 'SUB pipe GROUP g' >&"${{busd[1]}}"
        while IFS=' ' read -r kind topic token block <&"${{busd[0]}}"; do
            case $kind in
                MSG) echo "$block"; echo "ACK $token" >&"${{busd[1]}}" ;;
                EOF) exit 0 ;;
            esac
        done
        exit 1
    """


def test_filebus_gives_each_block_to_one_consumer_and_the_producer_waits(store: MakeStore, shell: MakeShell) -> None:
    need("nc", "socat")
    server = store('name = "pipe"\nmatch = "pipe"\nretain = "acked"\nfull = "block"\nmax_messages = 4')
    count = 300
    # A real producer: all of its lines at once, then the end of the stream, then it waits for the answers.
    producer = shell(f"{{ seq -f 'PUB pipe block %g' {count}; echo 'EOF pipe'; }} | nc -N 127.0.0.1 {server.port}")
    until(lambda: producer.so_far == b":1\n:2\n:3\n:4\n", "the first four are answered")
    time.sleep(0.3)
    # Nobody consumes, so there is no fifth.
    assert producer.so_far == b":1\n:2\n:3\n:4\n"
    assert producer.process.poll() is None
    assert server.ask(b"READ pipe\n").count(b"MSG pipe ") == 4
    nc, socat = f"nc -U {server.unix}", f"socat - UNIX-CONNECT:{server.unix}"
    consumers = [shell(consumer(connect)) for connect in (nc, socat, f"nc 127.0.0.1 {server.port}")]
    # All of them end, because the end of the stream reaches each.
    taken = [one.output().splitlines() for one in consumers]
    answers = [int(line[1:]) for line in producer.output().splitlines()]
    assert len(answers) == count + 1
    assert answers == sorted(answers)
    assert Counter(block for blocks in taken for block in blocks) == {b"block %d" % n: 1 for n in range(1, count + 1)}
    assert all(taken), "one consumer had nothing to do"
    for blocks in taken:
        numbers = [int(block.split()[1]) for block in blocks]
        assert numbers == sorted(numbers)
    assert b" lag=0 " in server.ask(b"GROUPS g\n")
    # Who comes when all is over ends there, too.
    assert shell(consumer(nc)).output() == b""


def test_filebus_multicast_gives_everybody_a_copy_and_an_eavesdropper_disturbs_nobody(
    server: ServerProcess, shell: MakeShell
) -> None:
    need("nc", "socat")
    listen = "{ echo 'SUB news SLOW spill'; sleep 60; } | %s | sed '/^+OK/d; /^EOF/q'"
    listeners = [shell(listen % f"nc -U {server.unix}"), shell(listen % f"socat - UNIX-CONNECT:{server.unix}")]
    count, size = 3_000, 1_000
    with reader(server) as eavesdropper, server.connect() as publisher:
        # It never reads: neither its socket nor the broker's outbox can take all of it.
        eavesdropper.sendall(b"SUB news\n")
        until(lambda: b"subscriptions=3" in server.ask(b"INFO clients\n"), "all listen")
        wanted = [b"%04d %b" % (number, b"x" * size) for number in range(count)]
        for begin in range(0, count, 20):
            publisher.sendall(b"".join(b"PUB news %b\n" % payload for payload in wanted[begin : begin + 20]))
            assert all(line.startswith(b":") for line in read_lines(publisher, 20))
        assert asked(publisher, "EOF news").startswith(b":")
        for one in listeners:
            until(one.has_ended, "the end comes")
            lines = one.so_far.splitlines()
            assert [line.split(b" ", 3)[3] for line in lines[:-1]] == wanted
        # The eavesdropper is still there, and is told what it lost.
        assert read_lines(eavesdropper, 1)[0].startswith(b"+OK")
        assert accounted(eavesdropper) == count


def test_filebus_two_groups_and_a_lossy_reader_go_at_their_own_pace(store: MakeStore) -> None:
    server = store('name = "pipe"\nmatch = "pipe"\nretain = "acked"\ngroups = ["quick", "slow"]')
    count, size = 8_000, 1_000
    with server.connect() as quick, server.connect() as slow, reader(server) as lossy, server.connect() as publisher:
        quick.sendall(b"SUB pipe GROUP quick WINDOW 1000\n")
        assert asked(slow, "SUB pipe GROUP slow").startswith(b"+OK")
        assert asked(lossy, "SUB pipe").startswith(b"+OK")
        taken: list[int] = []
        taker = threading.Thread(target=take_all, args=(quick, count, taken), daemon=True)
        taker.start()
        for begin in range(0, count, 200):
            publisher.sendall(b"".join(b"PUB pipe %06d %b\n" % (n, b"x" * size) for n in range(begin, begin + 200)))
            assert all(line.startswith(b":") for line in read_lines(publisher, 200))
        taker.join(30)
        # The quick group has everything while the slow one stands at its first message ...
        assert taken == list(range(count))
        until(lambda: b"quick patterns=pipe members=1 in_flight=0" in server.ask(b"GROUPS quick\n"), "all is settled")
        assert re.search(rb" lag=%d " % count, server.ask(b"GROUPS slow\n"))
        line = read_lines(slow, 1)[0]
        for number in range(20):
            words = line.split(b" ")
            assert int(words[3]) == number
            slow.sendall(b"ACK %b\n" % words[2])
            # The answer and the next message, in either order.
            answer, line = sorted(read_lines(slow, 2))
            assert answer == b":1"
        assert re.search(rb" lag=%d " % (count - 20), server.ask(b"GROUPS slow\n"))
        # ... and the lossy reader has lost some in between, is told which, and goes on with what is new.
        assert accounted(lossy) == count
        assert asked(publisher, "PUB pipe after").startswith(b":")
        assert read_lines(lossy, 1)[0].endswith(b" after")


def accounted(connection: socket.socket) -> int:
    """How many numbered messages a reader that was too slow got and is told to have lost, up to its first GAP."""
    lines = read_lines(connection, 1)
    while not lines[-1].startswith(b"GAP"):
        lines += read_lines(connection, 1)
    numbers = [int(line.split(b" ", 4)[3]) for line in lines[:-1]]
    assert numbers == list(range(len(numbers)))
    _, _, first, last, lost, reason = lines[-1].split(b" ")
    assert (int(lost), reason) == (int(last) - int(first) + 1, b"slow")
    return len(numbers) + int(lost)


def take_all(connection: socket.socket, count: int, taken: list[int]) -> None:
    """Take and acknowledge so many numbered messages."""
    for line in connection.makefile("rb"):
        words = line.split(b" ", 4)
        if words[0] == b"MSG":
            taken.append(int(words[3]))
            connection.sendall(b"ACK " + words[2] + b"\n")
        if len(taken) == count:
            return


# protobus: topics to files by rules, three times, tags, the last of each topic


def test_protobus_topics_go_to_files_by_rules(store: MakeStore) -> None:
    server = store('name = "lab-{topic}"\nmatch = "sensor.*"\n[[store]]\nname = "audit"\nmatch = ["audit.>", "login"]')
    topics = {
        "sensor.1": "lab-sensor.1", "sensor.2": "lab-sensor.2", "sensor.1.raw": "main",
        "audit.db.x": "audit", "login": "audit", "chat": "main",
    }  # fmt: skip
    assert server.ask("".join(f"PUB {topic} <{topic}>\n" for topic in topics).encode()).count(b"\n") == len(topics)
    logs = server.data / "logs"
    found = {place.name: b"".join(file.read_bytes() for file in place.glob("*.log")) for place in logs.iterdir()}
    assert set(found) >= set(topics.values())
    for topic, place in topics.items():
        assert [name for name, data in sorted(found.items()) if f"<{topic}>".encode() in data] == [place]
    # A topic is no path: what would leave the directory is no topic at all.
    assert server.ask(b"PUB sensor.../../x 1\nPUB ../x 1\nPUB sensor./etc 1\n").count(b"-TOPIC ") == 3
    # One sequence over all files, read by patterns.
    lines = server.ask(b"READ sensor.>,login\n").splitlines()
    assert [line.split(b" ")[1:3] for line in lines[:-1]] == [
        [b"sensor.1", b"1"], [b"sensor.2", b"2"], [b"sensor.1.raw", b"3"], [b"login", b"5"],
    ]  # fmt: skip


def test_protobus_messages_have_three_times_and_tags(server: ServerProcess) -> None:
    event, sent = time.time_ns() - 5_000_000_001, time.time_ns()
    assert server.ask(b"HPUB s.1 event=%d sent=%d unit=C room=4a :21.5\n" % (event, sent)) == b":1\n"
    (line, _) = server.ask(b"READ s.1 FORMAT json\n").splitlines()
    message = json.loads(line)
    assert message["headers"] == {"event": str(event), "sent": str(sent), "unit": "C", "room": "4a"}
    # To the nanosecond, though a double could not hold it, and in the order in which things happened.
    assert int(message["headers"]["event"]) == event < sent <= int(message["time"]) <= time.time_ns()
    assert server.ask(b"HPUB s.1 event=yesterday :x\nHPUB s.1 sent=1.5 :x\n").count(b"-ARG ") == 2


def test_protobus_gives_the_last_known_of_each_topic_and_then_what_is_new(server: ServerProcess) -> None:
    for number in range(50):
        server.ask(b"".join(b"PUB s.%d.t %d\n" % (sensor, number) for sensor in range(5)))
    server.ask(b"PUB s.9.h dry\nPUB other x\n")
    with server.connect() as connection, server.connect() as late:
        assert asked(connection, "SUB s.*.t LAST 1").startswith(b"+OK")
        assert [line.split(b" ")[1::2] for line in read_lines(connection, 5)] == [
            [b"s.%d.t" % sensor, b"49"] for sensor in range(5)
        ]
        server.ask(b"PUB s.7.h no\nPUB s.7.t new\n")
        assert read_lines(connection, 1)[0].split(b" ")[1::2] == [b"s.7.t", b"new"]
        assert asked(late, "SUB s.> LAST 1").startswith(b"+OK")
        assert len(read_lines(late, 8)) == 8
        late.settimeout(0.2)
        with pytest.raises(TimeoutError):
            late.recv(100)


# dnpipes: push, pull, reset


def test_dnpipes_push_pull_reset(server: ServerProcess) -> None:
    need("nc", "socat")
    nc, socat = f"nc -N 127.0.0.1 {server.port}", f"socat -t 20 - UNIX-CONNECT:{server.unix}"
    assert run(f"printf 'PUB pipe %s\\n' 'one two' RESET three | {nc}").stdout == b":1\n:2\n:3\n"
    wanted = b"MSG pipe 1 one two\nMSG pipe 2 RESET\nMSG pipe 3 three\nEND end next=4\n"
    # Any number of readers, any number of times: nothing is consumed, and the text RESET is a text.
    for pull in (nc, socat, nc):
        assert run(f"echo 'READ pipe' | {pull}").stdout == wanted
    with server.connect() as follower:
        assert asked(follower, "SUB pipe FROM 3") == b"+OK next=3 epoch=1"
        assert read_lines(follower, 1) == [b"MSG pipe 3 three"]
        assert run(f"echo 'RESET pipe' | {socat}").stdout == b":3\n"
        assert run(f"echo 'PUB pipe RESET' | {nc}").stdout == b":5\n"
        assert read_lines(follower, 2) == [b"RESET pipe 4 3", b"MSG pipe 5 RESET"]
    assert run(f"echo 'READ pipe' | {nc}").stdout == b"RESET pipe 4 3\nMSG pipe 5 RESET\nEND end next=6\n"


# hopper: a channel between processes that is unbounded in length and bounded in memory

# Sends so many values in a process of its own and prints the most memory that it had.
SENDER = """
import re, sys
from busd_client import channel
directory, count = sys.argv[1], int(sys.argv[2])
sender, receiver = channel("jobs", directory)
for number in range(count):
    sender.send(b"%08d" % number)
sender.flush()
# Not ru_maxrss: that of a process is at least what the one had that started it.
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024, flush=True)
sys.stdin.read()
sender.close()
receiver.close()
"""


@pytest.mark.timeout(60 + HOPPER_MESSAGES // 10_000)
def test_hopper_holds_millions_for_a_receiver_that_does_not_receive(short_dir: Path) -> None:
    sender = subprocess.Popen(
        [sys.executable, "-c", SENDER, str(short_dir), str(HOPPER_MESSAGES)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    assert sender.stdin is not None
    assert sender.stdout is not None
    try:
        # A receiver that takes one value and then stands still.
        unused, receiver = channel("jobs", short_dir)
        unused.close(end=False)
        assert receiver.receive(30) == b"%08d" % 0
        began = time.monotonic()
        peak = int(sender.stdout.readline())
        took_s = time.monotonic() - began
        (broker,) = [resident_bytes(pid) for pid in brokers(short_dir)]
        print(f"{HOPPER_MESSAGES} values, {took_s:.1f} s: sender {peak >> 20} MiB, broker {broker >> 20} MiB")
        assert peak < HOPPER_RSS_BYTES
        assert broker < HOPPER_RSS_BYTES
        sender.stdin.close()
        # All of it comes, in order, each once.
        assert [int(value) for value in receiver] == list(range(1, HOPPER_MESSAGES))
        (broker,) = [resident_bytes(pid) for pid in brokers(short_dir)]
        assert broker < HOPPER_RSS_BYTES
        receiver.close()
        assert sender.wait(30) == 0
    finally:
        sender.kill()
        sender.wait()
        sender.stdin.close()
        sender.stdout.close()


def brokers(directory: Path) -> list[int]:
    """The servers of a channel."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[0] == sys.executable.encode() and f"{directory}/jobs/busd.toml".encode() in words:
                found.append(int(entry.name))
    return found


def test_hopper_gives_the_value_back_when_the_channel_is_full(short_dir: Path) -> None:
    sender, receiver = channel("jobs", short_dir, max_bytes=4 << 20)
    taken = 0
    try:
        for number in range(10_000):
            sender.send(b"%06d" % number + b"x" * 2_000)
            taken += 1
    except Full:
        assert taken > 1_000
    assert taken < 10_000, "it was never full"
    # The one that was refused is the caller's, and all that were taken come: none is lost, none is there twice.
    refused = b"%06d" % taken + b"x" * 2_000
    got = [receiver.receive(10) for _ in range(taken)]
    assert [int(value[:6]) for value in got] == list(range(taken))
    receiver.done()
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(Full):
            sender.send(refused)
            break
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert receiver.receive(10) == refused
    sender.close()
    with pytest.raises(EOFError):
        receiver.receive(10)
    receiver.close()


def test_hopper_at_the_cap_nothing_of_what_is_refused_is_kept(store: MakeStore) -> None:
    server = store(
        'name = "pipe"\nmatch = "pipe"\nretain = "acked"\ngroups = ["g"]\nfull = "reject"\nmax_messages = 10'
    )
    with server.connect() as connection:
        connection.sendall(b"".join(b"PUB pipe %d\n" % number for number in range(15)))
        answers = read_lines(connection, 15)
    assert [line[:5] for line in answers] == [b":%d" % n for n in range(1, 11)] + [b"-FULL"] * 5
    with server.connect() as member, server.connect() as publisher:
        assert asked(member, "SUB pipe GROUP g WINDOW 3").startswith(b"+OK")
        assert [line.split(b" ")[3] for line in read_lines(member, 3)] == [b"0", b"1", b"2"]
        assert asked(publisher, "PUB pipe again").startswith(b"-FULL")
        member.sendall(b"ACK ..2\n")
        assert sorted(read_lines(member, 3)) == [b":2", b"MSG pipe 4 3", b"MSG pipe 5 4"]
        assert [asked(publisher, f"PUB pipe new {n}")[:1] for n in range(3)] == [b":", b":", b"-"]
    with server.connect() as reader:
        reader.sendall(b"READ pipe GROUP g\n")
        reader.shutdown(socket.SHUT_WR)
        payloads = [line.split(b" ", 3)[3] for line in read_all(reader).splitlines()[:-1]]
    assert payloads == [b"%d" % number for number in range(2, 10)] + [b"new 0", b"new 1"]
