r"""Inline commands: bytes as they come from a socket in, requests out.

A line ends in LF; one CR before it belongs to the line end.  What a line means is decided by `build_line_request`
and by nothing else; the shortcuts give what that would give, or leave it to it.

Knows no socket and no time.  Invariants:
1. How the bytes are cut into reads changes nothing but when a request comes out.
2. Of an unfinished line no more is held than it may have, and a read; what is too long is dropped as it comes.
3. Nothing raises; every line that is not empty gives one request or one message of a run, in order.
4. The work for a line is proportional to its length, however small the pieces it comes in.
"""

from __future__ import annotations

import re
from functools import lru_cache, partial
from itertools import repeat

from busd.rules.inline_headers import FEW_LINES, LINE_BYTES, VERB, decode_headed
from busd.rules.inline_long import PUB_HEAD_BYTES, between_ends, decode_long
from busd.rules.runs import add
from busd.words.commands import COMMANDS, build_line_request, known_topic, known_topics
from busd.words.errors import BusError
from busd.words.requests import Bad, Item, Publish, Request
from busd.words.settings import Limits
from busd.words.topics import MAX_TOPIC_BYTES

LF, CRLF = b"\n", b"\r\n"
# An escape writes one byte as five at most: \0nnn.
ESCAPED_BYTES = 5
# Of these the rest of the line is a payload.
_PAYLOAD_VERB = re.compile(
    rb"[ \t]*(%b)[ \t]" % "|".join(verb for verb, command in COMMANDS.items() if command.build_line).encode(), re.I
)
_BEGUN = re.compile(rb"[^ \t\r]")
# Fewer lines than FEW_LINES in so many bytes are long: finding each LF costs less then than splitting, which looks at
# each byte by itself (64 KiB: 1 us instead of 15).
_LOOK_BYTES = 16_384
# With no more lines than this in so many bytes a split looks longer at the bytes than `readlines` takes to find each
# LF, and a slice to cut off what stands around the payload: 1,000 bytes a line 300 ns instead of 200, at 600 the same.
_LONG_LINES = 20


class InlineDecoder:
    """The requests of one inline connection.  `clean`: what came has ended with a line, so nothing is held."""

    def __init__(self, limits: Limits) -> None:
        self.clean = True
        self._limits = limits
        self._held = bytearray()
        # Of a line that is being dropped: bytes so far, how many it could have had, whether it names a command, and
        # whether the last is a CR.
        self._dropped_bytes = 0
        self._allowed_bytes = 0
        self._dropped_unknown = False
        self._dropped_cr = False

    @property
    def unfinished(self) -> bool:
        """True while a line was begun and has not ended; blanks begin nothing."""
        return self._dropped_bytes > 0 or _BEGUN.search(self._held) is not None

    @property
    def held_bytes(self) -> int:
        """Bytes of the unfinished line that are kept."""
        return len(self._held)

    def feed(self, data: bytes) -> list[Request]:
        """Every request that became whole with `data`, in order; adjacent messages with the same eol as one run.

        Errors are Bad requests in their place.  Never raises.
        """
        if self.clean and data.find(LF) + 1 == len(data) and (run := _lone(data, self._limits)) is not None:
            return [run]
        cut = data.rfind(LF) + 1
        if not cut:
            self._hold(data)
            return []
        requests: list[Request] = []
        start = 0
        if self._dropped_bytes:
            start = data.index(LF) + 1
            requests.append(self._end_of_dropped(data[: start - 1]))
        if start < cut:
            chunk = data if self.clean and cut == len(data) else b"".join((self._held, memoryview(data)[start:cut]))
            self._held.clear()
            _decode(chunk, self._limits, requests)
        self.clean = True
        if cut < len(data):
            self._hold(data[cut:])
        return requests

    def end(self) -> Bad | None:
        """The input has ended: the answer to a line that has not, which is not carried out."""
        if not self.unfinished:
            return None
        self._held.clear()
        self._dropped_bytes = 0
        self.clean = True
        return Bad(BusError("CUT", "the input ended within a line; it was not carried out"))

    def _hold(self, piece: bytes) -> None:
        """Keep a piece without LF, or drop it when the line has become too long."""
        self.clean = False
        if self._dropped_bytes:
            self._dropped_bytes += len(piece)
            self._dropped_cr = piece.endswith(b"\r") if piece else self._dropped_cr
            return
        self._held += piece
        # One more than allowed may be the CR of the line end.
        if len(self._held) > self._limits.line_bytes + 1:
            self._allowed_bytes = line_bytes_allowed(self._held, self._limits)
            if len(self._held) > self._allowed_bytes + 1:
                self._dropped_bytes = len(self._held)
                self._dropped_cr = self._held.endswith(b"\r")
                self._dropped_unknown = names_no_command(self._held, self._limits)
                # Not clear(): that may keep the memory.
                self._held = bytearray()

    def _end_of_dropped(self, rest: bytes) -> Bad:
        self._hold(rest)
        size = self._dropped_bytes - self._dropped_cr
        self._dropped_bytes = 0
        return _too_long(size, self._allowed_bytes, CRLF if self._dropped_cr else LF, self._dropped_unknown)


