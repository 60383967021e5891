"""`busd user`: the users file, changed line by line so that comments and peer rules stay as they are.

Invariants:
1. A token is printed once, on stdout and alone, and is written nowhere.
2. The file is replaced in one step, readable by its owner (and its group, if it was), and is never one that
   `busd serve` would refuse.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import click

from busd.rules.access import RIGHTS
from busd.rules.users import BadUsers, check_name, check_patterns, token_record, users_from
from busd.wiring.cli import Failure
from busd.wiring.cli_look import print_lines, print_table
from busd.world.users import check_private, group_number, user_number

# 256 bits: nobody guesses one, and no list of likely ones can be tried against the file.
_TOKEN_BYTES = 32
_SALT_BYTES = 16
_HEAD = """\
# Who may do what (protocol.md, Users).  `busd user` changes this file, editors do as well; then: kill -HUP <busd>.
# Who needs no token is let in by the connection; the first rule that fits counts:
#
# [[peer]]
# uid = "www-data"          # or gid = …, unix = true (anybody on the Unix socket), loopback = true
# pub = ["orders.>"]
# sub = [">"]
# admin = []
"""


def _file_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--file", "path", metavar="FILE", envvar="BUSD_USERS", required=True, help="The users file; else $BUSD_USERS."
    )(command)


def _rights_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for right, text in (
        ("admin", "May RESET, SEEK, FORGET there; '>' for CONNS."),
        ("sub", "May read there."),
        ("pub", "May publish there."),
    ):
        command = click.option(f"--{right}", multiple=True, metavar="PATTERN", callback=_patterns, help=text)(command)
    return command


def _patterns(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> list[str]:
    if value == ("",):
        return [""]
    try:
        return [pattern.decode() for pattern in check_patterns(list(value), str(parameter.name))]
    except BadUsers as error:
        raise click.BadParameter(str(error)) from None


def _name(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        return check_name(value)
    except BadUsers as error:
        raise click.BadParameter(str(error)) from None


_name_argument = click.argument("name", callback=_name)


@click.group()
def user() -> None:
    """Users of a server, their tokens and rights; for `busd serve --users FILE`.

    \b
    TOKEN=$(busd user add web --file users.toml --pub 'orders.>' --sub 'orders.*.eu')
    BUSD_TOKEN=$TOKEN busd pub orders.1 -m hello
    """


@user.command()
@_name_argument
@_file_option
@_rights_options
def add(name: str, path: str, pub: list[str], sub: list[str], admin: list[str]) -> None:
    """Make a user and print its token.  The file is made when there is none."""
    with _changing(path, make=True) as users:
        if name in users:
            raise Failure(f"{name} is in {path} already; renew gives it another token, rules other rights", status=1)
        token, record = _new_token(name)
        users[name] = _entry(record, {"pub": pub, "sub": sub, "admin": admin})
    _tell(token, path)


@user.command()
@_name_argument
@_file_option
def renew(name: str, path: str) -> None:
    """Give a user another token and print it; the old one is good until the server reads the file again."""
    with _changing(path) as users:
        token, record = _new_token(name)
        _known(users, name, path)["token"] = record
    _tell(token, path)


@user.command()
@_name_argument
@_file_option
@_rights_options
def rules(name: str, path: str, pub: list[str], sub: list[str], admin: list[str]) -> None:
    """Set the rights of a user; those that are not given are left as they are.  '' takes one away."""
    with _changing(path) as users:
        entry = _known(users, name, path)
        for right, patterns in (("pub", pub), ("sub", sub), ("admin", admin)):
            if patterns:
                entry[right] = [pattern for pattern in patterns if pattern]
    _hint(path)


@user.command()
@_name_argument
@_file_option
def remove(name: str, path: str) -> None:
    """Remove a user."""
    with _changing(path) as users:
        _known(users, name, path)
        del users[name]
    _hint(path)


@user.command(name="list")
@_file_option
def list_(path: str) -> None:
    """List users and peer rules with their rights; in a pipe a line each, with tabs between."""
    table = _read(path)
    _checked(table, path)
    entries: list[tuple[str, Mapping[str, Any]]] = list(table.get("user", {}).items())
    for rule in table.get("peer", []):
        (kind,) = set(rule) - set(RIGHTS)
        entries.append((f"{kind}:{rule[kind]}" if kind in ("uid", "gid") else kind, rule))
    rows = [[name, *(_joined(entry.get(right, [])) for right in RIGHTS)] for name, entry in entries]
    if sys.stdout.isatty():
        print_table(("name", *RIGHTS), rows)
    else:
        print_lines(["\t".join(row) for row in rows])


def _joined(patterns: str | list[str]) -> str:
    return patterns if isinstance(patterns, str) else ",".join(patterns)


def _new_token(name: str) -> tuple[str, str]:
    secret = secrets.token_urlsafe(_TOKEN_BYTES)
    return f"{name}:{secret}", token_record(secret, secrets.token_bytes(_SALT_BYTES))


def _tell(token: str, path: str) -> None:
    click.echo(token)
    click.echo("busd: this token is shown once; clients take it as BUSD_TOKEN", err=True)
    _hint(path)


def _hint(path: str) -> None:
    click.echo(f"busd: {path} is written; a running server reads it on SIGHUP", err=True)


def _known(users: MutableMapping[str, Any], name: str, path: str) -> Any:
    if name not in users:
        raise Failure(f"there is no user {name} in {path}", status=1)
    if not isinstance(users[name], MutableMapping):
        raise Failure(f"{path}: [user.{name}] is not a table")
    return users[name]


def _entry(record: str, rights: Mapping[str, list[str]]) -> Any:
    import tomlkit

    table = tomlkit.table()
    table["token"] = record
    for right, patterns in rights.items():
        table[right] = [pattern for pattern in patterns if pattern]
    table.add(tomlkit.nl())
    return table


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Failure(f"{path}: {error}") from None


def _checked(table: Mapping[str, object], path: str) -> None:
    try:
        users_from(table, user_number, group_number)
    except BadUsers as error:
        raise Failure(f"{path}: {error}") from None


@contextlib.contextmanager
def _changing(path: str, make: bool = False) -> Iterator[MutableMapping[str, Any]]:
    """The users of the file, written back when the block is left without an error."""
    import tomlkit

    # The file that is meant, not a name that leads to it, is replaced.
    path = os.path.realpath(path)
    directory = os.path.dirname(path)
    lock = os.open(directory, os.O_RDONLY)
    try:
        # Two at once would lose what one of them wrote.
        fcntl.flock(lock, fcntl.LOCK_EX)
        before: os.stat_result | None = None
        text = _HEAD
        if os.path.exists(path) or not make:
            _read(path)
            with open(path, encoding="utf-8") as file:
                before = os.fstat(file.fileno())
                text = file.read()
            _private(path, before)
        document = tomlkit.parse(text)
        if not isinstance(document.get("user", {}), MutableMapping):
            raise Failure(f"{path}: user is not a table; there are [user.NAME] and [[peer]]")
        if not document.get("user"):
            # Also for `user = {}`, to which no table can be added.
            document.pop("user", None)
            document["user"] = tomlkit.table(is_super_table=True)
        yield document["user"]
        if not document["user"]:
            del document["user"]
        new = tomlkit.dumps(document)
        _checked(tomllib.loads(new), path)
        _replace(path, new, before)
    finally:
        os.close(lock)


def _private(path: str, found: os.stat_result) -> None:
    try:
        check_private(path, found)
    except BadUsers as error:
        raise Failure(f"{path}: {error}") from None


def _replace(path: str, text: str, before: os.stat_result | None) -> None:
    """Write the file anew beside it, synced, then put it in its place; owner and mode stay."""
    directory = os.path.dirname(path)
    # Mode 0600 from the start.
    number, new = tempfile.mkstemp(prefix=".users-", dir=directory)
    try:
        with open(number, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if before is not None:
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(number, before.st_uid, before.st_gid)
                os.fchmod(number, before.st_mode & 0o777)
            os.fsync(number)
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise
