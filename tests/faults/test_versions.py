"""Faults 20 and 27: what every released version left is read; what a later one left is refused, and not touched."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from zlib import crc32

import pytest

from tests.conftest import Cases
from tests.faults.released import DATA, SETTINGS, answers
from tests.support.commands import BUSD
from tests.support.server import ServerProcess
from tests.support.tools import run

VERSIONS = sorted(path.name.removesuffix(".tar.gz") for path in DATA.glob("*.tar.gz"))


def unpacked(version: str, base: Path) -> Path:
    """The data directory that a version left."""
    with tarfile.open(DATA / f"{version}.tar.gz") as archive:
        # An attribute, because `extractall` of Debian's Python has no argument for it.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(base)
    return base / "data"


def test_there_are_some() -> None:
    assert VERSIONS[0] == "0.1.0"


@pytest.mark.parametrize("version", VERSIONS)
def test_the_log_of_a_released_version(version: str, short_dir: Path, cases: Cases) -> None:
    """Read to the last message, published to, stopped and started again; and sound for `verify`."""
    data = unpacked(version, short_dir)
    assert b"no damage" in run([*BUSD, "verify", str(data)]).stdout
    expected = json.loads((DATA / f"{version}.json").read_text())
    server = ServerProcess(short_dir)
    for _ in range(2):
        server.start()
        try:
            found = answers(server)
            for question, lines in expected.items():
                assert found[question] == lines, question
                cases.add(len(lines))
        finally:
            server.stop()
    (short_dir / "busd.toml").write_text(SETTINGS)
    server = ServerProcess(short_dir, ["--config", str(short_dir / "busd.toml")]).start()
    try:
        last = max(int(json.loads(line)["offset"]) for line in expected["READ > FORMAT json"] if '"offset"' in line)
        (answer,) = server.ask(b"PUB a.0 new\n").splitlines()
        assert int(answer[1:]) > last
    finally:
        server.close()


def later_meta(data: Path) -> Path:
    """meta, as a later version may write it."""
    path = data / "meta"
    text = path.read_bytes().replace(b"format 1\n", b"format 3\n").replace(b"floor ", b"ceiling 9\nfloor ")
    text = text[: text.index(b"crc ")]
    path.write_bytes(b"%bcrc %08x\n" % (text, crc32(text)))
    return path


def later_segment(data: Path) -> Path:
    """A segment in the middle, as a later version may write it."""
    path = sorted((data / "logs" / "main").glob("*.log"))[1]
    content = path.read_bytes()
    size = 23 + int(content[12:22])
    rest = content[12:size].replace(b" 1 main", b" 3 main", 1)
    path.write_bytes(b"+S %08x %b%b" % (crc32(rest), rest, content[size:]))
    return path


def empty_meta(data: Path) -> Path:
    (data / "meta").write_bytes(b"")
    return data / "meta"


def foreign_meta(data: Path) -> Path:
    (data / "meta").write_bytes(b"\x89PNG\r\n\x1a\n")
    return data / "meta"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (later_meta, b"format 3; this busd reads formats 1 to 2"),
        (later_segment, b"format 3; this busd reads formats 1 to 2"),
        (empty_meta, b"not a meta file of busd"),
        (foreign_meta, b"not a meta file of busd"),
    ],
)
def test_what_is_not_ours_to_read(change: object, said: bytes, short_dir: Path) -> None:
    """Refused with the file's name, in one line, and byte for byte as it was."""
    assert callable(change)
    data = unpacked(VERSIONS[-1], short_dir)
    path = change(data)
    before = {one: one.read_bytes() for one in data.rglob("*") if one.is_file()}
    refused = run([*BUSD, "serve", "--no-tcp", "--unix", str(short_dir / "s"), "--data", str(data)], status=2)
    assert said in refused.stderr
    assert str(path).encode() in refused.stderr
    assert refused.stderr.count(b"\n") == 1
    after = {one: one.read_bytes() for one in data.rglob("*") if one.is_file() and one.name != "LOCK"}
    assert after == before
    if change in (later_meta, later_segment):
        repaired = run([*BUSD, "repair", str(data)], status=2)
        assert said in repaired.stderr
    else:
        assert b"written anew" in run([*BUSD, "repair", str(data)]).stdout


def test_strangers_among_the_files(short_dir: Path) -> None:
    """They are left alone and named; empty files of ours are what a crash may leave."""
    data = unpacked(VERSIONS[-1], short_dir)
    (data / "logs" / "lost+found").mkdir()
    (data / "logs" / "README").write_text("mine")
    (data / "logs" / "main" / "notes.txt").write_text("mine")
    (data / "logs" / "main" / f"{10**9:020d}.log").write_bytes(b"")
    server = ServerProcess(short_dir).start()
    try:
        assert server.ask(b"PUB a.0 x\n").startswith(b":")
        log = server.log_of_this_start()
    finally:
        server.close()
    for name in ("lost+found", "README", "notes.txt"):
        assert f"{name}: not a" in log
    assert (data / "logs" / "main" / "notes.txt").read_text() == "mine"
    assert list((data / "logs" / "lost+found").iterdir()) == []
