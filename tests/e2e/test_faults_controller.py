"""One controller with a Ray of its own, which is killed: what was acknowledged is kept."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any  # JSON values

import httpx
import pytest

from controller.settings import Settings
from ray_cluster.keeper import RunDir
from tests.chaos.fleet import Controller, carrel, embedded_actors, ray_of
from tests.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]
Json = dict[str, Any]  # Any: JSON values

CLAIMS = 50
SLOTS = 5


@pytest.fixture(scope="module")
def controller() -> Iterator[Controller]:
    with TemporaryDirectory(prefix="c-faults-") as home:
        running = Controller(Path(home), "the-key", {"CARREL_DESKTOPS": str(SLOTS)})
        running.start()
        yield running
        running.clear()


@pytest.fixture
async def http(controller: Controller) -> AsyncIterator[httpx.AsyncClient]:
    if not controller.is_alive:
        await asyncio.to_thread(controller.start)
    async with controller.client() as client:
        yield client
        for each in await live(client):
            await client.delete(f"/v1/workspaces/{each['id']}")
        await eventually(lambda: not embedded_actors(controller))


async def live(http: httpx.AsyncClient) -> list[Json]:
    found: list[Json] = (await http.get("/v1/workspaces?limit=100")).json()["workspaces"]
    return found


async def works(http: httpx.AsyncClient, workspace_id: str) -> bool:
    answer = await http.get(f"/v1/workspaces/{workspace_id}/screenshot")
    return answer.status_code == 200 and answer.content.startswith(b"\xff\xd8")


async def end_of(http: httpx.AsyncClient, workspace_id: str) -> Json:
    found: Json = {}

    async def has_ended() -> bool:
        with suppress(httpx.TransportError):  # while it starts anew
            found.update((await http.get(f"/v1/workspaces/{workspace_id}")).json())
        return found.get("ended_at") is not None

    await eventually(has_ended, 60)
    return found


async def all_ready(http: httpx.AsyncClient) -> bool:
    return all(each["state"] == "ready" for each in await live(http))


async def claims(http: httpx.AsyncClient) -> bool:
    """Whether a claim gets a desktop that can be used; what fails fails clearly."""
    try:
        answer = await http.post("/v1/workspaces", json={"template": "light"})
    except httpx.TransportError:
        return False
    if answer.status_code == 201:
        return await works(http, answer.json()["id"])
    codes = ("unavailable", "start_failed", "desktop_lost", "workspace_ended")
    assert answer.json()["code"] in codes, answer.text
    return False


def controller_pid(controller: Controller) -> int:
    """Whose lock says that it serves."""
    return int(RunDir(Settings(home=controller.home).sockets).controller_lock.read_text())


async def all_events(http: httpx.AsyncClient) -> list[Json]:
    events: list[Json] = []
    while page := (await http.get(f"/v1/events?limit=1000&after={last(events)}")).json()["events"]:
        events += page
    return events


def last(events: list[Json]) -> int:
    return int(events[-1]["id"]) if events else 0


async def test_killed_in_the_middle_of_fifty_claims_it_loses_nothing_it_said(
    controller: Controller, http: httpx.AsyncClient
) -> None:
    claimed: dict[int, Json] = {}
    acted: Counter[str] = Counter()

    async def claim(n: int) -> None:
        body = {"template": "light", "key": f"k{n}", "wait": n % 2 == 0}
        answer = await http.post("/v1/workspaces", json=body)
        assert answer.status_code == 201, answer.text
        claimed[n] = made = answer.json()
        while made["state"] == "ready":
            actions = f"/v1/workspaces/{made['id']}/actions"
            done = await http.post(actions, json={"type": "move", "x": 5, "y": 6})
            if done.status_code == 200:
                acted[made["id"]] += 1

    claiming = [asyncio.create_task(claim(n)) for n in range(CLAIMS)]
    await eventually(lambda: len(acted) >= 2 and sum(acted.values()) > 50, 120)
    controller.tell(signal.SIGKILL)
    for broken in await asyncio.gather(*claiming, return_exceptions=True):
        assert broken is None or isinstance(broken, httpx.TransportError), repr(broken)
    controller.end()
    ready = {each["id"] for each in claimed.values() if each["state"] == "ready"}
    said = {each["id"] for each in claimed.values()}

    started = await asyncio.to_thread(controller.start)
    served = time.monotonic()
    assert all(await asyncio.gather(*(works(http, each) for each in ready)))
    found = time.monotonic() - served
    print(
        f"\n{len(said)} claims acknowledged, {len(ready)} of them ready, {sum(acted.values())} acts"
    )
    print(f"serving {started:.2f} s after it was started; all desktops {found:.2f} s later")
    assert started + found < 30

    await eventually(lambda: all_ready(http), 60)
    known = {each["id"]: each for each in await live(http)}
    assert ready <= set(known)
    assert len({each["sandbox"] for each in known.values()}) == len(known)
    await eventually(lambda: len(embedded_actors(controller)) == len(known))
    for each in said - set(known):
        ended = await end_of(http, each)
        assert ended["state"] == "failed"
        assert "controller" in ended["error"]["message"]
    events = await all_events(http)
    told = Counter((each["workspace_id"], each["kind"]) for each in events)
    assert all(told[each, "claim"] == 1 for each in said)
    assert all(told[each, "act"] >= count for each, count in acted.items())
    # Asked again by the same key, a claim is what it was, though its answer never came.
    for n, made in claimed.items():
        again = await http.post("/v1/workspaces", json={"template": "light", "key": f"k{n}"})
        if made["id"] in known:
            assert (again.status_code, again.json()["id"]) == (201, made["id"])
        else:
            assert (again.status_code, again.json()["code"]) == (410, "workspace_ended")


async def test_when_ray_dies_its_desktops_have_failed_and_the_next_are_started(
    controller: Controller, http: httpx.AsyncClient
) -> None:
    made = (await http.post("/v1/workspaces", json={"template": "light"})).json()
    assert controller.process is not None, "it runs"
    process = controller.process.pid
    for head in ray_of(controller).children(recursive=True):
        if head.name() == "gcs_server":
            head.kill()
    began = time.monotonic()
    ended = await end_of(http, made["id"])
    told = time.monotonic() - began
    assert (ended["state"], ended["error"]["code"]) == ("failed", "desktop_lost")
    assert "Ray died" in ended["error"]["message"]
    await eventually(lambda: claims(http), 90)
    print(f"\nthe end was told after {told:.1f} s, the next claim {time.monotonic() - began:.1f} s")
    assert controller.process.poll() is None
    assert controller.process.pid == process
    assert controller_pid(controller) == process
    kinds = [each["kind"] for each in await all_events(http) if each["workspace_id"] == made["id"]]
    assert kinds == ["claim", "ready", "failed"]


async def test_a_wall_clock_that_jumps_ends_nothing(
    controller: Controller, http: httpx.AsyncClient
) -> None:
    clock = controller.home / "clock"
    clock.write_text("0")
    jumping = [sys.executable, "-m", "tests.chaos.jumping", str(clock)]
    await asyncio.to_thread(controller.end)
    await asyncio.to_thread(controller.start, jumping)
    made = (await http.post("/v1/workspaces", json={"template": "light"})).json()
    short = {"template": "light", "ttl_seconds": 6, "wait": False}
    for jump in ("3600", "-3600"):
        clock.write_text(jump)
        ends = (await http.post("/v1/workspaces", json=short)).json()
        assert abs(created_ago(ends)) > 3000, "the controller's clock has jumped"
        await end_of(http, ends["id"])
        assert await works(http, made["id"]), jump
    # Nor does one that jumped while no controller was there.
    clock.write_text("7200")
    controller.end(signal.SIGKILL)
    await asyncio.to_thread(controller.start, jumping)
    assert await works(http, made["id"])
    assert (await http.get(f"/v1/workspaces/{made['id']}")).json()["state"] == "ready"
    await asyncio.to_thread(controller.end)
    await asyncio.to_thread(controller.start)


def created_ago(workspace: Json) -> float:
    created = datetime.fromisoformat(workspace["created_at"].replace("Z", "+00:00"))
    return (datetime.now(timezone.utc) - created).total_seconds()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a file system that can be full")
async def test_with_its_disk_full_requests_fail_clearly_and_desktops_live() -> None:
    with TemporaryDirectory(prefix="c-faults-") as home:
        full = Controller(Path(home), "the-key", {"CARREL_DESKTOPS": "2"})
        mount = 'mount -t tmpfs -o size=6m,mode=700 tmpfs "$0" && exec "$@"'
        small = ["unshare", "-m", "--", "sh", "-c", mount, home, carrel()]
        try:
            await asyncio.to_thread(full.start, small)
            async with full.client() as http:
                await fill_and_free(full, http)
        finally:
            await asyncio.to_thread(full.end)
            await asyncio.to_thread(full.clear)


async def fill_and_free(controller: Controller, http: httpx.AsyncClient) -> None:
    made = (await http.post("/v1/workspaces", json={"template": "light"})).json()
    actions = f"/v1/workspaces/{made['id']}/actions"
    assert controller.process is not None, "it runs"
    filler = Path(f"/proc/{controller.process.pid}/root{controller.home}/filler")
    await asyncio.to_thread(fill, filler)
    acted = 0
    while True:  # what the database had reserved is used up first
        answer = await http.post(actions, json={"type": "move", "x": 5, "y": 6})
        if answer.status_code != 200:
            break
        acted += 1
    assert answer.json()["code"] in ("disk_full", "unavailable"), answer.text
    assert answer.json()["hint"]
    refused = await http.post("/v1/workspaces", json={"template": "light"})
    assert refused.json()["code"] in ("disk_full", "unavailable"), refused.text
    assert await works(http, made["id"])
    await asyncio.to_thread(filler.unlink)

    async def acts() -> bool:
        answer = await http.post(actions, json={"type": "move", "x": 5, "y": 6})
        return answer.status_code == 200

    await eventually(acts)
    kinds = Counter(each["kind"] for each in await all_events(http))
    assert kinds["claim"] == 1
    assert kinds["act"] > acted
    assert (await http.delete(f"/v1/workspaces/{made['id']}")).status_code == 204


def fill(filler: Path) -> None:
    """Until the file system takes no more."""
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
