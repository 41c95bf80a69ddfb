"""Two controllers over one PostgreSQL and one Ray: either serves, and either may die."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any  # JSON values

import httpx
import pytest

from tests.chaos.fleet import Controller, Fleet, fleet
from tests.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]
AWAY_SECONDS = 20
KEEPERS = (
    "SELECT string_agg(keeper, ',' ORDER BY created_at) FROM workspaces WHERE ended_at IS NULL"
)
Json = dict[str, Any]  # Any: JSON values


@pytest.fixture(scope="module")
def both() -> Iterator[Fleet]:
    with fleet(desktops=6) as running:
        running.start("a", "b")
        yield running


@pytest.fixture
async def https(both: Fleet) -> AsyncIterator[list[httpx.AsyncClient]]:
    """A client of each; afterwards both run again, and no desktop is left."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(controller.client()) for controller in both.controllers
        ]
        yield clients
        for controller in both.controllers:
            if not controller.is_alive:
                await asyncio.to_thread(controller.start)
        for workspace in (await clients[0].get("/v1/workspaces")).json()["workspaces"]:
            await clients[0].delete(f"/v1/workspaces/{workspace['id']}")
        await eventually(lambda: not both.actors())


async def claim(http: httpx.AsyncClient, **more: object) -> Json:
    answer = await http.post("/v1/workspaces", json={"template": "light", **more})
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    return made


async def state(http: httpx.AsyncClient, workspace_id: str) -> str:
    return str((await http.get(f"/v1/workspaces/{workspace_id}")).json()["state"])


async def works(http: httpx.AsyncClient, workspace_id: str) -> None:
    answer = await http.get(f"/v1/workspaces/{workspace_id}/screenshot")
    assert (answer.status_code, answer.content[:2]) == (200, b"\xff\xd8"), answer.text


async def kinds(http: httpx.AsyncClient, workspace_id: str) -> list[str]:
    events = (await http.get(f"/v1/workspaces/{workspace_id}/events")).json()["events"]
    return [each["kind"] for each in events]


async def test_claims_on_both_get_a_desktop_each_and_either_serves_all(
    https: list[httpx.AsyncClient],
) -> None:
    a, b = https
    claims = await asyncio.gather(claim(a), claim(b), claim(a, key="k1"), claim(b, key="k1"))
    ids = [each["id"] for each in claims]
    assert ids[2] == ids[3], "the same key is the same workspace, whoever is asked"
    assert len(set(ids)) == 3
    assert len({each["sandbox"] for each in claims}) == 3
    for http in https:
        for workspace_id in set(ids):
            await works(http, workspace_id)
    # Either releases what the other one keeps, and both say so.
    for http, workspace_id in ((b, ids[0]), (a, ids[1])):
        assert (await http.delete(f"/v1/workspaces/{workspace_id}")).status_code == 204
    for workspace_id in ids[:2]:
        assert [await state(each, workspace_id) for each in https] == ["released"] * 2
        assert (await kinds(a, workspace_id)).count("released") == 1


async def test_one_that_is_ended_leaves_its_desktops_to_the_other(
    both: Fleet, https: list[httpx.AsyncClient]
) -> None:
    a, b = https
    workspace_id = (await claim(a))["id"]
    await asyncio.to_thread(both.controllers[0].end)
    await works(b, workspace_id)
    extended = await b.post(f"/v1/workspaces/{workspace_id}/extend", json={"ttl_seconds": 900})
    assert extended.status_code == 200, extended.text
    assert (await b.delete(f"/v1/workspaces/{workspace_id}")).status_code == 204
    await eventually(lambda: not both.actors())


async def test_one_that_is_killed_among_claims_is_followed_by_the_other(
    both: Fleet, https: list[httpx.AsyncClient]
) -> None:
    a, b = https
    first = both.controllers[0]
    kept = (await claim(a))["id"]
    taken = await a.post(f"/v1/workspaces/{kept}/control", json={"seconds": 5})
    assert taken.status_code == 200, taken.text
    claiming = [asyncio.create_task(claim(a, key=f"x{n}")) for n in range(2)]
    await eventually(lambda: len(both.actors()) > 1)  # in the middle of it
    first.tell(signal.SIGKILL)
    began = time.monotonic()
    await works(b, kept)
    print(f"\nthe other one served after {time.monotonic() - began:.3f} s")
    for broken in await asyncio.gather(*claiming, return_exceptions=True):
        assert isinstance(broken, httpx.TransportError)
    first.end(signal.SIGKILL)
    # What was starting there has failed, and nothing of it is left; the desktop that was, lives.
    await eventually(lambda: settled(b, {kept}), 30)
    print(f"all was taken over after {time.monotonic() - began:.1f} s")
    assert await state(b, kept) == "ready"
    await works(b, kept)
    await eventually(lambda: len(both.actors()) == 1)
    # Nobody else was asked of the person who had control: its end is written all the same.
    await eventually(lambda: tells(b, kept, "control_returned"), 30)
    assert "adopted" in await kinds(b, kept)
    assert (await b.delete(f"/v1/workspaces/{kept}")).status_code == 204
    assert (await kinds(b, kept))[-1] == "released"


