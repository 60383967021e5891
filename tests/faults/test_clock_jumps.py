"""The wall clock goes back an hour, ahead ten years, to and fro, while it runs and between runs: nothing is deleted,
nothing is reordered, no timer stands still."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import Cases
from tests.support.server import ServerProcess, read_lines
from tests.support.tools import until

HOUR_S = 3600
YEAR_S = 365 * 24 * HOUR_S
JUMPS = {"an hour back": -HOUR_S, "ten years ahead": 10 * YEAR_S, "ten years back": -10 * YEAR_S, "a minute back": -60}


class Shifted(ServerProcess):
    """A server whose wall clock can be set."""

    def command(self) -> list[str]:
        """See ServerProcess."""
        return [sys.executable, "-m", "tests.support.shifted", *super().command()[3:]]

    def shift(self, seconds: int) -> None:
        """From now on its wall clock is so far off."""
        new = self.base / "shift.new"
        new.write_text(str(seconds))
        new.rename(self.base / "shift")

    def facts(self, section: str = "") -> dict[str, str]:
        """INFO."""
        lines = self.ask(f"INFO {section}\n".encode()).decode().splitlines()[1:]
        return dict(line.split("=", 1) for line in lines)


MakeShifted = Callable[..., Shifted]


@pytest.fixture
def make(short_dir: Path) -> Iterator[MakeShifted]:
    """Makes servers; stopped at the end."""
    with ExitStack() as stack:

        def start(*options: str, name: str = "") -> Shifted:
            base = short_dir / name
            base.mkdir(exist_ok=True)
            server = Shifted(base, options, {"SHIFT_FILE": str(base / "shift")})
            server.shift(0)
            stack.callback(server.close)
            server.start()
            return server

        yield start


def each_jump(cases: Cases, check: Callable[[str, int], None]) -> None:
    """The same check for every jump, side by side: they mostly wait.

    Args:
        check: gets a name for the server's directory and the seconds of the jump.
    """
    with ThreadPoolExecutor(len(JUMPS)) as pool:
        running = {jump: pool.submit(check, str(number), JUMPS[jump]) for number, jump in enumerate(JUMPS)}
    cases.add(len(running))
    failures = {jump: error for jump, one in running.items() if (error := one.exception()) is not None}
    if failures:
        raise BaseExceptionGroup(", ".join(failures), list(failures.values()))


def times_ns(server: Shifted) -> list[int]:
    """The times of receipt of all messages of `t`, in the order of offsets."""
    lines = server.ask(b"READ t FORMAT json\n").splitlines()[:-1]
    events = [json.loads(line) for line in lines]
    assert [event["kind"] for event in events] == ["MSG"] * len(events)
    return [int(event["time"]) for event in events]


def publish(server: Shifted, count: int = 5) -> None:
    """Some messages, a moment apart."""
    for _ in range(count):
        assert server.ask(b"PUB t x\n").startswith(b":")
        time.sleep(0.02)


def test_time_never_falls_nor_stands_still_nor_leaps(make: MakeShifted) -> None:
    server = make()
    began_ns = time.time_ns()
    for seconds in (0, -HOUR_S, 10 * YEAR_S, 0, -10 * YEAR_S, 30 * 60, 0):
        server.shift(seconds)
        publish(server)
    found = times_ns(server)
    assert len(found) == 35
    assert all(one < two for one, two in pairwise(found)), "it fell, or stood still"
    # Half an hour ahead is an honest correction, and followed; ten years are not.
    assert found[-1] - began_ns < (HOUR_S + 60) * 1_000_000_000


def test_retention_by_age_deletes_nothing_it_should_not(make: MakeShifted, cases: Cases) -> None:
    def check(name: str, seconds: int) -> None:
        server = make("--max-age", "1h", "--segment-bytes", "4k", name=name)
        publish(server)
        server.ask(b"".join(b"PUB t %b\n" % (b"x" * 500) for _ in range(40)))
        server.shift(seconds)
        time.sleep(2.5)
        publish(server)
        assert len(times_ns(server)) == 50
        status = server.facts("health")
        assert status["status"] == "degraded"
        assert ("ahead" if seconds > 0 else "behind") in status["clock"]
        until(lambda: "warning: clock" in server.log(), "it is told")
        server.shift(0)
        until(lambda: server.facts("health")["status"] == "ok", "it is well again")

    each_jump(cases, check)


def test_a_clock_that_is_wrong_at_the_start(make: MakeShifted, cases: Cases) -> None:
    def check(name: str, seconds: int) -> None:
        server = make("--max-age", "1h", "--segment-bytes", "4k", name=name)
        server.ask(b"".join(b"PUB t %b\n" % (b"x" * 500) for _ in range(40)))
        before = times_ns(server)
        assert server.stop() == 0
        server.shift(seconds)
        server.start()
        publish(server)
        time.sleep(2.5)
        after = times_ns(server)
        assert after[:40] == before
        assert len(after) == 45
        assert all(one < two for one, two in pairwise(after[39:]))

    each_jump(cases, check)


def test_timers_go_on(make: MakeShifted, cases: Cases) -> None:
    def check(name: str, seconds: int) -> None:
        server = make("--sync", "interval", name=name)
        with server.connect() as worker, server.connect() as other:
            worker.sendall(b"SUB job GROUP g WAIT 2s WINDOW 9\n")
            read_lines(worker, 1)
            other.sendall(b"PUB job out\nHPUB job delay=2s :delayed\nHPUB job ttl=1h :lasting\n")
            read_lines(other, 3)
            assert sorted(read_lines(worker, 2)) == [b"MSG job 1 out", b"MSG job 3 lasting"]
            server.shift(seconds)
            began = time.monotonic()
            # Not acknowledged within WAIT, and due.
            came = read_lines(worker, 3)
            assert 1 < time.monotonic() - began < 8
            assert sorted(came) == [b"MSG job 1.2 out", b"MSG job 2 delayed", b"MSG job 3.2 lasting"]
            other.sendall(b"READ none WITHIN 500ms\n")
            read_lines(other, 1)
            assert time.monotonic() - began < 10
        # The sync of `interval` has a timer, too.
        until(lambda: server.facts("log")["synced"] == "3", "everything is synced")

    each_jump(cases, check)


def test_a_time_asked_for_is_the_servers(make: MakeShifted) -> None:
    server = make()
    publish(server)
    server.shift(10 * YEAR_S)
    assert server.ask(b"READ t FROM -5m\n").count(b"MSG") == 5
