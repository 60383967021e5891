"""Which subscribers a topic has: a trie of patterns, and the matchers of one subscription or question.

Looking a topic up costs its own tokens, not the number of patterns, and nothing the second time; a matcher that does
not remember costs them each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from busd.words.topics import is_literal

V = TypeVar("V")
# Whether a reader, or whoever asks, means this topic.
Wanted = Callable[[bytes], bool]
# Of a column: where it is, of each token which patterns it suits, and which any token suits.
_Column = tuple[int, Callable[[bytes, int], int], int]
# A cached topic costs about 150 bytes; beyond this many the cache starts again rather than grow.
_CACHE = 65_536


def any_topic(topic: bytes) -> bool:
    """A Wanted that means every topic, the system's own included."""
    return True


def matcher(patterns: Iterable[bytes]) -> Wanted:
    """A function that tells whether a topic is one of those that the patterns name; for who asks of each topic once."""
    wanted = tuple(patterns)
    return _at_once(wanted) or _Columns(wanted).name


def remembering(patterns: Iterable[bytes]) -> Wanted:
    """The same for readers, who ask of the same topics again and again."""
    wanted = tuple(patterns)
    found = _at_once(wanted)
    return _ANSWERS.of(_Columns(wanted).name) if found is None else found


def _at_once(wanted: tuple[bytes, ...]) -> Wanted | None:
    """For patterns of which the answer takes hardly longer than to look it up."""
    if all(map(is_literal, wanted)):
        return frozenset(wanted).__contains__
    if wanted == (b">",):
        return lambda topic: topic[:1] != b"_"
    if len(wanted) == 1 and wanted[0].endswith(b".>") and is_literal(wanted[0][:-1]):
        start, size = wanted[0][:-1], len(wanted[0]) - 1
        return lambda topic: topic[:size] == start
    return None


class _Columns:
    """Patterns side by side, one column for each token of a topic; in each a token has one bit for every pattern it
    suits.  Made when they are first asked: live readers never do.

    Threads ask, too: what two of them make at once is the same.
    """

    def __init__(self, wanted: Iterable[bytes]) -> None:
        self._patterns = tuple(wanted)
        self._columns: list[_Column] = []
        # By number of tokens, negative for the system's topics: the patterns for so many, and the columns that decide.
        self._plans: dict[int, tuple[int, list[_Column]]] = {}

    def name(self, topic: bytes) -> bool:
        """Whether one of them names the topic."""
        tokens = topic.split(b".")
        size = -len(tokens) if topic[:1] == b"_" else len(tokens)
        plan = self._plans.get(size)
        if plan is None:
            plan = self._plans[size] = self._plan(size)
        left, columns = plan
        for at, suits, any_token in columns:
            left &= suits(tokens[at], any_token)
            if not left:
                return False
        return left != 0

    def _plan(self, size: int) -> tuple[int, list[_Column]]:
        patterns = [pattern.split(b".") for pattern in self._patterns]
        if not self._columns:
            self._columns = [_column(patterns, at) for at in range(max(map(len, patterns)))]
        left = 0
        for number, tokens in enumerate(patterns):
            long_enough = len(tokens) <= abs(size) if tokens[-1] == b">" else len(tokens) == abs(size)
            # The system's topics hide from wildcards in their first token.
            if long_enough and (size > 0 or tokens[0].startswith(b"_")):
                left |= 1 << number
        columns = [column for column in self._columns[: abs(size)] if left & ~column[2]]
        everything = left
        for _, _, any_token in columns:
            everything &= any_token
        if everything:
            # One of them has wildcards only.
            return everything, []
        # Those first that leave the fewest.
        columns.sort(key=lambda column: (column[2] & left).bit_count())
        return left, columns


def _column(patterns: Sequence[Sequence[bytes]], at: int) -> _Column:
    suits: dict[bytes, int] = {}
    any_token = 0
    for number, tokens in enumerate(patterns):
        token = tokens[at] if at < len(tokens) else b"*"
        if token in (b"*", b">"):
            any_token |= 1 << number
        else:
            suits[token] = suits.get(token, 0) | 1 << number
    return at, {token: bits | any_token for token, bits in suits.items()}.get, any_token


class _Answers:
    """What all that remember have found, _CACHE answers together: then all start again, so that a reader who asks no
    more keeps nothing for long, and many cost no more than one.

    Threads ask, too: who is left out while all are told to start again is in with his next answer.
    """

    def __init__(self) -> None:
        self._kept: dict[int, dict[bytes, bool]] = {}
        self._room = 0

    def of(self, ask: Wanted) -> Wanted:
        """The same function with a memory."""
        known: dict[bytes, bool] = {}

        def match(topic: bytes) -> bool:
            found = known.get(topic)
            if found is None:
                found = ask(topic)
                self._keep(known)
                known[topic] = found
            return found

        return match

    def _keep(self, known: dict[bytes, bool]) -> None:
        """One more in `known`."""
        if self._room <= 0:
            kept, self._kept, self._room = self._kept, {}, _CACHE
            for one in list(kept.values()):
                one.clear()
        self._room -= 1
        self._kept[id(known)] = known


_ANSWERS = _Answers()


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
