"""Invariant: of any bytes only what validates comes out of the scanner; nothing but BadRecord is raised.

Records are also made with a good checksum around anything, so that what is behind the checksum is reached.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from busd.rules.envelope import BadRecord, envelope, peek
from busd.rules.record import Batch, parse
from busd.rules.scan import Found, walk
from tests.support.store_kit import batch_of

_MANY = b",".join([b"%d" % number for number in range(82)])
FIELDS = st.lists(
    st.one_of(
        st.integers(-2, 40).map(lambda number: b"%d" % number),
        st.sampled_from(
            [
                b"-",
                b"h",
                b"e",
                b"a,b",
                b"a",
                b"00110",
                _MANY,
                b"0\x7f\xc2\x80",
                b"0\xc2",
                b"1,1,2",
                b"99999999999999999999",
                b"",
                b"trimmed",
            ]
        ),
        st.binary(max_size=6).map(lambda raw: raw.replace(b"\r\n", b"")),
    ),
    max_size=12,
).map(b" ".join)
BODIES = st.one_of(
    st.binary(max_size=40),
    st.lists(st.binary(max_size=8), max_size=5).map(
        lambda items: b"*%d\r\n" % len(items) + b"".join(b"$%d\r\n%b\r\n" % (len(one), one) for one in items)
    ),
)
KINDS = st.sampled_from(["B", "H", "S", "C", "X"])


def kept_or_refused(data: bytes) -> None:
    """The scanner's own functions on these bytes, as the walk calls them."""
    try:
        _, size = peek(data)
        if size > len(data):
            return
        record = parse(data[:size])
        if isinstance(record, Batch):
            assert record.first <= record.last
            assert len(record.offsets()) == record.n == len(record.items())
    except BadRecord:
        return


@settings(max_examples=500, deadline=None)
@given(kind=KINDS, fields=FIELDS, body=BODIES)
def test_anything_with_a_good_checksum(kind: str, fields: bytes, body: bytes) -> None:
    data = envelope(kind, fields, body)
    assert peek(data) == (kind, len(data)) if kind != "X" else True
    kept_or_refused(data)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200))
def test_anything(data: bytes) -> None:
    kept_or_refused(data)
    kept_or_refused(b"+B 00000000 0000000010 " + data)


@settings(max_examples=300, deadline=None)
@given(
    count=st.integers(1, 6),
    size=st.integers(0, 30),
    edits=st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=4), st.integers(0, 40)), max_size=4),
)
def test_a_log_that_was_cut_spliced_and_overwritten(count: int, size: int, edits: list[tuple[int, bytes, int]]) -> None:
    records = [batch_of([(b"a", b"x" * size)], offset, offset - 1, offset - 1).record for offset in range(1, count + 1)]
    whole = set(records)
    data = b"".join(records)
    for at, new, length in edits:
        at %= len(data) + 1
        data = data[:at] + new + data[at + length :]
    end = 0
    last = 0
    found = []
    for step in walk(lambda at, length: data[at : at + length], 0, len(data), 0):
        if isinstance(step, Found):
            assert data[step.position : step.position + step.size] in whole, "it made one up"
            assert step.position >= end, "it went back"
            end = step.position + step.size
            found.append(data[step.position : end])
            if isinstance(step.record, Batch):
                assert step.record.first > last
                last = step.record.last
    if data == b"".join(records):
        assert found == records, "it lost one of a whole log"
