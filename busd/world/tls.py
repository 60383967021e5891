"""What a TLS address needs: a certificate and its key, perhaps a CA for those of clients.

Invariants:
1. TLS 1.2 or later; ciphers and the rest as the ssl module's defaults have them.
2. A context is made anew and whole, or not at all: files that do not fit change nothing.
"""

from __future__ import annotations

import os
import ssl

from busd.words.settings import Settings
from busd.world.sockets import BadAddress


class BadCertificate(BadAddress):
    """Files that TLS cannot be spoken with; the text says which and why."""


def tls_context(settings: Settings) -> ssl.SSLContext:
    """A context from the files that the settings name.

    Raises:
        BadCertificate: one of them cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Before OpenSSL 3 a client could have the server compute one handshake after the other on one connection.
    context.options |= ssl.OP_NO_RENEGOTIATION
    for name in ("tls_cert", "tls_key", "tls_client_ca"):
        path = getattr(settings, name)
        if path or name != "tls_client_ca":
            _readable(name, path)
    if os.stat(settings.tls_key).st_mode & 0o007:
        raise BadCertificate(f"tls_key: everybody may read {settings.tls_key}; chmod 600 it, or 640 for a group")
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key, _no_passphrase)
    except ssl.SSLError as error:
        files = f"tls_cert {settings.tls_cert}, tls_key {settings.tls_key}"
        raise BadCertificate(f"{files}: not a certificate and its key in PEM ({_why(error)})") from None
    if settings.tls_client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(settings.tls_client_ca)
        except ssl.SSLError as error:
            raise BadCertificate(
                f"tls_client_ca {settings.tls_client_ca}: no certificates in PEM ({_why(error)})"
            ) from None
    return context


def _readable(name: str, path: str) -> None:
    # OpenSSL does not say which file it was.
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise BadCertificate(f"{name}: {path}: {error.strerror or error}") from None


def _no_passphrase() -> str:
    """Instead of asking on a terminal."""
    raise BadCertificate("tls_key is encrypted; busd takes a key without a passphrase")


def _why(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
