"""Group records: lines and what they add up to, frames and what damage may do to them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busd.rules.envelope import BadRecord
from busd.rules.group_records import (
    GroupState,
    States,
    apply,
    frame_lines,
    line_done,
    line_gone,
    line_new,
    line_out,
    line_seek,
    ranges_of,
    read_groups,
    scan_frames,
    snapshot,
)

BORN = line_new(b"g", (b"jobs.>", b"a.*"), 5, 10, 99)


def states_of(*lines: bytes) -> States:
    """What lines add up to."""
    states: States = {}
    for line in lines:
        apply(states, line)
    return states


def test_what_each_line_says() -> None:
    states = states_of(BORN)
    assert states[b"g"] == GroupState((b"jobs.>", b"a.*"), 5, 10, 99)
    assert states[b"g"].settled == 10
    apply(states, line_out(b"g", 21, 1, [(10, 12), (15, 15), (20, 20)]))
    state = states[b"g"]
    assert (state.next, state.settled, list(state.unsettled)) == (21, 10, [(10, 12, 1), (15, 15, 1), (20, 20, 1)])
    apply(states, line_done(b"g", [(10, 11), (15, 15)]))
    assert (state.next, state.settled, list(state.unsettled)) == (21, 12, [(12, 12, 1), (20, 20, 1)])
    apply(states, line_out(b"g", 21, 2, [(12, 12)]))
    apply(states, line_out(b"g", 30, 0, [(29, 29)]))
    assert (state.next, list(state.unsettled)) == (30, [(12, 12, 2), (20, 20, 1), (29, 29, 0)])
    apply(states, line_out(b"g", 40, 0, []))
    apply(states, line_done(b"g", []))
    assert (state.next, state.settled) == (40, 12)
    apply(states, line_seek(b"g", 7))
    assert (state.next, state.settled, list(state.unsettled)) == (7, 7, [])
    apply(states, line_gone(b"g"))
    assert states == {}


def test_the_lines_as_they_are_written() -> None:
    assert BORN == b"new g jobs.>,a.* 5 10 99"
    assert line_out(b"g", 21, 1, ranges_of([10, 11, 12, 15, 20])) == b"out g 21 1 10-12,15,20"
    assert line_done(b"g", ranges_of([])) == b"done g -"
    assert (line_seek(b"g", 7), line_gone(b"g")) == (b"seek g 7", b"gone g")
    assert ranges_of([4, 5, 6]) == [(4, 6)]
    assert ranges_of([4, 6]) == [(4, 4), (6, 6)]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"took g 1",
        b"done g",
        b"done g 1 2",
        b"done nobody 1",
        b"out nobody 1 1 1",
        b"seek nobody 1",
        b"gone nobody",
        b"done g 5-3",
        b"done g 3,3",
        b"done g 4,1-2",
        b"done g +3",
        b"done g 1_0",
        b"done g ",
        b"done g 3-",
        b"done g -3",
        b"out g 12 1 12",
        b"out g x 1 -",
        b"seek g -1",
        b"new g/ a 0 1 1",
        b"new g a\rb 0 1 1",
        b"new g a 0 1",
    ],
)
def test_what_is_no_line_changes_nothing(line: bytes) -> None:
    states = states_of(BORN, line_out(b"g", 12, 1, [(10, 11)]))
    before = states_of(BORN, line_out(b"g", 12, 1, [(10, 11)]))
    with pytest.raises(BadRecord, match="form"):
        apply(states, line)
    assert states == before


def test_the_bytes_of_a_frame() -> None:
    assert frame_lines([b"seek g 7", b"done g 1-3"]) == b"+G eeca6f6d 0000000021 seek g 7\ndone g 1-3\r\n"


HISTORY: list[list[bytes]] = [
    [BORN],
    [line_new(b"other", (b">",), 0, 1, 1)],
    [line_out(b"g", 21, 1, [(10, 20)])],
    [line_done(b"g", [(10, 12)]), line_out(b"other", 8, 1, [(1, 3), (5, 7)])],
    [line_done(b"g", [(15, 16)]), line_done(b"other", [(1, 2)])],
    [line_out(b"g", 41, 1, [(21, 40)])],
    [line_out(b"g", 41, 2, [(14, 14)])],
    [line_done(b"g", [(13, 14), (17, 19), (25, 38)])],
    [line_out(b"other", 30, 1, [(9, 9), (29, 29)])],
    [line_out(b"g", 41, 2, [(40, 40)])],
    [line_done(b"other", [(9, 9)]), line_done(b"g", [(39, 40)])],
]
FRAMES = [frame_lines(lines) for lines in HISTORY]


def settled_in(states: States) -> set[tuple[bytes, int]]:
    """Every message that is settled."""
    return {
        (name, offset)
        for name, state in states.items()
        for offset in range(1, state.next)
        if state.unsettled.get(offset) is None
    }


def test_every_prefix_is_an_earlier_state() -> None:
    data = b"".join(FRAMES)
    for size in range(len(data) + 1):
        whole = sum(sum(map(len, FRAMES[: number + 1])) <= size for number in range(len(FRAMES)))
        found = read_groups(data[:size])
        assert found.states == states_of(*[line for lines in HISTORY[:whole] for line in lines]), size
        assert (found.good_bytes, found.frames, found.flaws) == (sum(map(len, FRAMES[:whole])), whole, []), size


@pytest.mark.parametrize("bit", [1, 0x20, 0x80])
def test_no_flipped_byte_settles_anything_and_every_one_is_named(bit: int) -> None:
    data = b"".join(FRAMES)
    truth = settled_in(read_groups(data).states)
    last_at = len(data) - len(FRAMES[-1])
    for at in range(len(data)):
        found = read_groups(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])
        assert settled_in(found.states) <= truth, at
        if at >= last_at:
            assert (found.good_bytes, found.flaws) == (last_at, []), "a torn end"
        else:
            flaw = found.flaws[0]
            assert flaw.position <= at < flaw.position + flaw.size, at
            assert found.frames == len(FRAMES) - 1
            assert found.good_bytes == len(data)


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 60))
def test_foreign_bytes_anywhere_never_raise_and_settle_nothing(junk: bytes, at: int, over: int) -> None:
    data = b"".join(FRAMES)
    found = read_groups(data[:at] + junk + data[at + over :])
    assert settled_in(found.states) <= settled_in(read_groups(data).states)


def test_what_a_lost_frame_gave_out_comes_back_without_marking_what_came_later() -> None:
    lost = b"x" * len(FRAMES[2])
    found = read_groups(b"".join([*FRAMES[:2], lost, *FRAMES[3:6]]))
    state = found.states[b"g"]
    assert state.next == 41
    # 10-12 and 15-16 were settled by lines that are there; the rest of the lost 10-20 is in doubt.
    assert list(state.unsettled) == [(13, 14, 0), (17, 20, 0), (21, 40, 1)]


def test_a_group_moved_back_by_a_lost_frame_is_believed_by_what_follows() -> None:
    frames = [frame_lines([line]) for line in (BORN, line_out(b"g", 90, 1, [(10, 89)]), line_done(b"g", [(10, 89)]))]
    moved = frame_lines([line_seek(b"g", 5)])
    later = frame_lines([line_out(b"g", 8, 1, [(5, 7)])])
    state = read_groups(b"".join([*frames, b"?" * len(moved), later])).states[b"g"]
    assert (state.next, list(state.unsettled)) == (8, [(5, 7, 1)])


def test_settled_beyond_what_is_known_to_be_out_was_out() -> None:
    frames = [frame_lines([line]) for line in (BORN, line_out(b"g", 21, 1, [(10, 20)]), line_done(b"g", [(15, 16)]))]
    state = read_groups(frames[0] + b"?" + frames[2]).states[b"g"]
    assert (state.next, list(state.unsettled)) == (17, [(10, 14, 0)])


def test_doubt_ends_where_a_line_says_everything_anew() -> None:
    start = frame_lines([BORN]) + b"damage"
    seek = frame_lines([line_seek(b"g", 50)]) + frame_lines([line_out(b"g", 60, 1, [(58, 58)])])
    assert list(read_groups(start + seek).states[b"g"].unsettled) == [(58, 58, 1)]
    renewed = frame_lines([line_new(b"g", (b"x",), 0, 30, 1)]) + frame_lines([line_out(b"g", 60, 1, [(58, 58)])])
    assert list(read_groups(start + renewed).states[b"g"].unsettled) == [(58, 58, 1)]


def test_a_good_frame_that_makes_no_sense_is_named_and_casts_doubt() -> None:
    odd = frame_lines([b"later g 1 2 3"])
    data = FRAMES[0] + odd + frame_lines([line_out(b"g", 21, 1, [(18, 20)]), line_done(b"nobody", [(1, 1)])])
    found = read_groups(data)
    assert [(flaw.position, flaw.size, flaw.frame) for flaw in found.flaws] == [
        (len(FRAMES[0]), 0, 1),
        (len(FRAMES[0]) + len(odd), 0, 2),
    ]
    assert "later g" in found.flaws[0].detail
    assert list(found.states[b"g"].unsettled) == [(10, 17, 0), (18, 20, 1)]


def test_bad_lines_of_a_group_in_doubt_are_named_and_not_mended() -> None:
    data = FRAMES[0] + b"?" + frame_lines([b"out g x 1 -", b"done g 2-1"])
    found = read_groups(data)
    assert [flaw.frame for flaw in found.flaws] == [1, 1, 1]
    assert found.states == states_of(BORN)


def test_positions_of_several_flaws() -> None:
    data = FRAMES[0] + b"ab" + FRAMES[1] + b"cde" + FRAMES[2] + b"+G torn"
    lines, good, flaws = scan_frames(data)
    assert lines == HISTORY[:3]
    assert good == len(data) - 7
    assert [(flaw.position, flaw.size, flaw.frame) for flaw in flaws] == [
        (len(FRAMES[0]), 2, 1),
        (len(FRAMES[0]) + 2 + len(FRAMES[1]), 3, 2),
    ]


def test_a_snapshot_makes_the_same_states() -> None:
    states = read_groups(b"".join(FRAMES)).states
    frames = list(snapshot(states))
    assert len(frames) == 4
    assert read_groups(b"".join(frames)).states == states
    assert len(list(snapshot(states_of(BORN)))) == 1, "nothing is out, nothing more to say"


def test_no_lost_frame_of_a_snapshot_settles_anything() -> None:
    states = read_groups(b"".join(FRAMES[:9])).states
    frames = list(snapshot(states))
    later = frame_lines([line_out(b"g", 60, 1, [(50, 59)])])
    truth = settled_in(read_groups(b"".join(frames) + later).states)
    for number in range(len(frames)):
        kept = [*frames[:number], b"?" * len(frames[number]), *frames[number + 1 :]]
        assert settled_in(read_groups(b"".join([*kept, later])).states) <= truth
