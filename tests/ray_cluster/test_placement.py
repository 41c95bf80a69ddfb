"""Which node one more desktop is placed on: the emptiest that will do, or none and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import pytest

from ray_cluster.capacity import MEMORY, PLACES
from ray_cluster.placement import Actor, Spot, Strategy, Wish, choose, with_taken
from workspace.errors import BackendUnavailable, CarrelError, NoCapacity

SMALL = Wish({PLACES: 1, MEMORY: 1000})


def spot(
    name: str, slots: float = 4, taken: float = 0, mib: float | None = None, **labels: str
) -> Spot:
    """Of whose memory each desktop there takes 1,000 MiB."""
    offered = {PLACES: slots} | ({} if mib is None else {MEMORY: mib})
    return Spot(name, name, offered, {PLACES: taken, MEMORY: taken * 1000}, labels)


def placed(spots: list[Spot], many: int, wish: Wish, strategy: Strategy) -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in range(many):
        chosen = choose(spots, wish, strategy)
        found[chosen.id] += 1
        spots = with_taken(spots, [Actor(chosen.id, wish.needs, is_alive=True)])
    return found


@pytest.mark.parametrize(
    ("strategy", "many", "expected"),
    [
        ("spread", 100, {"a": 25, "b": 25, "c": 25, "d": 25}),
        ("spread", 6, {"a": 2, "b": 2, "c": 1, "d": 1}),
        ("pack", 25, {"a": 25}),
        ("pack", 70, {"a": 30, "b": 30, "c": 10}),
    ],
)
def test_they_are_spread_evenly_or_one_node_is_filled_before_the_next(
    strategy: Strategy, many: int, expected: dict[str, int]
) -> None:
    nodes = [spot(name, 30) for name in "abcd"]
    assert placed(nodes, many, SMALL, strategy) == expected


def test_a_larger_node_gets_more_and_what_was_there_before_counts() -> None:
    assert placed([spot("a", 10), spot("b", 30)], 20, SMALL, "spread") == {"a": 5, "b": 15}
    assert placed([spot("a", 10, 6), spot("b", 10)], 6, SMALL, "spread") == {"b": 6}


def test_memory_is_never_given_twice_however_large_each_is() -> None:
    nodes = [spot("a", 99, mib=5500), spot("b", 99, mib=3000)]
    large = Wish({PLACES: 1, MEMORY: 4000})
    assert choose(nodes, large, "spread").id == "a"
    nodes = with_taken(nodes, [Actor("a", large.needs, is_alive=False)])
    assert placed(nodes, 4, SMALL, "spread") == {"a": 1, "b": 3}
    with pytest.raises(NoCapacity, match="4000 MiB left") as caught:
        choose(nodes, large, "spread")
    assert caught.value.has_room_for_others


@pytest.mark.parametrize(
    ("nodes", "wish", "error", "message", "others"),
    [
        ([], SMALL, NoCapacity, "No node of this cluster has a place", False),
        ([spot("a", 0)], SMALL, NoCapacity, "No node of this cluster has a place", False),
        ([spot("a", 2, 2), spot("b", 1, 1)], SMALL, NoCapacity, "All 3 places", False),
        ([spot("a", mib=500)], SMALL, BackendUnavailable, "500 MiB is the most", False),
        ([spot("a"), spot("b", zone="x")], Wish(SMALL.needs, {"zone": "in(y,z)"}),
         BackendUnavailable, "labels that its template wants: zone=in", False),
        ([spot("a"), spot("b", 1, 1, zone="x")], Wish(SMALL.needs, {"zone": "x"}),
         NoCapacity, "All 1 places for desktops in the nodes with zone=x", True),
        ([spot("a", 2, 2), spot("b")], Wish(SMALL.needs, name="a"),
         NoCapacity, "All 2 places for desktops in node 'a' are taken, and it must be", True),
        ([spot("b")], Wish(SMALL.needs, name="a"), BackendUnavailable, "'a' is not in", False),
        ([spot("b")], Wish(SMALL.needs, {"zone": "x"}, name="b"),
         BackendUnavailable, "Not even node 'b' has the labels", False),
        ([spot("a"), spot("b")], Wish(SMALL.needs, avoid={"a", "b"}),
         NoCapacity, "Every node of this cluster is being taken out", False),
        ([spot("a"), spot("b")], Wish(SMALL.needs, name="a", avoid={"a"}),
         NoCapacity, "'a' is being taken out of service, and it must be", False),
        ([spot("a"), spot("b", 2, 2)], Wish(SMALL.needs, avoid={"a"}),
         NoCapacity, "All 2 places", False),
    ],
)  # fmt: skip
def test_why_there_is_none(
    nodes: list[Spot], wish: Wish, error: type[CarrelError], message: str, others: bool
) -> None:
    with pytest.raises(error, match=message) as caught:
        choose(nodes, wish, "spread")
    assert getattr(caught.value, "has_room_for_others", False) is others


@pytest.mark.parametrize(
    ("suspects", "tried", "expected"),
    [
        ({"a"}, set(), "b"),
        ({"a", "b"}, set(), "a"),  # the emptiest, where there is nothing else
        ({"a", "b"}, {"a"}, "b"),
        (set(), {"a"}, "b"),
        (set(), {"a", "b"}, None),
        ({"a"}, {"b"}, None),  # the one that is sound was tried
    ],
)
def test_suspects_are_for_when_there_is_nothing_else(
    suspects: Collection[str], tried: Collection[str], expected: str | None
) -> None:
    nodes = [spot("a"), spot("b", 4, 1)]
    if expected is None:
        with pytest.raises(NoCapacity):
            choose(nodes, SMALL, "spread", suspects=suspects, tried=tried)
    else:
        assert choose(nodes, SMALL, "spread", suspects=suspects, tried=tried).id == expected


def test_a_sound_node_that_is_full_is_waited_for() -> None:
    with pytest.raises(NoCapacity, match="All 2 places"):
        choose([spot("a"), spot("b", 2, 2)], SMALL, "spread", suspects={"a"})
