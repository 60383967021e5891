"""Every format against the plain way of writing it: any topics, offsets, sizes, headers and bytes; all of it parses."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from dataclasses import dataclass
from typing import Any

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busd.rules.formats import BatchFrames, Encoder, Json, Line, Msg, Raw, bulk, encoder_for, parts_of
from busd.rules.items import Item
from busd.rules.parts import Parts
from busd.rules.record import Batch, parse
from busd.rules.select import Selection, build, select
from busd.words.escapes import needs_escape, unescape

pytestmark = pytest.mark.usefixtures("column_kind")

TIME_NS = 1_795_248_000_000_000_123
EOLS = [b"\n", b"\r\n"]
FIRSTS = [1, 5, 995, 999, 1000, 1001, 1998, 9_999, 123_456, 999_990, 10**15]
PAYLOADS = [
    b"",
    b"plain",
    b"two words",
    b" leads",
    b"trails ",
    b"\ttab\t",
    b"li\nne",
    b"\n",
    b"\r",
    b"car\rriage",
    b"ends\r\n",
    b"nul\0",
    b"\0007",
    b"back\\slash \\n",
    b"\x0bvt\x0c",
    b'"quoted" \x7f',
    "ünï – ☃ 𝄞".encode(),
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"%d %s %%",
    b"x" * 4094,
    b"y" * 4095,
    b"z" * 4096,
    b"w" * 4097,
]


@dataclass(frozen=True)
class Row:
    """A message."""

    offset: int
    topic: bytes
    payload: bytes
    headers: tuple[bytes, ...] = ()


@st.composite
def messages(draw: st.DrawFn) -> tuple[list[Row], Selection]:
    """Some messages, and a selection that means them: all of a batch, a slice, or those of some topics."""
    first = draw(st.sampled_from(FIRSTS))
    count = draw(st.integers(1, 8))
    offsets = list(range(first, first + count))
    if draw(st.booleans()):
        offsets = sorted(first + step for step in draw(st.sets(st.integers(0, 3000), min_size=count, max_size=count)))
    names = [b"t", b"a.b", b"x-y_z.Q"] if draw(st.booleans()) else [b"t"]
    with_headers = draw(st.sampled_from([False, False, True]))
    rows = []
    for offset in offsets:
        headers: tuple[bytes, ...] = ()
        if with_headers:
            headers = draw(st.sampled_from([(), (b"unit", b"C"), (b"event", b"17", b"n", 'ä"\\'.encode())]))
        payload = draw(st.sampled_from(PAYLOADS) | st.binary(max_size=20))
        rows.append(Row(offset, draw(st.sampled_from(names)), payload, headers))
    items: list[Item] = [[row.payload, *row.headers] if row.headers else row.payload for row in rows]
    flags = "h" if with_headers else "-"
    batch = build(offsets, [row.topic for row in rows], items, TIME_NS, flags)
    wanted = draw(st.frozensets(st.sampled_from(names), min_size=1))
    low = draw(st.sampled_from(offsets))
    selection = select(batch, wanted.__contains__, low)
    if selection is None:
        return rows, Selection(batch, 0, batch.n, None, batch.n)
    return [row for row in rows if row.topic in wanted and row.offset >= low], selection


def selection_of(*rows: Row, flags: str = "-") -> Selection:
    """All of a batch of these."""
    items: list[Item] = [[row.payload, *row.headers] if row.headers else row.payload for row in rows]
    flags = "h" if any(row.headers for row in rows) else flags
    batch = build([row.offset for row in rows], [row.topic for row in rows], items, TIME_NS, flags)
    return Selection(batch, 0, batch.n, None, batch.n)


def resp(data: bytes) -> list[Any]:
    """Every value, and nothing left over."""
    reader = hiredis.Reader(notEnoughData=Ellipsis)
    reader.feed(data)
    found = []
    while (value := reader.gets()) is not Ellipsis:
        found.append(value)
    assert not reader.has_data()
    return found


# line


@settings(max_examples=60)
@given(made=messages(), eol=st.sampled_from(EOLS))
def test_line(made: tuple[list[Row], Selection], eol: bytes) -> None:
    rows, selection = made
    expected = b""
    text = Line(eol).messages(selection)
    for row in rows:
        word = b"ESC" if needs_escape(row.payload) else b"MSG"
        head = b"%b %b %d " % (word, row.topic, row.offset)
        expected += head
        assert text.startswith(head)
        line, _, text = text[len(head) :].partition(eol)
        if word == b"ESC":
            assert not re.search(rb"[\r\n\0]", line)
            assert line == line.strip(b" \t")
            assert unescape(line) == row.payload
        else:
            assert line == row.payload
    assert text == b""


@pytest.mark.parametrize("eol", EOLS)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_each_payload_among_plain_ones(payload: bytes, eol: bytes) -> None:
    """The quick way looks at all payloads together; one that needs an escape must not be overlooked."""
    rows = [Row(999 + at, b"t", one) for at, one in enumerate((b"a", payload, b"b"))]
    lines = Line(eol).messages(selection_of(*rows)).split(eol)
    if needs_escape(payload):
        assert len(lines) == 4
        assert lines[1].startswith(b"ESC t 1000 ")
        assert unescape(lines[1][len(b"ESC t 1000 ") :]) == payload
    else:
        assert lines == [b"MSG t 999 a", b"MSG t 1000 " + payload, b"MSG t 1001 b", b""]


@pytest.mark.parametrize("eol", EOLS)
def test_a_CR_in_one_payload_and_none_in_a_line_end_do_not_cancel_out(eol: bytes) -> None:
    text = Line(eol).messages(selection_of(Row(1, b"t", b"a\r"), Row(2, b"t", b"\nb")))
    assert text == eol.join([b"ESC t 1 a\\r", b"ESC t 2 \\nb", b""])


# raw, bytes


@settings(max_examples=40)
@given(made=messages())
def test_bare_formats_are_payloads_and_nothing_else(made: tuple[list[Row], Selection]) -> None:
    rows, selection = made
    assert Raw(b"").messages(selection) == b"".join(row.payload for row in rows)
    assert Raw(b"\n").messages(selection) == b"".join(row.payload + b"\n" for row in rows)


# json


@settings(max_examples=60)
@given(made=messages(), eol=st.sampled_from(EOLS))
def test_json(made: tuple[list[Row], Selection], eol: bytes) -> None:
    rows, selection = made
    *lines, last = Json(eol).messages(selection).split(eol)
    assert last == b""
    assert len(lines) == len(rows)
    for row, line in zip(rows, lines, strict=True):
        line.decode("ascii")
        found = json.loads(line)
        expected = {
            "kind": "MSG",
            "topic": row.topic.decode(),
            "offset": row.offset,
            "time": str(TIME_NS),
            "size": len(row.payload),
        }
        payload = b64decode(found.pop("payload_b64")) if "payload_b64" in found else found.pop("payload").encode()
        assert payload == row.payload
        assert ("payload_b64" in json.loads(line)) is not _is_utf8(row.payload)
        if row.headers:
            expected["headers"] = dict(zip(*[iter(part.decode() for part in row.headers)] * 2, strict=True))
        assert found == expected
        order = ["kind", "topic", "offset", "time", "size", "payload", "payload_b64", "headers"]
        assert list(json.loads(line)) == [name for name in order if name in json.loads(line)]


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


# msg, batch


@settings(max_examples=60)
@given(made=messages(), kind=st.sampled_from([b">", b"*"]))
def test_msg(made: tuple[list[Row], Selection], kind: bytes) -> None:
    rows, selection = made
    data = Msg(kind).messages(selection)
    assert data[:1] == kind
    assert resp(data) == [[b"MSG", row.topic, row.offset, TIME_NS, row.payload, *row.headers] for row in rows]


@settings(max_examples=80)
@given(made=messages())
def test_batch_carries_frames_that_parse(made: tuple[list[Row], Selection]) -> None:
    rows, selection = made
    (push,) = resp(BatchFrames().messages(selection))
    word, first, last, record = push
    assert (word, first, last) == (b"BATCH", rows[0].offset, rows[-1].offset)
    batch = parse(record)
    assert isinstance(batch, Batch)
    found = [
        Row(
            offset,
            batch.topic_of(at),
            item if isinstance(item, bytes) else item[0],
            tuple(item[1:]) if isinstance(item, list) else (),
        )
        for at, (offset, item) in enumerate(zip(batch.offsets(), batch.items(), strict=True))
        if first <= offset <= last
    ]
    assert found == rows


def test_a_stored_record_is_sent_as_it_lies() -> None:
    selection = selection_of(*(Row(at, b"t", b"x") for at in range(1, 9)))
    record = selection.batch.record
    assert resp(BatchFrames().messages(selection)) == [[b"BATCH", 1, 8, record]]
    parts = parts_of(BatchFrames())(selection)
    assert isinstance(parts, Parts)
    assert any(piece is record for piece in parts.pieces), "not even copied"
    assert parts_of(encoder_for("line", b"\n"))(selection) == encoder_for("line", b"\n").messages(selection)
    assert resp(BatchFrames().messages(selection.take(5))) == [[b"BATCH", 1, 5, record]]
    ((_, first, last, some),) = resp(BatchFrames().messages(selection.take(2)))
    assert (first, last) == (1, 2)
    assert len(some) < len(record)


# Further deliveries.


def token_of(offset: int, tries: int) -> bytes:
    """What stands in place of the offset."""
    return b"%d.%d" % (offset, tries)


@settings(max_examples=60)
@given(made=messages(), eol=st.sampled_from(EOLS), tries=st.integers(2, 12))
def test_lines_of_a_further_delivery(made: tuple[list[Row], Selection], eol: bytes, tries: int) -> None:
    rows, selection = made
    text = Line(eol).again(selection, tries)
    for row in rows:
        word = b"ESC" if needs_escape(row.payload) else b"MSG"
        head = b"%b %b %b " % (word, row.topic, token_of(row.offset, tries))
        assert text.startswith(head)
        line, _, text = text[len(head) :].partition(eol)
        assert (unescape(line) if word == b"ESC" else line) == row.payload
    assert text == b""


@settings(max_examples=60)
@given(made=messages(), eol=st.sampled_from(EOLS), tries=st.integers(2, 12))
def test_json_of_a_further_delivery(made: tuple[list[Row], Selection], eol: bytes, tries: int) -> None:
    rows, selection = made
    it = Json(eol)
    first = [json.loads(line) for line in it.messages(selection).split(eol)[:-1]]
    again = [json.loads(line) for line in it.again(selection, tries).split(eol)[:-1]]
    assert [list(line)[2:5] for line in again] == [["offset", "token", "try"]] * len(rows)
    for row, line in zip(rows, again, strict=True):
        assert (line.pop("token"), line.pop("try")) == (token_of(row.offset, tries).decode(), tries)
    assert again == first


@settings(max_examples=60)
@given(made=messages(), kind=st.sampled_from([b">", b"*"]), tries=st.integers(2, 12))
def test_msg_of_a_further_delivery(made: tuple[list[Row], Selection], kind: bytes, tries: int) -> None:
    rows, selection = made
    data = Msg(kind).again(selection, tries)
    assert data[:1] == kind
    assert resp(data) == [
        [b"MSG", row.topic, token_of(row.offset, tries), TIME_NS, row.payload, *row.headers] for row in rows
    ]


@settings(max_examples=20)
@given(made=messages(), tries=st.integers(2, 12))
def test_a_further_delivery_is_never_a_batch(made: tuple[list[Row], Selection], tries: int) -> None:
    _, selection = made
    assert BatchFrames().again(selection, tries) == Msg(b">").again(selection, tries)


@settings(max_examples=20)
@given(made=messages(), tail=st.sampled_from([b"", b"\n"]))
def test_bare_formats_have_no_place_for_a_token(made: tuple[list[Row], Selection], tail: bytes) -> None:
    _, selection = made
    assert Raw(tail).again(selection, 2) == Raw(tail).messages(selection)


# Everything that is no message.

EOF = selection_of(Row(7, b"a", b""), Row(9, b"b.c", b""), flags="e")
RESET = selection_of(Row(1000, b"a", b"12"), flags="r")


@pytest.mark.parametrize("eol", EOLS)
def test_other_events_as_lines(eol: bytes) -> None:
    line = Line(eol)
    assert line.messages(EOF) == b"EOF a 7%bEOF b.c 9%b" % (eol, eol)
    assert line.messages(RESET) == b"RESET a 1000 12" + eol
    assert line.gap(b"a,b", 3, 9, 4, "slow") == b"GAP a,b 3 9 4 slow" + eol
    assert line.gap(b">", 3, 9, None, "corrupt") == b"GAP > 3 9 ? corrupt" + eol
    assert line.end("limit", 10) == b"END limit next=10" + eol


@pytest.mark.parametrize("eol", EOLS)
def test_other_events_as_json(eol: bytes) -> None:
    it = Json(eol)
    data = [it.messages(EOF), it.messages(RESET), it.gap(b"a,b", 3, 9, 4, "slow"), it.gap(b">", 3, 9, None, "trimmed")]
    data.append(it.end("end", 10))
    assert [json.loads(line) for line in b"".join(data).split(eol)[:-1]] == [
        {"kind": "EOF", "topic": "a", "offset": 7},
        {"kind": "EOF", "topic": "b.c", "offset": 9},
        {"kind": "RESET", "topic": "a", "offset": 1000, "count": 12},
        {"kind": "GAP", "pattern": "a,b", "from": 3, "to": 9, "count": 4, "reason": "slow"},
        {"kind": "GAP", "pattern": ">", "from": 3, "to": 9, "count": None, "reason": "trimmed"},
        {"kind": "END", "reason": "end", "next": 10},
    ]


@pytest.mark.parametrize("it", [Msg(b">"), Msg(b"*"), BatchFrames()], ids=["push", "array", "batch"])
def test_other_events_in_resp(it: Msg) -> None:
    data = [it.messages(EOF), it.messages(RESET), it.gap(b"a,b", 3, 9, 4, "slow"), it.gap(b">", 3, 9, None, "trimmed")]
    data.append(it.end("end", 10))
    assert resp(b"".join(data)) == [
        [b"EOF", b"a", 7],
        [b"EOF", b"b.c", 9],
        [b"RESET", b"a", 1000, 12],
        [b"GAP", b"a,b", 3, 9, 4, b"slow"],
        [b"GAP", b">", 3, 9, None, b"trimmed"],
        [b"END", b"end", 10],
    ]


@pytest.mark.parametrize("tail", [b"", b"\n"])
def test_bare_formats_say_nothing_of_the_rest(tail: bytes) -> None:
    it = Raw(tail)
    assert it.messages(EOF) == it.messages(RESET) == it.gap(b"a", 1, 2, 3, "slow") == it.end("end", 1) == b""


@pytest.mark.parametrize(
    ("name", "array", "kind", "bare"),
    [
        ("line", False, Line, False),
        ("json", False, Json, False),
        ("raw", False, Raw, True),
        ("bytes", False, Raw, True),
        ("msg", False, Msg, False),
        ("msg", True, Msg, False),
        ("batch", False, BatchFrames, False),
    ],
)
def test_which_encoder(name: str, array: bool, kind: type[Any], bare: bool) -> None:
    it: Encoder = encoder_for(name, b"\n", array)
    assert type(it) is kind
    assert it.bare is bare


def test_elements_of_an_array_are_arrays() -> None:
    assert encoder_for("msg", b"\r\n", True).end("end", 1).startswith(b"*3\r\n")
    assert encoder_for("msg", b"\r\n", False).end("end", 1).startswith(b">3\r\n")
    assert encoder_for("raw", b"\r\n").messages(selection_of(Row(1, b"t", b"x"))) == b"x\n"


@given(data=st.binary(max_size=50))
def test_bulk(data: bytes) -> None:
    assert resp(bulk(data)) == [data]


def test_large_batches_cross_thousands() -> None:
    rows = [Row(500 + at, b"a" if at % 3 else b"b", b"%d" % at) for at in range(5000)]
    selection = selection_of(*rows)
    assert Line(b"\n").messages(selection) == b"".join(
        b"MSG %b %d %b\n" % (row.topic, row.offset, row.payload) for row in rows
    )
    late = select(selection.batch, lambda topic: True, 1500)
    assert late is not None
    assert Line(b"\n").messages(late) == b"".join(
        b"MSG %b %d %b\n" % (row.topic, row.offset, row.payload) for row in rows[1000:]
    )
    assert resp(Msg(b">").messages(late)) == [
        [b"MSG", row.topic, row.offset, TIME_NS, row.payload] for row in rows[1000:]
    ]


# Several


@settings(max_examples=60)
@given(
    parts=st.lists(messages(), min_size=1, max_size=5),
    name=st.sampled_from(["line", "json", "raw", "bytes", "msg", "batch"]),
    array=st.booleans(),
    far=st.sampled_from([0, 5000, 10**6]),
)
def test_several_are_as_one_after_the_other(
    parts: list[tuple[list[Row], Selection]], name: str, array: bool, far: int
) -> None:
    """Also where topics, headers and times differ, and offsets lie near each other or far apart."""
    encoder = encoder_for(name, b"\n", array)
    selections = []
    base = 0
    for _, selection in parts:
        topics, items = selection.topics(), selection.items()
        offsets = [base + offset for offset in selection.offsets()]
        moved = build(offsets, topics, items, TIME_NS + base, selection.batch.flags)
        selections.append(Selection(moved, 0, moved.n, None, moved.n))
        base = offsets[-1] + far
    assert encoder.several(selections) == b"".join(map(encoder.messages, selections))


def test_several_of_one_topic_far_apart() -> None:
    rows = [Row(offset, b"100%", b"p%d" % offset) for offset in (5, 900, 20_000)]
    text = Line(b"\r\n").several([selection_of(row) for row in rows])
    assert text == b"MSG 100% 5 p5\r\nMSG 100% 900 p900\r\nMSG 100% 20000 p20000\r\n"


class _Unlisted(tuple[bytes, ...]):
    """Topics that are asked for one by one."""

    def __iter__(self) -> Any:
        raise AssertionError("all topics of the batch were gone through")


@pytest.mark.parametrize("name", ["line", "json", "raw", "msg"])
def test_a_message_of_one_topic_of_thousands_costs_what_a_message_does(name: str) -> None:
    names = [b"t.%d" % number for number in range(1000)]
    batch = build(range(1, 1001), names, [b"x"] * 1000, TIME_NS, "-")
    expected = [encoder_for(name, b"\n").messages(Selection(batch, at, at + 1, None, 1)) for at in (7, 700)]
    selection = select(batch, {b"t.7", b"t.700"}.__contains__)
    assert selection is not None
    batch.topics = _Unlisted(batch.topics)
    assert encoder_for(name, b"\n").messages(selection) == b"".join(expected)
