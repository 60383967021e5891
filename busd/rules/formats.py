r"""Events as bytes: one encoder a format.  What is encoded here once is given to every subscriber of that format.

    line raw bytes json   inline        msg batch   RESP3 pushes, or elements of a READ's array

Pure; per batch Python, per message C (`map` and slices fill one list, which is joined).
An encoder says nothing (b"") for events that its format does not carry.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from json import dumps
from json.encoder import encode_basestring_ascii
from typing import Protocol, TypeVar

from busd.rules.column import BASE, codes, number_at
from busd.rules.numbers import lines, spell, weave
from busd.rules.parts import Parts
from busd.rules.plain import plain
from busd.rules.select import Selection, reframe
from busd.words.escapes import escape, needs_escape
from busd.words.groups import format_token

# `$n` heads as they follow an element, ready made: a `%` a message costs twice as much.
_BULKS = [b"\r\n$%d\r\n" % size for size in range(4096)]

T = TypeVar("T")


class Encoder(Protocol):
    """Turns what a subscription is to be told into bytes."""

    bare: bool
    # True when of a message it tells the topic, the offset and the payload at most.
    timeless: bool

    def messages(self, selection: Selection) -> bytes:
        """Messages, ends of stream or resets, as the batch's flags say."""

    def several(self, selections: Sequence[Selection]) -> bytes:
        """What `messages` says of each of these, joined: for small ones, of which each costs as much as 100 messages.
        They are messages, at least one."""

    def again(self, selection: Selection, tries: int) -> bytes:
        """Messages, given out for the `tries`-th time (from 2): a token stands where else the offset does."""

    def gap(self, pattern: bytes, first: int, last: int, count: int | None, reason: str) -> bytes:
        """A loss: messages first…last that match the pattern; `count` None when nobody knows how many."""

    def end(self, reason: str, next_offset: int) -> bytes:
        """The end of the subscription."""


def _opened(selections: Sequence[Selection], head: Callable[[bytes], bytes], after: bytes) -> list[list[bytes]]:
    """Columns that spell the head of each message's topic, its offset, and `after`."""
    offsets = _joined([selection.offsets() for selection in selections])
    # Often a reader of some topics wants one of these.
    topic = _only_topic(selections)
    if topic is not None:
        return [*spell(offsets, head(topic), after)]
    heads = chain.from_iterable([_heads(selection, head) for selection in selections])
    return [list(heads), *spell(offsets, b"", after)]


def _only_topic(selections: Sequence[Selection]) -> bytes | None:
    """The topic of all their messages, when it is one."""
    found = None
    for selection in selections:
        topic = selection.topic
        if topic is None:
            column, topics = selection.column(), selection.batch.topics
            if column is not None and column != column[:1] * len(column):
                return None
            topic = topics[number_at(column, 0) if column else 0]
        if found is not None and topic != found:
            return None
        found = topic
    return found


def _heads(selection: Selection, head: Callable[[bytes], T]) -> list[T]:
    """The head of each message's topic; of topics that are not selected nothing is asked, there may be thousands."""
    column, topics = selection.column(), selection.batch.topics
    if column is None:
        return [head(topics[0])] * selection.count
    seen = codes(column)
    table = {code: head(topics[code - BASE]) for code in set(seen)}
    return list(map(table.__getitem__, seen))


def _joined(columns: Sequence[Sequence[T]]) -> Sequence[T]:
    return columns[0] if len(columns) == 1 else list(chain.from_iterable(columns))


def _payloads(selection: Selection) -> list[bytes]:
    items = selection.items()
    if "h" not in selection.batch.flags:
        return items  # type: ignore[return-value]
    return [item if isinstance(item, bytes) else item[0] for item in items]


def _rows(selection: Selection) -> Iterator[tuple[bytes, int, bytes, list[bytes]]]:
    """topic, offset, payload, headers: for what is rare enough to go message by message."""
    for topic, offset, item in zip(selection.topics(), selection.offsets(), selection.items(), strict=True):
        if isinstance(item, bytes):
            yield topic, offset, item, []
        else:
            yield topic, offset, item[0], item[1:]


