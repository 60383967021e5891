"""The benchmark: its command works, and a server that is fast and wrong, or a loader that looks away, fails it.

The figures are not looked at: machines that run tests are not quiet.
"""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from zlib import crc32

import pytest

from bench import figures, machine, page, plan, run
from bench.context import TINY, Context
from bench.load import Counting, Exactly, Filling, Stream
from bench.machine import Cores
from bench.peers import KINDS
from bench.peers.busd_server import Busd, inline
from bench.plan import Findings, Job, Row, Sample, System, Target, Workload, WrongAnswer, judge
from bench.workloads import (
    fanout,
    group_clients,
    groups,
    large_log,
    latency,
    one_topic,
    publish,
    replay,
    scale_read,
    topics,
)
from bench.workloads.replay import check_batches
from tests.support.tools import ROOT, until
from tests.support.tools import run as shell

pytestmark = pytest.mark.timeout(300)
COMMAND = [sys.executable, "-m", "bench"]
PATHS = {"PYTHONPATH": f"{ROOT}:{ROOT / 'clients' / 'python'}"}


def job_of(workload: Workload, case: str = "", variant: str = "", system: System = "busd") -> Job:
    """The first that has this in its row."""
    return next(
        job
        for job in workload.jobs
        if job.system == system and case in job.rows[0].case and variant in job.rows[0].variant
    )


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """As small as loads get."""
    return Context(tmp_path, Cores(None, None), TINY)


# The command


def test_list_names_the_workloads() -> None:
    shown = shell([*COMMAND, "--list"], env=PATHS).stdout.decode()
    for name in ("publish", "latency", "scale-topics", "large-log"):
        assert f" {name} " in shown


def test_an_unknown_workload_is_refused_with_the_names_of_those_there_are() -> None:
    told = shell([*COMMAND, "--only", "nonsense"], env=PATHS, status=2).stderr.decode()
    assert "nonsense" in told
    assert "fanout" in told


def test_no_rounds_are_refused() -> None:
    assert b"1 or more" in shell([*COMMAND, "--rounds", "0"], env=PATHS, status=2).stderr


def test_a_quick_run_prints_and_writes_ratios(tmp_path: Path) -> None:
    words = ["--quick", "--only", "one-topic", "groups", "--output", str(tmp_path / "out"), "--data", str(tmp_path)]
    shown = shell([*COMMAND, *words], env=PATHS, timeout_s=280).stdout.decode()
    written = (tmp_path / "out" / "results.md").read_text()
    for text in (shown, written):
        assert "A group: read and acknowledge" in text
        assert "≥ 0.5 × redis" in text
    assert "a tenth of the load" in written
    assert "## Replay of one topic of twenty" in written
    assert "WRONG" not in shown
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "the data is removed"


