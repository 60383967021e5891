"""`busd verify`, `busd repair` and `busd cat`: the files of a data directory while no server has it.

All take the directory's lock, so that no server starts meanwhile; only `repair` changes anything else.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import click

from busd.rules.select import Selection, build
from busd.wiring.cli import Failure, complain
from busd.wiring.cli_format import FORMATS, Formatter, printable
from busd.wiring.cli_output import write_stdout
from busd.words.errors import BusError
from busd.words.patterns import any_topic
from busd.words.topics import matches, parse_patterns
from busd.world.disk import DiskFailed, DiskFull, Locked
from busd.world.inspect import Finding, Message, messages
from busd.world.inspect import verify as inspect_files
from busd.world.meta import WrongFormat
from busd.world.real_disk import RealDisk
from busd.world.repair import repair as mend
from busd.world.store import NewerFormat

DAMAGED, LOST = 1, 3
# What is collected for one write.
_WRITE_BYTES = 65_536
# Messages that are formatted together; they may be large.
_NEIGHBOURS = 78


@contextmanager
def _data_directory(path: str, force: bool) -> Iterator[RealDisk]:
    """The disk, with the directory locked unless `force`."""
    disk = RealDisk()
    if not disk.exists(f"{path}/logs"):
        raise Failure(f"{path} is not a data directory of busd: it has no logs")
    lock = None
    try:
        lock = None if force else disk.lock(f"{path}/LOCK")
        yield disk
    except Locked as error:
        raise Failure(
            f"{path} is {error}; stop that server, or look with --force at what may be half written"
        ) from None
    except (DiskFull, DiskFailed) as error:
        raise Failure(str(error)) from None
    finally:
        if lock is not None:
            lock.release()


_directory = click.argument("directory", type=click.Path(exists=True, file_okay=False))
_force = click.option("--force", is_flag=True, help="Also while a server has the directory, or it cannot be locked.")


@click.command()
@_directory
@click.option("-v", "--verbose", is_flag=True, help="Tell of every segment, not only of what is unusual.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line, of everything.")
@_force
def verify(directory: str, verbose: bool, as_json: bool, force: bool) -> int:
    """Check every record in DIRECTORY.  Nothing is changed.

    Prints what is unusual: `corrupt` is damage, which `busd repair` mends; `torn` is what a crash may leave at the very
    end, and the next start takes away; `hole` is what retention, or an earlier loss, has recorded; `foreign` is no file
    of busd.

    \b
    Exit status: 0 no damage, 1 damage, 2 it could not be checked.

    \b
    busd verify /var/lib/busd && echo sound
    """
    found: list[Finding] = []
    with _data_directory(directory, force) as disk:
        for finding in inspect_files(disk, directory):
            found.append(finding)
            if as_json:
                click.echo(json.dumps({**asdict(finding), "bad": finding.bad}))
            elif verbose or finding.kind != "segment":
                click.echo(str(finding))
    bad = sum(finding.bad for finding in found)
    if not as_json:
        segments = [finding for finding in found if finding.kind == "segment"]
        sums = [sum(getattr(one, name) for one in segments) for name in ("records", "messages", "bytes")]
        verdict = f"{bad} damaged" if bad else "no damage"
        click.echo("{} segments, {} records, {} messages, {} bytes: {}".format(len(segments), *sums, verdict))
    return DAMAGED if bad else 0


@click.command()
@_directory
def repair(directory: str) -> int:
    """Mend what `busd verify` calls damage in DIRECTORY, keeping a copy of every file that is changed.

    What can be read stays. What cannot is recorded as lost, with its exact count where that is known: readers are told
    of it by a GAP, as they were before. The copies lie in DIRECTORY/repaired and may be removed.

    \b
    Exit status: 0 nothing is damaged (any more), 1 something still is, 2 it could not be done.

    \b
    busd verify /var/lib/busd || busd repair /var/lib/busd
    """
    done = 0
    with _data_directory(directory, force=False) as disk:
        try:
            for line in mend(disk, directory, time.time_ns()):
                click.echo(line)
                done += 1
        except (WrongFormat, NewerFormat) as error:
            raise Failure(str(error)) from None
        bad = [finding for finding in inspect_files(disk, directory) if finding.bad]
    for finding in bad:
        complain(str(finding))
    if not bad:
        click.echo("repaired: no damage is left" if done else "no damage")
    return DAMAGED if bad else 0


@click.command()
@_directory
@click.argument("patterns", nargs=-1, metavar="[PATTERN]…")
@click.option("--from", "start", type=click.IntRange(1), default=1, metavar="OFFSET", help="Begin at this offset.")
@click.option("--where", "tags", multiple=True, metavar="NAME=VALUE", help="Only messages with this header.")
@click.option("--format", "-f", "form", type=click.Choice(FORMATS), default="raw", show_default=True)
@click.option("-0", "--null", is_flag=True, help="NUL behind each message instead of LF.")
@_force
def cat(
    directory: str, patterns: tuple[str, ...], start: int, tags: tuple[str, ...], form: str, null: bool, force: bool
) -> int:
    """Print messages from the files in DIRECTORY, in the order of offsets, as they lie: RESET or not.

    Damage is passed over and told on stderr.

    \b
    Exit status: 0 all was printed, 2 an error, 3 something was damaged.

    \b
    busd cat /var/lib/busd 'logs.>' --where host=web1 --format time
    """
    wanted = _wanted(patterns)
    pairs = _pairs(tags)
    lost = False

    def warn(finding: Finding) -> None:
        nonlocal lost
        lost = lost or finding.bad
        complain(str(finding))

    with _data_directory(directory, force) as disk:
        found = messages(disk, directory, start=start, wanted=wanted, warn=warn)
        chosen = (one for one in found if not pairs or pairs <= set(one[4]))
        _print(chosen, Formatter(form, null))
    return LOST if lost else 0


def _print(found: Iterable[Message], formatter: Formatter) -> None:
    terminal = sys.stdout.isatty()
    pieces: list[bytes] = []
    size = 0
    for selection in _selections(found):
        pieces.append(formatter.messages(selection))
        size += len(pieces[-1])
        if size >= _WRITE_BYTES:
            data = b"".join(pieces)
            write_stdout(printable(data) if terminal else data)
            pieces, size = [], 0
    data = b"".join(pieces)
    write_stdout(printable(data) if terminal else data)


def _selections(found: Iterable[Message]) -> Iterator[Selection]:
    """Neighbours of one time together, so that they are formatted together."""
    run: list[Message] = []
    for one in found:
        if run and (one[1] != run[0][1] or len(run) == _NEIGHBOURS):
            yield _selection(run)
            run = []
        run.append(one)
    if run:
        yield _selection(run)


def _selection(run: Sequence[Message]) -> Selection:
    items = [[payload, *[word for pair in pairs for word in pair]] if pairs else payload for *_, payload, pairs in run]
    flags = "h" if any(isinstance(item, list) for item in items) else "-"
    batch = build([one[0] for one in run], [one[2] for one in run], items, run[0][1], flags)
    return Selection(batch, 0, batch.n, None, batch.n)


def _wanted(patterns: Sequence[str]) -> Callable[[bytes], bool]:
    if not patterns:
        return any_topic
    try:
        parsed = parse_patterns(",".join(patterns).encode())
    except BusError as error:
        raise click.BadParameter(error.text, param_hint="PATTERN") from None
    return lambda topic: any(matches(pattern, topic) for pattern in parsed)


def _pairs(tags: Sequence[str]) -> set[tuple[bytes, bytes]]:
    pairs = set()
    for tag in tags:
        name, equals, value = tag.partition("=")
        if not equals:
            raise click.BadParameter(f"{tag!r} is not NAME=VALUE", param_hint="--where")
        pairs.add((name.encode(), value.encode()))
    return pairs
