"""Whether one more desktop has a place."""

from __future__ import annotations

import pytest

from ray_cluster.placement import check_room
from workspace.errors import NoCapacity
from workspace.models import Node


def node(slots: int, *, alive: bool = True) -> Node:
    return Node(id=f"n{slots}", name="n", alive=alive, slots=slots)


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
