"""Places that are asked for at the same time, of a head that is slow to tell of them."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from ray_cluster.capacity import PLACES
from ray_cluster.placement import Actor, Seen, Spot, Strategy, Wish, with_taken
from ray_cluster.placing import Placing
from workspace.errors import NoCapacity, Unavailable

pytestmark = pytest.mark.anyio
WISH = Wish({PLACES: 1})


class Head:
    """Four nodes with six places each."""

    def __init__(self) -> None:
        self.actors: dict[str, Actor] = {}
        self.looks = 0

    async def look(self) -> Seen:
        self.looks += 1
        await asyncio.sleep(0.01)
        spots = [Spot(name, name, {PLACES: 6}) for name in "abcd"]
        actors = dict(self.actors)
        await asyncio.sleep(0.01)
        return Seen(with_taken(spots, actors.values()), actors)

    def placing(self, strategy: Strategy = "spread") -> Placing:
        return Placing(self.look, lambda name: f"ns/{name}", strategy)


async def test_none_is_given_twice_and_all_are_given_evenly() -> None:
    head = Head()
    placing = head.placing()

    async def start(name: str) -> str:
        spot = await placing.reserve(name, WISH)
        await asyncio.sleep(0.03)  # until it is made, and until others see that
        head.actors[f"ns/{name}"] = Actor(spot.id, WISH.needs, is_alive=True)
        placing.made(name)
        return spot.id

    found = await asyncio.gather(
        *(start(f"d{number}") for number in range(30)), return_exceptions=True
    )
    assert sum(isinstance(each, NoCapacity) for each in found) == 6
    given = Counter(each for each in found if isinstance(each, str))
    assert given == {"a": 6, "b": 6, "c": 6, "d": 6}
    assert head.looks == 1
    with pytest.raises(NoCapacity, match="All 24 places"):
        await placing.reserve("late", WISH)
    del head.actors["ns/d3"]
    placing.release("d3")
    assert await placing.reserve("late", WISH)


async def test_a_place_that_was_not_used_is_free_again() -> None:
    placing = Head().placing("pack")
    first = [(await placing.reserve(f"d{number}", WISH)).id for number in range(7)]
    assert first == ["a"] * 6 + ["b"]
    placing.release("d2")
    assert (await placing.reserve("again", WISH)).id == "a"


async def test_who_waits_for_what_others_have_is_told() -> None:
    head = Head()
    placing = head.placing("pack")
    spot = await placing.reserve("mine", WISH)
    assert await placing.state("mine", spot, WISH.needs) == (False, False)
    head.actors["ns/mine"] = Actor("a", WISH.needs, is_alive=False)
    placing.release("")  # look again
    assert await placing.state("mine", spot, WISH.needs) == (False, False)
    head.actors |= {f"other/d{i}": Actor("a", WISH.needs, is_alive=True) for i in range(6)}
    placing.release("")
    assert await placing.state("mine", spot, WISH.needs) == (False, True)
    head.actors["ns/mine"] = Actor("a", WISH.needs, is_alive=True)
    placing.release("")
    assert await placing.state("mine", spot, WISH.needs) == (True, False)


async def test_a_head_that_does_not_answer_is_asked_once_for_all() -> None:
    head = Head()

    async def look() -> Seen:
        head.looks += 1
        await asyncio.sleep(0.05)
        raise Unavailable("Ray does not answer.")

    placing = Placing(look, lambda name: f"ns/{name}", "spread")
    found = await asyncio.gather(
        *(placing.reserve(f"d{number}", WISH) for number in range(20)), return_exceptions=True
    )
    assert all(isinstance(each, Unavailable) for each in found)
    assert head.looks <= 2
    with pytest.raises(Unavailable):  # and is asked again by the next
        await placing.reserve("late", WISH)
    assert head.looks <= 3
