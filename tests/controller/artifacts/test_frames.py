"""Frames before and after actions: which are kept, what the event says, and what it may cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from controller.app import create_app
from controller.artifacts import frames as module
from controller.settings import Settings
from tests.controller.conftest import LocalCluster, add_template, claim, serving
from tests.s3 import Server, between
from workspace.testing import FakeDesktop

pytestmark = pytest.mark.anyio
CLICK = {"type": "click", "x": 5, "y": 5}


@pytest.fixture
async def http(settings: Settings, cluster: LocalCluster) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(create_app(settings, cluster)) as http:
        await add_template(http, "t")
        yield http


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ways in which fake desktops are looked at; each click makes the screen a pixel wider."""
    seen: list[str] = []
    screenshot, play = FakeDesktop._screenshot, FakeDesktop._play

    async def looking(self: FakeDesktop, request: Any) -> Any:
        answer = await screenshot(self, request)
        seen.append("same" if answer.status_code == 304 else "new")
        return answer

    def playing(self: FakeDesktop, action: Any, index: int) -> None:
        play(self, action, index)
        if action.type == "click":
            width = self.screen.width + 1
            self.screen = self.screen.model_copy(update={"width": width})

    monkeypatch.setattr(FakeDesktop, "_screenshot", looking)
    monkeypatch.setattr(FakeDesktop, "_play", playing)
    return seen


async def act(http: httpx.AsyncClient, workspace_id: object, *actions: object) -> httpx.Response:
    return await http.post(f"/v1/workspaces/{workspace_id}/actions", json=list(actions))


async def told(http: httpx.AsyncClient, workspace_id: object) -> list[Any]:
    """What the events say of frames, in their order."""
    answer = await http.get(f"/v1/workspaces/{workspace_id}/events")
    events = answer.json()["events"]
    return [event["data"].get("frames") for event in events if event["kind"] == "act"]


async def kept(http: httpx.AsyncClient, workspace_id: object) -> list[dict[str, Any]]:
    answer = await http.get(f"/v1/workspaces/{workspace_id}/artifacts", params={"kind": "frame"})
    found = answer.json()["artifacts"]
    assert isinstance(found, list)
    return found


async def test_none_are_kept_unless_it_is_asked_for(
    http: httpx.AsyncClient, looks: list[str]
) -> None:
    made = await claim(http, template="t")
    assert made["keep_frames"] == "none"
    assert (await act(http, made["id"], CLICK)).status_code == 200
    assert await told(http, made["id"]) == [None]
    assert looks == []


async def test_the_event_names_them_and_they_are_pictures(
    http: httpx.AsyncClient, looks: list[str]
) -> None:
    made = await claim(http, template="t", keep_frames="all")
    for _ in range(2):
        assert (await act(http, made["id"], CLICK)).status_code == 200
    first, second = await told(http, made["id"])
    assert first["after"] == second["before"]  # one frame, kept once
    assert (
        len({first["before"]["digest"], first["after"]["digest"], second["after"]["digest"]}) == 3
    )
    assert looks == ["new", "new", "same", "new"]
    frames = await kept(http, made["id"])
    assert [each["id"] for each in frames] == [
        first["before"]["artifact"],
        first["after"]["artifact"],
        second["after"]["artifact"],
    ]
    assert [each["meta"]["width"] for each in frames] == [1280, 1281, 1282]
    await http.delete(f"/v1/workspaces/{made['id']}")
    shown = await http.get(f"/v1/artifacts/{frames[0]['id']}")
    assert shown.headers["content-type"] == "image/jpeg"
    assert "content-disposition" not in shown.headers
    assert shown.headers["x-content-type-options"] == "nosniff"
    assert shown.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert shown.content.startswith(b"\xff\xd8\xff")


