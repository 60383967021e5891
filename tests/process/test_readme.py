"""The README's tour, run as a user would type it: every command in one bash, its output compared with what is shown.

Only the port and the directory differ: 7379 and /tmp/busd stand for free ones. `…` in the output is anything in a line.
"""

from __future__ import annotations

import re
import socket
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from busd.wiring import config
from busd.words.settings import Limits, Settings, StoreRule
from tests.support.tools import LOOK_S, ROOT, end_session, environment, need

TEXT = (ROOT / "README.md").read_text()
# What one command may take; `wait` after kill included.
COMMAND_TIMEOUT_S = 30.0
# Written by the shell behind each command's output: the end of it, and the exit status.
MARK = "\x01done "


@dataclass(slots=True)
class Shown:
    """A command of the README and what it says it prints."""

    line: int
    command: str
    output: list[str] = field(default_factory=list)


def tour(page: str = TEXT) -> list[Shown]:
    """The commands of all console blocks of a page, in order."""
    found: list[Shown] = []
    inside = False
    for number, line in enumerate(page.splitlines(), 1):
        if line.startswith("```"):
            inside = line == "```console"
        elif inside and line.startswith("$ "):
            found.append(Shown(number, line[2:]))
        elif inside and line.startswith(">"):
            found[-1].command += f"\n{line[2:]}"
        elif inside:
            found[-1].output.append(line)
    return found


class Shell:
    """A bash that is given commands one by one; its stdout and stderr are one stream, as on a terminal."""

    def __init__(self, directory: Path, port: int) -> None:
        self._said = directory / "said"
        self._seen = 0
        env = {"BUSD_ADDRESS": f"127.0.0.1:{port}", "BUSD_TCP": f"127.0.0.1:{port}"}
        with open(self._said, "wb") as said:
            self._bash = subprocess.Popen(
                ["bash"], stdin=subprocess.PIPE, stdout=said, stderr=said, env=environment(env), cwd=ROOT, bufsize=0,
                start_new_session=True,
            )  # fmt: skip
        # On a terminal redis-cli shows types; job control is what makes %1 a process group.
        self._type('redis-cli() { command redis-cli --no-raw "$@"; }; set -m\n')

    def run(self, command: str, background_says: re.Pattern[str] | None) -> str:
        """What the command prints; a command in the background is waited for until it says this."""
        self._type(f"{command}\nprintf '{MARK}%s\\n' $?\n")
        deadline = time.monotonic() + COMMAND_TIMEOUT_S
        while True:
            text = self._said.read_text(errors="replace")[self._seen :]
            end = re.search(rf"{MARK}(\d+)\n", text)
            if end is not None and (background_says is None or background_says.search(text)):
                self._seen += len(text)
                assert end[1] == "0", f"{command!r} ended with {end[1]}: {text}"
                return text.replace(end[0], "")
            assert time.monotonic() < deadline, f"{command!r} does not end; so far: {text}"
            time.sleep(LOOK_S)

    def close(self) -> None:
        """End it and everything it started: job control gives each job a group, but the session is one."""
        assert self._bash.stdin is not None
        end_session(self._bash.pid)
        self._bash.wait(COMMAND_TIMEOUT_S)
        self._bash.stdin.close()

    def _type(self, text: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(text.encode())


@pytest.fixture
def shell() -> Iterator[tuple[Shell, int, str]]:
    """A shell, a free port and a directory."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="busd-") as name:
        shell = Shell(Path(name), port)
        try:
            yield shell, port, name
        finally:
            shell.close()


def as_pattern(shown: list[str]) -> re.Pattern[str]:
    """The output shown; bash's own notices about jobs may stand around it."""
    return re.compile("".join(".*".join(map(re.escape, f"{line}\n".split("…"))) for line in shown))


@pytest.mark.timeout(180)
def test_the_tour(shell: tuple[Shell, int, str]) -> None:
    need("bash", "nc", "socat", "redis-cli")
    walk(shell, "README.md", tour())


@pytest.mark.timeout(180)
def test_the_tour_of_security(shell: tuple[Shell, int, str]) -> None:
    need("bash", "nc", "openssl", "redis-cli")
    walk(shell, "docs/security.md", tour((ROOT / "docs" / "security.md").read_text()))


def walk(shell: tuple[Shell, int, str], page: str, commands: list[Shown]) -> None:
    """Run the commands and compare."""
    bash, port, directory = shell
    assert len(commands) > 15
    with socket.create_server(("127.0.0.1", 0)) as free:
        tls_port = free.getsockname()[1]
    real = {"7379": str(port), "7380": str(tls_port), "/tmp/busd": f"{directory}/busd"}

    def here_is(text: str) -> str:
        return re.sub("|".join(real), lambda found: real[found[0]], text)

    for one in commands:
        here = [here_is(text) for text in one.output]
        command = here_is(one.command)
        background = command.endswith("&")
        wanted = as_pattern(here)
        told = bash.run(command, wanted if background else None)
        # Notices of job control: [1]+  Killed …, and the process id of a new job.
        told = re.sub(r"^(\[\d+\].*|bash: line \d+: +\d+ Killed.*)\n", "", told, flags=re.MULTILINE)
        assert wanted.fullmatch(told), f"{page}, line {one.line}: {command}\nshown: {here}\ntold:  {told.splitlines()}"


def test_the_settings_shown_are_all_there_are(tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    path = tmp_path / "busd.toml"
    path.write_text(block)
    settings = config.load(str(path), {}, {})
    assert settings.sync == "always"
    assert settings.stores[0].match == (b"metrics.>", b"trace.>")
    assert settings.limits == Limits(), "the limits shown are not the defaults"
    table = tomllib.loads(block)

    def keys(kind: type[StoreRule | Settings]) -> set[str]:
        # The fields of times say their unit, the settings do not.
        return {re.sub("_n?s$", "", name) for name in kind.__dataclass_fields__}

    assert set(table["main"]) == keys(StoreRule) - {"name", "match"}
    assert set(table["store"][0]) >= {"name", "match"}
    assert set(table) == keys(Settings) - {"stores"} | {"store"}


def test_every_file_linked_to_is_there() -> None:
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "protocol.md",
        "docs/operations.md",
        "docs/performance.md",
        "docs/security.md",
        "bench/results.md",
        "clients/bash/README.md",
        "clients/python/README.md",
    ):
        page = ROOT / name
        links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        assert [link for link in links if not (page.parent / link).exists()] == [], name


def test_the_programs_that_tests_need_are_told() -> None:
    calls = [
        call for path in ROOT.glob("tests/**/*.py") for call in re.findall(r"\bneed\((\".*\")\)", path.read_text())
    ]
    needed = {name for call in calls for name in re.findall(r"\"(\w[\w-]+)\"", call)}
    # Those are for tests that run by themselves nowhere: make faults-root.
    needed -= {"dmsetup", "losetup", "modprobe"}
    assert {"bash", "nc", "openssl", "unshare"} <= needed
    told = TEXT.partition("The tests use")[2].partition("\n")[0]
    assert sorted(name for name in needed if not re.search(rf"\b{name}\b", told)) == []


def test_the_dependencies_told_are_those_there_are() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[<>=]", one)[0] for one in project["dependencies"]}
    table = TEXT.partition("## Dependencies")[2]
    told = {name.strip() for row in re.findall(r"^\| ([a-z, ]+) \|", table, re.MULTILINE) for name in row.split(",")}
    assert told - {"package"} == needed
