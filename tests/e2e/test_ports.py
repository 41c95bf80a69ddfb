"""Servers in a real desktop: on origins of their own in a real browser, and by a path."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.browser import chromium
from tests.e2e.conftest import Service
from tests.waiting import until
from workspace.errors import PortClosed
from workspace.ports import ListeningPort
from workspace.sync import SyncCarrel, SyncClaimedDesktop

PORT = 3000
SERVER = Path(__file__).with_name("server_inside.py")


@pytest.fixture(scope="module")
def desktop(service: Service) -> Iterator[SyncClaimedDesktop]:
    with SyncCarrel(service.url, service.key) as carrel, carrel.claim("light") as desktop:
        desktop.write_file("server.py", SERVER.read_bytes())
        desktop.start(f"python3 server.py {PORT}")
        until(lambda: PORT in [each.port for each in desktop.ports()])
        yield desktop


@pytest.fixture
def by_path(service: Service, desktop: SyncClaimedDesktop) -> Iterator[httpx.Client]:
    base = f"{service.url}/v1/workspaces/{desktop.id}/ports/{PORT}"
    with httpx.Client(base_url=base, headers={"Authorization": f"Bearer {service.key}"}) as http:
        yield http


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium() as browser:
        page = browser.new_context().new_page()
        page.set_default_timeout(15_000)
        yield page


def test_what_listens_is_listed(service: Service, desktop: SyncClaimedDesktop) -> None:
    assert ListeningPort(port=PORT, address="127.0.0.1") in desktop.ports()
    listed = service.carrel("ports", desktop.id)
    assert f"{PORT}  127.0.0.1" in " ".join(listed.stdout.split()).replace(" ", "  ")


def test_by_a_path_with_a_key(by_path: httpx.Client) -> None:
    answer = by_path.get("/a%20b?c=d%2Fe", headers={"Cookie": "carrel_x=1; mine=2"})
    told = answer.json()
    assert answer.status_code == 200, answer.text
    assert (told["method"], told["path"]) == ("GET", "/a%20b?c=d%2Fe")
    assert told["headers"]["host"] == f"localhost:{PORT}"
    assert "cookie" not in told["headers"]
    assert "authorization" not in told["headers"]
    assert "set-cookie" not in answer.headers
    assert "sandbox" in answer.headers["content-security-policy"]
    moved = by_path.get("/moved")
    assert moved.headers["location"] == f"{by_path.base_url.path}asked"
    body = os.urandom(40 << 20)  # more than a request of Carrel's own may hold
    sent = by_path.post("/upload", content=body)
    assert sent.json()["sha256"] == hashlib.sha256(body).hexdigest()


def test_by_a_path_no_cookie_counts(service: Service, by_path: httpx.Client) -> None:
    with httpx.Client(base_url=service.url, headers={"Origin": service.url}) as browser:
        assert browser.post("/v1/login", json={"key": service.key}).status_code < 300
        refused = browser.get(f"{by_path.base_url.path}page")
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")


def test_pieces_come_as_they_are_sent(by_path: httpx.Client) -> None:
    with by_path.stream("GET", "/stream", timeout=30) as answer:
        first = next(answer.iter_text())
    assert first.startswith("data: 0")
    assert len(first) < 200


def test_what_goes_wrong_is_said(
    service: Service, desktop: SyncClaimedDesktop, by_path: httpx.Client
) -> None:
    garbage = by_path.get("/garbage")
    assert (garbage.status_code, garbage.json()["code"]) == (502, "bad_gateway")
    closed = by_path.get(f"{by_path.base_url}x".replace(f"/{PORT}/", "/3999/"))
    assert (closed.status_code, closed.json()["code"]) == (409, PortClosed.code)
    for port in ("0", "65536", "abc", "%31"):
        other = by_path.get(f"{by_path.base_url}x".replace(f"/{PORT}/", f"/{port}/"))
        assert other.status_code == 422, other.text


def test_what_is_open_ends_with_its_key(service: Service, desktop: SyncClaimedDesktop) -> None:
    made = json.loads(service.carrel("keys", "new", "visitor", "--json").stdout)
    http = httpx.Client(headers={"Authorization": f"Bearer {made['key']}"}, timeout=30)
    url = f"{service.url}/v1/workspaces/{desktop.id}/ports/{PORT}/stream"
    with http, http.stream("GET", url) as answer:
        pieces = answer.iter_text()
        assert next(pieces).startswith("data: 0")
        assert service.carrel("keys", "revoke", made["id"]).returncode == 0
        with pytest.raises(httpx.RemoteProtocolError):
            list(pieces)


def test_a_browser_gets_an_origin_of_its_own(
    service: Service, desktop: SyncClaimedDesktop, page: Page
) -> None:
    access = desktop.open_port(PORT, "/page")
    origin = f"http://{PORT}-{desktop.id}.localhost:{urlsplit(service.url).port}"
    assert access.origin == origin
    assert page.goto(f"{origin}/page").status == 401
    expect(page.locator("#said")).to_contain_text("has not been let in")
    page.goto(access.url)
    page.wait_for_url(f"{origin}/page")
    expect(page.locator("#said")).to_have_text("echo: hello")
    told = page.evaluate("fetch('/asked', {method: 'POST', body: 'x'}).then(it => it.json())")
    assert told["headers"]["origin"] == f"http://localhost:{PORT}"
    assert told["headers"]["cookie"] == "mine=1"
    assert page.evaluate("document.cookie") == "mine=1"
    # A key that the application has for itself is its own business.
    own = page.evaluate(
        "fetch('/asked', {headers: {Authorization: 'Bearer a.b.c'}}).then(it => it.status)"
    )
    assert own == 200
    redirected = page.evaluate(
        """new Promise(done => {
          const socket = new WebSocket(`ws://${location.host}/moved`);
          socket.onopen = () => done("open");
          socket.onerror = () => done("refused");
        })"""
    )
    assert redirected == "refused"
    events = service.carrel("logs", desktop.id).stdout
    assert "port_opened" in events
    # The way in is of one port: another one's origin does not take it.
    page.goto(access.url.replace(f"//{PORT}-", "//3001-"))
    expect(page.locator("#said")).to_contain_text("lets nobody in any more")


def test_a_page_of_an_agent_reaches_nothing_of_carrels(
    service: Service, desktop: SyncClaimedDesktop, page: Page
) -> None:
    """Both are open in one browser, whose person has logged in."""
    page.goto(service.url)
    page.get_by_label("Key", exact=True).fill(service.key)
    page.get_by_role("button", name="Continue").click()
    expect(page.locator(".card")).to_be_visible()
    agents = page.context.new_page()
    agents.goto(desktop.open_port(PORT, "/page").url)
    expect(agents.locator("#said")).to_have_text("echo: hello")
    tried = agents.evaluate(
        """async ([carrel, id]) => {
          const ask = async (path, options) => {
            try {
              const answer = await fetch(carrel + path, {credentials: "include", ...options});
              return answer.type === "opaque" ? "opaque" : `${answer.status}`;
            } catch (error) { return "refused"; }
          };
          const frame = src => new Promise(done => {
            const shown = document.createElement("iframe");
            shown.onload = () => {
              try { done(shown.contentDocument ? "read" : "refused"); } catch { done("refused"); }
            };
            shown.src = src;
            document.body.append(shown);
          });
          const socket = path => new Promise(done => {
            const opened = new WebSocket(carrel.replace("http", "ws") + path);
            opened.onopen = () => done("open");
            opened.onerror = () => done("refused");
          });
          const popup = window.open(carrel + "/");
          await new Promise(done => setTimeout(done, 500));
          let inside = "refused";
          try { if (popup && popup.document.body.innerText) inside = "read"; } catch {}
          return {
            read: await ask("/v1/workspaces"),
            end: await ask(`/v1/workspaces/${id}`, {method: "DELETE"}),
            simple: await ask(`/v1/workspaces/${id}/extend`, {
              method: "POST", mode: "no-cors", body: '{"ttl_seconds": 1}'}),
            frame: await frame(carrel + "/"),
            socket: await socket(`/v1/workspaces/${id}/vnc?role=control`),
            popup: inside,
          };
        }""",
        [service.url, desktop.id],
    )
    assert tried.pop("simple") in ("opaque", "refused")  # what came of it is below
    assert set(tried.values()) == {"refused"}, tried
    kinds = {line.split()[2] for line in service.carrel("logs", desktop.id).stdout.splitlines()}
    assert kinds == {"claim", "ready", "file_write", "process", "port_opened", "port"}
    assert desktop.health().ready


def test_an_unmodified_playwright_drives_the_browser_from_outside(
    service: Service, desktop: SyncClaimedDesktop
) -> None:
    access = desktop.open_cdp()
    with sync_playwright() as playwright:
        for url in (access.http_url, access.ws_url):
            browser = playwright.chromium.connect_over_cdp(url)
            page = browser.contexts[0].new_page()
            page.goto(f"http://localhost:{PORT}/page")
            expect(page.locator("#said")).to_have_text("echo: hello")
            page.close()
            browser.close()
    told = httpx.get(f"{access.http_url}/json/version").json()["webSocketDebuggerUrl"]
    assert told.startswith(access.ws_url + "devtools/browser/")
    assert httpx.get(f"{access.http_url}/etc/passwd").status_code == 404
    token = access.http_url.rpartition("/")[2]
    wrong = httpx.get(f"{service.url}/cdp/{token[:-2]}/json/version")
    assert (wrong.status_code, wrong.json()["code"]) == (401, "unauthorized")
    assert token not in service.carrel("logs", desktop.id, "--json").stdout
    assert token not in (service.home / "up.log").read_text()
