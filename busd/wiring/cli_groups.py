"""`busd groups`, `seek`, `forget`: short questions about groups, blocking client."""

from __future__ import annotations

import json
import sys

import click
from busd_client import wire
from busd_client.address import Address

from busd.wiring.cli_common import address_option, reaching
from busd.wiring.cli_look import connected, print_lines, print_table


@click.command()
@click.argument("patterns", nargs=-1, metavar="[PATTERN]…")
@click.option("--json", "as_json", is_flag=True, help="A JSON array of objects.")
@address_option
def groups(patterns: tuple[str, ...], as_json: bool, address: Address) -> None:
    """List groups with what they read, their members, and how far they are.

    `lag` is how many messages are not settled, `dead` how many became dead letters.  In a pipe a group a line, its
    name and then name=value, with tabs between.

    \b
    busd groups
    busd groups --json | jq -r '.[] | "\\(.group) \\(.lag)"'
    """
    with reaching(address), connected(address) as client:
        rows = client.groups(patterns or ">")
    if as_json:
        click.echo(json.dumps(rows))
    elif sys.stdout.isatty():
        names = list(rows[0]) if rows else ["group"]
        print_table(names, [[row.get(name, "") for name in names] for row in rows])
    else:
        print_lines(["\t".join([str(row.pop("group")), *[f"{k}={v}" for k, v in row.items()]]) for row in rows])


class _Seek(click.Command):
    """Takes `-1h` for a position: no option begins with a digit."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        places = [word for word in args if word[:1] == "-" and word[1:2].isdigit()]
        if places and "--" not in args:
            # Behind `--` and not as an unknown option, in which `-h` would be seen.
            args = [*(word for word in args if word not in places), "--", *places]
        return super().parse_args(ctx, args)


@click.command(cls=_Seek)
@click.argument("group")
@click.argument("position", metavar="POS")
@address_option
def seek(group: str, position: wire.Position, address: Address) -> None:
    """Have GROUP go on at POS: an offset, first, next, -5m, @2026-11-21T08:00:00Z.

    Everything before is settled, what follows is given out, again or not; what its members hold is theirs no more.
    Prints the offset.

    \b
    busd seek mail -1h
    """
    with reaching(address), connected(address) as client:
        click.echo(client.seek(group, position))


@click.command()
@click.argument("group")
@address_option
def forget(group: str, address: Address) -> None:
    """Delete GROUP: its place, not the messages.  Refused while it has members.

    \b
    busd forget test
    """
    with reaching(address), connected(address) as client:
        client.forget(group)
