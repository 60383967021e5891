"""Persistent pipes: any amount through a small disk, what is settled is freed, a crash in the middle, what failed.

BUSD_PIPE_MEBIBYTES sets how much goes through (64); the cap is a sixteenth of it, 4 MiB at least.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.process.conftest import client_of
from tests.support.commands import BUSD
from tests.support.pipe_ends import Consumer, Gauge, Producer, on_disk_bytes
from tests.support.server import read_lines
from tests.support.tools import ending, environment, until

TOTAL_MIB = int(os.environ.get("BUSD_PIPE_MEBIBYTES", "64"))
CAP_BYTES = max(TOTAL_MIB // 16, 4) << 20
SIZE = 4096
COUNT = (TOTAL_MIB << 20) // SIZE
# Segments have a quarter of the cap. Kept: the one that is written, and what is left of the one held message's.
SEGMENT_BYTES = CAP_BYTES // 4
TIMEOUT_S = 60 + TOTAL_MIB
WINDOW = 400
CONFIG = f"""
[[store]]
name = "pipe"
match = "pipe"
retain = "acked"
full = "block"
full_wait = "10m"
max_bytes = {CAP_BYTES}
"""


@pytest.mark.timeout(TIMEOUT_S)
def test_persistent_pipes_carry_more_than_the_disk_holds(make_configured: MakeServer) -> None:
    server = make_configured(CONFIG)
    # The group is made before there is anything, with a limit for what fails.
    assert server.ask(b"SUB pipe GROUP g TRIES 3\n").startswith(b"+OK next=1 ")
    store = server.data / "logs" / "pipe"
    gauge = Gauge(store)
    gauge.start()
    producer = Producer(server, "pipe", COUNT, SIZE)
    producer.start()
    # It comes as far as there is room, and waits.
    until(lambda: on_disk_bytes(store) > CAP_BYTES * 3 // 4, "the pipe is full")
    until(lambda: producer.quiet_s > 0.2, "the producer waits")
    assert producer.answered < CAP_BYTES // SIZE
    consumer = Consumer(server, f"SUB pipe GROUP g WINDOW {WINDOW}", COUNT, COUNT // 3, WINDOW // 4, 0.002)
    consumer.start()
    until(lambda: len(consumer.done) > COUNT // 2, "half is through", TIMEOUT_S)
    server.kill()
    assert len(consumer.done) < COUNT - 1, "all was through before the kill"
    server.start()
    until(lambda: not consumer.is_alive(), "all but one is through", TIMEOUT_S)
    until(lambda: not producer.is_alive(), "all is answered")
    gauge.close()
    assert (producer.problem, consumer.problem) == (b"", b"")
    # Nothing is missing, and nothing that was answered to be settled came again.
    assert consumer.told == set(range(COUNT)) - {COUNT // 3}
    assert set(consumer.done.values()) == {1}
    assert len(consumer.done) >= COUNT - 1 - WINDOW
    assert consumer.again <= WINDOW
    print(f"{TOTAL_MIB} MiB through {CAP_BYTES} bytes: at most {gauge.peak_bytes} on the disk in {gauge.looks} looks")
    assert gauge.looks > 100
    assert gauge.peak_bytes <= CAP_BYTES
    assert gauge.peak_bytes > CAP_BYTES * 3 // 4, "it was never full"
    # One message is held back, and the rest of the disk is free but for the segment that is being written.
    until(lambda: on_disk_bytes(store) <= SEGMENT_BYTES + CAP_BYTES // 64, "the disk is freed")
    (row,) = server.ask(b"GROUPS g\n").splitlines()[1:]
    assert b" lag=1 " in row
    # What failed is left behind, comes back, and after its tries is a dead letter with all that it was.
    with server.connect() as connection:
        connection.sendall(b"SUB pipe GROUP g\n")
        tries = 0
        while tries < 3:
            token = read_lines(connection, 2)[-1].split(b" ")[2]
            tries = int(token.partition(b".")[2])
            connection.sendall(b"NACK %b DELAY 10ms it failed\n" % token)
        assert read_lines(connection, 1) == [b"+OK"]
    until(lambda: server.ask(b"READ _dead.g.pipe\n").count(b"\n") == 2, "there is a dead letter")
    letter = json.loads(server.ask(b"READ _dead.g.pipe FORMAT json\n").splitlines()[0])
    assert letter["payload"].startswith(f"{COUNT // 3:010d}.x")
    assert (letter["headers"]["tries"], letter["headers"]["reason"]) == ("3", "it failed")
    until(lambda: b" lag=0 " in server.ask(b"GROUPS g\n"), "nothing is left")
    assert server.ask(b"READ pipe GROUP g\n").startswith(b"END end ")
    until(lambda: on_disk_bytes(store) <= SEGMENT_BYTES, "its file is freed, too")


@pytest.mark.parametrize("cap", ["max_messages = 100", 'max_bytes = "256k"'])
def test_a_file_goes_through_a_store_that_takes_less_than_a_part_of_it_at_once(
    make_configured: MakeServer, tmp_path: Path, cap: str
) -> None:
    server = make_configured(
        f'[[store]]\nname = "pipe"\nmatch = "pipe"\nretain = "acked"\nfull = "block"\ngroups = ["g"]\n{cap}\n'
    )
    lines = b"".join([b"%04d%b\n" % (number, b"x" * 200) for number in range(3000)])
    (tmp_path / "lines").write_bytes(lines)
    words = [*BUSD, "sub", "pipe", "--group", "g", "--format", "raw"]
    # To a file: nobody reads a pipe while the publisher waits.
    with (tmp_path / "out").open("wb") as out:
        consumer = subprocess.Popen(words, stdout=out, env=environment({"BUSD_ADDRESS": server.address}))
    with ending(consumer):
        told = client_of(server)("pub", "pipe", "--eof", str(tmp_path / "lines"))
        assert told.stderr == b""
        assert consumer.wait(20) == 0
    assert (tmp_path / "out").read_bytes() == lines
