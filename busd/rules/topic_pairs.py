"""Which topics each entry of a segment's index holds, and how many messages of each: pairs, in columns.

Taking in a batch costs a few calls in C, however many topics it has: a commit may name thousands.  Who asks by topic
pays for the view by topic, once for each pair.

Pure: no files.  Invariants:
1. Columns are only appended to; a reader in a thread that knows how many entries there are sees all pairs of these.
2. `by_topic` is the columns turned round, up to the number of entries that was asked for, or more.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import count, repeat


class Entries:
    """The entries of one topic: their numbers and how many messages each holds."""

    __slots__ = ("counts", "numbers")

    def __init__(self) -> None:
        self.numbers = array("I")
        self.counts = array("I")


class _Ids(dict[bytes, int]):
    """Numbers from 0 on, dealt when they are first asked for."""

    def __missing__(self, topic: bytes) -> int:
        number = self[topic] = len(self)
        return number


class TopicPairs:
    """See the module.  `ids`: of each pair the number of its topic; `counts`: its messages; `ends`: by entry, how many
    pairs there are up to its end; `guard`: who lets threads ask by topic gives it a lock."""

    __slots__ = ("_folded", "_numbers", "_view", "counts", "ends", "guard", "ids")

    def __init__(self) -> None:
        self.ids = array("I")
        self.counts = array("I")
        self.ends = array("I")
        self._numbers = _Ids()
        self._view: dict[bytes, Entries] = {}
        self._folded = 0
        self.guard: AbstractContextManager[object] = nullcontext()

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.ids)

    @property
    def topics(self) -> int:
        """How many different topics."""
        return len(self._numbers)

    def add(self, topics: Iterable[bytes], counts: Iterable[int]) -> None:
        """The next entry has these; none for a hole."""
        self.ids.extend(map(self._numbers.__getitem__, topics))
        self.counts.extend(counts)
        self.ends.append(len(self.ids))

    def span(self, lo: int, hi: int) -> tuple[int, int]:
        """The pairs of entries lo … hi-1."""
        return (self.ends[lo - 1] if lo else 0), (self.ends[hi - 1] if hi else 0)

    def copy(self, old: TopicPairs, lo: int, hi: int) -> None:
        """The next entries are lo … hi-1 of another."""
        start, stop = old.span(lo, hi)
        names = list(old._numbers)
        part, number_of = old.ids[start:stop], {}
        for number in dict.fromkeys(part):
            number_of[number] = self._numbers[names[number]]
        shift = len(self.ids) - start
        self.ids.extend(map(number_of.__getitem__, part))
        self.counts.extend(old.counts[start:stop])
        self.ends.extend([end + shift for end in old.ends[lo:hi]])

    # By topic.

    def waiting(self, entries: int) -> int:
        """How many pairs `by_topic` has to turn round first."""
        return self.span(self._folded, entries)[1] - self.span(0, self._folded)[1]

    def by_topic(self, entries: int) -> dict[bytes, Entries]:
        """Of every topic in the first `entries` entries, or in some more, where it is.  The same object each time;
        for reading, from any thread."""
        if entries > self._folded:
            with self.guard:
                self._fold(entries)
        return self._view

    def _fold(self, entries: int) -> None:
        names: list[bytes] = []
        view, start = self._view, self.span(0, self._folded)[1]
        for number in range(self._folded, entries):
            stop = self.ends[number]
            if not names and stop > start:
                names = list(self._numbers)
            for topic, messages in zip(self.ids[start:stop], self.counts[start:stop], strict=True):
                name = names[topic]
                try:
                    found = view[name]
                except KeyError:
                    found = view[name] = Entries()
                found.counts.append(messages)
                found.numbers.append(number)
            start = stop
        self._folded = max(self._folded, entries)

    # As columns of a page.

    def part(self, lo: int, hi: int) -> tuple[list[bytes], array[int], array[int], array[int]]:
        """Entries lo … hi-1 by themselves: names of their topics, and how many pairs each entry has, of each pair the
        number of its topic among the names, its messages."""
        start, stop = self.span(lo, hi)
        some = self.ids[start:stop]
        own = dict(zip(dict.fromkeys(some), count(), strict=False))
        all_names = list(self._numbers)
        names = list(map(all_names.__getitem__, own))
        ends = self.ends[lo:hi]
        sizes = array("I", map(int.__sub__, ends, [start, *ends[:-1]]))
        return names, sizes, array("I", map(own.__getitem__, some)), self.counts[start:stop]

    def extend(self, names: Sequence[bytes], sizes: array[int], ids: array[int], counts: array[int]) -> None:
        """The next entries are these, as `part` has told them.

        Raises:
            ValueError: they contradict each other; nothing has changed.
        """
        if sum(sizes) != len(ids) or len(ids) != len(counts) or (ids and max(ids) >= len(names)):
            raise ValueError("pairs that do not fit")
        own = list(map(self._numbers.__getitem__, names))
        end = len(self.ids)
        self.ids.extend(map(own.__getitem__, ids))
        self.counts.extend(counts)
        for size in sizes:
            end += size
            self.ends.append(end)


def nothing(times: int) -> Iterable[int]:
    """So many zeros: counts of control records."""
    return repeat(0, times)
