"""Questions and their answers, in each dialect; what they say of the server comes from engine and host."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest

from busd.broker.questions import QUESTIONS, answer
from busd.rules.replies import InlineReplies, Replies, RespReplies
from busd.words import requests as rq
from busd.words.commands import COMMANDS, INFO_SECTIONS
from tests.support.memory_server import MemoryServer


def server() -> MemoryServer:
    """A server with two topics and a connection."""
    one = MemoryServer()
    connection = one.connect()
    connection.send(b"PUB b x\nPUB a y\nEOF a\n")
    connection.received()
    return one


def ask(request: rq.Request, replies: Replies | None = None) -> bytes:
    """The answer of that server."""
    it = server()
    return answer(request, it.broker, it, replies or InlineReplies())


def resp(version: int) -> RespReplies:
    """The encoder of a version."""
    replies = RespReplies()
    replies.version = version
    return replies


def parsed(data: bytes) -> Any:
    """One RESP value."""
    reader = hiredis.Reader()
    reader.feed(data)
    value = reader.gets()
    assert not reader.has_data()
    return value


def test_topics() -> None:
    request = rq.Topics((b">",), eol=b"\r\n")
    assert ask(request) == b"*2\r\na messages=1 last=3 state=ended\r\nb messages=1 last=1 state=open\r\n"
    assert parsed(ask(request, resp(2))) == [
        [b"name", b"a", b"messages", 1, b"last", 3, b"state", b"ended"],
        [b"name", b"b", b"messages", 1, b"last", 1, b"state", b"open"],
    ]
    assert parsed(ask(request, resp(3)))[0] == {b"name": b"a", b"messages": 1, b"last": 3, b"state": b"ended"}
    assert ask(rq.Topics((b"none",))) == b"*0\n"


def test_info_joins_what_engine_and_host_know() -> None:
    first, *lines = ask(rq.Info()).splitlines()
    assert first == b"*%d" % len(lines)
    names = [line.partition(b"=")[0].decode() for line in lines]
    assert names == [
        "version",
        "sync",
        "status",
        "connections",
        "subscriptions",
        "published",
        "delivered",
        "gaps",
        "stalled",
        "refused",
        "held",
        "duplicates",
        "next",
    ]
    assert b"next=4" in lines
    assert b"connections=1" in lines
    # An end of stream is no message.
    assert b"published=2" in lines


@pytest.mark.parametrize("section", INFO_SECTIONS)
def test_info_by_section(section: str) -> None:
    names = {line.partition(b"=")[0].decode() for line in ask(rq.Info(section)).splitlines()[1:]}
    engine = {name for name, _ in server().broker.info().get(section, ())}
    host = {name for name, _ in server().info().get(section, ())}
    assert names == engine | host


def test_info_in_resp() -> None:
    mapping = parsed(ask(rq.Info("log"), resp(3)))
    assert mapping == {b"next": 4}
    assert parsed(ask(rq.Info("log"), resp(2))) == [b"next", 4]


def test_conns() -> None:
    assert ask(rq.Conns()) == b"*1\n1 peer=memory\n"


def test_help_lists_all_or_explains_one() -> None:
    lines = ask(rq.Help()).splitlines()
    assert lines[0] == b"*%d" % len(COMMANDS)
    assert [line.split()[0].rstrip(b":").decode() for line in lines[1:]] == list(COMMANDS)
    assert ask(rq.Help("PUB")) == b"*1\nPUB topic payload: append a message\n"


def test_ping() -> None:
    assert ask(rq.Ping()) == b"PONG\n"
    assert ask(rq.Ping(b"x y ")) == b"x y \n"
    assert ask(rq.Ping(b"")) == b"\n"
    assert ask(rq.Ping(), resp(2)) == b"+PONG\r\n"
    assert ask(rq.Ping(b"a\r\nb"), resp(2)) == b"$4\r\na\r\nb\r\n"


def test_hello() -> None:
    assert ask(rq.Hello()) == b"*5\nserver=busd\nversion=test\nproto=0\nepoch=1\nnext=4\n"
    assert parsed(ask(rq.Hello(3), resp(3)))[b"proto"] == 3


def test_housekeeping() -> None:
    assert ask(rq.Housekeeping(), resp(2)) == b"+OK\r\n"
    assert ask(rq.Housekeeping(empty=True), resp(2)) == b"*0\r\n"


def test_there_is_an_answer_to_every_question() -> None:
    for request in QUESTIONS:
        made = request((b"a",)) if request is rq.Topics else request()
        assert ask(made).endswith(b"\n")


def test_of_names_that_sections_share_each_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    it = server()
    sections = {"log": [("next", 4)], "stores": [("next", "first=1"), ("own", "first=1")]}
    monkeypatch.setattr(it.log, "info", lambda: sections)
    whole = answer(rq.Info(), it.broker, it, InlineReplies()).splitlines()
    assert (whole.count(b"next=4"), whole.count(b"own=first=1"), b"next=first=1" in whole) == (1, 1, False)
    assert b"next=first=1" in answer(rq.Info("stores"), it.broker, it, InlineReplies()).splitlines()
