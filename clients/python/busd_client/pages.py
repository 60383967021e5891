"""One READ that may take several answers: a RESP answer holds about 1 MiB, `END limit` says where to go on.

Pure.  Invariants:
1. A read is finite: what is published while it runs is not chased (the end is fixed when the second page is asked for).
2. With `last`, the result is the last n of each topic, also when it took several pages.
"""

from __future__ import annotations

from collections.abc import Iterator

from busd_client import wire
from busd_client.events import Message, ReadResult

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
    ) -> None:
        self._patterns = patterns
        self._group = group
        self._last = last
        self._left = limit
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

    def page(self, reply: wire.Reply) -> ReadResult:
        """The messages of one answer; `command` is the next one to send then, or None.

        Raises:
            BusdError: the server's, or PROTO.
        """
        self.command = None
        result = ReadResult()
        for words in wire.check_done(reply):
            result.add(wire.event(words))
        beyond = len(result) > 0 and result[-1].offset >= self._stop
        if beyond:
            kept = [message for message in result if message.offset < self._stop]
            result[:] = kept
        if self._left is not None:
            self._left -= len(result)
        if result.reason != "limit" or self._left == 0:
            return result
        if beyond or result.next >= self._stop:
            result.next, result.reason = self._stop, "end"
            return result
        self.needs_end = self._stop == _BEYOND
        self.command = wire.read(self._patterns, result.next, limit=self._left, group=self._group)
        return result

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
