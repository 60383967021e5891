"""How many descriptors the process may have, and who gets them: the log, connections, stores.

A store holds two for good, of its log and its index, so with a store for each topic it is the topics that use them up.
Invariants:
1. The last RESERVED go to no connection and to no store.
2. Stores leave connections what the setting `connections` may need, or half of what there is.
3. Stores that were taken leave enough for the next start.
"""

from __future__ import annotations

import resource

# Segments that are read, one that is begun, index pages, directories that are synced; and a margin.
RESERVED = 32
# What a server has open before anybody connects (its streams, the loop's own, sockets, lock, groups.log), and room for
# a few who do.
_OTHERS = 16
STORE_DESCRIPTORS = 2
UNLIMITED = 1 << 30


def descriptor_limit() -> int:
    """How many this process may have now."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return UNLIMITED if limit == resource.RLIM_INFINITY else limit


def most_stores(descriptors: int, connections: int) -> int:
    """Beyond so many no new store is made, where so many connections may come."""
    free = descriptors - RESERVED
    left = max(_OTHERS, min(connections + _OTHERS, free // 2))
    return max(1, (free - left) // STORE_DESCRIPTORS)


def needed(stores: int) -> int:
    """How many a server with so many stores cannot do without."""
    return STORE_DESCRIPTORS * stores + RESERVED + _OTHERS
