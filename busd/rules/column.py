"""The column of a batch: which of its topics each message has.

In a record it is UTF-8 text, one character a message: chr(48 + index into the topics).  In memory it is bytes as long
as every character fits into one, because a single C call then makes a selector of it; else text, in which one topic is
found as quickly.  Which of the two is nobody's business but this module's: others slice columns, compare them, and ask
here for the rest.

Pure.  Per message C, except where a topic is looked for among many.
"""

from __future__ import annotations

import re
import sys
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import compress
from operator import is_not
from typing import Any

Column = bytes | str

# From "0" on: a column of 78 topics is readable in `less`.
BASE = 48
# As many as UTF-8 can name in two bytes: code points up to 2047.
MAX_TOPICS = 2000
# What is bytes in memory; all of ASCII is spelled alike in both.
_NARROW = 256 - BASE
# Up to here a call for each topic costs less than counting all of them.
_FEW = 40
# Looking for one of these takes as long as looking at 3 to 6 messages, and each that is found as 5 more; beyond the
# first of both, thousands of topics in a batch of small messages would keep the loop for tens of milliseconds.
_MOST_LOOKED_FOR = 80
_FOUND = 8
# Each message whose topic was there before it costs `spread` what four others do; with one in so many it saves nothing.
_AGAIN = 3

_TEXT = "".join(map(chr, range(BASE, BASE + MAX_TOPICS)))
_BYTES = bytes(range(BASE, 256))
# One by one: to make them anew costs twice as much as to look them up.
_LETTERS = [bytes((code,)) for code in _BYTES]
_SIGNS = [*_TEXT]
# The same objects each time: what is the same need not be compared.
_PLACES = [*range(MAX_TOPICS)]
_UTF_16 = "utf-16-le" if sys.byteorder == "little" else "utf-16-be"


def make(letters: dict[bytes, Any], parts: Sequence[tuple[bytes | Sequence[bytes], int]]) -> Column:
    """The column of messages whose topics are told in parts.

    Args:
        letters: has the different topics, at most MAX_TOPICS, in the order of their numbers, and is given the letter of
            each: to fill another dict costs a third more.
        parts: one topic for `n` messages, or one for each.
    """
    number = len(letters)
    narrow = number <= _NARROW
    letters.update(zip(letters, _LETTERS if narrow else _SIGNS, strict=False))
    # Letters that are joined cost what numbers do, and the two kinds of columns are made alike.
    nothing: Any = b"" if narrow else ""
    column: Column = nothing.join(
        [
            letters[topics] * n if isinstance(topics, bytes) else nothing.join(map(letters.__getitem__, topics))
            for topics, n in parts
        ]
    )
    return column


def straight(number: int) -> Column:
    """The column of messages that have a topic each, in their order."""
    return _BYTES[:number] if number <= _NARROW else _TEXT[:number]


def spread(
    named: Sequence[bytes], offsets: Sequence[int]
) -> tuple[dict[bytes, int], Column, tuple[Sequence[int], Sequence[int]]] | None:
    """Of messages that mostly have a topic each: their topics in the order in which they come (the keys), the column,
    and of each topic the number of messages and the last offset.  None when too many have the topic of another.

    What is between two of those is a piece of `straight`: 110 ns a message, where `make` and counting take 300.
    """
    n = len(named)
    if n > MAX_TOPICS:
        return None
    first: dict[bytes, int] = {}
    # Of each message the place of the first of its topic.
    places = list(map(first.setdefault, named, _PLACES))
    number = len(first)
    if _AGAIN * (n - number) > n:
        return None
    counted, lasts = [1] * number, list(offsets)
    text = straight(number)
    again = list(compress(_PLACES, map(is_not, places, _PLACES))) if number < n else []
    for at in reversed(again):
        del lasts[at]
    pieces: list[Any] = []
    lo = 0
    for before, at in enumerate(again):
        place = places[at] - bisect_left(again, places[at])
        counted[place] += 1
        lasts[place] = offsets[at]
        pieces += text[lo - before : at - before], text[place : place + 1]
        lo = at + 1
    pieces.append(text[lo - len(again) :])
    column: Column = text[:0].join(pieces)
    return first, column, (counted, lasts)


def encode(column: Column) -> bytes:
    """As it stands in a record."""
    if isinstance(column, str):
        return column.encode()
    return column if column.isascii() else column.decode("latin-1").encode()