def line_bytes_allowed(line: bytes | bytearray, limits: Limits) -> int:
    """How long a line may be that begins so; only its first `limits.line_bytes` bytes are looked at."""
    match = _PAYLOAD_VERB.match(line, 0, limits.line_bytes)
    if match is None:
        return limits.line_bytes
    payload_bytes = limits.payload_bytes * (ESCAPED_BYTES if match[1].upper() == b"EPUB" else 1)
    # Every header also takes an equals sign and a blank.
    headers_bytes = limits.header_bytes + 2 * limits.headers if match[1].upper() == b"HPUB" else 0
    return limits.line_bytes + headers_bytes + payload_bytes


def names_no_command(line: bytes | bytearray, limits: Limits) -> bool:
    """True when the first word of a line that is too long is no command, as in a long HTTP request."""
    word = bytes(line[: limits.line_bytes]).replace(b"\t", b" ").lstrip(b" ").partition(b" ")[0]
    return word != b"" and word.upper().decode("utf-8", "replace") not in COMMANDS


def decode_plainly(chunk: bytes, limits: Limits, requests: list[Request]) -> None:
    """Add the requests of whole lines, line by line: the grammar itself.  `chunk` ends in LF."""
    for line in chunk[:-1].split(LF):
        eol = LF
        if line.endswith(b"\r"):
            line, eol = line[:-1], CRLF
        if len(line) > limits.line_bytes and len(line) > (allowed := line_bytes_allowed(line, limits)):
            requests.append(_too_long(len(line), allowed, eol, names_no_command(line, limits)))
        elif (request := build_line_request(line, eol, limits)) is not None:
            add(requests, request)


def _too_long(size: int, allowed: int, eol: bytes, unknown: bool) -> Bad:
    return Bad(BusError("TOOBIG", f"a line of {size} bytes; the limit for it is {allowed}"), unknown, eol=eol)


def _lone(line: bytes, limits: Limits) -> Publish | None:
    """The run of one line, when that is `PUB topic payload`; None of any other.  `line` ends in its only LF.

    A client that waits for each answer sends nothing else; the grammar takes three times as long.
    """
    words = line.split(b" ", 2)
    # None that is so short may be too long, whatever its verb.
    if len(words) < 3 or len(line) > limits.line_bytes or words[0].upper() != b"PUB":
        return None
    eol = CRLF if line.endswith(CRLF) else LF
    payload = words[2][: -len(eol)]
    size_bytes = len(payload)
    if size_bytes > limits.payload_bytes:
        return None
    try:
        return Publish(known_topic(words[1]), [payload], size_bytes, eol=eol)
    except BusError:
        return None


