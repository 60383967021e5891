"""Shortcuts through inline lines `HPUB topic k=v … :payload`: whole columns by a few calls in C.

What a line means is decided by `build_line_request`; what is taken here is what that would give, and all else is left
to it.  Lines whose headers have the same names in the same order, which is what programs write, are taken apart by one
pattern.  Where many have others, a second pass takes each line's headers as one text and looks it up.

Proof, for both: a part that holds no LF is the rest of one line that the pattern took; one that does has other lines
behind it.

Knows no connection and keeps no state.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, repeat

from busd.rules.items import headed_items
from busd.rules.runs import add
from busd.words.commands import allowed_topics
from busd.words.errors import BusError
from busd.words.headers import check_names, parse_heads, surely_good
from busd.words.requests import Item, Publish, Request
from busd.words.settings import Limits
from busd.words.topics import MAX_TOPIC_BYTES

LF = b"\n"
VERB = b"HPUB "
# What stands in a line beside a topic, headers and the payload: a shortcut needs no look at the length of a line.
LINE_BYTES = len(VERB) + MAX_TOPIC_BYTES + len(b" :")
# Fewer lines are as quick one by one.
FEW_LINES = 4
# To compile a pattern takes as long as 70 lines one by one: 300 us, 500 with so many names.
_WORTH_LINES = 32
_MOST_NAMES = 16
# When others stand behind more than one of so many lines, the usual names say little of the rest.
_ODD_PART = 16

# How often lines may be looked at in vain: so often each that the form takes, and so often more each that was added.
# Where errors stand everywhere, halving down to the last four lines takes four times as long as line by line.
_IN_VAIN = 3
_IN_VAIN_BESIDE = 4
# When more than one of so many lines has headers of its own, what was seen before is of little use.
_NEW_PART = 8

Columns = list[list[bytes]]
Decode = Callable[[bytes, Limits, list[Request]], None]


@dataclass(frozen=True, slots=True)
class _Form:
    """How lines are taken apart: topic, values of these names (without names: the headers as one text), payload.

    `between`: from the end of a line to where the payload of the next one begins, without names to the end of its
    topic; `spelling`: the line again, `%`.
    """

    between: re.Pattern[bytes]
    spelling: bytes
    names: tuple[bytes, ...] | None


@lru_cache(maxsize=256)
def _form(verb: bytes, eol: bytes, names: tuple[bytes, ...] | None) -> _Form:
    topic = rb"%b%b([^ \r\n]{1,%d}+)" % (eol, verb, MAX_TOPIC_BYTES)
    if names is None:
        return _Form(re.compile(topic + rb"(?= )"), b"%b%%b%%b%b" % (verb, eol), None)
    values = b"".join([rb" %b=([^ \t\r\n\0]*+)" % name for name in names])
    spelled = b"".join([b" %b=%%b" % name for name in names])
    return _Form(re.compile(topic + values + b" :"), b"%b%%b%b :%%b%b" % (verb, spelled, eol), names)


@dataclass(slots=True)
class _Work:
    """What is the same for all of a chunk.  `plain`: adds what lines ask, one by one; `others`: see decode_headed.

    `patience`: how many lines may still be looked at in vain.
    """

    verb: bytes
    eol: bytes
    limits: Limits
    requests: list[Request]
    ascii_only: bool
    plain: Decode
    others: Decode
    patience: int = 0


def decode_headed(
    chunk: bytes, eol: bytes, limits: Limits, requests: list[Request], plain: Decode, others: Decode
) -> None:
    """Add the requests of whole lines, most of them perhaps HPUB lines.

    Args:
        eol: where it is LF, no line ends in CR LF.
        plain: adds what lines ask, one by one.
        others: the same for many lines that the patterns did not take.
    """
    at = 0 if chunk[: len(VERB)].upper() == VERB else chunk.find(LF + VERB) + 1
    verb = chunk[at : at + len(VERB)]
    if verb.upper() != VERB:
        plain(chunk, limits, requests)
        return
    work = _Work(verb, eol, limits, requests, chunk.isascii(), plain, others)
    if at == 0 and (run := _one_head(work, chunk)) is not None:
        add(requests, run)
        return
    names = _usual_names(chunk, at) if _are_many(chunk) else None
    if names is None or not _take(work, chunk, _form(verb, eol, names)):
        _take(work, chunk, _form(verb, eol, None))


def _one_head(work: _Work, chunk: bytes) -> Publish | None:
    """The run of a chunk in which all lines begin alike up to the payload; None of any other.

    Proof: see inline._one_topic.
    """
    eol = work.eol
    head = chunk[: chunk.find(b" :", 0, chunk.index(LF)) + 2]
    middle, last = chunk.find(LF, len(chunk) // 2) + 1, chunk.rfind(LF, 0, -1) + 1
    if len(head) < len(VERB) or not (chunk.startswith(head, last) and chunk.startswith(head, middle)):
        return None
    # rsplit: see inline.
    payloads = chunk.rsplit(eol + head)
    payloads[0] = payloads[0][len(head) :]
    payloads[-1] = payloads[-1][: -len(eol)]
    topic, blank, words = head[len(VERB) : -len(b" :")].partition(b" ")
    known = allowed_topics((topic,), payloads, work.limits)
    if known is None or LF in b"".join(payloads):
        return None
    try:
        row = parse_heads({blank + words}, work.limits, new=False)[blank + words]
    except BusError:
        return None
    items: list[Item] = [[payload, *row] for payload in payloads] if row else list[Item](payloads)
    return Publish(known, items, len(chunk), bool(row), b"id" in row, eol=eol)


def _are_many(lines: bytes) -> bool:
    """Whether a pattern of their own is worth while."""
    end = 0
    for _ in range(_WORTH_LINES):
        end = lines.find(LF, end) + 1
        if not end:
            return False
    return True


def _usual_names(chunk: bytes, at: int) -> tuple[bytes, ...] | None:
    """The names of the headers that two of three lines have: the one at `at`, one in the middle, the last."""
    middle, last = chunk.find(LF, len(chunk) // 2) + 1, chunk.rfind(LF, 0, -1) + 1
    first, second, third = _names(chunk, at), _names(chunk, middle), _names(chunk, last)
    return first if first in (second, third) else second if second == third else None


def _names(chunk: bytes, at: int) -> tuple[bytes, ...] | None:
    """The names of the headers of the line at `at`; None where they are in doubt, or more than a pattern takes."""
    head, colon, _ = chunk[at : chunk.find(LF, at)].partition(b" :")
    words = head.split(b" ", _MOST_NAMES + 2)[2:]
    if not colon or len(words) > _MOST_NAMES:
        return None
    names = tuple([word.partition(b"=")[0] for word in words])
    try:
        check_names(names)
    except BusError:
        return None
    return names


def _take(work: _Work, lines: bytes, form: _Form) -> bool:
    """Add what whole lines ask.  False, and nothing is added, when the form has names that too few of them have."""
    limits, requests, eol = work.limits, work.requests, work.eol
    # So the first line stands behind the end of one, too.
    before, *parts = form.between.split(eol + lines[: -len(eol)])
    width = form.between.groups + 1
    columns = [parts[at::width] for at in range(width)]
    rests = columns[-1]
    # The number 10, not the bytes: 33 ns a rest instead of 160.
    odd = [index for index, rest in enumerate(rests) if LF[0] in rest] if LF in b"".join(rests) else []
    if form.names is not None and len(odd) * _ODD_PART >= len(rests):
        return False
    work.patience += _IN_VAIN * len(rests)
    if before:
        _leave(work, before[len(eol) :] + eol, form)
    start = 0
    for index in odd:
        _publish(work, [column[start:index] for column in columns], form)
        spelled = _spelled([column[index : index + 1] for column in columns], form)
        end = spelled.index(LF) + 1
        work.plain(spelled[:end], limits, requests)
        _leave(work, spelled[end:], form)
        start = index + 1
    _publish(work, [column[start:] for column in columns] if start else columns, form)
    return True


def _leave(work: _Work, lines: bytes, form: _Form) -> None:
    """Add what lines ask that the form does not take."""
    if form.names is None:
        work.others(lines, work.limits, work.requests)
    elif lines.count(LF) < FEW_LINES:
        work.plain(lines, work.limits, work.requests)
    else:
        _take(work, lines, _form(work.verb, work.eol, None))


def _spelled(columns: Columns, form: _Form) -> bytes:
    """The lines again."""
    return b"".join(map(form.spelling.__mod__, zip(*columns, strict=True)))


def _publish(work: _Work, columns: Columns, form: _Form) -> None:
    """Add what lines ask, given in columns; halved around those that are errors or in doubt, while they are few."""
    number = len(columns[0])
    if number >= FEW_LINES and work.patience > 0:
        run = _run(work, columns) if form.names is None else _run_alike(work, columns, form.names)
        if run is not None:
            work.patience += _IN_VAIN_BESIDE * number
            add(work.requests, run)
            return
        work.patience -= number
        half = number // 2
        _publish(work, [column[:half] for column in columns], form)
        _publish(work, [column[half:] for column in columns], form)
    elif number:
        work.plain(_spelled(columns, form), work.limits, work.requests)


def _run_alike(work: _Work, columns: Columns, names: tuple[bytes, ...]) -> Publish | None:
    """Of lines with these names; None where one of them may be an error."""
    topics, *values, payloads = columns
    known = allowed_topics(topics, payloads, work.limits)
    if known is None or not surely_good(names, values, work.limits, work.ascii_only):
        return None
    size_bytes = sum([sum(map(len, column)) for column in columns]) + len(topics) * (1 + sum(map(len, names)))
    if not names:
        return Publish(known, list[Item](payloads), size_bytes, eol=work.eol)
    items = headed_items(payloads, names, values)
    return Publish(known, items, size_bytes, headers=True, ids=b"id" in names, eol=work.eol)


def _run(work: _Work, columns: Columns) -> Publish | None:
    """Of lines with any headers; None where one of them may be an error."""
    topics, rests = columns
    # A line without headers has its payload right behind the topic's blank.
    heads, colons, payloads = map(list, zip(*map(bytes.partition, rests, repeat(b" :")), strict=True))
    known = allowed_topics(topics, payloads, work.limits)
    if b"" in colons or known is None:
        return None
    different = set(heads)
    new = len(different) * _NEW_PART > len(heads) >= _WORTH_LINES
    try:
        words = parse_heads(different, work.limits, new)
    except BusError:
        return None
    size_bytes = sum(map(len, rests)) + sum(map(len, topics)) + len(topics)
    rows = map(words.__getitem__, heads)
    items: list[Item]
    if () in words.values():
        items = [[payload, *row] if row else payload for payload, row in zip(payloads, rows, strict=True)]
    else:
        items = [[payload, *row] for payload, row in zip(payloads, rows, strict=True)]
    ids = b"id" in chain.from_iterable(words.values())
    return Publish(known, items, size_bytes, headers=any(words.values()), ids=ids, eol=work.eol)
