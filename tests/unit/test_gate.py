"""Users in a conversation: a refusal for every command, what strangers may, and what reading the users again does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busd.broker.gate import Gate
from busd.broker.intake import STRANGER_BYTES
from busd.rules.access import ANYBODY, NEEDS
from busd.rules.users import Peer
from busd.words.requests import Auth, Bad, Item, Publish
from busd.words.settings import Limits
from busd.words.units import NS_PER_S
from tests.support.memory_server import MemoryConnection, MemoryServer
from tests.support.users import peer, secret_of, token_of, user

ROOT = user("root", pub=[">"], sub=[">", "_dead.>"], admin=[">", "_dead.>"])
WEB = user("web", pub=["orders.>"], sub=["orders.*.eu"], admin=["orders.eu"])
WATCH = user("watch", sub=[">"])
STRANGE = "-AUTH nobody has said who this is; say AUTH token, as `busd user add` printed it"
WRONG = "-AUTH that is no user and its token; say AUTH token, as `busd user add` printed it"


def say(connection: MemoryConnection, *lines: str) -> list[str]:
    """Send lines together; the lines that came."""
    connection.send("".join(f"{line}\n" for line in lines).encode())
    return connection.received().decode().splitlines()


def as_user(server: MemoryServer, name: str) -> MemoryConnection:
    """A connection of that user."""
    connection = server.connect()
    assert say(connection, f"AUTH {token_of(name)}") == ["+OK"]
    return connection


def resp(*words: str) -> bytes:
    """A RESP command."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w.encode()), w.encode()) for w in words)


@pytest.fixture
def server() -> MemoryServer:
    found = MemoryServer(users=ROOT + WEB + WATCH)
    root = as_user(found, "root")
    say(root, "PUB orders.1.eu a", "PUB secret b", "SUB orders.1.eu GROUP mine", "UNSUB")
    say(root, "SUB secret GROUP theirs", "UNSUB")
    root.drop()
    return found


# A command of each verb that web may, and what it may not, with what the refusal says.
MAY: dict[str, str] = {
    "PUB": "PUB orders.2 x",
    "EPUB": "EPUB orders.2 x",
    "HPUB": "HPUB orders.2 k=v :x",
    "EOF": "EOF orders.2",
    "SUB": "SUB orders.1.eu,orders.*.eu",
    "READ": "READ orders.1.eu LIMIT 1",
    "SEEK": "SEEK mine next",
    "FORGET": "FORGET mine",
    "GROUPS": "GROUPS mine",
    "RESET": "RESET orders.eu",
    "TOPICS": "TOPICS orders.*.eu",
    "UNSUB": "UNSUB",
    "QUIET": "QUIET OFF",
    "PING": "PING",
    "HELP": "HELP PUB",
    "HELLO": "HELLO",
    "AUTH": f"AUTH {token_of('web')}",
    "QUIT": "QUIT",
}
REFUSED: list[tuple[str, str]] = [
    ("PUB secret x", "web may not pub secret; its rights: pub orders.>"),
    ("PUB orders x", "web may not pub orders; its rights: pub orders.>"),
    ("EPUB secret x", "web may not pub secret; its rights: pub orders.>"),
    ("HPUB secret k=v :x", "web may not pub secret; its rights: pub orders.>"),
    ("EOF secret", "web may not pub secret; its rights: pub orders.>"),
    ("SUB secret", "web may not sub secret; its rights: sub orders.*.eu"),
    ("SUB >", "web may not sub >; its rights: sub orders.*.eu"),
    ("SUB orders.1.eu,orders.>", "web may not sub orders.>; its rights: sub orders.*.eu"),
    ("SUB _dead.>", "web may not sub _dead.>; its rights: sub orders.*.eu"),
    ("SUB secret GROUP mine", "web may not sub secret; its rights: sub orders.*.eu"),
    ("SUB orders.1.eu GROUP theirs", "web needs the right sub over all that groups named theirs read"),
    ("READ secret", "web may not sub secret; its rights: sub orders.*.eu"),
    ("READ orders.1.eu GROUP theirs", "web needs the right sub over all that groups named theirs read"),
    ("SEEK theirs next", "web needs the right admin over all that groups named theirs read"),
    ("SEEK none next", "web needs the right admin over all that groups named none read"),
    ("FORGET theirs", "web needs the right admin over all that groups named theirs read"),
    ("FORGET none", "web needs the right admin over all that groups named none read"),
    ("GROUPS", "web needs the right sub or admin over all that groups named > read"),
    ("GROUPS theirs", "web needs the right sub or admin over all that groups named theirs read"),
    ("RESET orders.1.eu", "web may not admin orders.1.eu; its rights: admin orders.eu"),
    ("RESET >", "web may not admin >; its rights: admin orders.eu"),
    ("TOPICS", "web may not sub or admin >; its rights: sub orders.*.eu; admin orders.eu"),
    ("INFO", "web may not sub or admin >; its rights: sub orders.*.eu; admin orders.eu"),
    ("INFO server", "web may not sub or admin >; its rights: sub orders.*.eu; admin orders.eu"),
    ("CONNS", "web may not admin >; its rights: admin orders.eu"),
]
# MPUB has no line, ACK and the like need a membership, which needed the right.
BY_OTHER_WAYS = {"MPUB", "ACK", "NACK", "TOUCH"}