def _decode(chunk: bytes, limits: Limits, requests: list[Request]) -> None:
    """Add the requests of whole lines."""
    sample = chunk.count(LF, 0, _LOOK_BYTES)
    few = sample < FEW_LINES
    long = sample <= _LONG_LINES and len(chunk) > _LOOK_BYTES
    # What all lines should end in, for a shortcut.
    eol = CRLF if chunk.endswith(CRLF) else LF
    if (
        (few and len(chunk) <= _LOOK_BYTES)
        or limits.line_bytes < LINE_BYTES
        or (eol == LF and b"\r" in chunk and CRLF in chunk)
    ):
        decode_plainly(chunk, limits, requests)
    elif few:
        decode_long(chunk, eol, limits, requests, decode_plainly)
    elif (run := _one_topic(chunk, eol, limits, long)) is not None:
        add(requests, run)
    elif _headed(chunk):
        decode_headed(chunk, eol, limits, requests, decode_plainly, partial(_unheaded, eol=eol, long=long))
    else:
        _mixed(chunk, eol, limits, requests, long)


# Below, joining the parts and looking for an LF takes a third of counting all LFs (11 ns a message instead of 33), and
# rsplit: split with a separator of 6 bytes or more prepares a two-way search anew for each part, 105 ns a
# message of 100 bytes instead of 44.


def _one_topic(chunk: bytes, eol: bytes, limits: Limits, long: bool) -> Publish | None:
    """The run of a chunk in which all lines are `PUB topic payload` with the same topic; None of any other.

    Proof: where no part holds an LF all LFs are in separators but the last, so every line begins as the first does and
    ends as the last does.
    """
    space = chunk.find(b" ", 4, PUB_HEAD_BYTES)
    head = chunk[: space + 1]
    if chunk[:4].upper() != b"PUB " or not chunk.startswith(head, chunk.rfind(LF, 0, -1) + 1):
        return None
    payloads = between_ends(chunk, head, eol) if long else chunk.rsplit(eol + head)
    if payloads is None:
        return None
    if not long:
        payloads[0] = payloads[0][len(head) :]
        payloads[-1] = payloads[-1][: -len(eol)]
        if LF in b"".join(payloads):
            return None
    try:
        topic = known_topic(head[4:-1])
    except BusError:
        return None
    if len(chunk) > limits.payload_bytes and max(map(len, payloads)) > limits.payload_bytes:
        return None
    return Publish(topic, list[Item](payloads), len(chunk), eol=eol)


@lru_cache(maxsize=64)
def _between(verb: bytes, eol: bytes) -> re.Pattern[bytes]:
    """From the end of a line to where the payload of the next one begins, a `verb topic payload` line; splits by it."""
    # What stands behind the topic: a blank, or the end of a line without a payload.  Anything else, and a name too long
    # for a topic, is left to the grammar itself.
    return re.compile(rb"%b%b([^ \r\n]{0,%d}+)(?: |(?=%b))" % (eol, verb, MAX_TOPIC_BYTES, eol))


