"""How much room there is in the stores whose rule holds publishers back (full = reject | block).

Bytes: the files of the store and what is on its way there.  Messages: with retain = acked those that some covering
group has not settled (and those that no group covers), with retain = limits those that are kept; in both cases also
those on their way.  It must not know who publishes or waits.  Invariants:
1. Servers without such a rule pay one comparison a run.
2. Between two exact counts there is an upper bound; the exact count is made when the bound leaves no room.
3. Nothing here waits for the disk, except `load`, and what is read again goes through a thread.
4. What is remembered is of stores that are open, or that something is on its way to; names that were asked for are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from busd.broker.ports import Fullness, Runtime
from busd.rules.group_records import GroupState
from busd.rules.items import Item
from busd.rules.ledger import Ledger, lowest
from busd.rules.record import Batch
from busd.rules.wanted import Claim, Cover, Covers
from busd.words.errors import BusError
from busd.words.patterns import any_topic
from busd.words.requests import Publish
from busd.words.settings import Settings, StoreRule
from busd.world.commit import Work
from busd.world.store import Cursor, Store
from busd.world.stores import Stores

# What a message takes beside its payload and headers: lengths and line ends; and what a batch takes, about.
_ITEM_BYTES = 10
_RUN_BYTES = 128
# A topic of a run of many: its name in the batch, and, if it is new, a line of 71 bytes beside it in what the next
# segment begins with, file and index.  Of one that is not that is too much for as long as the run is on its way.
_NAMES, _NAME_BYTES = 3, 142
_READ_BYTES = 1 << 20


@dataclass(slots=True)
class _Account:
    """A store with a cap.  `bound`: no more messages than this count, without those on their way."""

    name: str
    rule: StoreRule
    bound: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    ledger: Ledger | None = None
    # Batches that came while the log is read again; None when it is not.
    since: list[Batch] | None = None


@dataclass(slots=True)
class _Cost:
    messages: int
    bytes: int


@dataclass(slots=True)
class _View:
    """What the groups claim, for one count.  `cover`: by topic, remembered from count to count."""

    groups: Mapping[bytes, GroupState]
    covers: Covers
    cover: dict[bytes, Cover]
    claims: dict[Cover, Claim] = field(default_factory=dict)

    def of(self, topic: bytes) -> Claim | None:
        """What is claimed of a topic."""
        cover = self.cover.get(topic)
        if cover is None:
            cover = self.cover[topic] = self.covers.of(topic)
        if not cover:
            return None
        claim = self.claims.get(cover)
        if claim is None:
            claim = self.claims[cover] = Claim([self.groups[name] for name in cover])
        return claim


class Room:
    """See the module.

    `groups`: what is decided of each group; `poke`: somebody waits for bytes in this store.  `on_room` is called when
    there may be more room than before.
    """

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        runtime: Runtime,
        groups: Callable[[], Mapping[bytes, GroupState]],
        poke: Callable[[str], None],
    ) -> None:
        rules = (settings.main, *settings.stores)
        self.on = any(_capped(rule) for rule in rules)
        self.on_room: Callable[[], None] = lambda: None
        self._stores = stores
        self._runtime = runtime
        self._groups = groups
        self._poke = poke
        self._accounts: dict[str, _Account | None] = {}
        self._covers = Covers({})
        self._cover: dict[bytes, Cover] = {}

    def load(self) -> None:
        """Count what the stores hold.  Waits for the disk."""
        if self.on:
            for store in self._stores.open.values():
                account = self._account(store.name)
                if account is not None:
                    if account.ledger is not None:
                        account.ledger = _read(store, self._view(), store.last + 1)
                    self._recount(account)

    # What the broker asks.

    def admits(self, run: Publish, start: int) -> int:
        """See Log."""
        rest = len(run.items) - start
        if not self.on or run.kind == "reset":
            return rest
        if isinstance(run.topics, bytes):
            account = self._account(self._stores.route(run.topics))
            return rest if account is None else self._fit(account, run, start, rest)
        names = set(run.topics)
        accounts = {name: self._account(self._stores.route(name)) for name in names}
        if not any(accounts.values()):
            return rest
        return self._fit_mixed(accounts, run.topics, run.items, start)

    def fullness(self, run: Publish, at: int) -> Fullness:
        """See Log."""
        topic = run.topics if isinstance(run.topics, bytes) else run.topics[at]
        account = self._account(self._stores.route(topic))
        assert account is not None, "stores without a cap are never full"
        rule = account.rule
        items = run.items if run.answers == "first" else run.items[at : at + 1]
        size, count = _size(items), len(items) if run.kind == "message" else 0
        if not isinstance(run.topics, bytes):
            size += _name_size(topic)
        never = _never(account, rule.cap_bytes - _RUN_BYTES - self._least_bytes(account), size, count)
        # Who asks was not admitted just now, so what is bound has been counted anew.
        short = rule.max_messages > 0 and rule.max_messages - account.bound - account.waiting < count
        error = BusError("FULL", never or _text(account, short))
        return Fullness(account.name, rule.full == "block", rule.full_wait_ns, bool(never), error)

    def make_room(self, store: str) -> None:
        """See Log."""
        account = self._account(store)
        # Of messages those count that are not settled, whether or not the others are still there.
        if account is not None and (account.rule.max_bytes or account.rule.retain == "limits"):
            self._poke(store)

    # What the log tells.

    def regrouped(self) -> None:
        """A group is new, gone or was moved: what was counted means nothing."""
        for account in self._accounts.values():
            if account is not None and account.ledger is not None:
                account.bound = max(account.bound, account.rule.max_messages)

    def took(self, run: Publish) -> None:
        """It is on its way."""
        if self.on:
            for account, cost in self._costs(run):
                # Whose store is to be made is remembered until that is decided.
                self._accounts[account.name] = account
                account.waiting += cost.messages
                account.waiting_bytes += cost.bytes

    def smaller(self, run: Publish, rest: Publish | None) -> None:
        """Only this rest of it is on its way now."""
        self.decided([run], [])
        if rest is not None:
            self.took(rest)

    def decided(self, runs: Iterable[Publish], works: Iterable[Work]) -> None:
        """These are not on their way any more, and the works that have not failed landed."""
        if not self.on:
            return
        for run in runs:
            for account, cost in self._costs(run):
                account.waiting -= cost.messages
                account.waiting_bytes -= cost.bytes
                if not account.waiting_bytes and account.name not in self._stores.open:
                    self._accounts.pop(account.name, None)
        for work in works:
            landed = self._account(work.store.name)
            if landed is None or work.failure is not None:
                continue
            for batch in work.batches:
                landed.bound += 0 if batch.control else batch.n
                if landed.ledger is not None:
                    landed.ledger.add(batch)
                if landed.since is not None:
                    landed.since.append(batch)

    # Counting.

    def _account(self, name: str) -> _Account | None:
        try:
            return self._accounts[name]
        except KeyError:
            rule = self._stores.rule_of(name)
            account = _Account(name, rule) if _capped(rule) else None
            if account is not None and rule.max_messages and rule.retain == "acked":
                account.ledger = Ledger()
            if name in self._stores.open:
                self._accounts[name] = account
            return account

    def _costs(self, run: Publish) -> list[tuple[_Account, _Cost]]:
        if run.kind == "reset":
            return []
        size = run.size_bytes + _RUN_BYTES + _ITEM_BYTES * len(run.items)
        if isinstance(run.topics, bytes):
            account = self._account(self._stores.route(run.topics))
            count = len(run.items) if run.kind == "message" else 0
            return [] if account is None else [(account, _Cost(count, size))]
        counts = Counter(map(self._stores.route, run.topics))
        names: Counter[str] = Counter()
        for topic in set(run.topics):
            names[self._stores.route(topic)] += _name_size(topic)
        accounts = [(account, count) for name, count in counts.items() if (account := self._account(name)) is not None]
        whole = len(run.items)
        return [(one, _Cost(count, size * count // whole + names[one.name])) for one, count in accounts]

    def _fit(self, account: _Account, run: Publish, start: int, rest: int) -> int:
        count = rest if run.kind == "eof" else min(rest, self._left(account, rest))
        if count <= 0:
            return 0
        left_bytes = self._left_bytes(account)
        if left_bytes is None or run.size_bytes + _ITEM_BYTES * rest <= left_bytes:
            return count
        for number, item in enumerate(islice(run.items, start, start + count)):
            left_bytes -= _size((item,))
            if left_bytes < 0:
                return number
        return count

    def _fit_mixed(
        self, accounts: Mapping[bytes, _Account | None], topics: Sequence[bytes], items: Sequence[Item], start: int
    ) -> int:
        left: dict[str, _Cost] = {}
        rest = len(items) - start
        seen: set[bytes] = set()
        for account in accounts.values():
            if account is not None:
                room = self._left_bytes(account)
                left[account.name] = _Cost(self._left(account, rest), 1 << 62 if room is None else room)
        for at in range(start, len(items)):
            one = accounts[topics[at]]
            if one is None:
                continue
            cost = left[one.name]
            cost.messages -= 1
            cost.bytes -= _size((items[at],))
            if topics[at] not in seen:
                seen.add(topics[at])
                cost.bytes -= _name_size(topics[at])
            if cost.messages < 0 or cost.bytes < 0:
                return at - start
        return rest

    def _left(self, account: _Account, wanted: int) -> int:
        """Messages for which there is room, exact when that is less than wanted."""
        cap = account.rule.max_messages
        if not cap:
            return wanted
        left = cap - account.bound - account.waiting
        if left < wanted:
            self._recount(account)
            left = cap - account.bound - account.waiting
        return left

    def _left_bytes(self, account: _Account) -> int | None:
        """Bytes for which there is room, None without a cap."""
        if not account.rule.max_bytes:
            return None
        store = self._stores.open.get(account.name)
        return account.rule.cap_bytes - (store.bytes if store is not None else 0) - account.waiting_bytes - _RUN_BYTES

    def _least_bytes(self, account: _Account) -> int:
        """What its files take that hold nothing; 0, which is too little, while they hold something, were it a RESET."""
        store = self._stores.open.get(account.name)
        return store.bytes if store is not None and store.first > store.last else 0

    def _recount(self, account: _Account) -> None:
        store = self._stores.open.get(account.name)
        if store is None:
            account.bound = 0
        elif account.ledger is None:
            account.bound = store.topics.live
        else:
            account.bound = account.ledger.unsettled(self._view().of, _floors(store))
            if account.bound >= account.rule.max_messages:
                # What was removed because its ttl ran out is settled only when somebody reads past it.
                account.bound = min(account.bound, store.topics.live)
            if account.ledger.stale and account.since is None:
                self._read_again(account, store)

    def _view(self) -> _View:
        groups = self._groups()
        patterns = {name: state.patterns for name, state in groups.items()}
        if patterns != self._covers.patterns:
            self._covers = Covers(patterns)
            self._cover = {}
        return _View(groups, self._covers, self._cover)

    def _read_again(self, account: _Account, store: Store) -> None:
        """A group went back or is new: messages that were settled may count again."""
        since: list[Batch] = []
        # What comes from here on is in one of the two, and not in both.
        account.since, end = since, store.last + 1
        states = {name: state.copy() for name, state in self._groups().items()}
        # In a thread, so nothing is shared with the loop.
        view = _View(states, self._covers, {})

        def done(result: Ledger | Exception) -> None:
            account.since = None
            if isinstance(result, Exception):
                raise result
            for batch in since:
                result.add(batch)
            account.ledger = result
            self._recount(account)
            self.on_room()

        self._runtime.in_thread(lambda: _read(store, view, end), done)


def _capped(rule: StoreRule) -> bool:
    return rule.full != "drop" and bool(rule.max_bytes or rule.max_messages)


def _name_size(topic: bytes) -> int:
    return _NAMES * len(topic) + _NAME_BYTES


def _size(items: Sequence[Item]) -> int:
    size = sum([len(item) if isinstance(item, bytes) else sum(map(len, item)) + 8 * len(item) for item in items])
    return size + _ITEM_BYTES * len(items)


def _floors(store: Store) -> Callable[[bytes], int]:
    first, topics = store.first, store.topics

    return lambda topic: max(first, topics.floor_of(topic))


def _read(store: Store, view: _View, end: int) -> Ledger:
    """A ledger of what the store holds below an offset.  Waits for the disk."""
    claims = [view.of(topic) for topic in list(store.topics)]
    # What every group has settled need not be read; what no group covers counts from the first one on.
    start = min([0 if claim is None else lowest(claim) for claim in claims], default=0)
    ledger = Ledger(start)
    cursor = Cursor(max(start, store.first))
    while True:
        chunk = store.read(cursor, any_topic, end, _READ_BYTES, may_block=True)
        assert chunk is not None
        for record in chunk.records:
            if isinstance(record, Batch):
                ledger.add(record)
        if chunk.done:
            return ledger


def _never(account: _Account, most_bytes: int, size_bytes: int, count: int) -> str:
    """Why no room will ever do, or nothing."""
    rule = account.rule
    if rule.max_bytes and size_bytes > most_bytes:
        most = f"{max(0, most_bytes)} bytes at once (max_bytes {rule.max_bytes}, less what its files need)"
        return f"the store {account.name} takes {most}; this takes {size_bytes}"
    if rule.max_messages and count > rule.max_messages:
        return f"the store {account.name} takes {rule.max_messages} messages at most; this is {count}"
    return ""


def _text(account: _Account, messages: bool) -> str:
    """Why there is no room and what would make some."""
    rule = account.rule
    where = f"the store {account.name}"
    if messages and rule.retain == "acked":
        return f"{where} is at its cap of {rule.max_messages} messages that are not settled; acknowledging makes room"
    cap = f"{rule.max_messages} messages" if messages else f"{rule.max_bytes} bytes"
    help_ = "acknowledging" if rule.retain == "acked" else "a RESET"
    return f"{where} is at its cap of {cap}; {help_} or a larger cap makes room"
