"""The queue of claims that wait: its order, and what it says of it."""

from __future__ import annotations

import random
import time

import pytest

from controller.queue import FairQueue
from workspace.errors import NoCapacity


class Thing:
    """What waits; only itself is equal to it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


def queued(*pushed: str, most: int = 100) -> tuple[FairQueue[Thing], dict[str, Thing]]:
    """A queue of things called after their tenant: ``a1`` is a's."""
    queue: FairQueue[Thing] = FairQueue(most)
    things = {name: Thing(name) for name in pushed}
    for name, thing in things.items():
        queue.push(name[0], thing)
    return queue, things


def served(queue: FairQueue[Thing]) -> list[str]:
    names = []
    while (thing := queue.peek()) is not None:
        names.append(thing.name)
        queue.remove(thing)
    return names


def test_tenants_take_turns_and_each_is_first_come_first_served() -> None:
    queue, _ = queued("a1", "a2", "a3", "b1", "b2", "c1")
    assert served(queue) == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert len(queue) == 0
    assert queue.peek() is None


def test_who_comes_back_stands_behind_the_others() -> None:
    queue, things = queued("a1", "b1", "b2")
    queue.remove(things["a1"])
    queue.push("a", Thing("a2"))
    assert served(queue) == ["b1", "a2", "b2"]


def test_who_gives_up_leaves_the_order_of_the_others() -> None:
    queue, things = queued("a1", "a2", "b1", "c1")
    for name in ("b1", "a2", "a2"):  # again is nothing
        queue.remove(things[name], is_served=False)
    assert served(queue) == ["a1", "c1"]


def test_one_that_gives_up_does_not_cost_its_tenant_the_turn() -> None:
    queue, things = queued("a1", "a2", "b1")
    queue.remove(things["a1"], is_served=False)
    assert served(queue) == ["a2", "b1"]


def test_who_may_not_be_served_is_passed_over_and_keeps_its_place() -> None:
    queue, things = queued("a1", "a2", "b1", "b2")
    assert queue.peek(lambda thing: thing.name not in ("a1", "b1")) is things["a2"]
    assert queue.peek(lambda thing: False) is None
    queue.remove(things["a2"])
    assert served(queue) == ["b1", "a1", "b2"]


def test_too_many_are_refused_and_told_why() -> None:
    queue, things = queued("a1", "b1", most=2)
    with pytest.raises(NoCapacity, match="2 claims wait"):
        queue.push("c", Thing("c1"))
    queue.remove(things["a1"])
    queue.push("c", Thing("c1"))
    assert len(queue) == 2


@pytest.mark.parametrize("seed", range(5))
def test_positions_are_those_in_which_they_are_served(seed: int) -> None:
    chance = random.Random(seed)
    queue: FairQueue[Thing] = FairQueue()
    there: list[Thing] = []
    for number in range(200):
        tenant = chance.choice("aaaabbc")
        there.append(thing := Thing(f"{tenant}{number}"))
        queue.push(tenant, thing)
        if chance.random() < 0.4:
            gone = chance.choice([there[0], queue.peek() or there[0]])
            there.remove(gone)
            queue.remove(gone, is_served=chance.random() < 0.5)
    told = {thing.name: queue.position(thing) for thing in there}
    assert served(queue) == sorted(told, key=told.__getitem__)
    assert sorted(told.values()) == list(range(1, len(there) + 1))


def test_an_estimate_goes_by_how_fast_places_came() -> None:
    queue, things = queued("a1", "a2", "b1")
    assert queue.estimate(things["a1"], now=0) is None
    for at in (0, 10, 20, 30, 300, 310):  # once it took long: that does not count for much
        queue.served(at)
    assert queue.estimate(things["a1"], now=310) == 10
    assert queue.estimate(things["b1"], now=310) == 20
    assert queue.estimate(things["a2"], now=310) == 30
    later = queue.estimate(things["a1"], now=2000)
    assert later is not None
    assert later > 100  # nothing has come since


def test_ten_thousand_of_a_hundred_tenants_are_no_burden() -> None:
    queue: FairQueue[Thing] = FairQueue()
    begin = time.perf_counter()
    last = Thing("last")
    for number in range(9_999):
        queue.push(f"tenant {number % 100}", Thing(str(number)))
    queue.push("tenant 0", last)
    assert queue.position(last) == 10_000
    assert len(served(queue)) == 10_000
    assert time.perf_counter() - begin < 15


def test_who_waited_before_comes_back_first_of_all() -> None:
    queue, things = queued("a1", "b1", "b2")
    queue.remove(things["b1"])
    queue.push("b", things["b1"], first=True)
    assert served(queue) == ["b1", "a1", "b2"]
