"""`busd health`: how a server is, as an exit status, for supervisors and probes."""

from __future__ import annotations

import json

import click
from busd_client.address import Address

from busd.wiring.cli_common import address_option, reaching
from busd.wiring.cli_look import ANSWER_S, connected


@click.command()
@click.option("--strict", is_flag=True, help="Degraded is bad, too.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object.")
@address_option
def health(strict: bool, as_json: bool, address: Address) -> int:
    """Tell how the server is, as an exit status.

    0 when messages are kept, 1 when they are not, 2 when nobody answers within 5s.

    \b
    busd health || systemctl restart busd
    """
    with reaching(address), connected(address, ANSWER_S) as client:
        facts = client.info("health")
    status = str(facts["status"])
    if as_json:
        click.echo(json.dumps(facts))
    else:
        click.echo(status)
        for name, text in facts.items():
            if name != "status":
                click.echo(f"{name}: {text}")
    return int(status == "failing" or (strict and status != "ok"))
