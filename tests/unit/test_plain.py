"""Payloads that can stand in lines as they are: the quick way says what a look at each says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busd.rules.items import Item
from busd.rules.plain import plain
from busd.rules.record import Batch, parse
from busd.rules.select import Selection, build
from busd.words.escapes import needs_escape

ODD = [
    b" a",
    b"a ",
    b"\ta",
    b"a\v",
    b"\fa",
    b"a\r",
    b"\na",
    b"\0a",
    b"a\nb",
    b"a b",
    b"a\0",
    b"aaa",
    b"\x1ca",
    b"\x85",
    b"",
]


def stored(payloads: list[Item]) -> Selection:
    """All of a batch of these as it is read from a log."""
    n = len(payloads)
    batch = parse(build(range(9, 9 + n), [b"t"] * n, payloads, 1, "-").record)
    assert isinstance(batch, Batch)
    return Selection(batch, 0, n, None, n)


def odd_one(payload: bytes) -> bool:
    """True when it is not plain: it needs an escape, or has a blank at an end that needs none."""
    assert payload.strip() != payload or needs_escape(payload) == bool({*payload} & {*b"\r\n\0"})
    return needs_escape(payload) or payload.strip() != payload


@pytest.mark.parametrize("number", [3, 63, 64, 200])
@pytest.mark.parametrize("odd", ODD)
def test_each_payload_among_some_of_its_size(odd: bytes, number: int) -> None:
    """From 64 on, first and last characters are looked at as columns of the record."""
    payloads: list[Item] = [(b"%03d" % at)[: len(odd)] for at in range(number)]
    selection = stored(payloads)
    assert plain([selection], selection.items())  # type: ignore[arg-type]
    for place in (0, number // 2, number - 1):
        mixed = [*payloads[:place], odd, *payloads[place + 1 :]]
        selection = stored(mixed)
        assert plain([selection], selection.items()) != odd_one(odd)  # type: ignore[arg-type]


@given(st.lists(st.one_of(st.sampled_from(ODD), st.binary(max_size=4)), min_size=1, max_size=6), st.integers(1, 80))
def test_payloads_of_any_size(kinds: list[bytes], times: int) -> None:
    payloads: list[Item] = [*kinds * times]
    selection = stored(payloads)
    assert plain([selection], kinds * times) != any(map(odd_one, kinds))
    assert plain([selection, selection], kinds * times * 2) != any(map(odd_one, kinds))
    if (some := selection.drop(1)) is not None:
        assert plain([some], some.items()) != any(map(odd_one, (kinds * times)[1:]))  # type: ignore[arg-type]
