"""Who of those that wait may try, and for what."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import TaskGroup

from controller import places as module
from controller.places import Places, Ticket, Turn
from tests.controller.conftest import LocalCluster, Located, add_template, claim
from tests.waiting import eventually
from workspace.backends.base import Endpoint
from workspace.errors import NoCapacity
from workspace.models import Template

pytestmark = pytest.mark.anyio


class Waiting:
    """Claims of templates that are called as their shapes; what turns each of them got."""

    def __init__(self, places: Places, *templates: str) -> None:
        self.places = places
        self.turns: list[tuple[str, Turn | None]] = []
        self.stack = ExitStack()
        self.tickets = {name: self._ticket(name) for name in templates}

    def _ticket(self, name: str) -> Ticket:
        until = time.monotonic() + 30
        return self.stack.enter_context(self.places.ticket("me", until, name, name))

    async def wait(self, name: str) -> None:
        self.turns.append((name, await self.tickets[name].turn()))

    async def wait_all(self, tasks: TaskGroup) -> None:
        for name in self.tickets:
            tasks.start_soon(self.wait, name)
        await anyio.wait_all_tasks_blocked()


async def test_a_place_is_for_the_next_and_a_warm_one_for_whom_it_suits() -> None:
    places = Places()
    waiting = Waiting(places, "a", "b", "c")
    assert not places.has_next
    with waiting.stack:
        async with anyio.create_task_group() as tasks:
            for name in waiting.tickets:
                tasks.start_soon(waiting.wait, name)
            await anyio.wait_all_tasks_blocked()
            assert places.has_next
            assert places.is_waited_for("c")
            assert not places.is_waited_for("d")
            places.freed(shape="c")
            await anyio.wait_all_tasks_blocked()
            assert sorted(waiting.turns) == [("a", "place"), ("c", "warm")]
            tasks.cancel_scope.cancel()
    assert places.waiting == 0
    assert not places.is_waited_for("c")


async def test_those_of_a_full_template_are_passed_over_until_one_of_it_has_gone() -> None:
    places = Places()
    waiting = Waiting(places, "a", "b")
    with waiting.stack:
        async with anyio.create_task_group() as tasks:
            for name in waiting.tickets:
                tasks.start_soon(waiting.wait, name)
            await anyio.wait_all_tasks_blocked()
            places.full("a")
            await anyio.wait_all_tasks_blocked()
            assert waiting.turns == [("b", "place")]
            waiting.tickets["b"].placed()
            assert not places.has_next  # whoever comes now need not wait
            places.freed("a")
            await anyio.wait_all_tasks_blocked()
            assert waiting.turns[1:] == [("a", "place")]
            tasks.cancel_scope.cancel()


async def test_one_whose_volumes_node_is_full_holds_up_no_other_of_its_template() -> None:
    places = Places()
    waiting = Waiting(places, "a/v", "a")
    with waiting.stack:
        async with anyio.create_task_group() as tasks:
            await waiting.wait_all(tasks)
            places.full("a/v")
            await anyio.wait_all_tasks_blocked()
            assert waiting.turns == [("a", "place")]
            waiting.tickets["a"].placed()
            assert not places.comes_after("a"), "a newcomer need not wait for a volume's node"
            assert places.comes_after("a/v"), "and overtakes nobody of its own kind"
            places.freed("a")
            await anyio.wait_all_tasks_blocked()
            assert ("a/v", "place") in waiting.turns
            tasks.cancel_scope.cancel()


async def test_time_runs_out_and_the_place_goes_to_the_next() -> None:
    places = Places()
    with places.ticket("me", time.monotonic(), "a", "a") as ticket:
        assert await ticket.turn() is None
        assert ticket.place is None
    with places.ticket("me", time.monotonic() + 0.1, "a", "a") as ticket:
        assert await ticket.turn() is None
        assert ticket.place is not None
        assert ticket.place.position == 1
    assert places.waiting == 0


async def test_the_next_one_tries_once_the_one_before_has_its_place_or_has_found_none() -> None:
    places = Places()
    waiting = Waiting(places, "a", "b", "c")
    with waiting.stack:
        async with anyio.create_task_group() as tasks:
            await waiting.wait_all(tasks)
            places.freed()
            places.freed()  # while a tries: it is seen to once that is known
            await anyio.wait_all_tasks_blocked()
            assert waiting.turns == [("a", "place")]
            assert not places.is_waited_for("a")  # a warm one is for others now
            tasks.start_soon(waiting.wait, "a")  # in vain: it is the next again, and tries again
            await anyio.wait_all_tasks_blocked()
            assert waiting.turns == [("a", "place")] * 2
            waiting.tickets["a"].placed()  # and boots for long
            await anyio.wait_all_tasks_blocked()
            assert waiting.turns[2:] == [("b", "place")]
            waiting.tickets["b"].placed()
            await anyio.wait_all_tasks_blocked()
            assert waiting.turns[3:] == [("c", "place")]
            assert not places.has_next  # whoever comes now need not wait
            tasks.start_soon(waiting.wait, "a")  # its node died, and there is no other
            await anyio.wait_all_tasks_blocked()
            assert waiting.tickets["a"].place is not None
            assert waiting.tickets["a"].place.position == 1
            tasks.cancel_scope.cancel()
    assert places.waiting == 0


async def test_once_a_second_the_first_of_each_kind_try_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.05)
    places = Places()
    waiting = Waiting(places, "a", "b", "full", "a2", "c")
    alike = waiting.stack.enter_context(places.ticket("me", time.monotonic() + 30, "c", "c"))
    with waiting.stack:
        async with anyio.create_task_group() as tasks:
            await waiting.wait_all(tasks)
            tasks.start_soon(alike.turn)
            places._full["full"] = time.monotonic() + 30
            await eventually(lambda: len(waiting.turns) == 5)
            assert sorted(waiting.turns) == [
                ("a", "place"), ("a2", "warm"), ("b", "warm"), ("c", "warm"), ("full", "place")
            ]  # fmt: skip
            await anyio.wait_all_tasks_blocked()
            assert places.waiting == 6
            tasks.cancel_scope.cancel()


async def test_five_thousand_that_wait_cost_next_to_nothing() -> None:
    places = Places()
    until = time.monotonic() + 60
    tickets = [Ticket(places, f"tenant {n % 99}", until, "full", str(n % 20)) for n in range(4999)]
    tickets.append(Ticket(places, "tenant 0", until, "b", "b"))  # whose turn it is: the last of all
    for ticket in tickets:
        places.wait(ticket)
    places.full("full")
    took = []
    for _ in range(9):
        for ticket in tickets:
            if ticket.is_trying:
                places.wait(ticket)
        began = time.perf_counter()
        places.tick()
        took.append(time.perf_counter() - began)
        assert sum(ticket.is_trying for ticket in tickets) == 21  # the last, and one of each shape
    assert sorted(took)[4] < 0.2  # 1 ms on an idle machine
    for ticket in tickets:
        ticket.placed()
    assert places.waiting == 0


async def test_while_desktops_of_those_who_waited_boot_others_are_not_held_up(
    http: httpx.AsyncClient, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_room, may_boot = False, anyio.Event()
    start: Callable[..., Awaitable[Located]] = cluster.start
    boot: Callable[..., Awaitable[Endpoint]] = cluster.backend.start

    async def start_if_room(*args: object, **options: object) -> Located:
        if not has_room:
            raise NoCapacity("All places are taken.")
        return await start(*args, **options)

    async def boot_slowly(*args: object, **options: object) -> Endpoint:
        await may_boot.wait()
        return await boot(*args, **options)

    monkeypatch.setattr(cluster, "start", start_if_room)
    monkeypatch.setattr(cluster.backend, "start", boot_slowly)
    for _ in range(3):
        made = await claim(http, wait=False, queue_seconds=60)
        await eventually(partial(is_in, http, made, "queued"))
    has_room = True
    await eventually(lambda: len(cluster.starting) == 3)
    made = await claim(http, wait=False, queue_seconds=0)
    await eventually(lambda: len(cluster.starting) == 4)
    may_boot.set()
    await eventually(partial(is_in, http, made, "ready"))
    kinds = [each["kind"] for each in (await http.get("/v1/events")).json()["events"]]
    assert kinds.count("queued") == 3  # each once, however often it tried


async def is_in(http: httpx.AsyncClient, made: dict[str, object], state: str) -> bool:
    return bool((await http.get(f"/v1/workspaces/{made['id']}")).json()["state"] == state)


async def test_one_for_which_there_is_no_room_stands_in_nobodys_way(
    http: httpx.AsyncClient, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wants a kind of node of which each is full, and others want any."""
    began: list[str] = []
    is_full = True
    whole = cluster.start

    async def start(workspace_id: str, template: Template, **options: Any) -> Located:
        began.append(template.name)
        if template.name == "picky" and is_full:
            error = NoCapacity("All 2 places for desktops in the nodes with gpu=a100 are taken.")
            error.has_room_for_others = True
            raise error
        return await whole(workspace_id, template, **options)

    monkeypatch.setattr(cluster, "start", start)
    for name in ("picky", "plain"):
        await add_template(http, name)
    picky = await claim(http, template="picky", wait=False)

    async def is_queued() -> bool:
        found = (await http.get(f"/v1/workspaces/{picky['id']}")).json()
        return bool(found["state"] == "queued")

    await eventually(is_queued)
    assert (await claim(http, template="plain", queue_seconds=0))["state"] == "ready"
    assert await is_queued()
    is_full = False
    found = await http.get(f"/v1/workspaces/{picky['id']}?wait_seconds=15")
    assert found.json()["state"] == "ready"
    assert began.count("picky") >= 2