@pytest.mark.parametrize("verb", MAY)
def test_what_is_covered_is_carried_out(server: MemoryServer, verb: str) -> None:
    say(as_user(server, "root"), "SEEK mine first")
    web = user("web", ["orders.>"], ["orders.*.eu"], ["orders.eu", "orders.1.eu"])
    server.read_users(ROOT + web)
    found = say(as_user(server, "web"), MAY[verb])
    assert found
    assert not found[0].startswith("-")


@pytest.mark.parametrize(("line", "told"), REFUSED)
def test_what_is_not_covered_is_refused_and_does_nothing(server: MemoryServer, line: str, told: str) -> None:
    horizon, groups = server.broker.horizon, dict(server.log.groups)
    (found,) = say(as_user(server, "web"), line)
    assert found.startswith(f"-DENIED {told}")
    assert (server.broker.horizon, dict(server.log.groups)) == (horizon, groups)
    assert not server.broker.opened
    # Whoever has the right is not refused.
    assert not say(as_user(server, "root"), line)[0].startswith("-DENIED")


def test_every_command_has_its_refusal() -> None:
    refused = {line.split()[0] for line, _ in REFUSED}
    needing = {verb for verb, (right, _) in NEEDS.items() if right}
    assert needing - BY_OTHER_WAYS == refused
    assert set(MAY) | refused | BY_OTHER_WAYS == set(NEEDS)


@pytest.mark.parametrize("verb", sorted(set(NEEDS) - {"MPUB"}))
def test_a_stranger_may_say_who_it_is_and_little_else(server: MemoryServer, verb: str) -> None:
    lines = {line.split()[0]: line for line, _ in REFUSED} | MAY | {one: f"{one} 1" for one in ("ACK", "NACK", "TOUCH")}
    lines["QUIET"] = "QUIET ON"
    found = say(server.connect(), lines[verb])
    if "before authentication" in NEEDS[verb][1]:
        assert not found[0].startswith("-")
    else:
        assert found == [STRANGE]


def test_mpub_is_refused_as_one(server: MemoryServer) -> None:
    web, stranger = as_user(server, "web"), server.connect()
    other = server.connect()
    other.send(resp("AUTH", "web", secret_of("web")) + resp("MPUB", "secret", "a", "b") + resp("MPUB", "orders.1", "c"))
    answers = other.received().splitlines()
    assert answers[1].startswith(b"-DENIED web may not pub secret")
    assert answers[2:] == [b":3"]
    stranger.send(resp("MPUB", "orders.1", "a", "b"))
    assert stranger.received() == STRANGE.encode() + b"\r\n"
    assert say(web, "PING") == ["PONG"]


