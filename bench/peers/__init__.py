"""The servers that are measured, each a process of its own, with the requests it wants for the same messages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.machine import Cores
from bench.peers.base import Peer
from bench.peers.busd_server import Busd
from bench.peers.nats_server import Nats
from bench.peers.redis_server import Redis
from bench.plan import System

# How to make one: its directory, its cores, its policy.
KINDS: dict[System, Callable[[Path, Cores, str], Peer]] = {"busd": Busd, "redis": Redis, "nats": Nats}
