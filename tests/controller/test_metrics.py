"""The numbers: what Prometheus reads, whose labels are bounded, and what they cost."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Message, Receive, Scope, Send
from websockets.asyncio.client import connect

from controller.app import create_app
from controller.following import Following
from controller.metrics import Metrics
from controller.settings import Settings
from tests.controller.conftest import BEARER, LocalCluster, claim, client, serving
from tests.controller.upstream import upstream
from tests.serving import listening
from tests.waiting import eventually
from workspace.errors import BY_CODE

pytestmark = pytest.mark.anyio
ROUTE = "/v1/workspaces/{workspace_id}"


def read(text: str) -> Mapping[str, float]:
    """Every sample by its name and labels, as Prometheus would read the text."""
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    assert all(family.documentation for family in families)
    heads = [line.split()[:3] for line in text.splitlines() if line.startswith("#")]
    assert len({tuple(head) for head in heads}) == len(heads) == 2 * len(families)
    return {
        f"{sample.name}{sorted(sample.labels.items()) or ''}": sample.value
        for family in families
        for sample in family.samples
    }


async def numbers(http: httpx.AsyncClient) -> Mapping[str, float]:
    answer = await http.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return read(answer.text)


def name(of: str, **labels: str) -> str:
    return f"{of}{sorted(labels.items()) or ''}"


async def test_every_old_number_is_still_told(http: httpx.AsyncClient) -> None:
    told = await numbers(http)
    for each in (
        *(name("carrel_workspaces", state=state) for state in ("queued", "ready", "paused")),
        *(name("carrel_ended_total", state=state) for state in ("released", "failed")),
        "carrel_queue_waiting",
        "carrel_strays",
        *(
            f"{histogram}_{part}"
            for histogram in (
                "carrel_start_seconds",
                "carrel_queue_wait_seconds",
                "carrel_refill_seconds",
            )
            for part in ("sum", "count")
        ),
        name("carrel_queue_wait_seconds_bucket", le="300.0"),
        name("carrel_screens_open", role="view"),
        "process_resident_memory_bytes",
    ):
        assert each in told, each
    assert not [each for each in told if "_created" in each]


async def test_actions_pictures_errors_and_requests_are_counted(http: httpx.AsyncClient) -> None:
    base = f"/v1/workspaces/{(await claim(http))['id']}"
    click = {"type": "click", "x": 3, "y": 4}
    await http.post(f"{base}/actions", json=click)
    await http.post(f"{base}/actions", json=[click, {"type": "key", "chord": "a"}])
    framed = await http.post(f"{base}/actions?observe=frame", json={"type": "move", "x": 1, "y": 1})
    assert framed.json()["screenshot"] is not None
    picture = await http.get(f"{base}/screenshot")
    since = {"since": picture.headers["x-carrel-frame"]}
    assert (await http.get(f"{base}/screenshot", params=since)).status_code == 304
    assert (await http.post(f"{base}/actions", json={"type": "no"})).status_code == 422
    await http.put(f"{base}/files?path=a", content=b"12345")
    assert (await http.get(f"{base}/files?path=a")).content == b"12345"
    told = await numbers(http)
    acts = {"method": "POST", "route": f"{ROUTE}/actions"}
    for each, value in (
        (name("carrel_actions_total", type="click"), 2),
        (name("carrel_actions_total", type="key"), 1),
        (name("carrel_action_seconds_count", type="click"), 1),
        (name("carrel_action_seconds_count", type="batch"), 1),
        (name("carrel_action_seconds_bucket", type="move", le="60.0"), 1),
        (name("carrel_requests_total", **acts, status="200"), 3),
        (name("carrel_requests_total", **acts, status="422"), 1),
        (name("carrel_request_seconds_count", **acts), 4),
        (name("carrel_errors_total", code="invalid_request"), 1),
        (name("carrel_pictures_total", kind="frame"), 1),
        (name("carrel_pictures_total", kind="screenshot"), 1),
        (name("carrel_pictures_total", kind="unchanged"), 1),
        (name("carrel_picture_bytes_total", kind="screenshot"), len(picture.content)),
        (name("carrel_streamed_bytes_total", kind="file", direction="in"), 5),
        (name("carrel_streamed_bytes_total", kind="file", direction="out"), 5),
    ):
        assert told.get(each) == value, (each, told.get(each))
    assert told["carrel_events_total"] == told["carrel_event_group_size_sum"] > 4
    assert any(each.startswith("carrel_action_seconds_bucket") and "0.001" in each for each in told)


async def test_no_label_holds_what_a_caller_made_up(app: FastAPI, http: httpx.AsyncClient) -> None:
    before = set(await numbers(http))
    async with client(app) as anybody:
        for number in range(50):
            await http.get(f"/v1/workspaces/made{number:010}up")
            await http.get(f"/no/such/{number}?x={number}")
            await http.request(f"MADE{number}", "/v1/workspaces")
            await http.post(f"/v1/workspaces/made{number:010}up/actions", json={"type": "mad"})
            await anybody.get(f"/v1/made-up-{number}")
    told = await numbers(http)
    new = set(told) - before
    assert len(new) < 100, new
    assert not [each for each in new if "made" in each.lower() or "such" in each]
    codes = {each.split("'")[3] for each in told if each.startswith("carrel_errors_total")}
    assert codes <= set(BY_CODE)
    assert told[name("carrel_errors_total", code="workspace_not_found")] == 50
    lost = name("carrel_requests_total", method="other", route="none", status="405")
    assert told[lost] == 50


async def test_two_applications_share_no_numbers(tmp_path: Path, settings: Settings) -> None:
    for each in ("a", "b"):
        (tmp_path / each).mkdir()
    one = create_app(settings, LocalCluster(tmp_path / "a"))
    other_settings = settings.model_copy(update={"home": tmp_path / "h", "database_url": ""})
    other = create_app(other_settings, LocalCluster(tmp_path / "b"))
    async with serving(one) as first, serving(other) as second:
        await first.get("/v1/templates")
        asked = name("carrel_requests_total", method="GET", route="/v1/templates", status="200")
        assert (await numbers(first))[asked] == 1
        assert asked not in await numbers(second)


async def test_open_screens_are_counted_while_they_are(settings: Settings, short_dir: Path) -> None:
    async with upstream(short_dir) as (_, cluster):
        app = create_app(settings, cluster)
        async with serving(app) as http, listening(app) as port:
            made = await claim(http)
            base = f"ws://127.0.0.1:{port}/v1/workspaces/{made['id']}/vnc"

            async def are_open(view: int, control: int) -> bool:
                told = await numbers(http)
                found = [told[name("carrel_screens_open", role=r)] for r in ("view", "control")]
                return found == [view, control]

            dial = {"additional_headers": BEARER, "proxy": None, "compression": None}
            async with connect(f"{base}?role=view", **dial) as viewer:
                async with connect(f"{base}?role=control", **dial):
                    await eventually(lambda: are_open(1, 1))
                    await viewer.recv()
                await eventually(lambda: are_open(1, 0))
            await eventually(lambda: are_open(0, 0))
            told = await numbers(http)
    out = name("carrel_streamed_bytes_total", kind="screen", direction="out")
    assert told[out] == 2 * len(b"RFB 003.008\n")
    opened = {"method": "WEBSOCKET", "route": f"{ROUTE}/vnc", "status": "101"}
    assert told[name("carrel_requests_total", **opened)] == 2


async def test_only_a_key_reads_them(app: FastAPI, http: httpx.AsyncClient) -> None:
    async with client(app) as anybody:
        assert (await anybody.get("/metrics")).status_code == 401


async def test_following_a_request_takes_microseconds() -> None:
    class Route:
        path = f"{ROUTE}/actions"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = Route
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None: ...

    async def seconds(called: Following | None) -> float:
        times = []
        for _ in range(2000):
            scope = {"type": "http", "method": "POST", "path": "/x", "headers": []}
            began = time.perf_counter()
            await (called or app)(scope, receive, send)
            times.append(time.perf_counter() - began)
        return sorted(times)[len(times) // 2]

    took = await seconds(Following(app, Metrics(), is_traced=False)) - await seconds(None)
    assert took < 100e-6, f"{took * 1e6:.1f} us"


async def test_the_documents_name_what_is_told(http: httpx.AsyncClient) -> None:
    text = (Path(__file__).parents[2] / "docs/operators.md").read_text(encoding="utf-8")
    section = text[text.index("\n## Metrics\n") :].partition("\n## ")[2].partition("\n## ")[0]
    told = (await http.get("/metrics")).text
    known = {line.split()[2] for line in told.splitlines() if line.startswith("# TYPE")}
    known |= {f"{name}_bucket" for name in known}
    named = set(re.findall(r"\bcarrel_\w+", section))
    assert len(named) > 20
    assert named <= known, named - known