class Line:
    """`MSG topic offset payload`, one line each."""

    bare = False
    timeless = True

    def __init__(self, eol: bytes) -> None:
        self._eol = eol

    def messages(self, selection: Selection) -> bytes:
        """See Encoder."""
        if selection.batch.control:
            return b"".join([_control_line(selection.batch.flags, *row, self._eol) for row in _rows(selection)])
        return self.several((selection,))

    def several(self, selections: Sequence[Selection]) -> bytes:
        """See Encoder."""
        eol = self._eol
        payloads = _joined([_payloads(selection) for selection in selections])
        if not plain(selections, payloads):
            return b"".join([self._lines(selection, 1) for selection in selections])
        topic = _only_topic(selections)
        if topic is not None:
            offsets = _joined([selection.offsets() for selection in selections])
            before = b"MSG %b " % topic.replace(b"%", b"%%")
            # One `%` for all: half of what pieces and a join cost, a third of a `%` for each.
            if offsets[-1] - offsets[0] == len(offsets) - 1:
                return lines(offsets[0], len(offsets), before, b" %%b%b" % eol) % tuple(payloads)
            return (b"%b%%d %%b%b" % (before, eol)) * len(offsets) % tuple(weave(offsets, payloads))
        pieces = weave(*_opened(selections, lambda topic: b"%bMSG %b " % (eol, topic), b" "), payloads)
        pieces[0] = pieces[0][len(eol) :]
        pieces.append(eol)
        return b"".join(pieces)

    def again(self, selection: Selection, tries: int) -> bytes:
        """See Encoder."""
        return self._lines(selection, tries)

    def _lines(self, selection: Selection, tries: int) -> bytes:
        eol = self._eol
        lines = []
        for topic, offset, payload, _ in _rows(selection):
            token = format_token((offset, tries))
            if needs_escape(payload):
                lines.append(b"ESC %b %b %b%b" % (topic, token, escape(payload), eol))
            else:
                lines.append(b"MSG %b %b %b%b" % (topic, token, payload, eol))
        return b"".join(lines)

    def gap(self, pattern: bytes, first: int, last: int, count: int | None, reason: str) -> bytes:
        """See Encoder."""
        number = b"?" if count is None else b"%d" % count
        return b"GAP %b %d %d %b %b%b" % (pattern, first, last, number, reason.encode(), self._eol)

    def end(self, reason: str, next_offset: int) -> bytes:
        """See Encoder."""
        return b"END %b next=%d%b" % (reason.encode(), next_offset, self._eol)


def _control_line(flags: str, topic: bytes, offset: int, payload: bytes, headers: list[bytes], eol: bytes) -> bytes:
    if "e" in flags:
        return b"EOF %b %d%b" % (topic, offset, eol)
    return b"RESET %b %d %b%b" % (topic, offset, payload, eol)


class Raw:
    """Payloads, each with `tail` behind it; nothing else."""

    bare = True
    timeless = True

    def __init__(self, tail: bytes) -> None:
        self._tail = tail

    def messages(self, selection: Selection) -> bytes:
        """See Encoder."""
        if selection.batch.control:
            return b""
        return self.several((selection,))

    def several(self, selections: Sequence[Selection]) -> bytes:
        """See Encoder."""
        payloads = _joined([_payloads(selection) for selection in selections])
        if not self._tail:
            return b"".join(payloads)
        return self._tail.join([*payloads, b""])

    def again(self, selection: Selection, tries: int) -> bytes:
        """See Encoder.  There is no place for a token: members of a group do not take this format."""
        return self.messages(selection)

    def gap(self, pattern: bytes, first: int, last: int, count: int | None, reason: str) -> bytes:
        """See Encoder."""
        return b""

    def end(self, reason: str, next_offset: int) -> bytes:
        """See Encoder."""
        return b""


