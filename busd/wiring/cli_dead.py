"""`busd dead`: messages that failed too often.

A dead letter is a message of `_dead.<group>.<topic>`.  What was retried is what the group `dead-retry` has settled.
Invariants:
1. A letter is settled only after its message was published again; that is done with an id, so it happens once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import click
from busd_client import sync
from busd_client.address import Address
from busd_client.deliveries import Delivery
from busd_client.events import BusdError, Message, ReadResult

from busd.wiring.cli import Failure
from busd.wiring.cli_common import address_option, reaching
from busd.wiring.cli_format import time_text
from busd.wiring.cli_look import connected, print_lines, print_table
from busd.words.errors import BusError
from busd.words.groups import check_group

RETRIED = "dead-retry"
ALL = "_dead.>"
# What a dead letter says of itself; the rest of its headers are the original's.
OWN = ("id", "group", "tries", "reason", "offset")
# How long `retry` waits for letters that another `retry` has.
_PATIENCE_S = 3.0
# A group gives nobody more at a time (protocol.md, Limits).
_MAX_WINDOW = 100_000


def _pattern(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str:
    try:
        return ALL if value is None else f"_dead.{check_group(value.encode()).decode()}.>"
    except BusError as error:
        raise click.BadParameter(error.text) from None


_group = click.argument("pattern", required=False, callback=_pattern, metavar="[GROUP]")


@click.group()
def dead() -> None:
    """Messages that came back too often: in _dead.<group>.<topic>, with the reason.

    They are messages as any others: `busd sub '_dead.>'` reports them as they come, `busd reset '_dead.>'` removes
    them.

    \b
    busd dead list
    busd dead retry mail
    """


@dead.command(name="list")
@_group
@click.option("--json", "as_json", is_flag=True, help="A JSON array of objects.")
@address_option
def list_(pattern: str, as_json: bool, address: Address) -> None:
    """List dead letters, of GROUP or all, that were not retried.

    In a pipe a letter a line: offset, group, topic, tries, time and reason, with tabs between.
    """
    with reaching(address), connected(address) as client:
        letters = [_facts(message) for message in _left(client, pattern)]
    if as_json:
        click.echo(json.dumps(letters))
    elif sys.stdout.isatty():
        names = ("offset", "group", "topic", "tries", "time", "reason")
        print_table(names, [list(letter.values()) for letter in letters])
    else:
        print_lines(["\t".join(map(str, letter.values())) for letter in letters])


@dead.command()
@click.argument("offset", type=click.IntRange(1))
@address_option
def show(offset: int, address: Address) -> None:
    """Print the dead letter at OFFSET: its headers, name: value, an empty line, and the payload as it is."""
    with reaching(address), connected(address) as client:
        message = _letter(client, offset)
    lines = [f"topic: {message.topic}", f"time: {time_text(message.time_ns)}"]
    lines += [f"{name}: {value}" for name, value in message.headers.items()]
    sys.stdout.write("\n".join([*lines, "", ""]))
    sys.stdout.flush()
    sys.stdout.buffer.write(message.payload)
    if sys.stdout.isatty():
        sys.stdout.buffer.write(b"\n")


@dead.command()
@_group
@click.option(
    "--offset", "offsets", type=click.IntRange(1), multiple=True, metavar="N", help="Only this one; again for more."
)
@address_option
def retry(pattern: str, offsets: tuple[int, ...], address: Address) -> int:
    """Publish the messages of dead letters again, to their topics, with their payload and tags.

    Prints how many.  They are new messages, for all groups that read the topic; the letters stay where they are and
    are no longer listed.  One whose `key` an earlier letter has waits until that one was retried, of whatever group.

    \b
    Exit status: 0 all were, 1 some are not there, wait, or are somebody else's at the moment, 2 an error.

    \b
    busd dead retry mail --offset 117
    """
    with reaching(address), connected(address) as client:
        left = _left(client, pattern)
        wanted = {message.offset for message in left}
        if offsets:
            missing = sorted(set(offsets) - wanted)
            wanted &= set(offsets)
            if missing:
                raise Failure(f"there is no dead letter at {missing[0]} to be retried", status=1)
        done = 0
        for letter in _taken(client, wanted):
            topic, tags = origin(letter.message)
            # The dead letter's own offset is the id: whoever retries it, it is published once.
            client.publish(topic, letter.payload, {**tags, "id": f"retry:{letter.offset}"}, retry=True)
            letter.ack()
            done += 1
    click.echo(done)
    return 0 if done == len(wanted) else 1


def origin(letter: Message) -> tuple[str, dict[str, str]]:
    """The topic and the tags of the message that died.

    Raises:
        Failure: the topic is none of a dead letter.
    """
    parts = letter.topic.split(".", 2)
    if len(parts) != 3:
        raise Failure(f"{letter.topic} is not the topic of a dead letter: _dead.<group>.<topic>")
    return parts[2], {name: value for name, value in letter.headers.items() if name not in OWN}


def _facts(letter: Message) -> dict[str, str | int]:
    headers = letter.headers
    topic = letter.topic.split(".", 2)[2]
    return {
        "offset": letter.offset,
        "group": headers.get("group", ""),
        "topic": topic,
        "tries": headers.get("tries", ""),
        "time": time_text(letter.time_ns),
        "reason": headers.get("reason", ""),
    }


def _letter(client: sync.Client, offset: int) -> Message:
    try:
        found = client.read(ALL, offset, limit=1)
    except BusdError as error:
        # POS: beyond the end.
        if error.code != "POS":
            raise
        found = ReadResult()
    if not found or found[0].offset != offset:
        raise Failure(f"there is no dead letter at {offset}", status=1)
    return found[0]


def _left(client: sync.Client, pattern: str) -> list[Message]:
    """Dead letters that were not retried."""
    try:
        return client.read(pattern, group=RETRIED)
    except BusdError as error:
        if error.code != "GROUP":
            raise
        # Nobody has retried anything yet.
        return client.read(pattern)


def _taken(client: sync.Client, wanted: set[int]) -> Iterator[Delivery]:
    """These letters, as a member of the group; the others go back in the end."""
    left = set(wanted)
    if not left:
        return
    window = min(_MAX_WINDOW, len(_left(client, ALL)) or 1)
    with client.subscribe(ALL, group=RETRIED, window=window, within=_PATIENCE_S) as letters:
        for event in letters:
            if isinstance(event, Delivery) and event.offset in left:
                left.discard(event.offset)
                yield event
                if not left:
                    break
        letters.flush()