def test_a_stranger_learns_only_that_this_is_busd(server: MemoryServer) -> None:
    one = server.connect()
    assert say(one, "HELLO") == ["*2", "server=busd", "proto=0"]
    say(one, f"AUTH {token_of('web')}")
    assert "next=3" in say(one, "HELLO")


@pytest.mark.parametrize(
    "words",
    [
        f"{token_of('web')}",
        f"web {secret_of('web')}",
        f"web {token_of('web')}",
        f"default {token_of('web')}",
    ],
)
def test_the_forms_of_a_token(server: MemoryServer, words: str) -> None:
    assert say(server.connect(), f"AUTH {words}", "PUB orders.1 x") == ["+OK", ":3"]


@pytest.mark.parametrize(
    "words",
    ["web:guess", "web guess", "nobody:guess", "nobody guess", secret_of("web"), f"root {token_of('web')}", ":", "x"],
)
def test_a_refusal_does_not_tell_whether_there_is_such_a_user(server: MemoryServer, words: str) -> None:
    one = server.connect()
    assert say(one, f"AUTH {words}", "PUB orders.1 x") == [WRONG, STRANGE]
    assert not one.closed


def test_hello_brings_its_auth(server: MemoryServer) -> None:
    one = server.connect()
    one.send(resp("HELLO", "3", "AUTH", "web", "guess"))
    assert one.received() == WRONG.encode() + b"\r\n"
    # Nothing was changed by it, nor the version.
    assert one.session.dialect == "resp2"
    one.send(resp("HELLO", "3", "AUTH", "web", secret_of("web"), "SETNAME", "x"))
    assert one.received().startswith(b"%5\r\n")
    assert (one.session.dialect, one.session.gate.name) == ("resp3", "web")


def test_a_refused_auth_changes_nothing(server: MemoryServer) -> None:
    web = as_user(server, "web")
    assert say(web, "AUTH root:guess", "PUB orders.1 x") == [WRONG, ":3"]
    assert say(web, f"AUTH {token_of('root')}", "PUB secret x") == ["+OK", ":4"]


def test_who_it_is_cannot_change_under_a_subscription(server: MemoryServer) -> None:
    watch = as_user(server, "watch")
    say(watch, "SUB >")
    assert say(watch, f"AUTH {token_of('web')}") == [
        "-BUSY who this is cannot change under a subscription; UNSUB ends it"
    ]


def test_without_users_auth_is_refused() -> None:
    one = MemoryServer().connect()
    refused = "-AUTH this server has no users, and you may do everything; leave AUTH out"
    assert say(one, "AUTH web:x", "PUB t x") == [refused, ":1"]


def test_a_run_of_many_topics_is_refused_where_it_must_be_and_in_order(server: MemoryServer) -> None:
    topics = ["orders.1", "secret", "secret", "orders.2", "other", "orders.1", "orders.3"] * 3
    found = say(as_user(server, "web"), *[f"PUB {topic} x" for topic in topics], "PING")
    assert found.pop() == "PONG"
    offsets = iter(range(3, 100))
    for topic, answer in zip(topics, found, strict=True):
        if topic.startswith("orders"):
            assert answer == f":{next(offsets)}"
        else:
            assert answer.startswith(f"-DENIED web may not pub {topic};")
    assert server.broker.horizon == next(offsets)


@given(
    topics=st.lists(st.sampled_from([b"orders.1", b"orders.2", b"secret", b"other"]), min_size=1, max_size=40),
    headers=st.booleans(),
)
def test_the_parts_of_a_run_are_the_run(topics: list[bytes], headers: bool) -> None:
    server = MemoryServer(users=WEB)
    gate = as_user(server, "web").session.gate
    items: list[Item] = [[b"%d" % n, b"k", b"v"] if headers else b"%d" % n for n in range(len(topics))]
    parts = gate.parts(Publish(topics, items, 1000, headers=headers, eol=b"\r\n"), server.broker)
    if parts is None:
        assert all(topic.startswith(b"orders") for topic in topics)
        return
    at = refused = 0
    for part in parts:
        assert part.eol == b"\r\n"
        if isinstance(part, Bad):
            assert {topic in (b"secret", b"other") for topic in topics[at : at + part.times]} == {True}
            assert topics[at].decode() in part.error.text
            at += part.times
            refused += part.times
        else:
            assert isinstance(part, Publish)
            assert gate.parts(part, server.broker) is None
            end = at + len(part.items)
            assert (list(part.topics), part.items, part.headers) == (topics[at:end], items[at:end], headers)
            at = end
    assert at == len(topics)
    assert dict(server.broker.info()["clients"])["refused"] == refused


