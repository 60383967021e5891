"""Finding what is not wanted any more in the middle of a store, and giving its space back: segments go whole, stretches
are punched out, what is left of a segment is written anew.

Runs in the trim thread, one sweep at a time.  It must not know readers.  What was found of a segment is remembered, so
that it is looked into again only when something has changed that matters to it.  Invariants:
1. A segment is deleted only at the front of the log, and when no group that covers what stood in it can hear of a loss;
   elsewhere a hole `settled` with counts takes its place.
2. Nothing wanted goes, except what a cap names.
3. A rewrite needs room for what survives, and is left out where that room is not there.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

from busd.rules import retention
from busd.rules.envelope import BadRecord
from busd.rules.record import Batch
from busd.rules.rewrite import Survivors
from busd.rules.segment_index import SegmentIndex
from busd.rules.wanted import Claims, Cover, Covers, expired, wanted_of
from busd.rules.weigh import SETTLED, stretches, weigh, weight_bytes
from busd.words.settings import StoreRule
from busd.words.units import NS_PER_S
from busd.world.disk import DiskFailed, DiskFull, File
from busd.world.punch import Puncher
from busd.world.segment import Segment, Shelf
from busd.world.store_merge import Choice
from busd.world.store_ttl import ends_ns, with_ttl
from busd.world.trim_work import TrimWork

# A punched stretch costs a few syncs, so it must be worth them; near the cap anything that frees some blocks is.
PUNCH_BYTES = 1 << 20
TIGHT_PUNCH_BYTES = 64 << 10
# Topics of a segment are remembered by name up to this many: 2 KB for each of the segments, of which there may be many.
_TOPICS = 32
# So many small ones together are made one: then each byte is written anew few times.
_SMALL_SEGMENTS = 4
# Some message has outlived its ttl because a group has it out: so much later that may be over.
_AGAIN_NS = 60 * NS_PER_S
# Segments that a sweep has not seen before cost a read of their index: after a start, so many a second.
_NEW_SEGMENTS = 16


@dataclass(slots=True, frozen=True)
class Sweep:
    """What a sweep goes by.  `claims` None: there are no groups; `room_bytes`: how much a rewrite may take for a while;
    `reset`: the last offset at which a topic was RESET."""

    claims: Claims | None
    now_ns: int
    room_bytes: int
    reset: int = 0
    tight: bool = False


@dataclass(slots=True)
class _Known:
    """What is remembered of a sealed segment.

    `messages` by the groups that cover them, and who covers what holes stand for; `ends_ns`: when ttls run out that are
    not yet taken into account.  As of the last look: `level`, how much was wanted in 64ths, `want`, how many messages
    of it, and `reset`, up to where a RESET was seen; -1 before the first.
    """

    covers: Covers | None
    messages: dict[Cover, int]
    behind: set[Cover]
    topics: frozenset[bytes] | None
    ends_ns: list[int]
    level: int = -1
    reset: int = 0
    want: int = -1
    tight: bool = False

    @property
    def total(self) -> int:
        return sum(self.messages.values())


@dataclass(slots=True)
class _Found:
    """What a look at a segment found: weights of its entries (none when all are 0), and about how many bytes of it are
    wanted."""

    weights: list[int]
    want_bytes: int

    @property
    def alive(self) -> frozenset[int]:
        return frozenset([number for number, weight in enumerate(self.weights) if weight])


class Sweeper:
    """See the module."""

    def __init__(self, shelf: Shelf, rule: StoreRule) -> None:
        self._shelf = shelf
        self._rule = rule
        self._known: dict[Segment, _Known] = {}
        self._puncher = Puncher(shelf)
        self._acked = rule.retain == "acked"
        # What the last sweep went by, when it left nothing undone.
        self._settled: tuple[object, ...] = ()
        self._unfinished = False
        self._cramped = False
        # Groups, the last RESET, and the end of the active segment when it was last weighed.
        self._weighed: tuple[object, int, int] = (None, 0, 0)
        self._reset_seen = 0

    def holds(self, segment: Segment, wanted: Callable[[bytes], bool]) -> bool:
        """False when the segment is known to hold no such topic.  From any thread."""
        known = self._known.get(segment)
        return known is None or known.topics is None or any(map(wanted, known.topics))

    def wanted(self, segment: Segment, whole: int) -> int:
        """About how many messages of a segment groups want; `whole` when that is not known."""
        known = self._known.get(segment)
        return whole if known is None or known.want < 0 else min(whole, known.want)

    def sweep(self, sweep: Sweep, work: TrimWork) -> None:
        """Give back what can be given back, oldest first.

        Raises:
            DiskFull, DiskFailed, OSError, BadRecord: what was done is done, the rest is looked at again.
        """
        work.result.roll = self._over(sweep, work.segments[-1]) or (
            (sweep.tight or self._emptied(sweep, work.segments[-1])) and self._worth_closing(sweep, work.segments)
        )
        reasons = (sweep.claims, sweep.reset, sweep.tight, tuple(work.segments))
        if reasons == self._settled and not self._due(sweep):
            return
        for gone in self._known.keys() - set(work.segments):
            del self._known[gone]
        self._settled, self._unfinished = (), False
        tight = sweep.tight or self._cramped
        found: dict[Segment, _Found] = {}
        try:
            self._look_at_all(sweep, tight, work, found)
            count = 0
            while count < len(work.segments) - 1 and self._passed(sweep, work, count, found):
                count += 1
            if count:
                self._secure(work)
                work.delete(count)
            self._punch(TIGHT_PUNCH_BYTES if tight else PUNCH_BYTES, work, found)
            self._rewrite(sweep, work, found)
            self._cramped = False
        except (DiskFull, DiskFailed, OSError, BadRecord) as error:
            self._cramped = isinstance(error, DiskFull)
            for segment in found.keys() & self._known.keys():
                self._known[segment].level = -1
            raise
        if not self._unfinished and not work.result.gone:
            self._settled = reasons

    def _over(self, sweep: Sweep, segment: Segment) -> bool:
        """True when groups have settled all of the active segment, and closing it gives enough back."""
        index, claims = segment.index, sweep.claims
        if not self._acked or claims is None or index is None or not len(index):
            return False
        if index.end - segment.data_at < PUNCH_BYTES:
            return False
        some = map(claims.claim, list(index.topics))
        return all(claim is not None and not claim.has(segment.first, index.last) for claim in some)

    def _emptied(self, sweep: Sweep, segment: Segment) -> bool:
        """True, once for each RESET, when it may have taken much of what no more comes to where everything is full."""
        index, new = segment.index, sweep.reset > max(self._reset_seen, segment.first)
        self._reset_seen = sweep.reset
        return new and index is not None and index.end - segment.data_at >= PUNCH_BYTES

    def _worth_closing(self, sweep: Sweep, segments: Sequence[Segment]) -> bool:
        """True when enough of the active segment is not wanted that closing it gives something back."""
        segment, index = segments[-1], segments[-1].index
        if index is None or not len(index) or self._weighed == (sweep.claims, sweep.reset, index.end):
            return False
        self._weighed = (sweep.claims, sweep.reset, index.end)
        claims = sweep.claims if self._acked else None
        # The loop appends to it meanwhile.
        count = len(index)
        weights = weigh(index, count, index.last, claims, self._shelf.floor_of)
        want_bytes = sum(weight_bytes(index, weights))
        if 2 * want_bytes <= index.end - segment.data_at:
            return True
        return self._puncher.able and bool(stretches(index, weights, TIGHT_PUNCH_BYTES))

    def _due(self, sweep: Sweep) -> bool:
        return any(known.ends_ns and known.ends_ns[0] <= sweep.now_ns for known in self._known.values())

    # Looking.

    def _look_at_all(self, sweep: Sweep, tight: bool, work: TrimWork, found: dict[Segment, _Found]) -> None:
        new = 0
        for number, segment in enumerate(work.segments[:-1]):
            if segment not in self._known:
                new += 1
                if new > _NEW_SEGMENTS and not tight:
                    self._unfinished = True
                    return
            look = self._look(sweep, tight, work.segments, number)
            if look is not None:
                found[segment] = look

    def _look(self, sweep: Sweep, tight: bool, segments: Sequence[Segment], number: int) -> _Found | None:
        """What is wanted of a segment; None when nothing has changed that could free more of it."""
        segment, last = segments[number], segments[number + 1].prev
        covers = sweep.claims.covers if sweep.claims is not None else None
        known = self._known.get(segment)
        if known is None or known.covers is not covers:
            known = self._known[segment] = self._remember(segments, number, covers, known)
        want = self._want(sweep, known, segment.first, last)
        level = -(-want * 64 // known.total) if known.total else 0
        reset = sweep.reset if sweep.reset > segment.first else 0
        due = [end_ns for end_ns in known.ends_ns if end_ns <= sweep.now_ns]
        tight = tight or known.tight
        same = (known.level, known.reset, known.tight) == (level, reset, tight) and not due
        nothing = level == 64 and not reset and not due
        known.level, known.reset, known.want, known.tight = level, reset, want, tight
        del known.ends_ns[: len(due)]
        if same or nothing:
            return None
        if not want:
            return _Found([], 0)
        found = self._weigh(sweep, segments, number)
        known.want = min(want, sum(found.weights))
        return found

    def _weigh(self, sweep: Sweep, segments: Sequence[Segment], number: int) -> _Found:
        index = self._index(segments, number)
        claims = sweep.claims if self._acked else None
        weights = weigh(index, len(index), segments[number + 1].prev, claims, self._shelf.floor_of)
        if index.headed:
            held = False
            for entry, batch in with_ttl(self._file(segments[number]), segments[number].size, index):
                marks = self._marks(batch, sweep)
                weights[entry] = min(weights[entry], batch.n if marks is True else sum(marks or b""))
                left = () if held or not marks else expired(batch, sweep.now_ns)
                held = held or any(marks is True or (marks and marks[at]) for at in left)
            if held:
                insort(self._known[segments[number]].ends_ns, sweep.now_ns + _AGAIN_NS)
        return _Found(weights if any(weights) else [], sum(weight_bytes(index, weights)))

    def _index(self, segments: Sequence[Segment], number: int) -> SegmentIndex:
        index = self._shelf.index(segments, number, True)
        assert index is not None
        return index

    def _remember(
        self, segments: Sequence[Segment], number: int, covers: Covers | None, known: _Known | None
    ) -> _Known:
        index = self._index(segments, number)
        by_cover: dict[Cover, int] = {}
        if covers is None or not covers.patterns:
            by_cover[()] = index.pairs.total()
        else:
            for topic, count in index.pairs.totals().items():
                cover = covers.of(topic)
                by_cover[cover] = by_cover.get(cover, 0) + count
        behind = {
            covers.of(topic) for hole in list(index.holes.values()) for topic in hole.counts or {} if covers is not None
        }
        names = index.pairs.different()
        topics = frozenset(names) if len(names) <= _TOPICS else None
        segment = segments[number]
        ends = known.ends_ns if known is not None else ends_ns(self._file(segment), segment.size, index)
        return _Known(covers, by_cover, behind, topics, ends)

    def _file(self, segment: Segment) -> File:
        file = self._shelf.file(segment, True)
        assert file is not None
        return file

    def _marks(self, batch: Batch, sweep: Sweep) -> Survivors:
        return wanted_of(batch, sweep.claims if self._acked else None, self._shelf.floor_of, sweep.now_ns, sweep.claims)

    def _want(self, sweep: Sweep, known: _Known, first: int, last: int) -> int:
        """About how many messages of a segment groups want; 0 only when they want none."""
        if not self._acked or sweep.claims is None:
            return known.total
        want = 0
        for cover, count in known.messages.items():
            claim = sweep.claims.of(cover)
            if claim is None or claim.next <= first:
                want += count
            else:
                rest = max(0, last + 1 - claim.next)
                ahead = max(1, count * rest // (last + 1 - first)) if rest else 0
                want += min(count, ahead + claim.count(first, last))
        return want

    # Giving back.

    def _secure(self, work: TrimWork) -> None:
        if self._acked:
            work.secure()

    def _passed(self, sweep: Sweep, work: TrimWork, number: int, found: Mapping[Segment, _Found]) -> bool:
        """True when nothing in a segment is wanted and no group can come to it any more."""
        segment = work.segments[number]
        look, known = found.get(segment), self._known.get(segment)
        if known is None or not (look.weights == [] if look is not None else not known.total):
            return False
        if not known.total and not segment.rewritten:
            # It never held a message: it costs nothing, and says when the log began.
            return False
        last = work.segments[number + 1].prev
        for cover in {*known.messages, *known.behind}:
            claim = sweep.claims.of(cover) if sweep.claims is not None else None
            if claim is not None and claim.has(segment.first, last):
                return False
        return self._sound(work, number)

    def _sound(self, work: TrimWork, number: int) -> bool:
        """False where files that cannot be read lie beside it: nothing is built over them."""
        lo, hi = work.segments[number].first, work.segments[number + 1].first
        return not any(lo < first < hi for first in self._shelf.spoilt)

    def _punch(self, least_bytes: int, work: TrimWork, found: dict[Segment, _Found]) -> None:
        for number, segment in enumerate(work.segments[:-1]):
            look = found.get(segment)
            if look is None or not self._puncher.able or not (look.weights or self._cramped):
                continue
            index = self._index(work.segments, number)
            # What is dead altogether is written anew, which takes a file; on a full disk there is no room for one.
            weights = look.weights or [0] * len(index)
            dead = stretches(index, weights, least_bytes) if not index.unknown else []
            if dead:
                self._secure(work)
            new = self._puncher.punch(work.segments, number, dead) if dead else None
            if new is not None:
                self._known[new] = self._known[segment]
                work.replace(number, number + 1, new)
                # Its index has fewer entries now.
                weight_at = dict(zip(index.positions, weights, strict=True))
                weights = [weight_at[position] for position in self._index(work.segments, number).positions]
                found[new] = _Found(weights if any(weights) else [], look.want_bytes)

    def _rewrite(self, sweep: Sweep, work: TrimWork, found: Mapping[Segment, _Found]) -> None:
        chosen: dict[Segment, _Found] = {}
        for number, segment in enumerate(work.segments[:-1]):
            look, known = found.get(segment), self._known.get(segment)
            if look is None and known is not None and not known.total and segment.rewritten:
                # Nothing but holes: it may join a neighbour.
                look = _Found([], 0)
            room = segment.size - segment.data_at - segment.dead_bytes
            if look is not None and 2 * look.want_bytes <= room and self._sound(work, number):
                chosen[segment] = look
        self._choose_small(sweep, work, chosen)
        for run in _runs(work.segments, chosen):
            while run:
                # What goes makes room for what comes.
                room = sweep.room_bytes + work.result.freed_bytes
                want = [chosen[segment].want_bytes for segment in run]
                some = run[: retention.merge_count(want, max(0, min(self._rule.segment_bytes, room)))]
                run = run[len(some) :]
                if sum(want[: len(some)]) > max(0, room):
                    self._unfinished = True
                    self._known[some[0]].level = -1
                elif len(some) > 1 or self._known[some[0]].total:
                    self._merge(sweep, work, some, chosen)

    def _choose_small(self, sweep: Sweep, work: TrimWork, chosen: dict[Segment, _Found]) -> None:
        """Add what is left of segments rewritten before, where several of them lie together: a file takes whole blocks,
        and an opening."""
        limit_bytes = self._rule.segment_bytes // 8
        numbers = {
            segment: number
            for number, segment in enumerate(work.segments[:-1])
            if segment in chosen
            or (
                (segment.rewritten and segment in self._known)
                and segment.size - segment.data_at <= limit_bytes
                and self._sound(work, number)
            )
        }
        for run in _runs(work.segments, numbers):
            small = [segment for segment in run if segment not in chosen]
            if len(small) >= _SMALL_SEGMENTS:
                chosen.update({segment: self._weigh(sweep, work.segments, numbers[segment]) for segment in small})

    def _merge(self, sweep: Sweep, work: TrimWork, some: Sequence[Segment], chosen: Mapping[Segment, _Found]) -> None:
        choices = [Choice(chosen[segment].alive, lambda _, batch: self._marks(batch, sweep)) for segment in some]
        self._secure(work)
        work.merge(some, choices, SETTLED)


def _runs(segments: Sequence[Segment], chosen: Container[Segment]) -> list[list[Segment]]:
    """The chosen ones, neighbours together."""
    runs: list[list[Segment]] = []
    before = False
    for segment in segments:
        if segment in chosen:
            if not before:
                runs.append([])
            runs[-1].append(segment)
        before = segment in chosen
    return runs
