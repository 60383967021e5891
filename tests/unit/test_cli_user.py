"""`busd user`: what it writes is what the server reads, what it prints, and what it refuses."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from busd.rules.access import Rights
from busd.wiring import cli
from busd.world.users import read_users


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "users.toml"


def user(path: Path, *words: str, status: int = 0) -> None:
    """Run `busd user …`."""
    assert cli.run(["user", *words, "--file", str(path)]) == status


def test_a_user_that_was_added_is_known_by_the_token_that_was_printed(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user(path, "add", "web", "--pub", "orders.>", "--sub", "a,b", "--sub", "c.*", "--admin", "_dead.>")
    out, told = capsys.readouterr()
    name, _, secret = out.strip().partition(":")
    assert (name, len(secret)) == ("web", 43)
    found = read_users(str(path)).known(b"web", secret.encode())
    assert found is not None
    assert found.rights == Rights((b"orders.>",), (b"a", b"b", b"c.*"), (b"_dead.>",))
    # It is nowhere but on stdout.
    assert secret not in path.read_text()
    assert secret not in told
    assert path.stat().st_mode & 0o777 == 0o600


def test_tokens_and_salts_are_all_different(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c"):
        user(path, "add", name)
    user(path, "renew", "a")
    tokens = {line.partition(":")[2] for line in capsys.readouterr().out.splitlines()}
    salts = {entry["token"].split(":")[1] for entry in tomllib.loads(path.read_text())["user"].values()}
    assert (len(tokens), len(salts)) == (4, 3)


def test_renew_makes_the_old_token_useless(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    user(path, "add", "web", "--sub", "x")
    user(path, "renew", "web")
    old, new = [line.partition(":")[2].encode() for line in capsys.readouterr().out.splitlines()]
    users = read_users(str(path))
    assert users.known(b"web", old) is None
    found = users.known(b"web", new)
    assert found is not None
    assert found.rights == Rights(sub=(b"x",))


def test_rules_sets_what_is_given_and_leaves_the_rest(path: Path) -> None:
    user(path, "add", "web", "--pub", "a", "--sub", "b", "--admin", "c")
    user(path, "rules", "web", "--pub", "", "--sub", "x", "--sub", "y")
    entry = tomllib.loads(path.read_text())["user"]["web"]
    assert (entry["pub"], entry["sub"], entry["admin"]) == ([], ["x", "y"], ["c"])


def test_remove_leaves_everybody_else(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    user(path, "add", "web")
    user(path, "add", "mail", "--sub", "x")
    user(path, "remove", "web")
    capsys.readouterr()
    user(path, "list")
    assert capsys.readouterr().out == "mail\t\tx\t\n"
    user(path, "remove", "mail")
    assert "user" not in tomllib.loads(path.read_text())


def test_comments_peers_mode_and_links_stay_as_they_are(path: Path, tmp_path: Path) -> None:
    text = "# ours\n[[peer]]  # the web server\nuid = 33\nsub = ['>']\n"
    path.write_text(text)
    path.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(path)
    user(link, "add", "web")
    user(link, "remove", "web")
    assert path.read_text().strip() == text.strip()
    assert path.stat().st_mode & 0o777 == 0o640
    assert link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link", "users.toml"]


def test_list_shows_peer_rules_and_no_hashes(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text("[[peer]]\nuid = 33\nsub = 'a'\n[[peer]]\nloopback = true\npub = ['b', 'c']\n")
    path.chmod(0o600)
    user(path, "add", "web")
    capsys.readouterr()
    user(path, "list")
    assert capsys.readouterr().out == "web\t\t\t\nuid:33\t\ta\t\nloopback\tb,c\t\t\n"


@pytest.mark.parametrize(
    ("words", "told", "status"),
    [
        (("add", "web"), "web is in {path} already; renew gives it another token", 1),
        (("add", "a b"), "'a b' is not a user's name", 2),
        (("add", "default"), "default is what Redis clients say without a name", 2),
        (("add", "x", "--sub", "a..b"), "'a..b' is not a pattern", 2),
        (("add", "x", "--pub", "_dead.>"), "names topics of the system's own", 2),
        (("renew", "nobody"), "there is no user nobody in {path}", 1),
        (("rules", "nobody", "--sub", "a"), "there is no user nobody in {path}", 1),
        (("remove", "nobody"), "there is no user nobody in {path}", 1),
    ],
)
def test_refusals_change_nothing(
    path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str, status: int
) -> None:
    user(path, "add", "web")
    before = path.read_text()
    capsys.readouterr()
    user(path, *words, status=status)
    out, error = capsys.readouterr()
    assert told.format(path=path) in error
    assert (out, path.read_text()) == ("", before)


@pytest.mark.parametrize(("mode", "text", "told"), [
    (0o644, "", "others may read or change it (mode 0644); chmod 600 {path}"),
    (0o620, "", "others may read or change it (mode 0620)"),
    (0o600, "user = [", "Invalid value"),
    (0o600, "[user.web]\n", "[user.web] token is not sha256:<salt>:<hash>"),
])  # fmt: skip
def test_files_that_it_does_not_touch(
    path: Path, capsys: pytest.CaptureFixture[str], mode: int, text: str, told: str
) -> None:
    path.write_text(text)
    path.chmod(mode)
    user(path, "add", "other", status=2)
    assert told.format(path=path) in capsys.readouterr().err
    assert path.read_text() == text


@pytest.mark.parametrize("text", ["user = 3\n", "[[user]]\n", "user = [1]\n", "[user]\nweb = 3\n"])
@pytest.mark.parametrize("words", [("rules", "web", "--sub", "a"), ("remove", "web"), ("renew", "web"), ("add", "web")])
def test_what_is_no_table_of_users_is_refused(
    path: Path, capsys: pytest.CaptureFixture[str], text: str, words: tuple[str, ...]
) -> None:
    path.write_text(text)
    path.chmod(0o600)
    assert cli.run(["user", *words, "--file", str(path)]) in (1, 2)
    out, error = capsys.readouterr()
    assert (out, error.count("\n"), path.read_text()) == ("", 1, text)


def test_a_table_of_no_users_takes_one(path: Path) -> None:
    path.write_text("user = {}\n[[peer]]\nunix = true\n")
    path.chmod(0o600)
    user(path, "remove", "web", status=1)
    user(path, "add", "web")
    table = tomllib.loads(path.read_text())
    assert (list(table["user"]), table["peer"]) == (["web"], [{"unix": True}])


def test_only_add_makes_a_file(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("list",), ("remove", "x"), ("renew", "x"), ("rules", "x", "--sub", "a")):
        user(path, *words, status=2)
        assert "No such file" in capsys.readouterr().err
    assert not path.exists()
