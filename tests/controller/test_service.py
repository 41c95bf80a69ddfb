"""What is served beside the desktops: pages, the API's description, and the bridge."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from controller.app import create_app
from controller.settings import Settings
from tests.controller.conftest import LocalCluster, claim, client, serving
from workspace import actions as a
from workspace.client import Carrel
from workspace.errors import Unavailable

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", ["/", "/watch/abcdefghjk", "/static/api.js", "/static/style.css"])
async def test_pages_may_load_nothing_from_elsewhere(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path", ["/static/nothing.js", "/static/../settings.py", "/static/%2e%2e/settings.py"]
)
async def test_nothing_but_the_pages_is_served(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_the_api_describes_itself(http: httpx.AsyncClient) -> None:
    described = (await http.get("/openapi.json")).json()
    operations = [
        (path, method, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) > 35
    for path, method, operation in operations:
        assert operation["description"], (path, method)
        assert "default" not in operation["responses"], (path, method)
        refused = [status for status in operation["responses"] if int(status) >= 400]
        for status in refused:
            content = operation["responses"][status]["content"]["application/json"]
            assert content["schema"]["$ref"].endswith("/Problem"), (path, method, status)
        if path != "/healthz":
            assert "503" in refused, (path, method)
        if path not in ("/healthz", "/readyz"):
            assert {"401", "403", "422", "429"} <= set(refused), (path, method)
    act = described["paths"]["/v1/workspaces/{workspace_id}/actions"]["post"]
    body = act["requestBody"]["content"]["application/json"]
    for example in body["examples"].values():
        value = example["value"]
        a.ACTIONS.validate_python(value if isinstance(value, list) else [value])
    names = set(described["components"]["schemas"])
    assert {"Observation", "Workspace", "Click", "Problem", "ProcessResult"} <= names
    assert "HTTPValidationError" not in json.dumps(described)


async def test_the_sdk_speaks_to_it(app: FastAPI, http: httpx.AsyncClient) -> None:
    transport = httpx.ASGITransport(app)
    key = http.headers["Authorization"].removeprefix("Bearer ")
    async with Carrel("http://127.0.0.1:8700", key, transport=transport) as carrel:
        assert (await carrel.whoami()).role == "admin"
        async with await carrel.claim("desktop", name="by the SDK") as desktop:
            assert (await desktop.click(3, 4)).cursor == (3, 4)
            assert (await desktop.screenshot()).startswith(b"\xff\xd8")
            picture = await desktop.screenshot_since(None)
            assert picture is not None
            assert picture.data == await desktop.screenshot()
            assert await desktop.screenshot_since(picture.frame) is None
            tag = {"If-None-Match": f'"{picture.frame}"'}
            same = await http.get(f"/v1/workspaces/{desktop.id}/screenshot", headers=tag)
            assert (same.status_code, same.headers["ETag"]) == (304, tag["If-None-Match"])
            await desktop.write_file("a.txt", b"hello")
            assert await desktop.read_file("a.txt") == b"hello"
            await desktop.set_clipboard("copied")
            assert await desktop.clipboard() == "copied"
            assert [each.name for each in await carrel.list()] == ["by the SDK"]
        assert await carrel.list() == []


class _Bridge:
    """A bridge that says which paths came to it."""

    is_running = False

    @property
    def app(self) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert self.is_running
            await PlainTextResponse(f"bridge {scope['path']}")(scope, receive, send)

        return app

    def tools_changed(self) -> None: ...

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        self.is_running = True
        yield
        self.is_running = False


async def test_the_bridge_gets_its_own_paths_and_no_other(
    settings: Settings, cluster: LocalCluster
) -> None:
    bridge = _Bridge()
    app = create_app(settings, cluster, bridge=bridge)
    async with serving(app) as http, client(app) as anybody:
        for path in ("/mcp", "/.well-known/oauth-protected-resource/mcp"):
            assert (await anybody.post(path)).text == f"bridge {path}"  # it asks for the key itself
        assert (await anybody.post("/mcp", headers={"Host": "evil.example"})).status_code == 403
        foreign = {"Origin": "http://evil.example"}
        assert (await anybody.post("/mcp", headers=foreign)).status_code == 403
        assert (await http.patch("/v1/workspaces")).status_code == 405
        assert (await http.get("/nothing")).json()["code"] == "not_found"
        await claim(http)
    assert not bridge.is_running


async def test_a_database_that_is_not_one_is_refused_at_the_start(
    settings: Settings, cluster: LocalCluster
) -> None:
    for wrong in ("nonsense", "sqlite:///x.db", "sqlite+aiosqlite:////proc/no/such/place.db"):
        app = create_app(settings.model_copy(update={"database_url": wrong}), cluster)
        with pytest.raises(Unavailable, match="database"):
            async with app.router.lifespan_context(app):
                pass


async def test_a_database_that_fails_is_said_so(
    app: FastAPI, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        url = "sqlite"

        def begin(self) -> None:
            raise OSError(28, "No space left on device")

    for engine in ("_engine", "_transactional"):
        monkeypatch.setattr(app.state.parts.store._doing, engine, Full())
    answer = await http.post("/v1/workspaces", json={})
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert "No space left" in answer.json()["message"]
    monkeypatch.undo()
    assert (await http.post("/v1/workspaces", json={})).status_code == 201


def test_a_key_is_never_shown(settings: Settings) -> None:
    assert isinstance(settings.api_key, SecretStr)
    assert settings.api_key.get_secret_value() not in repr(settings)
