"""Warm desktops of the fake backend: kept, claimed, replaced, given up, found again, and ended."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import anyio
import httpx
import pytest
from fastapi import FastAPI

from controller import pool as planning
from controller import stock, warming
from controller.app import create_app
from controller.live import shape
from controller.routes import Parts
from controller.settings import Settings
from controller.store.warm import Warm
from tests.controller.conftest import (
    LocalCluster,
    Located,
    add_template,
    both_databases,
    claim,
    on_postgres,
    serving,
)
from tests.waiting import eventually
from workspace.errors import NoCapacity, Unavailable
from workspace.models import Template

pytestmark = pytest.mark.anyio

Json = Mapping[str, object]


async def pool_of(http: httpx.AsyncClient, template: str = "desktop") -> Json:
    answer = await http.get(f"/v1/pools/{template}")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert isinstance(found, dict)
    return found


async def scale(http: httpx.AsyncClient, template: str = "desktop", **change: object) -> Json:
    answer = await http.patch(f"/v1/pools/{template}", json=change)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert isinstance(found, dict)
    return found


def has(http: httpx.AsyncClient, template: str = "desktop", **wanted: object) -> Awaitable[None]:
    """Wait until the pool is so."""

    async def holds() -> bool:
        found = await pool_of(http, template)
        return all(found[name] == value for name, value in wanted.items())

    return eventually(holds)


def parts(app: FastAPI) -> Parts:
    found = app.state.parts
    assert isinstance(found, Parts)
    return found


async def kinds(http: httpx.AsyncClient) -> list[str]:
    return [event["kind"] for event in (await http.get("/v1/events?limit=1000")).json()["events"]]


async def numbers(http: httpx.AsyncClient) -> list[str]:
    return (await http.get("/metrics")).text.splitlines()


def is_refilled(http: httpx.AsyncClient, times: int) -> Awaitable[None]:
    """Wait until the loop has seen that a pool is full again so many times."""

    async def is_told() -> bool:
        return f"carrel_refill_seconds_count {times}.0" in await numbers(http)

    return eventually(is_told)


async def test_a_claim_has_a_warm_one_at_once_and_the_pool_is_refilled(
    http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    await scale(http, warm=3)
    await has(http, state="filled", warm=3, warming=0)
    await is_refilled(http, 1)
    before = set(cluster.live)
    made = await claim(http, ttl_seconds=300)
    assert made["state"] == "ready"
    assert made["sandbox"] in before
    assert made["id"] not in before
    answer = await http.get(f"/v1/workspaces/{made['id']}/screenshot")
    assert answer.status_code == 200
    await eventually(lambda: 0 < cluster.ttl[str(made["sandbox"])] <= 300)  # no longer a pool's
    assert cluster.whose[str(made["sandbox"])] == {"workspace": made["id"], "tenant": "default"}
    await has(http, state="filled", warm=3, live=1, hits=1, misses=0)
    await eventually(lambda: len(cluster.live) == 4)
    await http.delete(f"/v1/workspaces/{made['id']}")
    await has(http, live=0)
    assert made["sandbox"] not in cluster.live
    await eventually(lambda: len(cluster.live) == 3)
    told = await numbers(http)
    assert 'carrel_claims_total{how="warm",template="desktop"} 1.0' in told

    async def is_told() -> bool:  # by the loop, a moment later
        return 'carrel_pool_warm{template="desktop"} 3.0' in await numbers(http)

    await eventually(is_told)
    await is_refilled(http, 2)


async def test_what_no_warm_one_fits_is_started_for_itself(
    http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    await scale(http, warm=1)
    await has(http, state="filled")
    made = await claim(http, theme="dark")
    assert made["sandbox"] == made["id"]
    await has(http, warm=1, live=1, hits=0, misses=1)


async def test_a_claim_with_a_setup_is_ready_once_it_has_run(http: httpx.AsyncClient) -> None:
    await scale(http, warm=1)
    await has(http, state="filled")
    made = await claim(http, setup=["true"])
    assert made["sandbox"] != made["id"]
    assert made["state"] == "ready"


async def test_fifty_claims_at_once_share_nothing(
    http: httpx.AsyncClient, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warming, "LEAST_REST_SECONDS", 0.0)
    await scale(http, warm=7, surge=7)
    await has(http, state="filled", warm=7)
    made: list[Json] = []

    async def one() -> None:
        made.append(await claim(http))

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(one)
    assert len({each["sandbox"] for each in made}) == 50
    assert len([each for each in made if each["sandbox"] != each["id"]]) >= 7


async def test_less_is_wanted_and_the_rest_is_ended(
    http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    await scale(http, warm=4, surge=4)
    await has(http, state="filled", warm=4)
    await scale(http, warm=0, floor=1)
    await has(http, state="filled", warm=1, target=1)
    await eventually(lambda: len(cluster.live) == 1)
    await scale(http, floor=0)
    await has(http, state="idle", warm=0)
    await eventually(lambda: not cluster.live)


async def test_no_more_than_max_live_and_claims_take_the_place_of_idle_ones(
    http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    await scale(http, warm=2, max=2)
    await has(http, state="filled", warm=2)
    made = await claim(http, theme="dark", queue_seconds=15)  # no warm one fits: one must go
    assert made["state"] == "ready"
    await has(http, warm=1, live=1, warming=0, state="full")
    await eventually(lambda: len(cluster.live) == 2)


@both_databases
async def test_of_many_at_once_as_many_as_fit_are_started(
    http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    await scale(http, max=3)
    codes: list[int] = []

    async def one() -> None:
        codes.append((await http.post("/v1/workspaces", json={"queue_seconds": 0})).status_code)

    async with anyio.create_task_group() as tasks:
        for _ in range(9):
            tasks.start_soon(one)
    assert sorted(codes) == [201] * 3 + [503] * 6
    await has(http, live=3, waiting=0)
    assert len(cluster.live) == 3


async def test_of_a_template_with_a_max_too_a_warm_one_is_set_up(http: httpx.AsyncClient) -> None:
    await scale(http, warm=1, max=2)
    await has(http, state="filled")
    made = await claim(http, setup=["true"])
    assert made["sandbox"] != made["id"]
    assert made["state"] == "ready"


async def test_a_warm_one_that_dies_is_replaced(
    http: httpx.AsyncClient, cluster: LocalCluster, app: FastAPI
) -> None:
    await scale(http, warm=1)
    await has(http, state="filled")
    (first,) = cluster.live
    await eventually(lambda: first in cluster.deaths)  # it is watched
    cluster.die(first)
    await eventually(lambda: first not in cluster.live)
    await has(http, state="filled", warm=1)
    assert [row.id for row in await parts(app).store.warm.all()] == list(cluster.live)
    assert 'carrel_pool_failures_total{template="desktop"} 1.0' in await numbers(http)


async def test_a_template_is_not_quarantined_for_warm_ones_that_die(
    http: httpx.AsyncClient, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "BACK_OFF_SECONDS", 0.0)
    many = planning.QUARANTINE_FAILURES + 1
    await scale(http, warm=many, surge=many)
    await has(http, state="filled", warm=many)
    first = set(cluster.live)
    await eventually(lambda: first <= cluster.deaths.keys())

    def is_gone(sandbox: str) -> bool:
        return sandbox not in cluster.live

    async def for_ever(*args: object, **options: object) -> None:
        await anyio.sleep_forever()

    with monkeypatch.context() as patched:
        patched.setattr(cluster, "start", for_ever)  # so that none of the next succeeds
        for died, sandbox in enumerate(first, 1):
            cluster.die(sandbox)
            await eventually(partial(is_gone, sandbox))
            line = f'carrel_pool_failures_total{{template="desktop"}} {died}.0'
            assert line in await numbers(http)
        await has(http, state="filling", warm=0)
        assert "quarantine" not in await kinds(http)


async def test_a_changed_template_replaces_its_warm_ones(
    http: httpx.AsyncClient, cluster: LocalCluster, settings: Settings
) -> None:
    await add_template(http, "mine")
    await scale(http, "mine", warm=1)
    await has(http, "mine", state="filled")
    (first,) = cluster.live
    path = settings.templates / "mine.json"
    changed = Template.model_validate_json(path.read_bytes()).model_copy(update={"theme": "dark"})
    path.write_text(changed.model_dump_json(exclude_defaults=True))
    await eventually(lambda: cluster.live and first not in cluster.live)
    await has(http, "mine", state="filled", warm=1)


async def test_a_template_that_fails_is_quarantined_until_an_operator_says_so(
    http: httpx.AsyncClient, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "BACK_OFF_SECONDS", 0.01)
    await add_template(http, "broken", FAKE_START_ERROR="There is no X.")
    await scale(http, "broken", warm=2)
    await has(http, "broken", state="quarantined", warm=0, warming=0)
    told = await pool_of(http, "broken")
    assert "There is no X." in str(told["reason"])
    assert not cluster.live
    assert "quarantine" in await kinds(http)
    await scale(http, "desktop", warm=1)  # others go on
    await has(http, "desktop", state="filled")
    assert (await scale(http, "broken"))["state"] != "quarantined"  # nothing changed: try again
    await has(http, "broken", state="quarantined")
    assert (await kinds(http)).count("quarantine") == 2


async def test_five_that_go_with_their_node_are_no_fault_of_their_template(
    http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    await scale(http, warm=6, surge=6)
    await has(http, state="filled", warm=6)
    first = set(cluster.live)
    await eventually(lambda: first <= set(cluster.deaths))
    for sandbox in first:
        cluster.die(sandbox, code="node_lost")
    await eventually(lambda: not first & set(cluster.live))
    await has(http, state="filled", warm=6)
    assert "quarantine" not in await kinds(http)


async def test_what_fails_at_the_same_time_has_failed_once(
    http: httpx.AsyncClient, cluster: LocalCluster
) -> None:
    await scale(http, warm=6, surge=6)
    await has(http, state="filled", warm=6)
    first = set(cluster.live)
    await eventually(lambda: first <= set(cluster.deaths))
    for sandbox in first:
        cluster.die(sandbox)
    await eventually(lambda: not first & set(cluster.live))
    await has(http, state="filled", warm=6)
    assert 'carrel_pool_failures_total{template="desktop"} 6.0' in await numbers(http)
    assert "quarantine" not in await kinds(http)


@pytest.fixture
def small(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> LocalCluster:
    """The cluster, as full as it says."""
    start: Callable[..., Awaitable[Located]] = cluster.start

    async def start_if_room(workspace_id: str, *args: object, **options: object) -> Located:
        if len(await cluster.names()) >= 8:
            raise NoCapacity("All 8 places are taken.")
        return await start(workspace_id, *args, **options)

    monkeypatch.setattr(cluster, "start", start_if_room)
    return cluster


async def test_idle_ones_make_room_for_a_claim_that_waits(
    http: httpx.AsyncClient, small: LocalCluster
) -> None:
    await scale(http, "light", warm=8, surge=8)
    await has(http, "light", state="filled", warm=8)
    made = await claim(http, queue_seconds=15)
    assert made["state"] == "ready"
    await has(http, "light", warm=7, state="full", warming=0)
    told = await numbers(http)
    assert 'carrel_claims_total{how="queued",template="desktop"} 1.0' in told
    assert "carrel_queue_wait_seconds_count 1.0" in told
    await eventually(lambda: len(small.live) == 8)
    await http.delete(f"/v1/workspaces/{made['id']}")
    await has(http, "light", warm=8, state="filled")


async def test_who_waits_for_its_own_template_stands_in_nobodys_way(
    http: httpx.AsyncClient, small: LocalCluster
) -> None:
    await scale(http, "light", max=1)
    first = await claim(http, template="light")
    waiting = await claim(http, template="light", wait=False, queue_seconds=60)
    await has(http, "light", waiting=1, live=1)
    other = await claim(http, queue_seconds=0)  # there is room for others
    assert other["state"] == "ready"
    await scale(http, "desktop", warm=1)  # and warm ones for those whom they suit
    await has(http, "desktop", warm=1)
    warm = await claim(http, queue_seconds=0)
    assert warm["sandbox"] != warm["id"]
    told = (await http.get(f"/v1/workspaces/{waiting['id']}")).json()
    assert told["queue"]["position"] == 1
    await http.delete(f"/v1/workspaces/{first['id']}")
    url = f"/v1/workspaces/{waiting['id']}?wait_seconds=20"
    assert (await http.get(url)).json()["state"] == "ready"


async def test_without_room_nothing_is_started_again_and_again(
    http: httpx.AsyncClient, small: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes that tell of more room than there is are asked once a second."""
    asked = 0
    start: Callable[..., Awaitable[Located]] = small.start

    async def counted(*args: object, **options: object) -> Located:
        nonlocal asked
        asked += 1
        raise NoCapacity("All places are taken.")

    monkeypatch.setattr(small, "start", counted)
    await scale(http, warm=1)
    await eventually(lambda: asked == 1)
    with anyio.move_on_after(0.7):
        await eventually(lambda: asked > 1)
    assert asked <= 2
    monkeypatch.setattr(small, "start", start)
    await has(http, state="filled", warm=1)
    assert not [line for line in await numbers(http) if line.startswith("carrel_pool_failures")]