def _mixed(chunk: bytes, eol: bytes, limits: Limits, requests: list[Request], long: bool) -> None:
    """Add the requests of whole lines, most of them perhaps `PUB topic payload`, with any topics.

    A payload that holds no LF is the rest of one PUB line; one that does has other lines behind it.
    """
    verb = chunk[:4]
    if verb.upper() != b"PUB ":
        verb = b"PUB " if b"\nPUB " in chunk else b"pub "
    if long and (rests := between_ends(chunk, verb, eol)) is not None:
        topics, blanks, payloads = map(list, zip(*map(bytes.partition, rests, repeat(b" ")), strict=True))
        if b"" not in blanks:
            _publishes(topics, payloads, verb, eol, limits, requests, len(chunk))
            return
    # One pass in C: 130 ns a message of 100 bytes, where splitting and then `partition` of each part take 230.
    parts, lines_bytes = _between(verb, eol).split(chunk), len(chunk)
    parts[-1] = parts[-1][: -len(eol)]
    topics, payloads = parts[1::2], parts[2::2]
    topic, blank, payload = parts[0][len(verb) :].partition(b" ")
    if blank and parts[0].startswith(verb) and LF not in parts[0]:
        topics.insert(0, topic)
        payloads.insert(0, payload)
    else:
        _others(parts[0] + eol, eol, limits, requests)
        lines_bytes -= len(parts[0] + eol)
    start = 0
    # The number 10, not the bytes: 33 ns a payload instead of 160.
    odd = [index for index, payload in enumerate(payloads) if LF[0] in payload] if LF in b"".join(payloads) else []
    for index in odd:
        _publishes(topics[start:index], payloads[start:index], verb, eol, limits, requests)
        lines = _spelled(topics[index : index + 1], payloads[index : index + 1], verb, eol)
        _others(lines, eol, limits, requests)
        start = index + 1
    if start:
        topics, payloads, lines_bytes = topics[start:], payloads[start:], 0
    _publishes(topics, payloads, verb, eol, limits, requests, lines_bytes)


def _spelled(topics: list[bytes], payloads: list[bytes], verb: bytes, eol: bytes) -> bytes:
    """The lines again."""
    return b"".join(
        [b"%b%b %b%b" % (verb, topic, payload, eol) for topic, payload in zip(topics, payloads, strict=True)]
    )


def _headed(lines: bytes) -> bool:
    """Whether most of many lines may be HPUB lines."""
    verb = lines[: len(VERB)].upper()
    return verb == VERB or (not verb.startswith(b"PUB ") and LF + VERB in lines and b"\nPUB " not in lines)


def _unheaded(lines: bytes, limits: Limits, requests: list[Request], eol: bytes, long: bool) -> None:
    """Add the requests of lines that stand among HPUB lines."""
    if lines.count(LF) < FEW_LINES:
        decode_plainly(lines, limits, requests)
    else:
        _mixed(lines, eol, limits, requests, long)


def _others(lines: bytes, eol: bytes, limits: Limits, requests: list[Request]) -> None:
    """Add the requests of a line, perhaps PUB, and of those behind it, which are no PUB lines that a pattern takes."""
    end = lines.index(LF) + 1
    if lines.count(LF, end) >= FEW_LINES and _headed(lines[end:]):
        decode_plainly(lines[:end], limits, requests)
        decode_headed(lines[end:], eol, limits, requests, decode_plainly, decode_plainly)
    else:
        decode_plainly(lines, limits, requests)


def _publishes(
    topics: list[bytes],
    payloads: list[bytes],
    verb: bytes,
    eol: bytes,
    limits: Limits,
    requests: list[Request],
    lines_bytes: int = 0,
) -> None:
    """Add what PUB lines ask, given in columns, which are kept; halved around those that are errors.

    `lines_bytes`: what those lines are together, where it is known.
    """
    if len(topics) < FEW_LINES:
        if topics:
            decode_plainly(_spelled(topics, payloads, verb, eol), limits, requests)
        return
    # With the topics: what waits and what a batch takes is bounded in bytes, and payloads may be empty.
    if lines_bytes:
        size_bytes = lines_bytes - len(topics) * len(verb)
    else:
        size_bytes = sum(map(len, payloads)) + sum(map(len, topics)) + len(topics)
    try:
        names = known_topics(topics)
        if size_bytes > limits.payload_bytes and max(map(len, payloads)) > limits.payload_bytes:
            raise BusError("TOOBIG", "one of them is")
    except BusError:
        half = len(topics) // 2
        _publishes(topics[:half], payloads[:half], verb, eol, limits, requests)
        _publishes(topics[half:], payloads[half:], verb, eol, limits, requests)
        return
    add(requests, Publish(names, list[Item](payloads), size_bytes, eol=eol))
