"""busd.wiring.cli_format: what is printed."""

from __future__ import annotations

import json

import pytest
from busd_client.events import End, EndOfStream, Gap, Message, Reset
from busd_client.stream import Part, Run

from busd.rules.record import frame
from busd.rules.select import Selection
from busd.wiring.cli_format import FORMATS, Formatter, gap_text, printable, time_text

TIME_NS = 1_795_248_000_123_456_789
BATCH = frame(5, TIME_NS, 4, 0, "-", (b"x", b"y.z"), b"01", None, [b"one", b"a\nb"])
RUN = Run(Selection(BATCH, 0, 2, None, 2))
EVENTS: list[Part | End] = [Gap("x", 1, 4, None, "slow"), EndOfStream("x", 7), Reset("x", 8, 2), End("limit", 9)]


@pytest.mark.parametrize(
    ("name", "null", "text"),
    [
        ("raw", False, b"one\na\nb\n"),
        ("raw", True, b"one\0a\nb\0"),
        ("bytes", False, b"onea\nb"),
        ("line", False, b"MSG x 5 one\nESC y.z 6 a\\nb\n"),
        ("line", True, b"MSG x 5 one\0ESC y.z 6 a\\nb\0"),
        ("offset", False, b"5\tx\tone\n6\ty.z\ta\nb\n"),
        ("time", True, b"2026-11-21T08:00:00.123456Z\tx\tone\x002026-11-21T08:00:00.123456Z\ty.z\ta\nb\0"),
    ],
)
def test_messages(name: str, null: bool, text: bytes) -> None:
    assert Formatter(name, null).part(RUN) == text


def test_json_has_every_field() -> None:
    first, second = Formatter("json").part(RUN).splitlines()
    assert json.loads(first) == {
        "kind": "MSG",
        "topic": "x",
        "offset": 5,
        "time": str(TIME_NS),
        "size": 3,
        "payload": "one",
    }
    assert json.loads(second)["payload"] == "a\nb"


def test_a_single_message_is_printed_like_one_of_a_run() -> None:
    message = Message("x", 5, TIME_NS, b"one", {"k": "v"})
    assert Formatter("line").part(message) == b"MSG x 5 one\n"
    assert json.loads(Formatter("json").part(message))["headers"] == {"k": "v"}
    assert Formatter("offset").part(message) == b"5\tx\tone\n"


def test_events_in_lines() -> None:
    text = b"".join([Formatter("line").part(event) for event in EVENTS])
    assert text == b"GAP x 1 4 ? slow\nEOF x 7\nRESET x 8 2\nEND limit next=9\n"


def test_events_in_json() -> None:
    kinds = [json.loads(Formatter("json").part(event))["kind"] for event in EVENTS]
    assert kinds == ["GAP", "EOF", "RESET", "END"]


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"line", "json"}))
def test_the_other_formats_print_messages_only(name: str) -> None:
    assert b"".join([Formatter(name).part(event) for event in EVENTS]) == b""


def test_a_time_keeps_its_microseconds() -> None:
    assert time_text(TIME_NS) == "2026-11-21T08:00:00.123456Z"


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"plain \xc3\xbc\n\ttext", b"plain \xc3\xbc\n\ttext"),
        (b"\x1b[31mred", b"\\x1b[31mred"),
        (b"a\rb\0c\x7f", b"a\\x0db\\x00c\\x7f"),
        (b"\xc2\x9b31m", b"\\x9b31m"),
        (b"\xff", b"\\xff"),
    ],
)
def test_nothing_steers_a_terminal(data: bytes, shown: bytes) -> None:
    assert printable(data) == shown


def test_a_gap_for_people() -> None:
    assert gap_text(Gap("a.>", 1, 9, 4, "slow")) == "lost 4 messages of a.>, offsets 1 to 9 (slow)"
    assert gap_text(Gap("a.>", 1, 9, None, "corrupt")).startswith("lost an unknown number of messages")
