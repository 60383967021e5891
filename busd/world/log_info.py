"""What INFO says of a log."""

from __future__ import annotations

from collections.abc import Mapping

from busd.rules.clock import ReceiveClock
from busd.rules.replies import Pairs
from busd.words.settings import Settings
from busd.words.units import NS_PER_S
from busd.world.group_log import GroupLog
from busd.world.stores import Stores
from busd.world.upkeep import Health


def sections(
    settings: Settings,
    stores: Stores,
    health: Health,
    horizon: int,
    epoch: int,
    topics: int,
    clock: ReceiveClock,
    groups: GroupLog,
) -> Mapping[str, Pairs]:
    """The sections server, log and stores; names and meanings as in protocol.md."""
    found = stores.open.values()
    log: Pairs = [
        ("first", min(store.first for store in found)),
        ("next", horizon),
        ("epoch", epoch),
        ("topics", topics),
        ("messages", sum(store.topics.live for store in found)),
        ("bytes", stores.total_bytes),
        ("cap_bytes", health.cap_bytes),
        ("synced", min([horizon - 1, *(store.synced for store in found if store.synced < store.last)])),
        ("groups", len(groups.states)),
        ("groups_bytes", groups.bytes),
    ]
    lines: Pairs = [
        (store.name, f"first={store.first} last={store.last} bytes={store.bytes} segments={store.segments}")
        for store in found
    ]
    ahead_s, behind_s = clock.ahead_ns // NS_PER_S, clock.behind_ns // NS_PER_S
    told = f"ahead: {ahead_s}s, not followed" if ahead_s else f"behind: {behind_s}s, waited for" if behind_s else "ok"
    server: Pairs = [
        ("data", settings.data),
        ("sync", settings.sync),
        ("health", health.text),
        ("clock", told),
    ]
    return {"server": server, "log": log, "stores": lines}
