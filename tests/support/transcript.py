r"""Transcripts of protocol.md: a parser, and a runner that speaks them to any server through a small driver.

    > PUB t hello          sent on connection 1, with LF            2> PUB t hello    the same on connection 2
    < :1                   expected on connection 1                 2< :2             on connection 2
    > "*1\r\n$4\r\n…"      in quotes: C escapes, no line end of its own
    < … {any} …            something within a line that differs from run to run
    (end of input)         half-close                               (closed)          the server has closed

Every fenced block with a `>` line is one transcript and begins with a fresh server; those below a block of TOML with
users, in the same section, with a server that knows these.

Invariants:
1. Nothing is skipped: a line of a transcript that is none of the above is an error, and so are bytes it did not expect.
2. Nothing is waited for by the clock: a driver says when no more can come.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

ROOT = Path(__file__).resolve().parents[2]
Action = Literal["send", "expect", "half-close", "closed"]

_STEP = re.compile(r"(\d?)(?:([<>])(?: (.*))?|\((end of input|closed)\))")
_ANY = "{any}"


@dataclass(frozen=True, slots=True)
class Step:
    """One line: what to do on which connection.  `data` is what is sent, `text` the line as it stands."""

    connection: int
    action: Action
    data: bytes
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Transcript:
    """A block; `name` is its section and the line it begins at."""

    name: str
    steps: tuple[Step, ...]
    users: str = ""


class Driver(Protocol):
    """Connections to one server, numbered from 1; opened when first used."""

    async def send(self, connection: int, data: bytes) -> None:
        """Send the bytes."""

    async def half_close(self, connection: int) -> None:
        """Say that no more comes."""

    async def receive(self, connection: int) -> bytes | None:
        """What came since: b"" when nothing comes any more as things are, None when the server has closed."""


class Mismatch(AssertionError):
    """The server said something else; the text shows where."""


def transcripts(text: str) -> list[Transcript]:
    """All transcripts of a Markdown text.

    Raises:
        ValueError: a line in a transcript is none of a transcript's.
    """
    found: list[Transcript] = []
    block: list[tuple[int, str]] | None = None
    section = users = ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            if block is not None and any(re.match(r"\d?>( |$)", one) for _, one in block):
                found.append(Transcript(f"{section}-{block[0][0]}", tuple(_step(*one) for one in block), users))
            elif block is not None and any(one.startswith("[user.") for _, one in block):
                users = "\n".join(one for _, one in block)
            block = [] if block is None else None
        elif block is not None:
            block.append((number, line))
        elif line.startswith("#"):
            users = "" if line.startswith("## ") else users
            section = re.sub(r"[^A-Za-z0-9]+", "-", line).strip("-")[:30]
    return found


def of_protocol() -> list[Transcript]:
    """The transcripts of protocol.md."""
    return transcripts((ROOT / "protocol.md").read_text())


def _step(number: int, line: str) -> Step:
    match = _STEP.fullmatch(line.rstrip("\r"))
    if match is None:
        raise ValueError(f"line {number} is not one of a transcript: {line!r}")
    connection = int(match[1] or 1)
    if match[4]:
        return Step(connection, "closed" if match[4] == "closed" else "half-close", b"", line, number)
    action: Action = "send" if match[2] == ">" else "expect"
    return Step(connection, action, _bytes(match[3] or ""), line, number)


def _bytes(text: str) -> bytes:
    if len(text) > 1 and text[0] == text[-1] == '"':
        data = ast.literal_eval("b" + text)
        assert isinstance(data, bytes)
        return data
    return text.encode() + b"\n"


def pattern(expected: bytes) -> re.Pattern[bytes]:
    """What matches the expected bytes, each `{any}` standing for something within a line."""
    return re.compile(rb"[^\r\n]*?".join(map(re.escape, expected.split(_ANY.encode()))))


@dataclass(slots=True)
class Runner:
    """Speaks one transcript."""

    driver: Driver
    transcript: Transcript
    unread: dict[int, bytes] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)
    resp: dict[int, bool] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)

    async def run(self) -> None:
        """All of it.

        Raises:
            Mismatch: something else came, or something more.
        """
        for step in self.transcript.steps:
            if step.action == "send":
                self.resp.setdefault(step.connection, step.data[:1] == b"*")
                await self.driver.send(step.connection, step.data)
            elif step.action == "half-close":
                self.ended.add(step.connection)
                await self.driver.half_close(step.connection)
            elif step.action == "expect":
                await self._expect(step, step.data)
            else:
                await self._expect_closed(step)
        await self._expect_no_more()

    async def _expect(self, step: Step, expected: bytes) -> None:
        wanted = pattern(expected)
        lines = expected.count(b"\n")
        while True:
            unread = self.unread.get(step.connection, b"")
            match = wanted.match(unread)
            if match is not None:
                self.unread[step.connection] = unread[match.end() :]
                return
            # With as many lines as were expected it is decided.
            if (lines and unread.count(b"\n") >= lines) or not await self._more(step.connection):
                raise Mismatch(self._story(step, expected, unread))

    async def _expect_closed(self, step: Step) -> None:
        while await self._more(step.connection):
            pass
        unread = self.unread.get(step.connection, b"")
        if unread or step.connection not in self.closed:
            raise Mismatch(self._story(step, b"", unread))

    async def _expect_no_more(self) -> None:
        """Ask each open connection for a PONG: all that comes before it is too much."""
        last = self.transcript.steps[-1]
        for connection in sorted(self.resp):
            step = Step(connection, "expect", b"", "(the end of the transcript)", last.line + 1)
            if connection in self.closed or connection in self.ended:
                if unread := self.unread.get(connection, b""):
                    raise Mismatch(self._story(step, b"", unread))
                continue
            resp = self.resp[connection]
            await self.driver.send(connection, b"*2\r\n$4\r\nPING\r\n$3\r\nend\r\n" if resp else b"PING end\n")
            await self._expect(step, b"$3\r\nend\r\n" if resp else b"end\n")
            if unread := self.unread.get(connection, b""):
                raise Mismatch(self._story(step, b"", unread))

    async def _more(self, connection: int) -> bool:
        """Take in what came; False when nothing does."""
        data = None if connection in self.closed else await self.driver.receive(connection)
        if data is None:
            self.closed.add(connection)
            return False
        self.unread[connection] = self.unread.get(connection, b"") + data
        return bool(data)

    def _story(self, failed: Step, expected: bytes, unread: bytes) -> str:
        """The transcript up to the failure, what was expected there and what came."""
        lines = [f"protocol.md, line {failed.line}, differs ({self.transcript.name}):", ""]
        lines += [f"    {step.text}" for step in self.transcript.steps if step.line < failed.line]
        lines += [f"  ! {failed.text}", "", f"expected {_shown(expected)}", f"received {_shown(unread)}"]
        if failed.connection in self.closed:
            lines.append("and the connection was closed")
        elif failed.action == "closed":
            lines.append("and the connection is open")
        return "\n".join(lines)


def _shown(data: bytes) -> str:
    return "nothing" if not data else repr(data.decode("utf-8", "backslashreplace"))
