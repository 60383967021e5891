"""HELLO and AUTH beside each other; who may what is in test_gate."""

from __future__ import annotations

from tests.support.memory_server import MemoryServer
from tests.support.users import token_of, user
from tests.unit.test_gate import resp, say


def test_hello_cannot_change_the_version_nor_who_it_is_under_a_subscription() -> None:
    server = MemoryServer(users=user("web", sub=["a"]))
    one = server.connect()
    one.send(resp("HELLO", "3", "AUTH", "default", token_of("web")) + resp("SUB", "a"))
    one.received()
    one.send(resp("HELLO", "2") + resp("HELLO", "3", "AUTH", "default", token_of("web")) + resp("HELLO"))
    first, second, third = one.received().split(b"\r\n", 2)
    assert first == second == b"-BUSY the version cannot change under a subscription; UNSUB ends it"
    assert third.startswith(b"%")


def test_auth_under_quiet_is_quiet_when_it_went_well() -> None:
    one = MemoryServer(users=user("web", pub=["a"])).connect()
    assert say(one, f"AUTH {token_of('web')}", "QUIET", f"AUTH {token_of('web')}", "AUTH x") == [
        "+OK",
        "-AUTH that is no user and its token; say AUTH token, as `busd user add` printed it",
    ]
