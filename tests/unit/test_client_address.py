"""Addresses with a token and TLS: what is asked for is what is done, and a token is in no text."""

from __future__ import annotations

import ssl

import pytest
from busd_client import wire
from busd_client.address import Address, choose_address, parse_address
from busd_client.events import BusdError
from busd_client.group_stream import GroupStream, group_wish
from busd_client.stream import Stream, Wish
from busd_client.tls import tls_of


def test_tls_is_a_word_before_the_address_or_asked_for() -> None:
    expected = Address("host", 7379, tls=True)
    assert parse_address("tls:host") == expected
    assert choose_address("tls:host", {}) == expected
    assert choose_address("host", {}, tls=True) == expected
    assert choose_address("tls:host", {}, tls=True) == expected
    assert choose_address(None, {"BUSD_ADDRESS": "tls:[::1]:1"}) == Address("::1", 1, tls=True)
    for address in (expected, parse_address("tls:[::1]:1")):
        assert parse_address(str(address)) == address


def test_where_the_rest_comes_from() -> None:
    environ = {"BUSD_TOKEN": "web:t", "BUSD_CAFILE": "ca", "BUSD_CERT": "c"}
    found = choose_address("tls:host", environ)
    assert (found.token, found.cafile, found.cert) == ("web:t", "ca", "c")
    found = choose_address("tls:host", environ, token="", cafile="other", cert="")
    assert (found.token, found.cafile, found.cert) == ("", "other", "")
    # Without TLS the variables stand for nothing.
    assert choose_address("host", environ) == Address("host", 7379, token="web:t")


@pytest.mark.parametrize(
    ("text", "more", "told"),
    [
        ("tls:/run/s", {}, "TLS is for TCP; a Unix socket does not leave this machine"),
        ("/run/s", {"tls": True}, "TLS is for TCP"),
        ("tls:", {}, "is not an address"),
        # Somebody who names certificates expects to be protected by them.
        ("host", {"cafile": "ca"}, "certificates are for TLS; write tls:host:7379"),
        ("/run/s", {"cert": "c"}, "certificates are for TLS"),
        ("host", {"token": "a\nb"}, "the token holds a line end"),
    ],
)
def test_what_does_not_fit_together(text: str, more: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        choose_address(text, {}, **more)


def test_a_token_is_in_no_text() -> None:
    address = choose_address("tls:host", {"BUSD_TOKEN": "web:secret"})
    assert "secret" not in f"{address} {address!r}"


def test_without_tls_there_is_no_context_and_with_it_the_callers_own() -> None:
    own = ssl.create_default_context()
    assert tls_of(parse_address("host")) is None
    assert tls_of(choose_address("host", {}, tls=own)) is own
    found = tls_of(parse_address("tls:host"))
    assert found is not None
    assert (found.verify_mode, found.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert tls_of(parse_address("tls:other")) is found


def test_files_that_are_none_are_told() -> None:
    with pytest.raises(FileNotFoundError):
        tls_of(choose_address("tls:host", {}, cafile="/nowhere"))


def test_the_token_goes_with_every_hello() -> None:
    said = b"*5\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n$7\r\ndefault\r\n$5\r\nweb:t\r\n"
    assert wire.hello("web:t") == said
    assert wire.hello() == wire.HELLO
    assert Stream(Wish("a")).opening(0, "web:t").startswith(said)
    assert GroupStream(group_wish("a", "g"), lambda now: None).opening(0, "web:t").startswith(said)


HELLO = b"%1\r\n$6\r\nserver\r\n$4\r\nbusd\r\n+OK next=5 epoch=1\r\n"
DENIED = b">3\r\n$3\r\nEND\r\n$6\r\ndenied\r\n:7\r\n"


def test_a_subscription_that_is_not_allowed_any_more_is_an_error_and_no_end() -> None:
    stream, group = Stream(Wish("a")), GroupStream(group_wish("a", "g"), lambda now: None)
    for one in (stream, group):
        one.opening(0)
        one.feed(HELLO)
        with pytest.raises(BusdError, match="may not be read on from 7") as told:
            one.feed(DENIED)
        assert told.value.code == "DENIED"
    assert stream.next == 7