def test_what_was_found_allowed_is_not_looked_up_again(server: MemoryServer) -> None:
    gate = as_user(server, "web").session.gate
    run = Publish([b"orders.1", b"orders.2"] * 2, [b"x"] * 4, 4)
    assert gate.parts(run, server.broker) is None
    identity, gate.identity = gate.identity, None
    # Nobody would be allowed anything; these are remembered.
    assert gate.parts(run, server.broker) is None
    gate.identity = identity
    assert gate.renew()
    gate.identity = None
    assert gate.parts(run, server.broker) is not None


def test_a_process_is_whom_the_first_rule_that_fits_says_also_when_the_users_are_read_again() -> None:
    anybody = peer("unix = true", pub=[">"], admin=[">"])
    server = MemoryServer(users=anybody)
    one, other = server.connect(Peer("unix", 33)), server.connect(Peer("unix", 34))
    server.read_users(peer("uid = 33", sub=["b.>"]) + anybody)
    assert say(one, "PUB a 1", "RESET a") == [
        "-DENIED uid:33 may not pub a; its rights: pub nothing",
        "-DENIED uid:33 may not admin a; its rights: admin nothing",
    ]
    assert say(other, "PUB a 1") == [":1"]
    server.read_users(peer("uid = 33", pub=["a"]))
    assert say(one, "PUB a 2") == [":2"]
    assert other.closed, "nobody any more"
    stranger = server.connect(Peer("unix", 35))
    assert say(stranger, "PUB a 3")[0].startswith("-AUTH ")
    server.read_users(peer("uid = 33", pub=["a"]) + anybody)
    assert say(stranger, "PUB a 3") == [":3"], "there is a rule for it now"
    server.read_users("")
    assert one.closed


def test_without_users_a_gate_asks_nothing() -> None:
    gate = Gate()
    assert not gate.bounded
    assert not gate.stranger
    assert (gate.identity, gate.overdue(10**18), gate.renew()) == (ANYBODY, None, True)
    assert gate.may_read((b">",))


def test_a_member_needs_the_right_to_read_and_nothing_more() -> None:
    server = MemoryServer(users=ROOT + user("worker", sub=["jobs"]))
    say(as_user(server, "root"), "PUB jobs a")
    worker = as_user(server, "worker")
    joined = say(worker, "SUB jobs GROUP g TRIES 1")
    assert joined[1:] == ["MSG jobs 1 a"]
    # The dead letter is the server's own to write; to read it is another right.
    assert say(worker, "NACK 1 broken", "UNSUB")[:1] == ["+OK"]
    assert say(worker, "READ _dead.>")[0].startswith("-DENIED worker may not sub _dead.>")
    assert say(as_user(server, "root"), "READ _dead.>")[0] == "MSG _dead.g.jobs 2 a"


# Limits before authentication.


def test_a_stranger_has_so_long(server: MemoryServer) -> None:
    one, web = server.connect(), as_user(server, "web")
    server.advance(0)
    server.advance(9 * NS_PER_S)
    assert say(one, "PING") == ["PONG"]
    server.advance(2 * NS_PER_S)
    assert one.received() == b"-TIMEOUT no authentication within 10s\n"
    assert one.closed
    assert not web.closed


def stuck_server(*users: str) -> MemoryServer:
    """With so small an outbox that two answers of HELP fill it."""
    return MemoryServer(Limits(outbox_bytes=4096), users="".join(users), hold=True)


