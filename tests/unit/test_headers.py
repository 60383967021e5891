"""busd.words.headers: pairs, words, names and values."""

from __future__ import annotations

import pytest

from busd.words.errors import BusError
from busd.words.headers import MAX_ID_BYTES, Steering, parse_header_pairs, parse_header_words, steering
from busd.words.settings import Limits

LIMITS = Limits(headers=3, header_bytes=40)


@pytest.mark.parametrize(
    "flat",
    [
        [],
        [b"k", b"v"],
        [b"k", b""],
        [b"A-Z_09", "wörter mit blank".encode()],
        [b"a", b"1", b"b", b"2", b"c", b"3"],
        [b"event", b"0", b"sent", b"1795248000000000000"],
        [b"n" * 20, b"v" * 20],
        [b"id", b"1"],
        [b"key", "grün".encode(), b"ttl", b"5s", b"delay", b"0s"],
    ],
)
def test_pairs(flat: list[bytes]) -> None:
    assert parse_header_pairs(flat, LIMITS) == flat


@pytest.mark.parametrize(
    ("flat", "code", "text"),
    [
        ([b"", b"v"], "ARG", "'' is not a header's name: A-Z a-z 0-9 _ -, 64 bytes at most"),
        ([b"a b", b"v"], "ARG", "'a b' is not a header's name: A-Z a-z 0-9 _ -, 64 bytes at most"),
        ([b"a\n", b"v"], "ARG", r"'a\n' is not a header's name: A-Z a-z 0-9 _ -, 64 bytes at most"),
        ([b"k", b"1", b"k", b"2"], "ARG", "a header stands twice"),
        ([b"event", b"now"], "ARG", "the header event takes a time in Unix ns, not 'now'"),
        ([b"sent", b"-1"], "ARG", "the header sent takes a time in Unix ns, not '-1'"),
        ([b"sent", b"1" * 20], "ARG", "the header sent takes a time in Unix ns, not '11111111111111111111'"),
        ([b"k", b"\xff"], "ARG", "the value of the header k is not UTF-8"),
        ([b"k", b"a\nb"], "ARG", "the value of the header k holds CR, LF or NUL"),
        ([b"k", b"\r"], "ARG", "the value of the header k holds CR, LF or NUL"),
        ([b"k", b"\0"], "ARG", "the value of the header k holds CR, LF or NUL"),
        ([b"a", b"", b"b", b"", b"c", b"", b"d", b""], "TOOBIG", "4 headers of 4 bytes; limits are 3 and 40"),
        ([b"k", b"v" * 40], "TOOBIG", "1 headers of 41 bytes; limits are 3 and 40"),
        ([b"id", b""], "ARG", "the header id takes 1 to 200 bytes, not 0"),
        ([b"key", b""], "ARG", "the header key takes 1 to 200 bytes, not 0"),
        ([b"key", b"\xff"], "ARG", "the value of the header key is not UTF-8"),
        ([b"ttl", b"5"], "ARG", "the header ttl: '5' is not a duration like 250ms 5s 10m 2h 7d"),
        ([b"delay", b"-5s"], "ARG", "the header delay: '-5s' is not a duration like 250ms 5s 10m 2h 7d"),
        ([b"ttl", b"0ms"], "ARG", "the header ttl takes a duration above 0; nobody would get the message"),
    ],
)
def test_bad_pairs(flat: list[bytes], code: str, text: str) -> None:
    with pytest.raises(BusError) as caught:
        parse_header_pairs(flat, LIMITS)
    assert (caught.value.code, caught.value.text) == (code, text)


def test_a_name_has_64_bytes_at_most() -> None:
    assert parse_header_pairs([b"n" * 64, b""], Limits()) == [b"n" * 64, b""]
    with pytest.raises(BusError, match="is not a header's name"):
        parse_header_pairs([b"n" * 65, b""], Limits())


@pytest.mark.parametrize(
    ("tail", "flat", "payload"),
    [
        (b":", [], b""),
        (b":payload", [], b"payload"),
        (b"k=v :a b ", [b"k", b"v"], b"a b "),
        (b" \tk=v\t l=  ::x=y", [b"k", b"v", b"l", b""], b":x=y"),
        (b"k=a=b :\r\0", [b"k", b"a=b"], b"\r\0"),
        (b"k=a:b : :", [b"k", b"a:b"], b" :"),
    ],
)
def test_words(tail: bytes, flat: list[bytes], payload: bytes) -> None:
    assert parse_header_words(tail, LIMITS) == (flat, payload)


@pytest.mark.parametrize(
    ("tail", "code", "text"),
    [
        (b"", "ARG", "the payload is missing: HPUB topic name=value … :payload"),
        (b"k=v", "ARG", "the payload is missing: HPUB topic name=value … :payload"),
        (b"k=v payload", "ARG", "'payload' is not name=value; the payload begins with a colon"),
        (b"=v :x", "ARG", "'' is not a header's name: A-Z a-z 0-9 _ -, 64 bytes at most"),
        (b"k=v k=w :x", "ARG", "a header stands twice"),
        (b"a= b= c= d= :x", "TOOBIG", "4 headers of 4 bytes; limits are 3 and 40"),
        (b"a= b=\tc= d= :x", "TOOBIG", "more than 3 headers"),
        (b"ttl=x :x", "ARG", "the header ttl: 'x' is not a duration like 250ms 5s 10m 2h 7d"),
    ],
)
def test_bad_words(tail: bytes, code: str, text: str) -> None:
    with pytest.raises(BusError) as caught:
        parse_header_words(tail, LIMITS)
    assert (caught.value.code, caught.value.text) == (code, text)


@pytest.mark.parametrize("name", [b"id", b"key"])
def test_what_is_remembered_of_a_message_is_short(name: bytes) -> None:
    longest = [name, b"x" * MAX_ID_BYTES]
    assert parse_header_pairs(longest, Limits()) == longest
    with pytest.raises(BusError, match=f"the header {name.decode()} takes 1 to 200 bytes, not 201"):
        parse_header_pairs([name, b"x" * (MAX_ID_BYTES + 1)], Limits())


@pytest.mark.parametrize(
    ("flat", "told"),
    [
        ([], None),
        ([b"unit", b"C", b"event", b"1"], None),
        ([b"unit", b"id", b"tag", b"key"], None),
        ([b"id", b"a"], Steering(id=b"a")),
        ([b"unit", b"C", b"key", b"id"], Steering(key=b"id")),
        ([b"ttl", b"2s", b"delay", b"250ms"], Steering(ttl_ns=2 * 10**9, delay_ns=250 * 10**6)),
        ([b"delay", b"0s"], Steering()),
        (
            [b"delay", b"1s", b"key", b"k", b"x", b"y", b"ttl", b"1m", b"id", b"i"],
            Steering(b"i", b"k", 60 * 10**9, 10**9),
        ),
    ],
)
def test_steering(flat: list[bytes], told: Steering | None) -> None:
    assert parse_header_pairs(flat, Limits()) == flat
    assert steering(flat) == told
    assert steering(tuple(flat)) == told