class Json:
    """An object a line."""

    bare = False
    timeless = False

    def __init__(self, eol: bytes) -> None:
        self._eol = eol.decode()

    def messages(self, selection: Selection) -> bytes:
        """See Encoder."""
        batch = selection.batch
        if batch.control:
            return b"".join([self._control(batch.flags, *row) for row in _rows(selection)])
        if "h" in batch.flags:
            return self.again(selection, 1)
        payloads = _payloads(selection)
        try:
            texts = map(encode_basestring_ascii, map(bytes.decode, payloads))
            form = f'","offset":%d,"time":"{batch.time_ns}","size":%d,"payload":%s}}{self._eol}'
            names = _heads(selection, lambda topic: '{"kind":"MSG","topic":"' + topic.decode())
            rows = map(form.__mod__, zip(selection.offsets(), map(len, payloads), texts, strict=True))
            return "".join(chain.from_iterable(zip(names, rows, strict=True))).encode()
        except UnicodeDecodeError:
            return self.again(selection, 1)

    def several(self, selections: Sequence[Selection]) -> bytes:
        """See Encoder."""
        return b"".join(map(self.messages, selections))

    def again(self, selection: Selection, tries: int) -> bytes:
        """See Encoder."""
        time_ns = selection.batch.time_ns
        return b"".join([self._one(time_ns, tries, *row) for row in _rows(selection)])

    def gap(self, pattern: bytes, first: int, last: int, count: int | None, reason: str) -> bytes:
        """See Encoder."""
        fields = {"kind": "GAP", "pattern": pattern.decode(), "from": first, "to": last, "count": count}
        return self._line({**fields, "reason": reason})

    def end(self, reason: str, next_offset: int) -> bytes:
        """See Encoder."""
        return self._line({"kind": "END", "reason": reason, "next": next_offset})

    def _one(self, time_ns: int, tries: int, topic: bytes, offset: int, payload: bytes, headers: list[bytes]) -> bytes:
        fields: dict[str, object] = {"kind": "MSG", "topic": topic.decode(), "offset": offset}
        if tries > 1:
            fields |= {"token": format_token((offset, tries)).decode(), "try": tries}
        fields |= {"time": str(time_ns), "size": len(payload)}
        try:
            fields["payload"] = payload.decode()
        except UnicodeDecodeError:
            fields["payload_b64"] = b64encode(payload).decode()
        if headers:
            names = [name.decode() for name in headers[::2]]
            fields["headers"] = dict(zip(names, [value.decode() for value in headers[1::2]], strict=True))
        return self._line(fields)

    def _control(self, flags: str, topic: bytes, offset: int, payload: bytes, headers: list[bytes]) -> bytes:
        fields: dict[str, object] = {"kind": "EOF" if "e" in flags else "RESET", "topic": topic.decode()}
        fields["offset"] = offset
        if "r" in flags:
            fields["count"] = int(payload)
        return self._line(fields)

    def _line(self, fields: dict[str, object]) -> bytes:
        return (dumps(fields, separators=(",", ":")) + self._eol).encode()


