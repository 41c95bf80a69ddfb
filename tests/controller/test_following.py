"""Every answer says which request it is of, and so does what is asked and logged on its behalf."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from controller.app import create_app
from controller.settings import Settings
from tests.controller.conftest import BEARER, claim, client, serving
from tests.controller.upstream import upstream
from tests.serving import listening
from workspace import logs

pytestmark = pytest.mark.anyio


class Lines(logging.Handler):
    """What was logged, as it would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.setFormatter(logs.Text("%(levelname)s %(name)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


@pytest.fixture
def lines() -> Iterator[list[str]]:
    own = Lines()
    logging.getLogger().addHandler(own)
    yield own.found
    logging.getLogger().removeHandler(own)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/templates", 200),
        ("GET", "/healthz", 200),
        ("GET", "/nothing", 404),
        ("PATCH", "/v1/workspaces", 405),
        ("POST", "/v1/workspaces", 422),
        ("GET", "/v1/workspaces/abcdefgh23", 404),
    ],
)
async def test_every_answer_names_its_request(
    http: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    named = await http.request(method, path, headers={"X-Request-Id": "mine-7"}, json=[])
    assert (named.status_code, named.headers["x-request-id"]) == (status, "mine-7")
    first, second = [await http.request(method, path, json=[]) for _ in range(2)]
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert len(first.headers["x-request-id"]) == 16
    evil = await http.request(method, path, headers={"X-Request-Id": "a\x1b[2J"}, json=[])
    assert len(evil.headers["x-request-id"]) == 16


async def test_who_is_refused_is_told_too(app: FastAPI, http: httpx.AsyncClient) -> None:
    async with client(app) as anybody:
        answer = await anybody.get("/v1/workspaces", headers={"X-Request-Id": "mine"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (401, "mine")
    async with listening(app) as port:
        with pytest.raises(InvalidStatus) as caught:
            async with connect(f"ws://127.0.0.1:{port}/v1/workspaces/abcdefgh23/vnc", proxy=None):
                pass
        assert len(caught.value.response.headers["x-request-id"]) == 16


async def test_a_defect_is_logged_with_its_request_and_workspace(
    app: FastAPI, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    made = await claim(http)

    async def defect(*_: object) -> None:
        raise RuntimeError("broken\n\x1b[2Jby us")

    monkeypatch.setattr(app.state.parts.lifecycle, "stats", defect)
    answer = await http.get(
        f"/v1/workspaces/{made['id']}/stats", headers={"X-Request-Id": "mine-9"}
    )
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine-9")
    (line,) = [line for line in lines if "failed (" in line]
    head, *trace = line.splitlines()
    assert f" [request=mine-9 workspace={made['id']}]: " in head
    assert all(part.startswith("    | ") for part in trace)
    assert "\x1b" not in line


async def test_what_a_workspace_does_by_itself_is_logged_as_its_own(
    app: FastAPI, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    made = await claim(http)

    async def stop(_: str) -> None:
        raise RuntimeError("it does not stop")

    monkeypatch.setattr(app.state.parts.cluster, "stop", stop)
    await http.delete(f"/v1/workspaces/{made['id']}", headers={"X-Request-Id": "mine"})
    (line,) = [line for line in lines if "stopping its sandbox failed" in line]
    assert f"[workspace={made['id']}]" in line
    monkeypatch.undo()
    await app.state.parts.cluster.stop(str(made["sandbox"]))


async def test_a_desktop_is_told_the_requests_id(settings: Settings, short_dir: Path) -> None:
    async with upstream(short_dir) as (there, cluster):
        app = create_app(settings, cluster)
        named = {"X-Request-Id": "mine-5"}
        async with serving(app) as http, listening(app) as port:
            made = await claim(http)
            base = f"/v1/workspaces/{made['id']}"
            await http.post(f"{base}/processes", json={"command": "true"}, headers=named)
            assert there.headers[-1]["x-request-id"] == "mine-5"
            assert "traceparent" not in there.headers[-1]
            own = {"additional_headers": BEARER | named, "proxy": None, "compression": None}
            async with connect(f"ws://127.0.0.1:{port}{base}/vnc?role=view", **own) as viewer:
                assert viewer.response.headers["x-request-id"] == "mine-5"
                await viewer.recv()
            assert there.headers[-1]["x-request-id"] == "mine-5"
