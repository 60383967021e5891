"""`busd topics`, `info`, `ping`, `reset`: short questions, blocking client.

On a terminal tables, in a pipe a line each with tabs between, with --json one JSON value.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence

import click
from busd_client import sync
from busd_client.address import Address

from busd.wiring.cli import Failure
from busd.wiring.cli_common import address_option, reaching

Fact = str | int


# For those who ask whether anybody answers at all: a server that is stopped or hangs still takes connections.
ANSWER_S = 5.0


def connected(address: Address, timeout_s: float | None = None) -> sync.Client:
    """A client that has reached the server; with a time, each answer is waited for so long and not asked for again."""
    client = sync.Client(address) if timeout_s is None else sync.Client(address, 0.0, timeout_s)
    client.open()
    return client


@click.command()
@click.argument("patterns", nargs=-1, metavar="[PATTERN]…")
@click.option("--json", "as_json", is_flag=True, help="A JSON array of objects.")
@address_option
def topics(patterns: tuple[str, ...], as_json: bool, address: Address) -> None:
    """List topics with their messages kept, last offset and state.

    \b
    busd topics 'jobs.>'
    busd topics | cut -f1
    """
    with reaching(address), connected(address) as client:
        rows = client.topics(patterns or ">")
    if as_json:
        click.echo(json.dumps(rows))
    elif sys.stdout.isatty():
        print_table(("topic", "messages", "last", "state"), [list(row.values()) for row in rows])
    else:
        print_lines(["\t".join(map(str, row.values())) for row in rows])


@click.command()
@click.argument("section", default="")
@click.option("--json", "as_json", is_flag=True, help="A JSON object.")
@address_option
def info(section: str, as_json: bool, address: Address) -> None:
    """Tell how the server is: all, or SECTION: server, health, log, stores, clients.

    \b
    busd info
    busd info log | grep ^next=
    """
    with reaching(address), connected(address) as client:
        facts: Mapping[str, Fact] = client.info(section)
    if as_json:
        click.echo(json.dumps(facts))
    elif sys.stdout.isatty():
        print_table(("name", "value"), [[name, value] for name, value in facts.items()])
    else:
        print_lines([f"{name}={value}" for name, value in facts.items()])


@click.command()
@address_option
def ping(address: Address) -> None:
    """Ask whether the server answers, and how quickly.  Exit status 0 if it does, 2 if not within 5s.

    \b
    busd ping && echo up
    """
    with reaching(address), connected(address, ANSWER_S) as client:
        begun_ns = time.perf_counter_ns()
        client.ping()
        took_ns = time.perf_counter_ns() - begun_ns
    click.echo(f"PONG from {address} in {took_ns / 1_000_000:.3f} ms")


@click.command()
@click.argument("patterns", nargs=-1, required=True, metavar="PATTERN…")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@address_option
def reset(patterns: tuple[str, ...], yes: bool, address: Address) -> None:
    """Remove all messages so far of the matching topics.  Offsets go on; readers are told.

    Prints how many were removed.

    \b
    busd reset 'tmp.>' --yes
    """
    with reaching(address), connected(address) as client:
        if not yes:
            if not (sys.stdin.isatty() and sys.stderr.isatty()):
                raise click.UsageError("reset asks before it removes anything; where nobody can answer it needs --yes")
            found = client.topics(patterns)
            count = sum(int(row.get("messages", 0)) for row in found)
            if not click.confirm(f"Remove {count} messages of {len(found)} topics?", err=True):
                raise Failure("nothing was removed", status=1)
        removed = client.reset(patterns)
    click.echo(removed)


def print_lines(lines: Sequence[str]) -> None:
    """A line each; none for none."""
    if lines:
        click.echo("\n".join(lines))


def print_table(names: Sequence[str], rows: Sequence[Sequence[Fact]]) -> None:
    """For a terminal; columns of numbers to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD)
    for number, name in enumerate(names):
        numeric = bool(rows) and all(isinstance(row[number], int) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*[Text(str(fact)) for fact in row])
    Console().print(table)