async def tells(http: httpx.AsyncClient, workspace_id: str, kind: str) -> bool:
    return kind in await kinds(http, workspace_id)


async def is_ended(http: httpx.AsyncClient, workspace_id: str) -> bool:
    return await state(http, workspace_id) == "released"


async def settled(http: httpx.AsyncClient, wanted: set[str]) -> bool:
    live = (await http.get("/v1/workspaces")).json()["workspaces"]
    return {each["id"] for each in live} == wanted


async def test_a_frozen_one_comes_back_and_undoes_nothing(
    both: Fleet, https: list[httpx.AsyncClient]
) -> None:
    a, b = https
    ids = [(await claim(a))["id"] for _ in range(2)]
    frozen: Controller = both.controllers[0]
    frozen.tell(signal.SIGSTOP)
    try:
        assert (await b.delete(f"/v1/workspaces/{ids[0]}")).status_code == 204
        await asyncio.sleep(7)  # longer than it is taken for alive: the other one takes over
        await works(b, ids[1])
    finally:
        frozen.tell(signal.SIGCONT)
    await works(a, ids[1])
    await eventually(lambda: is_ended(a, ids[0]))
    assert (await kinds(a, ids[0])).count("released") == 1
    assert (await a.delete(f"/v1/workspaces/{ids[1]}")).status_code == 204
    assert (await kinds(b, ids[1])).count("released") == 1


async def test_nobody_gets_a_warm_one_twice(both: Fleet, https: list[httpx.AsyncClient]) -> None:
    warm = 4
    await pool(https[0], warm=warm)
    try:
        await eventually(lambda: has_warm(https[1], warm), 90)
        waiting = {each.pid for each in both.actors()}
        claims = await asyncio.gather(*(claim(https[n % 2], wait=False) for n in range(6)))
        boxes = [each["sandbox"] for each in claims]
        assert len(set(boxes)) == len(claims)
        from_pool = [each for each in claims if each["sandbox"] != each["id"]]
        assert len(from_pool) == warm
        assert all(each["state"] == "ready" for each in from_pool)
        assert waiting <= {each.pid for each in both.actors()}
        for each in from_pool:
            for http in https:
                await works(http, each["id"])
    finally:
        await pool(https[0], warm=0)


async def pool(http: httpx.AsyncClient, **change: object) -> None:
    answer = await http.patch("/v1/pools/light", json=change)
    assert answer.status_code == 200, answer.text


async def has_warm(http: httpx.AsyncClient, count: int) -> bool:
    return bool((await http.get("/v1/pools/light")).json()["warm"] == count)


async def test_with_the_database_frozen_desktops_live_and_requests_fail_clearly(
    both: Fleet, https: list[httpx.AsyncClient]
) -> None:
    ids = [(await claim(http))["id"] for http in https]
    keepers = both.database.execute(KEEPERS, both.database_name)
    both.database.signal(signal.SIGSTOP)
    frozen = time.monotonic()
    try:
        for http, workspace_id in zip(https, ids, strict=True):
            await works(http, workspace_id)
        while time.monotonic() - frozen < AWAY_SECONDS:
            for http in https:
                began = time.monotonic()
                answer = await http.post("/v1/workspaces", json={"template": "light"})
                assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
                assert answer.json()["hint"]
                assert time.monotonic() - began < 20
    finally:
        both.database.signal(signal.SIGCONT)
    await eventually(lambda: all_serve(https, ids), 30)
    await asyncio.sleep(3)  # in which one could take the other for dead
    assert both.database.execute(KEEPERS, both.database_name) == keepers, "both were alive"
    for http in https:
        again = await claim(http)
        assert (await http.delete(f"/v1/workspaces/{again['id']}")).status_code == 204


async def all_serve(https: list[httpx.AsyncClient], ids: list[str]) -> bool:
    for http in https:
        for workspace_id in ids:
            if (await http.get(f"/v1/workspaces/{workspace_id}/screenshot")).status_code != 200:
                return False
    return True
