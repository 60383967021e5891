"""busd.words.topics: the grammar of topics and patterns, and what matches what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busd.words.errors import BusError
from busd.words.topics import (
    MAX_PATTERNS,
    MAX_SYSTEM_TOPIC_BYTES,
    MAX_TOPIC_BYTES,
    check_topic,
    is_literal,
    is_topic,
    matches,
    parse_patterns,
)

TOPICS = [b"t", b"news.eu", b"A-Z_0-9.x", b"1", b"-", b"a._b", b"x" * MAX_TOPIC_BYTES]
NO_TOPICS = [
    b"",
    b".",
    b".a",
    b"a.",
    b"a..b",
    b"a b",
    b"a\n",
    b"a\0",
    b"a/b",
    b"a.*",
    b">",
    "ä".encode(),
    b"\xff",
    b"x" * (MAX_TOPIC_BYTES + 1),
]


@pytest.mark.parametrize("topic", TOPICS)
def test_topics(topic: bytes) -> None:
    assert is_topic(topic)
    assert check_topic(topic) == topic
    assert parse_patterns(topic) == (topic,)
    assert is_literal(topic)
    assert matches(topic, topic)


@pytest.mark.parametrize("topic", NO_TOPICS)
def test_what_is_no_topic(topic: bytes) -> None:
    assert not is_topic(topic)
    with pytest.raises(BusError) as caught:
        check_topic(topic)
    assert caught.value.code == "TOPIC"


def test_the_systems_own_topics_are_topics_but_not_for_clients() -> None:
    assert is_topic(b"_dead.x")
    with pytest.raises(BusError, match=r"^TOPIC '_dead.x' begins with _"):
        check_topic(b"_dead.x")


def test_a_dead_letter_has_a_topic_whatever_group_and_topic_it_came_from() -> None:
    longest = b"_dead.%b.%b" % (b"g" * 64, b"x" * MAX_TOPIC_BYTES)
    assert len(longest) <= MAX_SYSTEM_TOPIC_BYTES
    assert is_topic(longest)
    assert parse_patterns(longest) == (longest,)
    assert matches(b"_dead.>", longest)
    assert is_topic(b"_" + b"x" * (MAX_SYSTEM_TOPIC_BYTES - 1))
    assert not is_topic(b"_" + b"x" * MAX_SYSTEM_TOPIC_BYTES)


@pytest.mark.parametrize("pattern", [b"*", b">", b"a.*", b"*.b", b"a.*.c", b"a.>", b"*.>", b"*.*", b"_dead.>"])
def test_patterns(pattern: bytes) -> None:
    assert parse_patterns(pattern) == (pattern,)
    assert not is_literal(pattern)


@pytest.mark.parametrize(
    "pattern",
    [b"", b".", b"a.", b">.a", b"a.>.b", b"a*", b"*a", b"**", b">>", b"a>", b"a,,b", b"a,", b"a ", b"x" * 301],
)
def test_what_is_no_pattern(pattern: bytes) -> None:
    with pytest.raises(BusError) as caught:
        parse_patterns(pattern)
    assert caught.value.code == "PATTERN"


def test_several_patterns_in_their_order_without_repeats() -> None:
    assert parse_patterns(b"b,a.*,b,>,a.*") == (b"b", b"a.*", b">")


def test_not_too_many_patterns() -> None:
    assert len(parse_patterns(b",".join([b"t%d" % n for n in range(MAX_PATTERNS)]))) == MAX_PATTERNS
    with pytest.raises(BusError, match=r"^LIMIT 65 patterns; a subscription takes 64$"):
        parse_patterns(b",".join([b"t%d" % n for n in range(MAX_PATTERNS + 1)]))


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (b"a", [b"a"], [b"b", b"a.b", b"aa"]),
        (b"*", [b"a", b"b"], [b"a.b", b"_a"]),
        (b">", [b"a", b"a.b", b"a.b.c", b"a._b"], [b"_a", b"_a.b"]),
        (b"a.*", [b"a.b", b"a.c"], [b"a", b"a.b.c", b"b.b"]),
        (b"*.b", [b"a.b", b"c.b"], [b"b", b"a.b.b", b"a.c", b"_a.b"]),
        (b"a.>", [b"a.b", b"a.b.c"], [b"a", b"aa.b", b"b.a"]),
        (b"a.*.c", [b"a.b.c"], [b"a.c", b"a.b.b.c", b"a.b.d"]),
        (b"*.>", [b"a.b", b"a.b.c"], [b"a", b"_a.b"]),
        (b"_dead.>", [b"_dead.a"], [b"dead.a", b"_dead", b"_a.b"]),
        (b"_dead.*", [b"_dead.a"], [b"_dead.a.b"]),
    ],
)
def test_matches(pattern: bytes, yes: list[bytes], no: list[bytes]) -> None:
    assert [topic for topic in yes + no if matches(pattern, topic)] == yes


TOKENS = st.lists(st.sampled_from([b"a", b"b", b"_c"]), min_size=1, max_size=4)


@given(TOKENS, st.lists(st.booleans(), min_size=4, max_size=4), st.integers(0, 4))
def test_a_topic_matches_what_it_is_made_into(tokens: list[bytes], stars: list[bool], rest_from: int) -> None:
    topic = b".".join(tokens)
    made = [b"*" if star else token for star, token in zip(stars, tokens, strict=False)]
    if rest_from < len(made):
        made = [*made[:rest_from], b">"]
    pattern = b".".join(made)
    assert parse_patterns(pattern) == (pattern,)
    assert matches(pattern, topic) is (not topic.startswith(b"_") or pattern.startswith(b"_"))
