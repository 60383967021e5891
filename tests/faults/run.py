"""Runs the catalogue of faults and prints a table: each fault, how many cases, what was promised, what held.

    python -m tests.faults.run [--target faults-root] [number …]

Exit status: 0 every promise held, 1 one did not, or no test of a fault has passed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from rich.console import Console
from rich.table import Table

from tests.faults.catalogue import FAULTS, Fault


@dataclass
class Outcome:
    """What became of one test function, over its parameters."""

    passed: int = 0
    failed: int = 0
    cases: int = 0
    skipped: list[str] = field(default_factory=list)


class Recorder:
    """A plugin of pytest that keeps what the tests report."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test."""
        outcome = self.outcomes.setdefault(report.nodeid.split("[")[0], Outcome())
        if report.failed:
            outcome.failed += 1
        elif report.skipped:
            text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            outcome.skipped.append(text.removeprefix("Skipped: "))
        elif report.when == "call":
            outcome.passed += 1
        if report.when == "teardown" and not report.failed:
            counted = [value for name, value in report.user_properties if name == "cases" and isinstance(value, int)]
            # A test that counts nothing is one case.
            outcome.cases += max(1, sum(counted)) if not outcome.skipped else 0


def verdict(fault: Fault, outcomes: dict[str, Outcome]) -> tuple[int, str, bool]:
    """Cases, what held, and whether that is good."""
    found = [outcomes.get(test, Outcome()) for test in fault.tests]
    cases, failed = sum(one.cases for one in found), sum(one.failed for one in found)
    if failed:
        names = [test.rpartition("::")[2] for test, one in zip(fault.tests, found, strict=True) if one.failed]
        return cases, f"NO: {', '.join(names)}", False
    skipped = sorted({why for one in found for why in one.skipped})
    if not any(one.passed for one in found):
        return cases, f"NOT TRIED: {'; '.join(skipped) or 'no test ran'}", False
    missing = [test.rpartition("::")[2] for test, one in zip(fault.tests, found, strict=True) if not one.passed]
    return (
        cases,
        "yes" if not missing else f"yes, but for {', '.join(missing)} ({'; '.join(skipped) or 'did not run'})",
        True,
    )


def table(faults: Sequence[Fault], outcomes: dict[str, Outcome]) -> tuple[Table, bool]:
    """The table, and whether all is good."""
    shown = Table(title="faults", show_lines=False)
    for name, justify in (("", "right"), ("fault", "left"), ("cases", "right"), ("promised", "left"), ("held", "left")):
        shown.add_column(name, justify="right" if justify == "right" else "left", overflow="fold")
    good = True
    total = 0
    for fault in faults:
        cases, held, fine = verdict(fault, outcomes)
        good, total = good and fine, total + cases
        shown.add_row(
            str(fault.number), fault.name, f"{cases:,}", fault.promise, held, style="" if fine else "bold red"
        )
    shown.caption = f"{total:,} cases; a test that shows two faults is counted in both"
    return shown, good


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.run")
    parser.add_argument("--target", default="faults")
    parser.add_argument("numbers", nargs="*", type=int)
    options = parser.parse_args(arguments)
    faults = [
        one for one in FAULTS if one.target == options.target and (not options.numbers or one.number in options.numbers)
    ]
    recorder = Recorder()
    tests = list(dict.fromkeys(test for fault in faults for test in fault.tests))
    pytest.main(["-p", "no:cacheprovider", *tests], plugins=[recorder])
    shown, good = table(faults, recorder.outcomes)
    Console(width=None if sys.stdout.isatty() else 160).print(shown)
    return 0 if good and faults else 1


if __name__ == "__main__":
    sys.exit(main())
