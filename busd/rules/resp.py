r"""RESP commands: bytes as they come from a socket in, requests out.

A command is an array of bulk strings, `*2\r\n$4\r\nPING\r\n$2\r\nhi\r\n`.  What its arguments mean is decided by
`build_request` and by nothing else.  Numbers are plain decimals, so every command has exactly one spelling: the
shortcuts (`resp_runs`) lean on that, they take bytes apart and prove that they are that spelling.

Knows no socket and no time.  Invariants:
1. How the bytes are cut into reads changes nothing but when a request comes out.
2. Of an unfinished command no more is held than it may have, and a read; what is too big is dropped as it comes.
3. Nothing raises.  Where the next command cannot be found a fatal Bad comes, and after it nothing.
4. The work for a command is proportional to its length, however small the pieces it comes in.
"""

from __future__ import annotations

import re

from busd.rules.resp_headers import publishes_headed
from busd.rules.resp_runs import alone, publishes, whole_arguments
from busd.rules.runs import add
from busd.words.commands import build_request
from busd.words.errors import BusError, quoted
from busd.words.requests import Bad, Request
from busd.words.settings import Limits

CRLF = b"\r\n"
# One MPUB of empty payloads and more costs 5 MB of objects; a mistaken count costs no more than that.
MAX_ARGUMENTS = 100_000
# With fewer arguments to come, one by one is as quick as many at once.
_FEW_ARGUMENTS = 16
# No number in a head may be larger: who sends that does not mean it, and skipping it would take minutes.
MAX_NUMBER = 1 << 30
# A shortcut looks at all the rest of a read.  When it takes less than this part of it, the pass was hardly worth it;
# when it takes more each time, all passes together cost eight times the first at most ...
_WORTH_PART = 8
# ... and after this many poor ones the rest is parsed plainly.
_MAX_FAILURES = 4
# What an argument takes beside its bytes: the object and its place in the list.
_OBJECT_BYTES = 48

_ARRAY = re.compile(rb"\*(0|[1-9][0-9]{0,9})\r\n")
_BULK = re.compile(rb"\$(0|[1-9][0-9]{0,9})\r\n")
_HEAD_BEGUN = re.compile(rb"[*$](?:(?:0|[1-9][0-9]{0,9})(?:\r\n?)?)?")


