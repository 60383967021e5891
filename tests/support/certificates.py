"""Certificates for tests, made once a run."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import trustme

from busd.words.settings import Settings


@lru_cache(maxsize=4)
def authority(name: str = "busd tests") -> trustme.CA:
    """A CA of its own for each name."""
    return trustme.CA(organization_name=name)


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files: a server's certificate and key, its CA, and a client's certificate with its key."""

    cert: Path
    key: Path
    ca: Path
    client: Path

    def settings(self, base: Path, users: str = "", client_ca: str = "") -> Settings:
        """Settings of a server that listens for TLS on a free port of the loopback address, and nowhere else."""
        return Settings(
            data=str(base / "data"),
            tcp="",
            tls="127.0.0.1:0",
            tls_cert=str(self.cert),
            tls_key=str(self.key),
            tls_client_ca=client_ca,
            users=users,
            sync="never",
        )

    def trusting(self) -> ssl.SSLContext:
        """A client's context that trusts the CA."""
        return ssl.create_default_context(cafile=str(self.ca))


def certificates(base: Path, ca: trustme.CA | None = None) -> Files:
    """Files below a directory, for localhost and 127.0.0.1."""
    ca = ca or authority()
    base.mkdir(exist_ok=True)
    files = Files(base / "cert.pem", base / "key.pem", base / "ca.pem", base / "client.pem")
    server = ca.issue_cert("localhost", "127.0.0.1")
    files.key.touch(0o600)
    server.private_key_pem.write_to_path(files.key)
    files.cert.write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
    ca.cert_pem.write_to_path(files.ca)
    ca.issue_cert("client.test").private_key_and_cert_chain_pem.write_to_path(files.client)
    return files
