"""Rights over patterns: coverage against an enumeration of topics, and what a refusal says."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busd.rules.access import ANYBODY, NEEDS, Identity, Rights, covers, refusal
from busd.words.commands import COMMANDS
from busd.words.topics import matches, parse_patterns

# `other` stands for every token that the patterns do not have; they are as long as 3, so topics of 4 decide.
TOKENS = (b"a", b"b", b"_s", b"other")
TOPICS = [b".".join(tokens) for count in range(1, 5) for tokens in product(TOKENS, repeat=count)]
patterns = st.builds(
    lambda tokens, rest: b".".join([*tokens, b">"] if rest or not tokens else tokens),
    st.lists(st.sampled_from([b"a", b"b", b"_s", b"*"]), max_size=3),
    st.booleans(),
).filter(lambda pattern: pattern.count(b".") < 3)


@settings(max_examples=400, deadline=None)
@given(allowed=patterns, asked=patterns)
def test_covering_is_naming_every_topic_that_the_other_names(allowed: bytes, asked: bytes) -> None:
    named = [topic for topic in TOPICS if matches(asked, topic)]
    assert named, "a pattern that names nothing proves nothing"
    assert covers(allowed, asked) == all(matches(allowed, topic) for topic in named)


@pytest.mark.parametrize(
    ("allowed", "asked", "expected"),
    [
        (b"orders.>", b"orders.*.eu", True),
        (b"orders.>", b"orders.>", True),
        (b"orders.>", b"orders", False),
        (b"orders.>", b"*.eu", False),
        (b"orders.*", b"orders.>", False),
        (b"orders.*.eu", b"orders.7.eu", True),
        (b"orders.*.eu", b"orders.7.us", False),
        (b"orders", b"orders.eu", False),
        (b">", b"a.*.>", True),
        (b"*", b">", False),
        # The system's own topics are for those only whose rights name them.
        (b">", b"_dead.>", False),
        (b"*.>", b"_dead.g.t", False),
        (b"_dead.>", b"_dead.*.jobs.eu", True),
        (b"_dead.mail.>", b"_dead.>", False),
    ],
)
def test_covering(allowed: bytes, asked: bytes, expected: bool) -> None:
    assert parse_patterns(allowed + b"," + asked)
    assert covers(allowed, asked) is expected


def test_what_is_asked_needs_one_pattern_that_covers_it_of_any_of_the_rights() -> None:
    rights = Rights(sub=(b"a.>", b"b"), admin=(b"c",))
    assert rights.cover(["sub"], b"a.x")
    assert rights.cover(["sub"], b"b")
    assert not rights.cover(["sub"], b"c")
    assert rights.cover(["sub", "admin"], b"c")
    assert not rights.cover(["pub"], b"b")
    assert not rights.cover([], b"b")
    # Together they would, but none does alone.
    assert not Rights(sub=(b"a", b"a.>")).cover(["sub"], b">")


def test_a_refusal_says_what_would_be_right_and_blames_only_what_is_not_covered() -> None:
    web = Identity("web", Rights(sub=(b"a.>", b"b")))
    error = refusal(web, ["sub"], [b"b", b"secret.>"])
    assert str(error) == "DENIED web may not sub secret.>; its rights: sub a.>, b"
    assert refusal(web, ["pub"], [b"b"]).text == "web may not pub b; its rights: pub nothing"
    both = refusal(web, ["sub", "admin"], [b">"]).text
    assert both == "web may not sub or admin >; its rights: sub a.>, b; admin nothing"


def test_a_refusal_does_not_print_a_whole_file() -> None:
    many = Identity("web", Rights(pub=tuple(b"t%d" % number for number in range(1000))))
    assert refusal(many, ["pub"], [b"x"]).text.endswith("t6, t7, … (992 more)")


def test_every_command_needs_something_that_is_decided() -> None:
    assert set(NEEDS) == set(COMMANDS)
    assert ANYBODY.rights is None
