"""busd.wiring.config: which source wins, and what is told about a bad one."""

from __future__ import annotations

from pathlib import Path

import pytest

from busd.wiring.config import load
from busd.words.settings import BadSetting, Settings

FILE = """
sync = "interval"
tcp = "127.0.0.1:1"
data = "from-file"
[main]
max_bytes = "1G"
max_age = "7d"
[limits]
payload_bytes = "2M"
[[store]]
match = "jobs.>"
name = "jobs"
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "busd.toml"
    file.write_text(FILE)
    return str(file)


def test_without_anything_the_defaults_hold() -> None:
    assert load(None, {}, {}) == Settings()


def test_the_file_is_read(path: str) -> None:
    settings = load(path, {}, {})
    assert (settings.sync, settings.tcp, settings.data) == ("interval", "127.0.0.1:1", "from-file")
    assert (settings.main.max_bytes, settings.limits.payload_bytes) == (1 << 30, 2 << 20)
    assert [store.name for store in settings.stores] == ["jobs"]


def test_variables_win_over_the_file(path: str) -> None:
    environ = {
        "BUSD_DATA": "d",
        "BUSD_UNIX": "/u",
        "BUSD_SYNC": "never",
        "BUSD_MAX_BYTES": "2G",
        "BUSD_LIMITS_HEADERS": "7",
        "BUSD_LIMITS_UNFINISHED": "5s",
    }
    settings = load(path, environ, {})
    assert (settings.data, settings.unix, settings.sync) == ("d", "/u", "never")
    assert (settings.main.max_bytes, settings.main.max_age_ns) == (2 << 30, 7 * 86_400 * 10**9)
    assert (settings.limits.headers, settings.limits.unfinished_ns) == (7, 5 * 10**9)
    assert settings.limits.payload_bytes == 2 << 20


def test_flags_win_over_variables(path: str) -> None:
    environ = {"BUSD_DATA": "d", "BUSD_MAX_AGE": "1h", "BUSD_TCP": "127.0.0.1:2"}
    settings = load(path, environ, {"data": "flag", "max_age": "2h", "tcp": None, "max_messages": "9"})
    assert (settings.data, settings.tcp) == ("flag", "127.0.0.1:2")
    assert (settings.main.max_age_ns, settings.main.max_messages) == (2 * 3600 * 10**9, 9)


def test_tcp_can_be_off_when_there_is_a_socket(path: str) -> None:
    settings = load(path, {}, {"tcp": "", "unix": "/run/b"})
    assert (settings.tcp, settings.unix) == ("", "/run/b")


def test_port_0_is_any_free_port() -> None:
    assert load(None, {}, {"tcp": "127.0.0.1:0"}).tcp == "127.0.0.1:0"


def test_what_is_left_out_of_an_address_is_the_defaults() -> None:
    assert [load(None, {}, {"tcp": text}).tcp for text in (":1", "[::1]", "localhost")] == [
        "127.0.0.1:1",
        "[::1]:7379",
        "localhost:7379",
    ]


def test_variables_of_others_are_not_ours() -> None:
    assert load(None, {"BUSD_PORT": "tcp://10.0.0.1:7379", "BUSD_ADDRESS": "x"}, {}) == Settings()


@pytest.mark.parametrize(
    ("environ", "flags", "said"),
    [
        ({}, {"sync": "often"}, "sync: 'often' is none of always, interval, never"),
        ({"BUSD_SYNC": "often"}, {}, "BUSD_ variables: sync: 'often'"),
        ({"BUSD_BUSY_POLL_US": "1s"}, {}, "BUSD_ variables: busy_poll_us: '1s' is not a number of microseconds from 0"),
        ({}, {"max_bytes": "3x"}, r"\[main\] max_bytes: '3x' is not a size"),
        ({}, {"max_age": "3"}, "max_age: '3' is not a duration"),
        ({}, {"segment_bytes": "1k"}, "below 4k"),
        ({}, {"tcp": ""}, "nothing to listen on"),
        ({}, {"tcp": "here:there"}, "tcp: 'here:there' is not an address"),
        ({}, {"tcp": "/run/b"}, "tcp: '/run/b' is a path"),
        ({}, {"unix": "/" + 107 * "x"}, "unix: a socket's path has at most 107 bytes, this one 108"),
        ({}, {"data": ""}, "data directory is empty"),
    ],
)
def test_a_bad_setting_says_which_and_why(environ: dict[str, str], flags: dict[str, object], said: str) -> None:
    with pytest.raises(BadSetting, match=said):
        load(None, environ, flags)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sync = ", "busd.toml: Invalid value"),
        ("snyc = 'always'", "busd.toml: snyc is not a setting; did you mean sync?"),
        ("main = 3", r"busd.toml: \[main\] is a table"),
        ("[limits]\npayload_bytes = -1", r"busd.toml: \[limits\] payload_bytes"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "busd.toml"
    file.write_text(text)
    with pytest.raises(BadSetting, match=said):
        load(str(file), {}, {})


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(BadSetting, match=r"nowhere\.toml: No such file"):
        load("/nowhere.toml", {}, {})


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "busd.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(BadSetting, match=r"busd\.toml"):
        load(str(file), {}, {})


OPEN = """\
{key}: {address}:7379 can be reached from other machines, and without users everybody who reaches it may do everything.
Make a user, and name the file in which it is:
    busd user add NAME --file users.toml --pub '>' --sub '>'
    busd serve --users users.toml …