def bulk(data: bytes) -> bytes:
    """A RESP bulk string."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


class Msg:
    """`MSG topic offset time payload [name value …]`: a push a message (`kind` b">"), or an array (`kind` b"*")."""

    bare = False
    timeless = False

    def __init__(self, kind: bytes) -> None:
        self._kind = kind

    def messages(self, selection: Selection) -> bytes:
        """See Encoder."""
        batch = selection.batch
        if batch.control:
            return b"".join([self._control(batch.flags, *row) for row in _rows(selection)])
        return self.several((selection,))

    def several(self, selections: Sequence[Selection]) -> bytes:
        """See Encoder."""
        if any("h" in selection.batch.flags for selection in selections):
            return b"".join([self.again(selection, 1) for selection in selections])
        payloads = _joined([_payloads(selection) for selection in selections])
        try:
            bulks = list(map(_BULKS.__getitem__, map(len, payloads)))
        except IndexError:
            return b"".join([self.again(selection, 1) for selection in selections])
        start = b"\r\n%b5\r\n$3\r\nMSG\r\n" % self._kind
        # The time is a column of its own: in the suffix it would cost each batch a table of 1,000 tails, 57 µs.
        times = _joined([[b":%d" % selection.batch.time_ns] * selection.count for selection in selections])
        pieces = weave(
            *_opened(selections, lambda topic: b"%b%b:" % (start, bulk(topic)), b"\r\n"), times, bulks, payloads
        )
        pieces[0] = pieces[0][2:]
        pieces.append(b"\r\n")
        return b"".join(pieces)

    def again(self, selection: Selection, tries: int) -> bytes:
        """See Encoder."""
        time_ns = selection.batch.time_ns
        return b"".join([self._one(time_ns, tries, *row) for row in _rows(selection)])

    def gap(self, pattern: bytes, first: int, last: int, count: int | None, reason: str) -> bytes:
        """See Encoder.  An unknown count is a null, `$-1` where RESP3's `_` may not be."""
        null = b"_" if self._kind == b">" else b"$-1"
        number = null if count is None else b":%d" % count
        tail = b":%d\r\n:%d\r\n%b\r\n%b" % (first, last, number, bulk(reason.encode()))
        return b"%b6\r\n$3\r\nGAP\r\n%b%b" % (self._kind, bulk(pattern), tail)

    def end(self, reason: str, next_offset: int) -> bytes:
        """See Encoder."""
        return b"%b3\r\n$3\r\nEND\r\n%b:%d\r\n" % (self._kind, bulk(reason.encode()), next_offset)

    def _one(self, time_ns: int, tries: int, topic: bytes, offset: int, payload: bytes, headers: list[bytes]) -> bytes:
        token = bulk(format_token((offset, tries))) if tries > 1 else b":%d\r\n" % offset
        head = b"%b%d\r\n$3\r\nMSG\r\n%b" % (self._kind, 5 + len(headers), bulk(topic))
        return b"%b%b:%d\r\n%b" % (head, token, time_ns, b"".join(map(bulk, (payload, *headers))))

    def _control(self, flags: str, topic: bytes, offset: int, payload: bytes, headers: list[bytes]) -> bytes:
        if "e" in flags:
            return b"%b3\r\n$3\r\nEOF\r\n%b:%d\r\n" % (self._kind, bulk(topic), offset)
        return b"%b4\r\n$5\r\nRESET\r\n%b:%d\r\n:%d\r\n" % (self._kind, bulk(topic), offset, int(payload))


class BatchFrames(Msg):
    """`BATCH first last frame`: a stored record as it lies on disk; other events as pushes."""

    def __init__(self) -> None:
        super().__init__(b">")

    def messages(self, selection: Selection) -> bytes:
        """See Encoder."""
        return bytes(self.parts(selection))

    def parts(self, selection: Selection) -> bytes | Parts:
        """The same, not joined.

        A record of which the reader asked for some topics only, or has room for less than half, is framed anew: sent
        whole for each piece, a record larger than the outbox would be sent once a message.
        """
        batch = selection.batch
        if batch.control:
            # Ends of stream may be told from memory: there is no record then.
            return super().messages(selection)
        first, last = batch.first, batch.last
        if not selection.whole:
            first, last = selection.first, selection.last
            if selection.selector is not None or 2 * selection.count < batch.n:
                batch = reframe(selection)
        head = b">4\r\n$5\r\nBATCH\r\n:%d\r\n:%d\r\n$%d\r\n" % (first, last, len(batch.record))
        return Parts(head, batch.record, b"\r\n")

    def several(self, selections: Sequence[Selection]) -> bytes:
        """See Encoder."""
        return b"".join(map(self.messages, selections))


def parts_of(encoder: Encoder) -> Callable[[Selection], bytes | Parts]:
    """Its `messages` for one reader alone: what many get is joined once."""
    return encoder.parts if isinstance(encoder, BatchFrames) else encoder.messages


def encoder_for(name: str, eol: bytes, array: bool = False) -> Encoder:
    """The encoder of a format; `array`: elements of a RESP READ instead of pushes."""
    if name == "line":
        return Line(eol)
    if name == "json":
        return Json(eol)
    if name in ("raw", "bytes"):
        return Raw(b"\n" if name == "raw" else b"")
    if name == "batch" and not array:
        return BatchFrames()
    return Msg(b"*" if array else b">")
