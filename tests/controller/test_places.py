"""Who of those that wait may try, and for what."""

from __future__ import annotations

import time
from contextlib import ExitStack

import anyio
import pytest

from controller.places import Places, Ticket, Turn

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
            waiting.tickets["b"].leave(is_served=True)
            assert not places.has_next  # whoever comes now need not wait
            places.freed("a")
            await anyio.wait_all_tasks_blocked()
            assert waiting.turns[1:] == [("a", "place")]
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
