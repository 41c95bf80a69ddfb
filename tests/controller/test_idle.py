"""Idle desktops: ended or paused once nobody uses or watches them, and not a moment before."""

from __future__ import annotations

import asyncio
import re
import time

import anyio
import httpx
import pytest
from fastapi import FastAPI

from controller.live import Live
from tests.controller.conftest import LocalCluster, claim
from tests.controller.test_lifecycle import becomes, kinds, nothing_lives
from tests.waiting import eventually
from workspace.backends.base import PauseResult
from workspace.desktop import Desktop
from workspace.errors import DesktopLost, Unsupported
from workspace.models import Health

pytestmark = pytest.mark.anyio
CLICK = {"type": "click", "x": 1, "y": 1}


def live_of(app: FastAPI, made: dict[str, object]) -> Live:
    live = app.state.parts.lifecycle.keeping.live[made["id"]]
    assert isinstance(live, Live)
    return live


async def test_nobody_uses_it_so_it_ends_and_says_so(
    http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    made = await claim(http, idle_seconds=1)
    assert (made["idle_seconds"], made["when_idle"]) == (1, "release")
    ended = await becomes(http, made["id"], "released")
    # One, or what it had become when a busy machine came to look.
    assert re.fullmatch("It was idle for [1-9] seconds.", ended["error"]["message"])
    gone = await http.post(f"/v1/workspaces/{made['id']}/actions", json=CLICK)
    assert gone.status_code == 410
    assert "idle for 1 seconds" in gone.json()["message"]
    await nothing_lives(cluster)

    async def told() -> bool:
        return await kinds(http, made["id"]) == ["claim", "ready", "idle", "released"]

    await eventually(told)


async def test_the_template_says_it_too_and_a_request_otherwise(http: httpx.AsyncClient) -> None:
    template = {"name": "short", "backend": "fake", "idle_seconds": 1, "when_idle": "pause"}
    assert (await http.post("/v1/templates", json=template)).status_code == 201
    made = await claim(http, template="short")
    kept = await claim(http, template="short", idle_seconds=500, when_idle="release")
    assert (kept["idle_seconds"], kept["when_idle"]) == (500, "release")
    await becomes(http, made["id"], "paused")
    listed = (await http.get("/v1/workspaces")).json()["workspaces"]
    assert {each["id"]: each["state"] for each in listed} == {
        made["id"]: "paused",
        kept["id"]: "ready",
    }


async def test_use_keeps_it_and_looking_after_it_does_not(http: httpx.AsyncClient) -> None:
    made = await claim(http, idle_seconds=3)  # by far more than a busy machine takes for one round
    other = await claim(http, idle_seconds=1)
    began = time.monotonic()
    state = "ready"
    while time.monotonic() - began < 3.5 or state == "ready":
        used = await http.post(f"/v1/workspaces/{made['id']}/actions", json=CLICK)
        assert used.status_code == 200
        for path in ("", "/health", "/stats", "/events", "/screenshot?scale=0.1&passive=true"):
            await http.get(f"/v1/workspaces/{other['id']}{path}")
        state = (await http.get(f"/v1/workspaces/{other['id']}")).json()["state"]
        assert time.monotonic() - began < 20, "looking after it kept it"
        await asyncio.sleep(0.1)
    assert state == "released"
    await becomes(http, made["id"], "released")


async def test_what_is_open_keeps_it(http: httpx.AsyncClient, cluster: LocalCluster) -> None:
    made = await claim(http, idle_seconds=1, when_idle="pause")
    wait = {"type": "wait", "seconds": 2.5}
    began = time.monotonic()
    held = await http.post(f"/v1/workspaces/{made['id']}/actions", json=wait)
    assert held.status_code == 200, "it was paused under it"
    assert time.monotonic() - began < 4
    assert cluster.turns == []
    await eventually(lambda: cluster.turns == ["pause"])


async def test_one_that_does_not_answer_is_not_idle(
    app: FastAPI, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.idling.ASK_AGAIN_SECONDS", 0.05)
    asked = 0
    health = Desktop.health

    async def broken(desktop: Desktop) -> Health:
        nonlocal asked
        asked += 1
        if asked < 5:
            raise DesktopLost("It does not answer.")
        return await health(desktop)

    monkeypatch.setattr(Desktop, "health", broken)
    made = await claim(http, idle_seconds=1)
    await eventually(lambda: asked == 4)
    assert live_of(app, made).end_state is None
    await becomes(http, made["id"], "released")


async def test_who_comes_while_it_is_about_to_be_paused_has_it(
    app: FastAPI,
    http: httpx.AsyncClient,
    cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("controller.idling.UNDER_WAY_SECONDS", 10)
    made = await claim(http, idle_seconds=1, when_idle="pause")
    await becomes(http, made["id"], "paused")  # said so, and not done yet
    with anyio.fail_after(5):
        used = await http.post(f"/v1/workspaces/{made['id']}/actions", json=CLICK)
    assert used.status_code == 200
    assert (await http.get(f"/v1/workspaces/{made['id']}")).json()["state"] == "ready"
    assert cluster.turns == []
    assert await kinds(http, made["id"]) == ["claim", "ready", "act"]


async def test_use_by_way_of_another_controller_counts(
    app: FastAPI,
    http: httpx.AsyncClient,
    cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is asked again right before, because others may have read that it was ready."""
    monkeypatch.setattr("controller.idling.UNDER_WAY_SECONDS", 0.3)
    made = await claim(http, idle_seconds=1, when_idle="pause")
    await becomes(http, made["id"], "paused")
    desktop = live_of(app, made).desktop
    assert desktop is not None
    await desktop.move(1, 1)  # as another one would, straight to it
    await becomes(http, made["id"], "ready")
    assert cluster.turns == []
    await eventually(lambda: cluster.turns == ["pause"])


async def test_one_that_cannot_be_paused_lives_on(
    app: FastAPI,
    http: httpx.AsyncClient,
    cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def cannot(_: str) -> PauseResult:
        cluster.turns.append("cannot")
        raise Unsupported("This node cannot pause desktops.")

    monkeypatch.setattr(cluster, "pause", cannot)
    made = await claim(http, idle_seconds=1, when_idle="pause")
    await eventually(lambda: cluster.turns == ["cannot"])
    await becomes(http, made["id"], "ready")
    used = await http.post(f"/v1/workspaces/{made['id']}/actions", json=CLICK)
    assert used.status_code == 200
    answer = await http.post(f"/v1/workspaces/{made['id']}/pause")
    assert (answer.status_code, answer.json()["code"]) == (501, "unsupported")
    assert (await http.get(f"/v1/workspaces/{made['id']}")).json()["state"] == "ready"


async def test_the_clock_starts_anew_after_a_pause(
    http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    made = await claim(http, idle_seconds=1, when_idle="pause")
    base = f"/v1/workspaces/{made['id']}"
    await eventually(lambda: cluster.turns == ["pause"])
    await asyncio.sleep(1.2)  # longer than it may be idle
    began = time.monotonic()
    assert (await http.post(f"{base}/resume")).json()["state"] == "ready"
    await eventually(lambda: cluster.turns == ["pause", "resume", "pause"])
    assert time.monotonic() - began >= 1
