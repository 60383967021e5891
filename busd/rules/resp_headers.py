r"""The shortcut through RESP for `PUB topic payload name value …`: many messages with the same names in the same order.

As in `resp_runs`: split at the bytes that must stand between two commands, and proved of every part that it is a
length in its one spelling, CR LF and so many bytes.  Names and values hold no CR LF, so they are cut off from behind;
whatever a payload holds, what is taken is the plain spelling of what is returned.

Knows no connection and keeps no state.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import repeat

from busd.rules.items import headed_items
from busd.rules.resp_runs import CRLF, SIZES, spelled, spelled_bytes
from busd.words.commands import allowed_topics
from busd.words.headers import surely_good
from busd.words.requests import Publish
from busd.words.settings import Limits
from busd.words.topics import MAX_TOPIC_BYTES

_FIRST = re.compile(rb"\*([1-9][0-9]{0,2})\r\n\$3\r\n(?i:PUB)\r\n")
# PUB, topic and payload.
_PLAIN_ARGUMENTS = 3

Row = list[bytes]


def publishes_headed(data: bytes, at: int, limits: Limits) -> tuple[Publish | None, int, bool]:
    """Take commands `PUB topic payload name value …` from `at` on, if there is more than one: see
    `resp_runs.publishes`."""
    first = _FIRST.match(data, at)
    more = int(first[1]) - _PLAIN_ARGUMENTS if first is not None else 0
    if (
        first is None
        or more % 2
        or not 0 < more <= 2 * limits.headers
        or limits.line_bytes < MAX_TOPIC_BYTES + len(b"PUB")
        or limits.header_bytes > limits.payload_bytes + limits.line_bytes
    ):
        return None, at, False
    head = first[0]
    # rsplit: see resp_runs.
    parts = data[first.end() :].rsplit(CRLF + head)
    if len(parts) == 1:
        return None, at, True
    tail = parts.pop()
    rows = list(map(bytes.rsplit, parts, repeat(CRLF), repeat(2 * more)))
    names = tuple(rows[0][2::4])
    # The last may not be whole, or have another command behind it.
    last = tail[:-2].rsplit(CRLF, 2 * more)
    if tail.endswith(CRLF) and _run([last], names, limits) is not None:
        parts.append(tail[:-2])
        rows.append(last)
    run = _run(rows, names, limits)
    if run is None:
        good = _good(rows, names, limits)
        run = _run(rows[:good], names, limits) if good else None
        if run is None:
            return None, at, True
        del parts[good:]
    run.size_bytes = spelled_bytes(head, parts)
    return run, at + run.size_bytes, True


def _good(rows: Sequence[Row], names: tuple[bytes, ...], limits: Limits) -> int:
    """How many stand before the first that is in doubt, as there is one: each is looked at twice at most."""
    good, doubt = 0, len(rows)
    while doubt - good > 1:
        middle = (good + doubt) // 2
        if _run(rows[good:middle], names, limits) is None:
            doubt = middle
        else:
            good = middle
    return good


def _run(rows: Sequence[Row], names: tuple[bytes, ...], limits: Limits) -> Publish | None:
    """Of parts, each [all up to the payload's end, name's size, name, value's size, value, …]; None when one of them is
    in doubt, or has other names."""
    width = 4 * len(names) + 1
    try:
        columns = list(zip(*rows, strict=True))
        topic_sizes, topics, sizes, payloads = zip(*map(bytes.split, columns[0], repeat(CRLF), repeat(3)), strict=True)
    except ValueError:
        return None
    if len(columns) != width:
        return None
    number, values = len(rows), columns[4::4]
    for name, name_sizes, found in zip(names, columns[1::4], columns[2::4], strict=True):
        if found.count(name) != number or name_sizes.count(b"$%d" % len(name)) != number:
            return None
    if (
        sizes != spelled(payloads, SIZES, b"$%d")
        or topic_sizes != spelled(topics, SIZES, b"$%d")
        or any(there != spelled(column, SIZES, b"$%d") for there, column in zip(columns[3::4], values, strict=True))
        or (known := allowed_topics(topics, payloads, limits)) is None
        or not surely_good(names, values, limits, ascii_only=False)
    ):
        return None
    items = headed_items(payloads, names, values)
    return Publish(known, items, 0, headers=True, ids=b"id" in names, eol=CRLF)
