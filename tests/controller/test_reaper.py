"""What only one of store, cluster and nodes believes in is removed, and nothing else ever is."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import delete, update

from controller import reaper as module
from controller.lifecycle import Lifecycle
from controller.live import new_id
from controller.reaper import Reaper
from controller.store import Seen
from controller.store.claims import Claimed, NewClaim
from controller.store.tables import workspaces
from controller.store.warm import Warm
from controller.warming import Warming
from tests.controller.conftest import LocalCluster, add_template, claim, keep
from tests.waiting import eventually
from workspace.errors import Unavailable
from workspace.models import Screen, Template, Workspace

pytestmark = pytest.mark.anyio
FAKE = Template(name="fake", backend="fake")


@pytest.fixture
def lifecycle(app: FastAPI, http: httpx.AsyncClient) -> Lifecycle:
    found = app.state.parts.lifecycle
    assert isinstance(found, Lifecycle)
    return found


@pytest.fixture
def reaper(lifecycle: Lifecycle) -> Reaper:
    """One that looks again at once."""
    return Reaper(lifecycle.keeping, lifecycle.replicas, again_seconds=0)


async def told(lifecycle: Lifecycle, stray: str) -> list[object]:
    """Where the log says that it was found."""
    events = await lifecycle.store.events(Seen(stray), limit=1000)
    return [event.data["where"] for event in events if event.kind == "stray"]


def removed(lifecycle: Lifecycle) -> Counter[str]:
    return lifecycle.metrics.strays_removed


def warm(state: str = "warm") -> Warm:
    now = datetime.now(timezone.utc)
    return Warm(new_id(), "fake", "a-shape", state, "me", now, None, now)  # type: ignore[arg-type]  # a Literal


def workspace(**changes: object) -> Workspace:
    name = new_id()
    now = datetime.now(timezone.utc)
    begun = Workspace(
        id=name,
        sandbox=name,
        state="starting",
        template="fake",
        screen=Screen(),
        created_at=now,
        expires_at=now + timedelta(hours=1),
    )
    return begun.model_copy(update=changes)


async def test_nothing_is_a_stray_where_nothing_strays(
    http: httpx.AsyncClient, lifecycle: Lifecycle, reaper: Reaper
) -> None:
    made = await claim(http)
    assert await reaper.sweep() == 0
    assert (await http.get(f"/v1/workspaces/{made['id']}")).json()["state"] == "ready"
    metrics = (await http.get("/metrics")).text
    assert "\ncarrel_strays 0.0\n" in metrics


async def test_an_actor_that_no_row_names_is_stopped(
    http: httpx.AsyncClient, lifecycle: Lifecycle, reaper: Reaper, cluster: LocalCluster
) -> None:
    mine = await claim(http)
    stray = new_id()
    await cluster.start(stray, FAKE, ttl_seconds=60, timeout_seconds=10)
    assert await reaper.sweep() == 1
    assert set(cluster.live) == {mine["id"]}
    assert await told(lifecycle, stray) == ["actor"]
    text = (await http.get("/metrics")).text
    assert 'carrel_strays_removed_total{where="actor"} 1.0' in text


async def test_a_warm_desktops_actor_is_none(
    lifecycle: Lifecycle, reaper: Reaper, cluster: LocalCluster
) -> None:
    row = warm()
    await lifecycle.store.warm.add([row])
    await cluster.start(row.id, FAKE, ttl_seconds=60, timeout_seconds=10)
    assert not await reaper._shared()


async def test_what_a_node_has_of_a_sandbox_without_an_actor_is_removed(
    http: httpx.AsyncClient,
    lifecycle: Lifecycle,
    reaper: Reaper,
    cluster: LocalCluster,
    short_dir: Path,
) -> None:
    mine = await claim(http)
    stray, ending = new_id(), workspace(state="releasing")
    await keep(lifecycle.store, ending, keeper="another")
    for name in (stray, ending.sandbox):
        (short_dir / name).mkdir()
    assert await reaper.sweep(nodes=False) == 0
    assert await reaper.sweep() == 1
    assert set(await cluster.backend.list()) == {mine["id"], ending.sandbox}
    assert await told(lifecycle, stray) == ["sandbox"]


@pytest.mark.parametrize("key", [None, "mine"])
async def test_a_claim_whose_answer_was_lost_is_ended_unless_it_can_be_asked_for_again(
    http: httpx.AsyncClient,
    lifecycle: Lifecycle,
    reaper: Reaper,
    cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
    key: str | None,
) -> None:
    await add_template(http, "quick")
    await http.patch("/v1/pools/quick", json={"warm": 1})

    async def is_warm() -> bool:
        return bool((await http.get("/v1/pools/quick")).json()["warm"])

    await eventually(is_warm)
    make = lifecycle.store.claims.make

    async def hang_up(claims: Sequence[NewClaim]) -> list[Claimed]:
        await make(claims)
        raise Unavailable("The database does not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(lifecycle.keeping.claims, "_work", hang_up)
        lost = await http.post("/v1/workspaces", json={"template": "quick", "key": key})
    assert lost.status_code == 503
    (row,) = (await http.get("/v1/workspaces")).json()["workspaces"]
    assert await reaper.sweep() == 1
    assert await told(lifecycle, row["id"]) == ["workspace"]
    assert await reaper.sweep() == 0
    if key is not None:
        again = await claim(http, template="quick", key=key)
        assert (again["id"], again["state"]) == (row["id"], "ready")
        return
    ended = (await http.get(f"/v1/workspaces/{row['id']}")).json()
    while ended["state"] != "failed":
        await asyncio.sleep(0.01)
        ended = (await http.get(f"/v1/workspaces/{row['id']}")).json()
    assert "nobody could be told" in ended["error"]["message"]
    assert row["sandbox"] not in cluster.live


async def test_what_was_half_taken_over_lives_on(
    http: httpx.AsyncClient,
    lifecycle: Lifecycle,
    reaper: Reaper,
    cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ready, others = workspace(state="ready"), workspace(state="ready")
    await keep(lifecycle.store, ready, others, keeper="another")
    for each in (ready, others):
        await cluster.start(each.sandbox, FAKE, ttl_seconds=60, timeout_seconds=10)

    async def broken(_: str) -> None:
        raise Unavailable("Ray does not answer.")

    url = f"/v1/workspaces/{ready.id}"
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "locate", broken)
        assert (await http.post(url + "/extend", json={"ttl_seconds": 60})).status_code == 503
        assert await reaper.sweep() == 0
    assert await reaper.sweep() == 1
    assert set(lifecycle.keeping.live) == {ready.id}
    assert (await http.post(url + "/extend", json={"ttl_seconds": 60})).status_code == 200
    assert set(cluster.live) == {ready.sandbox, others.sandbox}


@pytest.mark.parametrize("is_gone", [False, True])
async def test_a_task_whose_row_is_anothers_or_gone_lets_go(
    http: httpx.AsyncClient,
    lifecycle: Lifecycle,
    reaper: Reaper,
    cluster: LocalCluster,
    is_gone: bool,
) -> None:
    made = await claim(http)
    this = workspaces.c.id == made["id"]
    statement = delete(workspaces) if is_gone else update(workspaces).values(keeper="another")
    await lifecycle.store._do(lambda it: it.execute(statement.where(this)))
    live = lifecycle.keeping.live[str(made["id"])]
    assert await reaper.sweep(nodes=False) in (1, 2)  # without a row, its actor strays too
    await asyncio.wait_for(live.gone.wait(), 15)
    assert made["id"] not in lifecycle.keeping.live
    await reaper.sweep()
    assert (made["id"] in cluster.live) is not is_gone


@pytest.fixture
def no_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else looks after what is warm."""

    async def idle(_: Warming) -> bool:
        return True

    monkeypatch.setattr(Warming, "_pass", idle)


