"""`python -m bench`: busd beside redis-server and nats-server, in turn, in one run."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bench import catalog, figures, machine, page, run
from bench.context import FULL, QUICK
from bench.plan import Findings, Workload

ROOT = Path(__file__).resolve().parent.parent
# Where nothing is kept: the results of a part, or of small loads, are not those that the documentation links to.
PARTIAL = ROOT / "bench" / "partial"
# Not /tmp, which is often memory.
DATA = Path("/var/tmp")
# Above this somebody else is using the machine.
QUIET_LOAD = 0.5
ROUNDS = 3
# From so many columns on the terminal shows everything; below, what results.md has as well is left out there.
WIDE = 160
LESS = ("loader", "peak", "also", "against")
NOT_QUIET = "the load average was {:.1f} when the run began; what else runs here is in the figures"


def main() -> int:
    """Runs what the command line says; 1 when an answer was wrong."""
    arguments = _arguments()
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE)
    if arguments.list:
        _list(console)
        return 0
    machine.only_linux()
    machine.raise_descriptors()
    signal.signal(signal.SIGTERM, _end)
    workloads = catalog.chosen(arguments.only)
    whole = not arguments.quick and not arguments.only
    directory = arguments.output or (ROOT / "bench" if whole else PARTIAL)
    notes = list(_notes(arguments.quick, arguments.only, arguments.data))
    for note in notes:
        console.print(note, style="yellow")
    began, ticks = time.monotonic(), machine.processor_ticks()
    # Of a look at whether everything works nobody reads the figures.
    used_gb = 0.0 if arguments.quick else machine.use_memory()
    with tempfile.TemporaryDirectory(prefix="busd-bench-", dir=arguments.data) as base:
        rounds = arguments.rounds or (1 if arguments.quick else ROUNDS)
        options = run.Options(QUICK if arguments.quick else FULL, rounds, Path(base))
        facts = _facts(arguments.data, used_gb)
        all_findings: list[Findings] = []
        before = time.monotonic()
        for findings in _measure(workloads, options, console):
            all_findings.append(findings)
            _show(console, findings, time.monotonic() - before)
            facts["took"] = f"{(time.monotonic() - began) / 60:.1f} minutes"
            facts["taken by the host"] = f"{machine.taken_percent(ticks, machine.processor_ticks()):.1f} % of the time"
            # After each workload: a run that is interrupted leaves what it has.
            before = time.monotonic()
            written, charts = page.write(directory, all_findings, facts, notes)
    _show_targets(console, all_findings)
    console.print(f"[bold]{written}[/]" + (" and charts" if charts else "; no charts: pip install '.[bench]'"))
    for wrong in (failed := run.outcome(all_findings)):
        console.print(f"WRONG  {wrong}", style="bold red", markup=False)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="busd beside redis-server and nats-server. Fails when an answer was wrong.",
    )
    names = [workload.name for workload in catalog.WORKLOADS]
    parser.add_argument("--quick", action="store_true", help="a tenth of the load, one round: does everything work?")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", choices=names, help="these workloads (see --list)"
    )
    parser.add_argument("--rounds", type=_rounds, metavar="N", help=f"of each workload, {ROUNDS} unless given")
    parser.add_argument("--list", action="store_true", help="print the names of the workloads")
    parser.add_argument("--output", type=Path, metavar="DIR", help="for results.md and charts")
    parser.add_argument(
        "--data", type=Path, default=DATA, metavar="DIR", help=f"on the disk to measure on, {DATA} unless given"
    )
    return parser.parse_args()


def _rounds(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rounds, 1 or more")
    return int(text)


def _end(number: int, _: object) -> NoReturn:
    """So that servers are ended and files removed."""
    sys.exit(128 + number)


def _list(console: Console) -> None:
    table = Table("name", "", "rows", box=None)
    for workload in catalog.WORKLOADS:
        table.add_row(workload.name, workload.title, str(sum(len(job.rows) for job in workload.jobs)))
    console.print(table)


def _notes(quick: bool, only: Sequence[str], data: Path) -> Iterator[str]:
    """What everybody who reads the results must know first."""
    if quick:
        yield "--quick: a tenth of the load, one round; the figures say that it works, not how fast it is"
    if only:
        yield f"only {', '.join(only)}"
    if (load := machine.load_average()) > QUIET_LOAD:
        yield NOT_QUIET.format(load)
    for system, version in run.versions().items():
        if version is None:
            command = run.COMMANDS[system]
            yield f"{command} is not installed, and not measured: apt-get install {command}"
    if (kind := machine.file_system(data)) in ("tmpfs", "ramfs"):
        yield f"the data lies in memory ({kind}): synced figures mean nothing; use --data"


def _facts(data: Path, used_gb: float) -> dict[str, str]:
    found = machine.facts(data)
    if used_gb:
        found["memory"] += f", {used_gb:.0f} of them written to before the first workload"
    found["busd"] = machine.commit_of(ROOT) or "not a checkout"
    for system, version in run.versions().items():
        found[run.COMMANDS[system]] = version or "not installed"
    found["command"] = " ".join(["python -m bench", *sys.argv[1:]])
    return found


def _measure(workloads: Sequence[Workload], options: run.Options, console: Console) -> Iterator[Findings]:
    """Each workload's findings when it is done; a bar meanwhile."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=sum(run.steps(workload, options) for workload in workloads))
        done = 0

        def told(line: str) -> None:
            nonlocal done
            progress.update(task, description=line, completed=done)
            done += 1

        for workload in workloads:
            yield run.run(workload, options, told)


def _show(console: Console, findings: Findings, took_s: float) -> None:
    table = _table(console, figures.HEADINGS, list(figures.lines(findings)))
    table.title = f"{findings.workload.title} ({findings.workload.name}, {took_s:.0f} s)"
    console.print(table)
    for name, why in findings.wrong.items():
        console.print(f"{name}: {why}", style="red", markup=False, highlight=False)
    for note in figures.notes(findings):
        console.print(note, style="red" if note.startswith("WRONG") else "yellow", markup=False)
    console.print()


def _show_targets(console: Console, all_findings: Sequence[Findings]) -> None:
    rows = list(figures.verdict_lines(all_findings))
    if rows:
        table = _table(console, figures.TARGET_HEADINGS, rows)
        table.title = "Targets"
        console.print(table)


def _table(console: Console, headings: Sequence[str], rows: Sequence[tuple[str, ...]]) -> Table:
    """Columns of which nothing is known are left out, and some more on a narrow terminal."""
    kept = [at for at, name in enumerate(headings) if not name or any(row[at] for row in rows)]
    if console.width < WIDE:
        kept = [at for at in kept if headings[at] not in LESS]
    table = Table(title_justify="left", header_style="bold")
    for at in kept:
        left = at < 2 or headings[at] in LESS
        table.add_column(headings[at], justify="left" if left else "right", overflow="fold")
    for row in rows:
        table.add_row(*[row[at] for at in kept], style="red" if row[-1] == figures.HELD[False] else None)
    return table


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; what was measured until then is written")
