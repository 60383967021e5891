"""`make demo` shows a session that works; `make` has the targets the README names."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.support.tools import IN_CI, ROOT, need, run

# The first run makes .venv, which downloads.
DEMO_TIMEOUT_S = 300.0


def check(shown: str) -> None:
    """What the session must have shown."""
    expected = [
        "MSG news.eu 1 hello world",
        "END end next=5",
        "5\tnews.asia\ta new topic joins",
        "MSG news.eu 6 by hand",
        "200000",
        "numbers\t200000\t200006\topen",
    ]
    lines = shown.splitlines()
    places = [lines.index(line) for line in expected]
    assert places == sorted(places)
    ports = re.findall(r"ready, tcp 127\.0\.0\.1:(\d+)", shown)
    assert len(ports) == 2
    assert ports[0] == ports[1]
    assert re.search(r"^\d{4}-\d\d-\d\dT\S+Z\tnews.eu\tby hand$", shown, re.MULTILINE)
    assert "rror" not in shown
    assert "Traceback" not in shown


def makes_the_demo() -> bool:
    """Whether test_make_demo is for here: it shows the same session."""
    return IN_CI or (ROOT / ".venv").exists()


def test_the_session() -> None:
    need("bash")
    if makes_the_demo() and shutil.which("make"):
        pytest.skip("make demo shows it")
    check(run(["bash", "examples/demo.sh"]).stdout.decode())


@pytest.mark.timeout(DEMO_TIMEOUT_S)
def test_make_demo() -> None:
    need("make")
    if not makes_the_demo():
        pytest.skip("there is no .venv; `make demo` would download one")
    check(run(["make", "--no-print-directory", "demo"], timeout_s=DEMO_TIMEOUT_S).stdout.decode())


def test_make_has_what_is_documented() -> None:
    need("make")
    documented = set(re.findall(r"^#   make ([\w-]+)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md", "docs/operations.md", "docs/performance.md"):
        documented |= set(re.findall(r"`make ([\w-]+)", (ROOT / page).read_text()))
    (there,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert documented == set(there.split())
    for target in sorted(documented):
        run(["make", "--dry-run", target])


def test_what_ci_runs_is_a_script() -> None:
    need("bash")
    run(["bash", "-n", ".ci/run"])
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_the_scripts_are_clean_for_shellcheck() -> None:
    need("shellcheck")
    run(["shellcheck", "examples/demo.sh", ".ci/run"])
