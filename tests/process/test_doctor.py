"""What `busd doctor` finds that would stop a start, and that it leaves a place as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from busd.words.settings import Settings
from busd.world.doctor import Finding, examine
from tests.support.certificates import certificates


def found(settings: Settings) -> dict[str, Finding]:
    """Findings by name."""
    return {one.name: one for one in examine(settings)}


def everything(place: Path) -> list[str]:
    """All that lies below a directory."""
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


@pytest.mark.parametrize("data", ["there", "new", "new/two/deep", "there/three/deeper/still"])
def test_it_leaves_nothing_behind(data: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    told = found(Settings(data=str(tmp_path / data), tcp=""))
    assert told["lock"].verdict == "ok"
    assert "fdatasync takes" in told["sync"].text
    assert everything(tmp_path) == ["there"]


def test_a_place_that_cannot_be_made_is_left_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    told = found(Settings(data=str(tmp_path / "file" / "data"), tcp=""))
    assert told["data"].verdict == "bad"
    assert everything(tmp_path) == ["file"]


@pytest.mark.parametrize("kind", ["file", "directory", "link", "long"])
def test_a_path_that_a_start_refuses(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("x" * 108 if kind == "long" else "s")
    if kind == "file":
        path.write_text("somebody's")
    elif kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "nowhere")
    told = found(Settings(data=str(tmp_path / "d"), tcp="", unix=str(path)))["sockets"]
    assert told.verdict == "bad"
    assert ("107 bytes" if kind == "long" else "not a socket") in told.text
    assert os.path.lexists(path) == (kind != "long")


def test_the_tls_address_certificate_and_users_are_looked_at(tmp_path: Path) -> None:
    files = certificates(tmp_path)
    users = tmp_path / "users.toml"
    users.write_text("")
    users.chmod(0o600)
    settings = files.settings(tmp_path, users=str(users))
    told = found(settings)
    assert (told["tls"].verdict, told["users"].verdict) == ("ok", "ok"), told
    assert "127.0.0.1:0 is free" in told["sockets"].text
    files.cert.write_text("no certificate")
    users.write_text("[nonsense")
    told = found(settings)
    assert (told["tls"].verdict, told["users"].verdict) == ("bad", "bad")
    assert str(files.cert) in told["tls"].text
    assert str(users) in told["users"].text
    files.key.unlink()
    assert found(settings)["tls"].verdict == "bad"
