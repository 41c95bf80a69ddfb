"""What nodes there are, and whether one more desktop has a place.

The head is asked through a client made for the one question. The driver's own (``ray.nodes()``)
belongs to the head that it joined: after a restart of the head it aborts the process.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timezone

from ray_cluster.node import Machine
from workspace.errors import BackendUnavailable, NoCapacity
from workspace.models import Node

RESOURCE = "desktop"
_BACK = "`carrel nodes undrain NODE` takes one back into service."
NODE_ID = "ray.io/node-id"  # the label that Ray itself gives each node


def nodes(
    address: str, *, seconds: float, machines: Mapping[str, Machine] | None = None
) -> list[Node]:
    """The machines of the cluster, and how many of their slots are taken. Blocks.

    ``machines``: what some nodes have told of themselves (:func:`ray_cluster.node.machine`).
    """
    from ray._raylet import InnerGcsClient  # type: ignore[attr-defined]  # not in the stub

    head = InnerGcsClient.standalone(address, cluster_id=None, timeout_ms=int(seconds * 1000))
    usage = head.get_all_resource_usage(timeout=seconds).resource_usage_data.batch
    free = {data.node_id: data.resources_available.get(RESOURCE, 0.0) for data in usage}
    found = []
    for info in head.get_all_node_info(timeout=seconds).values():
        is_alive = info.state == 0  # GcsNodeInfo.ALIVE
        slots = info.resources_total.get(RESOURCE, 0.0)
        taken = slots - free.get(info.node_id, slots) if is_alive else 0
        name = info.node_id.hex()
        machine = (machines or {}).get(name) if is_alive else None
        found.append(
            Node(
                id=name,
                name=info.node_manager_hostname,
                alive=is_alive,
                desktops=int(taken),
                slots=int(slots),
                since=datetime.fromtimestamp(info.start_time_ms / 1000, timezone.utc),
                cpus=machine["cpus"] if machine else None,
                memory_mib=machine["memory_mib"] if machine else None,
                memory_free_mib=machine["memory_free_mib"] if machine else None,
            )
        )
    return found


def named(nodes: Sequence[Node], name: str) -> Node:
    """The living node of that name; the emptiest, where several call themselves so.

    Raises:
        BackendUnavailable: there is none.
    """
    living = [node for node in nodes if node.alive and node.name == name]
    if not living:
        raise BackendUnavailable(
            f"Node {name!r} is not in the cluster.", hint="Start it again, and ask again then."
        )
    return max(living, key=lambda node: node.slots - node.desktops)


def check_node(node: Node, avoid: Collection[str] = ()) -> None:
    """Whether it has a place for one more desktop.

    Raises:
        NoCapacity: it has none, or is one to ``avoid``.
    """
    if node.id in avoid:
        raise NoCapacity(
            f"Node {node.name!r} is being taken out of service, and it must be that one.",
            hint=_BACK,
        )
    if node.desktops >= node.slots:
        raise NoCapacity(
            f"All {node.slots} places for desktops of node {node.name!r} are taken, "
            "and it must be that one."
        )


def check_room(nodes: Sequence[Node], taken: int, avoid: Collection[str] = ()) -> None:
    """Whether one more desktop has a place beside ``taken`` that live, start or wait.

    Counted by names, not by what nodes say is free: they tell of it a moment later. Only of the
    nodes to ``avoid`` is it believed how many of those they have.

    Raises:
        NoCapacity: it has none. Ray would let it wait for ever.
    """
    alive = [node for node in nodes if node.alive]
    slots = sum(node.slots for node in alive if node.id not in avoid)
    if not slots and any(node.slots for node in alive):
        raise NoCapacity("Every node of this cluster is being taken out of service.", hint=_BACK)
    if not slots:
        raise NoCapacity("No node of this cluster has a place for a desktop.")
    if taken - sum(node.desktops for node in alive if node.id in avoid) >= slots:
        raise NoCapacity(f"All {slots} places for desktops in this cluster are taken.")


def elsewhere(nodes: Sequence[Node], avoid: Collection[str]) -> dict[str, str]:
    """The label selector that keeps an actor off those nodes; empty where none is to be avoided.

    Of nodes that are gone it says nothing: else there would be no end to its length.
    """
    known = sorted(node.id for node in nodes if node.alive and node.id in avoid)
    return {NODE_ID: f"!in({','.join(known)})"} if known else {}
