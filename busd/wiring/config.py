"""Settings of the server: defaults, then the TOML file, then BUSD_* variables, then flags; the later one wins.

    BUSD_DATA BUSD_TCP BUSD_UNIX BUSD_SYNC                               as the flags
    BUSD_LOG_FORMAT BUSD_STOP                                            as in the file
    BUSD_SEGMENT_BYTES BUSD_MAX_BYTES BUSD_MAX_AGE BUSD_MAX_MESSAGES     caps of the main store
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

_TOP = ("data", "tcp", "unix", "sync", "log_format", "stop")
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
    if not settings.tcp and not settings.unix:
        raise BadSetting("there is nothing to listen on: tcp and unix are both off")
    if not settings.data:
        raise BadSetting("data: the name of the data directory is empty")
    if settings.tcp:
        try:
            address = parse_address(settings.tcp, lowest_port=0)
            if address.path:
                raise ValueError(f"{settings.tcp!r} is a path; sockets of the file system are for unix")
        except ValueError as error:
            raise BadSetting(f"tcp: {error}") from None
        settings = replace(settings, tcp=str(address))
    size = len(settings.unix.encode("utf-8", "surrogateescape"))
    if size > MAX_PATH_BYTES:
        raise BadSetting(f"unix: a socket's path has at most {MAX_PATH_BYTES} bytes, this one {size}")
    return settings


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
