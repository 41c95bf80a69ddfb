"""Who may what: keys, cookies, viewers, and where a request comes from."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from controller.access import Caller
from controller.app import create_app
from controller.auth import Auth
from controller.settings import Settings
from tests.controller.conftest import BEARER, KEY, URL, LocalCluster, claim, client, serving
from workspace.errors import InvalidRequest

pytestmark = pytest.mark.anyio
ORIGIN = {"Origin": URL}
ADMIN = Caller("admin", "admin")


@pytest.fixture
async def anybody(app: FastAPI, http: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    """A browser without a key; ``http`` has one."""
    async with client(app) as anybody:
        yield anybody


@pytest.fixture
async def browser(anybody: httpx.AsyncClient) -> httpx.AsyncClient:
    """A browser that has logged in."""
    answer = await anybody.post("/v1/login", json={"key": KEY}, headers=ORIGIN)
    assert answer.status_code == 204
    return anybody


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "unauthorized"),
        ({"Authorization": "Bearer wrong"}, "unauthorized"),
        ({"Authorization": f"Basic {KEY}"}, "unauthorized"),
        ({"Authorization": "Bearer \xff\xfe".encode("latin-1")}, "unauthorized"),
        ({"Cookie": "carrel_x=1; {bad"}, "unauthorized"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/workspaces", "/v1/whoami", "/metrics", "/v1/nope"])
async def test_without_a_key_nothing_is_told(
    anybody: httpx.AsyncClient, path: str, headers: dict[str, str], code: str
) -> None:
    answer = await anybody.get(path, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_what_needs_no_key(anybody: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/readyz", "/openapi.json", "/", "/watch/abcdefghjk"):
        assert (await anybody.get(path)).status_code == 200, path


async def test_a_key_is_exchanged_for_a_cookie_that_is_not_the_key(
    browser: httpx.AsyncClient, settings: Settings
) -> None:
    answer = await browser.post("/v1/login", json={"key": KEY}, headers=ORIGIN)
    cookie = answer.headers["set-cookie"]
    assert KEY not in cookie
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    me = {"name": "admin", "role": "admin", "tenant": "default"}
    assert (await browser.get("/v1/whoami")).json() == me
    await browser.post("/v1/logout", headers=ORIGIN)
    assert (await browser.get("/v1/whoami")).status_code == 401


async def test_a_wrong_key_gives_no_cookie(anybody: httpx.AsyncClient) -> None:
    answer = await anybody.post("/v1/login", json={"key": "wrong"}, headers=ORIGIN)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


async def test_a_change_by_cookie_must_come_from_our_own_pages(browser: httpx.AsyncClient) -> None:
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "https://127.0.0.1:8700"},
        {"Origin": "null"},
        {},
    ):
        answer = await browser.post("/v1/workspaces", json={}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), headers
        answer = await browser.delete("/v1/workspaces/abcdefghjk", headers=headers)
        assert answer.status_code == 403, headers
    made = await browser.post("/v1/workspaces", json={}, headers=ORIGIN)
    assert made.status_code == 201
    assert (await browser.get("/v1/workspaces")).json()["workspaces"][0]["id"] == made.json()["id"]


async def test_a_foreign_page_cannot_log_a_browser_in(anybody: httpx.AsyncClient) -> None:
    answer = await anybody.post(
        "/v1/login", json={"key": KEY}, headers={"Origin": "http://evil.example"}
    )
    assert answer.status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8700", "127.0.0.1.evil.example"])
async def test_an_unknown_host_is_refused_whoever_asks(
    app: FastAPI, http: httpx.AsyncClient, browser: httpx.AsyncClient, host: str
) -> None:
    for asking in (http, browser):
        answer = await asking.get("/v1/workspaces", headers={"Host": host})
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert (await asking.get("/", headers={"Host": host})).status_code == 403


@pytest.mark.parametrize("host", ["localhost:8700", "127.0.0.1:1234", "[::1]:8700"])
async def test_loopback_names_are_ours(http: httpx.AsyncClient, host: str) -> None:
    assert (await http.get("/v1/workspaces", headers={"Host": host})).status_code == 200


async def test_a_public_address_is_ours_when_it_is_set(settings: Settings, app: FastAPI) -> None:
    public = settings.model_copy(update={"public_url": "https://desks.example.org"})
    app = create_app(public, LocalCluster(settings.home))
    async with serving(app) as http, client(app, url="https://desks.example.org") as browser:
        made = await claim(http, wait=False)
        assert str(made["watch_url"]).startswith("https://desks.example.org/watch/")
        own = {"Origin": "https://desks.example.org"}
        answer = await browser.post("/v1/login", json={"key": KEY}, headers=own)
        assert answer.status_code == 204
        assert "Secure" in answer.headers["set-cookie"]
        made = (await browser.post("/v1/workspaces", json={}, headers=own)).json()
        foreign = {"Origin": "http://desks.example.org"}
        assert (
            await browser.delete(f"/v1/workspaces/{made['id']}", headers=foreign)
        ).status_code == 403


async def test_a_viewer_sees_one_desktop_and_nothing_else(
    app: FastAPI, http: httpx.AsyncClient, anybody: httpx.AsyncClient
) -> None:
    mine, other = await claim(http), await claim(http)
    base = f"/v1/workspaces/{mine['id']}"
    url = httpx.URL(str(mine["watch_url"]))
    assert url.path == f"/watch/{mine['id']}"
    answer = await anybody.post(f"{base}/viewer", json={"token": url.fragment}, headers=ORIGIN)
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", f"Path={base}", "SameSite=strict"} <= set(cookie.split("; "))

    assert (await anybody.get(base)).json()["watch_url"] == ""  # no links for others to hand on
    shot = await anybody.get(f"{base}/screenshot")
    assert shot.content.startswith(b"\xff\xd8")

    # The browser keeps to the cookie's path; a client that does not is refused.
    pair = {"Cookie": cookie.split(";")[0], **ORIGIN}
    async with client(app, headers=pair) as forged:
        for method, path in [
            ("GET", "/v1/workspaces"),
            ("GET", f"/v1/workspaces/{other['id']}"),
            ("GET", f"/v1/workspaces/{other['id']}/screenshot"),
            ("GET", "/v1/whoami"),
            ("GET", "/v1/events"),
            ("GET", f"{base}/events"),
            ("GET", f"{base}/files?path=a"),
            ("GET", f"{base}/clipboard"),
            ("POST", f"{base}/actions"),
            ("POST", f"{base}/processes"),
            ("POST", f"{base}/extend"),
            ("DELETE", base),
        ]:
            answer = await forged.request(method, path)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path


async def test_a_bad_link_opens_nothing(
    http: httpx.AsyncClient, anybody: httpx.AsyncClient, settings: Settings
) -> None:
    mine, other = await claim(http), await claim(http)
    good = httpx.URL(str(mine["watch_url"])).fragment
    workspace_id, _, signature = good.split(".")
    for at, token in [
        (other["id"], good),
        (mine["id"], f"{other['id']}.{good.split('.', 1)[1]}"),
        (mine["id"], f"{workspace_id}.99999999999.{signature}"),
        (mine["id"], f"{workspace_id}.1.{signature}"),
        (mine["id"], "nonsense"),
        (mine["id"], Auth(settings).session(ADMIN)),
    ]:
        answer = await anybody.post(
            f"/v1/workspaces/{at}/viewer", json={"token": token}, headers=ORIGIN
        )
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), token


async def test_the_first_start_makes_a_key_that_only_its_user_reads(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", api_key=None)
    Auth(settings)
    key = settings.key_file.read_text().strip()
    assert len(key) >= 40
    for path in (settings.key_file, settings.secret_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(settings.home.stat().st_mode) == 0o700
    assert await Auth(settings).by_key(key) == ADMIN  # the second start keeps it


async def test_a_session_ends_with_its_key_and_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path, api_key=SecretStr("one"))
    token = Auth(settings).session(ADMIN)
    assert await Auth(settings).by_session(token) == ADMIN
    changed = settings.model_copy(update={"api_key": SecretStr("two")})
    assert await Auth(changed).by_session(token) is None
    monkeypatch.setattr("controller.auth.time.time", lambda: 4e9)
    assert await Auth(settings).by_session(token) is None


def test_a_key_that_http_cannot_carry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        Auth(Settings(home=tmp_path, api_key=SecretStr("schlüssel")))


async def test_a_key_may_be_used_from_anywhere(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/workspaces", json={"wait": False}, headers=BEARER)
    assert answer.status_code == 201
