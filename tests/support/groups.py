"""Speaking to a server in memory as members of groups do."""

from __future__ import annotations

from tests.support.memory_server import MemoryConnection, MemoryServer

S = 1_000_000_000


def say(client: MemoryConnection, *lines: str) -> list[str]:
    """Send lines, and give what came by then."""
    client.send("".join(f"{line}\n" for line in lines).encode())
    return client.received().decode().splitlines()


def heard(client: MemoryConnection) -> list[str]:
    return client.received().decode().splitlines()


def publish(server: MemoryServer, *payloads: str, topic: str = "jobs") -> None:
    client = server.connect()
    said = say(client, *(f"PUB {topic} {payload}" for payload in payloads))
    assert all(line.startswith(":") for line in said), said


def member(server: MemoryServer, options: str = "", pattern: str = "jobs", group: str = "g") -> MemoryConnection:
    client = server.connect()
    said = say(client, f"SUB {pattern} GROUP {group} {options}")
    assert said[0].startswith("+OK"), said
    client.first = said[1:]
    return client
