"""Findings as words: the lines of a table, the same on the terminal and in results.md.

Knows no terminal and no file.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

from bench.plan import Findings, Row, Sample, Verdict, judge

HEADINGS = ("", "server", "median", "spread", "busd / it", "server CPU", "loader", "peak", "also")
TARGET_HEADINGS = ("workload", "", "target", "measured", "spread", "against", "server CPU", "held")
# A loader that has less than a tenth of its core left may be what limits.
BUSY = 0.9
HELD = {True: "yes", False: "NO", None: "not measured"}


def number(value: float) -> str:
    """With three digits that mean something."""
    for least, unit in ((1e6, " M"), (1e4, " k")):
        if abs(value) >= least:
            return f"{_digits(value / (1e6 if unit == ' M' else 1e3))}{unit}"
    return _digits(value)


def _digits(value: float) -> str:
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def amount(value: float, unit: str) -> str:
    """A number and its unit: 1.67 M msg/s."""
    return f"{number(value)}{unit}" if number(value)[-1] in "kM" and unit[0] == "B" else f"{number(value)} {unit}"


def spread(values: Sequence[float]) -> str:
    """Least and most; nothing for a single round."""
    return f"{number(min(values))} – {number(max(values))}" if len(values) > 1 else ""


def lines(findings: Findings) -> Iterator[tuple[str, ...]]:
    """A line for each row, as HEADINGS says; the case is named once."""
    before = ""
    for row in findings.rows():
        values = findings.values(row)
        samples = list(findings.samples[row].values())
        yield (
            row.case if row.case != before else "",
            row.who,
            amount(statistics.median(values), row.unit),
            spread(values),
            _against(findings, row),
            _of(samples, "server_ns", lambda ns: f"{number(ns / 1e3)} µs"),
            _of(samples, "loader", lambda part: f"{part:.0%}"),
            _of(samples, "peak_mb", lambda mb: f"{number(mb)} MB"),
            ", ".join(_also(samples)),
        )
        before = row.case


def _against(findings: Findings, row: Row) -> str:
    """How many times this row the first of busd's rows in the same case is."""
    ours = next((one for one in findings.rows() if one.case == row.case and one.system == "busd"), None)
    if ours is None or row.system == "busd":
        return ""
    ratios = findings.ratios(ours, row)
    return f"{number(statistics.median(ratios))} ×" if ratios else ""


def _of(samples: Sequence[Sample], name: str, text: Callable[[float], str]) -> str:
    """The median of one of the optional figures."""
    found = [value for one in samples if (value := getattr(one, name)) is not None]
    return text(statistics.median(found)) if found else ""


def _also(samples: Sequence[Sample]) -> Iterator[str]:
    """`p99 µs` as `p99 260 µs`."""
    for name in samples[0].more:
        what, _, unit = name.rpartition(" ")
        value = statistics.median([one.more[name] for one in samples if name in one.more])
        yield f"{what} {amount(value, unit)}" if what else f"{name} {number(value)}"


def brief(text: str) -> str:
    """The first line and the last: of a traceback the two that say what happened."""
    first, *others = text.strip().splitlines()
    return f"{first} … {others[-1].strip()}" if others else first


def notes(findings: Findings) -> Iterator[str]:
    """What a reader must know before believing the table."""
    for name, why in findings.wrong.items():
        yield f"WRONG: {name}: {brief(why)}"
    for name, why in findings.skipped.items():
        yield f"not run: {name}: {why}"
    busy = []
    for row in findings.rows():
        parts = [one.loader for one in findings.samples[row].values() if one.loader is not None]
        if parts and statistics.median(parts) >= BUSY:
            busy.append(f"{row.case}, {row.who} ({statistics.median(parts):.0%})")
    if busy:
        yield f"The loader's core was at least {BUSY:.0%} busy, and may be what limits: {'; '.join(busy)}."


def verdict_lines(all_findings: Sequence[Findings]) -> Iterator[tuple[str, ...]]:
    """A line for each target, as TARGET_HEADINGS says."""
    before = ""
    for findings in all_findings:
        for one in judge(findings):
            title = findings.workload.title
            yield (title if title != before else "", *_verdict(findings, one))
            before = title


def _verdict(findings: Findings, one: Verdict) -> tuple[str, ...]:
    row, what = one.row, one.text()
    if one.median is None:
        return what, one.target.text(), "", "", "", "", HELD[None]
    ratio = one.peer is not None
    measured = f"{number(one.median)} ×" if ratio else amount(one.median, row.unit)
    against = ""
    if one.peer is not None:
        theirs = statistics.median(findings.values(one.peer))
        whom = one.peer.case if one.peer.system == row.system else one.peer.who
        against = f"{whom}, {amount(theirs, one.peer.unit)}"
    spent = _cpu_ratio(findings, row, one.peer)
    return what, one.target.text(), measured, spread(one.values), against, spent, HELD[one.holds]


def _cpu_ratio(findings: Findings, row: Row, peer: Row | None) -> str:
    """The CPU time of busd for a message as a multiple of the peer's: says the same on a machine that is not quiet."""
    if peer is None:
        return ""
    ours, theirs = (
        [one.server_ns for one in findings.samples[which].values() if one.server_ns is not None]
        for which in (row, peer)
    )
    return f"{number(statistics.median(ours) / statistics.median(theirs))} ×" if ours and theirs else ""
