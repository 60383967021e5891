"""protocol.md says what the code does: its tables, its sections and its golden frame are compared with the code."""

from __future__ import annotations

import ast
import re
from dataclasses import fields

import pytest

from busd.rules import delivery, subscription
from busd.rules.access import NEEDS
from busd.rules.record import Batch, parse
from busd.words.commands import COMMANDS
from busd.words.errors import ERRORS
from busd.words.settings import Limits
from busd.words.units import parse_duration_ns, parse_size_bytes
from tests.support.transcript import ROOT, Transcript, of_protocol, pattern, transcripts

TEXT = (ROOT / "protocol.md").read_text()


def section(title: str) -> str:
    """The text below a heading, up to the next of the same kind.

    Raises:
        AssertionError: there is no such heading.
    """
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert match is not None, f"protocol.md has no section {title!r}"
    return match[1]


def rows(text: str) -> list[list[str]]:
    """The body of the first table in a text, as cells."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_errors_are_those_of_the_code() -> None:
    table = {row[0].strip("`"): (row[1] == "yes", row[2]) for row in rows(section("10. Errors"))}
    assert table == {code: (kind.fatal, kind.meaning) for code, kind in ERRORS.items()}


def test_error_codes_used_anywhere_are_in_the_table() -> None:
    used = set(re.findall(r"`-([A-Z]{3,})`", TEXT)) | set(re.findall(r"^\d?< \"?-([A-Z]{3,})", TEXT, re.MULTILINE))
    assert used - set(ERRORS) == set()


def value_of(text: str, field: str) -> int:
    """A default as the document writes it, in the unit of the field."""
    if field.endswith("_ns"):
        return parse_duration_ns(text.encode())
    return parse_size_bytes(text.replace(",", ""))


# Settings whose field has its unit behind it.
DURATIONS = [field.name.removesuffix("_ns") for field in fields(Limits) if field.name.endswith("_ns")]


def documented_limits() -> dict[str, int]:
    """Field of Limits: default, from the table of section 11; `1M, 64k when…` belong to `a`, `b` in that order."""
    found: dict[str, int] = {}
    for _, default, setting, _ in rows(section("11. Limits")):
        names = re.findall(r"`(\w+)`", setting)
        defaults = re.findall(r"[\d,]*\d ?[kMGsm]?(?= %|\b)", default)
        for name, text in zip(names, defaults, strict=False):
            field = f"{name}_ns" if name in DURATIONS else name
            found[field] = value_of(text.strip(), field)
        # A second setting without a default of its own is off.
        found.update(dict.fromkeys(names[len(defaults) :], 0))
    return found


def test_limits_are_those_of_the_code() -> None:
    defaults = Limits()
    assert documented_limits() == {field.name: getattr(defaults, field.name) for field in fields(Limits)}


def test_the_rights_of_commands_are_those_of_the_code() -> None:
    table = {row[0].strip("`"): tuple(cell.replace("–", "") for cell in row[1:]) for row in rows(section("15. Users"))}
    assert table == NEEDS


@pytest.mark.parametrize("verb", COMMANDS)
def test_each_command_has_a_section(verb: str) -> None:
    headings = " ".join(re.findall(r"^### (.*)$", TEXT, re.MULTILINE))
    assert re.search(rf"`{verb}[ `]", headings), f"no heading of protocol.md names {verb}"


def test_the_states_are_those_of_the_code() -> None:
    table = subscription.table_as_markdown().strip()
    assert table in section("12. The state of a subscription")
    assert rows(table), "the table is empty"


def test_the_states_of_a_delivery_are_those_of_the_code() -> None:
    table = delivery.table_as_markdown().strip()
    assert table in section("13. The state of a delivery")
    assert rows(table), "the table is empty"


def test_the_golden_frame_is_one() -> None:
    literal = re.findall(r"```\n(\+B .*)\n```", section("14. The batch frame"))[-1]
    frame = ast.literal_eval(f'b"{literal}"')
    batch = parse(frame)
    assert isinstance(batch, Batch)
    assert (batch.first, batch.n, batch.time_ns) == (1, 2, 1_795_248_000_000_000_000)
    assert batch.topics == (b"news.eu",)
    assert batch.items() == [b"hello", b"world"]


def test_every_link_in_the_document_has_its_heading() -> None:
    anchors = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", TEXT, re.M)
    }
    assert [link for link in re.findall(r"\]\(#([^)]+)\)", TEXT) if link not in anchors] == []


def test_nothing_is_left_to_be_filled_in() -> None:
    assert re.findall(r"@[A-Z]+@", TEXT) == []


def test_the_parser_takes_every_block_that_sends() -> None:
    blocks = re.findall(r"^```\w*\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    sending = [block for block in blocks if re.search(r"^\d?> ", block, re.MULTILINE)]
    parsed = of_protocol()
    assert len(parsed) == len(sending) > 15
    assert sum(len(one.steps) for one in parsed) == sum(block.count("\n") for block in sending)


def test_the_parser_reads_every_kind_of_line() -> None:
    (one,) = transcripts(
        '## A b\n```\n> PUB t x\n2< "a\\r\\n{any}b"\n(end of input)\n2(closed)\n```\n```\nno transcript\n```\n'
    )
    assert isinstance(one, Transcript)
    assert [(step.connection, step.action, step.data) for step in one.steps] == [
        (1, "send", b"PUB t x\n"),
        (2, "expect", b"a\r\n{any}b"),
        (1, "half-close", b""),
        (2, "closed", b""),
    ]
    assert pattern(one.steps[1].data).fullmatch(b"a\r\n17b")
    assert not pattern(one.steps[1].data).fullmatch(b"a\r\n1\r\n7b")


def test_the_parser_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="line 3"):
        transcripts("```\n> PING\nPONG\n```\n")
