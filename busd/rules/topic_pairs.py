"""Which topics each entry of a segment's index holds, and how many messages of each: pairs, in columns.

Topics have numbers here; who deals them may be shared: all that a store appends to goes by the numbers of its table, so
that a name is looked up once for all of them.  Taking in a batch costs a few calls in C, however many topics it has: a
commit may name thousands.  Who asks by topic pays for the view by topic, once for each pair.

Pure: no files.  Invariants:
1. Columns are only appended to; a reader in a thread that knows how many entries there are sees all pairs of these.
2. `by_topic` is the columns turned round, up to the number of entries that was asked for, or more.
3. One thread deals the numbers of a TopicNumbers, and a number is for ever.  Whoever finds a name, in whatever thread,
   finds its place in all columns.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, MutableSequence, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import count

# In a page: the number of a topic and how many messages.
_PAIR_BYTES = 8


class Entries:
    """The entries of one topic: their numbers and how many messages each holds."""

    __slots__ = ("counts", "numbers")

    def __init__(self) -> None:
        self.numbers = array("I")
        self.counts = array("I")


class TopicNumbers(dict[bytes, int]):
    """Number of each topic, from 0 on; asked by `[]` for one that it has not, it deals the next.

    `names`: of each number its topic; `columns`: of each number something, 0 when it is dealt.  Their keeper changes
    what stands in them, nobody their length.
    """

    __slots__ = ("_columns", "names")

    def __init__(self, columns: Sequence[MutableSequence[int]] = ()) -> None:
        self.names: list[bytes] = []
        self._columns = columns

    def __missing__(self, topic: bytes) -> int:
        number = len(self.names)
        for column in self._columns:
            column.append(0)
        # Before it has a name: who goes through the names finds all of them here.
        self[topic] = number
        self.names.append(topic)
        return number

    def of(self, topics: Iterable[bytes]) -> list[int]:
        """The numbers of these, dealt where they are new."""
        return list(map(self.__getitem__, topics))


class TopicPairs:
    """See the module.  `ids`: of each pair the number of its topic; `counts`: its messages; `ends`: by entry, how many
    pairs there are up to its end; `guard`: who lets threads ask by topic gives it a lock; `numbers`: who deals topics
    their numbers, and more than these when others have it too."""

    __slots__ = ("_folded", "_told", "_told_pairs", "_view", "counts", "ends", "guard", "ids", "numbers")

    def __init__(self, numbers: TopicNumbers | None = None) -> None:
        self.ids = array("I")
        self.counts = array("I")
        self.ends = array("I")
        self.numbers = TopicNumbers() if numbers is None else numbers
        self._view: dict[bytes, Entries] = {}
        self._folded = 0
        self._told = 0
        self._told_pairs = 0
        self.guard: AbstractContextManager[object] = nullcontext()

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.ids)

    @property
    def topics(self) -> int:
        """How many different topics there are at most: as many as `part` has told names."""
        return min(len(self.numbers), self._told + len(self.ids) - self._told_pairs)

    def add(self, ids: Iterable[int], counts: Iterable[int]) -> None:
        """The next entry has these topics, by number; none for a hole."""
        own = self.ids
        # From a list it makes room once: half the time.
        if type(ids) is list:
            own.fromlist(ids)
        else:
            own.extend(ids)
        if type(counts) is list:
            self.counts.fromlist(counts)
        else:
            self.counts.extend(counts)
        self.ends.append(len(own))

    def renumber(self, numbers: TopicNumbers) -> bool:
        """Go by these numbers from now on; nobody may ask meanwhile.  False when a topic has none there: then nothing
        is changed."""
        found = [numbers.get(name, -1) for name in self.numbers.names]
        ids = list(map(found.__getitem__, self.ids))
        if -1 in ids:
            return False
        self.numbers, self.ids = numbers, array("I", ids)
        return True

    def span(self, lo: int, hi: int) -> tuple[int, int]:
        """The pairs of entries lo … hi-1."""
        return (self.ends[lo - 1] if lo else 0), (self.ends[hi - 1] if hi else 0)

    def copy(self, old: TopicPairs, lo: int, hi: int) -> None:
        """The next entries are lo … hi-1 of another that has the same numbers."""
        assert old.numbers is self.numbers
        start, stop = old.span(lo, hi)
        shift = len(self.ids) - start
        self.ids.extend(old.ids[start:stop])
        self.counts.extend(old.counts[start:stop])
        self.ends.extend([end + shift for end in old.ends[lo:hi]])

    # Of all entries together, without the view by topic: at a quarter of its price, and it need not be kept.

    def total(self) -> int:
        """How many messages and control records there are."""
        return sum(self.counts) + self.counts.count(0)

    def totals(self) -> dict[bytes, int]:
        """The same of each topic."""
        found: dict[int, int] = {}
        for topic, messages in zip(self.ids, self.counts, strict=True):
            found[topic] = found.get(topic, 0) + (messages or 1)
        return dict(zip(map(self.numbers.names.__getitem__, found), found.values(), strict=True))

    def different(self) -> set[bytes]:
        """Their topics."""
        return set(map(self.numbers.names.__getitem__, set(self.ids)))

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
        names = self.numbers.names
        view, start = self._view, self.span(0, self._folded)[1]
        for number in range(self._folded, entries):
            stop = self.ends[number]
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
        """Entries lo … hi-1 by themselves: names of topics, and how many pairs each entry has, of each pair the number
        of its topic among the names, its messages."""
        start, stop = self.span(lo, hi)
        ids, names = self.ids[start:stop], self.numbers.names
        # Where pairs are many, names that none of them has take less time than to number each anew: a tenth.  And no
        # more room than the pairs.
        if 2 * len(names) > len(ids) or sum(map(len, names)) > _PAIR_BYTES * len(ids):
            own = dict(zip(dict.fromkeys(ids), count(), strict=False))
            names = list(map(names.__getitem__, own))
            ids = array("I", map(own.__getitem__, ids))
        else:
            names = names[:]
        if start == self._told_pairs:
            self._told, self._told_pairs = self._told + len(names), stop
        ends = self.ends[lo:hi]
        sizes = array("I", map(int.__sub__, ends, [start, *ends[:-1]]))
        return names, sizes, ids, self.counts[start:stop]

    def extend(self, names: Sequence[bytes], sizes: array[int], ids: array[int], counts: array[int]) -> None:
        """The next entries are these, as `part` has told them.

        Raises:
            ValueError: they contradict each other; nothing has changed.
        """
        if sum(sizes) != len(ids) or len(ids) != len(counts) or (ids and max(ids) >= len(names)):
            raise ValueError("pairs that do not fit")
        own = self.numbers.of(names)
        end = len(self.ids)
        self.ids.extend(map(own.__getitem__, ids))
        self.counts.extend(counts)
        for size in sizes:
            end += size
            self.ends.append(end)
