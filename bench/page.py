"""results.md: the machine, the targets, a section for each workload with its chart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from bench import figures
from bench.plan import Findings

CHARTS = "charts"
TARGETS_CHART = "targets"


def write(
    directory: Path, all_findings: Sequence[Findings], facts: Mapping[str, str], notes: Sequence[str]
) -> tuple[Path, bool]:
    """results.md and the charts; replaces those of an earlier run.

    Returns:
        The page, and whether it has charts, which need matplotlib.
    """
    directory.mkdir(parents=True, exist_ok=True)
    drawn = _draw(directory / CHARTS, all_findings)
    page = directory / "results.md"
    page.write_text("\n".join(_page(all_findings, facts, notes, drawn)) + "\n")
    return page, bool(drawn)


def _draw(directory: Path, all_findings: Sequence[Findings]) -> set[str]:
    """The names of the charts that were made."""
    try:
        from bench import charts
    except ModuleNotFoundError:
        return set()
    if directory.exists():
        for old in directory.glob("*.svg"):
            old.unlink()
    drawn = {
        one.workload.name for one in all_findings if charts.workload_chart(one, directory / f"{one.workload.name}.svg")
    }
    if charts.targets_chart(all_findings, directory / f"{TARGETS_CHART}.svg"):
        drawn.add(TARGETS_CHART)
    return drawn


def _page(
    all_findings: Sequence[Findings], facts: Mapping[str, str], notes: Sequence[str], drawn: set[str]
) -> Iterator[str]:
    yield "# Measured"
    yield ""
    yield "Written by `make bench`; do not edit. How the speed comes about, and what limits it:"
    yield "[performance.md](../docs/performance.md)."
    yield ""
    yield from _table(("", ""), facts.items())
    yield ""
    yield (
        "*median* and *spread* (least – most) are of the rounds, in which the servers take turns; *busd / it*: the "
        "first row of busd divided by this one, the median of the rounds. *server CPU*: of all its threads, for each "
        "message (among the targets: busd's as a multiple of the other's). *loader*: how busy the loader's own core "
        "was. *peak*: the server's highest resident memory. "
        "What was counted also arrived: numbers, order and contents are checked, and a wrong answer fails the run."
    )
    yield ""
    yield from (f"- **{note}**" for note in notes)
    if notes:
        yield ""
    yield "## Targets"
    yield ""
    yield from _chart(TARGETS_CHART, "what was reached of each target", drawn)
    yield from _table(figures.TARGET_HEADINGS, figures.verdict_lines(all_findings))
    for findings in all_findings:
        workload = findings.workload
        yield ""
        yield f"## {workload.title}"
        yield ""
        yield f"{workload.about} {_how_often(findings)} (`--only {workload.name}`)"
        yield ""
        yield from _chart(workload.name, workload.title, drawn)
        yield from _table(figures.HEADINGS, figures.lines(findings))
        for note in figures.notes(findings):
            yield ""
            yield note


def _how_often(findings: Findings) -> str:
    rounds = max([len(samples) for samples in findings.samples.values()], default=0)
    where = "a core each for server and loader" if findings.workload.pinned else "not pinned"
    return f"{rounds} round{'s' * (rounds != 1)}, {where}."


def _chart(name: str, title: str, drawn: set[str]) -> Iterator[str]:
    if name in drawn:
        yield f"![{title}]({CHARTS}/{name}.svg)"
        yield ""


def _table(headings: Sequence[str], lines: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Columns of which nothing is known are left out."""
    rows = list(lines)
    kept = [at for at, name in enumerate(headings) if not name or any(row[at] for row in rows)]
    yield "| " + " | ".join(headings[at] for at in kept) + " |"
    yield "|" + "---|" * len(kept)
    for row in rows:
        yield "| " + " | ".join(row[at].replace("|", "\\|") for at in kept) + " |"