def test_servers_are_ended_and_files_removed_when_it_is_stopped(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "--quick", "--only", "fanout", "--output", str(tmp_path / "out"), "--data", str(tmp_path)],
        env={**PATHS, "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        until(lambda: bool(list(tmp_path.glob("busd-bench-*/*/busd-data"))), "a server", 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    assert list(tmp_path.glob("busd-bench-*")) == []


# The machine


def test_memory_is_written_to_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: 1000)
    assert machine.use_memory() == pytest.approx(800 * mmap.PAGESIZE / 1e9)


def test_memory_that_nobody_may_have_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: 1 << 48)
    assert machine.use_memory() == 0.0


def test_what_the_host_took_is_a_share_of_all_time() -> None:
    assert machine.taken_percent((5, 100), (15, 200)) == 10
    assert machine.taken_percent((5, 100), (5, 100)) == 0
    taken, ticks = machine.processor_ticks()
    assert 0 <= taken <= ticks


# What is missing here


def test_a_peer_that_is_not_installed_is_named_and_the_others_run(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(run.COMMANDS, "redis", "no-such-server")
    findings = Findings(groups.WORKLOAD)
    for job in groups.WORKLOAD.jobs:
        run.attempt(findings, job, 0, context)
    assert [row.system for row in findings.rows()] == ["busd"]
    assert list(findings.skipped.values()) == ["no no-such-server here: apt-get install no-such-server"]
    assert judge(findings)[0].holds is None


def test_a_log_that_does_not_fit_is_named(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_log, "SPARE_GB", 1e6)
    findings = Findings(large_log.WORKLOAD)
    run.attempt(findings, large_log.WORKLOAD.jobs[0], 0, context)
    (why,) = findings.skipped.values()
    assert why.startswith("needs 1000000.2 GB of disk")


def test_a_disk_without_room_is_named(context: Context) -> None:
    findings = Findings(replace(groups.WORKLOAD, disk_gb=1e9))
    run.attempt(findings, groups.WORKLOAD.jobs[0], 0, context)
    (why,) = findings.skipped.values()
    assert why.startswith("needs 5000000.0 GB of disk")


def test_connections_that_may_not_be_opened_are_named(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.context.descriptors", lambda: 1024)
    findings = Findings(scale_read.WORKLOADS[0])
    run.attempt(findings, job_of(scale_read.WORKLOADS[0], "10,000"), 0, context)
    assert list(findings.skipped.values()) == ["10,000 connections need ulimit -n 10300; it is 1024"]


# Fast and wrong

LIAR = """
import re, socketserver, sys
class Quiet(socketserver.ThreadingTCPServer):
    def handle_error(self, request, address): pass
class Liar(socketserver.BaseRequestHandler):
    def handle(self):
        done = 0
        while data := self.request.recv(1 << 20):
            pubs = data.count(b"PUB ")
            told = b"".join(b":%d\\n" % at for at in range(done + 1, done + pubs + 1))
            done += pubs
            if data == b"PING\\n": told = b"PONG\\n"
            if data.startswith(b"INFO"): told = b"sync=interval\\n"
            if data.startswith(b"TOPICS"): told = b"bench messages=0 bytes=0\\n"
            self.request.sendall(told)
            if data.startswith((b"INFO", b"TOPICS")): return
Quiet(("127.0.0.1", int(sys.argv[1])), Liar).serve_forever()
"""


class Liar(Busd):
    """Answers at once, and keeps nothing."""

    def command(self) -> list[str]:
        """See Peer."""
        return [sys.executable, "-c", LIAR, str(self.port)]


def test_answers_for_what_is_not_kept_fail(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "busd", Liar)
    findings = Findings(publish.WORKLOAD)
    run.attempt(findings, job_of(publish.WORKLOAD, "100 B, written"), 0, context)
    assert findings.rows() == []
    assert "and has 0" in run.outcome([findings])[0]


@pytest.mark.parametrize(
    "job",
    [
        job_of(publish.WORKLOAD, "100 B, written", "PUB"),
        job_of(latency.WORKLOAD, "written"),
        job_of(replay.WORKLOAD),
        job_of(one_topic.WORKLOAD),
        job_of(fanout.WORKLOAD, "10 subscribers"),
        job_of(groups.WORKLOAD),
        job_of(group_clients.WORKLOAD),
    ],
    ids=lambda job: str(job.text()),
)
def test_one_byte_of_one_payload_fails(job: Job, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is given other payloads than those that the loader thinks it sent."""

    def other(self: Busd, topic: bytes, payload: bytes) -> bytes:
        return inline(topic, payload[:-1] + (b"X" if payload.startswith(b"00000") else payload[-1:]))

    monkeypatch.setattr(Busd, "publish", other)
    with pytest.raises(WrongAnswer):
        job.run(context)


@pytest.mark.parametrize(
    "job",
    [
        job_of(topics.WORKLOAD, "20 topics"),
        job_of(topics.WORKLOAD, "50 connections, 20"),
        job_of(replay.WORKLOAD),
    ],
    ids=lambda job: str(job.text()),
)
def test_a_message_too_many_fails(job: Job, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(self: Busd, topic: bytes, payload: bytes) -> bytes:
        return inline(topic, payload) * (2 if payload.startswith(b"000000003") else 1)

    monkeypatch.setattr(Busd, "publish", twice)
    with pytest.raises(WrongAnswer):
        job.run(context)


def test_a_policy_that_is_not_kept_fails(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    command = Busd.command

    def lazier(self: Busd) -> list[str]:
        return ["interval" if word == "always" else word for word in command(self)]

    monkeypatch.setattr(Busd, "command", lazier)
    with pytest.raises(WrongAnswer, match="sync"):
        job_of(latency.WORKLOAD, "synced").run(context)


def test_what_was_wrong_once_leaves_no_figure(context: Context) -> None:
    row = Row("case", "busd", "msg/s")
    rounds = [1.0]

    def work(_: Context) -> Mapping[Row, Sample]:
        if not rounds:
            raise WrongAnswer("another number")
        return {row: Sample(rounds.pop())}

    findings = Findings(Workload("w", "W", "", (Job((row,), work),)))
    for number in range(2):
        run.attempt(findings, findings.workload.jobs[0], number, context)
    assert findings.rows() == []
    assert run.outcome([findings]) == ["w: case, busd: WrongAnswer: another number"]


def test_rounds_take_turns_and_every_second_is_run_backwards(tmp_path: Path) -> None:
    seen: list[str] = []

    def work(_: Context, row: Row) -> Mapping[Row, Sample]:
        seen.append(row.case)
        return {row: Sample(1.0)}

    rows = [Row(case, "busd", "msg/s") for case in "abc"]
    workload = Workload("w", "W", "", tuple(Job((row,), partial(work, row=row)) for row in rows), rounds=3)
    told: list[str] = []
    options = run.Options(TINY, 5, tmp_path)
    findings = run.run(workload, options, told.append)
    assert "".join(seen) == "abccbaabc"
    assert len(told) == run.steps(workload, options) == 9
    assert [len(findings.values(row)) for row in rows] == [3, 3, 3]


# The sinks


def test_a_stream_is_compared_byte_by_byte() -> None:
    stream = Stream.of([b"one\n", b"two\n"])
    good = Exactly(stream)
    good.feed(bytearray(b"one\ntw"), 6)
    assert good.left == 2
    good.feed(bytearray(b"o\n"), 2)
    assert (good.left, good.got) == (0, 2)
    for wrong in (b"one\ntwx\n", b"two\n", b"one\ntwo\nthree\n"):
        with pytest.raises(WrongAnswer, match="came instead of"):
            Exactly(stream).feed(bytearray(wrong), len(wrong))


def test_errors_and_answers_too_many_are_seen() -> None:
    with pytest.raises(WrongAnswer, match="an error"):
        Counting(2, b":", bad=b"-").feed(bytearray(b":1\n-FULL no\n"), 12)
    with pytest.raises(WrongAnswer, match="1 answers too many"):
        Counting(1, b":").feed(bytearray(b":1\n:2\n"), 6)
    with pytest.raises(WrongAnswer, match="more than 4 bytes"):
        Filling(b"END", 4).feed(bytearray(b"12345"), 5)


def test_batches_are_checked_against_their_crc_and_the_payloads() -> None:
    def event(body: bytes, summed: bytes, first: int = 1) -> bytes:
        rest = b"0 %d 1\r\n" % first
        frame = b"B1 %08x %b%b" % (crc32(rest + summed), rest, body)
        return b">4\r\n$5\r\nBATCH\r\n:%d\r\n:%d\r\n$%d\r\n%b\r\n" % (first, first, len(frame), frame)

    good, other = b"*1\r\n$1\r\na\r\n", b"*1\r\n$1\r\nb\r\n"
    check_batches(event(good, good), [b"a"])
    with pytest.raises(WrongAnswer, match="another CRC"):
        check_batches(event(good, other), [b"a"])
    with pytest.raises(WrongAnswer, match="other messages"):
        check_batches(event(other, other), [b"a"])
    with pytest.raises(WrongAnswer, match="1 of 2 messages"):
        check_batches(event(good, good), [b"a", b"a"])
    with pytest.raises(WrongAnswer, match="1 to 1 came behind 1"):
        check_batches(event(good, good) * 2, [b"a", b"a"])


# Figures


def findings_of(values: Mapping[Row, list[float]], *targets: Target) -> Findings:
    """As if each job had measured these, round by round."""
    jobs = tuple(Job((row,), lambda _: {}) for row in values)
    findings = Findings(Workload("w", "W", "About.", jobs, targets))
    for row, some in values.items():
        for number, value in enumerate(some):
            findings.add(number, {row: Sample(value, server_ns=100.0, loader=0.95 if row.system == "busd" else 0.2)})
    return findings


BUSD, REDIS, NATS = (Row("case", system, "msg/s") for system in ("busd", "redis", "nats"))


def test_a_ratio_is_that_of_the_same_rounds_to_the_best_peer() -> None:
    target = Target(BUSD, 2, (REDIS, NATS))
    (verdict,) = judge(findings_of({BUSD: [10, 40, 9], REDIS: [5, 10, 3], NATS: [1, 1, 1]}, target))
    assert verdict.peer == REDIS
    assert verdict.values == (2.0, 4.0, 3.0)
    assert (verdict.median, verdict.holds) == (3.0, True)


def test_less_is_better_for_times() -> None:
    target = Target(BUSD, 1.1, (REDIS,), least=False)
    assert judge(findings_of({BUSD: [12.0], REDIS: [10.0]}, target))[0].holds is False
    assert judge(findings_of({BUSD: [11.0], REDIS: [10.0]}, target))[0].holds is True


def test_the_end_of_a_curve_is_the_furthest_point_that_was_measured() -> None:
    near, far, end = (Row(f"log: {at}", "busd", "s", at=at) for at in (1, 5, 20))
    (verdict,) = judge(findings_of({near: [1.0], far: [2.0]}, Target(end, 3, least=False)))
    assert (verdict.row, verdict.holds) == (far, True)


def test_the_page_has_figures_targets_and_what_must_be_known(tmp_path: Path) -> None:
    findings = findings_of({BUSD: [2e6, 3e6], REDIS: [1e6, 1e6]}, Target(BUSD, 3, (REDIS,)))
    findings.skipped["other"] = "no such thing here"
    written, _ = page.write(tmp_path, [findings], {"processor": "some"}, ["not quiet"])
    text = written.read_text()
    assert "| case | busd | 2.50 M msg/s | 2 M – 3 M |" in text
    assert "| W | case | ≥ 3 × redis | 2.50 × | 2 – 3 | redis, 1 M msg/s | 1 × | NO |" in text
    assert "**not quiet**" in text
    assert "not run: other: no such thing here" in text
    assert "at least 90% busy" in text


def test_charts_are_the_same_bytes_for_the_same_figures(tmp_path: Path) -> None:
    charts = pytest.importorskip("bench.charts", exc_type=ModuleNotFoundError)
    curve = {Row(f"log: {at}", "busd", "s", at=at): [1.0, 2.0] for at in (1.0, 5.0)}
    bars = findings_of({BUSD: [2.0, 3.0], REDIS: [1.0, 1.0]}, Target(BUSD, 3, (REDIS,)))
    curves = findings_of(curve)
    curves.workload = plan.Workload("c", "C", "", curves.workload.jobs, chart="curve", axis="GB")
    for name in ("one", "two"):
        assert charts.workload_chart(bars, tmp_path / name / "bars.svg")
        assert charts.workload_chart(curves, tmp_path / name / "curve.svg")
        assert charts.targets_chart([bars], tmp_path / name / "targets.svg")
    for chart in ("bars.svg", "curve.svg", "targets.svg"):
        assert (tmp_path / "one" / chart).read_bytes() == (tmp_path / "two" / chart).read_bytes()
    assert not charts.workload_chart(findings_of({}), tmp_path / "none.svg")


def test_numbers_have_three_digits_that_mean_something() -> None:
    shown = [figures.number(value) for value in (0, 0.123, 1.5, 15.25, 123.4, 1234, 23456, 1_670_000)]
    assert shown == ["0", "0.12", "1.50", "15.2", "123", "1,234", "23.5 k", "1.67 M"]
