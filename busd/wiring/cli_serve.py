"""`busd serve`: settings, then the server."""

from __future__ import annotations

import os

import click

from busd.wiring import config
from busd.wiring.cli import Failure
from busd.words.settings import BadSetting


@click.command()
@click.option("--tcp", metavar="ADDR", help="Listen on this TCP address (127.0.0.1:7379).")
@click.option("--no-tcp", is_flag=True, help="Do not listen on TCP.")
@click.option("--unix", metavar="PATH", help="Listen on this Unix socket, too.")
@click.option("--tls", metavar="ADDR", help="Listen for TLS on this address, too; needs the two below, and users.")
@click.option("--tls-cert", metavar="FILE", help="Certificate (and what it was signed by), PEM; read again on SIGHUP.")
@click.option("--tls-key", metavar="FILE", help="Its key, PEM.")
@click.option("--tls-client-ca", metavar="FILE", help="Take only clients with a certificate that this CA signed.")
@click.option("--users", metavar="FILE", help="Who may do what; see busd user.  Read again on SIGHUP.")
@click.option("--data", metavar="DIR", help="Where the log is (busd-data).")
@click.option("--config", "path", metavar="FILE", envvar="BUSD_CONFIG", help="Settings as TOML; flags win.")
@click.option("--sync", metavar="POLICY", help="When PUB is answered: always (synced), interval, never (written).")
@click.option("--segment-bytes", metavar="SIZE", help="Begin a new file of the log at this size (64M).")
@click.option("--max-bytes", metavar="SIZE", help="Keep at most this much, oldest go first (no limit).")
@click.option("--max-age", metavar="DUR", help="Keep messages at most this long: 12h, 7d (no limit).")
@click.option("--max-messages", metavar="N", help="Keep the newest N messages, and some before them (no limit).")
def serve(
    tcp: str | None,
    no_tcp: bool,
    unix: str | None,
    tls: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    tls_client_ca: str | None,
    users: str | None,
    data: str | None,
    path: str | None,
    sync: str | None,
    segment_bytes: str | None,
    max_bytes: str | None,
    max_age: str | None,
    max_messages: str | None,
) -> int:
    """Run the server until SIGTERM or SIGINT.

    Every flag is also a setting of the file and a variable (BUSD_TCP, BUSD_MAX_BYTES, …).

    \b
    busd serve --unix /run/busd/busd.sock --data /var/lib/busd --max-bytes 10G
    """
    if no_tcp and tcp is not None:
        raise click.UsageError("--tcp and --no-tcp exclude each other")
    flags: dict[str, object] = {
        "tcp": "" if no_tcp else tcp,
        "unix": unix,
        "tls": tls,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "tls_client_ca": tls_client_ca,
        "users": users,
        "data": data,
        "sync": sync,
        "segment_bytes": segment_bytes,
        "max_bytes": max_bytes,
        "max_age": max_age,
        "max_messages": max_messages,
    }
    try:
        settings = config.load(path, os.environ, flags)
    except BadSetting as error:
        raise Failure(str(error)) from None
    # Here and not above: the server is much to import, and bad settings should be told at once.
    from busd.wiring.serve import run

    return run(settings)