or in the settings:
    users = "users.toml"
Only this machine is meant? Then:
    {key} = "127.0.0.1:7379\""""


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "[::]", "192.0.2.1", "[2001:db8::1]", "example.org", "[::ffff:0.0.0.0]"]
)
def test_an_address_that_others_reach_needs_users(address: str) -> None:
    tls = {"tls_cert": "c", "tls_key": "k"}
    for key, flags in (("tcp", {}), ("tls", tls)):
        with pytest.raises(BadSetting) as told:
            load(None, {}, {**flags, key: address})
        # The lines to add.
        assert str(told.value) == OPEN.format(key=key, address=address)
        assert getattr(load(None, {}, {**flags, key: address, "users": "u"}), key) == f"{address}:7379"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost", "[::ffff:127.0.0.1]"])
def test_the_loopback_address_does_not(address: str) -> None:
    assert load(None, {}, {"tcp": f"{address}:1"}).users == ""


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"tls": "127.0.0.1:1", "tls_cert": "c"}, "tls: tls_key is missing; a certificate and its key, as PEM files"),
        ({"tls": "127.0.0.1:1", "tls_key": "k"}, "tls: tls_cert is missing; a certificate and its key, as PEM files"),
        ({"tls_cert": "c"}, "tls_cert: tls is missing, the address to listen on for it, like 0.0.0.0:7380"),
        ({"tls_client_ca": "c"}, "tls_client_ca: tls is missing"),
        ({"tls": "tls:h:1", "tls_cert": "c", "tls_key": "k"}, "tls: 'tls:h:1' begins with tls:, which is for clients"),
        ({"tls": "/run/b", "tls_cert": "c", "tls_key": "k"}, "tls: '/run/b' is a path"),
        ({"tcp": ""}, "there is nothing to listen on: tcp, unix and tls are all off"),
    ],
)
def test_what_does_not_fit_together_is_told(flags: dict[str, object], told: str) -> None:
    with pytest.raises(BadSetting) as error:
        load(None, {}, flags)
    assert str(error.value).startswith(told)


def test_busy_polling_has_a_variable() -> None:
    assert load(None, {"BUSD_BUSY_POLL_US": "0"}, {}).busy_poll_us == 0


def test_security_has_its_variables() -> None:
    environ = {"BUSD_USERS": "u", "BUSD_TLS": "0.0.0.0:1", "BUSD_TLS_CERT": "c", "BUSD_TLS_KEY": "k"}
    found = load(None, {**environ, "BUSD_LIMITS_UNAUTHENTICATED": "3s"}, {})
    assert (found.users, found.tls, found.tls_cert, found.tls_key) == ("u", "0.0.0.0:1", "c", "k")
    assert found.limits.unauthenticated_ns == 3_000_000_000