async def test_a_pool_is_told_what_it_can_be(http: httpx.AsyncClient) -> None:
    told = await scale(http, warm=2, max=9, idle_seconds=60)
    assert told["pool"] == {
        "warm": 2, "floor": 0, "max": 9, "surge": 2, "idle_seconds": 60, "max_age_seconds": 14400
    }  # fmt: skip
    assert (await scale(http, max=None))["pool"] == {**dict(told["pool"]), "max": None}  # type: ignore[call-overload]  # JSON
    names = {each["template"] for each in (await http.get("/v1/pools")).json()}
    assert names == {"browser", "code", "desktop", "jetbrains", "light"}
    for answer, code in (
        (await http.patch("/v1/pools/nothing", json={"warm": 1}), "template_not_found"),
        (await http.get("/v1/pools/nothing"), "template_not_found"),
        (await http.patch("/v1/pools/desktop", json={"warm": -1}), "invalid_request"),
        (await http.patch("/v1/pools/desktop", json={"hot": 1}), "invalid_request"),
    ):
        assert answer.json()["code"] == code
    events = (await http.get("/v1/events")).json()["events"]
    scaled = [event["data"] for event in events if event["kind"] == "scale"]
    assert scaled[0] == {"template": "desktop", "warm": 2, "max": 9, "idle_seconds": 60}
    assert scaled[1] == {"template": "desktop", "max": None}


