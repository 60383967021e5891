"""Settings of the server: defaults, then the TOML file, then BUSD_* variables, then flags; the later one wins.

    BUSD_DATA BUSD_TCP BUSD_UNIX BUSD_SYNC                               as the flags
    BUSD_USERS BUSD_TLS BUSD_TLS_CERT BUSD_TLS_KEY BUSD_TLS_CLIENT_CA    as the flags
    BUSD_LOG_FORMAT BUSD_STOP BUSD_UNIX_MODE BUSD_BUSY_POLL_US           as in the file
    BUSD_SEGMENT_BYTES BUSD_MAX_BYTES BUSD_MAX_AGE BUSD_MAX_MESSAGES     caps of the main store
    BUSD_KEEP_LAST BUSD_ROTATE_AT                                        as in the file, of the main store
    BUSD_LIMITS_PAYLOAD_BYTES …                                          any setting of [limits]

Other variables that begin with BUSD_ are not ours to judge: container platforms invent such names for services.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from busd_client.address import MAX_PATH_BYTES, parse_address

from busd.words.settings import BadSetting, Limits, Settings, settings_from
from busd.world.users import is_loopback

_SECURITY = ("unix_mode", "users", "tls", "tls_cert", "tls_key", "tls_client_ca")
_TOP = ("data", "tcp", "unix", "sync", "log_format", "stop", "busy_poll_us", *_SECURITY)
MAIN_CAPS = ("segment_bytes", "max_bytes", "max_age", "max_messages", "keep_last", "rotate_at")
_LIMITS = tuple(one.name.removesuffix("_ns") for one in fields(Limits))


def load(path: str | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Settings:
    """Settings from all sources.

    Args:
        path: the TOML file, or None for none; BUSD_CONFIG is for the caller to look up.
        environ: the environment.
        flags: keys as in the file (`data`, `tcp`, …, and the caps of the main store); None means not given.

    Raises:
        BadSetting: something cannot be read or used; one line says what and where.
    """
    table = _read(path) if path else {}
    # The file by itself first, so that an error in it is told as its own.
    _checked(table, path)
    _merge(table, {key: environ.get(f"BUSD_{key.upper()}") for key in (*_TOP, *MAIN_CAPS)})
    limits = {key: environ.get(f"BUSD_LIMITS_{key.upper()}") for key in _LIMITS}
    _put(table, "limits", limits)
    _checked(table, "BUSD_ variables")
    _merge(table, flags)
    return checked_addresses(_checked(table, None))


def checked_addresses(settings: Settings) -> Settings:
    """The settings, when a server can listen on what they say; a TCP address gets what was left out of it.

    Raises:
        BadSetting: nowhere to listen, or a place that is none.
    """
    if not settings.tcp and not settings.unix and not settings.tls:
        raise BadSetting("there is nothing to listen on: tcp, unix and tls are all off")
    if not settings.data:
        raise BadSetting("data: the name of the data directory is empty")
    if settings.tcp:
        settings = replace(settings, tcp=_tcp_address("tcp", settings.tcp, settings))
    if settings.tls:
        settings = replace(settings, tls=_tcp_address("tls", settings.tls, settings))
    for key in ("tls_cert", "tls_key"):
        if settings.tls and not getattr(settings, key):
            raise BadSetting(f"tls: {key} is missing; a certificate and its key, as PEM files")
    for key in ("tls_cert", "tls_key", "tls_client_ca"):
        if getattr(settings, key) and not settings.tls:
            raise BadSetting(f"{key}: tls is missing, the address to listen on for it, like 0.0.0.0:7380")
    size = len(settings.unix.encode("utf-8", "surrogateescape"))
    if size > MAX_PATH_BYTES:
        raise BadSetting(f"unix: a socket's path has at most {MAX_PATH_BYTES} bytes, this one {size}")
    return settings


def _tcp_address(key: str, text: str, settings: Settings) -> str:
    try:
        address = parse_address(text, lowest_port=0)
        if address.path:
            raise ValueError(f"{text!r} is a path; sockets of the file system are for unix")
        if address.tls:
            raise ValueError(f"{text!r} begins with tls:, which is for clients; write host:port")
    except ValueError as error:
        raise BadSetting(f"{key}: {error}") from None
    if not settings.users and address.host != "localhost" and not is_loopback(address.host):
        raise BadSetting(_OPEN.format(key=key, address=address))
    return str(address)


# What somebody would do who asked for it, in the two ways of saying it.
_OPEN = """\
{key}: {address} can be reached from other machines, and without users everybody who reaches it may do everything.
Make a user, and name the file in which it is:
    busd user add NAME --file users.toml --pub '>' --sub '>'
    busd serve --users users.toml …
or in the settings:
    users = "users.toml"
Only this machine is meant? Then:
    {key} = "127.0.0.1:{address.port}\""""


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise BadSetting(f"{path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSetting(f"{path}: {error}") from None


def _checked(table: Mapping[str, object], source: str | None) -> Settings:
    try:
        return settings_from(table)
    except BadSetting as error:
        raise BadSetting(f"{source}: {error}" if source else str(error)) from None


def _merge(table: dict[str, Any], values: Mapping[str, object]) -> None:
    """Put the values that are given where the file would have them."""
    for key in _TOP:
        if values.get(key) is not None:
            table[key] = values[key]
    _put(table, "main", {key: values.get(key) for key in MAIN_CAPS})


def _put(table: dict[str, Any], section: str, values: Mapping[str, object]) -> None:
    given = {key: value for key, value in values.items() if value is not None}
    if given:
        table[section] = {**table.get(section, {}), **given}
