"""A desktop's own certificate authority, for the hosts that its secrets are for.

It is made when the desktop starts, because programs inside read what they trust when they start.
Its key stays in memory out here; what it signs is good for one host and some days. The system's
``openssl`` makes keys and certificates: a library for that would cost each desktop megabytes.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
from collections.abc import Sequence

from workspace.egress import address_of

OPENSSL = "/usr/bin/openssl"
_DAYS = "30"
_SECONDS = 20
MAX_CONTEXTS = 200


class NoCertificate(Exception):
    """openssl made none: why."""


class Authority:
    """An authority, and the certificates that it has signed."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        self.certificate = certificate  # PEM, for those who are to trust it
        self._key = key
        self._contexts: dict[str, ssl.SSLContext] = {}

    @classmethod
    def make(cls) -> Authority:
        """Blocks for some ten milliseconds.

        Raises:
            NoCertificate: there is no openssl here, or it failed.
        """
        made = _run(
            "-subj", "/CN=Carrel desktop egress",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            "-addext", "basicConstraints=critical,CA:TRUE,pathlen:0",
        )  # fmt: skip
        return cls(*_split(made))

    async def context(self, host: str) -> ssl.SSLContext:
        """The TLS of a server that is ``host`` to those who trust this authority.

        Raises:
            NoCertificate: openssl failed.
        """
        if (known := self._contexts.get(host)) is None:
            known = await asyncio.to_thread(self._sign, host)
            while len(self._contexts) >= MAX_CONTEXTS:
                del self._contexts[next(iter(self._contexts))]
            self._contexts[host] = known
        return known

    def _sign(self, host: str) -> ssl.SSLContext:
        name = f"DNS:{host}" if address_of(host) is None else f"IP:{host}"
        fds = [_memory_file(content) for content in (self.certificate, self._key)]
        try:
            made = _run(
                "-CA", f"/proc/self/fd/{fds[0]}", "-CAkey", f"/proc/self/fd/{fds[1]}",
                "-subj", "/CN=Carrel", "-addext", f"subjectAltName={name}",
                "-addext", "basicConstraints=critical,CA:FALSE",
                "-addext", "extendedKeyUsage=serverAuth", pass_fds=fds,
            )  # fmt: skip
        finally:
            for fd in fds:
                os.close(fd)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        certificate = _memory_file(made)  # the library reads files only
        try:
            context.load_cert_chain(f"/proc/self/fd/{certificate}")
        finally:
            os.close(certificate)
        return context


def _run(*arguments: str, pass_fds: Sequence[int] = ()) -> bytes:
    """A new key, and a certificate of it, in PEM."""
    try:
        done = subprocess.run(
            [OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-sha256", "-days", _DAYS, "-config", "/dev/null", *arguments,
             "-keyout", "-", "-out", "-"],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, pass_fds=pass_fds,
            env={}, check=True,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        raise NoCertificate(error.stderr.decode(errors="replace")[-500:]) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoCertificate(f"{OPENSSL}: {error}") from error
    return done.stdout


def _split(pem: bytes) -> tuple[bytes, bytes]:
    """Certificate and key."""
    begin = pem.find(b"-----BEGIN CERTIFICATE-----")
    key = pem.find(b"-----BEGIN PRIVATE KEY-----")
    if begin < 0 or key < 0:
        raise NoCertificate("openssl said something else")
    return (pem[begin:], pem[key:begin]) if key < begin else (pem[begin:key], pem[key:])


def _memory_file(content: bytes) -> int:
    fd = os.memfd_create("carrel-certificate", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
