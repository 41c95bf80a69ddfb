"""How many desktops a node carries: the resources of Ray by which they are counted. Pure.

A node has places (``desktop``), memory (``desktop_mib``) and processors (``desktop_millicpu``) for
desktops, and each desktop takes one place and its footprint. So templates of different sizes are
never given more than the node has, whoever starts them: Ray counts, on a laptop as in a cluster.
Where a node does not tell of memory or processors, these are not limited there.
"""

from __future__ import annotations

from collections.abc import Mapping

from ray_cluster.node import Machine
from workspace.backends.footprint import Footprint

PLACES = "desktop"
MEMORY = "desktop_mib"
PROCESSORS = "desktop_millicpu"

Amounts = Mapping[str, float]

# For the system, Ray and whatever else a node has to run.
RESERVED_MIB, RESERVED_SHARE = 1024, 0.05
RESERVED_MILLICPUS = 500
# Places, where nobody says how many: desktops of the smallest kind that people use.
MIB_PER_PLACE = 768
# What a desktop's actor takes of a node that is a pod, whose desktops are pods of their own.
ACTOR_MIB, NODE_MIB = 80, 600


def of(
    machine: Machine,
    *,
    desktops: int | None = None,
    memory_mib: int | None = None,
    overcommit: float = 1.0,
    for_pods: bool = False,
) -> dict[str, float]:
    """What a node on this machine offers.

    Args:
        desktops: places; by memory unless given, none: it runs no desktop.
        memory_mib: for desktops in all; by the machine's unless given.
        overcommit: how many times the memory is given, as desktops seldom use all of theirs.
        for_pods: desktops are pods beside this process, and not in its control groups.
    """
    if desktops == 0:
        return {}
    whole = machine["total_mib"] if for_pods else machine["memory_mib"]
    if memory_mib is None:
        reserved = max(RESERVED_MIB, whole * RESERVED_SHARE)
        memory_mib = int(max(0.0, whole - reserved) * overcommit)
    if desktops is None:
        desktops = max(1, memory_mib // MIB_PER_PLACE)
        if for_pods:
            desktops = max(1, min(desktops, (machine["memory_mib"] - NODE_MIB) // ACTOR_MIB))
    offered: dict[str, float] = {PLACES: desktops, MEMORY: memory_mib}
    if for_pods:
        offered[PROCESSORS] = max(0, machine["cpus"] * 1000 - RESERVED_MILLICPUS)
    return offered


def needed(footprint: Footprint) -> dict[str, float]:
    """What one desktop takes."""
    taken = {PLACES: 1.0, MEMORY: footprint.memory_mib, PROCESSORS: footprint.millicpus}
    return {name: amount for name, amount in taken.items() if amount}


def asked_of(offered: Amounts, needs: Amounts) -> dict[str, float]:
    """What Ray is to count on a node that offers that: what it has none of, it does not count."""
    return {name: amount for name, amount in needs.items() if name in offered}


def has_room(offered: Amounts, taken: Amounts, needs: Amounts) -> bool:
    """Whether so much is left; of places there are none unless they are offered."""
    if PLACES not in offered:
        return False
    return all(
        taken.get(name, 0.0) + amount <= offered[name]
        for name, amount in asked_of(offered, needs).items()
    )


def fullness(offered: Amounts, taken: Amounts) -> float:
    """How full it is by what is scarcest there: 0, or 1 where nothing is left."""
    return max(
        (taken.get(name, 0.0) / whole if whole else 1.0 for name, whole in offered.items()),
        default=1.0,
    )