async def test_a_warm_row_without_an_actor_is_dropped(
    no_pools: None, lifecycle: Lifecycle, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, starting = warm(), warm("warming")
    await lifecycle.store.warm.add([gone, starting])
    assert await reaper.sweep() == 1
    assert [row.id for row in await lifecycle.store.warm.all()] == [starting.id]
    assert await told(lifecycle, gone.id) == ["warm"]
    monkeypatch.setattr(module, "WARMING_SECONDS", 0)  # it takes longer than any start
    assert await reaper.sweep() == 1
    assert await lifecycle.store.warm.all() == []


async def test_who_does_not_lead_leaves_what_is_shared_alone(
    lifecycle: Lifecycle,
    reaper: Reaper,
    cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def no() -> bool:
        return False

    monkeypatch.setattr(lifecycle.store.leadership, "is_ours", no)
    await cluster.start(new_id(), FAKE, ttl_seconds=60, timeout_seconds=10)
    await lifecycle.store.warm.add([warm()])
    await keep(lifecycle.store, workspace(), keeper=lifecycle.replica)
    assert await reaper.sweep() == 1
    assert dict(removed(lifecycle)) == {"workspace": 1}


async def test_what_cannot_be_read_is_not_compared(
    lifecycle: Lifecycle,
    reaper: Reaper,
    cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*_: object) -> set[str]:
        raise Unavailable("Ray does not answer.")

    await cluster.start(new_id(), FAKE, ttl_seconds=60, timeout_seconds=10)
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "names", broken)
        patch.setattr(cluster, "left", broken)
        await keep(lifecycle.store, workspace(), keeper=lifecycle.replica)
        assert await reaper.sweep() == 1
        assert dict(removed(lifecycle)) == {"workspace": 1}
        with pytest.raises(Unavailable):
            await reaper.begin()
    with monkeypatch.context() as patch:
        patch.setattr(lifecycle.store, "named", broken)
        assert await reaper.sweep() == 0
    assert len(cluster.live) == 1


async def test_what_cannot_be_removed_stays_counted_until_it_is(
    http: httpx.AsyncClient,
    lifecycle: Lifecycle,
    reaper: Reaper,
    cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(_: str) -> None:
        raise Unavailable("Its actor does not end.")

    stray = new_id()
    await cluster.start(stray, FAKE, ttl_seconds=60, timeout_seconds=10)
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "stop", broken)
        assert await reaper.sweep() == 0
    assert (await http.get("/v1/status")).json()["strays"] == 1
    assert await told(lifecycle, stray) == []
    assert await reaper.sweep() == 1
    assert (await http.get("/v1/status")).json()["strays"] == 0
    assert await told(lifecycle, stray) == ["actor"]


async def test_a_start_does_not_wait_for_what_does_not_end(
    lifecycle: Lifecycle,
    reaper: Reaper,
    cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hang(_: str) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(module, "BEGIN_SECONDS", 0.1)
    await cluster.start(new_id(), FAKE, ttl_seconds=60, timeout_seconds=10)
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "stop", hang)
        assert await asyncio.wait_for(reaper.begin(), 15) == 0
    assert lifecycle.metrics.strays == 1
    assert await reaper.sweep() == 1


async def test_what_is_gone_by_the_second_look_was_just_ending(
    lifecycle: Lifecycle, cluster: LocalCluster
) -> None:
    patient = Reaper(lifecycle.keeping, lifecycle.replicas, again_seconds=0.5)
    ending, stray = new_id(), new_id()
    for each in (ending, stray):
        await cluster.start(each, FAKE, ttl_seconds=60, timeout_seconds=10)
    sweeping = asyncio.ensure_future(patient.sweep())
    await asyncio.sleep(0.2)
    await cluster.stop(ending)
    assert await sweeping == 1
    assert await told(lifecycle, ending) == []


@pytest.mark.parametrize("reading", ["names", "left"])
async def test_what_begins_while_it_reads_is_none(
    lifecycle: Lifecycle,
    reaper: Reaper,
    cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
    reading: str,
) -> None:
    """Rows are read last: they are written first."""
    read = getattr(cluster, reading)

    async def begin_and_read() -> object:
        begun = workspace()
        await keep(lifecycle.store, begun)
        if reading == "names":
            await cluster.start(begun.sandbox, FAKE, ttl_seconds=60, timeout_seconds=10)
        found = await read()
        return found if reading == "names" else {"n1": {begun.sandbox}}

    monkeypatch.setattr(cluster, reading, begin_and_read)
    assert not await (reaper._shared() if reading == "names" else reaper._left())


async def test_it_runs_by_itself(
    app: FastAPI,
    lifecycle: Lifecycle,
    cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PERIOD_SECONDS", 0.05)
    own = Reaper(lifecycle.keeping, lifecycle.replicas, again_seconds=0)
    running = asyncio.ensure_future(own.run())
    try:
        for _ in range(2):
            stray = new_id()
            await cluster.start(stray, FAKE, ttl_seconds=60, timeout_seconds=10)
            await eventually(lambda stray=stray: stray not in cluster.live)  # type: ignore[misc]  # no lambda is typed
    finally:
        running.cancel()
        await asyncio.wait([running])


@pytest.mark.parametrize("seed", range(4))
async def test_nothing_that_lives_or_starts_is_ever_taken_for_a_stray(
    http: httpx.AsyncClient,
    lifecycle: Lifecycle,
    reaper: Reaper,
    cluster: LocalCluster,
    short_dir: Path,
    seed: int,
) -> None:
    """Claims, warm ones and strays come and go at random while it compares without a pause."""
    dice = random.Random(seed)
    strays: set[str] = set()
    for name, seconds in (("slow", "0.1"), ("quick", "0")):
        await add_template(http, name, FAKE_START_SECONDS=seconds, FAKE_STOP_SECONDS="0.02")
    await http.patch("/v1/pools/quick", json={"warm": 2, "surge": 4})

    async def use() -> None:
        for _ in range(6):
            made = await claim(http, template=dice.choice(["slow", "quick"]))
            base = f"/v1/workspaces/{made['id']}"
            for _ in range(3):
                await asyncio.sleep(dice.random() / 20)
                assert (await http.get(f"{base}/screenshot")).status_code == 200
            (await http.delete(base)).raise_for_status()
            assert (await http.get(base)).json()["error"] is None

    async def stray() -> None:
        for _ in range(6):
            await asyncio.sleep(dice.random() / 10)
            strays.add(name := new_id())
            if dice.random() < 0.5:
                await cluster.start(name, FAKE, ttl_seconds=60, timeout_seconds=10)
            else:
                (short_dir / name).mkdir()

    async def sweep() -> None:
        while not is_over.is_set():
            await reaper.sweep()
            await asyncio.sleep(dice.random() / 50)

    is_over = asyncio.Event()
    sweeping = asyncio.ensure_future(sweep())
    try:
        await asyncio.gather(use(), use(), use(), stray())
        await eventually(lambda: not strays & set(cluster.live))
        await http.patch("/v1/pools/quick", json={"warm": 0})
        await eventually(lambda: not cluster.live)
    finally:
        is_over.set()
        await sweeping
    await reaper.sweep()
    assert await cluster.backend.list() == []
    assert [stray for stray in strays if not await told(lifecycle, stray)] == []
    assert not removed(lifecycle).keys() - {"actor", "sandbox"}
