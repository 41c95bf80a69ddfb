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

pytestmark = pytest.mark.anyio
Json = dict[str, Any]  # Any: JSON values


@pytest.fixture(scope="module")
def both() -> Iterator[Fleet]:
    with fleet(desktops=6) as running:
        for name in ("a", "b"):
            running.add(name).start()
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
    assert (await b.delete(f"/v1/workspaces/{kept}")).status_code == 204
    assert (await kinds(b, kept))[-1] == "released"


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
