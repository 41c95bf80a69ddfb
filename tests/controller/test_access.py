"""Every route and every tool against everyone who may ask: what each may is written here again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from mcp import Client
from starlette.routing import Mount
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from agent_bridge import tools
from agent_bridge.caller import Caller
from agent_bridge.server import Bridge, make_server
from controller import access
from controller.app import create_app
from controller.settings import Settings
from tests.agent_bridge.conftest import text_of
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
from tests.serving import listening
from workspace.client import Carrel

pytestmark = pytest.mark.anyio
WORKSPACE = "/v1/workspaces/{workspace_id}"
RANK = ["viewer", "user", "operator", "admin"]
# Who needs nothing at all: probes, pages without data, and what proves itself in another way.
ANYBODY = {
    "GET /healthz",
    "GET /readyz",
    "GET /openapi.json",
    "HEAD /openapi.json",
    "GET /",
    "GET /fleet",
    "GET /watch/{workspace_id}",
    "GET /v1/login",
    "GET /v1/login/oidc",
    "GET /v1/login/oidc/callback",
    "POST /v1/login",
    "POST /v1/logout",
    f"POST {WORKSPACE}/viewer",
    "POST /v1/leases/{sandbox}",
    "GET /cdp/{token}/{path:path}",
    "WS /cdp/{token}/{path:path}",
    "POST /v1/leases/{sandbox}/connections",
}
LINK_VIEWS = {f"GET {WORKSPACE}{path}" for path in ("", "/screenshot", "/viewer")}
LINK_VIEWS |= {f"WATCH {WORKSPACE}/vnc"}
LINK_CONTROLS = {f"{method} {WORKSPACE}/control" for method in ("GET", "POST", "DELETE")}
LINK_CONTROLS |= {f"WS {WORKSPACE}/vnc"}
ABROAD = {f"GET {WORKSPACE}", f"DELETE {WORKSPACE}", f"GET {WORKSPACE}/stats"}


class Asked(NamedTuple):
    """A route, and how it is asked."""

    method: str
    path: str

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


def asked_of(api: FastAPI) -> list[Asked]:
    """Every route of the application; that of a screen twice, by its role."""
    found = []
    for route in iter_route_contexts(api.routes):
        if isinstance(route.original_route, Mount):
            assert route.path == "/static"
            continue
        path = route.path or "/"
        if route.methods:
            found += [Asked(method, path) for method in sorted(route.methods)]
        else:
            found += [Asked("WS", path)] + [Asked("WATCH", path)] * path.endswith("/vnc")
    # What ends the workspace comes last.
    return sorted(found, key=lambda it: (it.name == f"DELETE {WORKSPACE}", it))


def least(asked: Asked) -> str:
    """The least role that may, in its own tenant."""
    method, path = asked
    if path.startswith(("/v1/audit", "/v1/keys", "/v1/tenants")):
        return "admin"
    if path.startswith(("/v1/nodes", "/v1/pools", "/v1/status", "/metrics")):
        return "operator"
    if path in ("/v1/tools", "/v1/tools/{name}"):
        return "viewer" if method == "GET" else "operator"
    if path == "/v1/templates":
        return "user" if method == "GET" else "operator"
    if path.endswith("/export") or "/ports/{port}" in path or "/browser/" in path:
        return "user"
    return "viewer" if method in ("GET", "WATCH") or path.endswith("/stream") else "user"


@dataclass
class Who:
    """Somebody who asks."""

    name: str
    headers: dict[str, str] = field(default_factory=dict)
    role: str = ""  # of a key that is good
    is_foreign: bool = False
    link: str = ""  # what a link is for

    def refusal(self, asked: Asked) -> set[str] | None:
        """The codes with which it is refused; None if it is not."""
        if asked.name in ANYBODY:
            return None
        if self.link:
            may = asked.name in LINK_VIEWS and not self.is_foreign
            may |= self.link == "control" and asked.name in LINK_CONTROLS and not self.is_foreign
            return None if may else {"forbidden"}
        if not self.role:
            return {"unauthorized"}
        if RANK.index(self.role) < RANK.index(least(asked)):
            return {"forbidden"}
        if self.is_foreign and asked.path.startswith(WORKSPACE) and self.role != "admin":
            if self.role != "operator":
                return {"workspace_not_found"}
            return None if asked.name in ABROAD else {"forbidden"}
        return None


@dataclass
class Site:
    """A controller with a desktop of the tenant ``ours``, and everyone who asks for it."""

    api: FastAPI
    admin: httpx.AsyncClient
    everyone: list[Who]
    our_user: dict[str, str]

    async def desktop(self) -> dict[str, Any]:
        async with client(self.api, headers=self.our_user) as http:
            return await claim(http, template="fake")


async def everyone(admin: httpx.AsyncClient) -> list[Who]:
    found = [
        Who("nobody"),
        Who("a wrong key", bearer("carrel_abcdefghjk_" + "x" * 40)),
        Who("the admin", dict(BEARER), role="admin"),
    ]
    for tenant in ("ours", "theirs"):
        for role in RANK:
            made = await new_key(admin, f"{tenant}-{role}", role=role, tenant=tenant)
            is_foreign = tenant == "theirs"
            found.append(
                Who(f"{tenant}-{role}", bearer(made["key"]), role=role, is_foreign=is_foreign)
            )
    gone = await new_key(admin, "gone", role="admin", tenant="ours")
    assert (await admin.delete(f"/v1/keys/{gone['id']}")).status_code == 204
    short = await new_key(admin, "short", role="admin", tenant="ours", ttl_seconds=0.01)
    await asyncio.sleep(0.02)
    expired = Who("expired", bearer(short["key"]))
    return [*found, Who("revoked", bearer(gone["key"])), expired]


@pytest.fixture
async def site(settings: Settings, cluster: LocalCluster) -> AsyncIterator[Site]:
    # Only keys: whether a lease is wanted, and whether there is a node, is asked elsewhere.
    def carrel_for(key: str) -> Carrel:
        return Carrel(URL, key, transport=httpx.ASGITransport(api))

    hosts = ["127.0.0.1:*"]
    bridge = Bridge(carrel_for, public_url=URL, allowed_hosts=hosts, allowed_origins=[])
    api = create_app(settings, cluster, bridge=bridge)
    async with serving(api) as admin:
        await add_template(admin, "fake")
        found = await everyone(admin)
        (ours,) = (who.headers for who in found if who.name == "ours-user")
        yield Site(api, admin, found, ours)


async def links(site: Site, workspace_id: object) -> list[Who]:
    """Everyone who comes by a link: its cookie, as a browser would send it."""
    other = await site.desktop()
    found = []
    for name, of, body in (
        ("a link", workspace_id, {"mode": "view"}),
        ("a link to control", workspace_id, {"mode": "control"}),
        ("a link to another", other["id"], {"mode": "view"}),
    ):
        async with client(site.api, headers=site.our_user) as http:
            made = (await http.post(f"/v1/workspaces/{of}/shares", json=body)).json()
        cookie = await redeemed(site.api, made)
        found.append(Who(name, cookie, link=body["mode"], is_foreign=of != workspace_id))
    return found


async def redeemed(api: FastAPI, made: Mapping[str, str]) -> dict[str, str]:
    url = httpx.URL(made["url"])
    async with client(api, headers={"Origin": URL}) as http:
        path = f"/v1/workspaces/{made['workspace_id']}/viewer"
        answer = await http.post(path, json={"token": url.fragment})
    assert answer.status_code == 204, answer.text
    return {"Cookie": answer.headers["set-cookie"].split(";")[0], "Origin": URL}


class Rest:
    """What follows in a path."""

    def __format__(self, spec: str) -> str:
        assert spec == "path"
        return "page"


def path_of(asked: Asked, workspace_id: object) -> str:
    names = {"workspace_id": workspace_id, "sandbox": "abcdefghjk", "window": 1}
    unknown = {"job": "j1", "name": "v", "node_id": "n0", "template": "no", "key_id": "abcdefghjk"}
    unknown |= {"download": "d1"}
    unknown |= {"share": "abcdefghjk", "artifact_id": "abcdefghjk", "ticket": "abcdef"}
    unknown |= {"port": "3000", "path": Rest(), "token": "none"}
    return asked.path.format(**names, **unknown)


async def code_of(http: httpx.AsyncClient, asked: Asked, path: str, who: Who) -> str:
    body = {"json": {}} if asked.method in ("POST", "PUT", "PATCH") else {}
    answer = await http.request(asked.method, path, headers=who.headers, **body)
    if asked.method == "HEAD":  # an answer without a body
        told = {401: "unauthorized", 403: "forbidden", 404: "workspace_not_found"}
        return told.get(answer.status_code, "ok")
    if answer.is_success or answer.status_code == 304:
        return "ok"
    assert "www-authenticate" in answer.headers or answer.status_code != 401
    return str(answer.json()["code"])


async def code_of_stream(port: int, path: str, who: Who) -> str:
    """Of what has no end, how it begins."""
    headers = {name: value.replace("8700", str(port)) for name, value in who.headers.items()}
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
        http.stream("GET", path, headers=headers) as answer,
    ):
        return "ok" if answer.is_success else str(json.loads(await answer.aread())["code"])


async def code_of_socket(port: int, asked: Asked, path: str, who: Who) -> str:
    query = "?role=view" if asked.method == "WATCH" else "?role=control"
    headers = {name: value.replace("8700", str(port)) for name, value in who.headers.items()}
    try:
        async with connect(
            f"ws://127.0.0.1:{port}{path}{query}", additional_headers=headers, proxy=None
        ):
            return "ok"
    except InvalidStatus as refused:
        return str(json.loads(refused.response.body or b"{}").get("code", "none"))


REFUSED = {"unauthorized", "forbidden", "workspace_not_found"}


async def test_every_route_is_for_those_that_it_is_meant_for(site: Site) -> None:
    routes = asked_of(site.api)
    assert len(routes) > 80
    wrong = []
    ours = (await site.desktop())["id"]
    everyone = [*site.everyone, *await links(site, ours)]
    async with listening(site.api) as port, client(site.api) as http:
        for who in everyone:
            for asked in routes:
                path = path_of(asked, ours)
                if asked.method in ("WS", "WATCH"):
                    code = await code_of_socket(port, asked, path, who)
                elif asked.path.endswith("/events/stream"):
                    code = await code_of_stream(port, path, who)
                else:
                    code = await code_of(http, asked, path, who)
                expected = who.refusal(asked)
                if asked.path.startswith("/v1/leases/") or asked.name == "POST /v1/login":
                    expected = {"unauthorized", "invalid_request"}
                elif asked.path.startswith("/cdp/"):  # the token is none
                    expected = {"unauthorized"}
                elif asked.path == WORKSPACE + "/viewer" and asked.method == "POST":
                    expected = {"invalid_request", "unauthorized"}
                elif who.role == "" and not who.link and who.headers and asked.name in ANYBODY:
                    expected = {"ok", "unauthorized", "invalid_request"}  # a wrong key is told so
                if code not in expected if expected else code in REFUSED:
                    wrong.append(f"{who.name}: {asked.name} -> {code}, expected {expected}")
                if asked.name == f"DELETE {WORKSPACE}" and code == "ok":
                    ours = (await site.desktop())["id"]
                    for each in everyone:
                        if each.link and not each.is_foreign:
                            each.headers = await again(site, ours, each.link)
    assert not wrong, "\n".join(wrong)


async def again(site: Site, workspace_id: object, mode: str) -> dict[str, str]:
    async with client(site.api, headers=site.our_user) as http:
        made = await http.post(f"/v1/workspaces/{workspace_id}/shares", json={"mode": mode})
    return await redeemed(site.api, made.json())


async def test_the_table_and_the_routes_are_the_same(site: Site) -> None:
    """A route that the table does not have could be reached by nobody."""
    there = {asked.name for asked in asked_of(site.api)}
    mounted = {"GET /static/{path:path}", "HEAD /static/{path:path}"}
    mounted |= {"ANY /mcp", "ANY /.well-known/{path:path}"}
    assert {f"{method} {rule.path}" for method, rule in access.rules()} == there | mounted
    for asked in asked_of(site.api):
        found = access.find(
            "WS" if asked.method == "WATCH" else asked.method,
            path_of(asked, "abcdefghjk"),
            is_watch=asked.method == "WATCH",
        )
        assert found.rule is not None, asked
        assert found.rule.path == asked.path


async def test_what_is_not_in_the_table_is_refused(site: Site) -> None:
    @site.api.get("/v1/workspaces/{workspace_id}/backdoor")
    @site.api.get("/backdoor")
    async def backdoor() -> str:
        return "in"

    for path in ("/backdoor", "/v1/workspaces/abcdefghjk/backdoor"):
        answer = await site.admin.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    answer = await site.admin.put("/v1/workspaces")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "POST"}


# What each tool is called with; {} stands for the desktop.
CALLS: dict[str, dict[str, Any]] = {
    "desktop_create": {"template": "fake"},
    "desktop_list": {},
    "desktop_get": {"desktop_id": "{}"},
    "computer": {"desktop_id": "{}", "action": "click", "x": 1, "y": 1, "screenshot": "none"},
    "computer_batch": {
        "desktop_id": "{}",
        "actions": [{"action": "click", "x": 1, "y": 1}],
        "screenshot": "none",
    },
    "screenshot": {"desktop_id": "{}"},
    "ui_tree": {"desktop_id": "{}"},
    "windows": {"desktop_id": "{}", "action": "focus", "window": 1},
    "launch": {"desktop_id": "{}", "name": "xterm"},
    "clipboard": {"desktop_id": "{}", "text": "t"},
    "wait_for": {"desktop_id": "{}", "until": "region_changes", "seconds": 1},
    "shell_run": {"desktop_id": "{}", "command": "true"},
    "shell_poll": {"desktop_id": "{}", "job_id": "j1", "signal": "TERM"},
    "file_read": {"desktop_id": "{}", "path": "a"},
    "file_write": {"desktop_id": "{}", "path": "a", "content": "b"},
    "file_list": {"desktop_id": "{}"},
    "request_human": {"desktop_id": "{}", "ticket": "abcdef"},
    "browser_navigate": {"desktop_id": "{}", "url": "http://localhost"},
    "browser_act": {"desktop_id": "{}", "actions": [{"action": "click", "ref": "r1"}]},
    "browser_read": {"desktop_id": "{}"},
    "browser_tabs": {"desktop_id": "{}"},
    "ide_open": {"desktop_id": "{}", "path": "/home/user/a.py"},
    "ide_read": {"desktop_id": "{}"},
    "ide_edit": {"desktop_id": "{}", "action": "format", "path": "a.py"},
    "ide_run": {"desktop_id": "{}", "action": "task", "command": "true"},
    "pool_scale": {},
    "desktop_destroy": {"desktop_id": "{}"},
}
LEAST = {"pool_scale": "operator", "desktop_list": "viewer", "desktop_get": "viewer"}
LEAST |= dict.fromkeys(
    ("ui_tree", "file_read", "file_list", "request_human", "screenshot"), "viewer"
)
# They first look how large the desktop is.
LOOKS = {"browser_act", "computer", "computer_batch", "screenshot", "wait_for", "windows", "launch"}


def told(who: Who, tool: str) -> str:
    """How the answer of a tool begins, if it is refused."""
    if RANK.index(who.role) < RANK.index(LEAST.get(tool, "user")):
        return "workspace_not_found" if who.is_foreign and tool in LOOKS else "forbidden"
    if not who.is_foreign or who.role == "admin" or "desktop_id" not in CALLS[tool]:
        return ""
    if who.role == "operator":
        return "" if tool in ("desktop_get", "desktop_destroy") else "forbidden"
    return "workspace_not_found"


def calls(workspace_id: object) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, arguments in CALLS.items():
        yield name, {k: workspace_id if v == "{}" else v for k, v in arguments.items()}


async def test_every_tool_is_for_those_that_it_is_meant_for(site: Site) -> None:
    assert set(CALLS) == {tool.name for tool in tools.TOOLS}
    wrong = []
    ours = (await site.desktop())["id"]
    for who in site.everyone:
        key = who.headers.get("Authorization", "").removeprefix("Bearer ")
        if not who.role:
            continue
        async with Carrel(URL, key, transport=httpx.ASGITransport(site.api)) as carrel:
            caller = Caller(carrel, public_url=URL)
            async with Client(make_server(lambda caller=caller: caller)) as mcp:
                for name, arguments in calls(ours):
                    text = text_of(await mcp.call_tool(name, arguments))
                    expected = told(who, name)
                    code = text.partition(":")[0]
                    if code != expected if expected else code in REFUSED | {"invalid_request"}:
                        wrong.append(f"{who.name}: {name} -> {text[:120]}, expected {expected}")
                    if name == "desktop_destroy" and not expected:
                        ours = (await site.desktop())["id"]
    assert not wrong, "\n".join(wrong)


async def test_no_tool_is_told_of_without_a_key_that_is_good(site: Site) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    kind = {"Accept": "application/json, text/event-stream"}
    async with listening(site.api) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            for who in site.everyone:
                answer = await http.post("/mcp", json=body, headers=who.headers | kind)
                assert (answer.status_code == 401) == (not who.role), (who.name, answer.text)
