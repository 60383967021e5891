"""busd.wiring.cli_split: from bytes to messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busd.wiring.cli_split import GROUP_BYTES, GROUP_MESSAGES, AsRead, Delimited, Splitter, TooLong, Whole, groups


def split(splitter: Splitter, *pieces: bytes) -> list[bytes]:
    messages = []
    for piece in pieces:
        messages += splitter.feed(piece)
    return messages + splitter.finish()


@pytest.mark.parametrize(
    ("data", "messages"),
    [
        (b"", []),
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\nb", [b"a", b"b"]),
        (b"\n\n", [b"", b""]),
        (b"a\r\n", [b"a\r"]),
        (b" a \0\n", [b" a \0"]),
    ],
)
def test_lines(data: bytes, messages: list[bytes]) -> None:
    assert split(Delimited(b"\n"), data) == messages


def test_a_line_is_given_as_soon_as_it_is_whole() -> None:
    splitter = Delimited(b"\n")
    assert splitter.feed(b"a") == []
    assert splitter.feed(b"b\nc\nd") == [b"ab", b"c"]
    assert splitter.feed(b"\n") == [b"d"]
    assert splitter.finish() == []


def test_nul_leaves_lines_alone() -> None:
    assert split(Delimited(b"\0"), b"a\nb\0c\n") == [b"a\nb", b"c\n"]


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_joined_again_they_are_the_input(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    messages = split(Delimited(b"\n"), *pieces)
    assert b"\n".join(messages) == data.removesuffix(b"\n")
    assert messages == split(Delimited(b"\n"), data)


def test_a_line_without_end_is_refused_before_it_fills_the_memory() -> None:
    splitter = Delimited(b"\n", limit_bytes=10)
    assert splitter.feed(b"0123456789") == []
    with pytest.raises(TooLong, match="more than 10 bytes; --block"):
        splitter.feed(b"x")


def test_long_lines_that_end_are_no_matter() -> None:
    splitter = Delimited(b"\n", limit_bytes=10)
    assert splitter.feed(b"0123456789") == []
    assert splitter.feed(b"012345\n0123456789") == [b"0123456789012345"]


def test_each_read_is_a_message() -> None:
    assert split(AsRead(), b"a\n", b"b") == [b"a\n", b"b"]


@pytest.mark.parametrize("pieces", [[b"a\n", b"b\n"], []])
def test_the_whole_is_one_message_also_when_it_is_empty(pieces: list[bytes]) -> None:
    assert split(Whole(), *pieces) == [b"".join(pieces)]


def test_a_whole_that_is_too_long() -> None:
    with pytest.raises(TooLong):
        split(Whole(limit_bytes=3), b"ab", b"cd")


def test_few_messages_are_one_group() -> None:
    assert list(groups([b"a", b"b"])) == [[b"a", b"b"]]
    assert list(groups([])) == []


def test_groups_are_bounded_in_bytes_and_messages_and_keep_the_order() -> None:
    many = [b"%d" % number for number in range(2 * GROUP_MESSAGES + 1)]
    assert [len(group) for group in groups(many)] == [GROUP_MESSAGES, GROUP_MESSAGES, 1]
    half = b"x" * (GROUP_BYTES // 2)
    large = [half, half, half, 3 * half, b"y"]
    made = list(groups(large))
    assert [len(group) for group in made] == [2, 1, 1, 1]
    assert [message for group in made for message in group] == large
