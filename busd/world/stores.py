"""The stores of a log: which one takes a topic, which exist, which may hold what a reader wants.

Invariants:
1. A store's directory name is its name; names come from settings and topics, whose grammars hold no path separator.
2. Stores are opened in a thread or at start, never on the loop; once open they are known until the end.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Collection, Iterable, Iterator
from heapq import merge

from busd.rules.topic_state import TopicRow, TopicTable
from busd.words.patterns import Wanted, matcher
from busd.words.requests import Publish
from busd.words.settings import Settings, StoreRule
from busd.world.answers import topics_of
from busd.world.descriptors import descriptor_limit, needed
from busd.world.disk import Disk, DiskFailed, DiskFull
from busd.world.segment import Cache
from busd.world.store import Store
from busd.world.store_recovery import OURS

_STORE_NAME = re.compile(r"[A-Za-z0-9_.-]+")
# What a directory entry may have.  The settings see to it that a client's topic fits; a dead letter's may not.
_NAME_BYTES = 255
_ROUTES = 200_000
# Topics looked at, or told, in one turn of the loop: about a millisecond.
PIECE = 512


class Stores:
    """See the module."""

    def __init__(self, disk: Disk, path: str, settings: Settings) -> None:
        self._disk = disk
        self._path = path
        self._main = settings.main
        self._rules = [(matcher(rule.match), rule) for rule in settings.stores]
        self._routes: dict[bytes, str] = {}
        self._cache = Cache()
        # The name of the only store there can be; empty when rules make others.
        self.lone = "" if self._rules else "main"
        self.open: dict[str, Store] = {}
        # Rises when a store or a topic comes: readers look again for what they want.
        self.version = 0
        # What lies among the stores and is none, a line each.
        self.report: list[str] = []

    def load(self, epoch: int, next_offset: int, now_ns: int) -> None:
        """Open every store there is, and main.  Blocking; errors of the disk pass through."""
        self._disk.makedirs(self._path)
        found = [name for name in self._disk.listdir(self._path) if self._is_store(name)]
        if len(found) > 1 and (least := needed(len(found))) > (limit := descriptor_limit()):
            raise DiskFull(
                f"{self._path}: the {len(found)} stores here take two descriptors each, the server {least} in all, and "
                f"may have {limit}; LimitNOFILE= or `ulimit -n` allows more"
            )
        for name in found:
            self.add(self.create(name, epoch, next_offset, now_ns))
        if "main" not in self.open:
            self.add(self.create("main", epoch, next_offset, now_ns))

    def _is_store(self, name: str) -> bool:
        path = f"{self._path}/{name}"
        found = is_store(self._disk, path)
        if not (found or is_bare(self._disk, path)):
            self.report.append(f"{path}: not a store of busd, left alone")
        return found

    def create(self, name: str, epoch: int, next_offset: int, now_ns: int) -> Store:
        """Open one, make it when it is new: all of it or nothing.  Blocking; not known until `add`."""
        path = f"{self._path}/{name}"
        rule = self.rule_of(name)
        new = not self._disk.exists(path)
        try:
            return Store.open(
                self._disk, path, name, rule, epoch=epoch, next_offset=next_offset, now_ns=now_ns, cache=self._cache
            )
        except Exception:
            if new:
                with contextlib.suppress(DiskFull, DiskFailed):
                    self._disk.remove_dir(path)
            raise

    def missing(self, runs: Iterable[Publish]) -> list[str]:
        """Stores that these need, and that are not open, in the order in which they are needed."""
        topics: set[bytes] = set()
        for run in runs:
            topics.update(topics_of(run))
        missing = {self.route(topic) for topic in topics} - self.open.keys()
        if not missing:
            return []
        asked = dict.fromkeys(self.route(topic) for run in runs for topic in topics_of(run))
        return [name for name in asked if name in missing]

    def add(self, store: Store) -> None:
        """From now on it is one of them."""
        self.open[store.name] = store
        self.version += 1

    def close(self, horizon: int, now_ns: int, failed: Collection[str]) -> bool:
        """A clean stop of all but those that failed; False when there are such.  Blocking."""
        clean = True
        for store in self.open.values():
            # A store may know that it has failed before anybody was told.
            if store.name in failed or store.failed:
                clean = False
                continue
            try:
                store.close(horizon, now_ns)
            except (DiskFull, DiskFailed, OSError):
                clean = False
        return clean

    @property
    def total_bytes(self) -> int:
        """Bytes of all segments of all stores."""
        return sum(store.bytes for store in self.open.values())

    def route(self, topic: bytes) -> str:
        """The name of the store that takes new messages of this topic."""
        name = self._routes.get(topic)
        if name is None:
            if len(self._routes) >= _ROUTES:
                self._routes.clear()
            name = self._routes[topic] = self._find(topic)
        return name

    def holding(self, wanted: Wanted) -> list[Store]:
        """Stores that have had such topics, or may have: where something was lost, nobody knows of which topics."""
        if len(self.open) == 1:
            return list(self.open.values())
        return [
            store
            for store in self.open.values()
            if any(map(wanted, store.topics)) or (store.blind and self._may_hold(store.name, wanted))
        ]

    def _may_hold(self, name: str, wanted: Wanted) -> bool:
        """False when the store is of one topic alone, and not of a wanted one."""
        _, topic = self._made_by(name)
        return not topic or wanted(topic)

    def of_topic(self, topic: bytes) -> list[Store]:
        """Stores that have had this topic."""
        return [store for store in self.open.values() if topic in store.topics]

    def _find(self, topic: bytes) -> str:
        for match, rule in self._rules:
            if match(topic):
                name = rule.name.replace("{topic}", topic.decode())
                return name if len(name) <= _NAME_BYTES else "main"
        return "main"

    def rule_of(self, name: str) -> StoreRule:
        """The rule of the store with this name."""
        if name == "main":
            return self._main
        rule, _ = self._made_by(name)
        # Without one it is gone: what lies there is read, and kept as it is.
        return rule or StoreRule(name=name)

    def _made_by(self, name: str) -> tuple[StoreRule | None, bytes]:
        """The rule that makes a store of this name, and where it is one for each topic, of which topic."""
        for _, rule in self._rules:
            if rule.name == name:
                return rule, b""
        for match, rule in self._rules:
            before, braces, after = map(re.escape, rule.name.partition("{topic}"))
            found = re.fullmatch(f"{before}([A-Za-z0-9_.-]+){after}", name) if braces else None
            # Other rules may give names that look like this one's.
            if found and match(found[1].encode()):
                return rule, found[1].encode()
        return None, b""


def is_store(disk: Disk, path: str) -> bool:
    """False for what others put among the stores: files, `lost+found`, directories full of something else, links to
    nowhere; and for an empty directory, in which nothing was ever kept."""
    if not _STORE_NAME.fullmatch(posixpath.basename(path)):
        return False
    try:
        return any(map(OURS.fullmatch, disk.listdir(path)))
    except (NotADirectoryError, FileNotFoundError):
        return False


def is_bare(disk: Disk, path: str) -> bool:
    """Whether it is where a store was to be made when the server was stopped by force: an empty directory."""
    try:
        return _STORE_NAME.fullmatch(posixpath.basename(path)) is not None and not disk.listdir(path)
    except (NotADirectoryError, FileNotFoundError):
        return False


def topic_rows(tables: Iterable[TopicTable], wanted: Wanted) -> Iterator[list[TopicRow]]:
    """What these tables know of such topics, sorted by name, each once: in pieces, the first of which are empty."""
    runs: list[list[TopicRow]] = [[]]
    for table in tables:
        for lo in range(0, len(table), PIECE):
            runs[-1] += table.rows(wanted, range(lo, min(lo + PIECE, len(table))))
            if len(runs[-1]) >= PIECE:
                runs[-1].sort()
                runs.append([])
            yield []
    runs[-1].sort()
    found: list[TopicRow] = []
    for row in merge(*runs):
        if found and found[-1][0] == row[0]:
            # In several stores: a rule for it came or went.
            name, live, last, ended = found.pop()
            row = (name, live + row[1], *max((last, ended), row[2:]))
        elif len(found) >= PIECE:
            yield found
            found = []
        found.append(row)
    yield found
