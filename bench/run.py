"""Runs jobs: rounds in turn, what is missing is named, what is wrong is kept out of the figures.

Invariants:
1. The jobs of a workload are run one after the other, all of them in each round, and every second round backwards: a
   machine that becomes slower meanwhile does so for every server.
2. A job that was wrong once leaves no figure; it does not stop the others.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import machine
from bench.context import Context, Size
from bench.figures import brief
from bench.peers import nats_server, redis_server
from bench.plan import CannotRun, Findings, Job, System, Workload, WrongAnswer

COMMANDS: dict[System, str] = {"redis": redis_server.COMMAND, "nats": nats_server.COMMAND}
# What a package of Python is called where it is installed from.
PACKAGES = {"redis.asyncio": "redis", "nats": "nats-py"}


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    size: Size
    rounds: int
    base: Path


def versions() -> dict[System, str | None]:
    """Of the peers; None: not installed."""
    return {system: machine.version_of(command, "--version") for system, command in COMMANDS.items()}


def missing(job: Job) -> str | None:
    """What the job needs and this machine has not, with how to get it; None when there is nothing."""
    command = COMMANDS.get(job.system)
    if command is not None and machine.version_of(command, "--version") is None:
        return f"no {command} here: apt-get install {command}"
    for name in job.needs:
        with contextlib.suppress(ModuleNotFoundError):
            if importlib.util.find_spec(name) is not None:
                continue
        return f"no Python package {PACKAGES.get(name, name)} here: pip install '.[bench]'"
    return None


def too_full(workload: Workload, context: Context) -> str | None:
    """That the disk has no room for this, if so."""
    free_gb, wanted_gb = shutil.disk_usage(context.base).free / 1e9, workload.disk_gb * context.size.factor
    return f"needs {wanted_gb:.1f} GB of disk, {free_gb:.1f} are free" if free_gb < wanted_gb else None


def rounds_of(workload: Workload, options: Options) -> int:
    """As many as were asked for, at most as many as it takes."""
    return min(options.rounds, workload.rounds)


def steps(workload: Workload, options: Options) -> int:
    """How many jobs a run of it is."""
    return rounds_of(workload, options) * len(options.size.jobs(workload))


def run(workload: Workload, options: Options, told: Callable[[str], None]) -> Findings:
    """All rounds of a workload.

    Args:
        told: called with a line before each job, and as often as `steps` says.
    """
    findings = Findings(workload)
    jobs = options.size.jobs(workload)
    rounds = rounds_of(workload, options)
    with cores_for(workload) as cores:
        for number in range(rounds):
            for job in jobs if number % 2 == 0 else reversed(jobs):
                told(f"{workload.name}: {job.text()}" + (f", round {number + 1} of {rounds}" if rounds > 1 else ""))
                name = job.text()
                if name not in findings.skipped and name not in findings.wrong:
                    attempt(findings, job, number, Context(options.base, cores, options.size))
    return findings


def attempt(findings: Findings, job: Job, number: int, context: Context) -> None:
    """One job, once; what came of it is in `findings`."""
    if (why := missing(job) or too_full(findings.workload, context)) is not None:
        findings.skipped[job.text()] = why
        return
    # The garbage of the job before is not this one's time; its requests are hundreds of thousands of objects.
    gc.collect()
    try:
        findings.add(number, job.run(context))
    except CannotRun as reason:
        findings.skipped[job.text()] = str(reason)
    except (WrongAnswer, OSError, RuntimeError, AssertionError) as wrong:
        findings.spoil(job, f"{type(wrong).__name__}: {wrong}")


@contextlib.contextmanager
def cores_for(workload: Workload) -> Iterator[machine.Cores]:
    """Where its server and its loader run; afterwards this process runs where it did before."""
    available = frozenset(os.sched_getaffinity(0))
    try:
        yield machine.choose_cores(workload.pinned, available)
    finally:
        os.sched_setaffinity(0, available)


def outcome(all_findings: Sequence[Findings]) -> list[str]:
    """Everything that was wrong, a line each; a run with any has failed."""
    return [f"{one.workload.name}: {name}: {brief(why)}" for one in all_findings for name, why in one.wrong.items()]
