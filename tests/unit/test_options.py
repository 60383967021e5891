"""busd.words.options: the options of SUB and READ in both dialects."""

from __future__ import annotations

import pytest

from busd.words.errors import BusError
from busd.words.options import parse_count, parse_read, parse_subscribe
from busd.words.requests import WAIT_NS, Read, Subscribe
from busd.words.settings import Limits
from busd.words.units import FIRST, NEXT, Base, Position

FROM_7 = Position(Base.OFFSET, 7)
KNOWN_SUB = "known are FROM LAST LIMIT WITHIN FORMAT GROUP UNTIL SLOW WINDOW WAIT TRIES"
KNOWN_READ = "known are FROM LAST LIMIT WITHIN FORMAT GROUP"
LIMITS = Limits(in_flight=7)
HERE = "inline connections take line, raw, bytes, json"


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        (b"t", Subscribe((b"t",))),
        (b"a.*,b.>", Subscribe((b"a.*", b"b.>"))),
        (b"t FROM 7", Subscribe((b"t",), start=FROM_7)),
        (b"t from FIRST until end", Subscribe((b"t",), start=FIRST, until=NEXT)),
        (b"t LAST 3 SLOW drop", Subscribe((b"t",), last=3, slow="drop")),
        (b"t Slow SPILL Format JSON", Subscribe((b"t",), slow="spill", format="json")),
        (b"t FORMAT raw SLOW spill", Subscribe((b"t",), slow="spill", format="raw")),
        (b"t FORMAT bytes", Subscribe((b"t",), format="bytes")),
        (b"t GROUP g", Subscribe((b"t",), group=b"g", window=1, wait_ns=WAIT_NS, tries=None)),
        (b"_deadly,x GROUP g TRIES 2", Subscribe((b"_deadly", b"x"), group=b"g", tries=2)),
        (b"_dead.> GROUP g FROM first", Subscribe((b"_dead.>",), group=b"g", start=FIRST)),
        (
            b"t,u Group G-1_ window 7 Wait 5s tries 3 LIMIT 9 WITHIN 1m FORMAT json",
            Subscribe(
                (b"t", b"u"),
                group=b"G-1_",
                window=7,
                wait_ns=5 * 10**9,
                tries=3,
                limit=9,
                within_ns=60 * 10**9,
                format="json",
            ),
        ),
        (
            b"t WITHIN 5s LIMIT 9 UNTIL -5m FROM @0",
            Subscribe(
                (b"t",),
                start=Position(Base.TIME, 0),
                until=Position(Base.AGO, 300 * 10**9),
                limit=9,
                within_ns=5 * 10**9,
            ),
        ),
    ],
)
def test_subscribe(line: bytes, request_: Subscribe) -> None:
    assert parse_subscribe(line.split(), False, LIMITS) == request_


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        (b"t", Read((b"t",))),
        (b"a,b LAST 2 LIMIT 1 WITHIN 250ms", Read((b"a", b"b"), last=2, limit=1, within_ns=250 * 10**6)),
        (b"t FROM 7 FORMAT raw", Read((b"t",), start=FROM_7, format="raw")),
        (b"t GROUP g LAST 3 FORMAT raw", Read((b"t",), group=b"g", last=3, format="raw")),
    ],
)
def test_read(line: bytes, request_: Read) -> None:
    assert parse_read(line.split(), resp=False) == request_