async def test_what_is_told_of_a_pool_outlives_the_controller(
    settings: Settings, cluster: LocalCluster
) -> None:
    async with serving(create_app(settings, cluster)) as http:
        await scale(http, warm=2)
        await has(http, state="filled", warm=2)
        first = set(cluster.live)
    assert not cluster.live  # its own Ray would have ended with it
    async with serving(create_app(settings, cluster)) as http:
        await has(http, state="filled", warm=2)
        assert not first & set(cluster.live)


async def test_on_a_ray_of_others_warm_ones_wait_for_the_next_controller(
    settings: Settings, cluster: LocalCluster
) -> None:
    shared = settings.model_copy(update={"ray_address": "127.0.0.1:1"})
    async with serving(create_app(shared, cluster)) as http:
        await scale(http, warm=2)
        await has(http, state="filled", warm=2)
        left = set(cluster.live)
    assert set(cluster.live) == left
    async with serving(create_app(settings, cluster)) as http:
        made = await claim(http)
        assert made["sandbox"] in left
        assert (await http.get(f"/v1/workspaces/{made['id']}/screenshot")).status_code == 200
        await has(http, state="filled", warm=2, live=1)
        assert left <= set(cluster.live)


async def test_what_a_dead_controller_left_unfinished_is_ended(
    settings: Settings, cluster: LocalCluster, app: FastAPI
) -> None:
    born = datetime.now(timezone.utc) - timedelta(seconds=5)
    async with serving(app):
        store = parts(app).store
        await store.warm.add(
            [
                Warm("warmingxx1", "desktop", "s", "warming", settings.replica_name, born),
                Warm("warmingxx2", "desktop", "s", "warming", "another", born),
                Warm("warmdeadx3", "desktop", "s", "warm", "another", born),
            ]
        )
        await cluster.start("warmingxx1", Template(name="t"), ttl_seconds=9, timeout_seconds=9)
        parts(app).pools.changed("desktop")

        async def are_gone() -> bool:
            return not await store.warm.all() and not cluster.live

        await eventually(are_gone)


