"""A replay of small batches: told together, and in order with what stands between them.

All of the log is read in one piece here, so what is gathered meets losses, ends of stream, RESETs and large batches.
"""

from __future__ import annotations

import pytest

from busd.broker.stride import HANDFUL_BYTES
from busd.rules.record import Batch, Hole
from busd.words.settings import Limits
from tests.support.events import End, Event, Gap, Ok, Seen, parse
from tests.support.memory_server import MemoryServer

LARGE = b"x" * (HANDFUL_BYTES + 1)


def log_of(*commands: bytes) -> MemoryServer:
    """A server with a batch of its own for each command."""
    server = MemoryServer(Limits(), piece_batches=len(commands))
    publisher = server.connect()
    for command in commands:
        publisher.send(command + b"\n")
    assert b"-" not in publisher.received()
    return server


def replayed(server: MemoryServer, words: bytes) -> list[Event]:
    """What a new reader is told, without the first line."""
    reader = server.connect()
    reader.send(b"SUB " + words + b"\n")
    server.runtime.run()
    first, *events = parse(reader.received())
    assert first == Ok(1)
    return events


def msg(offset: int, payload: bytes, topic: bytes = b"a") -> Seen:
    """A message."""
    return Seen("MSG", topic, offset, payload)


def lose(server: MemoryServer, at: int) -> None:
    """A loss of known size in the place of a record."""
    gone = server.log.records[at]
    assert isinstance(gone, Batch)
    server.log.records[at] = Hole(gone.first, gone.last, gone.first - 1, 0, "corrupt", {gone.topics[0]: gone.n})


@pytest.mark.parametrize("until", [b"", b" UNTIL end"])
def test_a_gap_comes_between_what_was_before_and_behind_it(until: bytes) -> None:
    server = log_of(*[b"PUB a p%d" % at for at in range(1, 7)])
    lose(server, 2)
    want = [msg(1, b"p1"), msg(2, b"p2"), Gap(3, 3, 1, "corrupt"), msg(4, b"p4"), msg(5, b"p5"), msg(6, b"p6")]
    assert replayed(server, b"a FROM 1" + until) == want + ([End("end", 7)] if until else [])


def test_a_loss_behind_the_end_of_the_range_is_not_told() -> None:
    server = log_of(*[b"PUB a p%d" % at for at in range(1, 7)])
    lose(server, 3)
    assert replayed(server, b"a FROM 1 UNTIL 4") == [msg(1, b"p1"), msg(2, b"p2"), msg(3, b"p3"), End("end", 4)]


def test_of_a_loss_only_what_is_ahead_of_the_reader_is_told() -> None:
    """With several stores one may reach back over batches of another, which were gathered or hold nothing any more."""
    server = log_of(b"PUB a p1", b"PUB a p2", b"PUB c p3", b"PUB a p4", b"RESET c", b"PUB a p6")
    server.log.records[3] = Hole(1, 4, 0, 0, "corrupt", None)
    want = [msg(1, b"p1"), msg(2, b"p2"), Gap(4, 4, None, "corrupt"), Seen("RESET", b"c", 5, b"1"), msg(6, b"p6")]
    assert replayed(server, b"a,c FROM 1") == want


def test_small_ones_are_told_before_the_large_one_behind_them() -> None:
    server = log_of(b"PUB a p1", b"PUB a p2", b"PUB a " + LARGE, b"PUB a p4", b"PUB b p5", b"PUB a p6")
    want = [msg(1, b"p1"), msg(2, b"p2"), msg(3, LARGE), msg(4, b"p4"), msg(6, b"p6")]
    assert replayed(server, b"a FROM 1") == want


def test_ends_of_stream_and_resets_keep_their_place() -> None:
    server = log_of(
        b"PUB a p1", b"PUB b p2", b"EOF a", b"PUB a p4", b"PUB b p5", b"RESET b", b"PUB b p7", b"PUB a p8", b"EOF b"
    )
    want = [
        msg(1, b"p1"),
        Seen("EOF", b"a", 3, b""),
        msg(4, b"p4"),
        Seen("RESET", b"b", 6, b"2"),
        msg(7, b"p7", b"b"),
        msg(8, b"p8"),
        Seen("EOF", b"b", 9, b""),
    ]
    assert replayed(server, b"a,b FROM 1") == want
