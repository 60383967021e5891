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

from bench.figures import number
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
                row, bound = one.target.row, one.target.bound
                peer = f" / {one.peer.system}" if one.peer is not None and one.peer.system != "busd" else ""
                measured = f"{number(one.median)} {'×' if one.peer else row.unit} ({one.target.text()})"
                reached = one.median / bound if one.target.least else bound / one.median
                found.append((f"{row.case}, {row.variant}{peer}".replace(", /", " /"), reached, measured))
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
        axes.set_xlim(0, max(reached for _, reached, _ in found) * 1.35)
        axes.set_xlabel("reached, of the target: 1 and more is held")
        _save(figure, path)
    return True


def _bars(findings: Findings) -> Figure:
    """A panel for each unit; a bar for each row, its whiskers the least and the most."""
    rows = findings.rows()
    units = list(dict.fromkeys(row.unit for row in rows))
    by_unit = [[row for row in rows if row.unit == unit] for unit in units]
    heights = [BAR * (len(some) + len({row.case for row in some})) + 0.4 for some in by_unit]
    figure, grid = plt.subplots(
        len(units), 1, figsize=(WIDTH, sum(heights) + 0.4), squeeze=False, height_ratios=heights, layout="constrained"
    )
    for axes, unit, some in zip(grid[:, 0], units, by_unit, strict=True):
        at, places, labels, before = 0.0, [], [], ""
        for row in some:
            if row.case != before:
                at += 0.6 if before else 0.0
                before = row.case
            values = findings.values(row)
            middle = statistics.median(values)
            whiskers = [[middle - min(values)], [max(values) - middle]]
            axes.barh(at, middle, 0.85, xerr=whiskers, color=COLOURS[row.system], error_kw={"linewidth": 0.8})
            axes.annotate(number(middle), (max(values), at), (4, 0), textcoords="offset points", va="center")
            places.append(at)
            labels.append(f"{row.case} · {row.who}")
            at += 1
        axes.set_yticks(places, labels)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_xlabel(unit)
        axes.xaxis.set_major_formatter(lambda value, _: number(value))
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
        for name in dict.fromkeys(_curve_of(row) for row in some):
            _curve(axes, findings, [row for row in some if _curve_of(row) == name], name, value)
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_ylabel(unit)
        axes.yaxis.set_major_formatter(lambda value, _: number(value))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if value < 1 else f"{value:,.0f}")
        axes.legend(frameon=False)
    grid[-1, 0].set_xlabel(findings.workload.axis)
    figure.suptitle(findings.workload.title)
    return figure


def _curve_of(row: Row) -> str:
    return row.case.partition(":")[0]


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