async def test_what_a_living_controller_brings_up_is_its_own_for_a_while_by_no_wall_clock(
    http: httpx.AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, born = parts(app).store, datetime.now(timezone.utc) - timedelta(hours=1)
    await store.replicas.beat("another")
    kind = shape(parts(app).templates.get("desktop"))
    await store.warm.add([Warm("warmingxx1", "desktop", kind, "warming", "another", born)])
    pools = parts(app).pools
    await scale(http, warm=1)
    await eventually(lambda: "warmingxx1" in pools._seen)
    assert [row.id for row in await store.warm.all()] == ["warmingxx1"]
    with monkeypatch.context() as patched:  # the cluster need not be asked of it
        for name in ("find", "locate"):
            patched.delattr(LocalCluster, name)
        seen = await pools._stocktaking.look({}, (), {})
        assert not await pools._take_over(seen.rows, seen)
    monkeypatch.setattr(warming, "MOST_WARMING_SECONDS", 0.0)
    pools.changed("desktop")

    async def is_gone() -> bool:
        return "warmingxx1" not in [row.id for row in await store.warm.all()]

    await eventually(is_gone)


async def test_claims_and_failures_are_known_of_whatever_becomes_of_the_wall_clock(
    http: httpx.AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stock, "OVERLAP_SECONDS", 60.0)
    stocktaking = stock.Stocktaking(parts(app).lifecycle.keeping, parts(app).templates)
    version = (await stocktaking.look({}, (), {})).versions["light"]
    stocktaking._claimed_until = datetime.now(timezone.utc) + timedelta(hours=1)  # it was then
    await claim(http)
    failing = {"light": stock.Failing(1, time.monotonic() - 9, "", version)}
    found = await stocktaking.look({}, (), failing)
    wanted = {each.template: each for each in found.wanted}
    failed_at = wanted["light"].failed_at
    assert wanted["desktop"].claimed_at is not None
    assert failed_at is not None
    assert 9 <= (found.now - failed_at).total_seconds() < 60


async def test_while_the_cluster_is_away_warm_ones_stay_and_are_claimed(
    http: httpx.AsyncClient, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scale(http, warm=2)
    await has(http, state="filled", warm=2)

    async def away() -> list[object]:
        raise Unavailable("Ray does not answer.")

    with monkeypatch.context() as patched:
        patched.setattr(cluster, "nodes", away)
        made = await claim(http)
        assert made["sandbox"] != made["id"]
        assert (await http.get("/v1/pools")).json()["code"] == "unavailable"
    await has(http, state="filled", warm=2, live=1)


@on_postgres
async def test_one_of_two_controllers_leads_and_the_other_takes_over(
    settings: Settings, cluster: LocalCluster, tmp_path: Path
) -> None:
    shared = {"ray_address": "127.0.0.1:1", "artifacts": "none"}
    first, second = (
        settings.model_copy(update={**shared, "home": tmp_path / name, "replica": name})
        for name in ("first", "second")
    )
    async with serving(create_app(second, cluster)) as other:
        async with serving(create_app(first, cluster)) as http:
            await scale(http, warm=3)
            await has(other, state="filled", warm=3)
            await eventually(lambda: len(cluster.live) == 3)
            made = [await claim(each) for each in (http, other)]
            assert {each["id"] for each in made}.isdisjoint(each["sandbox"] for each in made)
            await has(http, state="filled", warm=3, live=2)
            await eventually(lambda: len(cluster.live) == 5)
            for each in made:
                path = f"/v1/workspaces/{each['id']}/screenshot"
                assert (await http.get(path)).status_code == 200
                assert (await other.get(path)).status_code == 200
        await claim(other)
        await has(other, state="filled", warm=3, live=3)  # whoever led before
        await eventually(lambda: len(cluster.live) == 6)
    last = second.model_copy(update={"ray_address": ""})  # its end is everybody's
    async with serving(create_app(last, cluster)) as other:
        await has(other, state="filled", warm=3, live=3)
        await eventually(lambda: len(cluster.live) == 6)
    assert not cluster.live
