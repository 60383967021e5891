"""What a client of asyncio asks about topics, groups and the server: one question, one answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from busd_client import wire


class Managing:
    """The questions; how they reach the server is up to the Client that inherits them."""

    async def _ask(self, data: bytes, again: float = math.inf) -> wire.Reply:
        """The reply to one command.  `again`: how often to send it again after a lost connection; True is once."""
        raise AssertionError("a Client has its own")

    async def reset(self, patterns: str | Sequence[str]) -> int:
        """Remove all messages so far of these topics; returns how many.  Raises as `publish`."""
        return wire.check_integer(await self._ask(wire.command("RESET", wire.patterns_text(patterns)), 0))

    async def topics(self, patterns: str | Sequence[str] = ">") -> list[dict[str, str | int]]:
        """Topics with `topic`, `messages`, `last` and `state`, sorted."""
        return wire.table(await self._ask(wire.command("TOPICS", wire.patterns_text(patterns))))

    async def groups(self, patterns: str | Sequence[str] = ">") -> list[dict[str, str | int]]:
        """Groups whose names match, with what GROUPS tells of them; `lag` is `?` where nobody knows it."""
        return wire.table(await self._ask(wire.command("GROUPS", wire.patterns_text(patterns))), "group")

    async def seek(self, group: str, position: wire.Position) -> int:
        """Have a group go on at a position; returns its offset.  What members hold is stale.  Raises as `publish`."""
        return wire.sought(await self._ask(wire.command("SEEK", group, position), 0))

    async def forget(self, group: str) -> None:
        """Delete a group's place.  Raises BusdError GROUP while it has members."""
        await self._ask(wire.command("FORGET", group), 0)

    async def info(self, section: str = "") -> dict[str, str | int]:
        """How the server is: `server`, `log`, `stores` or `clients`, or all of it."""
        return wire.pairs(await self._ask(wire.command("INFO", *([section] if section else []))))

    async def ping(self) -> None:
        """Returns when the server answered."""
        await self._ask(wire.command("PING"))
