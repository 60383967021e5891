"""What is written while an outbox is held."""

from __future__ import annotations

from dataclasses import dataclass, field

from busd.broker.cork import Cork
from busd.rules.parts import Parts


@dataclass
class Notes:
    """An outbox that says what it was told."""

    told: list[tuple[bytes | Parts, int]] = field(default_factory=list)
    low_bytes: int = 0

    def write(self, data: bytes | Parts, events: int = 1) -> None:
        """See Outbox."""
        self.told.append((data, events))

    def buffered(self) -> int:
        """See Outbox."""
        return sum(len(data) for data, _ in self.told)

    def bound(self, low_bytes: int) -> None:
        """See Outbox."""
        self.low_bytes = low_bytes


def test_what_is_written_while_it_is_held_goes_out_as_one_and_counts_meanwhile() -> None:
    notes = Notes()
    cork = Cork(notes)
    cork.write(b"a", 2)
    cork.hold()
    cork.write(b"bc", 3)
    cork.write(b"d")
    assert (notes.told, cork.buffered()) == ([(b"a", 2)], 4)
    assert cork.release() == 3
    assert notes.told[1:] == [(b"bcd", 4)]
    assert cork.buffered() == 4
    cork.write(b"e")
    assert notes.told[2:] == [(b"e", 1)]


def test_nothing_and_one_piece() -> None:
    notes = Notes()
    cork = Cork(notes)
    cork.hold()
    assert cork.release() == 0
    cork.hold()
    piece = bytes(1000)
    cork.write(piece)
    cork.release()
    assert [data is piece for data, _ in notes.told] == [True]


def test_enough_for_a_call_waits_for_nothing() -> None:
    notes = Notes()
    cork = Cork(notes)
    cork.hold()
    for size in (10_000, 10_000, 5, 100_000, 3):
        cork.write(bytes(size))
    assert [(len(data), events) for data, events in notes.told] == [(20_000, 2), (100_005, 2)]
    assert cork.release() == 120_008
    assert len(notes.told[-1][0]) == 3


def test_parts_go_out_as_they_are_unless_something_waits_before_them() -> None:
    notes = Notes()
    cork = Cork(notes)
    cork.hold()
    parts = Parts(b"head", bytes(100_000))
    cork.write(parts)
    cork.write(b"small")
    cork.write(parts)
    assert cork.release() == 2 * len(parts) + 5
    assert notes.told[0][0] is parts
    assert notes.told[1:] == [(b"small" + bytes(parts), 2)]
