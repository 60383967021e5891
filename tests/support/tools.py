"""Programs and words the process tests share: real tools or a reason why not, and one way to run a command.

A tool that is missing skips a test on a developer's machine and fails it where CI=true: there all must be installed.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IN_CI = os.environ.get("CI") == "true"
# A slow disk under a busy machine; what takes longer hangs.
COMMAND_TIMEOUT_S = 60.0
# How often to look whether another process got there.
LOOK_S = 0.01


def need(*names: str) -> None:
    """Skip the test, or fail it in CI, when one of these programs is not installed."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        reason = f"not installed: {', '.join(missing)}"
        if IN_CI:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@functools.cache
def _scripts() -> str:
    """A directory with `busd` and `python3` of this checkout and this Python, whatever is installed."""
    place = tempfile.mkdtemp(prefix="busd-bin-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    python = shlex.quote(sys.executable)
    for name, command in (("busd", f"{python} -m busd"), ("python3", python)):
        script = Path(place, name)
        script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        script.chmod(0o755)
    return place


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for children: this checkout's code, `busd` and `python3` of it, no settings of the user's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BUSD_")}
    kept["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'clients' / 'python'}"
    kept["PATH"] = f"{_scripts()}{os.pathsep}{kept.get('PATH', os.defpath)}"
    if kept.pop("PYTHONDONTWRITEBYTECODE", ""):
        # Who asks for no byte code in the checkout gets none there; but every start of a server would compile all of
        # busd again, a third of its time.
        kept["PYTHONPYCACHEPREFIX"] = f"{_scripts()}/bytecode"
    kept.update(extra or {})
    return kept


def run(
    command: Sequence[str] | str,
    given: bytes = b"",
    *,
    env: Mapping[str, str] | None = None,
    status: int | None = 0,
    timeout_s: float = COMMAND_TIMEOUT_S,
    cwd: Path = ROOT,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command (a string is bash), give it bytes, return what it printed.

    Args:
        status: the exit status it must have; None for any.

    Raises:
        AssertionError: it ended otherwise, with the end of what it wrote.
    """
    words = ["bash", "-c", command] if isinstance(command, str) else list(command)
    done = subprocess.run(words, input=given, capture_output=True, env=environment(env), timeout=timeout_s, cwd=cwd)
    if status is not None:
        told = (done.stdout[-4000:] + done.stderr).decode("utf-8", "replace")
        assert done.returncode == status, f"{words} ended with {done.returncode}: {told}"
    return done


def until(true: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    """Wait for something another process does."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s} s"
        time.sleep(LOOK_S)


@contextlib.contextmanager
def ending(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The process for as long as the block lasts, however that ends; then it is killed, if it still runs."""
    with process:
        try:
            yield process
        finally:
            process.kill()


def end_session(session: int) -> None:
    """SIGKILL for every process of a session that a test began (start_new_session); its id is its first process's."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            # Fields behind the name in brackets: state, parent, group, session.
            facts = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(facts[3]) == session:
                os.kill(int(entry.name), signal.SIGKILL)
