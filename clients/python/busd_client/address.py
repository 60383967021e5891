"""Where a server is: `host:port`, `host`, `:port`, `[::1]:7379`, `unix:/path`, or a path.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 7379
# sun_path of Linux holds 108 bytes with its closing NUL.
MAX_PATH_BYTES = 107
_TCP = re.compile(r"(?:\[(?P<six>[^\[\]]+)\]|(?P<host>[^\[\]:]*))(?::(?P<port>\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP host and port, or a path; exactly one of the two."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, lowest_port: int = 1) -> Address:
    """The address that `text` means; what is left out is the default's.

    Args:
        lowest_port: 0 for those who listen, where it stands for any free port.

    Raises:
        ValueError: it is not an address, or a path too long for a socket.
    """
    if text.startswith("unix:") or "/" in text:
        path = text.removeprefix("unix:")
        size = len(path.encode())
        if not path or size > MAX_PATH_BYTES:
            raise ValueError(f"{text!r}: a socket's path has 1 to {MAX_PATH_BYTES} bytes, this has {size}")
        return Address(path=path)
    match = _TCP.fullmatch(text)
    if match is None or not text:
        raise ValueError(f"{text!r} is not an address: host:port, unix:/path or /path")
    port = int(match["port"]) if match["port"] is not None else DEFAULT_PORT
    if not lowest_port <= port < 65536:
        raise ValueError(f"{text!r}: a port is a number from {lowest_port} to 65535")
    return Address(host=match["six"] or match["host"] or DEFAULT_HOST, port=port)


def choose_address(text: str | None, environ: Mapping[str, str]) -> Address:
    """`text` if given, else BUSD_ADDRESS, else the default.

    Raises:
        ValueError: see parse_address.
    """
    return parse_address(text or environ.get("BUSD_ADDRESS") or f"{DEFAULT_HOST}:{DEFAULT_PORT}")
