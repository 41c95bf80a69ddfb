"""Every wrong request is answered with a stable code and a sentence that says what is wrong."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from controller import problems
from tests.controller.conftest import add_template, claim

pytestmark = pytest.mark.anyio
UNKNOWN = "/v1/workspaces/abcdefghjk"


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code", "says"),
    [
        ("GET", "/v1/nothing", {}, 404, "not_found", "GET /v1/nothing"),
        ("PATCH", "/v1/workspaces", {}, 405, "method_not_allowed", "PATCH"),
        ("GET", UNKNOWN, {}, 404, "workspace_not_found", "abcdefghjk"),
        ("GET", "/v1/workspaces/NOT-AN-ID", {}, 404, "workspace_not_found", "NOT-AN-ID"),
        ("DELETE", UNKNOWN, {}, 404, "workspace_not_found", "abcdefghjk"),
        ("POST", f"{UNKNOWN}/extend", {"json": {"ttl_seconds": 5}}, 404, "workspace_not_found", ""),
        ("GET", f"{UNKNOWN}/screenshot", {}, 404, "workspace_not_found", ""),
        ("GET", f"{UNKNOWN}/events", {}, 404, "workspace_not_found", ""),
        ("GET", f"{UNKNOWN}/stats", {}, 404, "workspace_not_found", ""),
        ("PUT", f"{UNKNOWN}/files?path=a", {"content": b"x"}, 404, "workspace_not_found", ""),
        (
            "POST",
            "/v1/workspaces",
            {"json": {"template": "nope"}},
            404,
            "template_not_found",
            "There are: browser, code, desktop",
        ),
        (
            "POST",
            "/v1/workspaces",
            {"json": {"capabilities": ["vscode", "office"]}},
            404,
            "template_not_found",
            "No template has all of: vscode, office",
        ),
        (
            "POST",
            "/v1/workspaces",
            {"json": {"template": "code", "capabilities": ["vscode"]}},
            422,
            "invalid_request",
            "a template or capabilities",
        ),
        ("POST", "/v1/workspaces", {"content": b"{oops"}, 422, "invalid_request", "not JSON"),
        ("POST", "/v1/workspaces", {"content": b"\xff\xfe"}, 422, "invalid_request", ""),
        ("POST", "/v1/workspaces", {}, 422, "invalid_request", "body"),
        (
            "POST",
            "/v1/workspaces",
            {"json": {"ttl_seconds": -1}},
            422,
            "invalid_request",
            "ttl_seconds: Input should be greater than 0",
        ),
        ("POST", "/v1/workspaces", {"json": {"tll": 1}}, 422, "invalid_request", "tll"),
        ("GET", "/v1/workspaces?limit=0", {}, 422, "invalid_request", "limit"),
        ("GET", "/v1/workspaces?state=dead", {}, 422, "invalid_request", "state"),
        ("GET", "/v1/workspaces?after=abcdefghjk", {}, 422, "invalid_request", "after"),
        ("GET", "/v1/events?after=-1", {}, 422, "invalid_request", "after"),
        ("POST", "/v1/templates", {"json": {"name": "A B"}}, 422, "invalid_request", "name"),
        (
            "POST",
            "/v1/templates",
            {"json": {"name": "desktop"}},
            409,
            "template_exists",
            "built in",
        ),
    ],
)
async def test_a_wrong_request(
    http: httpx.AsyncClient,
    method: str,
    path: str,
    options: dict[str, Any],
    status: int,
    code: str,
    says: str,
) -> None:
    headers = {"Content-Type": "application/json"} if "content" in options else {}
    answer = await http.request(method, path, headers=headers, **options)
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), body
    assert says in body["message"] + body["hint"]
    assert set(body) <= {"code", "message", "hint", "details"}


@pytest.mark.parametrize(
    ("action", "code", "says"),
    [
        ({"type": "click", "x": 5000, "y": 1}, "off_screen", "1280x800"),
        ({"type": "click", "x": 1}, "invalid_request", "both x and y"),
        ({"type": "click", "button": "south"}, "invalid_request", "click.button: Input should be"),
        ({"type": "jump"}, "invalid_request", "'click'"),
        ({"x": 1}, "invalid_request", "type"),
        ([], "invalid_request", "at least 1"),
        ({"type": "drag", "path": [[0, "a"], [1, 1]]}, "invalid_request", "drag.path.0.1"),
        ([{"type": "move", "x": 1, "y": 1}, {"type": "move", "x": 1}], "invalid_request", "1.move"),
        ([{"type": "wait", "seconds": 0}] * 101, "invalid_request", "at most 100"),
        (7, "invalid_request", ""),
    ],
)
async def test_a_wrong_action(
    http: httpx.AsyncClient, action: object, code: str, says: str
) -> None:
    workspace = await claim(http)
    answer = await http.post(f"/v1/workspaces/{workspace['id']}/actions", json=action)
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
    assert says in answer.json()["message"]


async def test_a_region_is_whole_or_none(http: httpx.AsyncClient) -> None:
    base = f"/v1/workspaces/{(await claim(http))['id']}/screenshot"
    assert (await http.get(f"{base}?x=1&y=1")).json()["code"] == "invalid_request"
    assert (await http.get(f"{base}?scale=nan")).json()["code"] == "invalid_request"
    answer = await http.get(f"{base}?x=1&y=1&width=20&height=10&format=png")
    assert answer.headers["content-type"] == "image/png"


async def test_a_desktop_that_is_starting_or_has_ended(http: httpx.AsyncClient) -> None:
    await add_template(http, "slow", FAKE_START_SECONDS="30")
    workspace = await claim(http, template="slow", wait=False)
    base = f"/v1/workspaces/{workspace['id']}"
    answer = await http.get(f"{base}/screenshot")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_ready")
    await http.delete(base)
    answer = await http.get(f"{base}/screenshot")
    assert (answer.status_code, answer.json()["code"]) == (410, "workspace_ended")
    assert "was released at" in answer.json()["message"]


async def test_a_body_that_is_too_long(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(problems, "MAX_BODY_BYTES", 1000)

    async def endless() -> Any:  # Any: an asynchronous generator of bytes
        for _ in range(100):
            yield b" " * 100

    for content in (b" " * 2000, endless()):
        answer = await http.post(
            "/v1/workspaces", content=content, headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_a_defect_is_told_and_logged_under_one_reference(
    app: FastAPI,
    http: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken() -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(app.state.parts.cluster, "nodes", broken)
    with caplog.at_level(logging.ERROR):
        answer = await http.get("/v1/nodes")
    body = answer.json()
    assert (answer.status_code, body["code"]) == (500, "internal")
    assert "a secret" not in answer.text
    reference = body["hint"].split()[-1].rstrip(".")
    assert any(reference in record.message and record.exc_info for record in caplog.records)
