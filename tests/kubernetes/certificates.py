"""An authority of the tests' own, and what it signs: for the API server and for who asks it."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFE = datetime.timedelta(days=1)


class Authority:
    """Writes ``<name>.crt`` and ``<name>.key`` into ``folder``; itself is ``ca``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("carrel tests")
        usage = x509.BasicConstraints(ca=True, path_length=0)
        made = _builder(self._name, self._name, self._key).add_extension(usage, critical=True)
        self._write("ca", self._key, made.sign(self._key, hashes.SHA256()))
        self.certificate = folder / "ca.crt"

    def sign(self, file: str, name: str, group: str = "", hosts: Sequence[str] = ()) -> None:
        """A certificate of user ``name`` in ``group``, or of a server at ``hosts``."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = _builder(_named(name, group), self._name, key)
        use = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        made = made.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        if hosts:
            made = made.add_extension(
                x509.SubjectAlternativeName([_host(each) for each in hosts]), critical=False
            )
        self._write(file, key, made.sign(self._key, hashes.SHA256()))

    def key_pair(self, file: str) -> None:
        """``<file>.key`` and ``<file>.pub``: what service accounts' tokens are signed by."""
        key = ec.generate_private_key(ec.SECP256R1())
        (self.folder / f"{file}.key").write_bytes(_private(key))
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (self.folder / f"{file}.pub").write_bytes(public)

    def _write(self, file: str, key: ec.EllipticCurvePrivateKey, made: x509.Certificate) -> None:
        (self.folder / f"{file}.key").write_bytes(_private(key))
        (self.folder / f"{file}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _named(name: str, group: str = "") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if group:
        parts.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
    return x509.Name(parts)


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LIFE)
        .not_valid_after(now + _LIFE)
    )
