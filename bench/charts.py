"""Charts of findings as SVG.  Needs matplotlib, and draws the same bytes for the same figures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

# Before pyplot, which would look for a screen.
mpl.use("svg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.figures import amount, number
from bench.plan import Findings, Row, Sample, System, judge

COLOURS: dict[System, str] = {"busd": "#1b6ca8", "redis": "#c0392b", "nats": "#27ae60"}
HELD, MISSED = "#1b6ca8", "#e67e22"
# Any: the names are rcParams of matplotlib, which has types for them in some versions.
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "busd",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
WIDTH = 8.0
BAR = 0.26


def workload_chart(findings: Findings, path: Path) -> bool:
    """Bars or curves; False (and no file) when nothing was measured."""
    if not findings.rows():
        return False
    with plt.rc_context(STYLE):
        figure = _curves(findings) if findings.workload.chart == "curve" else _bars(findings)
        _save(figure, path)
    return True


def targets_chart(all_findings: Sequence[Findings], path: Path) -> bool:
    """Each target as what was reached of it: beyond 1 it is held, whether more or less is better."""
    found = []
    for findings in all_findings:
        for one in judge(findings):
            if one.median:
                row, bound = one.row, one.target.bound
                peer = f" / {one.peer.system}" if one.peer is not None and one.peer.system != "busd" else ""
                measured = f"{number(one.median)} {'×' if one.peer else row.unit} ({one.target.text()})"
                reached = one.median / bound if one.target.least else bound / one.median
                found.append((f"{findings.workload.name}: {one.text()}{peer}", reached, measured))
    if not found:
        return False
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 0.8 + BAR * len(found)), layout="constrained")
        for at, (_, reached, measured) in enumerate(found):
            axes.barh(at, reached, color=HELD if reached >= 1 else MISSED)
            axes.annotate(measured, (reached, at), (4, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(found)), [name for name, _, _ in found])
        axes.invert_yaxis()
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xlim(0, max(reached for _, reached, _ in found) * 1.6)
        axes.set_xlabel("reached, of the target: 1 and more is held")
        _save(figure, path)
    return True


def _bars(findings: Findings) -> Figure:
    """A bar for each row with its whiskers, the least and the most, as a multiple of the first row of busd in the same
    case; the value itself beside it.  A workload with nobody to compare with: as a multiple of its largest."""
    rows = findings.rows()
    alone = all(row.system == "busd" for row in rows)
    largest = max(statistics.median(findings.values(row)) for row in rows)
    gaps = len({row.case for row in rows}) if not alone else 0
    figure, axes = plt.subplots(figsize=(WIDTH, BAR * (len(rows) + gaps) + 0.8), layout="constrained")
    at, places, before, furthest = 0.0, [], "", 0.0
    for row in rows:
        if row.case != before:
            at += 0.6 if before and not alone else 0.0
            before = row.case
        ours = next((one for one in rows if one.case == row.case and one.system == "busd"), row)
        base = largest if alone else statistics.median(findings.values(ours))
        values = [value / base for value in findings.values(row)]
        middle = statistics.median(values)
        whiskers = [[middle - min(values)], [max(values) - middle]]
        axes.barh(at, middle, 0.85, xerr=whiskers, color=COLOURS[row.system], error_kw={"linewidth": 0.8})
        label = amount(statistics.median(findings.values(row)), row.unit)
        axes.annotate(label, (max(values), at), (4, 0), textcoords="offset points", va="center")
        places.append(at)
        furthest = max(furthest, *values)
        at += 1
    axes.set_yticks(places, [f"{row.case} · {row.who}" for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, furthest * 1.25)
    if alone:
        axes.set_xticks([])
    else:
        axes.axvline(1, color="black", linewidth=0.5, linestyle=":")
        axes.set_xlabel("× busd")
    figure.suptitle(findings.workload.title)
    return figure


def _curves(findings: Findings) -> Figure:
    """A panel for each unit, and one for the server's CPU time where it was measured: cost against the abscissa."""
    rows = [row for row in findings.rows() if row.at is not None]
    panels: list[tuple[str, list[Row], Callable[[Sample], float | None]]] = [
        (unit, [row for row in rows if row.unit == unit], lambda sample: sample.value)
        for unit in dict.fromkeys(row.unit for row in rows)
    ]
    spent = [row for row in rows if all(one.server_ns is not None for one in findings.samples[row].values())]
    if spent:
        panels.append(("server CPU, ns a message", spent, lambda sample: sample.server_ns))
    figure, grid = plt.subplots(len(panels), 1, figsize=(WIDTH, 2.2 * len(panels)), squeeze=False, layout="constrained")
    for axes, (unit, some, value) in zip(grid[:, 0], panels, strict=True):
        for name in dict.fromkeys(row.curve for row in some):
            _curve(axes, findings, [row for row in some if row.curve == name], name, value)
        axes.set_xscale("log")
        axes.set_ylim(0, axes.get_ylim()[1] * 1.1 or 1)
        axes.set_ylabel(unit)
        axes.yaxis.set_major_formatter(lambda value, _: number(value))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if value < 1 else f"{value:,.0f}")
        axes.legend(frameon=False)
    grid[-1, 0].set_xlabel(findings.workload.axis)
    figure.suptitle(findings.workload.title)
    return figure


def _curve(axes: Axes, findings: Findings, rows: list[Row], name: str, value: Callable[[Sample], float | None]) -> None:
    by_row = [[found for one in findings.samples[row].values() if (found := value(one)) is not None] for row in rows]
    middle = [statistics.median(values) for values in by_row]
    around = [
        [mid - min(values) for mid, values in zip(middle, by_row, strict=True)],
        [max(values) - mid for mid, values in zip(middle, by_row, strict=True)],
    ]
    abscissae = [row.at or 0.0 for row in rows]
    axes.errorbar(abscissae, middle, yerr=around, marker="o", capsize=2, linewidth=1, label=name)


def _save(figure: Figure, path: Path) -> None:
    """Without the date, which would make every file new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
