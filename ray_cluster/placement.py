"""Which node one more desktop is placed on. Pure, but for reading what there is from Ray's head.

The node is chosen here and named to Ray, which counts and starts there: Ray's own strategies spread
what they place over whoever they see, and know neither of desktops that others have placed, nor
that one which fits nowhere is to be refused and not to wait.

Who is where is told by the head's table of actors: each names its node, and what it takes there,
from the moment that it is made, so that several controllers go by the same. The head is asked
through a client made for the one question. The driver's own (``ray.nodes()``) belongs to the head
that it joined: after a restart of the head it aborts the process.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal

from ray_cluster import labels
from ray_cluster.capacity import MEMORY, PLACES, PROCESSORS, Amounts, fullness, has_room
from ray_cluster.node import Machine
from workspace.errors import BackendUnavailable, NoCapacity
from workspace.models import Node

NODE_ID = "ray.io/node-id"  # the label that Ray itself gives each node
_BACK = "`carrel nodes undrain NODE` takes one back into service."
_LABELS = "`carrel nodes` shows which labels each has; `carrel ray node --label` gives it some."
# A desktop of another kind that may well fit.
_SMALLEST = {PLACES: 1.0, MEMORY: 512.0, PROCESSORS: 300.0}
_STATES = ("DEPENDENCIES_UNREADY", "PENDING_CREATION", "ALIVE")

Strategy = Literal["spread", "pack"]


@dataclass(frozen=True)
class Spot:
    """A node that lives, as far as it matters for what is placed there."""

    id: str
    name: str
    offered: Amounts
    taken: Amounts = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def has_room(self, needs: Amounts) -> bool:
        return has_room(self.offered, self.taken, needs)


@dataclass(frozen=True)
class Actor:
    """What takes room on a node; ``node`` is None where nobody tells."""

    node: str | None
    takes: Amounts
    is_alive: bool


@dataclass(frozen=True)
class Seen:
    """The cluster at a moment: its living nodes, and by name what takes room there."""

    spots: Sequence[Spot]
    actors: Mapping[str, Actor]


@dataclass(frozen=True)
class Wish:
    """What one desktop wants of its node."""

    needs: Amounts
    labels: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None  # of the one node that it may be on
    avoid: Collection[str] = ()  # ids of nodes that are being taken out of service


def choose(
    spots: Sequence[Spot],
    wish: Wish,
    strategy: Strategy,
    *,
    suspects: Collection[str] = (),
    tried: Collection[str] = (),
) -> Spot:
    """The emptiest node that will do, or with ``pack`` the fullest; the first of several alike.

    Suspects are for when there is nothing else that it could ever be on; those that were ``tried``
    are not taken again.

    Raises:
        NoCapacity: none has room now.
        BackendUnavailable: none will ever have, as the nodes are.
    """
    usable = _usable(spots, wish)
    if not any(spot.id not in wish.avoid for spot in usable):
        raise _draining(wish)
    usable = [spot for spot in usable if spot.id not in wish.avoid]
    healthy = [spot for spot in usable if spot.id not in suspects]
    considered = healthy or usable
    free = [spot for spot in considered if spot.has_room(wish.needs) and spot.id not in tried]
    if not free:
        sound = [each for each in spots if each.id not in {*wish.avoid, *suspects, *tried}]
        raise _full(considered, wish, sound)

    def rank(spot: Spot) -> tuple[float, float]:
        full = fullness(spot.offered, spot.taken)
        return (-full, 0) if strategy == "pack" else (full, spot.taken.get(PLACES, 0))

    return min(free, key=rank)


def could_be_elsewhere(
    spots: Sequence[Spot], wish: Wish, *, tried: Collection[str], suspects: Collection[str] = ()
) -> bool:
    """Whether there is a node that was not tried, and that it may be on once there is room."""
    try:
        usable = _usable(spots, wish)
    except (NoCapacity, BackendUnavailable):
        return False
    return any(spot.id not in {*wish.avoid, *tried, *suspects} for spot in usable)


def _usable(spots: Sequence[Spot], wish: Wish) -> list[Spot]:
    """Those that it could be on if they were empty and in service."""
    having = [spot for spot in spots if spot.offered.get(PLACES)]
    if wish.name is not None:
        named = [spot for spot in spots if spot.name == wish.name]
        if not named:
            raise BackendUnavailable(
                f"Node {wish.name!r} is not in the cluster.",
                hint="Start it again, and ask again then.",
            )
        having = [spot for spot in having if spot.name == wish.name]
    if not having:
        raise NoCapacity("No node of this cluster has a place for a desktop.")
    where = "No node of this cluster" if wish.name is None else f"Not even node {wish.name!r}"
    labelled = [spot for spot in having if labels.fits(wish.labels, spot.labels)]
    if not labelled:
        raise BackendUnavailable(
            f"{where} has the labels that its template wants: {labels.told(wish.labels)}.",
            hint=_LABELS,
        )
    large = [spot for spot in labelled if has_room(spot.offered, {}, wish.needs)]
    if not large:
        most = max(labelled, key=lambda spot: spot.offered.get(MEMORY, 0)).offered
        raise BackendUnavailable(
            f"{where} could hold a desktop of {_size(wish.needs)}, if it was empty:"
            f" {_size(most)} is the most that one has for desktops.",
            hint="Give its template less memory (or processors), or add a larger node.",
        )
    return large


def _draining(wish: Wish) -> NoCapacity:
    if wish.name is not None:
        return NoCapacity(
            f"Node {wish.name!r} is being taken out of service, and it must be that one.",
            hint=_BACK,
        )
    which = "Every node of this cluster" if not wish.labels else "Every node with its labels"
    return NoCapacity(f"{which} is being taken out of service.", hint=_BACK)


def _full(considered: Iterable[Spot], wish: Wish, sound: Iterable[Spot]) -> NoCapacity:
    spots = list(considered)
    where = "this cluster"
    if wish.name is not None:
        where = f"node {wish.name!r}"
    elif wish.labels:
        where = f"the nodes with {labels.told(wish.labels)}"
    must = ", and it must be that one" if wish.name is not None else ""
    if any(has_room(spot.offered, spot.taken, {PLACES: 1}) for spot in spots):
        text = f"Nothing in {where} has {_size(wish.needs)} left for one more desktop{must}."
    else:
        slots = sum(spot.offered.get(PLACES, 0) for spot in spots)
        text = f"All {slots:.0f} places for desktops in {where} are taken{must}."
    error = NoCapacity(text)
    small = {name: min(least, wish.needs.get(name, 0.0)) for name, least in _SMALLEST.items()}
    error.has_room_for_others = any(spot.has_room(small) for spot in sound)
    return error


def _size(amounts: Amounts) -> str:
    size = f"{amounts.get(MEMORY, 0):.0f} MiB"
    if PROCESSORS in amounts:
        size += f" and {amounts[PROCESSORS] / 1000:g} processors"
    return size


# What there is.


def look(address: str, *, seconds: float) -> Seen:
    """Ask the head. Blocks."""
    from ray._raylet import InnerGcsClient  # type: ignore[attr-defined]  # not in the stub

    head = InnerGcsClient.standalone(address, cluster_id=None, timeout_ms=int(seconds * 1000))

    async def actors() -> list[Any]:  # Any: Ray's messages
        # One after the other: what goes from one state to the next is seen in one at least.
        each = [await head.async_get_all_actor_info(None, None, it, seconds) for it in _STATES]
        return [info for found in each for info in found.values()]

    found: dict[str, Actor] = {}
    for info in asyncio.run(actors()):
        takes = {name: amount for name, amount in info.required_resources.items()}
        if PLACES not in takes:
            continue
        node = info.address.node_id.hex() if info.address.node_id else None
        told = info.label_selector.get(NODE_ID) or None
        key = f"{info.ray_namespace}/{info.name}" if info.name else info.actor_id.hex()
        is_alive = info.state == 2  # ActorTableData.ALIVE
        found[key] = Actor(node if is_alive and node else told or node, takes, is_alive)
    spots = [
        Spot(info.node_id.hex(), info.node_manager_hostname, *_told(info))
        for info in head.get_all_node_info(timeout=seconds).values()
        if info.state == 0  # GcsNodeInfo.ALIVE
    ]
    return Seen(with_taken(spots, found.values()), found)


def with_taken(spots: Iterable[Spot], actors: Iterable[Actor]) -> list[Spot]:
    """The nodes with what those take there beside what is taken already."""
    more: dict[str, defaultdict[str, float]] = {}
    for actor in actors:
        if actor.node is None:
            continue
        taken = more.setdefault(actor.node, defaultdict(float))
        for name, amount in actor.takes.items():
            taken[name] += amount
    return [
        Spot(
            spot.id,
            spot.name,
            spot.offered,
            {
                name: spot.taken.get(name, 0.0) + more[spot.id].get(name, 0.0)
                for name in spot.offered
            }
            if spot.id in more
            else spot.taken,
            spot.labels,
        )
        for spot in spots
    ]


def nodes(
    address: str, *, seconds: float, machines: Mapping[str, Machine] | None = None
) -> list[Node]:
    """The machines of the cluster, and how much of them is taken. Blocks.

    ``machines``: what some nodes have told of themselves (:func:`ray_cluster.node.machine`).
    """
    from ray._raylet import InnerGcsClient  # type: ignore[attr-defined]  # not in the stub

    head = InnerGcsClient.standalone(address, cluster_id=None, timeout_ms=int(seconds * 1000))
    usage = head.get_all_resource_usage(timeout=seconds).resource_usage_data.batch
    free = {data.node_id: dict(data.resources_available) for data in usage}
    found = []
    for info in head.get_all_node_info(timeout=seconds).values():
        is_alive = info.state == 0  # GcsNodeInfo.ALIVE
        offered, _, own = _told(info)
        left = free.get(info.node_id)
        taken = {
            name: whole - left.get(name, 0.0) if is_alive and left is not None else 0.0
            for name, whole in offered.items()
        }
        name = info.node_id.hex()
        machine = (machines or {}).get(name) if is_alive else None
        memory = offered.get(MEMORY)
        found.append(
            Node(
                id=name,
                name=info.node_manager_hostname,
                alive=is_alive,
                desktops=int(taken.get(PLACES, 0)),
                slots=int(offered.get(PLACES, 0)),
                labels=dict(own),
                since=datetime.fromtimestamp(info.start_time_ms / 1000, timezone.utc),
                desktops_mib=None if memory is None else int(memory),
                desktops_mib_taken=None if memory is None else int(taken[MEMORY]),
                cpus=machine["cpus"] if machine else None,
                memory_mib=machine["memory_mib"] if machine else None,
                # Where desktops are pods of their own, what is free in Ray's pod says nothing.
                memory_free_mib=machine["memory_free_mib"]
                if machine and PROCESSORS not in offered
                else None,
                desktops_millicpu=_whole(offered.get(PROCESSORS)),
                desktops_millicpu_taken=_whole(taken.get(PROCESSORS)),
            )
        )
    return found


def _whole(amount: float | None) -> int | None:
    return None if amount is None else int(amount)


def _told(info: Any) -> tuple[Amounts, Amounts, Mapping[str, str]]:  # Any: Ray's message
    """What a node offers, nothing yet taken of it, and its labels; its id is told anyway."""
    offered = {
        name: amount
        for name, amount in info.resources_total.items()
        if name.partition("_")[0] == PLACES
    }
    own = {name: value for name, value in info.labels.items() if name != NODE_ID}
    return offered, {}, own


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
