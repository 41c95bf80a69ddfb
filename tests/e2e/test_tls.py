"""The whole service over TLS, with a certificate that the machine is told to trust."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import carrel, environment, start, stop


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """One for loopback, signed by itself."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    asked = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    )
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    files = ["-keyout", key, "-out", cert, "-addext", names]
    subprocess.run(["openssl", *asked.split(), *files], check=True, capture_output=True)
    return cert, key


def test_a_desktop_over_tls(
    tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    home = tmp_path / "home"
    home.mkdir()
    service = start(home, CARREL_TLS_CERT=str(cert), CARREL_TLS_KEY=str(key))
    try:
        assert service.url.startswith("https://127.0.0.1:")
        made = service.carrel("new", "light", "--json")
        assert made.returncode == 0, made.stderr
        told = json.loads(made.stdout)
        assert told["watch_url"].startswith(f"{service.url}/watch/")
        assert service.carrel("exec", told["id"], "--", "echo secure").stdout == "secure\n"
        with httpx.Client(verify=ssl.create_default_context(cafile=str(cert))) as http:
            answer = http.post(
                f"{service.url}/v1/login",
                json={"key": service.key},
                headers={"Origin": service.url},
            )
            assert answer.status_code == 204
            assert "Secure" in answer.headers["set-cookie"]
            assert "strict-transport-security" in answer.headers
        with pytest.raises(httpx.HTTPError):  # no word of it without TLS
            httpx.get(service.url.replace("https:", "http:") + "/healthz", trust_env=False)
    finally:
        stop(service)


def test_a_certificate_that_cannot_be_used_is_told_before_anything_starts(tmp_path: Path) -> None:
    nothing = tmp_path / "none.pem"
    nothing.write_text("not a certificate")
    told = subprocess.run(
        [carrel(), "up", "--port", "0"],
        env=environment(tmp_path)
        | {"CARREL_TLS_CERT": str(nothing), "CARREL_TLS_KEY": str(nothing)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 1
    assert "CARREL_TLS_CERT or CARREL_TLS_KEY cannot be used" in told.stderr
    assert not os.path.exists(tmp_path / "carrel.db")
