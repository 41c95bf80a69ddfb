"""PostgreSQL goes away and comes back: what fails, how soon, and that nothing kept is lost."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from typing import Any  # JSON values

import anyio
import httpx
import pytest

from controller.app import create_app
from controller.events import Events
from controller.settings import Settings
from controller.store import NewEvent, Store, databases
from tests.controller.conftest import LocalCluster, claim, keep, serving
from tests.controller.test_store import workspace
from tests.postgres import Postgres, postgres
from tests.waiting import eventually
from workspace.errors import Unavailable

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def mine() -> Iterator[Postgres]:
    """A server that these tests may treat as they like."""
    with postgres() as server:
        yield server


@pytest.fixture
async def store(mine: Postgres) -> AsyncIterator[Store]:
    async with (store := Store(mine.database())).run():
        await keep(store, workspace(), owner="admin")
        await store.append([event(1)])
        yield store


def event(n: int) -> NewEvent:
    return NewEvent(NOW, None, "admin", "k", {"n": n})


async def kept(store: Store) -> list[object]:
    return [each.data["n"] for each in await store.events(limit=10_000)]


@asynccontextmanager
async def away(server: Postgres) -> AsyncIterator[None]:
    """The block runs while the server is dead."""
    await asyncio.to_thread(server.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(server.start)


async def test_a_server_that_came_back_is_used_at_once(mine: Postgres, store: Store) -> None:
    async with away(mine):
        pass
    await store.append([event(2)])
    changed = workspace().model_copy(update={"name": "changed"})
    await store.save(changed, keeper="me")
    assert await store.get(changed.id) == changed
    assert await kept(store) == [1, 2]


async def test_what_may_be_done_twice_is_done_when_the_server_is_back(
    mine: Postgres, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "AGAIN_SECONDS", 30)
    new = workspace("abcdefghj2")
    async with anyio.create_task_group() as tasks:
        async with away(mine):
            tasks.start_soon(lambda: keep(store, new, owner="admin"))
            tasks.start_soon(store.append, [event(2)])
            await asyncio.sleep(0.2)  # they have met nobody
    assert await store.get(new.id) == new
    assert await kept(store) == [1, 2]


async def test_a_server_that_is_away_is_told_in_time(mine: Postgres, store: Store) -> None:
    async with away(mine):
        began = time.monotonic()
        for work in (
            store.get("abcdefghjk"),
            store.save(workspace(), keeper="me"),
            store.append([event(2)]),
            store.ping(),
        ):
            with pytest.raises(Unavailable, match="cannot be used"):
                await work
        assert time.monotonic() - began < 4 * databases.AGAIN_SECONDS
    await store.ping()


async def test_a_server_that_hangs_holds_nobody_for_long(
    mine: Postgres, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "TRY_SECONDS", 0.5)
    mine.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        works = [
            store.get("abcdefghjk"),
            store.save(workspace(), keeper="me"),
            store.append([event(2)]),
        ]
        for error in await asyncio.gather(*works, return_exceptions=True):
            assert isinstance(error, Unavailable)
            assert "did not answer in time" in error.message
        assert time.monotonic() - began < 5
    finally:
        mine.signal(signal.SIGCONT)
    monkeypatch.undo()
    await store.append([event(3)])
    assert await store.get("abcdefghjk") == workspace()
    counted = Counter(await kept(store))
    assert counted in (Counter([1, 3]), Counter([1, 2, 3])), "it was not known, and not sent twice"


async def test_what_was_acknowledged_is_there_once_whatever_dies(
    mine: Postgres, store: Store
) -> None:
    said: list[object] = []
    failures: list[Unavailable] = []
    events = Events(store)

    async def write(first: int) -> None:
        for n in range(first, first + 200):
            try:
                await events.record("k", actor="a", n=n)
                said.append(n)
            except Unavailable as error:
                failures.append(error)

    async with events.run(), anyio.create_task_group() as tasks:
        for first in (1000, 2000, 3000, 4000):
            tasks.start_soon(write, first)
        for step in range(1, 6):
            await eventually(lambda step=step: len(said) + len(failures) >= 100 * step)  # type: ignore[misc]  # its default is of the type
            await asyncio.to_thread(
                mine.execute,
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE application_name = 'carrel'",
            )
    there = Counter(await kept(store))
    assert set(said) <= set(there)
    assert set(there.values()) == {1}
    assert len(said) + len(failures) == 800
    assert said


async def test_desktops_live_on_and_all_goes_on_without_a_restart(
    mine: Postgres, settings: Settings, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.keeping.WRITE_AGAIN_SECONDS", 0.2)
    monkeypatch.setattr(databases, "AGAIN_SECONDS", 0.5)
    app = create_app(settings.model_copy(update={"database_url": mine.database()}), cluster)
    async with serving(app) as http:
        stays, ends = str((await claim(http))["id"]), str((await claim(http))["id"])
        click = {"type": "click", "x": 3, "y": 4}
        await http.post(f"/v1/workspaces/{stays}/actions", json=click)
        async with away(mine):
            for method, path, body in (
                ("POST", "/v1/workspaces", {}),
                ("POST", f"/v1/workspaces/{stays}/actions", click),
                ("POST", f"/v1/workspaces/{stays}/extend", {"ttl_seconds": 900}),
                ("GET", "/v1/workspaces", None),
                ("GET", "/v1/events", None),
                ("GET", "/readyz", None),
            ):
                answer = await http.request(method, path, json=body)
                told = answer.json()
                assert (answer.status_code, told["code"]) == (503, "unavailable"), (path, told)
                assert told["hint"]
            assert (await http.get(f"/v1/workspaces/{stays}")).json()["state"] == "ready"
            assert (await http.get(f"/v1/workspaces/{stays}/screenshot")).status_code == 200
            assert (await http.delete(f"/v1/workspaces/{ends}")).status_code == 204
            assert ends not in cluster.live
            assert (await http.get(f"/v1/workspaces/{ends}")).json()["state"] == "released"
        acted = await http.post(f"/v1/workspaces/{stays}/actions", json=click)
        assert acted.json()["cursor"] == [3, 4]
        store = app.state.parts.store
        await eventually(lambda: store.has_event(ends, "released"))
        assert (await store.get(ends)).state == "released"
        assert await kinds(http, ends) == ["claim", "ready", "released"]
        assert (await kinds(http, stays))[:3] == ["claim", "ready", "act"]
        assert list(cluster.live) == [stays], "what could not be written was not started"
        again = await claim(http)
        assert (await http.delete(f"/v1/workspaces/{again['id']}")).status_code == 204


async def kinds(http: httpx.AsyncClient, workspace_id: str) -> list[str]:
    events: list[dict[str, Any]]
    events = (await http.get(f"/v1/workspaces/{workspace_id}/events")).json()["events"]
    return [each["kind"] for each in events]


async def test_a_claim_on_a_server_that_hangs_fails_as_soon_as_that_is_seen(
    mine: Postgres, settings: Settings, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(settings.model_copy(update={"database_url": mine.database()}), cluster)
    async with serving(app) as http:
        await claim(http)  # what begins with the controller has been read by then
        monkeypatch.setattr(databases, "TRY_SECONDS", 1)
        mine.signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            answer = await http.post("/v1/workspaces", json={})
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert time.monotonic() - began < 2
        finally:
            mine.signal(signal.SIGCONT)
        await claim(http)
