"""The array of a batch: there and back, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busd.rules.items import Item, decode_items, encode_items

PAYLOADS = st.one_of(st.binary(max_size=20), st.integers(4090, 4100).map(lambda size: b"x" * size))
ITEMS = st.one_of(PAYLOADS, st.lists(st.binary(max_size=5), min_size=3, max_size=5))


@given(st.lists(PAYLOADS, min_size=1, max_size=20))
def test_payloads(payloads: list[Item]) -> None:
    data = encode_items(payloads, headers=False)
    spelled = [b"$%d\r\n%b\r\n" % (len(one), one) for one in payloads if isinstance(one, bytes)]
    assert data == b"*%d\r\n" % len(payloads) + b"".join(spelled)
    assert decode_items(b"head" + data, 4, len(payloads)) == payloads


@pytest.mark.parametrize(
    "sizes", [(3,), (3, 3), (3, 2), (3, 3, 3), (3, 2, 3, 3, 3), (3, 3, 3, 0, 3), (0, 0, 0), (5000,) * 3]
)
def test_sizes_that_are_all_the_same_or_look_so(sizes: tuple[int, ...]) -> None:
    payloads: list[Item] = [b"x" * size for size in sizes]
    given = list(payloads)
    data = encode_items(payloads, headers=False)
    assert data == b"*%d\r\n" % len(sizes) + b"".join([b"$%d\r\n%b\r\n" % (size, b"x" * size) for size in sizes])
    assert payloads == given


@given(st.lists(ITEMS, min_size=1, max_size=10))
def test_headers(items: list[Item]) -> None:
    assert decode_items(encode_items(items, headers=True), 0, len(items)) == items


@pytest.mark.parametrize(
    "data", [b"", b"*1\r\n", b"*1\r\n$3\r\nab\r\n", b"$1\r\na\r\n", b"*1\r\n$x\r\n", b"*0\r\n", b"+OK\r\n"]
)
def test_what_is_no_array_of_so_many(data: bytes) -> None:
    with pytest.raises(ValueError, match="body"):
        decode_items(data, 0, 1)
