"""Which subscribers a topic has: a trie of patterns, and the matcher of one subscription.

Looking a topic up costs its own tokens, not the number of patterns, and nothing the second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from busd.words.topics import is_literal, matches

V = TypeVar("V")
# Whether a reader, or whoever asks, means this topic.
Wanted = Callable[[bytes], bool]
# A cached topic costs about 150 bytes; beyond this many the cache starts again rather than grow.
_CACHE = 65_536


def any_topic(topic: bytes) -> bool:
    """A Wanted that means every topic, the system's own included."""
    return True


def matcher(patterns: Iterable[bytes]) -> Wanted:
    """A function that tells whether a topic is one of those that the patterns name; repeated questions are cheap."""
    wanted = tuple(patterns)
    if all(map(is_literal, wanted)):
        return frozenset(wanted).__contains__
    # Most patterns are literal but for a `>`: a question about all topics asks them once each.
    literal = frozenset(filter(is_literal, wanted))
    starts = tuple([pattern[:-1] for pattern in wanted if is_literal(pattern[:-1]) and pattern.endswith(b".>")])
    others = [pattern for pattern in wanted if pattern not in literal and pattern[:-1] not in starts]
    every = b">" in others
    known: dict[bytes, bool] = {}

    def match(topic: bytes) -> bool:
        found = known.get(topic)
        if found is None:
            if len(known) >= _CACHE:
                known.clear()
            found = known[topic] = (
                (every and topic[:1] != b"_")
                or topic in literal
                or topic.startswith(starts)
                or any(matches(pattern, topic) for pattern in others)
            )
        return found

    return match


class _Node(Generic[V]):
    __slots__ = ("children", "here", "rest")

    def __init__(self) -> None:
        self.children: dict[bytes, _Node[V]] = {}
        self.here: dict[V, None] = {}
        self.rest: dict[V, None] = {}

    @property
    def empty(self) -> bool:
        return not (self.children or self.here or self.rest)


class PatternIndex(Generic[V]):
    """Values filed under patterns; `find` gives those whose pattern names a topic, each once."""

    def __init__(self) -> None:
        self._root: _Node[V] = _Node()
        self._found: dict[bytes, tuple[V, ...]] = {}

    def add(self, pattern: bytes, value: V) -> None:
        """File `value` under `pattern`; twice is once."""
        node, rest = self._walk(pattern)
        (node.rest if rest else node.here)[value] = None
        self._found.clear()

    def remove(self, pattern: bytes, value: V) -> None:
        """Take it out again; nodes that nothing needs go with it.

        Raises:
            KeyError: it was not there.
        """
        tokens = pattern.split(b".")
        rest = tokens[-1] == b">"
        if rest:
            tokens.pop()
        path = [self._root]
        for token in tokens:
            path.append(path[-1].children[token])
        del (path[-1].rest if rest else path[-1].here)[value]
        for depth in range(len(tokens), 0, -1):
            if not path[depth].empty:
                break
            del path[depth - 1].children[tokens[depth - 1]]
        self._found.clear()

    def find(self, topic: bytes) -> tuple[V, ...]:
        """All values whose pattern names the topic."""
        found = self._found.get(topic)
        if found is None:
            if len(self._found) >= _CACHE:
                self._found.clear()
            found = self._found[topic] = tuple(self._search(topic))
        return found

    def _walk(self, pattern: bytes) -> tuple[_Node[V], bool]:
        tokens = pattern.split(b".")
        rest = tokens[-1] == b">"
        node = self._root
        for token in tokens[:-1] if rest else tokens:
            node = node.children.setdefault(token, _Node())
        return node, rest

    def _search(self, topic: bytes) -> dict[V, None]:
        # The system's topics hide from wildcards in their first token.
        hidden = topic.startswith(b"_")
        found: dict[V, None] = {}
        nodes = [self._root]
        for depth, token in enumerate(topic.split(b".")):
            after = []
            for node in nodes:
                if not (hidden and depth == 0):
                    found.update(node.rest)
                    if (child := node.children.get(b"*")) is not None:
                        after.append(child)
                if (child := node.children.get(token)) is not None:
                    after.append(child)
            nodes = after
        for node in nodes:
            found.update(node.here)
        return found
