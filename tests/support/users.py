"""Users for tests: texts of a users file, and the tokens that fit them."""

from __future__ import annotations

from collections.abc import Sequence

from busd.rules.users import token_record

SALT = bytes(16)


def secret_of(name: str) -> str:
    """The secret of a user that `user` made."""
    return f"secret-of-{name}-{'x' * 30}"


def token_of(name: str) -> str:
    """Its token: what goes into BUSD_TOKEN."""
    return f"{name}:{secret_of(name)}"


def user(
    name: str,
    pub: Sequence[str] = (),
    sub: Sequence[str] = (),
    admin: Sequence[str] = (),
    secret: str = "",
) -> str:
    """The lines of a user."""
    record = token_record(secret or secret_of(name), SALT)
    return f'[user.{name}]\ntoken = "{record}"\n' + _rights(pub, sub, admin)


def peer(rule: str, pub: Sequence[str] = (), sub: Sequence[str] = (), admin: Sequence[str] = ()) -> str:
    """The lines of a peer rule, such as `uid = 33`."""
    return f"[[peer]]\n{rule}\n" + _rights(pub, sub, admin)


def _rights(pub: Sequence[str], sub: Sequence[str], admin: Sequence[str]) -> str:
    return f"pub = {list(pub)}\nsub = {list(sub)}\nadmin = {list(admin)}\n"
