"""What nodes there are, and whether one more desktop has a place.

The head is asked through a client made for the one question. The driver's own (``ray.nodes()``)
belongs to the head that it joined: after a restart of the head it aborts the process.
"""

from __future__ import annotations

from collections.abc import Sequence

from workspace.errors import NoCapacity
from workspace.models import Node

RESOURCE = "desktop"


def nodes(address: str, *, seconds: float) -> list[Node]:
    """The machines of the cluster, and how many of their slots are taken. Blocks."""
    from ray._raylet import InnerGcsClient  # type: ignore[attr-defined]  # not in the stub

    head = InnerGcsClient.standalone(address, cluster_id=None, timeout_ms=int(seconds * 1000))
    usage = head.get_all_resource_usage(timeout=seconds).resource_usage_data.batch
    free = {data.node_id: data.resources_available.get(RESOURCE, 0.0) for data in usage}
    found = []
    for info in head.get_all_node_info(timeout=seconds).values():
        is_alive = info.state == 0  # GcsNodeInfo.ALIVE
        slots = info.resources_total.get(RESOURCE, 0.0)
        taken = slots - free.get(info.node_id, slots) if is_alive else 0
        found.append(
            Node(
                id=info.node_id.hex(),
                name=info.node_manager_hostname,
                alive=is_alive,
                desktops=int(taken),
                slots=int(slots),
            )
        )
    return found


def check_room(nodes: Sequence[Node], taken: int) -> None:
    """Whether one more desktop has a place beside ``taken`` that live, start or wait.

    Counted by names, not by what nodes say is free: they tell of it a moment later.

    Raises:
        NoCapacity: it has none. Ray would let it wait for ever.
    """
    slots = sum(node.slots for node in nodes if node.alive)
    if not slots:
        raise NoCapacity("No node of this cluster has a place for a desktop.")
    if taken >= slots:
        raise NoCapacity(f"All {slots} places for desktops in this cluster are taken.")