async def test_only_changes_if_only_they_are_asked_for(
    http: httpx.AsyncClient, looks: list[str]
) -> None:
    made = await claim(http, template="t", keep_frames="changed")
    await act(http, made["id"], {"type": "move", "x": 1, "y": 1})
    assert await kept(http, made["id"]) == []
    await act(http, made["id"], CLICK)
    still, changed = await told(http, made["id"])
    assert still == {"changed": False}
    assert len(await kept(http, made["id"])) == 2
    assert set(changed) == {"before", "after"}


async def test_a_template_asks_for_them(
    settings: Settings, cluster: LocalCluster, http: httpx.AsyncClient
) -> None:
    body = {"name": "audited", "backend": "fake", "keep_frames": "all"}
    (await http.post("/v1/templates", json=body)).raise_for_status()
    assert (await claim(http, template="audited"))["keep_frames"] == "all"
    assert (await claim(http, template="audited", keep_frames="none"))["keep_frames"] == "none"
    answer = await http.post("/v1/workspaces", json={"template": "t", "keep_frames": "some"})
    assert answer.status_code == 422


async def test_an_action_that_fails_has_them_too(http: httpx.AsyncClient, looks: list[str]) -> None:
    made = await claim(http, template="t", keep_frames="all")
    answer = await act(http, made["id"], CLICK, {"type": "click", "x": 9999, "y": 0})
    assert answer.json()["code"] == "off_screen"
    (frames,) = await told(http, made["id"])
    assert frames["before"]["digest"] != frames["after"]["digest"]


async def test_a_frame_that_is_a_lie_is_no_picture(
    http: httpx.AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a desktop hands out as a picture, and is none, is only ever an attachment."""
    html = b"<html><script>alert(1)</script></html>"
    monkeypatch.setattr("workspace.testing._encoded", lambda _format, _size: html)
    made = await claim(http, template="t", keep_frames="all")
    await act(http, made["id"], CLICK)
    (frame,) = await kept(http, made["id"])
    got = await http.get(f"/v1/artifacts/{frame['id']}")
    assert got.content == html
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["content-disposition"].startswith("attachment")


@asynccontextmanager
async def in_s3(settings: Settings, cluster: LocalCluster, url: str, bucket: str) -> Any:
    changes = {"artifacts": f"s3://{bucket}", "artifact_endpoint": url}
    async with serving(create_app(settings.model_copy(update=changes), cluster)) as http:
        await add_template(http, "t")
        yield http


async def test_a_slow_s3_holds_no_action_up_for_long(
    settings: Settings,
    cluster: LocalCluster,
    s3: Server,
    credentials: None,
    looks: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "KEEP_SECONDS", 0.5)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 1.0)
    bucket = s3.bucket()
    async with between(s3.url) as way, in_s3(settings, cluster, way.url, bucket) as http:
        made = await claim(http, template="t", keep_frames="all")
        way.delay = 30
        began = time.monotonic()
        assert (await act(http, made["id"], CLICK)).status_code == 200
        assert time.monotonic() - began < 3
        began = time.monotonic()
        assert (await act(http, made["id"], CLICK)).status_code == 200
        assert time.monotonic() - began < 0.4  # nobody waits for it again so soon
        way.delay = 0
        monkeypatch.setattr(module, "KEEP_SECONDS", 4.0)  # as it is
        await asyncio.sleep(1.0)
        assert (await act(http, made["id"], CLICK)).status_code == 200
        slow, paused, well = await told(http, made["id"])
        assert slow["not_kept"] == "it took too long"
        assert "a moment ago" in paused["not_kept"]
        assert set(well) == {"before", "after"}
    assert len(s3.keys(bucket)) >= 2


async def test_an_s3_that_is_away_is_told(
    settings: Settings, cluster: LocalCluster, s3: Server, credentials: None, looks: list[str]
) -> None:
    bucket = s3.bucket()
    async with between(s3.url) as way, in_s3(settings, cluster, way.url, bucket) as http:
        made = await claim(http, template="t", keep_frames="all")
        way.cut()
        assert (await act(http, made["id"], CLICK)).status_code == 200
        (frames,) = await told(http, made["id"])
        assert f"s3://{bucket}" in frames["not_kept"]