class RespDecoder:
    """The requests of one RESP connection.  `clean`: what came has ended with a command, so nothing is held."""

    def __init__(self, limits: Limits) -> None:
        self.clean = True
        self._limits = limits
        self._argument_limit = max(limits.payload_bytes, limits.header_bytes) + limits.line_bytes
        # A payload that is allowed must fit into a command, whatever command_bytes says.
        self._command_limit = max(limits.command_bytes, self._argument_limit + limits.header_bytes)
        # Bytes not taken yet, and how many there must be before it is worth looking at them again.
        self._held = bytearray()
        self._needed = 0
        # The command that is being read: arguments to come and there in all, and the bytes of those so far.
        self._left = 0
        self._count = 0
        self._bytes = 0
        self._arguments: list[bytes] = []
        # It is too big: its arguments are dropped.  How much of one is still to be dropped; None between two.
        self._too_big = False
        self._drop_bytes: int | None = None
        self._fatal = False

    @property
    def unfinished(self) -> bool:
        """True while a command was begun and is not whole."""
        return not self._fatal and (self._left > 0 or bool(self._held))

    @property
    def held_bytes(self) -> int:
        """Memory that the unfinished command takes, about."""
        return len(self._held) + self._bytes * (not self._too_big) + _OBJECT_BYTES * len(self._arguments)

    def feed(self, data: bytes) -> list[Request]:
        """Every request that became whole with `data`, in order; adjacent messages as one run.

        Errors are Bad requests in their place; after a fatal one nothing comes any more.  Never raises.
        """
        if self._fatal:
            return []
        if self.clean and (run := alone(data, self._limits)) is not None:
            return [run]
        self.clean = False
        if self._held:
            if len(self._held) + len(data) < self._needed:
                self._held += data
                return []
            data = b"".join((self._held, data))
            # Not clear(): that may keep the memory.
            self._held = bytearray()
        requests: list[Request] = []
        self._needed = 0
        try:
            at = self._parse(data, requests)
        except BusError as error:
            self._fatal = True
            self._arguments = []
            requests.append(Bad(error, eol=CRLF))
        else:
            if at < len(data):
                self._held += memoryview(data)[at:]
            self.clean = at == len(data) and not self._left
        return requests

    def end(self) -> Bad | None:
        """The input has ended: the answer to a command that is not whole, which is not carried out."""
        if not self.unfinished:
            return None
        self._fatal = True
        return Bad(BusError("CUT", "the input ended within a command; it was not carried out"), eol=CRLF)

    def _parse(self, data: bytes, requests: list[Request]) -> int:
        """Take what is whole, add its requests; where it stopped.  Raises BusError SYNTAX."""
        at = 0
        failures = 0
        while at < len(data):
            before = at
            if self._left == 0:
                if failures < _MAX_FAILURES:
                    run, at, passed = publishes(data, at, self._limits)
                    if run is None and not passed:
                        run, at, passed = publishes_headed(data, at, self._limits)
                    failures += passed and (at - before) * _WORTH_PART < len(data) - before
                    if run is not None:
                        add(requests, run)
                        continue
                at = self._open(data, at)
            elif self._left > _FEW_ARGUMENTS and failures < _MAX_FAILURES and not self._too_big:
                at = self._many_arguments(data, at)
                failures += (at - before) * _WORTH_PART < len(data) - before
                before = -1
            if self._left:
                at = self._drop(data, at) if self._too_big else self._some_arguments(data, at)
                if self._left == 0:
                    self._close(requests)
            if at == before:
                break
        return at

    def _open(self, data: bytes, at: int) -> int:
        """Begin a command at its head; where its arguments begin, or `at` when the head is not whole."""
        head = _ARRAY.match(data, at)
        if head is None:
            # An empty line between commands: Redis takes it, and some clients send one after a payload.
            if data.startswith(CRLF, at):
                return at + 2
            if data[at:] != b"\r":
                _refuse(data, at, b"*", "the number of arguments")
            return at
        self._count = self._left = _number(head, "the number of arguments")
        self._bytes = 0
        self._too_big = self._left > MAX_ARGUMENTS
        return head.end()

    def _some_arguments(self, data: bytes, at: int) -> int:
        """Take arguments up to the end of the command or of what is whole; where it stopped."""
        # Names of its own for what the loop touches: a third less time than through self.
        match, append = _BULK.match, self._arguments.append
        one_limit, all_limit = self._argument_limit, self._command_limit
        taken, total = 0, self._bytes
        for _ in range(min(self._left, _FEW_ARGUMENTS)):
            head = match(data, at)
            if head is None:
                _refuse(data, at, b"$", "the length of an argument")
                break
            start = head.end()
            end = start + int(head[1])
            if end - start > one_limit or total + end - start > all_limit:
                self._too_big = True
                self._arguments = []
                break
            if data[end : end + 2] != CRLF:
                if len(data) >= end + 2:
                    raise _no_end(data, end)
                self._needed = end + 2 - at
                break
            append(data[start:end])
            total += end - start
            taken += 1
            at = end + 2
        self._left -= taken
        self._bytes = total
        return self._drop(data, at) if self._too_big else at

    def _many_arguments(self, data: bytes, at: int) -> int:
        """Take those of many arguments that are surely whole; where the next begins."""
        arguments, after = whole_arguments(data, at, self._left, self._argument_limit)
        self._arguments += arguments
        self._left -= len(arguments)
        # Whether they are too much for a command is seen at the next one: the last there is is never among them.
        self._bytes += sum(map(len, arguments))
        return after

    def _drop(self, data: bytes, at: int) -> int:
        """Pass over one argument of a command that is too big, or as much of it as there is; where it stopped."""
        if self._drop_bytes is None:
            head = _BULK.match(data, at)
            if head is None:
                _refuse(data, at, b"$", "the length of an argument")
                return at
            self._drop_bytes = _number(head, "the length of an argument")
            self._bytes += self._drop_bytes
            at = head.end()
        there = min(self._drop_bytes, len(data) - at)
        self._drop_bytes -= there
        at += there
        if self._drop_bytes == 0 and len(data) - at >= 2:
            if not data.startswith(CRLF, at):
                raise _no_end(data, at)
            at += 2
            self._drop_bytes = None
            self._left -= 1
        return at

    def _close(self, requests: list[Request]) -> None:
        """The command is whole: add its request, or the error it deserves."""
        if self._too_big:
            there = f"a command of {self._count} arguments and {self._bytes} bytes"
            limits = f"{MAX_ARGUMENTS} arguments, {self._argument_limit} bytes for one, {self._command_limit} for all"
            requests.append(Bad(BusError("TOOBIG", f"{there}; the limits are {limits}"), eol=CRLF))
        else:
            verb, *rest = self._arguments
            add(requests, build_request(verb, rest, self._limits))
        self._arguments = []
        self._count = self._bytes = 0
        self._too_big = False


def _number(head: re.Match[bytes], what: str) -> int:
    number = int(head[1])
    if number > MAX_NUMBER:
        raise _syntax(head[0], f"{what}, {MAX_NUMBER} at most")
    return number


def _refuse(data: bytes, at: int, kind: bytes, what: str) -> None:
    """Raises BusError SYNTAX unless what stands at `at` may still become a head.

    Names the first wrong byte and nothing behind it: the same text however the bytes were cut.
    """
    begun = _HEAD_BEGUN.match(data, at)
    wrong = at if begun is None or not data.startswith(kind, at) else begun.end()
    if wrong < len(data):
        raise _syntax(data[at : wrong + 1], f"{kind.decode()}, {what} in decimal, CR LF")


def _no_end(data: bytes, end: int) -> BusError:
    return _syntax(data[end : end + 2], "CR LF behind an argument")


def _syntax(there: bytes, expected: str) -> BusError:
    return BusError("SYNTAX", f"{quoted(there)} stands where there should be {expected}")
