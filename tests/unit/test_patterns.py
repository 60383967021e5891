"""Matching: the trie, the matcher and the plain grammar say the same of every topic."""

from __future__ import annotations

import random
import re
import sys
import tracemalloc
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busd.words import patterns as module
from busd.words.patterns import PatternIndex, Wanted, matcher, remembering
from busd.words.topics import MAX_PATTERNS, matches

tokens = st.sampled_from([b"a", b"b", b"c", b"_x"])
topics = st.lists(tokens, min_size=1, max_size=4).map(b".".join)
wild = st.tuples(st.lists(tokens | st.just(b"*"), max_size=4), st.booleans()).filter(lambda pair: pair[0] or pair[1])
patterns = wild.map(lambda pair: b".".join([*pair[0], *([b">"] if pair[1] else [])]))


def plainly(pattern: bytes, topic: bytes) -> bool:
    """The grammar as a regular expression; system topics hide from wildcards in front."""
    if topic.startswith(b"_") and not pattern.startswith(b"_"):
        return False
    text = re.escape(pattern).replace(rb"\*", rb"[^.]+")
    text = text.replace(rb">", rb".+")
    return re.fullmatch(text, topic) is not None


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (b"a", [b"a"], [b"a.b", b"b", b"aa", b"_a"]),
        (b"*", [b"a", b"b"], [b"a.b", b"_a"]),
        (b">", [b"a", b"a.b.c"], [b"_a", b"_a.b"]),
        (b"a.>", [b"a.b", b"a.b.c", b"a._b"], [b"a", b"b.a"]),
        (b"*.b", [b"a.b", b"b.b"], [b"a", b"a.b.c", b"_a.b"]),
        (b"a.*.c", [b"a.b.c", b"a._b.c"], [b"a.c", b"a.b.b.c"]),
        (b"*.*.>", [b"a.b.c", b"a.b.c.d"], [b"a.b", b"_a.b.c"]),
        (b"_x.>", [b"_x.a"], [b"_x", b"x.a", b"_y.a"]),
        (b"_x", [b"_x"], [b"x"]),
    ],
)
def test_which_topics_a_pattern_names(pattern: bytes, yes: list[bytes], no: list[bytes]) -> None:
    index: PatternIndex[str] = PatternIndex()
    index.add(pattern, "it")
    match, reader = matcher((pattern,)), remembering((pattern,))
    for topic in yes:
        assert match(topic)
        assert reader(topic)
        assert matches(pattern, topic)
        assert index.find(topic) == ("it",)
    for topic in no:
        assert not match(topic)
        assert not reader(topic)
        assert not matches(pattern, topic)
        assert index.find(topic) == ()


@given(wanted=st.lists(patterns, min_size=1, max_size=MAX_PATTERNS), asked=st.lists(topics, max_size=8))
def test_a_matcher_is_the_grammar(wanted: list[bytes], asked: list[bytes]) -> None:
    match, reader = matcher(wanted), remembering(wanted)
    for topic in asked + asked:
        named = any(plainly(pattern, topic) for pattern in wanted)
        assert any(matches(pattern, topic) for pattern in wanted) is named
        assert match(topic) is named
        assert reader(topic) is named


def calls(ask: Wanted, topics: list[bytes]) -> int:
    """How many functions it takes to ask of these, Python's and C's."""
    made = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        for topic in topics:
            ask(topic)
    finally:
        sys.setprofile(before)
    return made