def decode(field: bytes, n: int, number: int) -> Column:
    """The column of `n` messages with `number` topics that stands in a record.

    Raises:
        ValueError: there is no such column.
    """
    if number > MAX_TOPICS:
        raise ValueError(f"{number} topics; there are at most {MAX_TOPICS}")
    column: Column = field
    if not field.isascii():
        text = field.decode()
        column = text.encode("latin-1") if number <= _NARROW else text
    elif number > _NARROW:
        column = field.decode()
    if len(column) != n:
        raise ValueError(f"a column of {len(column)} for {n} messages")
    # What is left of it when these are taken away: 1 us, where min() and max() take 16.
    if isinstance(column, bytes):
        bad = column.translate(None, _BYTES[:number]) != b""
    else:
        bad = field.translate(None, _BYTES) != b"" or _beyond(number).search(column) is not None
    if bad:
        raise ValueError("the column names a topic that is not there")
    return column


@lru_cache(maxsize=256)
def _beyond(number: int) -> re.Pattern[str]:
    """Finds a character that names none of so many topics: 2 us for 600, where max() takes 14."""
    return re.compile(f"[{re.escape(chr(BASE + number))}-\U0010ffff]")


def codes(column: Column) -> Sequence[int]:
    """For each message BASE and the number of its topic."""
    return column if isinstance(column, bytes) else array("H", column.encode(_UTF_16))


def number_at(column: Column, index: int) -> int:
    """The number of the topic of one message."""
    return (column[index] if isinstance(column, bytes) else ord(column[index])) - BASE


def counts(column: Column, number: int) -> Sequence[int]:
    """How many messages there are of each topic."""
    if column == straight(number):
        return [1] * number
    if isinstance(column, bytes) and number <= _FEW:
        return list(map(column.count, _BYTES[:number]))
    return list(map(Counter(codes(column)).__getitem__, range(BASE, BASE + number)))


def lasts(column: Column, number: int, offsets: Sequence[int]) -> Sequence[int]:
    """The offset of the last message of each topic; of one that has none the last of all."""
    if column == straight(number):
        return offsets
    if isinstance(column, bytes):
        return list(map(offsets.__getitem__, map(column.rfind, _BYTES[:number])))
    found = dict.fromkeys(_SIGNS[:number], offsets[-1])
    found.update(zip(column, offsets, strict=True))
    return list(found.values())


def last_place(column: Column, number: int) -> int:
    """The index of the last message of a topic, -1 for none."""
    return column.rfind(_LETTERS[number]) if isinstance(column, bytes) else column.rfind(_SIGNS[number])


def places(column: Column, number: int, lo: int, hi: int) -> list[int]:
    """The indexes of a topic's messages among lo … hi-1."""
    found: list[int] = []
    at = lo - 1
    while True:
        if isinstance(column, bytes):
            at = column.find(_LETTERS[number], at + 1, hi)
        else:
            at = column.find(_SIGNS[number], at + 1, hi)
        if at < 0:
            return found
        found.append(at)


def selector(column: Column, numbers: Sequence[int], lo: int, hi: int) -> tuple[bytes, list[int] | None]:
    """One byte for each of the messages lo … hi-1: 1 when it is of one of these topics.  And the indexes of those that
    are, where they were found on the way."""
    if isinstance(column, bytes):
        table = bytearray(256)
        for number in numbers:
            table[BASE + number] = 1
        return column[lo:hi].translate(bytes(table)), None
    # A reader of some topics of thousands: looking for them costs a tenth of looking at each message.
    if len(numbers) <= min(_MOST_LOOKED_FOR, (hi - lo) // 8):
        found: list[int] = []
        for number in numbers:
            found += places(column, number, lo, hi)
            if _FOUND * len(found) > hi - lo:
                break
        else:
            marks = bytearray(hi - lo)
            for at in found:
                marks[at - lo] = 1
            found.sort()
            return bytes(marks), found
    wanted = bytearray(BASE + MAX_TOPICS)
    for number in numbers:
        wanted[BASE + number] = 1
    return bytes(map(wanted.__getitem__, codes(column[lo:hi]))), None


def pick(column: Column, indexes: Sequence[int]) -> Column:
    """The column of these messages alone, in their order; topics keep their numbers."""
    if isinstance(column, bytes):
        return bytes(map(column.__getitem__, indexes))
    return "".join(map(column.__getitem__, indexes))


def narrowed(column: Column, topics: Sequence[bytes]) -> tuple[tuple[bytes, ...], Column | None]:
    """The topics that a column names, of these, in the same order; and the column that goes with those alone, None when
    it is one."""
    seen = codes(column)
    left = tuple([topics[code - BASE] for code in sorted(set(seen))])
    if len(left) == 1:
        return left, None
    return left, make(dict.fromkeys(left), [([topics[code - BASE] for code in seen], len(seen))])
