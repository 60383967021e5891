"""busd.rules.runs: neighbours become one run, and only what may."""

from __future__ import annotations

from copy import deepcopy

import pytest

from busd.rules.runs import add
from busd.words.requests import Item, Ping, Publish, Request


def joined(*requests: Request) -> list[Request]:
    """The requests, added one by one."""
    out: list[Request] = []
    for request in requests:
        add(out, request)
    return out


def one(topic: bytes, item: Item, **more: object) -> Publish:
    """A run of a single message."""
    return Publish(topic, [item], 1, **more)  # type: ignore[arg-type]


def test_one_topic_stays_one_topic() -> None:
    assert joined(one(b"t", b"a"), one(b"t", b"b"), one(b"t", b"c")) == [Publish(b"t", [b"a", b"b", b"c"], 3)]


def test_different_topics_become_a_column() -> None:
    assert joined(one(b"t", b"a"), one(b"t", b"b"), one(b"u", b"c"), one(b"t", b"d")) == [
        Publish([b"t", b"t", b"u", b"t"], [b"a", b"b", b"c", b"d"], 4)
    ]


def test_columns_join_with_columns_of_any_kind() -> None:
    for first, second in (([b"u", b"v"], (b"w", b"x")), ((b"u", b"v"), [b"w", b"x"])):
        assert joined(Publish(first, [b"a", b"b"], 2), Publish(second, [b"c", b"d"], 2), one(b"t", b"e")) == [
            Publish([b"u", b"v", b"w", b"x", b"t"], [b"a", b"b", b"c", b"d", b"e"], 5)
        ]


def test_headers_of_one_are_announced_for_all() -> None:
    assert joined(one(b"t", b"a"), one(b"t", [b"b", b"k", b"v"], headers=True), one(b"t", b"c")) == [
        Publish(b"t", [b"a", [b"b", b"k", b"v"], b"c"], 3, headers=True)
    ]


@pytest.mark.parametrize(
    "other",
    [
        one(b"t", b"b", eol=b"\r\n"),
        one(b"t", b"b", answers="first"),
        one(b"t", b"", kind="eof"),
        Ping(),
    ],
)
def test_what_is_answered_differently_stays_apart(other: Request) -> None:
    requests = [one(b"t", b"a"), other, one(b"t", b"c")]
    assert joined(*deepcopy(requests)) == requests


@pytest.mark.parametrize("other", [one(b"t", b"b", answers="first"), one(b"t", b"", kind="eof")])
def test_two_that_are_answered_once_each_stay_two(other: Request) -> None:
    assert joined(other, other) == [other, other]