@pytest.mark.parametrize(
    ("one", "many"),
    [
        (b"*.x", [b"*.q%d" % number for number in range(MAX_PATTERNS)]),
        (b"a.*.c", [b"a.*.%d.>" % number for number in range(MAX_PATTERNS)]),
        (b"*.*.c", [b"t%d.*.c" % number for number in range(MAX_PATTERNS)]),
        # All are in the running until the last token but one.
        (b"*.*.*", [b".".join(random.Random(number).choices([b"*", b"a"], k=40)) + b".z" for number in range(64)]),
    ],
)
def test_a_topic_asked_for_the_first_time_costs_its_tokens_not_the_patterns(one: bytes, many: list[bytes]) -> None:
    for kind in (matcher, remembering):
        topics = [b"t%d.x" % number for number in range(200)] + [b"a.b.c", b".".join([b"a"] * 41)]
        tokens = sum(topic.count(b".") + 1 for topic in topics)
        assert calls(kind([one]), topics) < 1000 + 8 * len(topics) + tokens
        # What is made once, when it is first asked, is for all of the patterns.
        match = kind(many)
        for topic in (b"first.time", b"a.first.time", topics[-1]):
            match(topic)
        assert calls(match, topics) <= 8 * len(topics) + tokens


def test_many_readers_together_remember_no_more_than_one_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kept an answer for every topic of the server, 2.5 MB, as long as its subscription lasted."""
    monkeypatch.setattr(module, "_CACHE", 1000)
    monkeypatch.setattr(module, "_ANSWERS", module._Answers())
    topics = [b"t%d.x" % number for number in range(1000)]
    readers = [remembering((b"*.n%d" % number, b"*.x")) for number in range(50)]
    tracemalloc.start()
    try:
        for reader in readers:
            assert all(map(reader, topics))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A dictionary of a thousand has 37 kB; what a reader has made of its patterns about 1 kB.
    assert kept < 4 * 37_000 + 50 * 2_000
    # They are right all the same.
    assert all(map(readers[0], topics))
    assert not readers[0](b"a")


actions = st.lists(st.tuples(st.booleans(), patterns, st.integers(0, 3), topics), max_size=40)


@settings(max_examples=80)
@given(actions=actions)
def test_an_index_is_a_list_of_pairs(actions: list[tuple[bool, bytes, int, bytes]]) -> None:
    index: PatternIndex[int] = PatternIndex()
    pairs: set[tuple[bytes, int]] = set()
    for add, pattern, value, topic in actions:
        if add:
            index.add(pattern, value)
            pairs.add((pattern, value))
        elif (pattern, value) in pairs:
            index.remove(pattern, value)
            pairs.remove((pattern, value))
        else:
            with pytest.raises(KeyError):
                index.remove(pattern, value)
        found = index.find(topic)
        assert len(found) == len(set(found))
        assert set(found) == {value for pattern, value in pairs if plainly(pattern, topic)}
    for pattern, value in sorted(pairs):
        index.remove(pattern, value)
    assert index._root.empty, "nodes that nothing needs are still there"


def test_values_come_once_whatever_patterns_name_the_topic() -> None:
    index: PatternIndex[str] = PatternIndex()
    for pattern in (b"a", b"*", b">", b"a.*"):
        index.add(pattern, "it")
    assert index.find(b"a") == ("it",)
    index.remove(b"a", "it")
    assert index.find(b"a") == ("it",)


def test_what_is_remembered_is_bounded_and_forgotten_when_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CACHE", 3)
    index: PatternIndex[str] = PatternIndex()
    index.add(b"a.*", "it")
    match = remembering((b"a.*",))
    for number in range(10):
        topic = b"a.%d" % number
        assert index.find(topic) == index.find(topic) == ("it",)
        assert match(topic)
        assert match(topic)
        assert len(index._found) <= 3
    index.remove(b"a.*", "it")
    assert index.find(b"a.9") == ()


def test_a_failed_removal_changes_nothing() -> None:
    index: PatternIndex[str] = PatternIndex()
    index.add(b"a.b", "it")
    for pattern, value in ((b"a.b", "other"), (b"a.b.>", "it"), (b"a", "it"), (b"c", "it"), (b">", "it")):
        with pytest.raises(KeyError):
            index.remove(pattern, value)
    assert index.find(b"a.b") == ("it",)