def test_resp_has_formats_of_its_own() -> None:
    assert parse_subscribe([b"t"], True, LIMITS).format == "msg"
    assert parse_subscribe([b"t", b"FORMAT", b"Batch"], True, LIMITS).format == "batch"
    assert parse_read([b"t"], resp=True).format == "msg"
    with pytest.raises(BusError, match=r"'json' is of the other dialect; RESP connections take msg, batch$"):
        parse_read([b"t", b"FORMAT", b"json"], resp=True)


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        (b"", "ARG", "SUB takes a pattern: SUB pattern[,pattern…] [FROM pos | LAST n] …"),
        (
            b"a..b",
            "PATTERN",
            "'a..b' is not a pattern: a topic, where * stands for one token and a final > for the rest",
        ),
        (b"t FORM 1", "ARG", f"SUB has no option 'FORM'; {KNOWN_SUB}"),
        (b"t GROUP", "ARG", "GROUP takes a value"),
        (b"t GROUP a.b", "ARG", "'a.b' is not a group's name: A-Z a-z 0-9 _ -, 64 bytes at most"),
        (b"t GROUP g WINDOW 0", "ARG", "WINDOW takes a number from 1, not '0'"),
        (b"t GROUP g WINDOW 8", "LIMIT", "WINDOW 8; the limit is 7"),
        (b"t GROUP g WAIT 0s", "ARG", "WAIT takes a duration above 0, not '0s'"),
        (b"t GROUP g WAIT 5", "ARG", "'5' is not a duration like 250ms 5s 10m 2h 7d"),
        (b"t GROUP g TRIES 0", "ARG", "TRIES takes a number from 1, not '0'"),
        (b"t WINDOW 8", "ARG", "WINDOW is for members of a group; say GROUP, too"),
        (b"t WAIT 1s", "ARG", "WAIT is for members of a group; say GROUP, too"),
        (b"t TRIES 1", "ARG", "TRIES is for members of a group; say GROUP, too"),
        (b"t GROUP g LAST 1", "ARG", "LAST does not go with GROUP: a new group begins where FROM says"),
        (
            b"t UNTIL 1 GROUP g",
            "ARG",
            "UNTIL does not go with GROUP: a group has no end; LIMIT and WITHIN end a member",
        ),
        (b"t GROUP g SLOW spill", "ARG", "SLOW does not go with GROUP: WINDOW says how much a member is given"),
        (b"t GROUP g FORMAT raw", "ARG", "FORMAT raw carries no token, so nothing could be acknowledged; take line"),
        (b"t FORMAT bytes GROUP g", "ARG", "FORMAT bytes carries no token, so nothing could be acknowledged; "),
        (b"a,_dead.g.> GROUP g TRIES 3", "ARG", "TRIES makes dead letters; a group that reads them makes none, "),
        (b"t FROM", "ARG", "FROM takes a value"),
        (b"t FROM 1 from 2", "ARG", "FROM stands twice"),
        (b"t FROM 1 LAST 2", "ARG", "FROM and LAST exclude each other"),
        (b"t LAST 2 FROM 1", "ARG", "FROM and LAST exclude each other"),
        (b"t FROM soon", "POS", "'soon' is not a position: an offset from 1, first, next, end, "),
        (b"t LAST 0", "ARG", "LAST takes a number from 1, not '0'"),
        (b"t LIMIT -1", "ARG", "LIMIT takes a number from 1, not '-1'"),
        (b"t LIMIT 1000000000000000000", "ARG", "LIMIT takes a number from 1, not '1000000000000000000'"),
        (b"t WITHIN 5", "ARG", "'5' is not a duration like 250ms 5s 10m 2h 7d"),
        (b"t SLOW down", "ARG", "SLOW takes drop or spill, not 'down'"),
        (b"t FORMAT xml", "ARG", f"'xml' is not a format; {HERE}"),
        (b"t FORMAT \xff", "ARG", f"'\ufffd' is not a format; {HERE}"),
        (b"t FORMAT msg", "ARG", f"'msg' is of the other dialect; {HERE}"),
        (
            b"t FORMAT raw SLOW drop",
            "ARG",
            "FORMAT raw carries no GAP, so it cannot drop; leave SLOW out or take spill",
        ),
        (b"t SLOW drop FORMAT bytes", "ARG", "FORMAT bytes carries no GAP, so it cannot drop; "),
    ],
)
def test_bad_subscribe(line: bytes, code: str, text: str) -> None:
    with pytest.raises(BusError) as caught:
        parse_subscribe(line.split(), False, LIMITS)
    assert caught.value.code == code
    assert caught.value.text.startswith(text)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"", "READ takes a pattern: READ pattern[,pattern…] [FROM pos | LAST n] …"),
        (b"t UNTIL 1", f"READ has no option 'UNTIL'; {KNOWN_READ}"),
        (b"t GROUP g WINDOW 1", f"READ has no option 'WINDOW'; {KNOWN_READ}"),
        (b"t SLOW drop", f"READ has no option 'SLOW'; {KNOWN_READ}"),
        (b"t 1", f"READ has no option '1'; {KNOWN_READ}"),
    ],
)
def test_bad_read(line: bytes, text: str) -> None:
    with pytest.raises(BusError) as caught:
        parse_read(line.split(), resp=False)
    assert (caught.value.code, caught.value.text) == ("ARG", text)


def test_counts() -> None:
    assert parse_count(b"1", "N") == 1
    assert parse_count(b"9" * 18, "N") == 10**18 - 1
    for raw in (b"", b"0", b"00", b"1.0", b"1e3", b" 1", "٣".encode(), b"9" * 19):
        with pytest.raises(BusError, match="N takes a number from 1"):
            parse_count(raw, "N")
