"""The words of the benchmark: a workload has jobs, a job gives samples of rows, targets compare rows.

Knows no server and no clock.  Invariants:
1. A row that nothing was measured for is absent, never zero.
2. A ratio compares samples of the same round; rounds in which one side is missing do not count.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from bench.context import Context

System = Literal["busd", "redis", "nats"]


class WrongAnswer(AssertionError):
    """Something that was counted did not arrive, or not as it was sent: the run is worth nothing."""


class CannotRun(Exception):
    """This machine has not what the job needs; says what is missing."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one round of a row measured.

    Args:
        value: in the unit of the row.
        server_ns: CPU time of the server a message, all threads; None where it says nothing.
        loader: part of its core that the loader used, 0 to 1; None where nothing was pipelined.
        peak_mb: highest resident memory of the server so far (VmHWM), in 10^6 bytes.
        more: other figures by name with their unit, as `p99 µs`.
    """

    value: float
    server_ns: float | None = None
    loader: float | None = None
    peak_mb: float | None = None
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table: what is measured, of which server.

    Args:
        case: rows that are compared with each other have the same; of a point of a curve `name: place`.
        variant: what tells rows of one case and server apart.
        at: the abscissa, for rows that are points of a curve.
    """

    case: str
    system: System
    unit: str
    variant: str = ""
    at: float | None = None

    @property
    def curve(self) -> str:
        """What the points of one curve have in common: `topics` of `topics: 10`."""
        return self.case.partition(":")[0]

    @property
    def who(self) -> str:
        """The server and the variant."""
        return f"{self.system} {self.variant}".strip()


@dataclass(frozen=True, slots=True)
class Target:
    """What a row should reach.

    Args:
        row: of busd.
        peers: rows to compare with; the one with the best median counts.  Empty: `bound` is in the row's own unit.
        bound: of the ratio busd / peer, or of the value.
        least: True when more is better.
    """

    row: Row
    bound: float
    peers: tuple[Row, ...] = ()
    least: bool = True

    def text(self) -> str:
        """As in a table: `≥ 4 × redis`."""
        sign = "≥" if self.least else "≤"
        if not self.peers:
            return f"{sign} {self.bound:g} {self.row.unit}"
        # A curve is compared with its own beginning.
        names = [peer.case if peer.system == self.row.system else peer.system for peer in self.peers]
        return f"{sign} {self.bound:g} × {' or '.join(dict.fromkeys(names))}"


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one server: gives a sample for each of the rows, or for those that this machine has room for.

    `needs`: packages of Python that it imports.
    """

    rows: tuple[Row, ...]
    run: Callable[[Context], Mapping[Row, Sample]]
    needs: tuple[str, ...] = ()

    @property
    def system(self) -> System:
        """The server."""
        return self.rows[0].system

    def text(self) -> str:
        """Which one it is, in a line."""
        return f"{self.rows[0].case}, {self.rows[0].who}"


@dataclass(frozen=True, slots=True)
class Workload:
    """A load, the rows it measures and what they should reach.

    Args:
        name: for `--only`.
        about: what is done, in sentences for the reader of the results.
        chart: `bars`: one for each row; `curve`: against `Row.at`, a line for each variant.
        rounds: at most so many; minutes of preparation need not be repeated five times.
        pinned: server and loader have a core each, as latencies need: the scheduler puts a lone client and its server
            on one core or on two as it likes, which is a difference of four times.
        disk_gb: free space that a full run of any of its jobs wants.
    """

    name: str
    title: str
    about: str
    jobs: tuple[Job, ...]
    targets: tuple[Target, ...] = ()
    chart: Literal["bars", "curve"] = "bars"
    axis: str = ""
    rounds: int = 100
    pinned: bool = False
    disk_gb: float = 1.0


@dataclass(slots=True)
class Findings:
    """All samples of a workload, by row; one entry a round.

    `skipped`, `wrong`: why a job was not run, and what it did that it should not; by job.
    """

    workload: Workload
    samples: dict[Row, dict[int, Sample]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)

    def add(self, round_number: int, found: Mapping[Row, Sample]) -> None:
        """What one job measured in one round."""
        for row, sample in found.items():
            self.samples.setdefault(row, {})[round_number] = sample

    def spoil(self, job: Job, reason: str) -> None:
        """It was wrong once: nothing that it measured counts."""
        self.wrong[job.text()] = reason
        for row in job.rows:
            self.samples.pop(row, None)

    def rows(self) -> list[Row]:
        """Those with samples, in the order of the workload."""
        return [row for job in self.workload.jobs for row in job.rows if row in self.samples]

    def values(self, row: Row) -> list[float]:
        """By round."""
        return [sample.value for sample in self.samples.get(row, {}).values()]

    def best(self, rows: Sequence[Row], most: bool = True) -> Row | None:
        """The one with the best median; None when none was measured."""
        found = [row for row in rows if row in self.samples]
        choose = max if most else min
        return choose(found, key=lambda row: statistics.median(self.values(row))) if found else None

    def ratios(self, row: Row, peer: Row) -> list[float]:
        """busd / peer, round by round."""
        ours, theirs = self.samples.get(row, {}), self.samples.get(peer, {})
        return [ours[one].value / theirs[one].value for one in sorted(ours.keys() & theirs.keys()) if theirs[one].value]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target, and what became of it; `peer` and `values` are empty when a side was not measured.

    `row`: that of the target, or the furthest point of its curve that this machine had room for.
    """

    target: Target
    row: Row
    peer: Row | None
    values: tuple[float, ...]

    def text(self) -> str:
        """What was measured: `100 B, synced, PUB`."""
        return ", ".join(filter(None, (self.row.case, self.row.variant)))

    @property
    def median(self) -> float | None:
        """Of the ratios, or of the values."""
        return statistics.median(self.values) if self.values else None

    @property
    def holds(self) -> bool | None:
        """None: not measured."""
        if (median := self.median) is None:
            return None
        return median >= self.target.bound if self.target.least else median <= self.target.bound


def judge(findings: Findings) -> list[Verdict]:
    """Every target of a workload."""
    verdicts = []
    for target in findings.workload.targets:
        row = _reached(findings, target.row)
        if not target.peers:
            verdicts.append(Verdict(target, row, None, tuple(findings.values(row))))
            continue
        peer = findings.best([one for one in target.peers if one != row], target.least)
        ratios = findings.ratios(row, peer) if peer is not None else []
        verdicts.append(Verdict(target, row, peer, tuple(ratios)))
    return verdicts


def _reached(findings: Findings, row: Row) -> Row:
    """The row, or the furthest measured point of the curve that it is the end of."""
    if row.at is None or row in findings.samples:
        return row
    points = [one for one in findings.rows() if one.curve == row.curve and one.at is not None]
    return max(points, key=lambda one: one.at or 0.0, default=row)
