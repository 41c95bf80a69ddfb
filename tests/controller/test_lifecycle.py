"""From claim to end, and after a restart: one owner, one end, nothing left."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any  # JSON values

import anyio
import httpx
import pytest
from fastapi import FastAPI

from controller.app import create_app
from controller.settings import Settings
from controller.store import Store
from tests.controller.conftest import (
    BEARER,
    LocalCluster,
    add_template,
    both_databases,
    claim,
    client,
    keep,
    serving,
)
from tests.controller.upstream import upstream
from tests.serving import listening
from tests.waiting import eventually
from workspace.desktop import connect
from workspace.errors import Unavailable
from workspace.models import ErrorInfo, Screen, Template, Workspace

pytestmark = [pytest.mark.anyio, both_databases]


async def kinds(http: httpx.AsyncClient, workspace_id: object) -> list[str]:
    answer = await http.get(f"/v1/workspaces/{workspace_id}/events")
    return [event["kind"] for event in answer.json()["events"]]


async def becomes(http: httpx.AsyncClient, workspace_id: object, state: str) -> dict[str, Any]:
    """The workspace once it is in ``state``."""
    deadline = time.monotonic() + 5
    while True:
        workspace: dict[str, Any] = (await http.get(f"/v1/workspaces/{workspace_id}")).json()
        if workspace["state"] == state:
            return workspace
        assert time.monotonic() < deadline, workspace
        await asyncio.sleep(0.01)


async def nothing_lives(cluster: LocalCluster) -> None:
    deadline = time.monotonic() + 5
    while await cluster.backend.list() or cluster.live:
        assert time.monotonic() < deadline, "a sandbox is left"
        await asyncio.sleep(0.01)


async def test_a_claim_is_ready_to_act_and_a_release_is_the_end(
    http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    body = {"name": "mine", "metadata": {"team": "a"}, "ttl_seconds": 600}
    made = await claim(http, **body)
    assert re.fullmatch("[a-z0-9]{10}", str(made["id"]))
    assert (made["state"], made["name"], made["metadata"]) == ("ready", "mine", {"team": "a"})
    expires = datetime.fromisoformat(str(made["expires_at"]).replace("Z", "+00:00"))
    assert 590 < (expires - datetime.now(timezone.utc)).total_seconds() < 600
    base = f"/v1/workspaces/{made['id']}"
    acted = await http.post(f"{base}/actions", json={"type": "click", "x": 0, "y": 0})
    assert acted.json()["cursor"] == [0, 0]
    assert (await http.get(f"{base}/stats")).status_code == 200

    for _ in range(2):
        assert (await http.delete(base)).status_code == 204
    await nothing_lives(cluster)
    ended = (await http.get(base)).json()
    assert (ended["state"], ended["error"]) == ("released", None)
    assert ended["ended_at"] is not None
    assert await kinds(http, made["id"]) == ["claim", "ready", "act", "released"]


async def test_what_was_typed_is_not_in_the_log(http: httpx.AsyncClient) -> None:
    made = await claim(http)
    base = f"/v1/workspaces/{made['id']}"
    secrets = [{"type": "type", "text": "hunter2"}, {"type": "key", "chord": "q"}]
    await http.post(f"{base}/actions", json=secrets)
    (event,) = (await http.get(f"{base}/events?after=2")).json()["events"]
    assert event["data"] == {
        "actions": [{"type": "type", "length": 7}, {"type": "key"}],
        "seen": {"effect": "not_observed"},
    }
    failed = await http.post(f"{base}/actions", json={"type": "move", "x": 9000, "y": 1})
    (event,) = (await http.get(f"{base}/events?after={event['id']}")).json()["events"]
    assert event["data"]["error"] == failed.json()["code"] == "off_screen"


async def test_without_waiting_it_answers_at_once(
    http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    await add_template(http, "slow", FAKE_START_SECONDS="0.2")
    made = await claim(http, template="slow", wait=False)
    assert made["state"] == "starting"
    await eventually(lambda: str(made["id"]) in cluster.live)
    await becomes(http, made["id"], "ready")


async def test_a_start_is_waited_for_in_one_request(http: httpx.AsyncClient) -> None:
    await add_template(http, "slow", FAKE_START_SECONDS="0.3")
    await add_template(http, "bad", FAKE_START_ERROR="X did not start.")

    async def after(made: dict[str, object], seconds: float) -> dict[str, Any]:
        url = f"/v1/workspaces/{made['id']}?wait_seconds={seconds}"
        found: dict[str, Any] = (await http.get(url)).json()
        return found

    made = await claim(http, template="slow", wait=False)
    assert (await after(made, 0.01))["state"] == "starting"
    assert (await after(made, 10))["state"] == "ready"
    assert (await after(made, 10))["state"] == "ready", "and at once"
    failed = await after(await claim(http, template="bad", wait=False), 10)
    assert (failed["state"], failed["error"]["code"]) == ("failed", "start_failed")
    assert (await http.get("/v1/workspaces/none?wait_seconds=10")).status_code == 404
    assert (await http.get(f"/v1/workspaces/{made['id']}?wait_seconds=99")).status_code == 422


async def test_a_request_stands_in_place_of_the_template(http: httpx.AsyncClient) -> None:
    made = await claim(http, screen={"width": 1000, "dpi": 120}, theme="dark")
    assert made["screen"] == {"width": 1000, "height": 800, "dpi": 120}
    base = f"/v1/workspaces/{made['id']}"
    assert (await http.get(base)).json()["screen"] == made["screen"]
    changed = await http.post(f"{base}/screen", json={"height": 600})
    assert changed.json() == {"width": 1000, "height": 600, "dpi": 120}
    assert (await http.get(base)).json()["screen"] == changed.json()
    assert (await kinds(http, made["id"]))[-1] == "screen"
    refused = await http.post(f"{base}/screen", json={"height": 60})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    for wrong in ({"screen": {"width": 1}}, {"theme": "blue"}, {"locale": "de"}):
        answer = await http.post("/v1/workspaces", json=wrong)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_a_size_that_a_program_gives_the_screen_is_told(
    http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    made = await claim(http)
    inside = connect((await cluster.find())[made["id"]].endpoint)
    try:
        await inside.set_screen(1000, 700)
    finally:
        await inside.aclose()
    base = f"/v1/workspaces/{made['id']}"
    (await http.post(f"{base}/actions", json={"type": "wait", "seconds": 0})).raise_for_status()
    assert (await http.get(base)).json()["screen"] == {"width": 1000, "height": 700, "dpi": 96}


async def test_a_start_that_fails_says_why_and_leaves_nothing(
    http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    await add_template(http, "bad", FAKE_START_ERROR="X did not start.")
    answer = await http.post("/v1/workspaces", json={"template": "bad"})
    assert (answer.status_code, answer.json()["code"]) == (500, "start_failed")
    assert answer.json()["message"] == "X did not start."
    (row,) = (await http.get("/v1/workspaces?state=failed")).json()["workspaces"]
    assert row["error"]["code"] == "start_failed"
    await nothing_lives(cluster)
    gone = await http.get(f"/v1/workspaces/{row['id']}/screenshot")
    assert gone.status_code == 410
    assert "failed" in gone.json()["message"]
    assert "X did not start." in gone.json()["message"]


async def test_a_defect_in_a_start_fails_that_workspace_only(
    app: FastAPI, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = await claim(http)

    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(app.state.parts.cluster, "start", broken)
    answer = await http.post("/v1/workspaces", json={})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert (await http.get(f"/v1/workspaces/{mine['id']}")).json()["state"] == "ready"


async def test_set_up_commands_run_before_it_is_ready(settings: Settings, short_dir: Path) -> None:
    async with upstream(short_dir) as (there, cluster):
        async with serving(create_app(settings, cluster)) as http:
            await claim(http, setup=["one", "two"], environment={"A": "b"})
            assert there.seen == ['{"A":"b"}', "one", "two"]

            body = {"setup": ["one", "false", "never"]}
            answer = await http.post("/v1/workspaces", json=body)
            assert (answer.status_code, answer.json()["code"]) == (422, "setup_failed")
            assert "command 2 of 3" in answer.json()["message"]
            assert "exit code 3: said so" in answer.json()["message"]
            assert "never" not in there.seen
            (row,) = (await http.get("/v1/workspaces?state=failed")).json()["workspaces"]
            assert row["id"] in cluster.stopped


async def test_a_caller_that_goes_away_while_it_waits_leaves_nothing(
    app: FastAPI, http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    await add_template(http, "slow", FAKE_START_SECONDS="30")
    async with listening(app) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=BEARER) as caller:
            with pytest.raises(httpx.ReadTimeout):
                await caller.post("/v1/workspaces", json={"template": "slow"}, timeout=0.3)
        (made,) = (await http.get("/v1/workspaces?state=all")).json()["workspaces"]
        ended = await becomes(http, made["id"], "released")
    await nothing_lives(cluster)
    assert "went away" in ended["error"]["message"]


async def test_it_ends_at_its_deadline(http: httpx.AsyncClient, cluster: LocalCluster) -> None:
    made = await claim(http, ttl_seconds=2)
    await nothing_lives(cluster)
    base = f"/v1/workspaces/{made['id']}"
    ended = await becomes(http, made["id"], "released")
    assert ended["error"]["message"] == "Its time was up."
    late = await http.post(f"{base}/extend", json={"ttl_seconds": 5})
    assert (late.status_code, late.json()["code"]) == (410, "workspace_ended")


async def test_a_deadline_ends_a_start_too(http: httpx.AsyncClient, cluster: LocalCluster) -> None:
    await add_template(http, "slow", FAKE_START_SECONDS="30")
    answer = await http.post("/v1/workspaces", json={"template": "slow", "ttl_seconds": 0.2})
    assert (answer.status_code, answer.json()["code"]) == (410, "workspace_ended")
    await nothing_lives(cluster)


async def test_extending_moves_the_deadline_both_ways(
    http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    made = await claim(http, ttl_seconds=2)
    base = f"/v1/workspaces/{made['id']}"
    assert cluster.whose[str(made["id"])] == {"workspace": made["id"], "tenant": "default"}
    extended = await http.post(f"{base}/extend", json={"ttl_seconds": 600})
    assert extended.json()["expires_at"] > str(made["expires_at"])
    assert cluster.ttl[str(made["id"])] == 600
    await asyncio.sleep(2.2)  # the first deadline has passed
    assert (await http.get(base)).json()["state"] == "ready"
    await http.post(f"{base}/extend", json={"ttl_seconds": 0.05})
    await nothing_lives(cluster)


async def test_a_desktop_that_dies_is_said_to_have_failed(
    http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    made, other = await claim(http), await claim(http)
    await eventually(lambda: len(cluster.deaths) == 2)
    cluster.die(str(made["id"]), message="Its X server was killed.")
    base = f"/v1/workspaces/{made['id']}"
    ended = await becomes(http, made["id"], "failed")
    assert ended["error"]["code"] == "desktop_lost"
    answer = await http.get(f"{base}/screenshot")
    assert answer.json()["code"] == "workspace_ended"
    assert "failed" in answer.json()["message"]
    assert "Its X server was killed." in answer.json()["message"]
    assert (await http.get(f"/v1/workspaces/{other['id']}")).json()["state"] == "ready"


async def test_a_cluster_that_cannot_tell_is_asked_again(
    app: FastAPI, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.keeping.WATCH_AGAIN_SECONDS", 0.01)
    tries = 0

    async def ended(workspace_id: str) -> ErrorInfo:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise Unavailable("Ray does not answer.")
        return ErrorInfo(code="deadline_passed", message="It ran out.")

    monkeypatch.setattr(cluster, "ended", ended)
    async with serving(app) as http:
        made = await claim(http)
        await nothing_lives(cluster)
        await becomes(http, made["id"], "released")


async def test_an_end_goes_on_past_a_stop_that_fails(
    app: FastAPI, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stop(workspace_id: str) -> None:
        await cluster.backend.stop(workspace_id)
        raise ZeroDivisionError

    monkeypatch.setattr(cluster, "stop", stop)
    async with serving(app) as http:
        made = await claim(http)
        assert (await http.delete(f"/v1/workspaces/{made['id']}")).status_code == 204
        ended = (await http.get(f"/v1/workspaces/{made['id']}")).json()
        assert ended["state"] == "released"


async def test_many_claims_and_releases_at_once(
    http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    made = await asyncio.gather(*(claim(http) for _ in range(8)))
    assert len({each["id"] for each in made}) == 8
    twice = [http.delete(f"/v1/workspaces/{each['id']}") for each in made for _ in range(2)]
    assert {answer.status_code for answer in await asyncio.gather(*twice)} == {204}
    await nothing_lives(cluster)
    for each in made:
        assert (await kinds(http, each["id"])).count("released") == 1


async def test_the_lists_come_in_pages(http: httpx.AsyncClient) -> None:
    made = [str((await claim(http, wait=False))["id"]) for _ in range(5)]
    assert (await http.delete(f"/v1/workspaces/{made[0]}")).status_code == 204
    pages: list[list[str]] = []
    after = ""
    while after is not None:
        query = f"?limit=2&after={after}" if after else "?limit=2"
        page = (await http.get(f"/v1/workspaces{query}")).json()
        pages.append([each["id"] for each in page["workspaces"]])
        after = page["after"]
    assert [len(page) for page in pages] == [2, 2, 0]
    assert [each for page in pages for each in page] == made[:0:-1]
    everything = (await http.get("/v1/workspaces?state=all")).json()["workspaces"]
    assert [each["id"] for each in everything] == made[::-1]
    one = (await http.get("/v1/workspaces?state=released")).json()["workspaces"]
    assert [each["id"] for each in one] == made[:1], everything

    first = (await http.get("/v1/events?limit=3")).json()
    second = (await http.get(f"/v1/events?limit=1000&after={first['after']}")).json()
    ids = [event["id"] for event in first["events"] + second["events"]]
    assert ids == sorted(set(ids))
    assert len(first["events"]) == 3


async def test_shutting_down_releases_everything_at_once(
    settings: Settings, cluster: LocalCluster
) -> None:
    app = create_app(settings, cluster)
    async with serving(app) as http:
        await add_template(http, "slow", FAKE_START_SECONDS="30")
        await add_template(http, "stubborn", FAKE_STOP_SECONDS="0.3")
        for _ in range(3):
            await claim(http, template="stubborn")
        await claim(http, template="slow", wait=False)
        began = time.monotonic()
    assert time.monotonic() - began < 0.8  # not one after the other
    await nothing_lives(cluster)
    async with serving(create_app(settings, cluster)) as http:
        page = (await http.get("/v1/workspaces?state=all")).json()["workspaces"]
        assert {each["state"] for each in page} == {"released"}
        assert "shut down" in page[0]["error"]["message"]


async def test_a_restarted_controller_finds_its_desktops_again(
    settings: Settings, cluster: LocalCluster
) -> None:
    """The first one is not shut down: its store and its cluster are as after a SIGKILL."""
    now = datetime.now(timezone.utc)

    def row(workspace_id: str, state: str, seconds: float = 600) -> Workspace:
        return Workspace.model_validate(
            {
                "id": workspace_id,
                "sandbox": workspace_id,
                "state": state,
                "template": "desktop",
                "screen": Screen(),
                "created_at": now,
                "expires_at": now + timedelta(seconds=seconds),
            }
        )

    template = Template(name="desktop")
    for workspace_id in ("alive22222", "halfmade22", "leaving222", "stray22222", "late222222"):
        await cluster.start(workspace_id, template, ttl_seconds=600, timeout_seconds=5)
    cluster.live["late222222"] = cluster.live["late222222"]._replace(remaining_seconds=-5)
    settings.home.mkdir(mode=0o700)
    store = Store(settings.database)
    async with store.run():
        for workspace in (
            row("alive22222", "ready"),
            row("halfmade22", "starting"),
            row("leaving222", "releasing"),
            row("late222222", "ready", seconds=-5),
            row("vanished22", "ready"),
            row("neverwas22", "starting"),
        ):
            await keep(store, workspace, owner="admin")

    async with serving(create_app(settings, cluster)) as http:
        await eventually(lambda: set(cluster.live) == {"alive22222"})
        base = "/v1/workspaces/alive22222"
        acted = await http.post(f"{base}/actions", json={"type": "move", "x": 3, "y": 4})
        assert acted.json()["cursor"] == [3, 4]
        for each in ("neverwas22", "vanished22", "halfmade22"):
            await becomes(http, each, "failed")
        for each in ("late222222", "leaving222"):
            await becomes(http, each, "released")
        page = (await http.get("/v1/workspaces?state=all")).json()["workspaces"]
        states = {each["id"]: each["state"] for each in page}
        assert states == {
            "alive22222": "ready",
            "halfmade22": "failed",
            "leaving222": "released",
            "late222222": "released",
            "vanished22": "failed",
            "neverwas22": "failed",
        }
        reasons = {each["id"]: each["error"]["message"] for each in page if each["error"]}
        assert "while it was starting" in reasons["halfmade22"]
        assert "gone when a controller looked after it" in reasons["vanished22"]
        events = (await http.get("/v1/events")).json()["events"]
        assert "stray22222" in {e["workspace_id"] for e in events if e["kind"] == "stray"}
        await http.delete(base)
    await nothing_lives(cluster)


async def test_readiness_says_what_is_missing(
    app: FastAPI, http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    async with client(app) as probe:
        assert (await probe.get("/readyz", headers={"Host": "10.0.0.7"})).json() == {"ready": True}
        cluster.is_down = True
        answer = await probe.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert "cluster" in answer.json()["message"]
        assert (await probe.get("/healthz")).status_code == 200


async def test_the_numbers(http: httpx.AsyncClient) -> None:
    made = await claim(http)
    await claim(http)
    await http.delete(f"/v1/workspaces/{made['id']}")
    text = (await http.get("/metrics")).text
    for line in (
        'carrel_workspaces{state="ready"} 1.0',
        'carrel_claims_total{how="cold",template="desktop"} 2.0',
        "carrel_queue_waiting 0.0",
        'carrel_ended_total{state="released"} 1.0',
        'carrel_start_seconds_bucket{le="+Inf"} 2.0',
        "carrel_start_seconds_count 2.0",
    ):
        assert line in text.splitlines()


async def test_a_release_that_is_waited_for_may_be_given_up(
    app: FastAPI, http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    await add_template(http, "stubborn", FAKE_STOP_SECONDS="0.3")
    made = await claim(http, template="stubborn")
    with anyio.move_on_after(0.05):
        await app.state.parts.lifecycle.release(made["id"], actor="admin")
    await nothing_lives(cluster)  # its owner went on


async def test_a_claim_that_cannot_be_written_starts_nothing(
    app: FastAPI, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object, **__: object) -> None:
        raise Unavailable("The disk is full.")

    async with serving(app) as http:
        monkeypatch.setattr(app.state.parts.lifecycle._claims, "do", full)
        for wait in (True, False):
            answer = await http.post("/v1/workspaces", json={"wait": wait})
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert cluster.ttl == {}
        await eventually(lambda: not any(app.state.parts.lifecycle.states().values()))


async def test_an_end_that_cannot_be_written_is_told_and_written_later(
    app: FastAPI, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = app.state.parts.store

    async def full(*_: object, **__: object) -> None:
        raise Unavailable("The disk is full.")

    made = str((await claim(http))["id"])
    monkeypatch.setattr("controller.keeping.WRITE_AGAIN_SECONDS", 0.05)
    with monkeypatch.context() as patch:
        patch.setattr(store, "save", full)
        assert (await http.delete(f"/v1/workspaces/{made}")).status_code == 204
        assert (await http.get(f"/v1/workspaces/{made}")).json()["state"] == "released"
        assert (await http.get(f"/v1/workspaces/{made}/screenshot")).status_code == 410
        assert (await store.get(made)).state == "ready"
    deadline = time.monotonic() + 5
    while (await store.get(made)).state != "released":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