@pytest.mark.parametrize("half_closed", [False, True])
def test_a_stranger_that_does_not_read_has_no_longer(half_closed: bool) -> None:
    server = stuck_server(ROOT)
    one = server.connect()
    one.stuck = True
    one.send(b"HELP\n" * 100)
    assert one.buffered() > 4096
    if half_closed:
        one.end_of_input()
    server.advance(0)
    server.advance(10 * NS_PER_S)
    assert not one.closed
    server.advance(1)
    assert one.closed
    one.take(one.buffered())
    assert one.received().endswith(b"\n-TIMEOUT no authentication within 10s\n")


def test_a_stranger_that_reads_no_answers_gives_way() -> None:
    one = stuck_server(ROOT).connect()
    one.stuck = True
    one.send(b"HELP\n" * 100)
    one.session.gate.give_way()
    one.session.expire(0)
    assert one.closed


def test_a_user_that_is_gone_and_does_not_read_is_closed() -> None:
    server = stuck_server(ROOT, WATCH)
    one = as_user(server, "watch")
    one.stuck = True
    one.send(b"HELP\n" * 100)
    server.read_users(ROOT)
    assert one.closed
    one.take(one.buffered())
    assert one.received().endswith(b"\n-AUTH this user, or its token, is no more; say AUTH with another\n")


def test_a_user_that_is_gone_and_does_not_read_is_told_behind_what_it_published() -> None:
    server = stuck_server(ROOT)
    one = as_user(server, "root")
    one.stuck = True
    one.send(b"PUB a 1\nHELP\n")
    one.write(b"MSG b 1 %b\n" % (b"x" * 5000))
    server.read_users(WEB)
    for _ in range(3):
        server.advance(60 * NS_PER_S)
    assert not one.closed
    server.log.commit()
    server.runtime.run()
    assert one.closed
    one.take(one.buffered())
    _, answer, last = one.received().splitlines()
    assert (answer, last[:9]) == (b":1", b"-TIMEOUT ")


@pytest.mark.parametrize(
    "flood",
    [
        b"PING\n" * 2000,
        b"\n" * 10_000,
        b"x" * 10_000,
        b"PUB t " + b"x" * 10_000 + b"\n",
        resp("PUB", "t", "x" * 10_000),
        resp("AUTH", "web", "x" * 10_000),
        b"*100000\r\n" + b"$0\r\n\r\n" * 5000,
    ],
)
def test_a_stranger_may_say_so_much(server: MemoryServer, flood: bytes) -> None:
    one = server.connect()
    for at in range(0, len(flood), 1000):
        one.send(flood[at : at + 1000])
    told = f"-AUTH more than {STRANGER_BYTES} bytes before authentication; say AUTH first"
    assert one.received().splitlines()[-1] == told.encode()
    assert one.closed


def test_what_stands_behind_the_token_is_the_users(server: MemoryServer) -> None:
    payload = "x" * 10_000
    assert say(server.connect(), f"AUTH {token_of('web')}", f"PUB orders.1 {payload}") == ["+OK", ":3"]
    one = server.connect()
    one.send(resp("AUTH", token_of("web")) + resp("PUB", "orders.1", payload) * 3)
    assert one.received() == b"+OK\r\n:4\r\n:5\r\n:6\r\n"


def test_bytes_may_come_in_any_pieces(server: MemoryServer) -> None:
    script = resp("PING") + resp("AUTH", token_of("web")) + resp("PUB", "orders.1", "a\nb") + resp("PING", "end")
    for size in (1, 2, 3, 7, 50, len(script)):
        one = server.connect()
        for at in range(0, len(script), size):
            one.send(script[at : at + size])
        lines = one.received().splitlines()
        assert [lines[0], lines[1], lines[2][:1], lines[4]] == [b"+PONG", b"+OK", b":", b"end"]


# Peers.


