"""What a server can be told: stores, limits, the sync policy; read from plain mappings (TOML), checked, immutable.

Every error names the key, what it holds and what it takes.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, cast

from busd.words import topics, units
from busd.words.errors import BusError
from busd.words.groups import check_group

Sync = Literal["always", "interval", "never"]
Retain = Literal["limits", "acked"]
Full = Literal["drop", "reject", "block"]
KIB, MIB = 1 << 10, 1 << 20
# The longest pattern and a little: below it nobody could subscribe.
MIN_LINE_BYTES = 512
# A question and two answers, in whole seconds; and Linux takes no time above 32,767 s for the first question: nine
# hours, of which that is two thirds.
MIN_KEEP_ALIVE_S, MAX_KEEP_ALIVE_S = 3, 45_000
# Beyond it a core would be kept busy for clients that a sleep costs little.
MAX_BUSY_POLL_US = 1000


class BadSetting(ValueError):
    """A setting that cannot be used; the text says which and what would be right."""


@dataclass(frozen=True, slots=True)
class StoreRule:
    """How one log is kept.  0 means no limit.

    `match` is empty for the store `main`, which takes what no rule takes.  `name` may hold `{topic}`: a log for each.
    `retain`: limits keeps until a cap acts, acked until every group that covers a topic has settled it.  `groups`:
    declared in advance.  `full`: what happens at max_bytes and max_messages: drop removes whole segments, oldest
    first; reject refuses what is published; block lets it wait, up to `full_wait_ns`, and then refuses it.
    """

    name: str = "main"
    match: tuple[bytes, ...] = ()
    segment_bytes: int = 64 * MIB
    rotate_at_s: int | None = None
    max_bytes: int = 0
    max_age_ns: int = 0
    max_messages: int = 0
    keep_last: int = 0
    retain: Retain = "limits"
    groups: tuple[bytes, ...] = ()
    full: Full = "drop"
    full_wait_ns: int = 30 * units.NS_PER_S

    @property
    def group_patterns(self) -> tuple[bytes, ...]:
        """What the declared groups read: what the rule matches, in `main` every topic but the system's own."""
        return self.match or (b">",)

    @property
    def cap_bytes(self) -> int:
        """What the files of a store may take before publishers are held back: `max_bytes` without what a rewrite needs
        for a while, and the last blocks of files.  0 means no limit."""
        # A rewrite is made when half a segment or less is wanted.
        return max(0, self.max_bytes * 31 // 32 - self.segment_bytes // 2 - 4 * KIB) if self.max_bytes else 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what clients may cost; each has an error of its own (protocol.md, Limits)."""

    payload_bytes: int = MIB
    line_bytes: int = 4 * KIB
    headers: int = 64
    header_bytes: int = 4 * KIB
    # One MPUB: as much as eight reads of 256 KiB, so that a batch of usual size fits and a mistake does not.
    command_bytes: int = 2 * MIB
    topics: int = 100_000
    connections: int = 10_000
    outbox_bytes: int = MIB
    # As much as a batch: with less its text may go out in slices, and is read again for each, at half the pace.
    spill_outbox_bytes: int = 256 * KIB
    unfinished_ns: int = 30 * units.NS_PER_S
    # How long a connection may take to say who it is.
    unauthenticated_ns: int = 10 * units.NS_PER_S
    # A TCP peer that is gone is found within this time: longer than a network hiccup, shorter than a person waits.
    keep_alive_ns: int = 90 * units.NS_PER_S
    # Deliveries of one group that are out at once; each costs about 200 bytes.
    in_flight: int = 100_000
    groups: int = 10_000
    # What is remembered of a topic's message ids: so many, so long.
    dedup_ids: int = 10_000
    dedup_ns: int = 600 * units.NS_PER_S
    # Of commands that are not whole, over all connections: a few slow uploads, not one from each of 10,000.
    unfinished_bytes: int = 64 * MIB
    # PUBs that wait for room in a store with full = "block".
    held_bytes: int = 16 * MIB
    # Of the file system the data lies on; with total_bytes a fixed cap instead.
    total_percent: int = 80
    total_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything `busd serve` needs to know."""

    data: str = "busd-data"
    tcp: str = "127.0.0.1:7379"
    unix: str = ""
    # Who may open the socket: its owner and its group.
    unix_mode: int = 0o660
    # Where to listen for TLS, and with what; the file of a CA when clients need certificates, too.
    tls: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    # A file; without it whoever reaches the server may do everything.
    users: str = ""
    sync: Sync = "always"
    log_format: Literal["text", "json"] = "text"
    # How long to look for the next request before sleeping: clients on the same machine are back in 20 to 100 µs.
    busy_poll_us: int = 200
    # Half of it for the disk and for peers to take what is theirs; systemd kills after 90 s.
    stop_ns: int = 10 * units.NS_PER_S
    main: StoreRule = field(default_factory=StoreRule)
    stores: tuple[StoreRule, ...] = ()
    limits: Limits = field(default_factory=Limits)


def _size(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return units.parse_size_bytes(str(value))


def _count(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value)
    raise ValueError(f"{value!r} is not a number from 0")


def _duration(value: object) -> int:
    try:
        return units.parse_duration_ns(str(value).encode())
    except BusError as error:
        raise ValueError(error.text) from None


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f"{value!r} is not a text; write it in quotes")


def _mode(value: object) -> int:
    text = _text(value)
    if len(text) not in (3, 4) or text.strip("01234567") or int(text, 8) > 0o777:
        raise ValueError(f"{text!r} is not the mode of a file like 0660")
    return int(text, 8)


def _percent(value: object) -> int:
    percent = _count(value)
    if not 1 <= percent <= 100:
        raise ValueError(f"{percent} is not a percentage from 1 to 100")
    return percent


def _busy_poll(value: object) -> int:
    try:
        poll_us = _count(value)
    except ValueError:
        poll_us = MAX_BUSY_POLL_US + 1
    if poll_us > MAX_BUSY_POLL_US:
        raise ValueError(f"{value!r} is not a number of microseconds from 0 (off) to {MAX_BUSY_POLL_US}")
    return poll_us


def _line_size(value: object) -> int:
    size = _size(value)
    if size < MIN_LINE_BYTES:
        raise ValueError(f"{size} is below {MIN_LINE_BYTES}: a command with a topic must fit")
    return size


def _patterns(value: object) -> tuple[bytes, ...]:
    text = ",".join(map(_text, value)) if isinstance(value, list) else _text(value)
    try:
        return topics.parse_patterns(text.encode())
    except BusError as error:
        raise ValueError(error.text) from None


def _store_name(value: object) -> str:
    text = _text(value)
    if (
        text == "main"
        or text.count("{topic}") > 1
        or not topics.is_topic(text.replace("{topic}", "t").encode())
        or len(text) > 40
    ):
        raise ValueError(
            f"{text!r} is not a store's name: A-Z a-z 0-9 _ - . and {{topic}} once, 40 characters at most, not main"
        )
    return text


def _one_of(*words: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if value not in words:
            raise ValueError(f"{value!r} is none of {', '.join(words)}")
        return str(value)

    return read


def _group_names(value: object) -> tuple[bytes, ...]:
    names = list(map(_text, value)) if isinstance(value, list) else _text(value).split(",")
    try:
        groups = tuple(check_group(name.strip().encode()) for name in names)
    except BusError as error:
        raise ValueError(error.text) from None
    for group in groups:
        if groups.count(group) > 1:
            raise ValueError(f"{group.decode()!r} stands there twice")
    return groups


def _keep_alive(value: object) -> int:
    within_ns = _duration(value)
    if not MIN_KEEP_ALIVE_S * units.NS_PER_S <= within_ns <= MAX_KEEP_ALIVE_S * units.NS_PER_S:
        raise ValueError(f"{value} is not from {MIN_KEEP_ALIVE_S}s to {MAX_KEEP_ALIVE_S}s")
    return within_ns


# key in the file: (field, reader)
_Reader = Callable[[object], Any]
_CAPS: dict[str, tuple[str, _Reader]] = {
    "segment_bytes": ("segment_bytes", _size),
    "rotate_at": ("rotate_at_s", lambda value: units.parse_day_time_s(str(value))),
    "max_bytes": ("max_bytes", _size),
    "max_age": ("max_age_ns", _duration),
    "max_messages": ("max_messages", _count),
    "keep_last": ("keep_last", _count),
    "retain": ("retain", _one_of("limits", "acked")),
    "groups": ("groups", _group_names),
    "full": ("full", _one_of("drop", "reject", "block")),
    "full_wait": ("full_wait_ns", _duration),
}
_STORE: dict[str, tuple[str, _Reader]] = {"match": ("match", _patterns), "name": ("name", _store_name), **_CAPS}
_LIMITS: dict[str, tuple[str, _Reader]] = {
    **{
        f.name: (f.name, _size if f.name.endswith("bytes") else _count)
        for f in fields(Limits)
        if not f.name.endswith("_ns")
    },
    "unfinished": ("unfinished_ns", _duration),
    "unauthenticated": ("unauthenticated_ns", _duration),
    "keep_alive": ("keep_alive_ns", _keep_alive),
    "dedup": ("dedup_ns", _duration),
    "line_bytes": ("line_bytes", _line_size),
    "total_percent": ("total_percent", _percent),
}
_TOP: dict[str, tuple[str, _Reader]] = {
    "data": ("data", _text),
    "tcp": ("tcp", _text),
    "unix": ("unix", _text),
    "unix_mode": ("unix_mode", _mode),
    **{key: (key, _text) for key in ("tls", "tls_cert", "tls_key", "tls_client_ca", "users")},
    "sync": ("sync", _one_of("always", "interval", "never")),
    "log_format": ("log_format", _one_of("text", "json")),
    "stop": ("stop_ns", _duration),
    "busy_poll_us": ("busy_poll_us", _busy_poll),
}


def settings_from(table: Mapping[str, object]) -> Settings:
    """Settings from a parsed TOML file (or an equal mapping); what is not there keeps its default.

    Raises:
        BadSetting: an unknown key, or a value that cannot be used.
    """
    rest = dict(table)
    main = rest.pop("main", {})
    stores = rest.pop("store", [])
    limits = rest.pop("limits", {})
    values = _read(rest, _TOP, "")
    if not isinstance(stores, list):
        raise BadSetting("store is written [[store]], once for each rule")
    rules = tuple(_rule(_mapping(one, "[[store]]"), number) for number, one in enumerate(stores, 1))
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise BadSetting(f"two rules have the name {name!r}")
    return Settings(
        **values,
        main=_checked(replace(StoreRule(), **_read(_mapping(main, "[main]"), _CAPS, "[main] ")), "[main]"),
        stores=rules,
        limits=replace(Limits(), **_read(_mapping(limits, "[limits]"), _LIMITS, "[limits] ")),
    )


def _mapping(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise BadSetting(f"{where} is a table")
    return cast(Mapping[str, object], value)


def _rule(table: Mapping[str, object], number: int) -> StoreRule:
    where = f"[[store]] {number}"
    for key in ("match", "name"):
        if key not in table:
            raise BadSetting(f"{where}: {key} is missing")
    return _checked(replace(StoreRule(), **_read(table, _STORE, f"{where} ")), where)


def _checked(rule: StoreRule, where: str) -> StoreRule:
    if rule.segment_bytes < 4 * KIB:
        raise BadSetting(f"{where}: segment_bytes {rule.segment_bytes} is below 4k")
    if rule.max_bytes and rule.segment_bytes > rule.max_bytes // 4:
        # Caps remove whole segments: with fewer than four of them a cap would take most of the log at once.
        if rule.max_bytes < 16 * KIB:
            raise BadSetting(f"{where}: max_bytes {rule.max_bytes} is below 16k")
        rule = replace(rule, segment_bytes=rule.max_bytes // 4)
    if rule.retain == "acked" and rule.keep_last:
        raise BadSetting(f"{where}: keep_last is for retain = 'limits'; with 'acked' the groups say what is kept")
    if rule.full != "drop" and not (rule.max_bytes or rule.max_messages):
        raise BadSetting(f"{where}: full = {rule.full!r} needs a cap, max_bytes or max_messages")
    return rule


def _read(table: Mapping[str, object], keys: Mapping[str, tuple[str, _Reader]], where: str) -> dict[str, Any]:
    values = {}
    for key, value in table.items():
        if key not in keys:
            close = difflib.get_close_matches(key, keys, 1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(keys)}"
            raise BadSetting(f"{where}{key} is not a setting; {hint}")
        name, reader = keys[key]
        try:
            values[name] = reader(value)
        except ValueError as error:
            raise BadSetting(f"{where}{key}: {error}") from None
    return values
