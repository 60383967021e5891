"""The array of a batch: there and back, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busd.rules.items import UNEVEN, Item, cut_out, decode_items, edges, encode_items, even_items, take_all

PAYLOADS = st.one_of(st.binary(max_size=20), st.integers(4090, 4100).map(lambda size: b"x" * size))
ITEMS = st.one_of(PAYLOADS, st.lists(st.binary(max_size=5), min_size=3, max_size=5))


@given(st.lists(PAYLOADS, min_size=1, max_size=20))
def test_payloads(payloads: list[Item]) -> None:
    data = encode_items(payloads, headers=False)[0]
    spelled = [b"$%d\r\n%b\r\n" % (len(one), one) for one in payloads if isinstance(one, bytes)]
    assert data == b"*%d\r\n" % len(payloads) + b"".join(spelled)
    assert decode_items(b"head" + data, 4, len(payloads)) == payloads


@pytest.mark.parametrize(
    "sizes", [(3,), (3, 3), (3, 2), (3, 3, 3), (3, 2, 3, 3, 3), (3, 3, 3, 0, 3), (0, 0, 0), (5000,) * 3]
)
def test_sizes_that_are_all_the_same_or_look_so(sizes: tuple[int, ...]) -> None:
    payloads: list[Item] = [b"x" * size for size in sizes]
    given = list(payloads)
    data = encode_items(payloads, headers=False)[0]
    assert data == b"*%d\r\n" % len(sizes) + b"".join([b"$%d\r\n%b\r\n" % (size, b"x" * size) for size in sizes])
    assert payloads == given


@given(st.lists(ITEMS, min_size=1, max_size=10))
def test_headers(items: list[Item]) -> None:
    assert decode_items(encode_items(items, headers=True)[0], 0, len(items)) == items


SAME = st.sampled_from([b"", b"k", b"v", b"%d", b"x" * 4095, b"x" * 4096, b"\r\n$1\r\n"])


@st.composite
def alike(draw: st.DrawFn) -> list[Item]:
    """Items most of whose headers have the same names, some the same values."""
    kinds = draw(st.lists(st.lists(st.one_of(SAME, st.none()), min_size=1, max_size=4), min_size=1, max_size=6))
    items: list[Item] = []
    for number in range(draw(st.integers(1, 20))):
        kind = kinds[number % len(kinds)]
        parts = [draw(SAME) if part is None else part for part in kind]
        items.append(parts if len(parts) > 1 else parts[0])
    return items


@given(alike())
@settings(max_examples=500)
def test_headers_that_are_alike(items: list[Item]) -> None:
    data = encode_items(items, headers=True)
    parts = [b"*%d" % len(items)]
    for item in items:
        row = [item] if isinstance(item, bytes) else item
        parts += [] if isinstance(item, bytes) else [b"*%d" % len(item)]
        parts += [b"$%d\r\n%b" % (len(part), part) for part in row]
    assert data == (b"\r\n".join([*parts, b""]), UNEVEN)


@pytest.mark.parametrize(
    "data", [b"", b"*1\r\n", b"*1\r\n$3\r\nab\r\n", b"$1\r\na\r\n", b"*1\r\n$x\r\n", b"*0\r\n", b"+OK\r\n"]
)
def test_what_is_no_array_of_so_many(data: bytes) -> None:
    with pytest.raises(ValueError, match="body"):
        decode_items(data, 0, 1)


@st.composite
def arrays(draw: st.DrawFn) -> tuple[bytes, int]:
    """An array of so many, mostly of payloads of one size, in which some bytes may have been changed."""
    size = draw(st.sampled_from([0, 1, 9, 10, 11, 99, 4095, 4096, 5000]))
    count = draw(st.integers(1, 12))
    # What looks like a head stands where one may be looked for.
    filling = draw(st.sampled_from([b"x", b"\r\n$%d\r\n" % size, b"$", b"\r"]))
    items: list[Item] = [(filling * (size + 1))[draw(st.integers(0, 3)) :][:size].ljust(size) for _ in range(count)]
    if draw(st.booleans()):
        items[draw(st.integers(0, count - 1))] = draw(ITEMS)
        items[draw(st.integers(0, count - 1))] = draw(PAYLOADS)
    data = bytearray(encode_items(items, headers=True)[0])
    for at in draw(st.lists(st.integers(0, min(len(data), 60) - 1), max_size=3)):
        data[at] = draw(st.sampled_from(b"$*0189\r\nx"))
    return bytes(data) + draw(st.sampled_from([b"", b"", b"\r\n"])), count


@given(arrays(), st.data())
@settings(max_examples=500)
def test_what_is_cut_out_is_what_would_be_decoded(made: tuple[bytes, int], data: st.DataObject) -> None:
    record, count = made
    even = even_items(b"head" + record, 4, count)
    places = sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1)))
    if even:
        items = decode_items(record, 0, count)
        assert cut_out(b"head" + record, even, places) == [items[place] for place in places]


def test_the_size_is_told_where_it_is_one() -> None:
    cases: list[tuple[list[Item], int]] = [
        ([b"one"], 3),
        ([b""] * 3, 0),
        ([b"abc"] * 300, 3),
        ([b"abc", b"ab", b"abc", b"abc"], UNEVEN),
        ([b"abc", b"abc", b"ab"], UNEVEN),
        ([b"x" * 5000] * 2, 5000),
        ([b"x" * 5000, b"x" * 5001], UNEVEN),
    ]
    for items, size in cases:
        data, told = encode_items(items, headers=False)
        assert told == size
        assert even_items(data, 0, len(items), size=told) == even_items(data, 0, len(items))
    assert encode_items([[b"abc", b"k", b"v"], b"abc"], headers=True)[1] == UNEVEN


@pytest.mark.parametrize("size", [0, 1, 9, 10, 100, 4095, 4096, 70_000])
def test_payloads_of_one_size_are_even(size: int) -> None:
    items: list[Item] = [(b"%06d" % at * (size // 6 + 1))[:size] for at in range(7)]
    record = b"line\r\n" + encode_items(items, headers=False)[0]
    even = even_items(record, 6, 7)
    assert even[1:] == (len(b"$%d\r\n\r\n" % size) + size, size)
    assert cut_out(record, even, [0, 3, 6]) == [items[0], items[3], items[6]]


@pytest.mark.parametrize("size", [0, 1, 9, 10, 100, 4095])
@pytest.mark.parametrize("number", [63, 64, 65, 128, 200, 256, 300])
@pytest.mark.parametrize("known", [True, False])
def test_many_of_one_size_are_taken_in_runs(size: int, number: int, known: bool) -> None:
    payloads = [(b"%06d" % at * (size // 6 + 1))[:size] for at in range(number)]
    record = b"line\r\n" + encode_items([*payloads], headers=False)[0]
    even = even_items(record, 6, number, size if known else UNEVEN)
    assert take_all(record, even, number) == decode_items(record, 6, number) == payloads
    assert edges(record, even_items(record, 6, number), number) == b"".join(
        [payload[:1] for payload in payloads] + [payload[-1:] for payload in payloads]
    )
    # One that is shorter, and the next one longer by as much.
    payloads[number // 2] += payloads[number // 2 - 1][-1:]
    payloads[number // 2 - 1] = payloads[number // 2 - 1][:-1]
    record = b"line\r\n" + encode_items([*payloads], headers=False)[0]
    assert size == 0 or even_items(record, 6, number) == ()
    assert decode_items(record, 6, number) == payloads


def test_heads_in_payloads_are_not_taken_for_heads() -> None:
    """Together as long as three of one size, and where the second's head would be there is one, inside the first."""
    items: list[Item] = [b"abc\r\n$3\r\nxy", b"", b"def"]
    record = encode_items(items, headers=False)[0]
    three = encode_items([b"a" * 5] * 3, headers=False)[0]
    assert len(record) == len(three)
    assert even_items(three, 0, 3) == (8, 11, 5)
    # Who knows the size is believed, unless the lengths say otherwise.
    assert even_items(three, 0, 3, size=5) == (8, 11, 5)
    assert even_items(three, 0, 3, size=4) == (8, 11, 5)
    assert even_items(b"head" + three, 4, 3, 5) == (12, 11, 5)
    assert even_items(record, 0, 3) == ()
    lying = encode_items([b"xxx\r\n$3\r\nyyy", b"abc\r\n", b"d"], headers=False)[0]
    assert even_items(lying, 0, 3) == ()
