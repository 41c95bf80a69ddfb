"""What every answer says to browsers, and whose pages may ask."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from pydantic import ValidationError

from controller.app import create_app
from controller.settings import Settings
from tests.controller.conftest import BEARER, KEY, URL, LocalCluster, client, serving

pytestmark = pytest.mark.anyio
OTHER = "https://app.example.org"


async def test_every_answer_is_what_it_says_and_in_no_frame(
    app: FastAPI, http: httpx.AsyncClient
) -> None:
    async with client(app) as anybody:
        answers = [
            await anybody.get("/"),
            await anybody.get("/static/api.js"),
            await anybody.get("/healthz"),
            await anybody.get("/v1/workspaces"),  # refused
            await anybody.get("/", headers={"Host": "evil.example"}),
            await http.get("/v1/workspaces"),
            await http.get("/v1/nothing"),
            await http.post("/v1/workspaces", content=b"{"),
            await http.get("/metrics"),
        ]
    for answer in answers:
        headers = answer.headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert "strict-transport-security" not in headers
        assert "access-control-allow-origin" not in headers
        if answer.url.path.startswith("/v1/"):
            assert headers["cache-control"] == "no-store"
            assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "script-src" not in answers[0].headers["content-security-policy"]
    assert "default-src 'self'" in answers[0].headers["content-security-policy"]
    assert answers[0].headers.get_list("referrer-policy") == ["no-referrer"]


ASKING = {
    "Origin": OTHER,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization",
}
BODY = {"template": "no"}


async def test_pages_of_others_may_not_ask(http: httpx.AsyncClient) -> None:
    answer = await http.options("/v1/workspaces", headers=ASKING)
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers
    answer = await http.post("/v1/workspaces", json=BODY, headers={"Origin": OTHER})
    assert answer.json()["code"] == "forbidden"


async def test_pages_of_named_origins_may_ask_with_a_key(
    settings: Settings, cluster: LocalCluster
) -> None:
    named = settings.model_copy(update={"cors_origins": f"{OTHER},http://localhost:3000"})
    app = create_app(named, cluster)
    async with serving(app), client(app) as page:
        answer = await page.options("/v1/workspaces", headers=ASKING)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == OTHER
        assert "access-control-allow-credentials" not in answer.headers
        from_there = {"Origin": OTHER, **BEARER}
        answer = await page.post("/v1/workspaces", json=BODY, headers=from_there)
        assert answer.json()["code"] == "template_not_found"
        assert answer.headers["access-control-allow-origin"] == OTHER
        # A refusal can be read too, or the page could not tell its user.
        answer = await page.get("/v1/workspaces", headers={"Origin": OTHER})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["access-control-allow-origin"] == OTHER
        # By a cookie it is the controller's own pages only.
        await page.post("/v1/login", json={"key": KEY}, headers={"Origin": URL})
        answer = await page.post("/v1/workspaces", json=BODY, headers={"Origin": OTHER})
        assert answer.json()["code"] == "forbidden"
        evil = {"Origin": "https://evil.example", **BEARER}
        answer = await page.post("/v1/workspaces", json=BODY, headers=evil)
        assert answer.json()["code"] == "forbidden"
        assert "access-control-allow-origin" not in answer.headers


async def test_over_tls_browsers_stay_with_it(settings: Settings, cluster: LocalCluster) -> None:
    public = settings.model_copy(update={"public_url": "https://desks.example.org"})
    async with serving(create_app(public, cluster)) as http:
        headers = (await http.get("/v1/whoami")).headers
        assert headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize(
    "given",
    [
        {"cors_origins": "*"},
        {"cors_origins": "https://a.example/path"},
        {"tls_cert": "/c.pem"},
        {"tls_key": "/k.pem"},
    ],
)
def test_settings_that_make_no_sense(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(given)


def test_with_tls_addresses_are_https() -> None:
    tls = {"tls_cert": "/c.pem", "tls_key": "/k.pem"}
    assert Settings.model_validate(tls).public_origin == "https://127.0.0.1:8700"
    named = Settings.model_validate(tls | {"public_url": "https://desks.example.org"})
    # Commands of this machine too go by the name that the certificate is for.
    assert named.url == named.public_origin == "https://desks.example.org"
