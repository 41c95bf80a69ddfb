"""The nodes as operators see and set them: what the cluster tells, what waits there, what drains.

A node that drains gets no new desktops. Its warm ones are ended by the pools' plan, the claimed
ones live until they end. It drains until that is taken back, for all controllers and through their
restarts, because the store says so. A node that was started again is another one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from workspace.errors import CarrelError, NotFound
from workspace.fleet import Controller, NodeChange, Status

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from controller.lifecycle import Lifecycle
    from controller.tail import Tail
    from controller.warming import Warming
    from workspace.models import Node

T = TypeVar("T")


@dataclass(frozen=True)
class Nodes:
    """The nodes of one cluster, for one controller."""

    lifecycle: Lifecycle
    pools: Warming
    tail: Tail

    async def all(self) -> list[Node]:
        """Every node that the cluster knows; those that left it lately too, as not alive.

        Raises:
            Unavailable: the cluster or the store does not answer.
        """
        found = await self.lifecycle.cluster.nodes()
        draining = await self.lifecycle.store.operated.draining()
        warm = await self.lifecycle.store.warm.by_node()
        alike = Counter(node.name for node in found if node.alive)
        return [
            node.model_copy(
                update={
                    "draining": node.id in draining,
                    # A row has the node's name; of two that are called the same, nobody knows.
                    "warm": warm.get(node.name, 0) if node.alive and alike[node.name] == 1 else 0,
                }
            )
            for node in sorted(found, key=lambda node: (not node.alive, node.name, node.id))
        ]

    async def change(self, node_id: str, change: NodeChange, *, actor: str) -> Node:
        """Drain it, or take it back into service.

        Raises:
            NotFound: the cluster knows no such node.
        """
        node = next((each for each in await self.all() if each.id == node_id), None)
        if node is None:
            raise NotFound(f"There is no node {node_id[:80]!r}.", hint="`carrel nodes` lists them.")
        if node.draining == change.draining:
            return node
        operated = self.lifecycle.store.operated
        await (operated.drain(node_id) if change.draining else operated.undrain(node_id))
        kind = "drain" if change.draining else "undrain"
        await self.lifecycle.events.record(kind, actor=actor, node=node.name, node_id=node_id)
        self.pools.changed("")  # its warm ones are to go, or there is room
        self.lifecycle.keeping.places.freed()
        return node.model_copy(update={"draining": change.draining})

    async def status(self) -> Status:
        """All of it at a glance; what does not answer is told of, and left empty.

        Raises:
            Unavailable: the store does not answer.
        """
        store = self.lifecycle.store
        troubles = [self.tail.trouble] if self.tail.trouble else []
        queued = await store.population.queued()
        states = Counter(queued=len(queued))
        for group in await store.population.placed():
            states[group.state] += group.many
        names = sorted(await store.replicas.beats())
        leader = await store.leadership.leader(names)
        return Status(
            controllers=[Controller(id=name, leads=name == leader) for name in names],
            nodes=await _or_trouble(self.all(), troubles),
            pools=await _or_trouble(self.pools.statuses(), troubles),
            workspaces={state: many for state, many in sorted(states.items()) if many},
            waiting=len(queued),
            strays=self.lifecycle.metrics.strays,
            troubles=troubles,
        )


async def _or_trouble(asked: Awaitable[list[T]], troubles: list[str]) -> list[T]:
    try:
        return await asked
    except CarrelError as error:
        if error.message not in troubles:
            troubles.append(error.message)
        return []
