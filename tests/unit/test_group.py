"""The pure core of a group: each message is in one place, and the lines say the same after a restart."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from busd.rules.flight import Flight
from busd.rules.group import MAX_PARKED, Group
from busd.rules.group_records import GroupState, apply, line_done, line_new, ranges_of
from busd.words.requests import Ack

S = 1_000_000_000


class Model:
    """A group, its lines applied as the log would, and a world that gives out what comes next."""

    def __init__(self, tries: int = 0) -> None:
        self.states: dict[bytes, GroupState] = {}
        apply(self.states, line_new(b"g", (b"t",), tries, 1, 0))
        self.group = Group(b"g", self.state)
        self.flights = [Flight(), Flight()]
        self.now_ns = 0
        self.following = 1
        self.settled: set[int] = set()

    @property
    def state(self) -> GroupState:
        return self.states[b"g"]

    def write(self, lines: list[bytes] | None = None) -> None:
        for line in [*self.group.take_lines(), *(lines or [])]:
            apply(self.states, line)

    def restart(self) -> None:
        self.group = Group(b"g", self.state)
        self.flights = [Flight(), Flight()]

    def give_new(self, member: int, count: int) -> None:
        offsets = range(self.following, self.following + count)
        self.following += count
        self.group.give(self.flights[member], offsets, 1, self.now_ns + 10 * S)
        self.write()

    def give_again(self, member: int) -> None:
        self.group.due(self.now_ns)
        chunk = self.group.pop()
        if chunk is not None:
            self.group.give(self.flights[member], chunk.offsets, chunk.tries + 1, self.now_ns + 10 * S)
            self.write()

    def out(self) -> list[tuple[int, int]]:
        return [(offset, chunk.tries) for flight in self.flights for chunk in flight._all() for offset in chunk.offsets]

    def places(self) -> list[int]:
        """Every message that is not settled, once for each place it is in."""
        group = self.group
        found = [offset for offset, _ in self.out()] + list(group.dying)
        found += [offset for _, _, chunk in group._waiting for offset in chunk.offsets]
        found += [offset for _, offset, _ in group._delayed]
        return found + [offset for parked in group._parked.values() for chunk in parked for offset in chunk.offsets]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["new", "again", "ack", "through", "nack", "late", "lost", "restart", "bury"]),
            st.integers(0, 1),
            st.integers(0, 6),
        ),
        max_size=40,
    ),
    st.sampled_from([0, 2]),
)
@settings(max_examples=200, deadline=None)
def test_nothing_is_lost_doubled_or_settled_unasked(operations: list[tuple[str, int, int]], tries: int) -> None:
    model = Model(tries)
    settled: set[int] = set()
    for name, member, number in operations:
        model.now_ns += S
        flight = model.flights[member]
        out = [(o, c.tries) for c in flight._all() for o in c.offsets]
        token = out[number % len(out)] if out else (99, 1)
        if name == "new":
            model.give_new(member, number + 1)
        elif name == "again":
            model.give_again(member)
        elif name in ("ack", "through"):
            request = Ack([token]) if name == "ack" else Ack([], token)
            chunks, stale = model.group.ack(flight, request)
            assert (stale is None) == bool(out)
            settled.update(offset for chunk in chunks for offset in chunk.offsets)
            model.write(model.group.done(chunks))
        elif name == "nack":
            assert model.group.nack(flight, token, None, b"", model.now_ns) == bool(out)
        elif name == "late":
            model.group.back(flight.overdue(model.now_ns), b"late")
        elif name == "lost":
            model.group.back(flight.drain(), b"lost")
        elif name == "restart":
            model.restart()
        else:
            dying = sorted(model.group.dying)
            if dying:
                settled.update(dying)
                model.write([line_done(model.group.name, ranges_of(dying))])
                model.group.buried(dying, len(dying))
        places = model.places()
        assert len(places) == len(set(places)), "in two places"
        assert set(places) == set(range(1, model.following)) - settled
        kept = {offset for first, last, _ in model.state.unsettled for offset in range(first, last + 1)}
        assert kept == set(places), "the lines say something else"
    for offset, times in model.out():
        assert model.state.unsettled.get(offset) == times


def test_what_comes_back_is_next_in_the_order_of_offsets() -> None:
    model = Model()
    model.give_new(0, 3)
    model.give_new(1, 3)
    model.group.back(model.flights[1].drain(), b"")
    model.group.back(model.flights[0].drain(), b"")
    chunks = [model.group.pop(), model.group.pop()]
    assert [list(chunk.offsets) for chunk in chunks if chunk] == [[1, 2, 3], [4, 5, 6]]
    assert model.group.pop() is None


def test_the_look_ahead_over_a_busy_key_is_bounded() -> None:
    model = Model()
    model.group.give(model.flights[0], [1], 1, S, b"k")
    for offset in range(2, MAX_PARKED + 2):
        assert model.group.busy(b"k", offset)
        assert model.group.park(offset, 0, b"k")
    model.write()
    before = model.group.next
    assert not model.group.park(before, 0, b"k")
    assert model.group.next == before
    assert model.group.take_lines() == []
    assert len(model.state.unsettled) == 2
    model.write(model.group.done(model.group.ack(model.flights[0], Ack([(1, 1)]))[0]))
    freed = model.group.pop()
    assert freed is not None
    assert (list(freed.offsets), freed.tries) == ([2], 0)
    assert model.group.busy(b"k", 3)
    assert not model.group.busy(b"k", 2)
    assert model.group.park(before, 0, b"k")


def test_a_group_on_a_rare_topic_has_no_hole_for_the_messages_of_others() -> None:
    model = Model()
    for offset in range(1000, 100_000, 1000):
        model.group.give(model.flights[0], [offset], 1, S)
    model.write()
    assert len(model.state.unsettled) == 99
    model.write(model.group.done(model.group.ack(model.flights[0], Ack([], (98_000, 1)))[0]))
    assert list(model.state.unsettled) == [(99_000, 99_000, 1)]
    assert model.state.settled == 99_000
    model.write(model.group.done(model.group.ack(model.flights[0], Ack([(99_000, 1)]))[0]))
    assert len(model.state.unsettled) == 0
    assert model.state.settled == 99_001


def test_backing_off_grows_and_is_bounded() -> None:
    model = Model()
    model.give_new(0, 1)
    waits = []
    for times in range(1, 12):
        assert model.group.nack(model.flights[0], (1, times), None, b"", model.now_ns)
        due_ns = model.group.due_ns
        assert due_ns is not None
        waits.append((due_ns - model.now_ns) // S)
        model.now_ns = due_ns
        model.give_again(0)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
