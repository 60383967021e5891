"""Where a server is, and how to get in: `host:port`, `host`, `:port`, `[::1]:7379`, `tls:host:port`, `unix:/path`, or a
path; a token, and whom to trust.  Pure.

Invariants:
1. No text made of an address holds its token.
2. Where TLS was asked for, nothing is ever sent without it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 7379
# sun_path of Linux holds 108 bytes with its closing NUL.
MAX_PATH_BYTES = 107
_TCP = re.compile(r"(?:\[(?P<six>[^\[\]]+)\]|(?P<host>[^\[\]:]*))(?::(?P<port>\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP host and port, or a path; exactly one of the two.

    Args:
        tls: whether to speak TLS there.
        cafile: certificates (PEM) to trust instead of the system's.
        cert: a certificate and its key (PEM, one file) for a server that asks for one.
        context: an ssl.SSLContext instead of these two.
        token: says who we are.
    """

    host: str = ""
    port: int = 0
    path: str = ""
    tls: bool = False
    cafile: str = ""
    cert: str = ""
    context: object = field(default=None, repr=False)
    token: str = field(default="", repr=False)

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        scheme = "tls:" if self.tls else ""
        return f"{scheme}[{self.host}]:{self.port}" if ":" in self.host else f"{scheme}{self.host}:{self.port}"


def parse_address(text: str, lowest_port: int = 1) -> Address:
    """The address that `text` means; what is left out is the default's.

    Args:
        lowest_port: 0 for those who listen, where it stands for any free port.

    Raises:
        ValueError: it is not an address, or a path too long for a socket.
    """
    if text.startswith("tls:"):
        address = parse_address(text.removeprefix("tls:"), lowest_port)
        if address.path:
            raise ValueError(f"{text!r}: TLS is for TCP; a Unix socket does not leave this machine")
        return replace(address, tls=True)
    if text.startswith("unix:") or "/" in text:
        path = text.removeprefix("unix:")
        size = len(path.encode())
        if not path or size > MAX_PATH_BYTES:
            raise ValueError(f"{text!r}: a socket's path has 1 to {MAX_PATH_BYTES} bytes, this has {size}")
        return Address(path=path)
    match = _TCP.fullmatch(text)
    if match is None or not text:
        raise ValueError(f"{text!r} is not an address: host:port, tls:host:port, unix:/path or /path")
    port = int(match["port"]) if match["port"] is not None else DEFAULT_PORT
    if not lowest_port <= port < 65536:
        raise ValueError(f"{text!r}: a port is a number from {lowest_port} to 65535")
    return Address(host=match["six"] or match["host"] or DEFAULT_HOST, port=port)


def choose_address(
    text: str | None,
    environ: Mapping[str, str],
    *,
    token: str | None = None,
    tls: object = None,
    cafile: str | None = None,
    cert: str | None = None,
) -> Address:
    """`text` if given, else BUSD_ADDRESS, else the default; with how to get in.

    Args:
        token: else BUSD_TOKEN.
        tls: True, or an ssl.SSLContext; the same as `tls:` before the address.
        cafile, cert: see Address; else BUSD_CAFILE, BUSD_CERT.

    Raises:
        ValueError: see parse_address; or certificates are given for an address without TLS.
    """
    address = parse_address(text or environ.get("BUSD_ADDRESS") or f"{DEFAULT_HOST}:{DEFAULT_PORT}")
    token = environ.get("BUSD_TOKEN", "") if token is None else token
    if not token.isprintable():
        raise ValueError("the token holds a line end or another character that cannot be part of one")
    if tls and not address.tls:
        address = parse_address(f"tls:{address}")
    if not address.tls:
        if cafile or cert:
            raise ValueError(f"{address}: certificates are for TLS; write tls:{address}, or ask for TLS")
        return replace(address, token=token)
    return replace(
        address,
        token=token,
        context=None if tls is True else tls,
        cafile=environ.get("BUSD_CAFILE", "") if cafile is None else cafile,
        cert=environ.get("BUSD_CERT", "") if cert is None else cert,
    )
