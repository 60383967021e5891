"""The users of a file: who is known by a token or a peer rule, and a refusal for everything a file can say wrongly."""

from __future__ import annotations

import hmac
from typing import Any

import pytest

from busd.rules import users as module
from busd.rules.access import Rights
from busd.rules.users import BadUsers, Peer, Users, check_name, check_patterns, token_record
from tests.support.memory_server import users_of
from tests.support.users import SALT, peer, secret_of, user

WEB = user("web", pub=["orders.>"], sub=["orders.*.eu", "a,b"], admin=["_dead.>"])
LOCAL = Peer("unix", 33, frozenset({33, 4}))


def test_a_user_is_known_by_its_token() -> None:
    found = users_of(WEB).known(b"web", secret_of("web").encode())
    assert found is not None
    assert (found.name, found.rights) == ("web", Rights((b"orders.>",), (b"orders.*.eu", b"a", b"b"), (b"_dead.>",)))


@pytest.mark.parametrize(
    ("name", "token"),
    [
        (b"web", b""),
        (b"web", b"guess"),
        (b"web", secret_of("web").encode() + b"x"),
        (b"web", secret_of("mail").encode()),
        (b"nobody", secret_of("web").encode()),
        (b"", secret_of("web").encode()),
        (b"web\0", secret_of("web").encode()),
        (b"\xff", b"\xff"),
    ],
)
def test_anything_else_is_nobody(name: bytes, token: bytes) -> None:
    assert users_of(WEB + user("mail")).known(name, token) is None


def test_what_is_longer_than_any_token_is_none_even_if_it_begins_like_one() -> None:
    long = "x" * module.MAX_TOKEN_BYTES
    found = users_of(user("web", secret=long))
    assert found.known(b"web", long.encode()) is not None
    assert found.known(b"web", long.encode() + b"y") is None


