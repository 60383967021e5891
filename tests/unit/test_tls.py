"""Contexts for TLS: what they accept, and a refusal for files that cannot be used."""

from __future__ import annotations

import ssl
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization as pem

from busd.words.settings import Settings
from busd.world.tls import BadCertificate, tls_context
from tests.support.certificates import authority, certificates


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return certificates(tmp_path).settings(tmp_path)


def shake(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """A handshake in memory; the client's side of it.  Raises as the side that refuses does."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    for _ in range(4):
        for side in (theirs, ours):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert theirs.version()
    return theirs


def test_the_newest_version_is_spoken_and_none_before_1_2(settings: Settings, tmp_path: Path) -> None:
    context = tls_context(settings)
    client = certificates(tmp_path).trusting()
    context = tls_context(settings)
    assert shake(context, client).version() == "TLSv1.3"
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    old = certificates(tmp_path).trusting()
    with warnings.catch_warnings():
        # That these versions are old is the point.
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    # Or the client would refuse by itself.
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="unsupported protocol"):
        shake(context, old)


def test_a_client_without_the_right_certificate_is_refused(settings: Settings, tmp_path: Path) -> None:
    files = certificates(tmp_path)
    context = tls_context(replace(settings, tls_client_ca=str(files.ca)))
    with pytest.raises(ssl.SSLError, match="did not return a certificate"):
        shake(context, files.trusting())
    other = certificates(tmp_path / "other", authority("somebody else"))
    stranger = files.trusting()
    stranger.load_cert_chain(other.client)
    with pytest.raises(ssl.SSLError, match=r"unable to get local issuer|self-signed"):
        shake(context, stranger)
    ours = files.trusting()
    ours.load_cert_chain(files.client)
    assert shake(context, ours).version() == "TLSv1.3"


def break_key(settings: Settings) -> str:
    Path(settings.tls_key).write_text("no key")
    return "not a certificate and its key in PEM"


def break_cert(settings: Settings) -> str:
    Path(settings.tls_cert).write_text("no certificate")
    return "not a certificate and its key in PEM"


def another_key(settings: Settings) -> str:
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(settings.tls_key)
    return "not a certificate and its key in PEM (key values mismatch)"


def open_key(settings: Settings) -> str:
    Path(settings.tls_key).chmod(0o644)
    return f"tls_key: everybody may read {settings.tls_key}; chmod 600 it, or 640 for a group"


def no_key(settings: Settings) -> str:
    Path(settings.tls_key).unlink()
    return f"tls_key: {settings.tls_key}: No such file or directory"


def no_cert(settings: Settings) -> str:
    Path(settings.tls_cert).unlink()
    return f"tls_cert: {settings.tls_cert}: No such file or directory"


def encrypted_key(settings: Settings) -> str:
    key = pem.load_pem_private_key(Path(settings.tls_key).read_bytes(), None)
    form = (pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.BestAvailableEncryption(b"passphrase"))
    Path(settings.tls_key).write_bytes(key.private_bytes(*form))
    return "tls_key is encrypted; busd takes a key without a passphrase"


@pytest.mark.parametrize("harm", [break_key, break_cert, another_key, open_key, no_key, no_cert, encrypted_key])
def test_files_that_cannot_be_used(settings: Settings, harm: object) -> None:
    assert callable(harm)
    expected = harm(settings)
    with pytest.raises(BadCertificate) as told:
        tls_context(settings)
    assert expected in str(told.value)


@pytest.mark.parametrize(("text", "told"), [(None, "No such file or directory"), ("x", "no certificates in PEM")])
def test_a_ca_that_cannot_be_used(settings: Settings, tmp_path: Path, text: str | None, told: str) -> None:
    path = tmp_path / "clients.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadCertificate, match=told) as error:
        tls_context(replace(settings, tls_client_ca=str(path)))
    assert str(error.value).startswith("tls_client_ca")
