"""busd.words.settings: what a mapping becomes, and what is said about one that cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import FrozenInstanceError

import pytest

from busd.words.settings import KIB, MIB, BadSetting, Limits, Settings, StoreRule, settings_from


def test_nothing_is_the_defaults() -> None:
    assert settings_from({}) == Settings()


def test_the_defaults_are_those_of_the_specification() -> None:
    limits = Limits()
    assert (limits.payload_bytes, limits.line_bytes, limits.command_bytes) == (MIB, 4 * KIB, 2 * MIB)
    assert (limits.headers, limits.header_bytes, limits.topics, limits.connections) == (64, 4 * KIB, 100_000, 10_000)
    assert (limits.outbox_bytes, limits.spill_outbox_bytes, limits.total_percent) == (MIB, 256 * KIB, 80)
    assert limits.unfinished_ns == 30 * 10**9
    assert (limits.in_flight, limits.groups, limits.held_bytes) == (100_000, 10_000, 16 * MIB)
    assert (limits.dedup_ids, limits.dedup_ns) == (10_000, 600 * 10**9)
    assert Settings().sync == "always"


def test_everything_at_once() -> None:
    settings = settings_from(
        {
            "data": "/d",
            "tcp": "0.0.0.0:1",
            "unix": "/s",
            "sync": "interval",
            "main": {"max_bytes": "1G", "max_age": "7d", "max_messages": 5, "keep_last": "2", "rotate_at": "23:59"},
            "limits": {
                "payload_bytes": 10,
                "headers": "3",
                "unfinished": "250ms",
                "total_percent": 100,
                "total_bytes": "2G",
                "line_bytes": 512,
                "in_flight": 5,
                "groups": 6,
                "dedup_ids": 7,
                "dedup": "8s",
                "held_bytes": "9k",
            },
            "store": [
                {"match": "jobs.>,x", "name": "jobs", "segment_bytes": "1M"},
                {"match": ["a.*", "b"], "name": "per-{topic}"},
            ],
        }
    )
    assert settings == Settings(
        data="/d",
        tcp="0.0.0.0:1",
        unix="/s",
        sync="interval",
        main=StoreRule(
            max_bytes=1 << 30, max_age_ns=7 * 86_400 * 10**9, max_messages=5, keep_last=2, rotate_at_s=86_340
        ),
        stores=(
            StoreRule("jobs", (b"jobs.>", b"x"), segment_bytes=MIB),
            StoreRule("per-{topic}", (b"a.*", b"b")),
        ),
        limits=Limits(
            payload_bytes=10,
            headers=3,
            unfinished_ns=250 * 10**6,
            total_percent=100,
            total_bytes=2 << 30,
            line_bytes=512,
            in_flight=5,
            groups=6,
            dedup_ids=7,
            dedup_ns=8 * 10**9,
            held_bytes=9 * KIB,
        ),
    )


def test_a_small_cap_makes_small_segments() -> None:
    assert settings_from({"main": {"max_bytes": "1M"}}).main.segment_bytes == 256 * KIB
    assert settings_from({"main": {"max_bytes": "1G"}}).main.segment_bytes == 64 * MIB
    assert settings_from({"main": {"max_bytes": "16k"}}).main.segment_bytes == 4 * KIB


def test_a_store_that_keeps_what_is_not_acknowledged() -> None:
    rule = {"match": "jobs.>", "name": "jobs", "retain": "acked", "groups": "w, audit", "full": "block"}
    (jobs,) = settings_from({"store": [{**rule, "full_wait": "5s", "max_bytes": "1G"}]}).stores
    assert (jobs.retain, jobs.groups, jobs.full, jobs.full_wait_ns) == ("acked", (b"w", b"audit"), "block", 5 * 10**9)
    assert jobs.group_patterns == (b"jobs.>",)


def test_what_is_kept_unless_told() -> None:
    main = settings_from({}).main
    assert (main.retain, main.groups, main.full, main.full_wait_ns) == ("limits", (), "drop", 30 * 10**9)
    assert settings_from({"main": {"groups": ["g"]}}).main.groups == (b"g",)
    assert main.group_patterns == (b">",)


STORE_NAME = "is not a store's name: A-Z a-z 0-9 _ - . and {topic} once, 40 characters at most, not main"


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"tpc": "x"}, "tpc is not a setting; did you mean tcp?"),
        ({"zzz": 1}, "zzz is not a setting; known are data, tcp, unix"),
        ({"tcp": 7379}, "tcp: 7379 is not a text; write it in quotes"),
        ({"data": True}, "data: True is not a text; write it in quotes"),
        ({"sync": "often"}, "sync: 'often' is none of always, interval, never"),
        ({"sync": ["always"]}, "sync: ['always'] is none of always, interval, never"),
        ({"busy_poll_us": 1001}, "busy_poll_us: 1001 is not a number of microseconds from 0 (off) to 1000"),
        ({"busy_poll_us": -1}, "busy_poll_us: -1 is not a number of microseconds from 0 (off) to 1000"),
        ({"busy_poll_us": "200us"}, "busy_poll_us: '200us' is not a number of microseconds from 0 (off) to 1000"),
        ({"busy_poll_us": True}, "busy_poll_us: True is not a number of microseconds from 0 (off) to 1000"),
        ({"busy_poll": 5}, "busy_poll is not a setting; did you mean busy_poll_us?"),
        ({"main": 5}, "[main] is a table"),
        ({"main": {"name": "x"}}, "[main] name is not a setting; known are segment_bytes, rotate_at, max_bytes, "),
        ({"main": {"max_age": 5}}, "[main] max_age: '5' is not a duration like 250ms 5s 10m 2h 7d"),
        ({"main": {"rotate_at": "24:00"}}, "[main] rotate_at: '24:00' is not a time of day like 00:00 or 23:30 (UTC)"),
        ({"main": {"max_messages": -1}}, "[main] max_messages: -1 is not a number from 0"),
        ({"main": {"max_messages": True}}, "[main] max_messages: True is not a number from 0"),
        ({"main": {"max_messages": "1k"}}, "[main] max_messages: '1k' is not a number from 0"),
        ({"main": {"max_bytes": "2.5M"}}, "[main] max_bytes: '2.5M' is not a size like 4096 64k 10M 1G"),
        ({"main": {"max_bytes": True}}, "[main] max_bytes: 'True' is not a size like 4096 64k 10M 1G"),
        ({"main": {"max_bytes": "8k"}}, "[main]: max_bytes 8192 is below 16k"),
        ({"main": {"segment_bytes": 4095}}, "[main]: segment_bytes 4095 is below 4k"),
        ({"main": {"retain": "all"}}, "[main] retain: 'all' is none of limits, acked"),
        ({"main": {"full": "wait"}}, "[main] full: 'wait' is none of drop, reject, block"),
        ({"main": {"full": "block", "max_age": "1h"}}, "[main]: full = 'block' needs a cap, max_bytes or max_messages"),
        ({"main": {"full": "reject"}}, "[main]: full = 'reject' needs a cap, max_bytes or max_messages"),
        ({"main": {"full_wait": 30}}, "[main] full_wait: '30' is not a duration like 250ms 5s 10m 2h 7d"),
        ({"main": {"retain": "acked", "keep_last": 1}}, "[main]: keep_last is for retain = 'limits'; with 'acked'"),
        ({"main": {"groups": "a b"}}, "[main] groups: 'a b' is not a group's name: "),
        ({"main": {"groups": ["a", 1]}}, "[main] groups: 1 is not a text; write it in quotes"),
        ({"main": {"groups": ""}}, "[main] groups: '' is not a group's name: "),
        ({"main": {"groups": ["a", "b", "a"]}}, "[main] groups: 'a' stands there twice"),
        ({"limits": {"headrs": 1}}, "[limits] headrs is not a setting; did you mean headers?"),
        ({"limits": {"unfinished_ns": 1}}, "[limits] unfinished_ns is not a setting; did you mean unfinished?"),
        ({"limits": {"total_percent": 0}}, "[limits] total_percent: 0 is not a percentage from 1 to 100"),
        ({"limits": {"total_percent": 101}}, "[limits] total_percent: 101 is not a percentage from 1 to 100"),
        ({"limits": {"line_bytes": 511}}, "[limits] line_bytes: 511 is below 512: a command with a topic must fit"),
        ({"limits": {"keep_alive": "2s"}}, "[limits] keep_alive: 2s is not from 3s to 45000s"),
        ({"limits": {"keep_alive": "13h"}}, "[limits] keep_alive: 13h is not from 3s to 45000s"),
        ({"store": {"match": "a"}}, "store is written [[store]], once for each rule"),
        ({"store": ["a"]}, "[[store]] is a table"),
        ({"store": [{"name": "x"}]}, "[[store]] 1: match is missing"),
        ({"store": [{"match": "a"}]}, "[[store]] 1: name is missing"),
        ({"store": [{"match": "a", "name": "x"}, {"match": "b", "name": "x"}]}, "two rules have the name 'x'"),
        ({"store": [{"match": "a..b", "name": "x"}]}, "[[store]] 1 match: 'a..b' is not a pattern: "),
        ({"store": [{"match": [1], "name": "x"}]}, "[[store]] 1 match: 1 is not a text; write it in quotes"),
        ({"store": [{"match": "a", "name": "main"}]}, f"[[store]] 1 name: 'main' {STORE_NAME}"),
        ({"store": [{"match": "a", "name": "../x"}]}, f"[[store]] 1 name: '../x' {STORE_NAME}"),
        ({"store": [{"match": "a", "name": "x" * 41}]}, f"[[store]] 1 name: '{'x' * 41}' {STORE_NAME}"),
        ({"store": [{"match": "a", "name": "{topic}{topic}"}]}, f"[[store]] 1 name: '{{topic}}{{topic}}' {STORE_NAME}"),
        ({"store": [{"match": "a", "name": "x", "max": 1}]}, "[[store]] 1 max is not a setting; did you mean max_age?"),
    ],
)
def test_what_cannot_be_used_is_named(table: Mapping[str, object], text: str) -> None:
    with pytest.raises(BadSetting) as caught:
        settings_from(table)
    assert str(caught.value).startswith(text)


def test_busy_polling_is_on_by_default_and_0_is_off() -> None:
    assert settings_from({}).busy_poll_us == 200
    assert [settings_from({"busy_poll_us": value}).busy_poll_us for value in (0, "0", 1000, "50")] == [0, 0, 1000, 50]


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().sync = "never"  # type: ignore[misc]


def test_the_table_that_was_read_stays_as_it_was() -> None:
    table: dict[str, object] = {"main": {"max_bytes": "1G"}, "limits": {"headers": 1}, "store": [], "data": "d"}
    settings_from(table)
    assert table == {"main": {"max_bytes": "1G"}, "limits": {"headers": 1}, "store": [], "data": "d"}


def test_security_is_off_by_default_and_the_socket_is_for_its_group() -> None:
    found = Settings()
    assert (found.users, found.tls, found.tls_cert, found.tls_key, found.tls_client_ca) == ("",) * 5
    assert found.unix_mode == 0o660
    assert found.limits.unauthenticated_ns == 10 * 10**9
    table = {"users": "u", "tls": "h:1", "tls_cert": "c", "tls_key": "k", "tls_client_ca": "a", "unix_mode": "0666"}
    found = settings_from({**table, "limits": {"unauthenticated": "3s"}})
    assert (found.users, found.tls, found.tls_cert, found.tls_key, found.tls_client_ca) == ("u", "h:1", "c", "k", "a")
    assert (found.unix_mode, found.limits.unauthenticated_ns) == (0o666, 3 * 10**9)


@pytest.mark.parametrize("mode", ["", "660 ", "0668", "7777", "rw-rw----", "-600", "06600", 0o660])
def test_modes_that_are_none(mode: object) -> None:
    with pytest.raises(BadSetting, match=r"^unix_mode: "):
        settings_from({"unix_mode": mode})
