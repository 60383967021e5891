"""What the client commands share: the address option, and a connection error that says what to do."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
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
    """`--address`, as an Address; with `--token-file`, `--cafile` and `--cert`, which go into it.

    There is no option for the token itself: everybody on the machine can read command lines.
    """
    options: list[tuple[tuple[str, ...], str, str]] = [
        (("--token-file",), "FILE", "Holds the token; else $BUSD_TOKEN_FILE, else the token is $BUSD_TOKEN."),
        (("--cafile",), "FILE", "With tls: trust these certificates (PEM) and not the system's; else $BUSD_CAFILE."),
        (("--cert",), "FILE", "With tls: our certificate and its key (PEM), if the server asks; else $BUSD_CERT."),
    ]
    for names, metavar, text in reversed(options):
        # Read before the address is made.
        command = click.option(*names, metavar=metavar, help=text, is_eager=True, expose_value=False, callback=_keep)(
            command
        )
    return click.option(
        "-a",
        "--address",
        metavar="ADDR",
        callback=_parse,
        help="host:port, tls:host:port, unix:/path or /path; else $BUSD_ADDRESS, else 127.0.0.1:7379.",
    )(command)


def _keep(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    ctx.meta[f"busd.{parameter.name}"] = value


def _parse(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Address:
    token_file, cafile, cert = (ctx.meta.get(f"busd.{name}") for name in ("token_file", "cafile", "cert"))
    token_file = token_file or os.environ.get("BUSD_TOKEN_FILE")
    try:
        token = Path(token_file).read_text(encoding="utf-8").strip() if token_file else None
        address = choose_address(value, os.environ, token=token, cafile=cafile, cert=cert)
        _check_host(address.host)
        return address
    except OSError as error:
        raise click.BadParameter(f"{token_file}: {error.strerror or error}") from None
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _check_host(host: str) -> None:
    """Raises ValueError for what no resolver takes."""
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError(f"{host!r} is not the name of a host") from None


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
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {error.verify_message}; --cafile names whom to trust"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or str(error)).lower().replace('_', ' ')}"
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
