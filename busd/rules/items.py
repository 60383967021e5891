"""The messages of a batch as bytes: one RESP array, of bulk strings, or of arrays where a message has headers.

Pure.  What the array stands for (offsets, topics) is the record's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import chain, repeat
from struct import Struct
from typing import Any

import hiredis

from busd.rules.numbers import weave

# A payload; with headers [payload, key, value, …].
Item = bytes | list[bytes]

# With fewer than one of so many wanted, cutting those out costs less than decoding all: 130 ns each and 5 µs for the
# array, where each that is decoded takes 30.
FEW = 5
# Payloads have different sizes, or it is not known.
UNEVEN = -1
# Fewer are encoded as quickly one by one; and where messages have more different numbers of headers than this, a pass
# for each number looks at all of them too often.
_FEW_ITEMS = 4
_MOST_WIDTHS = 4
# `$`, the digits of a length, CR LF.
_HEAD_BYTES = 16
# Payloads of one size are taken in such runs: few calls, and what does the rest of a batch is made in 3 us.
_RUN = 64
# Where their size has to be found first, that takes longer than the runs save on fewer: 128 take 57 ns each, not 47.
_MANY = 256
_HEADS = [b"\r\n$%d\r\n" % size for size in range(4096)]


def encode_items(items: list[Item], headers: bool) -> tuple[bytes, int]:
    """The array, and the size of all payloads where it is one, else UNEVEN; `headers`: an item may be a list."""
    if headers:
        return _encode_headed(items), UNEVEN
    payloads: list[bytes] = items  # type: ignore[assignment]
    number = len(payloads)
    if number == 1:
        return b"*1\r\n$%d\r\n%b\r\n" % (len(payloads[0]), payloads[0]), len(payloads[0])
    sizes = list(map(len, payloads))
    # One copy of the payloads in either case: at 100 bytes a message 20 ns where all have one size (which the last and
    # the middle one tell of most that have not), else 75; a `%` a message costs 250.
    if sizes[-1] == sizes[0] == sizes[number // 2] and sizes.count(sizes[0]) == number:
        row = [b"*%d" % number, *payloads]
        row[-1] += b"\r\n"
        return (b"\r\n$%d\r\n" % sizes[0]).join(row), sizes[0]
    pieces = weave(_heads(sizes), payloads)
    pieces[0] = b"*%d%b" % (number, pieces[0])
    pieces.append(b"\r\n")
    return b"".join(pieces), UNEVEN


def headed_items(payloads: Sequence[bytes], names: Sequence[bytes], columns: Sequence[Sequence[bytes]]) -> list[Item]:
    """Messages that all have headers of these names; `columns`: for each name, at least one, its value in each."""
    headers = chain.from_iterable(zip(map(repeat, names), columns, strict=True))
    return list(map(list, zip(payloads, *headers, strict=False)))


def _encode_headed(items: list[Item]) -> bytes:
    """The array, where an item may be a list: with one header 140 ns a message, one by one 770."""
    pieces: Iterable[bytes]
    widths = [len(item) if type(item) is list else 0 for item in items] if len(items) >= _FEW_ITEMS else []
    different = set(widths)
    if not 1 <= len(different) <= _MOST_WIDTHS:
        pieces = map(_encode_item, items)
    elif len(different) == 1:
        pieces = weave(*_spelled(items, widths[0]))
    else:
        rows: list[tuple[bytes, ...]] = [()] * len(items)
        for width in different:
            places = [place for place, one in enumerate(widths) if one == width]
            spelled = zip(*_spelled(list(map(items.__getitem__, places)), width), strict=True)
            for place, row in zip(places, spelled, strict=True):
                rows[place] = row
        pieces = chain.from_iterable(rows)
    return b"*%d%b\r\n" % (len(items), b"".join(pieces))


def _spelled(items: list[Item], width: int) -> list[list[bytes]]:
    """Columns that read row by row are the items: payloads, or where there is a width lists of so many parts.

    Names, and values that are the same in all of them, are spelled once.
    """
    number = len(items)
    parts: list[Sequence[Any]] = list(zip(*items, strict=True)) if width else [items]
    columns: list[list[bytes]] = []
    text = b"\r\n*%d" % width if width else b""
    for part in parts:
        if part.count(part[0]) == number:
            text += b"\r\n$%d\r\n%b" % (len(part[0]), part[0])
            continue
        sizes = list(map(len, part))
        if sizes.count(sizes[0]) == number:
            columns.append([b"%b\r\n$%d\r\n" % (text, sizes[0])] * number)
        else:
            columns += [[text] * number, _heads(sizes)]
        columns.append(list(part))
        text = b""
    return [*columns, [text] * number] if text else columns


def _heads(sizes: list[int]) -> list[bytes]:
    try:
        return list(map(_HEADS.__getitem__, sizes))
    except IndexError:
        return [b"\r\n$%d\r\n" % size for size in sizes]


def _encode_item(item: Item) -> bytes:
    if isinstance(item, bytes):
        return b"\r\n$%d\r\n%b" % (len(item), item)
    return b"\r\n*%d" % len(item) + b"".join([b"\r\n$%d\r\n%b" % (len(part), part) for part in item])


def decode_items(record: bytes, body_at: int, n: int) -> list[Item]:
    """The items of the array of `n` that stands in `record` from `body_at` to its end.

    Raises:
        ValueError: there is no such array.
    """
    reader = hiredis.Reader()
    reader.feed(record, body_at, len(record) - body_at)
    try:
        items = reader.gets()
    except hiredis.ProtocolError as error:
        raise ValueError(f"body: {error}") from None
    if type(items) is not list or len(items) != n:
        raise ValueError(f"the body does not hold {n} messages")
    return items


def even_items(record: bytes, body_at: int, n: int, size: int = UNEVEN) -> tuple[int, ...]:
    """Where the payloads of that array stand, when all are of one size: the first, from one to the next, the size.

    Empty when that cannot be said: then `decode_items` has to look at each.  What is said is what `decode_items` finds:
    every head is compared, as columns of characters, and each stands right behind the payload before it.

    `size`: what `encode_items` told of this very array; then nothing is compared but lengths.
    """
    end = len(record)
    start = b"*%d\r\n" % n
    at = body_at + len(start)
    if size != UNEVEN:
        step = len(b"$%d\r\n" % size) + size + 2
        if end - at == n * step:
            return at + step - size - 2, step, size
    head = record[at : record.find(b"\r\n", at, at + _HEAD_BYTES) + 2]
    size = int(head[1:-2]) if head[1:-2].isdigit() else -1
    step = len(head) + size + 2
    # Lengths first: of most arrays they say that the sizes differ.
    if end - at != n * step or head != b"$%d\r\n" % size or not record.startswith(start, body_at):
        return ()
    for number in range(len(head)):
        if record[at + number : end : step] != head[number : number + 1] * n:
            return ()
    return at + len(head), step, size


def cut_out(record: bytes, even: tuple[int, ...], places: Sequence[int]) -> list[Item]:
    """The payloads with these numbers, where `even_items` says that they are."""
    first, step, size = even
    return [record[at : at + size] for at in [first + step * place for place in places]]


def edges(record: bytes, even: tuple[int, ...], n: int) -> bytes:
    """The first and the last character of each of the `n` payloads, where `even_items` says that they are."""
    at, step, size = even
    end = at + n * step
    return record[at:end:step] + record[at + size - 1 : end : step] if size else b""


def runs_pay(n: int, size: int) -> bool:
    """Whether `take_all` is quicker than `decode_items` for `n` payloads, with the look at them; `size`: as known."""
    return n >= (_MANY if size == UNEVEN else _RUN)


def take_all(record: bytes, even: tuple[int, ...], n: int) -> list[Item]:
    """What `decode_items` gives, where `even_items` says that the `n` payloads are of one size; in two thirds of the
    time for many."""
    at, step, size = even
    at -= step - size - 2
    items: list[Item] = []
    run = _run(_RUN, step, size)
    for _ in range(n // _RUN):
        items += run(record, at)
        at += _RUN * step
    items += _run(n % _RUN, step, size)(record, at)
    return items


@lru_cache(maxsize=64)
def _run(n: int, step: int, size: int) -> Callable[[bytes, int], tuple[bytes, ...]]:
    """Takes as many payloads of one size, head and line end around each: 22 ns each, where hiredis takes 35 to 40."""
    return Struct(f"{step - size - 2}x{size}s2x" * n).unpack_from
