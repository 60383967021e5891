"""The users file on disk, and who is at the other end of a socket."""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path

import pytest

from busd.rules.users import BadUsers, Peer
from busd.world.users import UsersFile, check_private, is_loopback, peer_of, read_users
from tests.support.users import peer, secret_of, user


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "users.toml"
    found.touch(0o600)
    found.write_text(user("web", sub=["a"]))
    return found


def test_a_private_file_is_read(path: Path) -> None:
    for mode in (0o600, 0o400, 0o640, 0o440):
        path.chmod(mode)
        assert read_users(str(path)).known(b"web", secret_of("web").encode()) is not None


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o620, 0o660, 0o666, 0o601, 0o777])
def test_a_file_that_others_may_read_or_change_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(BadUsers, match=rf"{path}: others may read or change it \(mode {mode:04o}\); chmod 600"):
        read_users(str(path))


def test_a_file_of_somebody_else_is_refused(path: Path) -> None:
    found = list(os.stat(path))
    found[4] = os.geteuid() + 1
    with pytest.raises(BadUsers, match=rf"it belongs to the account {found[4]}; it has to be root's"):
        check_private(str(path), os.stat_result(found))


@pytest.mark.parametrize(
    ("text", "told"),
    [("user = [", "Invalid"), ("[users]", "users is not known"), ("[[peer]]\nuid = 'nobody-here-7'", "knows no")],
)
def test_a_file_that_says_what_cannot_be_used_is_refused_with_its_name(path: Path, text: str, told: str) -> None:
    path.write_text(text)
    with pytest.raises(BadUsers, match=told) as error:
        read_users(str(path))
    assert str(error.value).startswith(f"{path}: ")


def test_no_file_is_no_users(tmp_path: Path) -> None:
    with pytest.raises(BadUsers, match=r"none\.toml: No such file or directory"):
        UsersFile(str(tmp_path / "none.toml"))


def test_a_bad_file_changes_nothing_when_it_is_read_again(path: Path) -> None:
    users = UsersFile(str(path))
    for bad in ("user = [", user("web") + "rubbish"):
        path.write_text(bad)
        with pytest.raises(BadUsers):
            users.reload()
        assert users.known(b"web", secret_of("web").encode()) is not None
    path.chmod(0o666)
    with pytest.raises(BadUsers):
        users.reload()
    path.chmod(0o600)
    path.write_text(user("mail"))
    users.reload()
    assert users.known(b"web", secret_of("web").encode()) is None
    assert users.known(b"mail", secret_of("mail").encode()) is not None


def test_the_kernel_says_who_is_on_a_unix_socket(path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        found = peer_of(ours, None)
    assert (found.kind, found.uid) == ("unix", os.geteuid())
    assert found.gids >= {os.getegid(), *os.getgroups()}
    path.write_text(peer(f"uid = {os.geteuid()}", sub=["a"]))
    identity = UsersFile(str(path)).of_peer(found)
    assert identity is not None
    assert identity.name == f"uid:{os.geteuid()}"


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        (("127.0.0.1", 1), "loopback"),
        (("127.8.8.8", 1), "loopback"),
        (("::1", 1, 0, 0), "loopback"),
        (("::ffff:127.0.0.1", 1, 0, 0), "loopback"),
        (("192.0.2.1", 1), "remote"),
        (("::ffff:192.0.2.1", 1, 0, 0), "remote"),
        (("fe80::1%eth0", 1, 0, 2), "remote"),
        (("0.0.0.0", 1), "remote"),
        (("", 0), "remote"),
        (None, "remote"),
    ],
)
def test_an_address_says_loopback_or_elsewhere(address: object, kind: str) -> None:
    with socket.socket() as sock:
        assert peer_of(sock, address) == Peer(kind)  # type: ignore[arg-type]


def test_a_name_is_no_loopback_address() -> None:
    assert not is_loopback("localhost.example.org")
    assert not is_loopback("127.0.0.1.example.org")


class Unix:
    """A connected Unix socket of somebody; `groups` None: there are more than can be asked for."""

    family = socket.AF_UNIX

    def __init__(self, uid: int, gid: int, groups: list[int] | None) -> None:
        self._uid, self._gid, self._groups = uid, gid, groups

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        """As the kernel answers."""
        if option == socket.SO_PEERCRED:
            return struct.pack("=iII", 1, self._uid, self._gid)
        if self._groups is None:
            raise OSError(errno.ERANGE, "Numerical result out of range")
        return struct.pack(f"={len(self._groups)}I", *self._groups)


def test_numbers_of_accounts_are_not_negative() -> None:
    found = peer_of(Unix(4_294_967_290, 4_294_967_291, [7]), None)  # type: ignore[arg-type]
    assert found == Peer("unix", 4_294_967_290, frozenset({4_294_967_291, 7}))


def test_whose_groups_cannot_be_told_has_to_say_who_it_is() -> None:
    """A rule for one of them may allow less than those behind it."""
    assert peer_of(Unix(33, 33, None), None) == Peer("remote")  # type: ignore[arg-type]
