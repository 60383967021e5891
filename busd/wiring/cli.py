"""The command `busd`: which subcommands there are, and what every one of them does when things go wrong.

Subcommands are imported when called, so that `busd pub` does not pay for tables, servers or progress bars.
Invariants:
1. Every error is one line on stderr that begins with `busd:`, and exit status 2; no traceback for what users can cause.
   (Below a refused address stand the lines that would make it one.)
2. A reader that goes away (`busd sub t | head`) ends us by SIGPIPE, Ctrl-C by SIGINT: quietly, as `cat` would.
3. A standard stream that is closed (`busd health >&-`) changes no exit status but of those whose work it is to use it.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence

import click

from busd import __version__

# name: (module, one line for the list)
_COMMANDS = {
    "serve": ("cli_serve", "Run the server."),
    "pub": ("cli_pub", "Publish standard input, files or a text."),
    "sub": ("cli_sub", "Print messages as they come."),
    "read": ("cli_sub", "Print what is there, then stop."),
    "run": ("cli_run", "Run a command for each message of a group."),
    "topics": ("cli_look", "List topics."),
    "groups": ("cli_groups", "List groups, and how far they are."),
    "seek": ("cli_groups", "Have a group go on elsewhere."),
    "forget": ("cli_groups", "Delete a group."),
    "dead": ("cli_dead", "List, show and retry dead letters."),
    "info": ("cli_look", "Tell how the server is."),
    "health": ("cli_health", "Tell how the server is, as an exit status."),
    "doctor": ("cli_doctor", "Check a machine, and tell what durability costs on it."),
    "ping": ("cli_look", "Ask whether the server answers."),
    "reset": ("cli_look", "Remove all messages so far of some topics."),
    "user": ("cli_user", "Users of a server: their tokens and rights."),
    "verify": ("cli_files", "Check the files of a data directory, with the server down."),
    "repair": ("cli_files", "Mend the files of a data directory, with the server down."),
    "cat": ("cli_files", "Print messages from a data directory, with the server down."),
    "check": ("cli_check", "Prove that nothing that was answered is missing."),
}


class Failure(Exception):
    """What the user should know, as one line; the exit status is 2 unless told."""

    def __init__(self, text: str, status: int = 2) -> None:
        super().__init__(text)
        self.status = status


class _Commands(click.Group):
    """Subcommands that are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"busd.wiring.{_COMMANDS[cmd_name][0]}")
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="busd %(version)s")
def cli() -> None:
    """A message bus for one machine: publish, subscribe, replay.

    \b
    busd serve &
    tail -f /var/log/syslog | busd pub logs.syslog
    busd sub 'logs.>' --from -5m
    """


def main() -> None:
    """The console script."""
    _fill_closed_streams()
    sys.exit(run(sys.argv[1:]))


def _fill_closed_streams() -> None:
    """Have no socket get the number of a standard stream that is closed, and words for people lost there.

    Opened the wrong way round, so that reading standard input and writing messages to standard output still fail.
    """
    for number, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line; returns the exit status."""
    try:
        status = cli.main(list(arguments), prog_name="busd", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.ClickException as error:
        complain(error.format_message())
        return 2
    except (click.Abort, KeyboardInterrupt):
        return die_of(signal.SIGINT)
    except BrokenPipeError:
        return die_of(signal.SIGPIPE)
    except Failure as error:
        complain(str(error))
        return error.status
    except Exception as error:
        text = _explain(error)
        if text is None:
            raise
        complain(text)
        return 2


def _explain(error: Exception) -> str | None:
    """One line for what can happen to any client; None for a fault of ours."""
    from busd_client.events import BusdError

    if isinstance(error, BusdError):
        return f"{error.code}: {error.text}"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    if isinstance(error, UnicodeEncodeError):
        # So comes a word of the command line that is not UTF-8: as text that cannot be encoded.
        return f"{error.object!r:.200} is not {error.encoding.upper()}"
    return None


def complain(text: str) -> None:
    """One line on stderr; nobody may be there to read it."""
    try:
        click.echo(f"busd: {text}", err=True)
    except OSError:
        return


def die_of(number: signal.Signals) -> int:
    """End as the signal would have ended us, so that shells and scripts see why."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
