"""What the client commands share: the address option, and a connection error that says what to do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from busd_client.address import Address, choose_address
from busd_client.events import ConnectionLost

from busd.wiring.cli import Failure
from busd.words.errors import BusError
from busd.words.groups import check_group
from busd.words.units import parse_duration_ns

_Command = TypeVar("_Command", bound=Callable[..., Any])


def address_option(command: _Command) -> _Command:
    """`--address`, as an Address."""
    return click.option(
        "-a",
        "--address",
        metavar="ADDR",
        callback=_parse,
        help="host:port, unix:/path or /path; else $BUSD_ADDRESS, else 127.0.0.1:7379.",
    )(command)


def _parse(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Address:
    try:
        return choose_address(value, os.environ)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@contextmanager
def reaching(address: Address) -> Iterator[None]:
    """Turn "nobody is there" into a line that names the place and the remedy."""
    try:
        yield
    except BrokenPipeError:
        raise
    except ConnectionLost as error:
        raise Failure(f"{address}: {error}") from None
    except (ConnectionError, FileNotFoundError) as error:
        raise Failure(f"no server at {address} ({_cause(error)}); `busd serve` starts one") from None
    except OSError as error:
        raise Failure(f"{address}: {_cause(error)}") from None


def _cause(error: OSError) -> str:
    # asyncio puts a text of its own into strerror ("Connect call failed"), which does not tell why.
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


def duration(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """The callback of options that take a duration: ns.

    Raises:
        click.BadParameter: it is none.
    """
    try:
        return None if value is None else parse_duration_ns(value.encode())
    except BusError as error:
        raise click.BadParameter(error.text) from None


def _name(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else check_group(value.encode()).decode()
    except BusError as error:
        raise click.BadParameter(error.text) from None


def group_option(required: bool = False, text: str = "") -> Callable[[_Command], _Command]:
    """`--group`, checked."""
    return click.option("-g", "--group", metavar="GROUP", callback=_name, required=required, help=text)


def member_options(command: _Command) -> _Command:
    """What a member of a group may ask for, but WINDOW."""
    for option in (
        click.option(
            "--tries", type=click.IntRange(1), metavar="N", help="Dead letter after N deliveries that came back."
        ),
        click.option("--wait", metavar="DUR", callback=duration, help="Unacknowledged so long: to others (30s)."),
    ):
        command = option(command)
    return command