def test_tokens_are_compared_in_constant_time_and_an_unknown_name_costs_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[int] = []

    def compare(one: Any, other: Any) -> bool:
        compared.append(len(one) + len(other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(module, "hmac", type("Spy", (), {"compare_digest": staticmethod(compare)}))
    users = users_of(WEB)
    for name in (b"web", b"nobody"):
        assert users.known(name, b"guess") is None
    assert compared == [64, 64]


def test_the_first_peer_rule_that_fits_counts() -> None:
    users = users_of(peer("uid = 33", sub=["a"]) + peer("gid = 4", sub=["b"]) + peer("unix = true", sub=["c"]))
    found = {
        "uid": users.of_peer(LOCAL),
        "gid": users.of_peer(Peer("unix", 7, frozenset({7, 4}))),
        "unix": users.of_peer(Peer("unix", 7, frozenset({7}))),
    }
    assert {key: one and one.name for key, one in found.items()} == {"uid": "uid:33", "gid": "gid:4", "unix": "unix"}
    assert users.of_peer(Peer("loopback")) is None
    assert users.of_peer(Peer("remote")) is None


def test_a_name_of_the_machine_does_for_a_number() -> None:
    found = users_of(peer('uid = "www-data"', sub=[">"])).of_peer(LOCAL)
    assert found is not None
    assert found.name == "uid:33"


def test_nobody_is_let_in_from_elsewhere_without_a_token() -> None:
    rules = peer("unix = true", sub=[">"]) + peer("loopback = true", sub=[">"]) + peer("uid = 0") + peer("gid = 0")
    assert users_of(rules).of_peer(Peer("remote")) is None
    assert users_of(rules).of_peer(Peer("loopback")) is not None


def test_who_is_renewed_is_the_same_name_with_the_same_token() -> None:
    web = users_of(WEB).known(b"web", secret_of("web").encode())
    assert web is not None
    renewed = users_of(user("web", sub=["new"])).renewed(web)
    assert renewed is not None
    assert renewed.name == web.name
    assert renewed.rights != web.rights
    assert users_of(user("web", secret="another")).renewed(web) is None
    assert users_of(user("other")).renewed(web) is None


def test_a_salt_makes_equal_tokens_differ() -> None:
    assert token_record("secret", SALT) != token_record("secret", b"x" * 16)
    assert "secret" not in token_record("secret", SALT)


TOKEN = f'token = "{token_record("s", SALT)}"'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[users.web]", "users is not known; there are [user.NAME] and [[peer]]"),
        ("user = 1", "[user.NAME] is a table"),
        ("user.web = 1", "[user.web] it is a table"),
        ("[user.web]", "[user.web] token is not sha256:<salt>:<hash>; `busd user add` makes tokens and writes that"),
        ('[user.web]\ntoken = "plain"', "[user.web] token is not sha256:<salt>:<hash>"),
        ('[user.web]\ntoken = "sha256:00:00"', "[user.web] token is not sha256:<salt>:<hash>"),
        ('[user.web]\ntoken = "md5:00:00"', "[user.web] token is not sha256:<salt>:<hash>"),
        ("[user.web]\ntoken = 7", "[user.web] token is not sha256:<salt>:<hash>"),
        (f"[user.web]\n{TOKEN}\nread = []", "[user.web] read is not known; there are token, pub, sub, admin"),
        (f"[user.web]\n{TOKEN}\nsub = [7]", "[user.web] sub 7 is not a pattern; write patterns in quotes"),
        (f'[user.web]\n{TOKEN}\nsub = "a..b"', "[user.web] sub 'a..b' is not a pattern"),
        (f'[user.web]\n{TOKEN}\npub = ["_dead.>"]', "[user.web] pub '_dead.>' names topics of the system's own"),
        (f'[user."a.b"]\n{TOKEN}', "[user.a.b] 'a.b' is not a user's name: A-Z a-z 0-9 _ -, 64 characters at most"),
        (f"[user.default]\n{TOKEN}", "[user.default] default is what Redis clients say without a name; take another"),
        ("peer = 1", "peer is written [[peer]], once for each rule"),
        ("[peer]\nuid = 1", "peer is written [[peer]], once for each rule"),
        ("[[peer]]", "[[peer]] 1 say exactly one of uid, gid, unix, loopback, not 0"),
        ("[[peer]]\nuid = 1\ngid = 1", "[[peer]] 1 say exactly one of uid, gid, unix, loopback, not 2"),
        ("[[peer]]\nuid = 1\n[[peer]]\nuid = -1", "[[peer]] 2 uid: -1 is neither a number from 0 nor a name"),
        ("[[peer]]\ngid = true", "[[peer]] 1 gid: True is neither a number from 0 nor a name"),
        ('[[peer]]\nuid = "nobody-here"', "[[peer]] 1 uid: this machine knows no 'nobody-here'"),
        ("[[peer]]\nunix = false", "[[peer]] 1 unix takes true"),
        ('[[peer]]\nloopback = "yes"', "[[peer]] 1 loopback takes true"),
        ("[[peer]]\nuid = 1\nhost = 2", "[[peer]] 1 host is not known; there are uid, gid, unix, loopback, pub, sub"),
    ],
)
def test_what_a_file_may_not_say(text: str, told: str) -> None:
    with pytest.raises(BadUsers) as error:
        users_of(text)
    assert str(error.value).startswith(told)
    # A secret that somebody wrote into the file is not shown.
    assert "plain" not in str(error.value)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a.b", "é", "x" * 65, "default"])
def test_names_that_users_may_not_have(name: str) -> None:
    with pytest.raises(BadUsers):
        check_name(name)


def test_a_right_takes_more_patterns_than_a_subscription() -> None:
    assert len(check_patterns([f"t{number}" for number in range(1000)], "sub")) == 1000
    assert check_name("web-1_X") == "web-1_X"
    assert isinstance(users_of(""), Users)
