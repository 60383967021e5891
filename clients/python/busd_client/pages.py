"""One READ that may take several answers: a RESP answer holds about 1 MiB, `END limit` says where to go on.

So does `END closed` of a server that stops.  Pure; `now_ns` (monotonic) is an argument.  Invariants:
1. A read is finite: what is published while it runs is not chased (the end is fixed when the second page is asked for).
2. With `last`, the result is the last n of each topic, also when it took several pages.
3. What is given as the end is one: not that the server stopped, or that the right to read was taken away.
"""

from __future__ import annotations

from collections.abc import Iterator

from busd_client import wire
from busd_client.events import End, Message, ReadResult

_BEYOND = (1 << 63) - 1


class Pages:
    """The commands of one read and what their answers mean: send `command`, give its reply to `page`, until None."""

    def __init__(
        self,
        patterns: str,
        start: wire.Position | None = None,
        last: int | None = None,
        limit: int | None = None,
        within: wire.Duration | None = None,
        group: str | None = None,
        now_ns: int = 0,
    ) -> None:
        self._patterns = patterns
        self._group = group
        self._start = start
        self._last = last
        self._left = limit
        self._deadline_ns = None if within is None else now_ns + wire.duration_ns(within)
        self._found = False
        self._stop = _BEYOND
        self.command: bytes | None = wire.read(patterns, start, last, limit, within, group)
        self.needs_end = False

    def end_at(self, reply: wire.Reply) -> None:
        """The answer to `HELLO 3`, to be asked for once when `needs_end` is set: the read ends there.

        Raises:
            BusdError: see wire.check_hello.
        """
        self._stop = int(wire.check_hello(reply).get("next", _BEYOND))
        self.needs_end = False

    def page(self, reply: wire.Reply, now_ns: int = 0) -> ReadResult:
        """The messages of one answer; `command` is the next one to send then, or None.

        Raises:
            BusdError: the server's, or PROTO; DENIED when it may not be read on.
        """
        self.command = None
        result = ReadResult()
        for words in wire.check_done(reply):
            result.add(wire.event(words))
        wire.check_end(End(result.reason, result.next))
        beyond = len(result) > 0 and result[-1].offset >= self._stop
        if beyond:
            kept = [message for message in result if message.offset < self._stop]
            result[:] = kept
        if self._left is not None:
            self._left -= len(result)
        self._found = self._found or len(result) > 0
        if result.reason not in ("limit", "closed"):
            return result
        if self._left == 0:
            result.reason = "limit"
        elif beyond or result.next >= self._stop:
            result.next, result.reason = self._stop, "end"
        elif result.reason == "closed" and not self._found:
            self._begin_again(result.next, now_ns)
        else:
            self.needs_end = self._stop == _BEYOND
            self.command = wire.read(self._patterns, result.next, limit=self._left, group=self._group)
        return result

    def _begin_again(self, following: int, now_ns: int) -> None:
        """The server stopped before it gave a message: the next one is waited for as long as is left."""
        # The last n of a topic may lie below what was looked at.
        start = following if self._last is None else self._start
        left_s = None if self._deadline_ns is None else max(0, self._deadline_ns - now_ns) / 1_000_000_000
        self.command = wire.read(self._patterns, start, self._last, self._left, left_s, self._group)

    def join(self, pages: Iterator[ReadResult]) -> ReadResult:
        """All pages as one result."""
        whole = ReadResult()
        count = 0
        for page in pages:
            count += 1
            whole += page
            whole.gaps += page.gaps
            whole.resets += page.resets
            whole.ends += page.ends
            whole.next, whole.reason = page.next, page.reason
        if self._last is not None and count > 1:
            # The pages behind the first were read FROM and hold more than the last n of a topic.
            whole[:] = last_of_each(whole, self._last)
        return whole


def last_of_each(messages: list[Message], count: int) -> list[Message]:
    """The last `count` of each topic, in order."""
    seen: dict[str, int] = {}
    kept = []
    for message in reversed(messages):
        number = seen.get(message.topic, 0)
        if number < count:
            kept.append(message)
        seen[message.topic] = number + 1
    kept.reverse()
    return kept
