"""The command table: every verb once, for both dialects, HELP and protocol.md.

`build` makes a request of arguments that are already apart (RESP, and inline lines split at blanks).
`build_line` makes one of the rest of an inline line, for the verbs whose payload is the rest of the line.
A verb that lacks one of the two does not exist in that dialect and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from busd.words import requests as rq
from busd.words.errors import BusError, quoted
from busd.words.escapes import unescape
from busd.words.groups import parse_ack, parse_forget, parse_groups, parse_nack, parse_seek, parse_touch
from busd.words.headers import parse_header_pairs, parse_header_words
from busd.words.options import parse_read, parse_subscribe
from busd.words.settings import Limits
from busd.words.topics import check_topic, parse_patterns

Build = Callable[[list[bytes], bool, Limits], rq.Request]
BuildLine = Callable[[bytes, Limits], rq.Request]


@dataclass(frozen=True, slots=True)
class Command:
    """A verb: how it is written, what it does, how a request is made of it."""

    usage: str
    summary: str
    build: Build | None
    build_line: BuildLine | None = None


# As many as the default limit of topics would cost 20 MB, so fewer.
_KNOWN_TOPICS = 16_384


class _Known(dict[bytes, bytes]):
    """Topics seen before, each by itself; asked by `[]` for one that it has not, it checks it."""

    def __missing__(self, topic: bytes) -> bytes:
        check_topic(topic)
        if len(self) >= _KNOWN_TOPICS:
            self.clear()
        self[topic] = topic
        return topic


_known = _Known()
# `check_topic`, and for the same name, while it is known, the same object: its hash has been computed, and who looks it
# up in a table that it was put into need not compare letters.  Of 2,300 names, one of 10,000 each, that is a third of
# what the tables behind take.
known_topic = _known.__getitem__


def known_topics(topics: Sequence[bytes]) -> bytes | list[bytes]:
    """`known_topic` for each, at least one: as a run has them, one for all where they are the same.

    Raises:
        BusError: TOPIC, of one of those that are none.
    """
    names = list(map(known_topic, topics))
    first = names[0]
    return first if first == names[-1] and names.count(first) == len(names) else names


def allowed_topics(topics: Sequence[bytes], payloads: Sequence[bytes], limits: Limits) -> bytes | list[bytes] | None:
    """`known_topics` of messages; None when a topic is none or a payload is too long."""
    try:
        names = known_topics(topics)
    except BusError:
        return None
    return names if max(map(len, payloads)) <= limits.payload_bytes else None


def check_payload(payload: bytes, limits: Limits) -> bytes:
    """The payload, when it is not too long.

    Raises:
        BusError: TOOBIG.
    """
    if len(payload) > limits.payload_bytes:
        raise BusError("TOOBIG", f"a payload of {len(payload)} bytes; the limit is {limits.payload_bytes}")
    return payload


def _publish_line(rest: bytes, limits: Limits) -> rq.Request:
    topic, _, payload = rest.partition(b" ")
    check_payload(payload, limits)
    return rq.Publish(known_topic(topic), [payload], len(payload))


def _publish_escaped(rest: bytes, limits: Limits) -> rq.Request:
    topic, _, text = rest.partition(b" ")
    payload = check_payload(unescape(text), limits)
    return rq.Publish(known_topic(topic), [payload], len(payload))


def _publish_headers(rest: bytes, limits: Limits) -> rq.Request:
    topic, _, tail = rest.partition(b" ")
    known_topic(topic)
    words, payload = parse_header_words(tail, limits)
    check_payload(payload, limits)
    return _one(topic, payload, words)


def _publish(args: list[bytes], resp: bool, limits: Limits) -> rq.Request:
    if len(args) < 2 or len(args) % 2:
        raise BusError("ARG", "PUB takes a topic, a payload and pairs of header name and value")
    topic, payload, *headers = args
    return _one(known_topic(topic), check_payload(payload, limits), parse_header_pairs(headers, limits))


def _one(topic: bytes, payload: bytes, headers: list[bytes]) -> rq.Publish:
    size = len(payload) + sum(map(len, headers))
    return rq.Publish(
        topic, [[payload, *headers] if headers else payload], size, headers=bool(headers), ids=b"id" in headers
    )


def _publish_many(args: list[bytes], resp: bool, limits: Limits) -> rq.Request:
    if len(args) < 2:
        raise BusError("ARG", "MPUB takes a topic and at least one payload")
    topic, *payloads = args
    check_payload(max(payloads, key=len), limits)
    return rq.Publish(known_topic(topic), list[rq.Item](payloads), sum(map(len, payloads)), answers="first")


def _end_of_stream(args: list[bytes], resp: bool, limits: Limits) -> rq.Request:
    (topic,) = _exactly("EOF", args, "topic")
    return rq.Publish(known_topic(topic), [b""], 0, kind="eof")


def _subscribe(args: list[bytes], resp: bool, limits: Limits) -> rq.Request:
    return parse_subscribe(args, resp, limits)


def _read(args: list[bytes], resp: bool, limits: Limits) -> rq.Request:
    return parse_read(args, resp)


def _reset(args: list[bytes], resp: bool, limits: Limits) -> rq.Request:
    return rq.Reset(parse_patterns(_exactly("RESET", args, "pattern")[0]))


def _topics(args: list[bytes], resp: bool, limits: Limits) -> rq.Request:
    return rq.Topics(parse_patterns(_at_most_one("TOPICS", args) or b">"))


def _info(args: list[bytes], resp: bool, limits: Limits) -> rq.Request:
    section = _at_most_one("INFO", args).decode("utf-8", "replace").lower()
    if section not in ("", *INFO_SECTIONS):
        raise BusError("ARG", f"INFO has no section {quoted(args[0])}; known are {', '.join(INFO_SECTIONS)}")
    return rq.Info(section)


def _help(args: list[bytes], resp: bool, limits: Limits) -> rq.Request:
    verb = _at_most_one("HELP", args).upper().decode("utf-8", "replace")
    if verb and verb not in COMMANDS:
        raise BusError("ARG", f"HELP knows no command {quoted(args[0])}; HELP alone lists them")
    return rq.Help(verb)


def _hello(args: list[bytes], resp: bool, limits: Limits) -> rq.Request:
    if not args:
        return rq.Hello()
    if args[0] not in (b"2", b"3"):
        raise BusError("PROTO", f"HELLO takes 2 or 3, not {quoted(args[0])}")
    auth = None
    options = args[1:]
    while options:
        word = options[0].upper()
        if word == b"AUTH" and len(options) > 2 and auth is None:
            auth = rq.Auth(options[1], options[2])
            options = options[3:]
        elif word == b"SETNAME" and len(options) > 1:
            # Redis clients may; no use here.
            options = options[2:]
        else:
            raise BusError("ARG", "HELLO takes 2 or 3, then AUTH user token and SETNAME name")
    if not resp:
        raise BusError("PROTO", "HELLO chooses a version of RESP; this connection is inline, say HELLO alone")
    return rq.Hello(int(args[0]), auth)


def _auth(args: list[bytes], resp: bool, limits: Limits) -> rq.Request:
    # No word of the arguments in an error: one of them is a token.
    if not 1 <= len(args) <= 2:
        raise BusError("ARG", f"AUTH takes a token, or a user and a token, not {len(args)} arguments")
    return rq.Auth(args[0] if len(args) == 2 else b"", args[-1])


def _ping(args: list[bytes], resp: bool, limits: Limits) -> rq.Request:
    return rq.Ping(check_payload(_at_most_one("PING", args), limits) if args else None)


def _quiet(args: list[bytes], resp: bool, limits: Limits) -> rq.Request:
    word = _at_most_one("QUIET", args).upper() or b"ON"
    if word not in (b"ON", b"OFF"):
        raise BusError("ARG", f"QUIET takes ON or OFF, not {quoted(args[0])}")
    return rq.Quiet(word == b"ON")


def _plain(parse: Callable[[list[bytes]], rq.Request]) -> Build:
    """A verb that is the same in both dialects and has no limits of its own."""
    return lambda args, resp, limits: parse(args)


def _unsub(args: list[bytes], resp: bool, limits: Limits) -> rq.Request:
    word = _at_most_one("UNSUB", args).upper()
    if word not in (b"", b"DRAIN"):
        raise BusError("ARG", f"UNSUB takes DRAIN or nothing, not {quoted(args[0])}")
    return rq.Unsub(word == b"DRAIN")


def _bare(verb: str, request: type[rq.Conns] | type[rq.Quit]) -> Build:
    def build(args: list[bytes], resp: bool, limits: Limits) -> rq.Request:
        if args:
            raise BusError("ARG", f"{verb} takes no arguments")
        return request()

    return build


def _exactly(verb: str, args: list[bytes], what: str) -> list[bytes]:
    if len(args) != 1:
        raise BusError("ARG", f"{verb} takes one {what}, not {len(args)} arguments")
    return args


def _at_most_one(verb: str, args: list[bytes]) -> bytes:
    if len(args) > 1:
        raise BusError("ARG", f"{verb} takes one argument at most, not {len(args)}")
    return args[0] if args else b""


INFO_SECTIONS = ("server", "health", "log", "stores", "clients")

COMMANDS: dict[str, Command] = {
    "PUB": Command("PUB topic payload", "append a message", _publish, _publish_line),
    "EPUB": Command("EPUB topic escaped", "append a payload written with escapes", None, _publish_escaped),
    "HPUB": Command("HPUB topic k=v … :payload", "append a message with headers", None, _publish_headers),
    "MPUB": Command("MPUB topic payload …", "append many at once", _publish_many, None),
    "SUB": Command(
        "SUB pattern[,pattern…] [FROM pos|LAST n] [UNTIL pos] [LIMIT n] [WITHIN dur] [SLOW drop|spill] [FORMAT f]"
        " [GROUP g [WINDOW n] [WAIT dur] [TRIES n]]",
        "subscribe: replay, then live; with GROUP a share of its messages",
        _subscribe,
    ),
    "READ": Command(
        "READ pattern[,pattern…] [GROUP g] [FROM pos|LAST n] [LIMIT n] [WITHIN dur] [FORMAT f]",
        "what is there, then END; with GROUP what it has not settled",
        _read,
    ),
    "UNSUB": Command("UNSUB [DRAIN]", "end the subscription; in a group, give back what is out, or finish it", _unsub),
    "ACK": Command("ACK [..]token …", "settle deliveries; with .. also all sent before", _plain(parse_ack)),
    "NACK": Command("NACK token [DELAY dur] [reason]", "give a delivery back", _plain(parse_nack)),
    "TOUCH": Command("TOUCH token …", "ask more time for deliveries", _plain(parse_touch)),
    "SEEK": Command("SEEK group pos", "move a group to a position", _plain(parse_seek)),
    "FORGET": Command("FORGET group", "delete a group without members", _plain(parse_forget)),
    "GROUPS": Command("GROUPS [pattern[,pattern…]]", "list groups", _plain(parse_groups)),
    "RESET": Command("RESET pattern[,pattern…]", "remove all messages so far", _reset),
    "EOF": Command("EOF topic", "mark the end of a stream", _end_of_stream),
    "TOPICS": Command("TOPICS [pattern[,pattern…]]", "list topics", _topics),
    "INFO": Command("INFO [server|health|log|stores|clients]", "how the server is", _info),
    "CONNS": Command("CONNS", "list connections", _bare("CONNS", rq.Conns)),
    "HELP": Command("HELP [command]", "list commands, or explain one", _help),
    "PING": Command("PING [payload]", "answer PONG, or the payload", _ping),
    "HELLO": Command("HELLO [2|3 [AUTH user token]]", "who is there; choose RESP2 or RESP3", _hello),
    "AUTH": Command("AUTH [user] token", "say who you are", _auth),
    "QUIET": Command("QUIET [ON|OFF]", "answer errors only", _quiet),
    "QUIT": Command("QUIT", "answer, then close", _bare("QUIT", rq.Quit)),
}

# Redis clients ask these unprompted; an error would stop some of them.
HOUSEKEEPING: dict[str, Build] = {
    "CLIENT": lambda args, resp, limits: rq.Housekeeping(),
    "SELECT": lambda args, resp, limits: rq.Housekeeping(),
    "COMMAND": lambda args, resp, limits: rq.Housekeeping(empty=True),
    "CONFIG": lambda args, resp, limits: rq.Housekeeping(empty=True),
    "ECHO": _ping,
}


def build_request(verb: bytes, args: list[bytes], limits: Limits) -> rq.Request:
    """The request of a RESP command; errors come back as Bad, never as an exception."""
    name = verb.upper().decode("utf-8", "replace")
    command = COMMANDS.get(name)
    build = command.build if command is not None else HOUSEKEEPING.get(name)
    try:
        if build is None and command is not None:
            raise BusError("PROTO", f"{name} is for inline connections; in RESP PUB takes any bytes and headers")
        if build is None:
            raise BusError("UNKNOWN", f"no command {quoted(verb)}; HELP lists them")
        request = build(args, True, limits)
    except BusError as error:
        return rq.Bad(error, error.code == "UNKNOWN", eol=b"\r\n")
    request.eol = b"\r\n"
    return request


def build_line_request(line: bytes, eol: bytes, limits: Limits) -> rq.Request | None:
    """The request of one inline line without its line end; None for an empty one.  Errors come back as Bad."""
    line = line.lstrip(b" \t")
    if not line:
        return None
    # Blanks are space and tab: bytes.split() would also split at CR, VT and FF.
    verb, _, rest = line.partition(b" ")
    if b"\t" in verb:
        verb, _, rest = line.partition(b"\t")
    rest = rest.lstrip(b" \t")
    name = verb.upper().decode("utf-8", "replace")
    command = COMMANDS.get(name)
    try:
        if command is None:
            raise BusError("UNKNOWN", f"no command {quoted(verb)}; HELP lists them")
        if command.build_line is not None:
            request = command.build_line(rest, limits)
        elif len(line) > limits.line_bytes:
            raise BusError("TOOBIG", f"a line of {len(line)} bytes; without a payload the limit is {limits.line_bytes}")
        elif command.build is None or name == "MPUB":
            raise BusError("PROTO", f"{name} needs RESP arrays; inline, send a PUB line for each payload")
        else:
            request = command.build([word for word in rest.replace(b"\t", b" ").split(b" ") if word], False, limits)
    except BusError as error:
        # A web page can have a browser send "PING / HTTP/1.1", and lines of its own behind the headers.
        return rq.Bad(error, error.code == "UNKNOWN", closes=name == "HOST:", eol=eol)
    request.eol = eol
    return request
