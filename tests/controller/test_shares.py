"""Links that share one desktop: what each opens, and that it opens nothing once it is revoked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from controller.app import create_app
from controller.settings import Settings
from tests.controller.conftest import BEARER, bearer, claim, new_key
from tests.controller.test_watch import Site
from tests.controller.upstream import upstream
from tests.serving import listening

pytestmark = pytest.mark.anyio


@pytest.fixture
async def site(settings: Settings, short_dir: Path) -> AsyncIterator[Site]:
    async with upstream(short_dir) as (there, cluster):
        app = create_app(settings, cluster)
        async with app.router.lifespan_context(app), listening(app) as port:
            url = f"http://127.0.0.1:{port}"
            async with httpx.AsyncClient(base_url=url, headers=BEARER) as http:
                yield Site(url, there, await claim(http))


@pytest.fixture
async def http(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=site.url, headers=BEARER) as http:
        yield http


async def share(site: Site, http: httpx.AsyncClient, **body: object) -> tuple[str, dict[str, str]]:
    """A link's id, and the headers of a browser that came by it."""
    made = (await http.post(f"{site.base}/shares", json=body)).json()
    url = httpx.URL(made["url"])
    assert url.path == f"/watch/{site.workspace['id']}"
    origin = {"Origin": site.url}
    async with httpx.AsyncClient(base_url=site.url, headers=origin) as browser:
        answer = await browser.post(f"{site.base}/viewer", json={"token": url.fragment})
        assert answer.status_code == 204, answer.text
        cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", f"Path={site.base}", "SameSite=strict"} <= set(cookie.split("; "))
    return made["id"], {"Cookie": cookie.split(";")[0], **origin}


async def test_a_link_watches_or_controls_and_nothing_else(
    site: Site, http: httpx.AsyncClient
) -> None:
    view, control = f"{site.base}/vnc?role=view", f"{site.base}/vnc?role=control"
    _, watching = await share(site, http)
    _, helping = await share(site, http, mode="control", ttl_seconds=60)
    for headers, path in ((watching, view), (helping, view), (helping, control)):
        async with await site.open(path, headers) as socket:
            await socket.recv()
    refused = (403, "forbidden")
    assert await site.refusal(control, watching) == refused
    assert await site.refusal(f"{view}&role=control", watching) == refused
    for headers in (watching, helping):
        assert await site.refusal(f"{site.base}/terminal", headers) == refused
        assert await site.refusal("/v1/workspaces/abcdefghjk/vnc?role=view", headers) == refused
        async with httpx.AsyncClient(base_url=site.url, headers=headers) as browser:
            mode = "control" if headers is helping else "view"
            assert (await browser.get(f"{site.base}/viewer")).json() == {"mode": mode}
            assert (await browser.get(site.base)).json()["watch_url"] == ""
            for method, path in (
                ("POST", "/actions"),
                ("GET", "/files?path=a"),
                ("POST", "/shares"),
                ("GET", "/shares"),
            ):
                answer = await browser.request(method, site.base + path, json={})
                assert answer.json()["code"] == "forbidden"
    # A page of another origin gets nowhere by a link's cookie.
    assert await site.refusal(view, {**watching, "Origin": "http://evil.example"}) == refused


async def test_a_link_that_is_revoked_opens_nothing_and_cuts_off_who_watches(
    site: Site, http: httpx.AsyncClient
) -> None:
    link, headers = await share(site, http, mode="control")
    other, kept = await share(site, http)
    told = (await http.get(f"{site.base}/shares")).json()
    assert [(each["id"], each["mode"]) for each in told] == [(other, "view"), (link, "control")]
    assert "url" not in told[0]
    path = f"{site.base}/vnc?role=view"
    socket, staying = await site.open(path, headers), await site.open(path, kept)
    for each in (socket, staying):
        await each.recv()
    for _ in range(2):
        assert (await http.delete(f"{site.base}/shares/{link}")).status_code == 204
    with pytest.raises(ConnectionClosed):
        await socket.recv()
    assert (socket.close_code, socket.close_reason) == (1008, "This key or link is good no more.")
    assert await site.refusal(path, headers) == (401, "unauthorized")
    await staying.send(b"hello")
    assert await staying.recv() == b"echo hello"
    await staying.close()
    assert [each["id"] for each in (await http.get(f"{site.base}/shares")).json()] == [other]
    answer = await http.delete(f"{site.base}/shares/abcdefghjk")
    assert (answer.status_code, answer.json()["code"]) == (404, "link_not_found")
    events = (await http.get(f"{site.base}/events")).json()["events"]
    assert [each["kind"] for each in events if "share" in each["kind"]] == [
        "shared",
        "shared",
        "unshared",
    ]
    assert {each["actor"] for each in events if each["kind"] == "watch"} == {f"link {other}"} | {
        f"link {link}"
    }


async def test_a_link_ends_with_its_time(site: Site, http: httpx.AsyncClient) -> None:
    _, headers = await share(site, http, ttl_seconds=2)
    socket = await site.open(f"{site.base}/vnc?role=view", headers)
    await socket.recv()
    with pytest.raises(ConnectionClosed):
        await socket.recv()
    assert await site.refusal(f"{site.base}/vnc?role=view", headers) == (401, "unauthorized")
    assert (await http.get(f"{site.base}/shares")).json() == []


async def test_a_key_that_is_revoked_loses_its_open_sockets(
    site: Site, http: httpx.AsyncClient
) -> None:
    made = await new_key(http, "ann")
    path = f"{site.base}/vnc?role=control"
    socket = await site.open(path, bearer(made["key"]))
    await socket.recv()
    assert (await http.delete(f"/v1/keys/{made['id']}")).status_code == 204
    with pytest.raises(ConnectionClosed):
        await socket.recv()
    assert socket.close_code == 1008
    assert await site.refusal(path, bearer(made["key"])) == (401, "unauthorized")


async def test_a_forged_link_opens_nothing(site: Site, http: httpx.AsyncClient) -> None:
    made = (await http.post(f"{site.base}/shares", json={})).json()
    other = (await http.post(f"{site.base}/shares", json={"mode": "control"})).json()
    token, better = (httpx.URL(each["url"]).fragment for each in (made, other))
    workspace_id, expiry, share_id, signature = token.split(".")
    for forged in (
        f"{workspace_id}.{expiry}.{other['id']}.{signature}",
        f"{workspace_id}.{int(expiry) + 1}.{share_id}.{signature}",
        f"abcdefghjk.{expiry}.{share_id}.{signature}",
        f"{workspace_id}.{expiry}.{signature}",
        f"{workspace_id}.{expiry}.{share_id}.{better.rpartition('.')[2]}",
        f"{token}.x",
        "....",
        token[:-1],
    ):
        answer = await http.post(f"{site.base}/viewer", json={"token": forged})
        assert answer.json()["code"] == "unauthorized", forged
    for body in ({"mode": "admin"}, {"ttl_seconds": 0}, {"ttl_seconds": 1e9}, {"more": 1}):
        answer = await http.post(f"{site.base}/shares", json=body)
        assert answer.json()["code"] == "invalid_request"
