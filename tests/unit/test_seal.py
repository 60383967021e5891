"""Sealing: offsets in the order of arrival, batches that can be framed, counts of a RESET."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busd.rules import column as columns
from busd.rules import seal as module
from busd.rules.column import MAX_TOPICS
from busd.rules.items import Item
from busd.rules.record import Batch, frame, parse
from busd.rules.seal import BATCH_BYTES, Draft, Sealed, seal
from busd.words.requests import Publish

# offset, topic, payload, kind
Row = tuple[int, bytes, bytes, str]


def one_store(topic: bytes) -> str:
    """All in main."""
    return "main"


def by_first_letter(topic: bytes) -> str:
    """A store a letter."""
    return topic[:1].decode()


def nothing_live(topic: bytes) -> int:
    """No topic has a message."""
    return 0


def run(topics: bytes | list[bytes], count: int = 1, kind: Any = "message", headers: bool = False) -> Publish:
    """A run of messages."""
    count = count if isinstance(topics, bytes) else len(topics)
    items: list[Item] = [b"p%d" % at for at in range(count)]
    if headers:
        items[0] = [b"p0", b"k", b"v"]
    return Publish(topics, items, 10 * count, headers=headers, kind=kind)


def framed(draft: Draft) -> Batch:
    """The batch of a draft, written and read again."""
    made = frame(
        draft.offsets[0], 1, 0, 0, draft.flags, draft.topics, draft.column, draft.steps, draft.items, draft.names,
        draft.tally,
    )  # fmt: skip
    read = parse(made.record)
    assert isinstance(read, Batch)
    assert list(read.offsets()) == list(draft.offsets)
    assert (list(made.counts()), list(made.lasts())) == (list(read.counts()), list(read.lasts()))
    return read


def rows(draft: Draft) -> list[Row]:
    """Its messages."""
    batch = framed(draft)
    kinds = {"-": "message", "h": "message", "e": "eof", "r": "reset"}
    return [
        (offset, batch.topic_of(at), payload, kinds[batch.flags])
        for at, (offset, payload) in enumerate(zip(batch.offsets(), batch.payloads(), strict=True))
    ]


names = st.sampled_from([b"a.x", b"a.y", b"b", b"c", *(b"w.%d" % number for number in range(200))])
runs = st.lists(
    st.one_of(
        st.tuples(names, st.integers(1, 5), st.sampled_from(["message", "message", "eof"]), st.booleans()),
        st.tuples(st.lists(names, min_size=1, max_size=150), st.just(1), st.just("message"), st.booleans()),
    ),
    min_size=1,
    max_size=10,
)


@settings(max_examples=80, deadline=None)
@given(asked=runs, first=st.integers(1, 5000), stores=st.booleans(), lone=st.booleans())
def test_everything_is_dealt_once_in_the_order_of_arrival(
    asked: list[tuple[Any, int, Any, bool]], first: int, stores: bool, lone: bool
) -> None:
    made = [run(topics, count, kind, headers and kind == "message") for topics, count, kind, headers in asked]
    route = by_first_letter if stores else one_store
    expected: list[Row] = []
    firsts = []
    offset = first
    for one in made:
        firsts.append(offset)
        for at, item in enumerate(one.items):
            topic = one.topics if isinstance(one.topics, bytes) else one.topics[at]
            expected.append((offset, topic, item if isinstance(item, bytes) else item[0], one.kind))
            offset += 1
    sealed = seal(made, first, route, nothing_live, "main" if lone and not stores else "")
    assert (sealed.firsts, sealed.next, sealed.removed) == (firsts, offset, {})
    for store, drafts in sealed.drafts.items():
        found = [row for draft in drafts for row in rows(draft)]
        assert found == [row for row in expected if route(row[1]) == store]
        assert all(len(draft.topics) <= MAX_TOPICS for draft in drafts)
        assert all(len({row[3] for row in rows(draft)}) == 1 for draft in drafts)
    assert sum(len(draft.items) for drafts in sealed.drafts.values() for draft in drafts) == len(expected)


def test_runs_of_one_topic_become_one_dense_batch() -> None:
    sealed = seal([run(b"a", 3), run(b"a", 2)], 7, one_store, nothing_live)
    (draft,) = sealed.drafts["main"]
    assert (draft.topics, draft.column, draft.steps) == ((b"a",), None, None)
    assert list(draft.offsets) == [7, 8, 9, 10, 11]


def test_the_items_of_a_single_run_are_not_copied() -> None:
    one = run(b"a", 3)
    (draft,) = seal([one], 1, one_store, nothing_live).drafts["main"]
    assert draft.items is one.items


def test_small_runs_for_the_only_store_there_is_are_one_batch() -> None:
    asked = [run(b"a", 2), run([b"b", b"a"]), run(b"c", headers=True)]
    sealed = seal(asked, 7, one_store, nothing_live, "main")
    (draft,) = sealed.drafts["main"]
    assert (sealed.firsts, sealed.next, draft.flags) == ([7, 9, 11], 12, "h")
    assert [row[:3] for row in rows(draft)] == [
        (7, b"a", b"p0"), (8, b"a", b"p1"), (9, b"b", b"p0"), (10, b"a", b"p1"), (11, b"c", b"p0")
    ]  # fmt: skip


def test_runs_that_are_too_large_together_stay_as_they_are() -> None:
    asked = [run(b"a", 2), run(b"b", 2)]
    asked[0].size_bytes = asked[1].size_bytes = BATCH_BYTES - 1
    one, two = seal(asked, 1, one_store, nothing_live, "main").drafts["main"]
    assert one.items is asked[0].items
    assert two.items is asked[1].items
    assert [one.topics, two.topics] == [(b"a",), (b"b",)]


def test_kinds_and_headers_have_their_flags() -> None:
    sealed = seal(
        [run(b"a"), run(b"a", headers=True), run(b"a", kind="eof"), run(b"a"), run(b"a", kind="reset")],
        1,
        one_store,
        nothing_live,
    )
    assert [draft.flags for draft in sealed.drafts["main"]] == ["h", "e", "-", "r"]


def counts(sealed: Sealed) -> list[int]:
    """Messages in each batch of main."""
    return [len(draft.items) for draft in sealed.drafts["main"]]


def test_batches_are_cut_by_size_and_a_run_never_is() -> None:
    small = Publish(b"a", [b"x"], BATCH_BYTES // 4)
    large = Publish(b"a", [b"x"], 3 * BATCH_BYTES)
    assert counts(seal([small] * 4, 1, one_store, nothing_live)) == [4]
    assert counts(seal([small] * 5, 1, one_store, nothing_live)) == [4, 1]
    assert counts(seal([small, large, small], 1, one_store, nothing_live)) == [1, 1, 1]


@pytest.mark.parametrize("count", [1, 78, 79, 208, 209, MAX_TOPICS, MAX_TOPICS + 1, 5000])
def test_batches_are_cut_by_topics(count: int) -> None:
    singles = [run(b"t.%d" % number) for number in range(count)]
    mixed = [run([b"t.%d" % number for number in range(count)])]
    for asked in (singles, mixed, [*singles, *mixed]):
        sealed = seal(asked, 1, one_store, nothing_live)
        assert all(len(draft.topics) <= MAX_TOPICS for draft in sealed.drafts["main"])
        assert sum(len(draft.items) for draft in sealed.drafts["main"]) == sealed.next - 1
        found = [row for draft in sealed.drafts["main"] for row in rows(draft)]
        assert [row[0] for row in found] == list(range(1, sealed.next))
        assert [row[1] for row in found] == [b"t.%d" % number for number in range(count)] * (len(found) // count)
        if count <= MAX_TOPICS:
            assert len(sealed.drafts["main"]) == 1 + (sum(one.size_bytes for one in asked) > BATCH_BYTES)


@pytest.mark.parametrize("different", [70, 250, 590, 600, 5000])
def test_many_topics_are_sealed_as_they_came(different: int) -> None:
    topics = [b"t%d" % (at * 7919 % different if at % 50 else 0) for at in range(600)]
    sealed = seal([run(topics)], 5, one_store, nothing_live, "main")
    (draft,) = sealed.drafts["main"]
    assert draft.topics == tuple(dict.fromkeys(topics))
    assert rows(draft) == [(5 + at, topic, b"p%d" % at, "message") for at, topic in enumerate(topics)]


def test_batches_are_cut_by_the_length_of_their_topics() -> None:
    names = [b"t" * 190 + b".%d" % number for number in range(1900)]
    for asked, number in (([run(names)], 2), ([run(name) for name in names], 2)):
        drafts = seal(asked, 1, one_store, nothing_live).drafts["main"]
        assert max(len(b",".join(draft.topics)) for draft in drafts) <= BATCH_BYTES
        assert len(drafts) == number
        assert [row[1] for draft in drafts for row in rows(draft)] == names
        assert [draft.names for draft in drafts] == [b",".join(draft.topics) for draft in drafts]


def test_what_has_likely_too_many_topics_is_cut_before_they_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    spread = columns.spread

    def counting(named: Sequence[bytes], offsets: Sequence[int]) -> object:
        counted.append(len(named))
        return spread(named, offsets)

    monkeypatch.setattr(columns, "spread", counting)
    number = MAX_TOPICS + 300
    for names, pieces in (
        ([b"t%d" % at for at in range(number)], 2),
        # What begins like that and is few all the same is right, too.
        ([b"t%d" % min(at, 600) for at in range(number)], 2),
        ([b"t%d" % (at % 100) for at in range(number)], 1),
    ):
        counted.clear()
        drafts = seal([run(names)], 1, one_store, nothing_live).drafts["main"]
        assert [len(draft.items) for draft in drafts] == [number // pieces] * pieces
        assert [row[1] for draft in drafts for row in rows(draft)] == names
        assert max(counted) == number // pieces


def test_a_reset_of_very_many_topics_is_divided_at_once() -> None:
    """With halves each topic was looked at once more for every doubling: 1.2 s for 400,000, now 0.4."""
    names = [b"t%d" % number for number in range(5 * MAX_TOPICS)]
    large = Publish(names, [b""] * len(names), 0, kind="reset", answers="first")
    drafts = seal([large], 1, one_store, lambda topic: 1).drafts["main"]
    assert [len(draft.topics) for draft in drafts] == [MAX_TOPICS] * 5
    assert [topic for draft in drafts for topic in draft.topics] == names


def test_a_large_run_is_cut_into_pieces_of_one_size() -> None:
    large = Publish([b"a", b"b"] * 500, [b"x"] * 1000, 3 * BATCH_BYTES + 1)
    drafts = seal([large], 1, one_store, nothing_live).drafts["main"]
    assert [len(draft.items) for draft in drafts] == [250] * 4
    uneven = Publish([b"a", b"b", b"a"], [b"x"] * 3, 2 * BATCH_BYTES)
    assert [len(draft.items) for draft in seal([uneven], 1, one_store, nothing_live).drafts["main"]] == [1, 1, 1]


def test_a_store_that_takes_some_of_a_run_has_steps() -> None:
    sealed = seal([run([b"a", b"b", b"a", b"b", b"b"])], 1, by_first_letter, nothing_live)
    (a,), (b,) = sealed.drafts["a"], sealed.drafts["b"]
    assert (list(a.offsets), a.steps) == ([1, 3], (2,))
    assert (list(b.offsets), b.steps) == ([2, 4, 5], (2, 1))


# RESET.

actions = st.lists(
    st.one_of(
        st.tuples(st.just("message"), st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=4)),
        st.tuples(st.just("one"), st.sampled_from([b"a", b"b", b"c"]), st.integers(1, 4)),
        st.tuples(st.just("eof"), st.sampled_from([b"a", b"b", b"c"])),
        st.tuples(st.just("reset"), st.sets(st.sampled_from([b"a", b"b", b"c"]), min_size=1).map(sorted)),
    ),
    max_size=12,
)


@settings(max_examples=80)
@given(
    script=actions, live=st.dictionaries(st.sampled_from([b"a", b"b", b"c"]), st.integers(1, 100)), cut=st.booleans()
)
def test_a_reset_counts_what_was_live_and_what_the_commit_holds_before_it(
    script: list[tuple[Any, ...]], live: dict[bytes, int], cut: bool
) -> None:
    counts = Counter(live)
    asked: list[Publish] = []
    expected: dict[int, dict[bytes, int]] = {}
    for verb, what, *count in script:
        if verb == "reset":
            expected[len(asked)] = {topic: counts[topic] for topic in what}
            counts.update({topic: -counts[topic] for topic in what})
            asked.append(Publish(what, [b""] * len(what), 0, kind="reset"))
            continue
        asked.append(run(what, count[0] if count else 1, "eof" if verb == "eof" else "message"))
        if verb == "one":
            counts[what] += count[0]
        elif verb == "message":
            counts.update(what)
    sealed = seal(asked, 1, by_first_letter if cut else one_store, lambda topic: live.get(topic, 0))
    assert sealed.removed == {number: sum(found.values()) for number, found in expected.items()}
    for number, found in expected.items():
        assert asked[number].items == [b"%d" % found[topic] for topic in asked[number].topics]  # type: ignore[index]


def test_a_reset_of_one_topic_may_name_it_alone() -> None:
    one = Publish(b"a", [b""], 0, kind="reset")
    assert seal([run(b"a", 2), one], 1, one_store, lambda topic: 5).removed == {1: 7}
    assert one.items == [b"7"]


def test_flags_are_those_of_the_record() -> None:
    assert set(module.FLAGS) == {"message", "eof", "reset"}
