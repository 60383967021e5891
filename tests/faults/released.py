"""Makes tests/faults/data/<version>.tar.gz and .json: a data directory as this version leaves it after kill -9, and
what it holds.  To be run once at each release, and the result never changed:

    python -m tests.faults.released
"""

from __future__ import annotations

import json
import re
import tarfile
import tempfile
from pathlib import Path

from busd import __version__
from tests.support.server import ServerProcess, read_lines

DATA = Path(__file__).parent / "data"
SETTINGS = """
[main]
segment_bytes = "16k"
max_bytes = "64k"
[[store]]
match = "jobs.>"
name = "jobs"
segment_bytes = "16k"
retain = "acked"
groups = ["work"]
[[store]]
match = "own.>"
name = "own-{topic}"
keep_last = 1
"""
# What a reader is asked, and what a later version must answer in the same words.
QUESTIONS = ("READ > FORMAT json", "TOPICS", "GROUPS", "READ jobs.> GROUP work FORMAT json", "READ own.> LAST 1")


def answers(server: ServerProcess) -> dict[str, list[str]]:
    """Everything that is kept."""
    found = {}
    for question in QUESTIONS:
        lines = server.ask(question.encode() + b"\n").decode().splitlines()
        found[question] = [_steady(line) for line in lines]
    return found


def _steady(line: str) -> str:
    """A line without what passes with time, and with long filling told by its length."""
    words = [word for word in line.split(" ") if not word.startswith(("oldest_ms", "idle_ms"))]
    return re.sub(r"([xy])\1{30,}", lambda match: f"({len(match[0])} {match[1]})", " ".join(words))


def live(server: ServerProcess) -> None:
    """Something of everything that lies on disk."""
    for number in range(120):
        server.ask(b"PUB a.%d %d %b\n" % (number % 3, number, b"x" * 900))
    server.ask(b"EPUB binary \\0377\\n\\0000\nHPUB sensor id=one unit=C key=k :21.5\nPUB empty \n")
    server.ask(b"".join(b"PUB jobs.%d %d %b\n" % (number % 2, number, b"y" * 700) for number in range(60)))
    server.ask(b"".join(b"PUB own.%d %d\n" % (number % 3, number) for number in range(9)))
    server.ask(b"PUB gone 1\nPUB gone 2\nRESET gone\nPUB gone 3\nPUB ended 1\nEOF ended\n")
    with server.connect() as member:
        member.sendall(b"SUB jobs.> GROUP work WINDOW 40\n")
        lines = read_lines(member, 41)
        tokens = [line.split(b" ")[2] for line in lines[1:]]
        member.sendall(b"ACK ..%b\nACK %b %b\n" % (tokens[24], tokens[30], tokens[33]))
        read_lines(member, 2)
    with server.connect() as member:
        member.sendall(b"SUB a.* GROUP other TRIES 3 FROM -1h\n")
        read_lines(member, 2)


def main() -> None:
    """Write the two files."""
    with tempfile.TemporaryDirectory(prefix="busd-") as place:
        base = Path(place)
        (base / "busd.toml").write_text(SETTINGS)
        server = ServerProcess(base, ["--config", str(base / "busd.toml")]).start()
        live(server)
        server.stop()
        server.start()
        live(server)
        server.kill()
        DATA.mkdir(exist_ok=True)
        with tarfile.open(DATA / f"{__version__}.tar.gz", "w:gz") as archive:
            for path in sorted(server.data.rglob("*")):
                if path.name not in ("reserve", "LOCK"):
                    archive.add(path, path.relative_to(base), recursive=False)
        # Without rules nothing is trimmed: all that is there stays there.
        server = ServerProcess(base).start()
        (DATA / f"{__version__}.json").write_text(json.dumps(answers(server), indent=1) + "\n")
        server.close()


if __name__ == "__main__":
    main()
