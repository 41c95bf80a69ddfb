"""Whether one more desktop has a place."""

from __future__ import annotations

import pytest

from ray_cluster.placement import NODE_ID, check_node, check_room, elsewhere
from workspace.errors import NoCapacity
from workspace.models import Node


def node(slots: int, *, alive: bool = True, desktops: int = 0) -> Node:
    return Node(id=f"n{slots}", name="n", alive=alive, slots=slots, desktops=desktops)


@pytest.mark.parametrize(("nodes", "taken"), [([node(1)], 0), ([node(2), node(1)], 2)])
def test_there_is_room(nodes: list[Node], taken: int) -> None:
    check_room(nodes, taken)


@pytest.mark.parametrize(
    ("nodes", "taken", "message"),
    [
        ([], 0, "No node"),
        ([node(0)], 0, "No node"),
        ([node(8, alive=False)], 0, "No node"),
        ([node(2), node(1)], 3, "All 3 places"),
        ([node(2), node(8, alive=False)], 2, "All 2 places"),
    ],
)
def test_there_is_none(nodes: list[Node], taken: int, message: str) -> None:
    with pytest.raises(NoCapacity, match=message):
        check_room(nodes, taken)


def test_a_node_to_avoid_has_no_room_and_what_it_has_takes_none() -> None:
    both = [node(2, desktops=2), node(3)]
    check_room(both, 4, {"n2"})
    with pytest.raises(NoCapacity, match="All 3 places"):
        check_room(both, 5, {"n2"})
    with pytest.raises(NoCapacity, match="being taken out of service"):
        check_room(both, 0, {"n2", "n3"})
    with pytest.raises(NoCapacity, match="being taken out of service"):
        check_node(node(3), {"n3"})


def test_an_actor_is_kept_off_nodes_that_live() -> None:
    both = [node(2), node(3), node(4, alive=False)]
    assert elsewhere(both, {"n2", "n4", "gone"}) == {NODE_ID: "!in(n2)"}
    assert elsewhere(both, {"n4"}) == {}
