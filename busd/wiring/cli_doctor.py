"""`busd doctor`: is this machine, and this place on its disk, good for a server with these settings?"""

from __future__ import annotations

import json
import os
from dataclasses import asdict

import click

from busd.wiring import config
from busd.wiring.cli import Failure
from busd.words.settings import BadSetting


@click.command()
@click.option("--data", metavar="DIR", help="Where the log is, or will be (busd-data).")
@click.option("--config", "path", metavar="FILE", envvar="BUSD_CONFIG", help="Settings as TOML; flags win.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array of objects.")
def doctor(data: str | None, path: str | None, as_json: bool) -> int:
    """Check disk, lock, sockets, clock and limits, and tell what durability costs here.

    Changes nothing; beside a running server, too.  Exit status 0, or 1 when something is bad.

    \b
    busd doctor --data /var/lib/busd
    """
    try:
        settings = config.load(path, os.environ, {"data": data})
    except BadSetting as error:
        raise Failure(str(error)) from None
    from busd.world.doctor import examine

    found = examine(settings)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found]))
    else:
        width = max(len(one.name) for one in found)
        for one in found:
            click.echo(f"{one.verdict:<4}  {one.name:<{width}}  {one.text}")
    return int(any(one.verdict == "bad" for one in found))
