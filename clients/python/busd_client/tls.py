"""TLS to a server: whom to trust, and the certificate to show to a server that asks for one."""

from __future__ import annotations

import ssl
from functools import lru_cache

from busd_client.address import Address


def tls_of(address: Address) -> ssl.SSLContext | None:
    """What to speak TLS with to that address; None where it is not spoken.

    Raises:
        OSError: a file cannot be read, or is none of certificates (ssl.SSLError is an OSError).
    """
    if not address.tls:
        return None
    return address.context if isinstance(address.context, ssl.SSLContext) else _context(address.cafile, address.cert)


# Reading the system's CAs takes 10 ms and more, and a client connects again and again.
@lru_cache(maxsize=8)
def _context(cafile: str, cert: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=cafile or None)
    if cert:
        context.load_cert_chain(cert)
    return context
