"""Whatever is sent, what busd says of it is printable lines: nothing that an error repeats can move a cursor, colour a
terminal or look like another answer.  Exceptions: the payload of a PING, which is given back as it came.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from busd.words.commands import COMMANDS
from tests.support.memory_server import MemoryServer
from tests.support.users import token_of, user

WILD = b"\x1b[31m\x07\x08\x9b\x00\x7f\xc2\x85\xe2\x80\xae\xff"
USERS = user("web", pub=["a.>"], sub=["a.>"])

words = st.one_of(
    st.sampled_from(
        [WILD, b"a" + WILD, WILD + b"," + WILD, b"GROUP", b"FROM", b"DELAY", b"1", b"a", b"k=" + WILD, b">"]
    ),
    st.binary(min_size=1, max_size=40).map(lambda raw: raw.replace(b"\n", b"\x0b")),
    st.text(min_size=1, max_size=10).map(lambda text: text.encode("utf-8", "surrogatepass").replace(b"\n", b"")),
)
verbs = st.one_of(st.sampled_from([verb.encode() for verb in COMMANDS if verb != "PING"]), words)


def resp(parts: list[bytes]) -> bytes:
    """A RESP command."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def check(said: bytes) -> None:
    """Every line of it is printable text."""
    lines = said.decode("utf-8").replace("\r\n", "\n").split("\n")
    assert lines.pop() == ""
    for line in lines:
        assert line.isprintable(), f"{line!r}"


@settings(max_examples=400, deadline=None)
@given(verb=verbs, arguments=st.lists(words, max_size=5), known=st.booleans())
def test_what_an_error_repeats_is_printable(verb: bytes, arguments: list[bytes], known: bool) -> None:
    for users in ("", USERS):
        server = MemoryServer(users=users)
        for said in (b" ".join([verb, *arguments]) + b"\n", resp([verb, *arguments])):
            one = server.connect()
            inline = not said.startswith(b"*")
            if users and known:
                one.send(
                    b"AUTH " + token_of("web").encode() + b"\n" if inline else resp([b"AUTH", token_of("web").encode()])
                )
                one.received()
            one.send(said)
            heard = one.received()
            if b"PING" not in said.upper() and b"ECHO" not in said.upper():
                check(heard)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=60))
def test_nor_does_rubbish_come_back(data: bytes) -> None:
    for first in (b"", b"*", b"*2\r\n$4\r\n", b"\x16\x03"):
        one = MemoryServer().connect()
        one.send(first + data)
        one.end_of_input()
        check(one.received())
