"""What is around every record: 23 bytes tell what it is and how long, a checksum covers the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busd.rules.envelope import MAX_RECORD_BYTES, PREFIX_BYTES, BadRecord, check, envelope, peek

STOP = b"+C e65df3f0 0000000029 900 899 1700000000000000011\r\n"


def test_golden() -> None:
    assert envelope("C", b"900 899 1700000000000000011") == STOP
    check(STOP)


@given(st.sampled_from("BHSCI"), st.binary(max_size=40), st.binary(max_size=200), st.binary(max_size=30))
def test_any_record_is_measured_where_it_stands(kind: str, fields: bytes, body: bytes, before: bytes) -> None:
    made = envelope(kind, fields, body)
    assert made.endswith(b" " + fields + b"\r\n" + body)
    assert peek(before + made, len(before)) == (kind, len(made))
    check(made)


def test_the_prefix_is_enough_and_no_less_is() -> None:
    assert peek(STOP[:PREFIX_BYTES]) == ("C", len(STOP))
    for size in range(PREFIX_BYTES):
        with pytest.raises(BadRecord) as caught:
            peek(STOP[:size])
        assert caught.value.reason == "short"


@pytest.mark.parametrize("data", [b"\0" * 30, b"+X 00000000 0000000000 ....", b"+B 0000000g 0000000000 ....", STOP[1:]])
def test_other_things_are_refused(data: bytes) -> None:
    with pytest.raises(BadRecord) as caught:
        peek(data)
    assert caught.value.reason == "form"


def test_a_length_that_no_record_has_is_refused() -> None:
    with pytest.raises(BadRecord) as caught:
        peek(b"+B 00000000 %010d " % MAX_RECORD_BYTES)
    assert caught.value.reason == "form"
    assert peek(b"+B 00000000 %010d " % (MAX_RECORD_BYTES - PREFIX_BYTES)) == ("B", MAX_RECORD_BYTES)


@pytest.mark.parametrize("at", [3, 12, 21, 22, 23, len(STOP) - 1])
def test_a_changed_byte_does_not_pass(at: int) -> None:
    changed = bytearray(STOP)
    changed[at] ^= 1
    with pytest.raises(BadRecord) as caught:
        check(bytes(changed))
    assert caught.value.reason == "crc"