def test_a_peer_that_fits_a_rule_needs_no_token() -> None:
    server = MemoryServer(users=WEB + peer("uid = 33", pub=["a"]))
    process, other = server.connect(Peer("unix", 33)), server.connect(Peer("unix", 34))
    assert say(process, "PUB a x", "PUB b x") == [":1", "-DENIED uid:33 may not pub b; its rights: pub a"]
    assert say(other, "PUB a x") == [STRANGE]
    assert say(process, f"AUTH {token_of('web')}", "PUB orders.1 x") == ["+OK", ":2"]


# Users read again.


def test_a_user_who_is_gone_is_told_and_closed(server: MemoryServer) -> None:
    web, watch, idle = as_user(server, "web"), as_user(server, "watch"), server.connect()
    say(web, "SUB orders.1.eu")
    server.read_users(WATCH)
    told = "-AUTH this user, or its token, is no more; say AUTH with another"
    assert web.received().decode().splitlines() == ["END denied next=3", told]
    assert web.closed
    assert not watch.closed
    assert not idle.closed


def test_a_user_with_another_token_is_somebody_else(server: MemoryServer) -> None:
    web = as_user(server, "web")
    server.read_users(user("web", ["orders.>"], secret="another"))
    assert web.closed


def test_who_is_gone_gets_the_answers_it_is_owed() -> None:
    server = MemoryServer(users=ROOT, hold=True)
    root = as_user(server, "root")
    assert say(root, "PUB a 1", "PUB a 2", "PING") == []
    server.read_users("")
    assert not root.closed
    server.log.commit()
    server.runtime.run()
    assert root.received().decode().splitlines()[:2] == [":1", ":2"]
    assert root.closed


def test_other_rights_count_from_the_next_command_on(server: MemoryServer) -> None:
    web = as_user(server, "web")
    assert say(web, "PUB orders.1 x") == [":3"]
    server.read_users(user("web", pub=["news"]))
    assert say(web, "PUB orders.1 x", "PUB news x") == ["-DENIED web may not pub orders.1; its rights: pub news", ":4"]


def test_a_subscription_that_is_not_covered_any_more_ends(server: MemoryServer) -> None:
    web, watch = as_user(server, "web"), as_user(server, "watch")
    say(web, "SUB orders.*.eu")
    say(watch, "SUB secret")
    server.read_users(user("web", sub=["orders.1.>"]) + user("watch", sub=["secret"]))
    assert web.received() == b"END denied next=3\n"
    assert watch.received() == b""
    assert say(web, "SUB orders.1.eu") == ["+OK next=3 epoch=1"]


def test_a_member_that_is_not_covered_any_more_gives_back_what_it_has(server: MemoryServer) -> None:
    root, watch = as_user(server, "root"), as_user(server, "watch")
    say(watch, "SUB secret GROUP theirs")
    server.read_users(ROOT + user("watch", sub=["other"]))
    assert watch.received().decode().splitlines()[-1].startswith("END denied next=")
    assert say(root, "SUB secret GROUP theirs")[-1] == "MSG secret 2.3 b"


def test_a_read_that_waits_ends_too(server: MemoryServer) -> None:
    watch = as_user(server, "watch")
    say(watch, "READ nothing WITHIN 5s")
    server.read_users(user("watch", sub=["other"]))
    assert watch.received() == b"END denied next=3\n"


def test_an_opening_subscription_is_refused() -> None:
    server = MemoryServer(users=ROOT, hold=True)
    root = as_user(server, "root")
    assert say(root, "SUB jobs GROUP new") == []
    server.read_users(user("root", pub=[">"], secret=secret_of("root")))
    assert root.received().startswith(b"-DENIED the users were read again")


def test_a_bare_subscription_ends_with_its_connection(server: MemoryServer) -> None:
    watch = as_user(server, "watch")
    say(watch, "SUB > FORMAT raw")
    server.read_users(user("watch", sub=["other"]))
    assert (watch.received(), watch.closed) == (b"", True)


def test_the_text_of_a_request_never_holds_the_token() -> None:
    assert "secret" not in repr(Auth(b"web", b"secret"))
