"""Pausing and resuming: by whoever asks, by the next use, by any controller, and never lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI

from controller.app import create_app
from controller.settings import Settings
from tests.controller.conftest import LocalCluster, claim, on_postgres, serving
from tests.controller.test_lifecycle import becomes, kinds, nothing_lives
from tests.waiting import eventually
from workspace.backends.base import PauseResult
from workspace.errors import Unavailable

pytestmark = pytest.mark.anyio
CLICK = {"type": "click", "x": 1, "y": 1}


async def state(http: httpx.AsyncClient, made: dict[str, object]) -> str:
    return str((await http.get(f"/v1/workspaces/{made['id']}")).json()["state"])


@pytest.fixture
async def paused(http: httpx.AsyncClient, cluster: LocalCluster) -> dict[str, object]:
    made = await claim(http)
    answer = await http.post(f"/v1/workspaces/{made['id']}/pause")
    assert (answer.status_code, answer.json()["state"]) == (200, "paused")
    assert cluster.paused == {made["id"]}
    return made


async def test_paused_and_resumed_as_asked(
    http: httpx.AsyncClient, cluster: LocalCluster, paused: dict[str, object]
) -> None:
    base = f"/v1/workspaces/{paused['id']}"
    assert (await http.post(f"{base}/pause")).json()["state"] == "paused"
    for _ in range(2):
        assert (await http.post(f"{base}/resume")).json()["state"] == "ready"
    assert cluster.turns == ["pause", "resume"]
    assert await kinds(http, paused["id"]) == ["claim", "ready", "pause", "resume"]
    events = (await http.get(f"{base}/events")).json()["events"]
    assert {event["actor"] for event in events[2:]} == {"admin"}


async def test_the_next_use_resumes_it_once_however_many_come(
    http: httpx.AsyncClient, cluster: LocalCluster, paused: dict[str, object]
) -> None:
    base = f"/v1/workspaces/{paused['id']}"
    used = [http.post(f"{base}/actions", json=CLICK) for _ in range(8)]
    answers = await asyncio.gather(*used, http.get(f"{base}/screenshot"))
    assert {answer.status_code for answer in answers} == {200}
    assert cluster.turns == ["pause", "resume"]
    assert await state(http, paused) == "ready"
    assert (await kinds(http, paused["id"])).count("resume") == 1


async def test_what_looks_after_it_leaves_it_paused(
    http: httpx.AsyncClient, cluster: LocalCluster, paused: dict[str, object]
) -> None:
    base = f"/v1/workspaces/{paused['id']}"
    for path in ("", "/stats", "/events"):
        assert (await http.get(base + path)).status_code == 200
    assert (await http.post(f"{base}/extend", json={"ttl_seconds": 900})).status_code == 200
    for path in ("/health", "/screenshot?passive=true"):
        answer = await http.get(base + path)
        assert (answer.status_code, answer.json()["code"]) == (409, "not_ready")
        assert "is paused" in answer.json()["message"]
    assert paused["id"] in {
        each["id"] for each in (await http.get("/v1/workspaces")).json()["workspaces"]
    }
    assert cluster.paused == {paused["id"]}
    assert 'carrel_workspaces{state="paused"} 1.0' in (await http.get("/metrics")).text


async def test_its_time_goes_on_and_it_can_be_released(
    http: httpx.AsyncClient, cluster: LocalCluster, paused: dict[str, object]
) -> None:
    short = await claim(http, ttl_seconds=1)
    await http.post(f"/v1/workspaces/{short['id']}/pause")
    ended = await becomes(http, short["id"], "released")
    assert ended["error"]["message"] == "Its time was up."
    assert (await http.delete(f"/v1/workspaces/{paused['id']}")).status_code == 204
    await nothing_lives(cluster)
    for verb in ("pause", "resume"):
        answer = await http.post(f"/v1/workspaces/{paused['id']}/{verb}")
        assert (answer.status_code, answer.json()["code"]) == (410, "workspace_ended")
        assert (await http.post(f"/v1/workspaces/none/{verb}")).status_code == 404


async def test_one_that_starts_cannot_be_paused(http: httpx.AsyncClient) -> None:
    body = {"name": "slow", "backend": "fake", "environment": {"FAKE_START_SECONDS": "30"}}
    await http.post("/v1/templates", json=body)
    made = await claim(http, template="slow", wait=False)
    for verb in ("pause", "resume"):
        answer = await http.post(f"/v1/workspaces/{made['id']}/{verb}")
        assert (answer.status_code, answer.json()["code"]) == (409, "not_ready")


async def test_a_pause_that_fails_leaves_it_running(
    http: httpx.AsyncClient, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await claim(http)

    async def half_done(sandbox: str) -> PauseResult:
        await cluster.backend.pause(sandbox)  # nobody can tell
        raise Unavailable("It did not answer.")

    monkeypatch.setattr(cluster, "pause", half_done)
    answer = await http.post(f"/v1/workspaces/{made['id']}/pause")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    used = await http.post(f"/v1/workspaces/{made['id']}/actions", json=CLICK)
    assert (used.status_code, await state(http, made)) == (200, "ready")
    assert cluster.turns == ["resume"]


async def test_a_resume_that_fails_is_said_and_tried_again(
    http: httpx.AsyncClient,
    cluster: LocalCluster,
    paused: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fails(_: str) -> None:
        raise Unavailable("It did not answer.")

    base = f"/v1/workspaces/{paused['id']}"
    with monkeypatch.context() as broken:
        broken.setattr(cluster, "resume", fails)
        assert (await http.post(f"{base}/actions", json=CLICK)).status_code == 503
        assert await state(http, paused) == "paused"
    assert (await http.post(f"{base}/actions", json=CLICK)).status_code == 200


@pytest.mark.parametrize("is_told", [True, False])
async def test_a_pause_that_takes_long_gives_way(
    http: httpx.AsyncClient,
    cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
    is_told: bool,
) -> None:
    """While memory is taken back it stands still already; and calls may pass each other."""
    made = await claim(http)
    goes_on = asyncio.Event()
    stands = asyncio.Event()
    resume = cluster.resume

    async def slow(sandbox: str) -> PauseResult:
        stands.set()
        await goes_on.wait()
        if is_told:
            raise Unavailable("It was resumed meanwhile.")
        return await cluster.backend.pause(sandbox)  # only now: the resume came first

    async def resumed(sandbox: str) -> None:
        await resume(sandbox)
        goes_on.set()

    monkeypatch.setattr(cluster, "pause", slow)
    monkeypatch.setattr(cluster, "resume", resumed)
    pausing = asyncio.ensure_future(http.post(f"/v1/workspaces/{made['id']}/pause"))
    await stands.wait()
    used = await http.post(f"/v1/workspaces/{made['id']}/actions", json=CLICK)
    assert (used.status_code, await state(http, made)) == (200, "ready")
    assert (await pausing).status_code == 200
    turns = [] if is_told else ["pause", "resume"]
    assert await kinds(http, made["id"]) == ["claim", "ready", *turns, "act"]


async def test_a_restarted_controller_finds_it_paused(
    settings: Settings, cluster: LocalCluster
) -> None:
    settings = settings.model_copy(update={"ray_address": "elsewhere:1"})  # desktops live on
    async with serving(create_app(settings, cluster)) as http:
        made = await claim(http, idle_seconds=600)
        await http.post(f"/v1/workspaces/{made['id']}/pause")
    async with serving(create_app(settings, cluster)) as http:
        assert await state(http, made) == "paused"
        assert cluster.turns == ["pause"]
        used = await http.post(f"/v1/workspaces/{made['id']}/actions", json=CLICK)
        assert (used.status_code, await state(http, made)) == (200, "ready")
        await http.delete(f"/v1/workspaces/{made['id']}")


@asynccontextmanager
async def two(
    settings: Settings, cluster: LocalCluster
) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    def app(name: str) -> FastAPI:
        return create_app(settings.model_copy(update={"replica": name}), cluster)

    async with serving(app("a")) as one, serving(app("b")) as other:
        yield one, other


@on_postgres
async def test_any_controller_pauses_and_resumes(settings: Settings, cluster: LocalCluster) -> None:
    async with two(settings, cluster) as (one, other):
        made = await claim(one)
        base = f"/v1/workspaces/{made['id']}"
        assert (await one.post(f"{base}/pause")).json()["state"] == "paused"
        assert await state(other, made) == "paused"
        used = await asyncio.gather(*(other.post(f"{base}/actions", json=CLICK) for _ in range(5)))
        assert {answer.status_code for answer in used} == {200}
        assert cluster.turns == ["pause", "resume"]

        # Who kept it before uses it as before, and so it does while it is paused by the other.
        assert (await one.post(f"{base}/actions", json=CLICK)).status_code == 200
        assert (await other.post(f"{base}/pause")).json()["state"] == "paused"

        async def both_say(state_now: str) -> bool:
            return await state(one, made) == await state(other, made) == state_now

        await eventually(lambda: both_say("paused"))
        assert (await one.post(f"{base}/actions", json=CLICK)).status_code == 200
        assert cluster.paused == set()
        await eventually(lambda: both_say("ready"))
        assert (await one.post(f"{base}/pause")).json()["state"] == "paused"
        assert (await other.delete(base)).status_code == 204
    await nothing_lives(cluster)
